//! Runs the agent `security-scanner` as a process of its own.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    security_scanner_agent::agent().run_from_env().await
}
