//! The control plane of Master Orchestrator.

pub mod audit;
pub mod clock;
pub mod config;
pub mod control_plane;
pub mod core;
pub mod data_dir;
pub mod definitions;
pub mod dispatch;
pub mod documents;
pub mod escalations;
mod hash;
pub mod ids;
pub mod lease;
pub mod limits;
pub mod plans;
pub mod recovery;
pub mod replicas;
pub mod retention;
pub mod runs;
pub mod schedules;
pub mod server;
pub mod service;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod triages;
