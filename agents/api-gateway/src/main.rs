//! The API gateway agent as a process of its own.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    api_gateway_agent::agent().run_from_env().await
}
