//! What was done is undone: which steps, in which order, by whom; what a person decides where an
//! undo fails; how a run goes on behind a rollback, or another begins from its checkpoint.

pub(crate) mod content;
mod decide;
mod fork;
mod parts;
mod progress;
mod reopen;
mod summary;
mod view;

pub(crate) use content::CheckpointMark;
pub use fork::fork;
pub(crate) use progress::{Planned, Rollback, UnitState};
pub use summary::{RollbackSummary, UndoCounts};
pub use view::{CheckpointView, RollbackStatus, RollbackView, UndoView};
