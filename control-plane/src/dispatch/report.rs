//! What dispatch tells the rest of the control plane, and how it is answered. The sink makes a
//! report durable; only then does the agent hear that its result was received.

use engine::task::{AgentRef, Json, TaskKey, TaskReport};
use engine::{Instant, RunId};

use super::Dispatcher;
use super::lease::LeaseToken;
use super::registry::AgentId;

/// Takes what dispatch reports. Called outside of all locks; must not block, and may call
/// [`Answer::send`] before it returns.
pub trait ReportSink: Send + Sync + 'static {
    /// Something came of a task. Until the answer is sent the agent resends its result; an
    /// answer that is dropped means that nobody knows, and the report is made again.
    fn report(&self, report: Report, answer: Answer);

    /// An agent sent a result of a task that dispatch does not have: `Duplicate` when the task
    /// has ended, `LeaseLost` when the result cannot count any more; an answer that is dropped
    /// means that it cannot be told yet, and the agent asks again.
    fn inquire(&self, key: TaskKey, lease: LeaseToken, answer: Answer);

    /// An agent sent an event for others.
    fn emit(&self, emitted: Emitted);
}

/// What came of a task, with what only dispatch and the sink need.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// What the engine is told.
    pub task: TaskReport,
    /// The lease under which it was done; `None` when nobody had the task.
    pub lease: Option<LeaseToken>,
    /// How sure the agent is, 0 to 1.
    pub confidence: Option<f64>,
    /// What it used.
    pub usage: Option<Usage>,
}

/// What a task used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Tokens read by models.
    pub input_tokens: i64,
    /// Tokens written by models.
    pub output_tokens: i64,
    /// Cost, in the operator's currency.
    pub cost: f64,
}

/// What the sink says of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportAck {
    /// It is durable.
    Durable,
    /// It was there already; nothing changed.
    Duplicate,
    /// It came too late, or from a former holder; nothing changed.
    LeaseLost,
}

/// An event that an agent sent for others.
#[derive(Clone, Debug, PartialEq)]
pub struct Emitted {
    /// Its name.
    pub name: String,
    /// What it carries, JSON text.
    pub payload: Json,
    /// The run to which it goes as a signal.
    pub run: RunId,
    /// Who sent it.
    pub agent: AgentRef,
    /// The task that it comes from.
    pub task: Option<TaskKey>,
}

/// What a report is about, to find it again when it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// That a task which must run at most once begins.
    Started { key: TaskKey, lease: LeaseToken },
    /// What came of a task that dispatch has.
    Ended { key: TaskKey, attempt: u32, origin: Option<(AgentId, LeaseToken)> },
    /// A task that dispatch does not have.
    Unknown { key: TaskKey, lease: LeaseToken, agent: AgentId },
}

impl Subject {
    pub(super) fn key(&self) -> TaskKey {
        match self {
            Self::Started { key, .. } | Self::Ended { key, .. } | Self::Unknown { key, .. } => *key,
        }
    }
}

/// By this the sink answers a report, once.
#[must_use = "an answer that is dropped has the report made again"]
pub struct Answer {
    subject: Option<Subject>,
    dispatcher: Dispatcher,
}

impl Answer {
    pub(super) fn new(subject: Subject, dispatcher: Dispatcher) -> Self {
        Self { subject: Some(subject), dispatcher }
    }

    /// Answers.
    pub fn send(mut self, ack: ReportAck) {
        if let Some(subject) = self.subject.take() {
            self.dispatcher.answered(subject, Some(ack));
        }
    }
}

impl Answer {
    /// What it would be about, to be answered among others.
    pub(super) fn into_subject(mut self) -> Option<Subject> {
        self.subject.take()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(subject) = self.subject.take() {
            self.dispatcher.answered(subject, None);
        }
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("subject", &self.subject).finish_non_exhaustive()
    }
}

/// What happens to a running task, for watchers. Not kept, except the latest progress.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskUpdate {
    /// Which task.
    pub key: TaskKey,
    /// The step's path.
    pub path: std::sync::Arc<str>,
    /// The attempt.
    pub attempt: u32,
    /// Who does it.
    pub agent: AgentRef,
    /// When.
    pub at: Instant,
    /// What happens.
    pub what: UpdateKind,
}

/// What happens to a running task.
#[derive(Clone, Debug, PartialEq)]
pub enum UpdateKind {
    /// An agent has taken it.
    Accepted,
    /// How far it is.
    Progress {
        /// From 0 to 1.
        fraction: f64,
        /// What it does just now; may be empty.
        message: String,
    },
    /// A line of its log.
    Log {
        /// `debug`, `info`, `warn` or `error`.
        level: String,
        /// The line.
        message: String,
    },
    /// A part of its output.
    Chunk(contracts::v1::Payload),
}
