//! Everything that can be asked of a run.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::event::{Ending, KeyKind, Origin, RollbackTo, UndoDecision};
use crate::id::{InstanceId, RunId};
use crate::task::{Json, TaskReport};

/// Something asked of a run. It can be written, so that one replica may pass it on to another; it
/// is kept nowhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// This replica takes the run over.
    Adopt {
        /// The replica's epoch.
        epoch: u64,
    },
    /// Dispatch reports of a task.
    Report(TaskReport),
    /// Time has passed.
    Tick,
    /// A named signal.
    Signal {
        /// Its name.
        signal: String,
        /// What it carries, JSON text.
        payload: Json,
        /// Who sends it.
        origin: Origin,
    },
    /// A decision on a step that asks a person.
    Decide {
        /// The step's path.
        path: String,
        /// Approve or reject.
        approve: bool,
        /// A comment.
        comment: String,
        /// What the step gives besides, JSON text; only where it is approved.
        amendment: Option<Json>,
        /// Who decides.
        origin: Origin,
    },
    /// Stop.
    Cancel {
        /// Why.
        reason: String,
        /// Who asks.
        origin: Origin,
    },
    /// Start nothing new.
    Pause {
        /// Why.
        reason: String,
        /// Who asks.
        origin: Origin,
    },
    /// Go on.
    Resume {
        /// Who asks.
        origin: Origin,
    },
    /// Take a failed run up again.
    Retry {
        /// Who asks.
        origin: Origin,
    },
    /// Plan to undo what an ended run has done.
    PlanRollback {
        /// How far.
        to: RollbackTo,
        /// It is executed only once somebody has approved it.
        needs_approval: bool,
        /// Who asks.
        origin: Origin,
    },
    /// Approve a planned rollback, or reject it.
    ApproveRollback {
        /// Which.
        number: u32,
        /// Approve or reject.
        approve: bool,
        /// A comment.
        comment: String,
        /// Who decides.
        origin: Origin,
    },
    /// Carry a planned rollback out.
    ExecuteRollback {
        /// Which.
        number: u32,
        /// Who asks.
        origin: Origin,
    },
    /// Decide about an undo that could not be made, or is not made yet.
    DecideUndo {
        /// The path of the step to undo.
        path: String,
        /// What.
        decision: UndoDecision,
        /// Why.
        comment: String,
        /// Who decides.
        origin: Origin,
    },
    /// Take a run up again from where it was rolled back to.
    Reopen {
        /// Other params than before, complete.
        params: Option<Json>,
        /// Who asks.
        origin: Origin,
    },
    /// The run above undoes this one: all that it has done.
    RollBackForParent {
        /// The run above.
        parent: RunId,
    },
    /// A child run was rolled back, or could not be.
    ChildRolledBack {
        /// The step that started it.
        instance: InstanceId,
        /// Which child.
        child: RunId,
        /// Nothing of what it has done is left.
        complete: bool,
    },
    /// A child run ended, or could not be started.
    ChildEnded {
        /// The step that waits for it.
        instance: InstanceId,
        /// Which child: a retried step waits for another one than before.
        child: RunId,
        /// How it ended.
        status: Ending,
        /// Its outputs.
        outputs: Option<Json>,
        /// Why it failed.
        error: Option<String>,
    },
    /// A key was granted; without an instance, to the run.
    Granted {
        /// The step that waits for it.
        instance: Option<InstanceId>,
        /// Which of its keys.
        which: KeyKind,
    },
    /// A key was refused for good; without an instance, to the run.
    Refused {
        /// The step that waits for it.
        instance: Option<InstanceId>,
        /// Why.
        reason: String,
    },
    /// Another takes the key of a holder, who is to stop.
    Displaced {
        /// The step that holds it; `None`: the run.
        instance: Option<InstanceId>,
        /// Which key.
        key: Arc<str>,
    },
    /// A notification was sent, or there is nowhere to send it.
    Notified {
        /// The step that waits for it.
        instance: InstanceId,
        /// Where it went; `None`: no channel is configured.
        sent: Option<Vec<String>>,
        /// Why it could not be sent.
        error: Option<String>,
    },
}

impl Command {
    /// Gives who asks where somebody does, to be completed.
    pub fn origin_mut(&mut self) -> Option<&mut Origin> {
        match self {
            Self::Signal { origin, .. }
            | Self::Decide { origin, .. }
            | Self::Cancel { origin, .. }
            | Self::Pause { origin, .. }
            | Self::Resume { origin }
            | Self::Retry { origin }
            | Self::PlanRollback { origin, .. }
            | Self::ApproveRollback { origin, .. }
            | Self::ExecuteRollback { origin, .. }
            | Self::DecideUndo { origin, .. }
            | Self::Reopen { origin, .. } => Some(origin),
            _ => None,
        }
    }

    /// Who asks, where somebody does.
    #[must_use]
    pub fn origin(&self) -> Option<&Origin> {
        match self {
            Self::Signal { origin, .. }
            | Self::Decide { origin, .. }
            | Self::Cancel { origin, .. }
            | Self::Pause { origin, .. }
            | Self::Resume { origin }
            | Self::Retry { origin }
            | Self::PlanRollback { origin, .. }
            | Self::ApproveRollback { origin, .. }
            | Self::ExecuteRollback { origin, .. }
            | Self::DecideUndo { origin, .. }
            | Self::Reopen { origin, .. } => Some(origin),
            _ => None,
        }
    }
}
