//! The agents that come with the binary, by name.

use std::time::Duration;

use agent_sdk::Agent;
use control_plane::control_plane::ControlPlane;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How often it is looked whether all bundled agents have connected, and how many times.
const LOOK_EVERY: Duration = Duration::from_millis(2);
const LOOKS_MAX: u32 = 5_000;

/// Every bundled agent.
pub(crate) fn all() -> Vec<Agent> {
    vec![
        echo_agent::agent(),
        project_builder_agent::agent(),
        api_gateway_agent::agent(),
        code_quality_agent::agent(),
        security_scanner_agent::agent(),
        performance_monitor_agent::agent(),
        error_tracker_agent::agent(),
        deployment_manager_agent::agent(),
        remediator_agent::agent(),
    ]
}

/// The bundled agent of this type or alias.
///
/// # Errors
/// With the names that there are.
pub(crate) fn find(name: &str) -> anyhow::Result<Agent> {
    let mut names = Vec::new();
    for agent in all() {
        let aliases = agent.aliases();
        if agent.agent_type() == name || aliases.iter().any(|alias| alias == name) {
            return Ok(agent);
        }
        names.push(match aliases.first() {
            Some(alias) => format!("{} ({alias})", agent.agent_type()),
            None => agent.agent_type().to_owned(),
        });
    }
    anyhow::bail!("there is no bundled agent `{name}`; there are {}", names.join(", "))
}

/// The bundled agents at work in this process.
pub(crate) struct Crew {
    shutdown: CancellationToken,
    at_work: JoinSet<()>,
}

impl Crew {
    /// Lets all bundled agents connect to `control_plane`, each by a stream of its own on a
    /// connection of its own, and waits until they are there.
    pub(crate) async fn connect(control_plane: &ControlPlane) -> anyhow::Result<Self> {
        let shutdown = CancellationToken::new();
        let mut at_work = JoinSet::new();
        let agents = all();
        let count = agents.len();
        for agent in agents {
            let (channel, shutdown) = (control_plane.channel(), shutdown.clone());
            at_work.spawn(async move {
                let name = agent.agent_type().to_owned();
                let factory = move || {
                    let channel = channel.clone();
                    async move { Ok::<_, std::convert::Infallible>(channel) }
                };
                if let Err(error) = agent.run_on(factory, shutdown).await {
                    tracing::error!(agent = %name, %error, "a bundled agent stopped");
                }
            });
        }
        let dispatcher = &control_plane.core().dispatcher;
        let mut looked = 0;
        while dispatcher.counts().agents < count {
            anyhow::ensure!(looked < LOOKS_MAX, "the bundled agents do not connect");
            looked += 1;
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(Self { shutdown, at_work })
    }

    /// Lets all finish what they have within a time.
    pub(crate) async fn stop(mut self, patience: Duration) {
        self.shutdown.cancel();
        let all = async { while self.at_work.join_next().await.is_some() {} };
        if tokio::time::timeout(patience, all).await.is_err() {
            tracing::warn!("bundled agents were stopped in the middle of their tasks");
        }
    }
}
