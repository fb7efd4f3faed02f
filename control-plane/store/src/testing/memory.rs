//! A store that keeps nothing: a model of what a database does, small enough to be read whole, for
//! tests that want many of them or none of a database's time. It passes the conformance suite.
//!
//! Each process of a test opens a session of its own on one [`Memory`]; what stands between a
//! session and the tables is its [`Gate`], which may be slow, fail, or never answer.

mod documents;
mod session;
mod shared;
mod tables;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use self::session::Session;
use self::tables::Tables;
use crate::{Error, Store};

/// The tables that sessions share. Cheap to clone; all clones are the same tables.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<Tables>>);

/// What was done with parked runs that wait for child runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// How often one was parked.
    pub parents_parked: u64,
    /// How often one woke that nobody had told of an end.
    pub parents_woken: u64,
}

/// What is done with the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Something is looked at.
    Read,
    /// Something is written that is no transition.
    Write,
    /// Transitions are written.
    Commit,
    /// Many runs are taken over at once, and the answer says which.
    TakeOver,
}

/// What a session goes through on its way to the tables and back.
#[async_trait]
pub trait Gate: Send + Sync + 'static {
    /// Before it is done; an error is what the caller gets, and nothing was done.
    async fn before(&self, access: Access) -> Result<(), Error>;

    /// After it was done; an error is what the caller gets in place of the answer.
    async fn after(&self, access: Access) -> Result<(), Error>;
}

/// A gate that is always open.
#[derive(Debug)]
struct Open;

#[async_trait]
impl Gate for Open {
    async fn before(&self, _access: Access) -> Result<(), Error> {
        Ok(())
    }

    async fn after(&self, _access: Access) -> Result<(), Error> {
        Ok(())
    }
}

impl Memory {
    /// Empty tables.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A session that nothing stands in the way of.
    #[must_use]
    pub fn open(&self) -> Arc<dyn Store> {
        self.open_behind(Arc::new(Open))
    }

    /// A session behind `gate`.
    #[must_use]
    pub fn open_behind(&self, gate: Arc<dyn Gate>) -> Arc<dyn Store> {
        Arc::new(Session::new(self.clone(), gate))
    }

    /// What was done so far.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.tables().shared.figures
    }

    /// The tables are whole whatever panicked while they were held.
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
