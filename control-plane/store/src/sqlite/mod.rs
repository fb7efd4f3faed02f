//! SQLite: one connection that writes, a pool that reads; a write-ahead log that is synced on each
//! commit.

mod commit;
mod packed;
#[expect(clippy::duplicate_mod, reason = "the same words for each database, see shared/mod.rs")]
#[path = "../shared/mod.rs"]
mod shared;
mod statement;
mod writer;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::str::FromStr as _;
use std::time::Duration;

use engine::RunId;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _, QueryBuilder, SqliteConnection, SqlitePool};

use self::writer::{Writer, Writers};
use crate::{Error, Micros, Tended, backup, migration};

type Db = sqlx::Sqlite;
type Connection = SqliteConnection;
type Row = SqliteRow;

const KIND: &str = "sqlite";
const BEGIN: &str = "BEGIN IMMEDIATE";
/// There is one writer: nothing to lock.
const LOCK_WORKFLOWS: &str = "SELECT 1";

/// There is one writer: nothing to pass over.
const SKIP_LOCKED: &str = "";
/// A statement that changes gives its own rows alone.
const BEAT: bool = false;
/// Its clock (of this machine), schema, version and size.
const FACTS: &str = "SELECT CAST(unixepoch('now', 'subsec') * 1000000 AS INTEGER), \
    (SELECT max(version) FROM _sqlx_migrations WHERE success), sqlite_version(), \
    (SELECT page_count FROM pragma_page_count()) * (SELECT page_size FROM pragma_page_size())";

/// What of the journal is removed row by row.
const JOURNAL_BY_ROW: &str = "journal";
/// There are no partitions that could go.
const HOLD_JOURNAL: &str = "SELECT 1";

/// One moment for all that is read.
const SNAPSHOT: &str = "BEGIN";

/// After how many pages the write-ahead log is folded into the file: 16 MiB. Pages that many
/// transitions change, as those of the runs under way, are then written to the file once for many.
const LOG_PAGES: &str = "4096";
/// What the writer keeps in memory, in KiB and negated: the pages of the runs under way, which it
/// would otherwise read again and again.
const WRITER_CACHE: &str = "-16384";

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

fn options(url: &str) -> Result<SqliteConnectOptions, Error> {
    let wrong = |text: String| Error::Url(format!("{text}; write sqlite:/path/file.db"));
    let path = url.split_once(':').map_or("", |(_, path)| path).trim_start_matches("//");
    let path = path.split('?').next().unwrap_or_default();
    if path.is_empty() || path == ":memory:" || url.contains("mode=memory") {
        return Err(wrong("it names no file".to_owned()));
    }
    Ok(SqliteConnectOptions::from_str(url)
        .map_err(|error| wrong(error.to_string()))?
        .busy_timeout(BUSY_TIMEOUT)
        .foreign_keys(true)
        .disable_statement_logging())
}

/// A connection that writes, to a database whose schema is that of a release or newer.
async fn writing(options: &SqliteConnectOptions, known: i64) -> Result<SqliteConnection, Error> {
    make_private(options.get_filename())?;
    let mut connection = options.connect().await.map_err(Error::before_write)?;
    let migrator = migration::sqlite(known);
    shared::schema::bring_up_to_date(&mut connection, &migrator).await?;
    Ok(connection)
}

/// Makes the file, if it is not there, for its owner alone; what SQLite makes beside it follows.
fn make_private(file: &Path) -> Result<(), Error> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    match made {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => {
            Err(Error::Unavailable(format!("{} cannot be made: {error}", file.display())))
        }
    }
}

fn durable(options: SqliteConnectOptions) -> SqliteConnectOptions {
    options
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("wal_autocheckpoint", LOG_PAGES)
        .pragma("cache_size", WRITER_CACHE)
}

/// Writes all tables of a database, which others may use; see [`crate::backup`].
pub(crate) async fn export(url: &str, writer: &mut backup::Writer<'_>) -> Result<(), Error> {
    let reading = options(url)?.create_if_missing(false).pragma("query_only", "ON");
    let mut connection = reading.connect().await.map_err(Error::read)?;
    shared::backup::export(&mut connection, writer).await?;
    connection.close().await.map_err(Error::read)
}

/// Fills an empty database; see [`crate::backup`].
pub(crate) async fn import(url: &str, reader: &mut backup::Reader<'_>) -> Result<(), Error> {
    let options = durable(options(url)?.create_if_missing(true));
    let mut connection = writing(&options, migration::KNOWN).await?;
    shared::backup::import(&mut connection, reader).await?;
    connection.close().await.map_err(Error::read)
}

/// Opens a database as a release does whose newest schema is `known`.
pub(crate) async fn open(url: &str, known: i64) -> Result<Database, Error> {
    let options = options(url)?.create_if_missing(true);
    let write = durable(options.clone());
    let connection = writing(&write, known).await?;
    let readers = SqlitePoolOptions::new()
        .max_connections(READERS_MAX)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_lazy_with(options.pragma("query_only", "ON"));
    Ok(Database { writers: Writers::new(connection, write), readers })
}

impl Database {
    async fn reader(&self) -> Result<PoolConnection<Db>, Error> {
        self.readers.acquire().await.map_err(Error::read)
    }

    async fn writer(&self) -> Result<Writer<'_>, Error> {
        self.writers.writer().await
    }

    /// There is one writer.
    async fn keeper(&self) -> Result<Writer<'_>, Error> {
        self.writer().await
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

/// There are no partitions: nothing to make.
async fn prepare_journal(_connection: &mut Connection, _at: Micros) {}

/// There are no partitions: nothing to make or to let go.
async fn tend_journal(
    _connection: &mut Connection,
    _now: Micros,
    _passed: Micros,
) -> sqlx::Result<Tended> {
    Ok(Tended::default())
}

/// There are no partitions: everything is where it belongs.
async fn settle_restored(_connection: &mut Connection) -> sqlx::Result<()> {
    Ok(())
}

/// There is one writer, and whoever asks this is it: no insert is under way.
async fn settle_insert(_connection: &mut Connection, _run: RunId) -> sqlx::Result<()> {
    Ok(())
}

/// Whether a run is one of these.
fn push_among(query: &mut QueryBuilder<Db>, runs: &[RunId]) {
    query.push(" IN (");
    let mut list = query.separated(", ");
    for run in runs {
        list.push_bind(run.0);
    }
    query.push(")");
}

/// Whether a text is one of these.
fn push_among_texts(query: &mut QueryBuilder<Db>, texts: &[&str]) {
    query.push(" IN (");
    let mut list = query.separated(", ");
    for text in texts {
        list.push_bind((*text).to_owned());
    }
    query.push(")");
}

#[cfg(test)]
mod tests {
    use super::Database;
    use crate::{Error, OwnerId, Store as _, migration, testing};

    async fn open(url: &str) -> Result<Database, Error> {
        super::open(url, migration::KNOWN).await
    }

    async fn execute(database: &Database, sql: &'static str) {
        let mut writer = database.writer().await.unwrap();
        sqlx::query(sql).execute(&mut *writer).await.unwrap();
    }

    #[tokio::test]
    async fn a_full_disk_is_told_and_what_was_acknowledged_stays() {
        let file = testing::sqlite();
        let database = open(file.url()).await.unwrap();
        let kept = database.put_blob(b"kept", 1).await.unwrap();
        execute(&database, "PRAGMA max_page_count = 60").await;
        let full = database.put_blob(&vec![7; 1024 * 1024], 1).await.unwrap_err();
        assert!(matches!(full, Error::Full(_)), "{full}");
        let commit = testing_commit(vec![7; 1024 * 1024]);
        let full = database.commit(std::slice::from_ref(&commit)).await.unwrap_err();
        assert!(matches!(full, Error::Full(_)), "{full}");
        assert_eq!(database.run(commit.run).await.unwrap(), None);
        assert_eq!(database.blob(kept).await.unwrap().as_deref(), Some(&b"kept"[..]));
        execute(&database, "PRAGMA max_page_count = 100000").await;
        let outcomes = database.commit(std::slice::from_ref(&commit)).await.unwrap();
        assert_eq!(outcomes, [crate::Outcome::Committed]);
        assert_eq!(database.fold(commit.run).await.unwrap().unwrap().1, commit.events);
    }

    #[tokio::test]
    async fn a_file_that_another_process_locks_is_unavailable() {
        let file = testing::sqlite();
        let (database, other) = (open(file.url()).await.unwrap(), open(file.url()).await.unwrap());
        execute(&database, "PRAGMA busy_timeout = 1").await;
        execute(&other, "BEGIN IMMEDIATE").await;
        let commit = testing_commit(b"{}".to_vec());
        let locked = database.commit(std::slice::from_ref(&commit)).await.unwrap_err();
        assert!(matches!(locked, Error::Unavailable(_)), "{locked}");
        let locked = database.adopt(commit.run, OwnerId(uuid::Uuid::max()), 1).await.unwrap_err();
        assert!(matches!(locked, Error::Unavailable(_)), "{locked}");
        execute(&other, "ROLLBACK").await;
        database.commit(&[commit]).await.unwrap();
    }

    #[tokio::test]
    async fn a_file_that_is_no_database_is_damaged() {
        let file = testing::sqlite();
        let path = file.url().strip_prefix("sqlite:").unwrap();
        std::fs::write(path, vec![b'x'; 8192]).unwrap();
        let damaged = open(file.url()).await.err().unwrap();
        assert!(matches!(damaged, Error::Corrupt(_)), "{damaged}");
    }

    #[tokio::test]
    async fn a_folder_that_is_not_there_is_told() {
        let missing = open("sqlite:/nowhere/at/all/store.db").await.err().unwrap();
        assert!(matches!(missing, Error::Unavailable(_)), "{missing}");
    }

    #[tokio::test]
    async fn what_is_made_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let file = testing::sqlite();
        let database = open(file.url()).await.unwrap();
        database.put_blob(b"secret", 1).await.unwrap();
        let path = file.url().strip_prefix("sqlite:").unwrap();
        for ending in ["", "-wal", "-shm"] {
            let found = std::fs::metadata(format!("{path}{ending}")).unwrap();
            assert_eq!(found.permissions().mode() & 0o777, 0o600, "{ending}");
        }
    }

    #[tokio::test]
    async fn a_commit_is_synced_to_a_write_ahead_log() {
        let file = testing::sqlite();
        let database = open(file.url()).await.unwrap();
        let mut writer = database.writer().await.unwrap();
        let mode: String =
            sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut *writer).await.unwrap();
        let synchronous: i64 =
            sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut *writer).await.unwrap();
        assert_eq!((mode.as_str(), synchronous), ("wal", 2));
    }

    /// A start with one event.
    fn testing_commit(body: Vec<u8>) -> crate::Commit {
        let run = engine::RunId(uuid::Uuid::from_u128(7));
        let row = crate::RunRow {
            run_id: run,
            tenant: "default".to_owned(),
            workflow: "build".to_owned(),
            version_name: "1".to_owned(),
            definition_hash: engine::ContentHash::of(b""),
            status: 1,
            version: 1,
            owner: None,
            created_at: 1,
            ended_at: None,
            parent: None,
            priority: 0,
            labels: Vec::new(),
            summary: Vec::new(),
            wake_at: None,
        };
        let event = crate::JournalRow { seq: 1, at: 1, kind: 1, schema: 1, body: body.into() };
        crate::Commit {
            run,
            expected_version: 0,
            row,
            events: vec![event],
            request: None,
            dead_letters: Vec::new(),
            remove_dead_letters: Vec::new(),
            blobs: Vec::new(),
            documents: Vec::new(),
            audit: Vec::new(),
        }
    }
}
