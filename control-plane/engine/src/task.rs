//! Tasks as the engine hands them to dispatch and hears of them again. Data only.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{InstanceId, Instant, RunId};
use crate::short::ShortText;

/// JSON text, as it came: digits and key order untouched. Cheap to clone.
pub type Json = Arc<str>;

/// What a task is for: the step's own work, or the undo of what it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Purpose {
    /// The step's action.
    Do,
    /// The undo of the step's action.
    Undo,
}

/// Which task of which run: one per step instance and purpose, equal for all its attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskKey {
    /// The run.
    pub run: RunId,
    /// The step instance.
    pub instance: InstanceId,
    /// Its work or its undo.
    pub purpose: Purpose,
}

impl fmt::Display for TaskKey {
    /// The task id on the wire: `RUN:INSTANCE:d` or `RUN:INSTANCE:u`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let purpose = match self.purpose {
            Purpose::Do => ":d",
            Purpose::Undo => ":u",
        };
        let text = ShortText::new().id(self.run.0).text(":");
        f.pad(text.number(self.instance.0.into()).text(purpose).as_str())
    }
}

impl std::str::FromStr for TaskKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("`{text}` is not a task id");
        let mut parts = text.split(':');
        let (Some(run), Some(instance), Some(purpose), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(wrong());
        };
        Ok(Self {
            run: run.parse().map_err(|_| wrong())?,
            instance: InstanceId(instance.parse().map_err(|_| wrong())?),
            purpose: match purpose {
                "d" => Purpose::Do,
                "u" => Purpose::Undo,
                _ => return Err(wrong()),
            },
        })
    }
}

/// Whether a task may run more than once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// It is given out again when it is lost.
    #[default]
    AtLeastOnce,
    /// That it begins is durable before it may begin; a lost one goes to a person.
    AtMostOnce,
}

/// A task to be given to an agent. One order stands for one attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskOrder {
    /// Which task.
    pub key: TaskKey,
    /// The step's path, for people.
    pub path: Arc<str>,
    /// The attempt, from 1.
    pub attempt: u32,
    /// The agent type or alias; `None`: any agent that offers the action.
    pub agent: Option<Arc<str>>,
    /// The instance that should have it while it is there (an undo goes where the step was done).
    pub preferred_instance: Option<Arc<str>>,
    /// The action.
    pub action: Arc<str>,
    /// Labels that the agent must have.
    pub requires: Arc<BTreeMap<String, String>>,
    /// The input, a JSON object as a rule.
    pub input: Json,
    /// Outputs of the steps before, the nearest first: step id and JSON text.
    pub upstream: Vec<(Arc<str>, Json)>,
    /// One per step and iteration, equal for all attempts and for the undo.
    pub idempotency_key: Arc<str>,
    /// Bounds one attempt, from acceptance; `None`: no bound.
    pub timeout: Option<Duration>,
    /// When the whole step or run is out of time.
    pub deadline: Option<Instant>,
    /// Not to be given out before (the next attempt's delay).
    pub not_before: Option<Instant>,
    /// When it became ready, for `queue_timeout` and for age.
    pub queued_at: Instant,
    /// How long it may wait for an agent.
    pub queue_timeout: Option<Duration>,
    /// 0 to 9, the higher the sooner.
    pub priority: u8,
    /// The key of fair sharing: the workflow's name.
    pub fairness_key: Arc<str>,
    /// At least once or at most once.
    pub delivery: Delivery,
    /// A task that must run at most once was begun before its owner died: it is not given out
    /// again; unless an agent claims it, it is reported as lost.
    pub begun: bool,
    /// Who began it: nobody else may go on with it.
    pub begun_by: Option<AgentRef>,
    /// The epoch under which the run is owned; part of the lease token.
    pub epoch: u64,
    /// An undo of which only the action to undo is known: `action` names that one, and the agent
    /// that gets the task declares by what it is undone.
    pub undo_of: bool,
}

impl TaskOrder {
    /// The same by a clock that is `ahead` behind the run's time.
    #[must_use]
    pub fn by_clock(mut self, ahead: Duration) -> Self {
        self.deadline = self.deadline.map(|at| at.before(ahead));
        self.not_before = self.not_before.map(|at| at.before(ahead));
        self.queued_at = self.queued_at.before(ahead);
        self
    }
}

/// How an agent says that an action is undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeclaredUndo {
    /// By this action of the same agent type.
    Action(String),
    /// By this action of the same agent type, which needs what the action gave.
    ActionWithOutput(String),
    /// Not at all.
    NotUndoable,
    /// It only reads.
    Nothing,
}

/// Which agent did a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRef {
    /// The type it registered as.
    #[serde(rename = "type")]
    pub agent_type: Arc<str>,
    /// The process.
    pub instance: Arc<str>,
}

/// An agent that may have begun an attempt of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touch {
    /// Who; `None`: some agent of the step's type, nobody knows which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentRef>,
    /// How it says that the action is undone; `None`: it is asked when the undo is given to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<DeclaredUndo>,
}

impl Touch {
    /// Somebody, of whom nothing is known.
    #[must_use]
    pub fn unknown() -> Self {
        Self { agent: None, undo: None }
    }
}

/// Whether a failure may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Another attempt may succeed.
    Retryable,
    /// No attempt will succeed.
    Permanent,
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskError {
    /// Whether it may pass.
    pub kind: FailureKind,
    /// A code that `retry_on` and `no_retry_on` can name; may be empty. Codes of the
    /// orchestrator: `timeout`, `queue_timeout`, `rejected`, `needs_person`, `lost`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub code: String,
    /// What happened, for people.
    pub message: String,
    /// How long to wait before the next attempt, in place of the policy's delay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// The attempt certainly changed nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_effect: bool,
}

/// What dispatch reports of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskReport {
    /// Which task.
    pub key: TaskKey,
    /// Which attempt.
    pub attempt: u32,
    /// Who did it; `None` when nobody had it.
    pub agent: Option<AgentRef>,
    /// What came of it.
    pub outcome: TaskOutcome,
    /// Agents that may have begun this attempt, and of whom it is not certain that they changed
    /// nothing; without the one by whom it succeeded.
    #[serde(default)]
    pub touched: Vec<Touch>,
    /// For how long the agent had this attempt, in microseconds; `None`: nobody had it, or nobody
    /// knows since when.
    #[serde(default)]
    pub took: Option<u64>,
}

/// What came of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum TaskOutcome {
    /// An agent took a task that must run at most once; it may begin once this is durable.
    Started,
    /// It went well.
    Succeeded {
        /// The output, JSON text.
        output: Json,
        /// How the agent says the action is undone.
        undo: DeclaredUndo,
    },
    /// An attempt failed: by the agent's word, by time-out, by rejection, by loss.
    Failed(TaskError),
    /// It stopped, or was not out, after a cancel.
    Cancelled,
    /// It was started, must not run twice, and was lost: a person must look.
    LostAtMostOnce,
}
