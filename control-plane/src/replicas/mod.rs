//! Several processes that share one database: who there is, who lives, and who has which runs.

mod follow;
mod look;
mod membership;
mod observer;
pub mod peers;
mod ways;

use std::sync::Arc;
use std::time::Duration;

pub use membership::{Replicas, Standing};
pub use peers::{Connect, Peer, Peers, Tcp};

use crate::config::Secret;
use crate::ids::Randomness;

/// How a process takes its place among the replicas.
#[derive(Clone)]
pub struct Config {
    /// Where the others reach it, HOST:PORT; empty: they cannot.
    pub address: String,
    /// By which replicas on several machines know one another.
    pub secret: Option<Secret>,
    /// How long a replica must be silent before the others take over its runs.
    pub lease: Duration,
    /// How long a run only waits before it is let go from memory; `None`: it never is.
    pub park_after: Option<Duration>,
    /// With more runs in memory than these, those that only wait go soon.
    pub park_soon_beyond: usize,
    /// How the others are reached.
    pub connect: Arc<dyn Connect>,
    /// Where the ids of its lives come from.
    pub randomness: Randomness,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: String::new(),
            secret: None,
            lease: Duration::from_secs(5),
            park_after: Some(Duration::from_secs(60)),
            park_soon_beyond: crate::limits::PARK_SOON_RUNS,
            connect: Arc::new(Tcp),
            randomness: Randomness::System,
        }
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("address", &self.address).finish_non_exhaustive()
    }
}
