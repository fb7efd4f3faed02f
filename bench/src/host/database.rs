//! Databases of their own: a PostgreSQL server for the whole process, a fresh database or file for
//! each measurement.

use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::anyhow;
use clap::ValueEnum;
use store::testing::{Server, ServerFigures};
use tempfile::TempDir;

use super::usage;

/// Beyond the defaults. None of them trades durability for speed: fsync, synchronous_commit and
/// full_page_writes are on. Rare checkpoints keep them out of windows of a few seconds, in which
/// they would hit some measurements and not others.
pub(crate) const SETTINGS: [(&str, &str); 4] = [
    ("shared_buffers", "512MB"),
    ("max_wal_size", "8GB"),
    ("checkpoint_timeout", "15min"),
    ("wal_buffers", "16MB"),
];

/// Counts statements; it costs each of them something.
const COUNTING: (&str, &str) = ("shared_preload_libraries", "pg_stat_statements");

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// SQLite with synchronous = FULL, within the server's process.
    Sqlite,
    /// PostgreSQL with fsync, in processes of its own.
    Postgres,
}

impl Kind {
    /// Its name in tables and in the summary.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

/// A database that is gone when this is dropped (with PostgreSQL's server at the end).
#[derive(Debug)]
pub(crate) enum Database {
    /// A folder with a file in it.
    Sqlite(TempDir),
    /// A database on a server of this process.
    Postgres {
        /// Its address.
        url: String,
        /// Where it is.
        server: &'static Server,
    },
}

impl Database {
    /// A new one.
    pub(crate) async fn new(kind: Kind) -> anyhow::Result<Self> {
        Self::on(kind, server).await
    }

    /// A new one on a server that counts statements.
    pub(crate) async fn counted(kind: Kind) -> anyhow::Result<Self> {
        let database = Self::on(kind, counting_server).await?;
        if let Self::Postgres { url, .. } = &database {
            store::testing::count_statements(url).await.map_err(|why| anyhow!(why))?;
        }
        Ok(database)
    }

    async fn on(
        kind: Kind,
        server: fn() -> anyhow::Result<&'static Server>,
    ) -> anyhow::Result<Self> {
        match kind {
            Kind::Sqlite => {
                let folder = tempfile::Builder::new().prefix("orchestrator-bench-").tempdir()?;
                Ok(Self::Sqlite(folder))
            }
            Kind::Postgres => {
                let server = tokio::task::spawn_blocking(server).await??;
                let url = store::testing::postgres_on(server).await.map_err(|why| anyhow!(why))?;
                Ok(Self::Postgres { url, server })
            }
        }
    }

    /// How a server is told of it.
    pub(crate) fn arguments(&self) -> Vec<String> {
        match self {
            Self::Sqlite(folder) => {
                vec!["--data-dir".to_owned(), folder.path().display().to_string()]
            }
            Self::Postgres { url, .. } => vec!["--database-url".to_owned(), url.clone()],
        }
    }

    /// Its address, for `store::open`.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Sqlite(folder) => {
                let file: PathBuf = folder.path().join("orchestrator.db");
                format!("sqlite:{}", file.display())
            }
            Self::Postgres { url, .. } => url.clone(),
        }
    }

    /// CPU time of its processes so far, in microseconds; none where it has no processes.
    pub(crate) fn cpu_micros(&self) -> anyhow::Result<Option<u64>> {
        match self {
            Self::Sqlite(_) => Ok(None),
            Self::Postgres { server, .. } => {
                let process = server.process_id().map_err(|why| anyhow!(why))?;
                usage::family_cpu_micros(process).map(Some)
            }
        }
    }

    /// What its server has done so far; none of SQLite.
    pub(crate) async fn figures(&self) -> anyhow::Result<Option<ServerFigures>> {
        match self {
            Self::Sqlite(_) => Ok(None),
            Self::Postgres { url, .. } => {
                let figures = store::testing::server_figures(url).await;
                figures.map(Some).map_err(|why| anyhow!(why))
            }
        }
    }

    /// How many statements came to it so far, when it is counted; none to SQLite.
    pub(crate) async fn statements(&self) -> anyhow::Result<Option<i64>> {
        match self {
            Self::Sqlite(_) => Ok(None),
            Self::Postgres { url, .. } => {
                store::testing::statements(url).await.map(Some).map_err(|why| anyhow!(why))
            }
        }
    }
}

fn server() -> anyhow::Result<&'static Server> {
    static SERVER: OnceLock<Result<Server, String>> = OnceLock::new();
    started(SERVER.get_or_init(|| Server::start_with(&SETTINGS)))
}

fn counting_server() -> anyhow::Result<&'static Server> {
    static SERVER: OnceLock<Result<Server, String>> = OnceLock::new();
    let settings: Vec<_> = SETTINGS.into_iter().chain([COUNTING]).collect();
    started(SERVER.get_or_init(|| Server::start_with(&settings)))
}

fn started(server: &'static Result<Server, String>) -> anyhow::Result<&'static Server> {
    server.as_ref().map_err(|why| anyhow!("no PostgreSQL: {why}"))
}
