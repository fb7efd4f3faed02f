//! The engine: decides, and does nothing.
//!
//! State in, command in, time in; events and effects out. No I/O, no clock, no randomness, no
//! async: the same input gives the same output. Reading order:
//!
//! - `definition` makes a `graph` of a YAML text, with `expression`s in it;
//! - `start` and `decide` make a `Transition`: `event`s to be stored, then `effect`s to be done;
//! - `state` is what the events fold to; `view` is what people read of it;
//! - `advance` (what begins and ends), `failure` (what stops), `rollback` (what is undone) are the
//!   rules.

pub mod definition;
pub mod expression;
pub mod graph;
pub mod id;
pub mod task;

pub mod command;
pub mod effect;
pub mod event;
pub mod limits;

mod advance;
mod asked;
mod decide;
mod failure;
mod instance;
mod lookup;
mod nearest;
mod order;
mod rejection;
mod rollback;
mod short;
mod state;
mod view;

pub use asked::{Asks, Notes, Question, Settled, Verdict};
pub use command::Command;
pub use decide::{Transition, decide, start};
pub use effect::Effect;
pub use event::Event;
pub use id::{ContentHash, InstanceId, Instant, RunId};
pub use instance::Status;
pub use rejection::Rejection;
pub use rollback::{
    CheckpointView, RollbackStatus, RollbackSummary, RollbackView, UndoCounts, UndoView, fork,
};
pub use short::ShortText;
pub use state::{Phase, State};
pub use view::{Counts, EndedStatus, RunStatus, StepView, Waiting};
