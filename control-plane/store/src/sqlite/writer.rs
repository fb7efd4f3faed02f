//! The one connection that writes. Whoever holds it may leave a transaction open, by an error or by
//! being dropped; the next to come rolls it back.

use std::ops::{Deref, DerefMut};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, SqliteConnection};
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};

use crate::Error;

/// A writer that waits for its turn, in the order of asking.
pub(super) struct Writers(Mutex<Option<State>>);

struct State {
    connection: SqliteConnection,
    options: SqliteConnectOptions,
    /// Whether a transaction may be open that nobody is in.
    unsettled: bool,
}

/// The writer, for as long as it is held.
pub(super) struct Writer<'a>(MappedMutexGuard<'a, State>);

impl Writers {
    pub(super) fn new(connection: SqliteConnection, options: SqliteConnectOptions) -> Self {
        Self(Mutex::new(Some(State { connection, options, unsettled: false })))
    }

    pub(super) async fn writer(&self) -> Result<Writer<'_>, Error> {
        let held = MutexGuard::try_map(self.0.lock().await, Option::as_mut);
        let closed = |_| Error::Unavailable("the store is closed".to_owned());
        let mut writer = Writer(held.map_err(closed)?);
        if writer.0.unsettled {
            writer.roll_back().await?;
        }
        Ok(writer)
    }

    /// Takes the connection out, once it is free.
    pub(super) async fn close(&self) -> Option<SqliteConnection> {
        self.0.lock().await.take().map(|state| state.connection)
    }
}

impl Writer<'_> {
    /// From here until `ended` a transaction may be open.
    pub(super) fn begun(&mut self) {
        self.0.unsettled = true;
    }

    /// The transaction has ended.
    pub(super) fn ended(&mut self) {
        self.0.unsettled = false;
    }

    /// Ends what transaction there may be. A connection that cannot even do that is replaced.
    pub(super) async fn roll_back(&mut self) -> Result<(), Error> {
        let state = &mut *self.0;
        let ended = match sqlx::query("ROLLBACK").execute(&mut state.connection).await {
            Ok(_) => true,
            Err(sqlx::Error::Database(error)) => error.message().contains("no transaction"),
            Err(_) => false,
        };
        if !ended {
            tracing::warn!("the writing connection is replaced: it could not roll back");
            state.connection = state.options.connect().await.map_err(Error::before_write)?;
        }
        state.unsettled = false;
        Ok(())
    }
}

impl Deref for Writer<'_> {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.0.connection
    }
}

impl DerefMut for Writer<'_> {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.0.connection
    }
}
