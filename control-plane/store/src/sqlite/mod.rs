//! SQLite: one connection that writes, a pool that reads; a write-ahead log that is synced on each
//! commit.

mod commit;
mod packed;
#[expect(clippy::duplicate_mod, reason = "the same words for each database, see shared/mod.rs")]
#[path = "../shared/mod.rs"]
mod shared;
mod statement;
mod writer;

use std::str::FromStr as _;
use std::time::Duration;

use engine::RunId;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection, SqlitePool};

use self::writer::{Writer, Writers};
use crate::{Error, migration};

type Db = sqlx::Sqlite;
type Connection = SqliteConnection;
type Row = SqliteRow;

const KIND: &str = "sqlite";
const BEGIN: &str = "BEGIN IMMEDIATE";
/// There is one writer: nothing to lock.
const LOCK_WORKFLOWS: &str = "SELECT 1";

/// Connections that read.
const READERS_MAX: u32 = 4;
/// How long to wait for another process that holds the file's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) struct Database {
    writers: Writers,
    readers: SqlitePool,
}

pub(crate) async fn open(url: &str) -> Result<Database, Error> {
    let wrong = |text: String| Error::Url(format!("{text}; write sqlite:/path/file.db"));
    let path = url.split_once(':').map_or("", |(_, path)| path).trim_start_matches("//");
    let path = path.split('?').next().unwrap_or_default();
    if path.is_empty() || path == ":memory:" || url.contains("mode=memory") {
        return Err(wrong("it names no file".to_owned()));
    }
    let options = SqliteConnectOptions::from_str(url)
        .map_err(|error| wrong(error.to_string()))?
        .create_if_missing(true)
        .busy_timeout(BUSY_TIMEOUT)
        .foreign_keys(true)
        .disable_statement_logging();
    let writing = options
        .clone()
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let mut connection = writing.connect().await.map_err(Error::before_write)?;
    let migrated = migration::sqlite().run(&mut connection).await;
    migrated.map_err(|error| Error::migration(error, migration::KNOWN))?;
    let readers = SqlitePoolOptions::new()
        .max_connections(READERS_MAX)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_lazy_with(options.pragma("query_only", "ON"));
    Ok(Database { writers: Writers::new(connection, writing), readers })
}

impl Database {
    async fn reader(&self) -> Result<PoolConnection<Db>, Error> {
        self.readers.acquire().await.map_err(Error::read)
    }

    async fn writer(&self) -> Result<Writer<'_>, Error> {
        self.writers.writer().await
    }

    /// The readers first, so that the writer is the last and folds the log into the file.
    async fn close_all(&self) {
        self.readers.close().await;
        let Some(connection) = self.writers.close().await else {
            return;
        };
        if let Err(error) = connection.close().await {
            tracing::warn!(%error, "the database could not be closed");
        }
    }
}

/// There is one writer, and whoever asks this is it: no insert is under way.
async fn settle_insert(_connection: &mut Connection, _run: RunId) -> sqlx::Result<()> {
    Ok(())
}
