//! The parts that make runs go, put together: store, write path, dispatch. Without any port.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::Instant;
use store::Store;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::definitions::Definitions;
use crate::dispatch::{self, Dispatcher};
use crate::lease::Lease;
use crate::replicas::{self, Peers, Replicas};
use crate::runs::{self, Alone, Among, Identity, Inbox, Notifier, Others, Parts, Runs};

/// What the core is set up with.
#[derive(Debug)]
pub struct Setup {
    /// The store's address.
    pub database_url: String,
    /// How dispatch is set up.
    pub dispatch: dispatch::Config,
    /// Webhooks by channel.
    pub webhooks: BTreeMap<String, String>,
    /// How it takes its place among the replicas that share the store.
    pub replica: replicas::Config,
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
    /// The replicas that share the store.
    pub replicas: Replicas,
    shutdown: CancellationToken,
    write_path: JoinHandle<()>,
    /// Keeps the place among the replicas until nothing is in the commit any more.
    membership: JoinHandle<()>,
    leaving: CancellationToken,
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
        Self::over(store, notifier, setup.dispatch, setup.replica, clock).await
    }

    /// The same over a store that is open already.
    ///
    /// # Errors
    /// When it takes no further replica just now.
    pub async fn over(
        store: Arc<dyn Store>,
        notifier: Notifier,
        dispatch: dispatch::Config,
        config: replicas::Config,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let shutdown = CancellationToken::new();
        // The lock on its folder says of SQLite that nobody else has it.
        let is_shared = store.kind() != "sqlite";
        let lease = if is_shared { Lease::until(Instant(0)) } else { Lease::endless() };
        let peers = Peers::new(config.secret.clone(), Arc::clone(&config.connect));
        let (ours, time) = (Arc::clone(&store), Arc::clone(&clock));
        let joining = Replicas::join(ours, time, &config, peers.clone(), lease.clone());
        let replicas = joining.await?;
        let dispatch = dispatch::Config { lease: lease.clone(), ..dispatch };
        let dispatcher = Dispatcher::new(dispatch, Arc::clone(&clock));
        let inbox = Inbox::new();
        dispatcher.start(inbox.sink(), shutdown.clone());
        let Identity { owner, epoch } = replicas.own();
        let parts = Parts {
            definitions: Definitions::new(Arc::clone(&store)),
            store,
            owner,
            epoch,
            clock,
            dispatcher: dispatcher.clone(),
            notifier,
        };
        let others: Arc<dyn Others> =
            if is_shared { Arc::new(peers.clone()) } else { Arc::new(Alone) };
        let (park_after, park_soon_beyond) = (config.park_after, config.park_soon_beyond);
        let randomness = config.randomness;
        let among = Among { others, lease, park_after, park_soon_beyond, randomness };
        let (runs, write_path) = runs::spawn_among(parts, among, inbox, shutdown.clone());
        if is_shared {
            tokio::spawn(dispatcher.clone().share(peers, shutdown.clone()));
        }
        let leaving = CancellationToken::new();
        let kept = replicas.clone().keep(runs.clone(), dispatcher.clone(), leaving.clone());
        let membership = tokio::spawn(kept);
        let (waking, until) = (runs.clone(), shutdown.clone());
        tokio::spawn(async move { waking.wake_parked(until).await });
        Ok(Self { runs, dispatcher, replicas, shutdown, write_path, membership, leaving })
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        self.runs.store()
    }

    /// Ends everything at once, as when the process dies: nothing is settled, nobody is told.
    #[cfg(any(test, feature = "testing"))]
    pub fn die(&self) {
        self.shutdown.cancel();
        self.leaving.cancel();
    }

    /// Stops: what is in the commit is settled, nothing else begins, the store is closed. A store
    /// that does not answer is left behind: nothing was acknowledged that it does not have.
    pub async fn stop(self) {
        self.shutdown.cancel();
        let settled = async {
            if let Err(error) = self.write_path.await {
                tracing::error!(%error, "the write path failed");
            }
            self.leaving.cancel();
            if let Err(error) = self.membership.await {
                tracing::error!(%error, "the place among the replicas was lost");
            }
            self.replicas.leave().await;
            self.runs.store().close().await;
        };
        if tokio::time::timeout(crate::limits::STORE_STOP_WAIT_MAX, settled).await.is_err() {
            tracing::warn!("the store did not answer in time and is left behind");
        }
    }
}
