//! The control plane of Master Orchestrator.

pub mod clock;
pub mod definitions;
pub mod dispatch;
mod ids;
pub mod limits;
pub mod runs;
pub mod service;
