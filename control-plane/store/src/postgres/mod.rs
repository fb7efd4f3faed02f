//! PostgreSQL: a pool for commits alone, and one for all else.

mod commit;
mod partitions;
#[expect(clippy::duplicate_mod, reason = "the same words for each database, see shared/mod.rs")]
#[path = "../shared/mod.rs"]
mod shared;
mod statement;

use std::str::FromStr as _;
use std::time::Duration;

use engine::RunId;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::{Connection as _, PgConnection, PgPool, QueryBuilder};

use crate::backup::{Reader, Writer};
use crate::{Error, Micros, migration};

type Db = sqlx::Postgres;
type Connection = PgConnection;
type Row = PgRow;

const KIND: &str = "postgres";
const BEGIN: &str = "BEGIN";
const LOCK_WORKFLOWS: &str = "LOCK TABLE workflows IN SHARE ROW EXCLUSIVE MODE";

/// Rows that another is about to change are passed over.
const SKIP_LOCKED: &str = " FOR UPDATE SKIP LOCKED";
/// A statement that changes can give what another reads.
const BEAT: bool = true;
/// Its clock, schema, version and size.
const FACTS: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8, \
    (SELECT max(version) FROM _sqlx_migrations WHERE success), \
    current_setting('server_version'), pg_database_size(current_database())";

/// What of the journal is removed row by row: the rest goes with its partitions.
const JOURNAL_BY_ROW: &str = "journal_kept";
/// No partition goes while this is held. It comes first, so that nothing is looked at before.
const HOLD_JOURNAL: &str = "LOCK TABLE journal IN ACCESS SHARE MODE";

/// One moment for all that is read.
const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// Commits at the same time. More than the database has cores brings nothing.
const COMMITTERS_MAX: u32 = 4;
/// Connections on which leases are renewed: one, and another for while that one does not answer.
const KEEPERS_MAX: u32 = 2;
/// Connections for everything else.
const CONNECTIONS_MAX: u32 = 12;
/// How long to wait for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// Everything but commits is given up after this long.
const STATEMENT_TIMEOUT_MS: &str = "30000";

pub(crate) struct Database {
    committers: PgPool,
    keepers: PgPool,
    general: PgPool,
}

fn options(url: &str) -> Result<PgConnectOptions, Error> {
    if !names_user(url) {
        return Err(Error::Url("it names no user; write postgres://USER@host/database".to_owned()));
    }
    let options = PgConnectOptions::from_str(url)
        .map_err(|error| Error::Url(format!("{error}; write postgres://user@host/database")))?;
    Ok(options.application_name("orchestrator"))
}

/// Opens a database as a release does whose newest schema is `known`.
pub(crate) async fn open(url: &str, known: i64) -> Result<Database, Error> {
    let options = options(url)?;
    migrate(&options, known).await?;
    // A commit whose wait for a standby is cancelled stays, unreplicated: no time-out. One plan
    // that looks up each run by its key, however small the table was when it was made.
    let committing = options.clone().options([
        ("statement_timeout", "0"),
        ("plan_cache_mode", "force_generic_plan"),
        ("enable_seqscan", "off"),
        ("enable_bitmapscan", "off"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
        ("jit", "off"),
    ]);
    let general = options.options([("statement_timeout", STATEMENT_TIMEOUT_MS)]);
    let pool = |connections| {
        PgPoolOptions::new().max_connections(connections).acquire_timeout(ACQUIRE_TIMEOUT)
    };
    Ok(Database {
        committers: pool(COMMITTERS_MAX).test_before_acquire(false).connect_lazy_with(committing),
        keepers: pool(KEEPERS_MAX).connect_lazy_with(general.clone()),
        general: pool(CONNECTIONS_MAX).connect_lazy_with(general),
    })
}

/// Whether the address says who connects. Without, the driver takes a user that is not there.
fn names_user(url: &str) -> bool {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    let parameters = rest.split_once('?').map_or("", |(_, parameters)| parameters);
    let named = |parameter: &str| parameter.strip_prefix("user=").is_some_and(|u| !u.is_empty());
    !user.split(':').next().unwrap_or_default().is_empty() || parameters.split('&').any(named)
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection, Error> {
    let connecting = tokio::time::timeout(ACQUIRE_TIMEOUT, PgConnection::connect_with(options));
    match connecting.await {
        Ok(connected) => connected.map_err(Error::read),
        Err(_) => {
            let seconds = ACQUIRE_TIMEOUT.as_secs();
            let text = format!("the server did not answer within {seconds} s");
            Err(Error::Unavailable(text))
        }
    }
}

/// On a connection of its own: where it fails, closing it gives the lock on the schema back.
async fn migrate(options: &PgConnectOptions, known: i64) -> Result<(), Error> {
    let mut connection = connect(options).await?;
    let migrator = migration::postgres(known);
    let migrated = shared::schema::bring_up_to_date(&mut connection, &migrator).await;
    // The outcome of the migration is what counts.
    drop(connection.close().await);
    migrated
}

impl Database {
    async fn reader(&self) -> Result<PoolConnection<Db>, Error> {
        self.general.acquire().await.map_err(Error::read)
    }

    async fn writer(&self) -> Result<PoolConnection<Db>, Error> {
        self.general.acquire().await.map_err(Error::before_write)
    }

    /// What renews a lease waits for nobody else, and is prepared once: with all connections in
    /// turn an idle replica would prepare about as often as it asks.
    async fn keeper(&self) -> Result<PoolConnection<Db>, Error> {
        self.keepers.acquire().await.map_err(Error::before_write)
    }

    async fn close_all(&self) {
        self.committers.close().await;
        self.keepers.close().await;
        self.general.close().await;
    }
}

/// Writes all tables of a database; see [`crate::backup`].
pub(crate) async fn export(url: &str, writer: &mut Writer<'_>) -> Result<(), Error> {
    let mut connection = connect(&options(url)?).await?;
    shared::backup::export(&mut connection, writer).await?;
    connection.close().await.map_err(Error::read)
}

/// Fills an empty database; see [`crate::backup`].
pub(crate) async fn import(url: &str, reader: &mut Reader<'_>) -> Result<(), Error> {
    let options = options(url)?;
    migrate(&options, migration::KNOWN).await?;
    let mut connection = connect(&options).await?;
    shared::backup::import(&mut connection, reader).await?;
    connection.close().await.map_err(Error::read)
}

/// Makes room for what comes. That it cannot be had just now keeps nobody from writing.
async fn prepare_journal(connection: &mut Connection, at: Micros) {
    if let Err(error) = partitions::prepare(connection, at).await {
        tracing::warn!(%error, "partitions of the journal cannot be made just now");
    }
}

use partitions::{settle_restored, tend as tend_journal};

/// Waits until an insert of `run` that is under way has ended, by trying to insert it too.
async fn settle_insert(connection: &mut Connection, run: RunId) -> sqlx::Result<()> {
    let mut transaction = connection.begin().await?;
    sqlx::query::<Db>(
        "INSERT INTO runs (run_id, tenant, workflow, version_name, definition_hash, status, \
         version, created_at, priority, labels, summary) \
         VALUES ($1, '', '', '', '', 0, 0, 0, 0, '', '') ON CONFLICT DO NOTHING",
    )
    .bind(run.0)
    .execute(&mut *transaction)
    .await?;
    transaction.rollback().await
}

/// Whether a run is one of these.
fn push_among(query: &mut QueryBuilder<Db>, runs: &[RunId]) {
    let runs: Vec<uuid::Uuid> = runs.iter().map(|run| run.0).collect();
    query.push(" = ANY(").push_bind(runs).push(")");
}

/// Whether a text is one of these.
fn push_among_texts(query: &mut QueryBuilder<Db>, texts: &[&str]) {
    let texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
    query.push(" = ANY(").push_bind(texts).push(")");
}

#[cfg(test)]
mod tests {
    use super::names_user;

    #[test]
    fn a_user_is_found_where_there_is_one() {
        assert!(names_user("postgres://me@host/db"));
        assert!(names_user("postgres://me:secret@host:5432/db"));
        assert!(names_user("postgres:///db?host=/run&user=me"));
        assert!(!names_user("postgres://host/db"));
        assert!(!names_user("postgres://:secret@host/db"));
        assert!(!names_user("postgres://host/db?user="));
        assert!(!names_user("postgres://host/d@b"));
    }
}
