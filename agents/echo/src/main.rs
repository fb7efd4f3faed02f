//! Runs the echo agent until SIGTERM. See the README.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    echo_agent::agent().run_from_env().await
}
