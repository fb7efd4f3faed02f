//! The project builder as a process of its own.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    project_builder_agent::agent().run_from_env().await
}
