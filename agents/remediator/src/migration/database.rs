//! A connection to the database of a migration or a check: a file in the sandbox, or a
//! PostgreSQL that an environment variable names. An address never appears in a failure.

use std::path::PathBuf;
use std::str::FromStr as _;

use agent_sdk::{Failure, JsonSchema};
use serde::{Deserialize, Serialize};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _};

use crate::limits;
use crate::sandbox::{Sandbox, rejected};
use crate::tools::Tools;

/// Which database: either field, not both.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// A file of SQLite, relative to the sandbox.
    pub sqlite: Option<String>,
    /// The name of the agent's environment variable that holds the address of a PostgreSQL,
    /// `postgresql://user:password@host/database`.
    pub postgres_env: Option<String>,
}

/// Where a database is. The address of a PostgreSQL stays in the environment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Place {
    /// A file.
    Sqlite(PathBuf),
    /// An environment variable.
    Postgres(String),
}

/// A connection. Dropping it takes back what was not committed.
pub enum Connection {
    /// To a file.
    Sqlite(SqliteConnection),
    /// To a server.
    Postgres(PgConnection),
}

impl Database {
    /// Where it is, checked.
    pub fn place(&self, sandbox: &Sandbox) -> Result<Place, Failure> {
        match (&self.sqlite, &self.postgres_env) {
            (Some(file), None) => {
                let path = sandbox.path("database.sqlite", file)?;
                if !path.is_file() {
                    let message = format!("`database.sqlite` is {file:?}, which is not there");
                    return Err(rejected(message));
                }
                Ok(Place::Sqlite(path))
            }
            (None, Some(name)) if !name.is_empty() && !name.contains(['=', '\0', ':']) => {
                Ok(Place::Postgres(name.clone()))
            }
            _ => Err(rejected(
                "`database` needs either `sqlite`, a file in the sandbox, or `postgres_env`, the \
                 name of an environment variable that holds the address",
            )),
        }
    }
}

impl Connection {
    /// Connects.
    pub async fn open(place: &Place, tools: &Tools) -> Result<Self, Failure> {
        let connecting = async {
            match place {
                Place::Sqlite(path) => {
                    let options = SqliteConnectOptions::new()
                        .filename(path)
                        .busy_timeout(limits::DATABASE_BUSY_TIMEOUT);
                    let connection = SqliteConnection::connect_with(&options).await;
                    connection.map(Self::Sqlite).map_err(|error| failure("open", &error))
                }
                Place::Postgres(variable) => {
                    let options = postgres(variable, tools)?.disable_statement_logging();
                    let connection = PgConnection::connect_with(&options).await;
                    connection.map(Self::Postgres).map_err(|error| failure("reach", &error))
                }
            }
        };
        match tokio::time::timeout(limits::CONNECT_TIMEOUT, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(Failure::retryable("the database does not answer").code("database")),
        }
    }

    /// Begins a transaction. One at a time changes migrations: another one, also one whose client
    /// is gone, has ended then.
    pub async fn begin(&mut self) -> Result<(), Failure> {
        match self {
            Self::Sqlite(_) => self.run("lock", "BEGIN IMMEDIATE").await,
            Self::Postgres(_) => {
                self.run("begin a transaction on", "BEGIN").await?;
                let lock = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))";
                self.execute(lock, &["remediator_migrations"]).await
            }
        }
    }

    /// Begins a transaction that can only read.
    pub async fn begin_to_read(&mut self) -> Result<(), Failure> {
        match self {
            Self::Sqlite(_) => self.run("read", "PRAGMA query_only = 1; BEGIN").await,
            Self::Postgres(_) => self.run("read", "BEGIN READ ONLY").await,
        }
    }

    /// Commits.
    pub async fn commit(&mut self) -> Result<(), Failure> {
        self.run("commit to", "COMMIT").await
    }

    /// Runs statements of any kind. `deed` says what for, should they fail.
    pub async fn run(&mut self, deed: &str, sql: &str) -> Result<(), Failure> {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        let done = match self {
            Self::Sqlite(connection) => sql.execute(connection).await.map(drop),
            Self::Postgres(connection) => sql.execute(connection).await.map(drop),
        };
        done.map_err(|error| failure(deed, &error))
    }

    /// Runs one statement with texts for its places.
    pub async fn execute(&mut self, sql: &'static str, texts: &[&str]) -> Result<(), Failure> {
        let done = match self {
            Self::Sqlite(connection) => {
                let query = sqlx::query(sql);
                let query = texts.iter().fold(query, |query, text| query.bind(*text));
                query.execute(connection).await.map(drop)
            }
            Self::Postgres(connection) => {
                let query = sqlx::query(sql);
                let query = texts.iter().fold(query, |query, text| query.bind(*text));
                query.execute(connection).await.map(drop)
            }
        };
        done.map_err(|error| failure("write to", &error))
    }

    /// The number that a statement gives.
    pub async fn count(&mut self, sql: &'static str, texts: &[&str]) -> Result<i64, Failure> {
        let count = match self {
            Self::Sqlite(connection) => {
                let query = sqlx::query_scalar::<_, i64>(sql);
                let query = texts.iter().fold(query, |query, text| query.bind(*text));
                query.fetch_one(connection).await
            }
            Self::Postgres(connection) => {
                let query = sqlx::query_scalar::<_, i64>(sql);
                let query = texts.iter().fold(query, |query, text| query.bind(*text));
                query.fetch_one(connection).await
            }
        };
        count.map_err(|error| failure("read", &error))
    }

    /// Whether the database has a table of this name.
    pub async fn has_table(&mut self, name: &str) -> Result<bool, Failure> {
        let sql = match self {
            Self::Sqlite(_) => {
                "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = $1"
            }
            Self::Postgres(_) => {
                "SELECT count(*) FROM pg_tables WHERE tablename = $1 \
                 AND schemaname = ANY (current_schemas(false))"
            }
        };
        Ok(self.count(sql, &[name]).await? > 0)
    }

    /// The first column of the first row that a query gives, as text.
    pub async fn first(&mut self, sql: &str) -> Result<Option<String>, Failure> {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        match self {
            Self::Sqlite(connection) => {
                let row = sql.fetch_optional(connection).await;
                let row = row.map_err(|error| failure("query", &error))?;
                Ok(row.and_then(|row| {
                    let text = row.try_get_unchecked::<String, _>(0).ok();
                    text.or_else(|| row.try_get::<i64, _>(0).ok().map(|number| number.to_string()))
                }))
            }
            Self::Postgres(connection) => {
                let row = sql.fetch_optional(connection).await;
                let row = row.map_err(|error| failure("query", &error))?;
                Ok(row.and_then(|row| row.try_get_unchecked::<String, _>(0).ok()))
            }
        }
    }
}

fn postgres(variable: &str, tools: &Tools) -> Result<PgConnectOptions, Failure> {
    let missing = || {
        rejected(format!(
            "the agent has no environment variable {variable}, which `database.postgres_env` \
             names; set it to the address of the database"
        ))
    };
    let url = tools.named(variable).ok_or_else(missing)?;
    // What the parser says may repeat parts of the address.
    PgConnectOptions::from_str(&url).map_err(|_| {
        rejected(format!("the environment variable {variable} holds no address of a PostgreSQL"))
    })
}

/// What the database says of a statement is wrong for good; what happens on the way may pass.
fn failure(deed: &str, error: &sqlx::Error) -> Failure {
    let passes = match error {
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            // Serialisation, locks, resources, shutdown of PostgreSQL; busy and locked of SQLite.
            let classes = ["40", "53", "55", "57", "08"];
            let is_busy = matches!(&*code, "5" | "6" | "261" | "517" | "23505" | "1555");
            is_busy || code.len() == 5 && classes.iter().any(|class| code.starts_with(class))
        }
        sqlx::Error::Configuration(_) => false,
        _ => true,
    };
    let message = format!("cannot {deed} the database: {error}");
    let failure = if passes { Failure::retryable(message) } else { Failure::permanent(message) };
    failure.code("database")
}
