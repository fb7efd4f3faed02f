//! What was done is undone: which steps, in which order, by whom; what a person decides where an
//! undo fails; how a run goes on behind a rollback, or another begins from its checkpoint.

mod decide;
mod fork;
mod parts;
mod progress;
mod reopen;
mod view;

pub use fork::fork;
pub(crate) use progress::{CheckpointMark, Planned, Rollback, UnitState};
pub use view::{CheckpointView, RollbackStatus, RollbackView, UndoView};
