//! The control plane of Master Orchestrator.

pub mod clock;
pub mod core;
pub mod data_dir;
pub mod definitions;
pub mod dispatch;
mod ids;
pub mod limits;
pub mod runs;
pub mod service;
pub mod schedules;
pub mod retention;
pub mod control_plane;
pub mod config;
pub mod server;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
