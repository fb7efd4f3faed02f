//! The whole control plane as configured: core, schedules, retention and server, started in order
//! and stopped in the reverse one.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::audit;
use crate::clock::Clock;
use crate::config::Config;
use crate::core::{self, Core, Setup};
use crate::data_dir::{self, DataDir};
use crate::dispatch;
use crate::escalations::{Keeper, Policy};
use crate::limits;
use crate::plans;
use crate::replicas;
use crate::retention;
use crate::runs::Notifier;
use crate::schedules::Schedules;
use crate::server::{self, Server};
use crate::service::admission::Admission;
use crate::triages::Learning;

/// Why the control plane cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] data_dir::Error),
    /// The core cannot start.
    #[error(transparent)]
    Core(#[from] core::Error),
    /// The port cannot be served.
    #[error(transparent)]
    Server(#[from] server::Error),
}

/// A running control plane.
#[derive(Debug)]
pub struct ControlPlane {
    core: Core,
    server: Server,
    address: Option<SocketAddr>,
    shutdown: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    /// Held until everything is closed.
    _data_dir: Option<DataDir>,
}

impl ControlPlane {
    /// Starts everything. Without `listen` in the configuration it is reached by
    /// [`ControlPlane::channel`] alone.
    ///
    /// # Errors
    /// When the store cannot be opened or the address not be listened on.
    pub async fn start(config: &Config, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        server::install_metrics();
        // The address first: a port that is taken must not cost an opened store.
        let listener = match config.listen {
            Some(address) => Some(Server::listen(address, config.insecure).await?),
            None => None,
        };
        let (data_dir, database_url) = match &config.database_url {
            Some(url) => (None, url.expose().to_owned()),
            None => {
                let held = DataDir::hold(&config.data_dir)?;
                let url = held.database_url();
                (Some(held), url)
            }
        };
        let mut dispatch = dispatch::Config::default();
        dispatch.clocks.grace = config.grace_after_adoption;
        let webhooks = config.webhooks();
        let address = listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let replica = replicas::Config {
            address: advertised(config, address),
            secret: config.peer_secret.clone(),
            lease: config.replica_lease,
            park_after: Some(config.park_after),
            park_soon_beyond: (config.max_active_runs / 4).min(limits::PARK_SOON_RUNS),
            ..replicas::Config::default()
        };
        let setup = Setup { database_url, dispatch, webhooks, replica };
        let core = Core::start(setup, Arc::clone(&clock)).await?;
        let admission = Admission::new(config.max_active_runs);
        let schedules = Schedules::new(core.runs.clone());
        let folder = data_dir.as_ref().map(|_| config.data_dir.as_path());
        let server = Server::new(&core, schedules.clone(), admission, folder, config.into());
        let server = server.await?;
        let shutdown = CancellationToken::new();
        let mut tasks = keepers(config, &core, server.learning(), &shutdown)?;
        tasks.push(tokio::spawn(schedules.run(shutdown.clone())));
        if let Some(listener) = listener {
            server.serve(listener);
        }
        Ok(Self { core, server, address, shutdown, tasks, _data_dir: data_dir })
    }

    /// The core.
    #[must_use]
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// Where it listens, with the port that the system chose where none was given.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// A channel to it within the process.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.server.channel()
    }

    /// Sends clients and agents elsewhere: from now on nothing new is taken from them, watches
    /// end and agents are asked to connect to another replica. What is under way goes on.
    pub async fn drain(&self) {
        self.core.replicas.drain();
        self.server.drain().await;
    }

    /// Stops: streams end, requests under way are answered, what is in the commit is settled.
    pub async fn stop(self) {
        self.core.replicas.drain();
        self.shutdown.cancel();
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a part of the control plane failed");
            }
        }
        self.server.stop().await;
        self.core.stop().await;
    }
}

/// What is seen to from time to time, beside all that is asked: retention, seals of the audit log,
/// questions to people, plans whose runs have ended.
fn keepers(
    config: &Config,
    core: &Core,
    learning: &Learning,
    shutdown: &CancellationToken,
) -> Result<Vec<JoinHandle<()>>, Error> {
    let (store, clock) = (core.store(), core.runs.clock());
    let keep = retention::Keep { age: config.retention_age, count: config.retention_runs };
    let seals = audit::seals::run(
        Arc::clone(store),
        Arc::clone(clock),
        core.replicas.clone(),
        shutdown.clone(),
    );
    let people = Keeper {
        store: Arc::clone(store),
        clock: Arc::clone(clock),
        replicas: core.replicas.clone(),
        notifier: Notifier::new(config.webhooks()).map_err(core::Error::Part)?,
        policy: Policy { due: config.escalation_due, channels: config.escalation_channels.clone() },
        asked: core.runs.asked(),
    };
    let plans = plans::keeper::run(
        core.runs.clone(),
        core.replicas.clone(),
        learning.clone(),
        shutdown.clone(),
    );
    Ok(vec![
        tokio::spawn(retention::run(Arc::clone(store), Arc::clone(clock), keep, shutdown.clone())),
        tokio::spawn(seals),
        tokio::spawn(people.run(shutdown.clone())),
        tokio::spawn(plans),
    ])
}

/// Where other replicas reach this process; empty when that is not known.
fn advertised(config: &Config, listens: Option<SocketAddr>) -> String {
    let listens = listens.filter(|address| !address.ip().is_unspecified());
    let own = listens.map(|address| address.to_string());
    config.advertise.clone().or(own).unwrap_or_default()
}
