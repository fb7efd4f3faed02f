//! Figures that are no throughput: how long a start takes, how fast a cancel arrives. Each is a
//! part by itself: one that cannot run says why and leaves the others alone.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use contracts::v1::{
    self, CancelRunRequest, StartRunRequest, WatchRunRequest, start_run_request::Source,
    task_update::Update, watch_run_response::Item,
};
use serde::Serialize;

use crate::host::agents::monotonic_micros;
use crate::host::database::Kind;
use crate::host::server::Server;
use crate::load::Load;
use crate::measure::{AGENTS, Case, Setting};
use crate::statistics::Spread;
use crate::workload::Workload;

/// One figure, or why there is none.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Part {
    pub(crate) what: String,
    pub(crate) found: Option<String>,
    pub(crate) failed: Option<String>,
    pub(crate) goal: String,
}

impl Part {
    /// What came of measuring it.
    pub(crate) fn of(what: &str, goal: &str, came: anyhow::Result<String>) -> Self {
        let (found, failed) = match came {
            Ok(found) => (Some(found), None),
            Err(why) => (None, Some(format!("{why:#}"))),
        };
        Self { what: what.to_owned(), found, failed, goal: goal.to_owned() }
    }

    /// In words.
    pub(crate) fn found(&self) -> String {
        let failed = || format!("could not be measured: {}", self.failed.as_deref().unwrap_or(""));
        self.found.clone().unwrap_or_else(failed)
    }
}

/// How often the process is started.
const STARTS: usize = 10;

/// From the start of the process to the end of its first run, on the embedded store: the whole of
/// `orchestrator workflows execute` on a fresh folder, its exit included.
pub(crate) async fn first_run(binary: &Path) -> anyhow::Result<String> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("first.yml");
    std::fs::write(&file, "name: first\nsteps:\n  - {id: a, agent: echo, action: echo}\n")?;
    let mut micros = Vec::new();
    for n in 0..STARTS {
        let began = Instant::now();
        let output = tokio::process::Command::new(binary)
            .args(["workflows", "execute"])
            .arg(&file)
            .arg("--data-dir")
            .arg(folder.path().join(n.to_string()))
            .env_remove("ORCHESTRATOR_SERVER")
            .output()
            .await?;
        micros.push(u64::try_from(began.elapsed().as_micros())?);
        if !output.status.success() {
            bail!("it failed: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
    let spread = Spread::of(micros);
    Ok(format!("p50 {:.0} ms, max {:.0} ms of {STARTS}", spread.p50_ms, spread.max_ms))
}

/// How many runs are cancelled, one behind the other.
const CANCELS: usize = 200;
/// How many chains go on beside them.
const LOAD_BESIDE: u32 = 512;
/// How long all of it may take.
const CANCELS_WAIT_MAX: Duration = Duration::from_secs(60);

/// From `CancelRun` being asked to the handler's token firing, under load, on one clock.
pub(crate) async fn cancel(binary: &Path, store: Kind) -> anyhow::Result<String> {
    let case = Case {
        workload: Workload::Chain,
        store,
        concurrency: LOAD_BESIDE,
        warm_up: Duration::from_secs(1),
        window: Duration::from_secs(1),
        agents: AGENTS,
        request_ids: false,
    };
    let setting = Setting::start(binary, &case).await?;
    let from = Instant::now();
    let stop = tokio_util::sync::CancellationToken::new();
    let load = Load {
        workload: Workload::Chain,
        concurrency: LOAD_BESIDE,
        window: (from, from + CANCELS_WAIT_MAX),
        request_ids: false,
        stop: stop.clone(),
    };
    let servers = [setting.server.url.clone()];
    let loading = tokio::spawn(async move { load.run(&servers).await });
    let asked = tokio::time::timeout(CANCELS_WAIT_MAX, cancel_all(&setting.server)).await;
    stop.cancel();
    let loaded = loading.await??;
    let asked = asked.context("the cancels took too long")??;
    let counted = setting.agents.end().await?;
    setting.server.process.end().await?;
    if counted.tasks != loaded.ended * u64::from(Workload::Chain.steps()) {
        bail!("{} runs ended, and the agents did {} tasks", loaded.ended, counted.tasks);
    }
    let mut micros = Vec::new();
    for (run_id, at) in &asked {
        let fired = counted.cancelled.iter().find(|(other, _)| other == run_id);
        let (_, fired) = fired.with_context(|| format!("the cancel of {run_id} never arrived"))?;
        micros.push(fired.saturating_sub(*at));
    }
    let Spread { p50_ms, p99_ms, max_ms, count } = Spread::of(micros);
    Ok(format!(
        "p50 {p50_ms:.1} ms, p99 {p99_ms:.1} ms, max {max_ms:.1} ms of {count}, beside \
         {LOAD_BESIDE} chains"
    ))
}

/// Starts runs that wait to be cancelled, and cancels each once an agent has it.
async fn cancel_all(server: &Server) -> anyhow::Result<Vec<(String, u64)>> {
    let mut client = server.client().await?;
    let definition = v1::Definition { yaml: Workload::Hold.yaml(), ..Default::default() };
    let mut asked = Vec::new();
    for _ in 0..CANCELS {
        let request = StartRunRequest {
            source: Some(Source::Definition(definition.clone())),
            ..Default::default()
        };
        let run = client.start_run(request).await?.into_inner().run;
        let run_id = run.context("a start gives the run")?.run_id;
        let request = WatchRunRequest { run_id: run_id.clone(), after_sequence: 0 };
        let mut watch = client.watch_run(request).await?.into_inner();
        while let Some(response) = watch.message().await? {
            let Some(Item::Update(update)) = response.item else { continue };
            if matches!(update.update, Some(Update::Accepted(_))) {
                break;
            }
        }
        let at = monotonic_micros();
        client
            .cancel_run(CancelRunRequest { run_id: run_id.clone(), ..Default::default() })
            .await?;
        asked.push((run_id, at));
    }
    Ok(asked)
}
