//! The deployment manager as a process of its own.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    deployment_manager_agent::agent().run_from_env().await
}
