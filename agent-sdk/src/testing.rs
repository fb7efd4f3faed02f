//! For tests of agents: a harness that calls handlers in process, and a scripted control plane
//! that speaks real frames over an in-memory connection, with a kit of faults.

mod harness;

pub use harness::{Call, Harness, Outcome};
