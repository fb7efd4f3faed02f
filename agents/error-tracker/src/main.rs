//! Runs the agent `error-tracker` as a process of its own.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    error_tracker_agent::agent().run_from_env().await
}
