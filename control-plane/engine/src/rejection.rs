//! Every way in which the engine says no. A rejection changes nothing.

use serde::{Deserialize, Serialize};

/// Why a command was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Rejection {
    /// The run has ended.
    #[error("the run has ended")]
    Ended,
    /// The run has not ended.
    #[error("the run has not ended; cancel it first or wait for its end")]
    NotEnded,
    /// The run's state does not allow it.
    #[error("{0}")]
    State(String),
    /// There is no such step.
    #[error("the run has no step `{0}`")]
    StepNotFound(String),
    /// The step does not wait for a decision.
    #[error("step `{0}` does not wait for a decision")]
    StepNotWaiting(String),
    /// The request id was used before with another body.
    #[error("request id `{0}` was used before with another body")]
    RequestIdReused(String),
    /// The same request was carried out before; nothing is to be done.
    #[error("the same request was carried out before")]
    Repeated,
    /// Too many signals wait for steps.
    #[error("{0} signals wait for steps already; no more are kept")]
    TooManySignals(usize),
    /// The task is not out: it was reported before, cancelled or given up.
    #[error("the task is not out")]
    TaskNotOut,
    /// The run has no such checkpoint.
    #[error("the run has no checkpoint `{0}`")]
    CheckpointNotFound(String),
    /// A rollback of the run is planned or under way.
    #[error(
        "rollback {0} of the run is planned or under way; execute or reject it, or await its end"
    )]
    RollbackOpen(u32),
    /// There is no such rollback, or it is over.
    #[error("the run has no rollback{} that waits for this", numbered(*.0))]
    RollbackNotFound(u32),
    /// The rollback waits for an approval.
    #[error("rollback {0} has to be approved before it is executed")]
    RollbackNotApproved(u32),
    /// The step has no undo that is open.
    #[error("step `{0}` has no undo that is open")]
    UndoNotOpen(String),
    /// A payload is not JSON.
    #[error("the payload is not JSON: {0}")]
    NotJson(String),
}

/// The number of a rollback, where one was asked for.
fn numbered(number: u32) -> String {
    if number == 0 { String::new() } else { format!(" {number}") }
}
