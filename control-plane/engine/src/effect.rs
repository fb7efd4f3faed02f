//! Everything that must be done once a decision is durable. Every effect follows from the state:
//! `State::pending_effects` gives all that are still owed, and each can be carried out again.

use std::sync::Arc;
use std::time::Duration;

use crate::event::{Child, Ending, KeyKind};
use crate::graph::OnConflict;
use crate::id::{InstanceId, RunId};
use crate::task::{Json, TaskKey, TaskOrder};

/// Something to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Give this task to an agent.
    Dispatch(Box<TaskOrder>),
    /// Stop this task and report it as cancelled.
    CancelTask {
        /// Which.
        key: TaskKey,
        /// Why.
        reason: String,
        /// How long it may take to stop by itself.
        grace: Duration,
    },
    /// Take this task back unless an agent has it; report it as cancelled when taken back.
    Withdraw {
        /// Which.
        key: TaskKey,
    },
    /// A task that must run at most once may begin.
    Proceed {
        /// Which.
        key: TaskKey,
    },
    /// Start a child run.
    StartChild {
        /// The step that waits for it.
        instance: InstanceId,
        /// The step's path.
        path: Arc<str>,
        /// What to start.
        child: Box<Child>,
    },
    /// Cancel a child run.
    CancelChild {
        /// The child.
        run: RunId,
        /// Why.
        reason: String,
    },
    /// Undo all that a child run has done, and say when that is over.
    RollBackChild {
        /// The step that started it.
        instance: InstanceId,
        /// The child.
        run: RunId,
    },
    /// Tell the run above how the rollback that it asked for ended.
    RolledBackForParent {
        /// Nothing of what was done is left.
        complete: bool,
    },
    /// Ask for a key; without an instance, for the run.
    Acquire(Box<Acquire>),
    /// Give all keys back that this instance, or the run, holds or waits for.
    Release {
        /// The step; `None`: the run.
        instance: Option<InstanceId>,
    },
    /// Tell somebody.
    Notify {
        /// The step that waits for it.
        instance: InstanceId,
        /// Where to.
        channels: Vec<String>,
        /// What.
        message: String,
    },
    /// Give out no task of this run (true), or go on (false).
    Hold(bool),
    /// The run has ended: its tasks are forgotten, its parent is told.
    Ended {
        /// How.
        status: Ending,
        /// Its outputs.
        outputs: Option<Json>,
        /// Why it failed.
        error: Option<String>,
    },
}

/// A key that is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Acquire {
    /// The step; `None`: the run.
    pub instance: Option<InstanceId>,
    /// The kind of limit.
    pub which: KeyKind,
    /// The key.
    pub key: Arc<str>,
    /// How many at once, or in `per`.
    pub limit: u32,
    /// The time of a rate limit.
    pub per: Option<Duration>,
    /// What happens to one too many.
    pub on_conflict: OnConflict,
    /// It was granted before: a restart asks again for what is held.
    pub held: bool,
}
