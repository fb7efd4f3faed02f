//! All measurements, as `make bench` has them, within some ten minutes. Whatever cannot run says
//! why; then the exit status says so too, once everything else is written.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde::Serialize;

use crate::compare::{Row, compare};
use crate::host::database::{Kind, SETTINGS};
use crate::host::machine::Machine;
use crate::measure::{AGENTS, Case};
use crate::parts::{self, Part};
use crate::workload::Workload;
use crate::{ReplicasArgs, SuiteArgs, chart, replicas, report, wire};

/// How many runs are in flight when their replica is killed.
const ADOPTED: usize = 10_000;
/// The same when there is little time.
const ADOPTED_QUICK: usize = 1_000;

/// Everything, for those who want more than the summary.
#[derive(Debug, Serialize)]
struct Details<'a> {
    machine: &'a Machine,
    postgres_settings: &'a [(&'a str, &'a str)],
    rows: &'a [Row],
    parts: &'a [Part],
    seconds: f64,
}

/// One line of the plan.
struct Planned {
    case: Case,
    repeats: usize,
}

fn plan(args: &SuiteArgs) -> Vec<Planned> {
    let stores = [Kind::Postgres, Kind::Sqlite];
    let loads: &[(Workload, &[u32])] = if args.quick {
        &[(Workload::Chain, &[1, 64, 2000]), (Workload::FanOut, &[20])]
    } else {
        &[
            (Workload::Chain, &[1, 64, 512, 2000]),
            (Workload::FanOut, &[1, 20, 64, 512, 2000]),
            (Workload::Foreach, &[20]),
        ]
    };
    let mut planned = Vec::new();
    for store in stores.into_iter().filter(|kind| args.store.is_none_or(|only| only == *kind)) {
        for (workload, concurrencies) in loads {
            for concurrency in *concurrencies {
                planned.push(plan_one(*workload, store, *concurrency, args.quick));
            }
        }
    }
    planned
}

/// The more tasks at a time, the longer a run takes; the window holds several of them.
fn plan_one(workload: Workload, store: Kind, concurrency: u32, quick: bool) -> Planned {
    let tasks = concurrency.saturating_mul(workload.steps());
    let (warm_up, window, repeats) = match (tasks, quick) {
        (0..=20_000, true) => (1.0, 3.0, 1),
        (0..=20_000, false) => (1.5, 4.0, 3),
        (20_001..=60_000, _) => (3.0, 6.0, 2),
        _ => (8.0, 12.0, 1),
    };
    let case = Case {
        workload,
        store,
        concurrency,
        warm_up: Duration::from_secs_f64(warm_up),
        window: Duration::from_secs_f64(window),
        agents: AGENTS,
        request_ids: false,
    };
    Planned { case, repeats }
}

/// Takes all measurements and writes what came of them.
pub(crate) async fn run(binary: &Path, args: &SuiteArgs) -> anyhow::Result<()> {
    let began = Instant::now();
    fs::create_dir_all(&args.out)
        .with_context(|| format!("cannot make the folder {}", args.out.display()))?;
    let machine = Machine::look()?;
    eprintln!("{}", machine.sentence());
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    for Planned { case, repeats } in plan(args) {
        let name = format!(
            "{}, {} at a time, {}",
            case.workload.name(),
            case.concurrency,
            case.store.name()
        );
        eprintln!("{name} …");
        match compare(binary, &case, repeats).await {
            Ok(compared) => rows.push(Row::of(&compared)),
            Err(why) => {
                eprintln!("{name}: could not be measured: {why:#}");
                failed.push(format!("{name}: {why:#}"));
            }
        }
    }
    let parts = take_parts(binary, args).await;
    failed.extend(parts.iter().filter_map(|part| part.failed.clone()));
    write(args, &machine, &rows, &parts, began.elapsed())?;
    println!("{}", report::table(&rows));
    println!("\n{}", report::parts(&parts));
    let out = args.out.display();
    println!("written: {out}/summary.json, {out}/details.json, {out}/chart.svg, {out}/table.md");
    if !failed.is_empty() {
        bail!("{} measurements could not be taken:\n{}", failed.len(), failed.join("\n"));
    }
    Ok(())
}

async fn take_parts(binary: &Path, args: &SuiteArgs) -> Vec<Part> {
    eprintln!("the other figures …");
    let mut all = Vec::new();
    let first = parts::first_run(binary).await;
    let what = "process start to the end of the first run, embedded store";
    all.push(Part::of(what, "under 300 ms", first));
    let store = args.store.unwrap_or(Kind::Postgres);
    let what = format!("cancel to the handler's token, {}", store.name());
    all.push(Part::of(&what, "p99 under 50 ms", parts::cancel(binary, store).await));
    if args.store != Some(Kind::Sqlite) {
        let runs = if args.quick { ADOPTED_QUICK } else { ADOPTED };
        all.extend(replicas::parts(binary, &ReplicasArgs { runs, only_kill: false }).await);
    }
    for concurrency in [64, 2000] {
        let second = Duration::from_secs(1);
        let wire = wire::measure(concurrency, AGENTS, second, 2 * second).await;
        let what = format!("bare stream with {concurrency} tasks out, no database");
        all.push(Part::of(&what, "-", wire.map(|rate| format!("{rate:.0} tasks/s"))));
    }
    all
}

fn write(
    args: &SuiteArgs,
    machine: &Machine,
    rows: &[Row],
    parts: &[Part],
    took: Duration,
) -> anyhow::Result<()> {
    let file = |name: &str, text: &str| {
        let path = args.out.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    let seconds = took.as_secs_f64();
    let details = Details { machine, postgres_settings: &SETTINGS, rows, parts, seconds };
    file("summary.json", &serde_json::to_string_pretty(rows)?)?;
    file("details.json", &serde_json::to_string_pretty(&details)?)?;
    file("chart.svg", &chart::draw(rows, &machine.sentence()))?;
    let tables = format!("{}\n{}", report::markdown(rows), report::parts(parts));
    file("table.md", &format!("{}\n\n{tables}", machine.sentence()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_has_what_is_promised_and_stays_within_its_time() {
        let args = SuiteArgs { quick: false, out: "x".into(), store: None };
        let planned = plan(&args);
        for store in [Kind::Sqlite, Kind::Postgres] {
            for workload in [Workload::Chain, Workload::FanOut] {
                for concurrency in [1, 64, 512, 2000] {
                    assert!(planned.iter().any(|it| {
                        let case = &it.case;
                        (case.store, case.workload, case.concurrency)
                            == (store, workload, concurrency)
                    }));
                }
            }
        }
        let seconds: f64 = planned
            .iter()
            .map(|it| {
                let case = &it.case;
                (case.warm_up + case.window).as_secs_f64() * it.repeats as f64 * 1.5
            })
            .sum();
        assert!(seconds < 600.0, "{seconds}");
    }
}
