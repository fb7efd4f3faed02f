//! Runs from start to end on both databases: `up` with its bundled agents, one process for each
//! database, shared by the tests here.

mod data;
mod escalations;
mod failure;
mod many;
mod plans;
mod reading;
mod registry;
mod requests;
mod rollback;
mod steering;
mod time;

use std::sync::{Arc, Weak};

use store::testing::TestDatabase;
use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::support::Server;
use crate::support::client::Client;
use crate::support::http::Webhook;

/// Which database.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Sqlite,
    Postgres,
}

/// A server with all that belongs to it; what stands first goes first.
#[derive(Debug)]
struct Shared {
    server: Server,
    hook: Webhook,
    folder: TempDir,
    _database: Option<TestDatabase>,
}

impl Shared {
    async fn start(kind: Kind) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let hook = Webhook::start();
        let config = folder.path().join("orchestrator.toml");
        let text = format!(
            "log = 'warn'\nescalation_channels = 'ops'\n[notify_webhooks]\nops = '{}'\n",
            hook.url
        );
        std::fs::write(&config, text).unwrap();
        let mut more = vec!["--config", config.to_str().unwrap()];
        let database = match kind {
            Kind::Sqlite => None,
            Kind::Postgres => Some(store::testing::postgres().await),
        };
        if let Some(database) = &database {
            more.extend(["--database-url", database.url()]);
        }
        let server = Server::start("up", &folder.path().join("data"), None, &more);
        Self { server, hook, folder, _database: database }
    }
}

/// A client of the shared server.
struct World {
    client: Client,
    shared: Arc<Shared>,
}

impl World {
    /// The server lives as long as a test uses it; the first one starts it.
    async fn of(kind: Kind) -> Self {
        static SHARED: [Mutex<Weak<Shared>>; 2] =
            [Mutex::const_new(Weak::new()), Mutex::const_new(Weak::new())];
        let mut slot = SHARED[kind as usize].lock().await;
        let shared = match slot.upgrade() {
            Some(shared) => shared,
            None => {
                let shared = Arc::new(Shared::start(kind).await);
                *slot = Arc::downgrade(&shared);
                shared
            }
        };
        drop(slot);
        Self { client: Client::of(&shared.server).await, shared }
    }
}

/// Makes a test for each database of each function that takes a world.
macro_rules! on_both_stores {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(&crate::lifecycle::World::of(crate::lifecycle::Kind::Sqlite).await)
                    .await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(&crate::lifecycle::World::of(crate::lifecycle::Kind::Postgres).await)
                    .await;
            })*
        }
    };
}
use on_both_stores;
