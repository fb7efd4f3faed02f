//! Runs the agent `code-quality` as a process of its own.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    code_quality_agent::agent().run_from_env().await
}
