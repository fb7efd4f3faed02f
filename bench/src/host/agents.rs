//! Agents of no-op steps: this binary again, each in a process of its own. They count what they
//! do, and that count stands outside the orchestrator.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use agent_sdk::{Action, Agent, CancellationToken, Context, Failure, RunConfig, Undo};
use anyhow::{Context as _, bail};
use contracts::v1;
use contracts::v1::agent_service_client::AgentServiceClient;
use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

use super::process::Process;
use super::server::{Server, connect};
use crate::workload::{AGENT, HOLD, NAP, NAP_TIME, NOOP};

/// How often it is asked whether all agents are there.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long they may take to come.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(30);

/// The most slots that one agent may have.
pub(crate) const SLOTS_MAX: u32 = 10_000;

/// How the line begins that an agent says on SIGUSR1.
const COUNT_LINE: &str = "tasks so far: ";

/// What an agent says at its end, as JSON on stdout.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Counted {
    /// How many tasks it began, those that wait to be cancelled apart.
    pub(crate) tasks: u64,
    /// When it was told to cancel which run: the run's id and the monotonic clock in microseconds.
    pub(crate) cancelled: Vec<(String, u64)>,
}

/// How many agents this process has started.
static STARTED: AtomicU64 = AtomicU64::new(0);

/// The agent processes of one measurement.
#[derive(Debug)]
pub(crate) struct Agents {
    pub(crate) processes: Vec<Process>,
    instances: Vec<String>,
}

impl Agents {
    /// Starts `count` of them at a server, each with so many slots or [`SLOTS_MAX`], and waits
    /// until they are there.
    pub(crate) async fn start(count: usize, slots: u32, server: &Server) -> anyhow::Result<Self> {
        Self::start_at(count, slots, &server.url).await
    }

    /// The same at an address, or at several with commas between, of which the first is asked.
    pub(crate) async fn start_at(count: usize, slots: u32, url: &str) -> anyhow::Result<Self> {
        let slots = slots.min(SLOTS_MAX);
        let first = url.split(',').next().unwrap_or(url);
        let binary = std::env::current_exe()?;
        let mut agents = Self { processes: Vec::new(), instances: Vec::new() };
        for _ in 0..count {
            // Unlike every other's, at whatever server.
            let instance = format!("bench-{}", STARTED.fetch_add(1, Ordering::Relaxed));
            let arguments = ["agent", "--server", url, "--slots", &slots.to_string()];
            let mut arguments: Vec<String> = arguments.map(ToOwned::to_owned).into();
            arguments.extend(["--instance".to_owned(), instance.clone()]);
            agents.processes.push(Process::start(&binary, &arguments)?);
            agents.instances.push(instance);
        }
        agents.known_at(first).await?;
        Ok(agents)
    }

    /// Counts these among them.
    pub(crate) fn add(&mut self, others: Self) {
        self.processes.extend(others.processes);
        self.instances.extend(others.instances);
    }

    /// Waits until a server knows them all, be it from another one.
    pub(crate) async fn known_at(&mut self, url: &str) -> anyhow::Result<()> {
        let all = async {
            let mut client = AgentServiceClient::new(connect(url).await?);
            loop {
                let request = v1::ListAgentsRequest { page_size: 1000, ..Default::default() };
                let listed = client.list_agents(request).await?.into_inner().agents;
                let known = |name: &String| listed.iter().any(|agent| agent.instance == *name);
                if self.instances.iter().all(known) {
                    return anyhow::Ok(());
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        match tokio::time::timeout(CONNECT_WAIT_MAX, all).await {
            Ok(all) => all,
            Err(_) => {
                let said: Vec<String> = self.processes.iter_mut().map(Process::said).collect();
                bail!("the agents did not connect; they said:\n{}", said.join("\n"));
            }
        }
    }

    /// How many no-op tasks they have done so far, all together.
    pub(crate) fn tasks(&mut self) -> anyhow::Result<u64> {
        for process in &self.processes {
            process.signal(Signal::USR1)?;
        }
        let mut sum = 0;
        for process in &mut self.processes {
            sum += process.wait_for(COUNT_LINE)?.parse::<u64>()?;
        }
        Ok(sum)
    }

    /// Ends them in order; gives what they counted together.
    pub(crate) async fn end(self) -> anyhow::Result<Counted> {
        let mut sum = Counted::default();
        for process in self.processes {
            let said = process.end().await?;
            let counted: Counted = serde_json::from_str(said.trim())
                .with_context(|| format!("an agent ended without its count: `{said}`"))?;
            sum.tasks += counted.tasks;
            sum.cancelled.extend(counted.cancelled);
        }
        Ok(sum)
    }
}

/// The monotonic clock of the machine, in microseconds: the same for all its processes.
pub(crate) fn monotonic_micros() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1000
}

/// Nothing, as input and as output.
#[derive(Debug, Deserialize, JsonSchema, Serialize)]
struct Nothing {}

/// Is an agent until SIGTERM, then says what it counted.
pub(crate) async fn be_one(server: String, slots: u32, instance: String) -> anyhow::Result<()> {
    let tasks = Arc::new(AtomicU64::new(0));
    let cancelled = Arc::new(std::sync::Mutex::new(Vec::new()));
    let count = Arc::clone(&tasks);
    let noop = move |_: Context, _: Nothing| {
        count.fetch_add(1, Ordering::Relaxed);
        async { Ok::<_, Failure>(Nothing {}) }
    };
    let count = Arc::clone(&tasks);
    let nap = move |_: Context, _: Nothing| {
        count.fetch_add(1, Ordering::Relaxed);
        async {
            tokio::time::sleep(NAP_TIME).await;
            Ok::<_, Failure>(Nothing {})
        }
    };
    let told = Arc::clone(&cancelled);
    let hold = move |context: Context, _: Nothing| {
        let told = Arc::clone(&told);
        async move {
            context.cancelled().cancelled().await;
            let now = monotonic_micros();
            let run = context.run_id().to_owned();
            told.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((run, now));
            Ok::<_, Failure>(Nothing {})
        }
    };
    let agent = Agent::new(AGENT, "1.0.0")
        .slots(slots)
        .action(Action::new(NOOP, "Does nothing.", noop).undo(Undo::Nothing))
        .action(Action::new(NAP, "Does nothing for a while.", nap).undo(Undo::Nothing))
        .action(Action::new(HOLD, "Waits to be cancelled.", hold).undo(Undo::Nothing));
    let config = RunConfig {
        servers: server.split(',').map(ToOwned::to_owned).collect(),
        instance: Some(instance),
        drain_timeout: Some(Duration::from_secs(5)),
    };
    let shutdown = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut asked = signal(SignalKind::user_defined1())?;
    let run = agent.run(config, shutdown.clone());
    tokio::pin!(run);
    loop {
        tokio::select! {
            ended = &mut run => break ended?,
            _ = asked.recv() => eprintln!("{COUNT_LINE}{}", tasks.load(Ordering::Relaxed)),
            _ = terminate.recv() => shutdown.cancel(),
        }
    }
    let cancelled =
        std::mem::take(&mut *cancelled.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    let counted = Counted { tasks: tasks.load(Ordering::Relaxed), cancelled };
    println!("{}", serde_json::to_string(&counted)?);
    Ok(())
}
