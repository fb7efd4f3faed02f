//! Product and limit in turns, so that what else the machine does hits both alike.

use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use crate::limit::{self, Recorded};
use crate::measure::{Case, CpuSplit, Figures, Setting};
use crate::statistics::median;

/// What came of measuring a case and its limit, one behind the other.
#[derive(Clone, Debug)]
pub(crate) struct Compared {
    pub(crate) figures: Vec<Figures>,
    /// Steps a second of the bare statement, behind each of the figures.
    pub(crate) limits: Vec<f64>,
    pub(crate) transitions_per_run: usize,
    pub(crate) body_bytes_per_step: f64,
    pub(crate) limit_batch: f64,
    pub(crate) limit_cpu_micros_per_step: f64,
}

/// One line of the summary. The first ten fields are what others read.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) workload: String,
    pub(crate) store: String,
    pub(crate) concurrency: u32,
    pub(crate) steps_per_second: f64,
    pub(crate) runs_per_second: f64,
    pub(crate) limit_steps_per_second: f64,
    pub(crate) ratio_to_limit: f64,
    /// Of a step: from ready to succeeded.
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) server_rss_mb: f64,
    pub(crate) max_ms: f64,
    /// Of a whole run, as the client sees it.
    pub(crate) run_p50_ms: f64,
    pub(crate) run_p99_ms: f64,
    pub(crate) run_max_ms: f64,
    pub(crate) cpu_micros_per_step: CpuSplit,
    pub(crate) cores_busy: f64,
    pub(crate) wal_bytes_per_step: Option<f64>,
    pub(crate) transitions_per_run: usize,
    pub(crate) body_bytes_per_step: f64,
    /// Transitions in a commit of the product.
    pub(crate) batch: f64,
    /// Transitions in a batch of the bare statement.
    pub(crate) limit_batch: f64,
    /// CPU time of the bare statement: its process and the database.
    pub(crate) limit_cpu_micros_per_step: f64,
    /// That over the CPU time of the product's processes: a ratio that other users of the machine
    /// do not change.
    pub(crate) ratio_by_cpu: f64,
    pub(crate) repeats: usize,
}

/// Measures a case and its limit in turns.
pub(crate) async fn compare(
    binary: &Path,
    case: &Case,
    repeats: usize,
) -> anyhow::Result<Compared> {
    let mut setting = Setting::start(binary, case).await?;
    let (mut figures, mut limits) = (Vec::new(), Vec::new());
    let (mut batches, mut cpus) = (Vec::new(), Vec::new());
    let mut recorded: Option<Recorded> = None;
    let (mut ended, steps) = (0, f64::from(case.workload.steps()));
    for _ in 0..repeats.max(1) {
        let (figure, loaded) = setting.measure(case).await?;
        let batch = figure.batch;
        figures.push(figure);
        ended += loaded.ended;
        if recorded.is_none() {
            let run_id = loaded.run_ids.last().context("a run ended in the window")?;
            recorded = Some(Recorded::read(&setting.database.url(), run_id).await?);
        }
        let Some(recorded) = &recorded else { continue };
        let Case { store, concurrency, warm_up, window, .. } = *case;
        let load = limit::Load { concurrency, batch };
        let bare = limit::measure(recorded, store, load, warm_up / 4, window / 2).await?;
        limits.push(bare.runs_per_second * steps);
        batches.push(bare.batch);
        cpus.push(bare.cpu_micros_per_run / steps);
    }
    setting.end(ended * u64::from(case.workload.steps())).await?;
    let recorded = recorded.context("a run was recorded")?;
    Ok(Compared {
        figures,
        limits,
        transitions_per_run: recorded.transitions(),
        body_bytes_per_step: recorded.body_bytes() as f64 / steps,
        limit_batch: median(&batches).unwrap_or(0.0),
        limit_cpu_micros_per_step: median(&cpus).unwrap_or(0.0),
    })
}

impl Row {
    /// The medians of what was measured.
    pub(crate) fn of(compared: &Compared) -> Self {
        let Compared { figures, limits, .. } = compared;
        let middle = |of: &dyn Fn(&Figures) -> f64| {
            median(&figures.iter().map(of).collect::<Vec<_>>()).unwrap_or(0.0)
        };
        let greatest = |of: &dyn Fn(&Figures) -> f64| figures.iter().map(of).fold(0.0, f64::max);
        let ratios: Vec<f64> = figures
            .iter()
            .zip(limits)
            .map(|(figures, limit)| figures.steps_per_second / limit)
            .collect();
        let cpu = |of: &dyn Fn(&CpuSplit) -> f64| middle(&|it| of(&it.cpu_micros_per_step));
        let first = figures.first();
        let all = middle(&|it| it.cpu_micros_per_step.all());
        Self {
            workload: first.map(|it| it.workload.clone()).unwrap_or_default(),
            store: first.map(|it| it.store.clone()).unwrap_or_default(),
            concurrency: first.map_or(0, |it| it.concurrency),
            steps_per_second: middle(&|it| it.steps_per_second).round(),
            runs_per_second: middle(&|it| it.runs_per_second).round(),
            limit_steps_per_second: median(limits).unwrap_or(0.0).round(),
            ratio_to_limit: thousandths(median(&ratios).unwrap_or(0.0)),
            p50_ms: thousandths(middle(&|it| it.step.p50_ms)),
            p99_ms: thousandths(middle(&|it| it.step.p99_ms)),
            server_rss_mb: greatest(&|it| it.server_rss_mb).round(),
            max_ms: thousandths(greatest(&|it| it.step.max_ms)),
            run_p50_ms: thousandths(middle(&|it| it.run.p50_ms)),
            run_p99_ms: thousandths(middle(&|it| it.run.p99_ms)),
            run_max_ms: thousandths(greatest(&|it| it.run.max_ms)),
            cpu_micros_per_step: CpuSplit {
                server: cpu(&|it| it.server),
                agents: cpu(&|it| it.agents),
                database: cpu(&|it| it.database),
                client: cpu(&|it| it.client),
            },
            cores_busy: thousandths(middle(&|it| it.cores_busy)),
            wal_bytes_per_step: first
                .and_then(|it| it.wal_bytes_per_step)
                .map(|_| middle(&|it| it.wal_bytes_per_step.unwrap_or(0.0)).round()),
            transitions_per_run: compared.transitions_per_run,
            body_bytes_per_step: compared.body_bytes_per_step.round(),
            batch: middle(&|it| it.batch).round(),
            limit_batch: compared.limit_batch.round(),
            limit_cpu_micros_per_step: thousandths(compared.limit_cpu_micros_per_step),
            ratio_by_cpu: thousandths(compared.limit_cpu_micros_per_step / all),
            repeats: figures.len(),
        }
    }
}

fn thousandths(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::Spread;

    fn figures(steps_per_second: f64) -> Figures {
        Figures {
            workload: "chain".to_owned(),
            store: "postgres".to_owned(),
            concurrency: 64,
            seconds: 1.0,
            steps_per_second,
            runs_per_second: steps_per_second / 5.0,
            step: Spread { p50_ms: 1.0, p99_ms: 2.0, max_ms: steps_per_second, count: 9 },
            run: Spread::default(),
            cpu_micros_per_step: CpuSplit { server: 25.0, agents: 15.0, ..Default::default() },
            cores_busy: 1.0,
            wal_bytes_per_step: Some(900.0),
            server_rss_mb: 50.0,
            runs: 10,
            batch: 250.0,
        }
    }

    #[test]
    fn a_row_has_medians_and_ratios_within_a_turn() {
        let compared = Compared {
            figures: vec![figures(100.0), figures(300.0), figures(200.0)],
            // A slow machine in the second turn hits both: the ratio stays.
            limits: vec![200.0, 500.0, 400.0],
            transitions_per_run: 6,
            body_bytes_per_step: 120.0,
            limit_batch: 500.0,
            limit_cpu_micros_per_step: 20.0,
        };
        let row = Row::of(&compared);
        assert_eq!((row.steps_per_second, row.runs_per_second), (200.0, 40.0));
        assert_eq!((row.limit_steps_per_second, row.ratio_to_limit), (400.0, 0.5));
        assert_eq!(row.ratio_by_cpu, 0.5);
        assert_eq!((row.max_ms, row.wal_bytes_per_step), (300.0, Some(900.0)));
    }

    #[test]
    fn the_summary_has_the_fields_that_others_read() {
        let compared = Compared {
            figures: vec![figures(1.0)],
            limits: vec![2.0],
            transitions_per_run: 6,
            body_bytes_per_step: 1.0,
            limit_batch: 1.0,
            limit_cpu_micros_per_step: 1.0,
        };
        let row = serde_json::to_value(Row::of(&compared)).unwrap();
        for field in [
            "workload",
            "store",
            "concurrency",
            "steps_per_second",
            "runs_per_second",
            "limit_steps_per_second",
            "ratio_to_limit",
            "p50_ms",
            "p99_ms",
            "server_rss_mb",
        ] {
            assert!(row.get(field).is_some_and(|value| !value.is_null()), "{field}");
        }
    }
}
