//! For tests of agents: a harness that calls handlers in process, and a scripted control plane
//! that speaks real frames over an in-memory connection, with a kit of faults; and the suite
//! that tries whether actions keep the undo contract.

pub mod conformance;
mod control_plane;
mod faults;
mod harness;

/// The messages that a scripted control plane and an agent exchange.
pub use contracts::v1;
pub use control_plane::{ControlPlane, Peer, WAIT_MAX, task};
pub use faults::{Fault, Faults};
pub use harness::{Call, Harness, Outcome};
