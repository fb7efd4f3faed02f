//! The parts that make runs go, put together: store, write path, dispatch. Without any port.

use std::collections::BTreeMap;
use std::sync::Arc;

use store::{OwnerId, Store};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::definitions::Definitions;
use crate::dispatch::{self, Dispatcher};
use crate::runs::{self, Inbox, Notifier, Parts, Runs};

/// What the core is set up with.
#[derive(Debug)]
pub struct Setup {
    /// The store's address.
    pub database_url: String,
    /// How dispatch is set up.
    pub dispatch: dispatch::Config,
    /// Webhooks by channel.
    pub webhooks: BTreeMap<String, String>,
}

/// Why the core cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store cannot be opened or read.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A part cannot be made.
    #[error("{0}")]
    Part(String),
}

/// The running core.
#[derive(Debug)]
pub struct Core {
    /// The way to all runs.
    pub runs: Runs,
    /// Who gives tasks to agents.
    pub dispatcher: Dispatcher,
    shutdown: CancellationToken,
    write_path: JoinHandle<()>,
    adoption: JoinHandle<()>,
}

impl Core {
    /// Opens the store, starts write path and dispatch, and begins to take over the unfinished
    /// runs that it finds.
    ///
    /// # Errors
    /// When the store cannot be opened.
    pub async fn start(setup: Setup, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let store = store::open(&setup.database_url).await?;
        let notifier = Notifier::new(setup.webhooks).map_err(Error::Part)?;
        let shutdown = CancellationToken::new();
        let dispatcher = Dispatcher::new(setup.dispatch, Arc::clone(&clock));
        let inbox = Inbox::new();
        dispatcher.start(inbox.sink(), shutdown.clone());
        let epoch = u64::try_from(clock.now().0).unwrap_or(1);
        let parts = Parts {
            definitions: Definitions::new(Arc::clone(&store)),
            store,
            owner: OwnerId(crate::ids::unique()),
            epoch,
            clock,
            dispatcher: dispatcher.clone(),
            notifier,
        };
        let (runs, write_path) = runs::spawn(parts, inbox, shutdown.clone());
        let adoption = tokio::spawn(adopt(runs.clone(), shutdown.clone()));
        Ok(Self { runs, dispatcher, shutdown, write_path, adoption })
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        self.runs.store()
    }

    /// Stops: what is in the commit is settled, nothing else begins, the store is closed. A store
    /// that does not answer is left behind: nothing was acknowledged that it does not have.
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.adoption.abort();
        let settled = async {
            if let Err(error) = self.write_path.await {
                tracing::error!(%error, "the write path failed");
            }
            self.runs.store().close().await;
        };
        if tokio::time::timeout(crate::limits::STORE_STOP_WAIT_MAX, settled).await.is_err() {
            tracing::warn!("the store did not answer in time and is left behind");
        }
    }
}

/// Takes over what is unfinished, for as long as the store needs to list it.
async fn adopt(runs: Runs, shutdown: CancellationToken) {
    loop {
        match runs.adopt_all().await {
            Ok(0) => return,
            Ok(count) => {
                tracing::info!(count, "took over unfinished runs");
                return;
            }
            Err(error) => {
                tracing::error!(%error, "unfinished runs cannot be listed; trying again");
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(crate::limits::STORE_RETRY_MAX) => {}
        }
    }
}
