//! The engine: decides, and does nothing.
//!
//! State in, command in, time in; events and effects out. No I/O, no clock, no randomness, no
//! async: the same input gives the same output.

pub mod expression;
pub mod graph;
pub mod id;
pub mod task;

pub use id::{ContentHash, InstanceId, Instant, RunId};
