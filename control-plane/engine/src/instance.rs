//! Step instances and the scopes they live in: the parts of a run's state.

use std::sync::Arc;

use serde_json::Value;

use crate::event::WaitingFor;
use crate::graph::{ListId, NodeId};
use crate::id::{InstanceId, Instant, RunId};
use crate::task::{AgentRef, DeclaredUndo, Json, TaskError, Touch};

/// The number of a scope within its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ScopeId(pub(crate) u32);

impl ScopeId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// Where a step instance stands. Left to right, never back, except that a retried run reopens
/// what had not ended well:
///
/// | from | to |
/// |---|---|
/// | `Pending` | `Blocked`, `Queued`, `Open`, `Waiting`, `Skipped`, `NotStarted`, `Failure` |
/// | `Blocked` | `Queued`, `Open`, `Waiting`, `Skipped`, `Failure`, `Cancelled`, `NotStarted` |
/// | `Queued` | `Queued` (next attempt), `Cancelling`, `Success`, `Failure`, `NotStarted` |
/// | `Open` | `Cancelling`, `Success`, `Failure`, `Cancelled` |
/// | `Waiting` | `Cancelling`, `Success`, `Failure`, `Skipped`, `Cancelled` |
/// | `Cancelling` | `Success`, `Failure`, `Cancelled` |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It waits for the steps before it.
    Pending,
    /// It waits for a concurrency key or a rate limit.
    Blocked,
    /// An attempt is owed to, or is out at, an agent.
    Queued,
    /// Its inner steps run.
    Open,
    /// It waits for a time, a signal, a decision, a child run or a notification.
    Waiting,
    /// It is asked to stop.
    Cancelling,
    /// It ended well.
    Success,
    /// It failed for good.
    Failure,
    /// Its condition was false, or there was nothing to do it with.
    Skipped,
    /// It was never started because of a failure or a cancel.
    NotStarted,
    /// It was cancelled.
    Cancelled,
}

impl Status {
    /// Whether nothing more can happen to it.
    #[must_use]
    pub fn is_settled(self) -> bool {
        matches!(
            self,
            Self::Success | Self::Failure | Self::Skipped | Self::NotStarted | Self::Cancelled
        )
    }

    /// Whether it was started and has not settled.
    #[must_use]
    pub fn is_active(self) -> bool {
        !self.is_settled() && self != Self::Pending
    }
}

/// A step instance.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    pub(crate) node: NodeId,
    pub(crate) scope: ScopeId,
    pub(crate) status: Status,
    /// How many of the steps that it waits for have not settled.
    pub(crate) waiting_on: u32,
    /// The attempt that is owed or was made last, from 1; 0: none.
    pub(crate) attempt: u32,
    /// How many attempts were made before the run was taken up again: they count on, and the
    /// retry policy begins anew.
    pub(crate) attempts_before: u32,
    /// How many of the fallback agents have been turned to.
    pub(crate) fallback: u32,
    pub(crate) ready_at: Instant,
    pub(crate) settled_at: Instant,
    /// The sequence of the event by which it began, and of that by which it settled; 0: none.
    pub(crate) begun: u32,
    pub(crate) ended: u32,
    pub(crate) output: Option<Json>,
    /// Who has it, or had it last.
    pub(crate) by: Option<AgentRef>,
    /// How that agent says that it is undone; `None`: there is nothing to undo.
    pub(crate) undo: Option<DeclaredUndo>,
    pub(crate) detail: Option<Box<Detail>>,
}

/// What only some instances have. It is large: an action that ends well at once has none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Detail {
    pub(crate) error: Option<TaskError>,
    pub(crate) undone: bool,
    /// Agents that may have begun it and did not end it well: they may have changed something.
    pub(crate) touched: Vec<Touch>,
    /// How often it was set back behind an undo: each time it is another task for its agent.
    pub(crate) generation: u32,
    /// Child runs from before the run was taken up again, the oldest first.
    pub(crate) former_children: Vec<RunId>,
    /// The evaluated params; `None`: the definition's, which are literal.
    pub(crate) input: Option<Json>,
    pub(crate) retry_at: Option<Instant>,
    pub(crate) waiting_for: Option<WaitingFor>,
    pub(crate) until: Option<Instant>,
    /// A task that must run at most once has begun.
    pub(crate) started: bool,
    /// It is asked to stop, and then counts as failed with this error.
    pub(crate) cancel_error: Option<TaskError>,
    /// A failure below it stops everything below it.
    pub(crate) stopping: bool,
    /// The first failure directly below it.
    pub(crate) failed_inner: Option<InstanceId>,
    pub(crate) keys: Vec<HeldKey>,
    /// The scopes of its inner steps, one per iteration.
    pub(crate) scopes: Vec<ScopeId>,
    /// The `else` branch was chosen.
    pub(crate) otherwise: bool,
    pub(crate) repeat: Option<Repetition>,
}

/// A key that an instance or a run holds or waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeldKey {
    pub(crate) which: crate::event::KeyKind,
    pub(crate) key: Arc<str>,
    pub(crate) granted: bool,
}

/// How far a loop is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Repetition {
    pub(crate) items: Option<Arc<[Arc<Value>]>>,
    /// How many iterations were begun.
    pub(crate) begun: u32,
    /// How many of them have not settled.
    pub(crate) running: u32,
}

/// The instances of one list of steps.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    /// Whose inner steps these are; `None`: the run's or those of `on_failure`.
    pub(crate) parent: Option<InstanceId>,
    pub(crate) list: ListId,
    /// The first instance; the others follow in the order of the list.
    pub(crate) first: u32,
    pub(crate) iteration: Option<u32>,
    pub(crate) item: Option<Arc<Value>>,
    pub(crate) unsettled: u32,
    pub(crate) active: u32,
    /// The sequence of the event by which it was opened.
    pub(crate) opened: u32,
    /// Left behind when the run was taken up again.
    pub(crate) dead: bool,
}

impl Detail {
    /// Remembers who may have begun it: the last of each agent type.
    pub(crate) fn touch(&mut self, touched: &[Touch]) {
        for touch in touched {
            let name = |touch: &Touch| touch.agent.as_ref().map(|agent| agent.agent_type.clone());
            self.touched.retain(|known| name(known) != name(touch));
            self.touched.push(touch.clone());
        }
    }
}

impl Instance {
    pub(crate) fn detail(&self) -> Option<&Detail> {
        self.detail.as_deref()
    }

    pub(crate) fn detail_mut(&mut self) -> &mut Detail {
        self.detail.get_or_insert_with(Box::default)
    }

    pub(crate) fn error(&self) -> Option<&TaskError> {
        self.detail().and_then(|detail| detail.error.as_ref())
    }
}
