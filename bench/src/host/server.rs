//! The control plane as users start it: the binary `orchestrator`, `serve`, on a free port.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use contracts::v1::orchestrator_service_client::OrchestratorServiceClient;
use tonic::transport::{Channel, Endpoint};

use super::database::Database;
use super::process::Process;

/// The window of streams and connections, in bytes.
const WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// A running control plane.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) url: String,
}

impl Server {
    /// Starts one on a database, and waits until it serves.
    pub(crate) fn start(binary: &Path, database: &Database) -> anyhow::Result<Self> {
        Self::start_with(binary, database, &[])
    }

    /// The same with further flags.
    pub(crate) fn start_with(
        binary: &Path,
        database: &Database,
        flags: &[&str],
    ) -> anyhow::Result<Self> {
        let mut arguments = vec!["serve".to_owned()];
        if !flags.contains(&"--listen") {
            arguments.extend(["--listen".to_owned(), "127.0.0.1:0".to_owned()]);
        }
        arguments.extend(database.arguments());
        arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let mut process = Process::start(binary, &arguments)?;
        let url = process.wait_for("ready ")?;
        Ok(Self { process, url })
    }

    /// A client on a connection of its own.
    pub(crate) async fn client(&self) -> anyhow::Result<OrchestratorServiceClient<Channel>> {
        Ok(OrchestratorServiceClient::new(connect(&self.url).await?))
    }
}

/// A connection.
pub(crate) async fn connect(url: &str) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(url.to_owned())?
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    endpoint.connect().await.with_context(|| format!("cannot connect to {url}"))
}

/// The binary beside this one, unless another is named.
pub(crate) fn binary(named: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let path = match named {
        Some(path) => path,
        None => std::env::current_exe()?.with_file_name("orchestrator"),
    };
    if !path.is_file() {
        bail!(
            "there is no {}; build it with `make bench-binaries`, or name it with --orchestrator",
            path.display()
        );
    }
    Ok(path)
}
