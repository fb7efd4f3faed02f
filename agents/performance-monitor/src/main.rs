//! Runs the agent `performance-monitor` as a process of its own.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    performance_monitor_agent::agent().run_from_env().await
}
