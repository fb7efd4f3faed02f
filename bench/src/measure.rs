//! One measurement: a server on a database of its own, agents, load, and what it all cost.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::host::agents::Agents;
use crate::host::database::{Database, Kind};
use crate::host::metrics::Commits;
use crate::host::server::Server;
use crate::host::usage;
use crate::journal;
use crate::load::{Load, Loaded};
use crate::statistics::Spread;
use crate::workload::Workload;

/// How many agent processes there are unless told.
pub(crate) const AGENTS: usize = 2;
/// How many slots each has beyond all tasks, as far as an agent may have so many: matching is
/// never short of them.
const SLOTS_SPARE: u32 = 64;
/// How many journals are checked behind a measurement.
const JOURNALS_CHECKED: usize = 20;

/// What is measured.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) workload: Workload,
    pub(crate) store: Kind,
    pub(crate) concurrency: u32,
    pub(crate) warm_up: Duration,
    pub(crate) window: Duration,
    pub(crate) agents: usize,
    pub(crate) request_ids: bool,
}

/// CPU time, in microseconds for each step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct CpuSplit {
    pub(crate) server: f64,
    pub(crate) agents: f64,
    /// Zero for SQLite, which works within the server.
    pub(crate) database: f64,
    pub(crate) client: f64,
}

impl CpuSplit {
    /// Of all processes together.
    pub(crate) fn all(&self) -> f64 {
        self.server + self.agents + self.database + self.client
    }
}

/// What came of a measurement.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) workload: String,
    pub(crate) store: String,
    pub(crate) concurrency: u32,
    pub(crate) seconds: f64,
    pub(crate) steps_per_second: f64,
    pub(crate) runs_per_second: f64,
    /// From ready to succeeded, by the journal.
    pub(crate) step: Spread,
    /// From start to end, by the client.
    pub(crate) run: Spread,
    pub(crate) cpu_micros_per_step: CpuSplit,
    /// Of the cores of the machine, how many all these processes kept busy.
    pub(crate) cores_busy: f64,
    pub(crate) wal_bytes_per_step: Option<f64>,
    pub(crate) server_rss_mb: f64,
    /// Accepted runs, all of which ended.
    pub(crate) runs: u64,
    /// Transitions in a commit, on the average.
    pub(crate) batch: f64,
}

/// What the processes have used so far.
struct Used {
    at: Instant,
    server: u64,
    agents: u64,
    database: u64,
    client: u64,
    wal_bytes: Option<i64>,
    /// What the agents have done.
    tasks: u64,
    commits: Commits,
}

/// The processes of a measurement.
pub(crate) struct Setting {
    pub(crate) database: Database,
    pub(crate) server: Server,
    pub(crate) agents: Agents,
}

impl Setting {
    /// Starts them.
    pub(crate) async fn start(binary: &Path, case: &Case) -> anyhow::Result<Self> {
        let database = Database::new(case.store).await?;
        let server = Server::start(binary, &database)?;
        let width = if case.workload == Workload::Chain { 1 } else { case.workload.steps() };
        let tasks = case.concurrency.saturating_mul(width);
        let slots = tasks.saturating_add(SLOTS_SPARE);
        let agents = Agents::start(case.agents, slots, &server).await?;
        Ok(Self { database, server, agents })
    }

    async fn used(&mut self) -> anyhow::Result<Used> {
        let tasks = tokio::task::block_in_place(|| self.agents.tasks())?;
        let mut agents = 0;
        for process in &self.agents.processes {
            agents += usage::cpu_micros(process.id())?;
        }
        Ok(Used {
            at: Instant::now(),
            server: usage::cpu_micros(self.server.process.id())?,
            agents,
            database: self.database.cpu_micros()?.unwrap_or(0),
            client: usage::cpu_micros(std::process::id())?,
            wal_bytes: self.database.figures().await?.map(|figures| figures.wal_bytes),
            tasks,
            commits: Commits::read(&self.server.url).await?,
        })
    }

    /// Puts the load on for the window of a case and gives what came of it. May be repeated.
    pub(crate) async fn measure(&mut self, case: &Case) -> anyhow::Result<(Figures, Loaded)> {
        let from = Instant::now() + case.warm_up;
        let window = (from, from + case.window);
        let Case { workload, concurrency, request_ids, .. } = *case;
        let stop = CancellationToken::new();
        let load = Load { workload, concurrency, window, request_ids, stop };
        let servers = [self.server.url.clone()];
        let loading = tokio::spawn(async move { load.run(&servers).await });
        tokio::time::sleep_until(window.0.into()).await;
        let before = self.used().await?;
        tokio::time::sleep_until(window.1.into()).await;
        let after = self.used().await?;
        let loaded = loading.await??;
        let mut client = self.server.client().await?;
        let step = journal::transitions(&mut client, &loaded.run_ids).await?;
        for run_id in loaded.run_ids.iter().take(JOURNALS_CHECKED) {
            let events = journal::read(&mut client, run_id).await?;
            if let Err(why) = journal::check(&events, workload.steps()) {
                bail!("the journal of run {run_id} is wrong: {why}");
            }
        }
        let figures = self.figures(case, &loaded, Spread::of(step), &before, &after)?;
        Ok((figures, loaded))
    }

    fn figures(
        &self,
        case: &Case,
        loaded: &Loaded,
        step: Spread,
        before: &Used,
        after: &Used,
    ) -> anyhow::Result<Figures> {
        // By the agents' own count: ends of runs come in waves when there are few at a time.
        let seconds = after.at.duration_since(before.at).as_secs_f64();
        let steps = (after.tasks - before.tasks) as f64;
        if loaded.micros.is_empty() || steps == 0.0 {
            bail!("no run ended within the window of {seconds:.1} s");
        }
        let steps_per_second = steps / seconds;
        let each = |before: u64, after: u64| (after - before) as f64 / steps;
        let cpu = CpuSplit {
            server: each(before.server, after.server),
            agents: each(before.agents, after.agents),
            database: each(before.database, after.database),
            client: each(before.client, after.client),
        };
        let wal = before.wal_bytes.zip(after.wal_bytes);
        Ok(Figures {
            workload: case.workload.name().to_owned(),
            store: case.store.name().to_owned(),
            concurrency: case.concurrency,
            seconds,
            steps_per_second,
            runs_per_second: steps_per_second / f64::from(case.workload.steps()),
            step,
            run: Spread::of(loaded.micros.clone()),
            cpu_micros_per_step: cpu,
            cores_busy: cpu.all() * steps_per_second / 1e6,
            wal_bytes_per_step: wal.map(|(before, after)| (after - before) as f64 / steps),
            server_rss_mb: usage::peak_mb(self.server.process.id())?,
            runs: loaded.ended,
            batch: after.commits.batch_since(&before.commits),
        })
    }

    /// Ends the processes, and checks that the agents did as many tasks as the runs had steps:
    /// none is lost, and none was done twice.
    pub(crate) async fn end(self, steps: u64) -> anyhow::Result<()> {
        let counted = self.agents.end().await?;
        if counted.tasks != steps {
            bail!("the runs had {steps} steps, and the agents did {} tasks", counted.tasks);
        }
        self.server.process.end().await.context("the server did not stop in order")?;
        Ok(())
    }
}

/// Measurements one behind the other on one server.
pub(crate) async fn measure(
    binary: &Path,
    case: &Case,
    repeats: usize,
) -> anyhow::Result<Vec<Figures>> {
    let mut setting = Setting::start(binary, case).await?;
    let (mut all, mut ended) = (Vec::new(), 0);
    for _ in 0..repeats {
        let (figures, loaded) = setting.measure(case).await?;
        ended += loaded.ended;
        all.push(figures);
    }
    setting.end(ended * u64::from(case.workload.steps())).await?;
    Ok(all)
}
