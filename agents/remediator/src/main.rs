//! The remediator as a process of its own.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    remediator_agent::agent().run_from_env().await
}
