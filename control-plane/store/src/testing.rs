//! Databases for tests: a file that goes with its test, or a database of its own on a PostgreSQL
//! server that lives as long as the test process. Not for production.
//!
//! `ORCHESTRATOR_TEST_DATABASE_URL` names a server to use; without it one is started from the
//! binaries that are installed.

mod dump;
pub mod memory;
mod server;

use std::str::FromStr as _;
use std::sync::{Arc, OnceLock};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use tempfile::TempDir;

pub use self::dump::{dump, pg_dump};
pub use self::server::Server;
use crate::{Error, Store};

/// Names the server to use: a user that may create databases.
pub const DATABASE_URL_VARIABLE: &str = "ORCHESTRATOR_TEST_DATABASE_URL";

/// A database that is gone when this is dropped. Close the stores that use it first.
#[derive(Debug)]
pub struct TestDatabase {
    url: String,
    remains: Remains,
}

/// What there is to remove in the end.
#[derive(Debug)]
enum Remains {
    Folder { _folder: TempDir },
    Database { server: Box<PgConnectOptions>, name: String },
}

impl TestDatabase {
    /// What [`open`](crate::open) takes.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// Opens a database as a release does whose newest schema is `known`: an empty one gets that
/// schema, a newer one stays as it is.
///
/// # Errors
/// As [`open`](crate::open).
pub async fn open_as(url: &str, known: i64) -> Result<Arc<dyn Store>, Error> {
    crate::open_as(url, known).await
}

/// A new SQLite file.
///
/// # Panics
/// When no temporary folder can be made.
#[must_use]
pub fn sqlite() -> TestDatabase {
    let folder = tempfile::Builder::new().prefix("orchestrator-sqlite-").tempdir();
    let folder = folder.expect("tests can write to the folder for temporary files");
    let url = format!("sqlite:{}", folder.path().join("store.db").display());
    TestDatabase { url, remains: Remains::Folder { _folder: folder } }
}

/// What a PostgreSQL server has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerFigures {
    /// Bytes of write-ahead log.
    pub wal_bytes: i64,
    /// Transactions that ended in this database; a statement by itself is one too.
    pub transactions: i64,
}

/// Asks a PostgreSQL server what it has done. The question is a transaction itself; those of other
/// connections are counted up to a second late.
///
/// # Errors
/// When it does not answer.
pub async fn server_figures(url: &str) -> Result<ServerFigures, String> {
    let ask = async {
        let options = PgConnectOptions::from_str(url)?;
        let mut connection = PgConnection::connect_with(&options).await?;
        let statement = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::int8, \
             (SELECT xact_commit + xact_rollback FROM pg_stat_database \
             WHERE datname = current_database())";
        let (wal_bytes, transactions) =
            sqlx::query_as::<_, (i64, i64)>(statement).fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok::<_, sqlx::Error>(ServerFigures { wal_bytes, transactions })
    };
    ask.await.map_err(|error| format!("PostgreSQL's figures cannot be read: {error}"))
}

/// Has a PostgreSQL server count the statements that come to a database. It must have been started
/// with `shared_preload_libraries` of `pg_stat_statements`.
///
/// # Errors
/// When it cannot.
pub async fn count_statements(url: &str) -> Result<(), String> {
    let options = PgConnectOptions::from_str(url).map_err(|error| error.to_string())?;
    let created = execute(&options, "CREATE EXTENSION IF NOT EXISTS pg_stat_statements").await;
    created.map_err(|error| format!("statements cannot be counted: {error}"))
}

/// How many statements came to a database since [`count_statements`], questions like this one left
/// out. What the server does by itself is not among them.
///
/// # Errors
/// When it does not answer.
pub async fn statements(url: &str) -> Result<i64, String> {
    let ask = async {
        let mut connection = PgConnection::connect(url).await?;
        let statement = "SELECT coalesce(sum(calls), 0)::int8 FROM pg_stat_statements \
             JOIN pg_database ON pg_database.oid = dbid \
             WHERE datname = current_database() AND query NOT LIKE '%pg_stat_%'";
        let count = sqlx::query_scalar::<_, i64>(statement).fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok::<_, sqlx::Error>(count)
    };
    ask.await.map_err(|error| format!("PostgreSQL's statements cannot be counted: {error}"))
}

/// A database of its own on that server, for as long as the server lives.
///
/// # Errors
/// When it cannot be made.
pub async fn postgres_on(server: &Server) -> Result<String, String> {
    let options = PgConnectOptions::from_str(&server.url()).map_err(|error| error.to_string())?;
    let name = database_name();
    let created = execute(&options, &format!("CREATE DATABASE {name} TEMPLATE template0")).await;
    created.map_err(|error| format!("a database cannot be made: {error}"))?;
    Ok(options.database(&name).to_url_lossy().to_string())
}

/// A new database on the server of this process, which is started when it is first asked for.
///
/// # Panics
/// When there is no server and none can be started; the text says what is missing.
pub async fn postgres() -> TestDatabase {
    let starting = tokio::task::spawn_blocking(server_url);
    let started = starting.await.expect("starting a server does not panic");
    let url = started.unwrap_or_else(|problem| panic!("no PostgreSQL for tests: {problem}"));
    let server = PgConnectOptions::from_str(&url)
        .unwrap_or_else(|error| panic!("{DATABASE_URL_VARIABLE} is no address: {error}"));
    let name = database_name();
    let created = execute(&server, &format!("CREATE DATABASE {name} TEMPLATE template0")).await;
    created.unwrap_or_else(|error| panic!("a test's database cannot be made: {error}"));
    let url = server.clone().database(&name).to_url_lossy().to_string();
    TestDatabase { url, remains: Remains::Database { server: Box::new(server), name } }
}

#[expect(clippy::disallowed_methods, reason = "processes that share a server share no id source")]
fn database_name() -> String {
    format!("test_{}", uuid::Uuid::now_v7().simple())
}

/// The server's address, or why there is none.
fn server_url() -> Result<String, String> {
    static SERVER: OnceLock<Result<Server, String>> = OnceLock::new();
    if let Ok(url) = std::env::var(DATABASE_URL_VARIABLE) {
        return Ok(url);
    }
    let server = SERVER.get_or_init(Server::start).as_ref();
    server.map(Server::url).map_err(Clone::clone)
}

async fn execute(server: &PgConnectOptions, statement: &str) -> sqlx::Result<()> {
    let mut connection = PgConnection::connect_with(server).await?;
    sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await?;
    connection.close().await
}

/// Does something behind the stores' back on the database at `url`.
///
/// # Errors
/// With what the database says.
pub async fn execute_on(url: &str, statement: &str) -> Result<(), String> {
    let done = async {
        if url.starts_with("sqlite") {
            let options = sqlx::sqlite::SqliteConnectOptions::from_str(url)?;
            let mut connection = options.connect().await?;
            sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await?;
            return connection.close().await;
        }
        execute(&PgConnectOptions::from_str(url)?, statement).await
    };
    done.await.map_err(|error| error.to_string())
}

impl Drop for TestDatabase {
    /// From a thread with a runtime of its own, since a test's runtime may be ending.
    fn drop(&mut self) {
        let Remains::Database { server, name } = &self.remains else {
            return;
        };
        let (server, name) = (server.clone(), name.clone());
        let removal = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let statement = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
            runtime.map(|runtime| runtime.block_on(execute(&server, &statement)))
        });
        if !matches!(removal.join(), Ok(Ok(Ok(())))) {
            tracing::warn!("a test's database stays behind on its server");
        }
    }
}
