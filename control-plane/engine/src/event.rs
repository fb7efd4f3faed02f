//! Everything that can have happened to a run, and how it is written into the journal.
//!
//! A kind is never changed once it has been written anywhere: fields are added with defaults, and
//! what means something else gets a new kind. `State::apply` folds these, and nothing else does.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{InstanceId, Instant, RunId};
use crate::task::{AgentRef, DeclaredUndo, Json, TaskError, Touch};

/// The schema number that this version writes.
pub const SCHEMA: i16 = 1;

/// JSON text inside of a body: spliced in as it is, read back as it was.
pub(crate) mod raw {
    use serde::de::Deserialize as _;
    use serde::ser::{Error as _, Serialize as _};
    use serde::{Deserializer, Serializer};
    use serde_json::value::RawValue;

    use crate::task::Json;

    pub(crate) fn serialize<S: Serializer>(json: &Json, to: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(json).map_err(S::Error::custom)?;
        raw.serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Json, D::Error> {
        let raw = Box::<RawValue>::deserialize(from)?;
        Ok(Json::from(raw.get()))
    }
}

/// The same for JSON text that may be absent.
pub(crate) mod raw_option {
    use serde::de::Deserialize as _;
    use serde::{Deserializer, Serializer};
    use serde_json::value::RawValue;

    use crate::task::Json;

    #[expect(clippy::ref_option, reason = "the signature is serde's")]
    pub(crate) fn serialize<S: Serializer>(json: &Option<Json>, to: S) -> Result<S::Ok, S::Error> {
        match json {
            Some(json) => super::raw::serialize(json, to),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Json>, D::Error> {
        let raw = Option::<Box<RawValue>>::deserialize(from)?;
        Ok(raw.map(|raw| Json::from(raw.get())))
    }
}

/// Who asked, and under which request id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Who asked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub actor: String,
    /// The request's id and the hash of its body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestMark>,
}

/// A request's id and the hash of its body, so that a repetition is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestMark {
    /// The request's id.
    pub id: String,
    /// The SHA-256 of its body, in hexadecimal.
    pub body: String,
}

/// The run and step that wait for a child run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// The run.
    pub run: RunId,
    /// The step instance.
    pub instance: InstanceId,
    /// How many runs are above this one.
    pub depth: u8,
}

/// The run was started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunStarted {
    /// The workflow's name.
    pub workflow: String,
    /// Its version.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// The definition's hash, hexadecimal.
    pub hash: String,
    /// The parameters with defaults filled in: a JSON object.
    #[serde(with = "raw")]
    pub params: Json,
    /// Whose it is.
    pub tenant: String,
    /// Who asked.
    #[serde(default)]
    pub origin: Origin,
    /// What the starter wrote on it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// 0 to 9.
    pub priority: u8,
    /// The run above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// The replica's epoch.
    #[serde(default)]
    pub epoch: u64,
    /// The hashes of definitions handed in beside it, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub siblings: BTreeMap<String, String>,
}

/// Why a step was skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// Its condition was false.
    Condition,
    /// It was never started because of a failure or a cancel.
    NotStarted,
    /// There was nothing to do it with, as a notification without a channel.
    NotConfigured,
}

/// What a step waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitingFor {
    /// A time.
    Time,
    /// A signal of this name.
    Signal(String),
    /// A person's decision on this question.
    Decision(String),
    /// A child run.
    Child(Box<Child>),
    /// A notification to be sent.
    Notification {
        /// Where to.
        channels: Vec<String>,
        /// What is told.
        message: String,
    },
}

/// A child run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Child {
    /// Its id.
    pub run: RunId,
    /// The workflow's name.
    pub workflow: String,
    /// Its version; `None`: the one registered last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Its params.
    #[serde(with = "raw")]
    pub params: Json,
}

/// What a failure stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stops {
    /// Nothing: `continue_on_error` stands on the step itself.
    Nothing,
    /// The block that holds it by its `continue_on_error`.
    Block(InstanceId),
    /// The branch below this step of the whole.
    Branch(InstanceId),
    /// The run.
    Run,
}

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyChange {
    /// It was asked for.
    Wanted,
    /// It was granted.
    Granted,
}

/// Which of the two limits a key belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyKind {
    /// `concurrency`.
    Concurrency,
    /// `rate_limit`.
    Rate,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// All went well.
    Success,
    /// A step failed or the deadline passed.
    Failure,
    /// It was cancelled.
    Cancelled,
    /// It failed and everything it was to undo was undone.
    RolledBack,
}

/// The undo of one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UndoOrder {
    /// The agent type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Arc<str>>,
    /// The instance that did the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<Arc<str>>,
    /// The action.
    pub action: Arc<str>,
    /// Its input.
    #[serde(with = "raw")]
    pub input: Json,
    /// `action` is the one to undo; the agent declares by what.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub undo_of: bool,
}

/// How far a run is rolled back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RollbackTo {
    /// All that it has done.
    Start,
    /// What was done behind a checkpoint: its name, of which the last counts, or its sequence.
    Checkpoint(String),
    /// A step, by its path, and what was done behind its beginning.
    Before(String),
}

/// What a person decides about an undo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UndoDecision {
    /// It is tried again.
    Retry,
    /// It was undone by hand.
    Done,
    /// What was done stays; the rollback is not complete then.
    Skip,
}

macro_rules! events {
    ($( $(#[$doc:meta])* $kind:literal $name:ident $key:literal
        { $( $(#[$meta:meta])* $field:ident : $type:ty ),* $(,)? } )*) => {
        /// One fact in a run's history.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Event {
            /// The run was started.
            RunStarted(Box<RunStarted>),
            $( $(#[$doc])* $name { $( $field: $type ),* }, )*
        }

        impl Event {
            /// The kind's number in the journal.
            #[must_use]
            pub fn kind(&self) -> i16 {
                match self {
                    Self::RunStarted(_) => 1,
                    $( Self::$name { .. } => $kind, )*
                }
            }

            /// The kind's name, for people.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self {
                    Self::RunStarted(_) => "run_started",
                    $( Self::$name { .. } => $key, )*
                }
            }

            /// The body: JSON with named fields.
            ///
            /// # Errors
            /// When a payload in it is not JSON.
            pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
                let mut body = Vec::with_capacity(128);
                self.encode_into(&mut body)?;
                Ok(body)
            }

            /// The same behind what is in `into`.
            ///
            /// # Errors
            /// When a payload in it is not JSON.
            pub fn encode_into(&self, into: &mut Vec<u8>) -> Result<(), serde_json::Error> {
                match self {
                    Self::RunStarted(started) => serde_json::to_writer(into, started),
                    $( Self::$name { $( $field ),* } => {
                        let body = body::$name { $( $field: $field.clone() ),* };
                        serde_json::to_writer(into, &body)
                    } )*
                }
            }

            /// Reads a row of the journal.
            ///
            /// # Errors
            /// When the kind is unknown to this version or the body does not fit it.
            pub fn decode(kind: i16, body: &[u8]) -> Result<Self, DecodeError> {
                let wrong = |source| DecodeError::Body { kind, source };
                match kind {
                    1 => serde_json::from_slice(body)
                        .map(|started| Self::RunStarted(Box::new(started))).map_err(wrong),
                    $( $kind => {
                        let body::$name { $( $field ),* } =
                            serde_json::from_slice(body).map_err(wrong)?;
                        Ok(Self::$name { $( $field ),* })
                    } )*
                    _ => Err(DecodeError::UnknownKind(kind)),
                }
            }

            /// The kinds that this version understands.
            pub const KINDS: &[(i16, &str)] = &[(1, "run_started"), $( ($kind, $key) ),*];
        }

        mod body {
            use super::*;
            $(
                #[derive(Serialize, Deserialize)]
                pub(super) struct $name { $( $(#[$meta])* pub(super) $field: $type ),* }
            )*
        }
    };
}

/// A row of the journal that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A newer version wrote it.
    #[error("the journal has an event of kind {0}, which this version does not know")]
    UnknownKind(i16),
    /// It is not what this kind looks like.
    #[error("the body of a journal event of kind {kind} cannot be read")]
    Body {
        /// The kind.
        kind: i16,
        /// What is wrong.
        source: serde_json::Error,
    },
}

events! {
    /// A control plane took the run over.
    2 RunAdopted "run_adopted" { epoch: u64 }
    /// An action is ready for an agent.
    3 StepQueued "step_queued" {
        n: InstanceId, step: Arc<str>,
        #[serde(default, skip_serializing_if = "Option::is_none")] agent: Option<Arc<str>>,
        #[serde(default, with = "raw_option", skip_serializing_if = "Option::is_none")]
        input: Option<Json>,
    }
    /// An agent took a task that must run at most once; it may begin.
    4 TaskStarted "task_started" { n: InstanceId, step: Arc<str>, by_agent: Option<AgentRef> }
    /// An attempt failed; another follows, not before `retry_at`.
    5 AttemptFailed "attempt_failed" {
        n: InstanceId, step: Arc<str>, attempt: u32, error: TaskError,
        #[serde(default, skip_serializing_if = "Option::is_none")] by: Option<AgentRef>,
        retry_at: Instant,
        #[serde(default)] fallback: u32,
        #[serde(default, skip_serializing_if = "Vec::is_empty")] touched: Vec<Touch>,
        #[serde(default, skip_serializing_if = "Option::is_none")] took: Option<u64>,
    }
    /// A step ended well. Without an output, it is that of its inner steps.
    6 StepSucceeded "step_succeeded" {
        n: InstanceId, step: Arc<str>,
        #[serde(default, with = "raw_option", skip_serializing_if = "Option::is_none")]
        output: Option<Json>,
        #[serde(default, skip_serializing_if = "Option::is_none")] by: Option<AgentRef>,
        #[serde(default, skip_serializing_if = "Option::is_none")] undo: Option<DeclaredUndo>,
        #[serde(default, skip_serializing_if = "Option::is_none")] checkpoint: Option<Arc<str>>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")] touched: Vec<Touch>,
        #[serde(default, skip_serializing_if = "Option::is_none")] took: Option<u64>,
    }
    /// A step failed for good.
    7 StepFailed "step_failed" {
        n: InstanceId, step: Arc<str>, error: TaskError, stops: Stops,
        #[serde(default, skip_serializing_if = "Option::is_none")] by: Option<AgentRef>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")] touched: Vec<Touch>,
        #[serde(default, skip_serializing_if = "Option::is_none")] took: Option<u64>,
    }
    /// A step was skipped.
    8 StepSkipped "step_skipped" {
        n: InstanceId, step: Arc<str>, reason: SkipReason,
        #[serde(default, skip_serializing_if = "Vec::is_empty")] touched: Vec<Touch>,
    }
    /// A step is asked to stop; with an error it will then count as failed.
    9 StepCancelRequested "step_cancel_requested" {
        n: InstanceId, step: Arc<str>, reason: String,
        #[serde(default, skip_serializing_if = "Option::is_none")] error: Option<TaskError>,
    }
    /// A step has stopped.
    10 StepCancelled "step_cancelled" {
        n: InstanceId, step: Arc<str>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")] touched: Vec<Touch>,
    }
    /// A block or a loop was entered. `otherwise`: by the `else` branch.
    11 BlockOpened "block_opened" {
        n: InstanceId, step: Arc<str>,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")] otherwise: bool,
        #[serde(default, with = "raw_option", skip_serializing_if = "Option::is_none")]
        items: Option<Json>,
    }
    /// An iteration of a loop was begun.
    12 IterationStarted "iteration_started" { n: InstanceId, step: Arc<str>, index: u32 }
    /// A step waits.
    13 StepWaiting "step_waiting" {
        n: InstanceId, step: Arc<str>, waiting_for: WaitingFor,
        #[serde(default, skip_serializing_if = "Option::is_none")] until: Option<Instant>,
    }
    /// A signal arrived.
    14 SignalReceived "signal_received" {
        signal: String, #[serde(with = "raw")] payload: Json, #[serde(default)] origin: Origin,
    }
    /// A key was asked for or granted; without `n`, for the run.
    15 KeyChanged "key_changed" {
        #[serde(default, skip_serializing_if = "Option::is_none")] n: Option<InstanceId>,
        step: Arc<str>, key: Arc<str>, which: KeyKind, change: KeyChange,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")] otherwise: bool,
    }
    /// A rollback began; the steps are undone in this order.
    18 RollbackStarted "rollback_started" {
        steps: Vec<InstanceId>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")] not_undoable: Vec<InstanceId>,
        #[serde(default)] number: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")] target: Option<u32>,
        #[serde(default)] origin: Origin,
    }
    /// An undo is ready for an agent.
    19 UndoQueued "undo_queued" { n: InstanceId, step: Arc<str>, order: UndoOrder }
    /// An undo was done.
    20 UndoSucceeded "undo_succeeded" { n: InstanceId, step: Arc<str> }
    /// An undo failed; without `retry_at` for good.
    21 UndoFailed "undo_failed" {
        n: InstanceId, step: Arc<str>, attempt: u32, error: TaskError,
        #[serde(default, skip_serializing_if = "Option::is_none")] retry_at: Option<Instant>,
    }
    /// A rollback ended; `complete`: it undid everything it was to undo.
    22 RollbackEnded "rollback_ended" { complete: bool }
    /// The steps of `on_failure` began.
    23 OnFailureStarted "on_failure_started" {}
    /// The run was paused.
    24 RunPaused "run_paused" { reason: String, #[serde(default)] origin: Origin }
    /// The run was resumed.
    25 RunResumed "run_resumed" { #[serde(default)] origin: Origin }
    /// The run was asked to stop; with an error it will then count as failed.
    26 RunCancelRequested "run_cancel_requested" {
        reason: String, #[serde(default)] origin: Origin,
        #[serde(default, skip_serializing_if = "Option::is_none")] error: Option<TaskError>,
    }
    /// The run was taken up again after it had failed.
    27 RunRetried "run_retried" { #[serde(default)] origin: Origin }
    /// The run ended.
    28 RunEnded "run_ended" {
        status: Ending,
        #[serde(default, with = "raw_option", skip_serializing_if = "Option::is_none")]
        outputs: Option<Json>,
        #[serde(default, skip_serializing_if = "Option::is_none")] error: Option<String>,
    }
    /// A person decided on a step that asked.
    29 DecisionMade "decision_made" {
        n: InstanceId, step: Arc<str>, approved: bool, comment: String,
        #[serde(default, with = "raw_option", skip_serializing_if = "Option::is_none")]
        amendment: Option<Json>,
        #[serde(default)] origin: Origin,
    }
    /// A rollback of the run, which has ended, was planned.
    30 RollbackPlanned "rollback_planned" {
        number: u32, to: RollbackTo, target: u32, needs_approval: bool,
        #[serde(default)] origin: Origin,
    }
    /// A planned rollback was approved.
    31 RollbackApproved "rollback_approved" {
        number: u32, comment: String, #[serde(default)] origin: Origin,
    }
    /// A planned rollback was given up or rejected.
    32 RollbackAbandoned "rollback_abandoned" {
        number: u32, reason: String, #[serde(default)] origin: Origin,
    }
    /// A person decided about an undo.
    33 UndoDecided "undo_decided" {
        n: InstanceId, step: Arc<str>, decision: UndoDecision, comment: String,
        #[serde(default)] origin: Origin,
    }
    /// A child run is asked to undo all that it has done.
    34 ChildUndoRequested "child_undo_requested" { n: InstanceId, step: Arc<str>, child: RunId }
    /// The run was taken up again behind a rollback.
    35 RunReopened "run_reopened" {
        #[serde(default, with = "raw_option", skip_serializing_if = "Option::is_none")]
        params: Option<Json>,
        #[serde(default)] origin: Origin,
    }
    /// What stands before this event was taken over from a checkpoint of another run.
    36 RunForked "run_forked" {
        run: RunId, sequence: u32,
        #[serde(default, with = "raw_option", skip_serializing_if = "Option::is_none")]
        params: Option<Json>,
    }
}

impl Event {
    /// Whether it tells of a rollback.
    #[must_use]
    pub fn is_of_rollback(&self) -> bool {
        matches!(
            self,
            Self::RollbackStarted { .. }
                | Self::UndoQueued { .. }
                | Self::UndoSucceeded { .. }
                | Self::UndoFailed { .. }
                | Self::UndoDecided { .. }
                | Self::ChildUndoRequested { .. }
                | Self::RollbackPlanned { .. }
                | Self::RollbackApproved { .. }
                | Self::RollbackAbandoned { .. }
                | Self::RollbackEnded { .. }
        )
    }

    /// The step instance that it concerns.
    #[must_use]
    pub fn instance(&self) -> Option<InstanceId> {
        match self {
            Self::StepQueued { n, .. }
            | Self::TaskStarted { n, .. }
            | Self::AttemptFailed { n, .. }
            | Self::StepSucceeded { n, .. }
            | Self::StepFailed { n, .. }
            | Self::StepSkipped { n, .. }
            | Self::StepCancelRequested { n, .. }
            | Self::StepCancelled { n, .. }
            | Self::BlockOpened { n, .. }
            | Self::IterationStarted { n, .. }
            | Self::StepWaiting { n, .. }
            | Self::DecisionMade { n, .. }
            | Self::UndoQueued { n, .. }
            | Self::UndoSucceeded { n, .. }
            | Self::UndoFailed { n, .. }
            | Self::UndoDecided { n, .. }
            | Self::ChildUndoRequested { n, .. } => Some(*n),
            Self::KeyChanged { n, .. } => *n,
            _ => None,
        }
    }
}
