//! What can go wrong with a store, said so that an operator knows what to do. Texts never hold a
//! password.

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be told whether the write happened.
    #[error("the outcome of the write is unknown: {0}")]
    Unknown(String),
    /// The database cannot be reached or is locked; nothing was written. Trying again may help.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// The disk is full, or the file system read-only; nothing was written.
    #[error("the database has no room to write: {0}; make room and try again")]
    Full(String),
    /// What is stored is damaged or contradicts itself.
    #[error("the database is damaged: {0}; restore it from a backup")]
    Corrupt(String),
    /// A newer release has migrated the database.
    #[error(
        "the database has schema {found}, this release knows {known} at most; start a release at \
         least as new as the one that migrated it"
    )]
    NewerSchema {
        /// The database's.
        found: i64,
        /// The greatest that is known here.
        known: i64,
    },
    /// The schema could not be brought up to date.
    #[error("the schema cannot be brought up to date: {0}")]
    Migration(String),
    /// The address of the database is not usable.
    #[error("the database's address is not usable: {0}")]
    Url(String),
    /// What was asked breaks a rule or a limit; nothing was written.
    #[error("{0}")]
    Invalid(String),
    /// The database refused a statement: a defect of this program.
    #[error("the database refused a statement: {0}")]
    Database(String),
}

/// What a failed statement tells of what it was to write.
enum Fault {
    /// It may have been written: the answer is missing.
    Lost,
    Unavailable,
    Full,
    Corrupt,
    Refused,
}

impl Error {
    /// Of a statement that only reads.
    pub(crate) fn read(error: sqlx::Error) -> Self {
        match fault(&error) {
            Fault::Lost | Fault::Unavailable => Self::Unavailable(text(&error)),
            fault => Self::of(&fault, &error),
        }
    }

    /// Of a statement that writes, or of a `COMMIT`.
    pub(crate) fn write(error: sqlx::Error) -> Self {
        Self::of(&fault(&error), &error)
    }

    fn of(fault: &Fault, error: &sqlx::Error) -> Self {
        let text = text(error);
        match fault {
            Fault::Lost => Self::Unknown(text),
            Fault::Unavailable => Self::Unavailable(text),
            Fault::Full => Self::Full(text),
            Fault::Corrupt => Self::Corrupt(text),
            Fault::Refused => Self::Database(text),
        }
    }

    /// The same before anything was sent that writes: nothing is lost.
    pub(crate) fn before_write(error: sqlx::Error) -> Self {
        Self::read(error)
    }

    /// Of bringing the schema up to date, whose newest version known here is `known`.
    pub(crate) fn migration(error: sqlx::migrate::MigrateError, known: i64) -> Self {
        use sqlx::migrate::MigrateError;
        match error {
            MigrateError::VersionMissing(found) if found > known => {
                Self::NewerSchema { found, known }
            }
            MigrateError::Execute(error) => Self::read(error),
            MigrateError::ExecuteMigration(error, version) => match Self::read(error) {
                Self::Database(text) => Self::Migration(format!("migration {version}: {text}")),
                other => other,
            },
            other => Self::Migration(other.to_string()),
        }
    }
}

/// The database's own words, without the error's chain; drivers put no password into them.
fn text(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => match error.code() {
            Some(code) => format!("{} ({code})", error.message()),
            None => error.message().to_owned(),
        },
        sqlx::Error::PoolClosed => "the store is closed".to_owned(),
        sqlx::Error::Decode(error) => error.to_string(),
        other => other.to_string(),
    }
}

fn fault(error: &sqlx::Error) -> Fault {
    use sqlx::Error as E;
    match error {
        E::Database(error) => {
            let code = error.code().unwrap_or_default();
            if error.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
                sqlite_fault(code.parse().unwrap_or(0))
            } else {
                postgres_fault(&code)
            }
        }
        E::Io(_) | E::Tls(_) | E::Protocol(_) | E::WorkerCrashed => Fault::Lost,
        E::PoolTimedOut | E::PoolClosed | E::BeginFailed => Fault::Unavailable,
        E::Decode(_) | E::ColumnDecode { .. } => Fault::Corrupt,
        _ => Fault::Refused,
    }
}

/// See <https://www.sqlite.org/rescode.html>; the low byte is the primary code.
fn sqlite_fault(code: i32) -> Fault {
    match code & 0xff {
        // BUSY, LOCKED, INTERRUPT, CANTOPEN, PROTOCOL, NOMEM, PERM
        5 | 6 | 9 | 14 | 15 | 7 | 3 => Fault::Unavailable,
        // FULL, READONLY
        13 | 8 => Fault::Full,
        // CORRUPT, NOTADB
        11 | 26 => Fault::Corrupt,
        // IOERR: it may have been the sync of a commit that is in the log.
        10 => Fault::Lost,
        _ => Fault::Refused,
    }
}

/// See the appendix of PostgreSQL's manual on error codes.
fn postgres_fault(code: &str) -> Fault {
    match code {
        // The server ended the session: where it was in a commit, only the database knows.
        "57P01" | "57P02" | "57P04" | "57P05" => Fault::Lost,
        "53100" => Fault::Full,
        "XX001" | "XX002" => Fault::Corrupt,
        // Read-only: a standby, after a failover.
        "25006" => Fault::Unavailable,
        _ => match code.get(..2) {
            // Connection, authorization, rolled back, resources, object in use, operator, system.
            Some("08" | "28" | "3D" | "40" | "53" | "55" | "57" | "58") => Fault::Unavailable,
            _ => Fault::Refused,
        },
    }
}
