//! One connected agent's session: what waits to be sent to it and when it was last heard. Pure
//! data; the stream in `stream.rs` sends what stands here.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use contracts::v1::connect_response;
use engine::Instant;
use engine::task::{Json, TaskKey, TaskOrder};

use super::card::ActionSpec;
use super::lease::LeaseToken;
use crate::limits;

/// A session, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionId(pub(super) u64);

/// A frame to an agent.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outgoing {
    Registered {
        token: Arc<str>,
        kept: Vec<(TaskKey, LeaseToken)>,
    },
    Assign(Box<Assignment>),
    Proceed {
        key: TaskKey,
        lease: LeaseToken,
    },
    Cancel {
        key: TaskKey,
        lease: LeaseToken,
        reason: String,
        grace: Duration,
    },
    Ack {
        key: TaskKey,
        lease: LeaseToken,
        duplicate: bool,
    },
    LeaseLost {
        key: TaskKey,
        /// `None`: the agent named one that is none of ours.
        lease: Option<LeaseToken>,
        reason: &'static str,
    },
    Rebalance {
        within: Duration,
    },
    Drain {
        reason: String,
    },
    Ping {
        nonce: u64,
    },
    Pong {
        nonce: u64,
    },
    Fault {
        message: String,
    },
    /// What another replica says to its agent, unchanged.
    Passed(Box<connect_response::Frame>),
}

impl Outgoing {
    /// Whether it makes the agent do something for a run: only the run's owner may.
    pub(super) fn acts(&self) -> bool {
        match self {
            Self::Assign(_) | Self::Proceed { .. } | Self::Cancel { .. } => true,
            Self::Passed(frame) => super::convert::frame_acts(frame),
            _ => false,
        }
    }

    /// Whether it settles what a report said of this task.
    pub(super) fn settles(&self, about: TaskKey) -> bool {
        match self {
            Self::Ack { key, .. } | Self::LeaseLost { key, .. } | Self::Proceed { key, .. } => {
                *key == about
            }
            Self::Passed(frame) => settles(frame, &about.to_string()),
            _ => false,
        }
    }
}

fn settles(frame: &connect_response::Frame, about: &str) -> bool {
    use connect_response::Frame;
    match frame {
        Frame::ResultsAck(acks) => acks.acks.iter().any(|ack| ack.task_id == about),
        Frame::LeaseLost(lost) => lost.task_id == about,
        Frame::Proceed(it) => it.task.as_ref().is_some_and(|task| task.task_id == about),
        _ => false,
    }
}

/// A task as it goes out.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Assignment {
    pub(super) order: Arc<TaskOrder>,
    pub(super) lease: LeaseToken,
    pub(super) action: Arc<ActionSpec>,
    pub(super) checkpoint: Option<Checkpoint>,
    pub(super) at: Instant,
}

/// State within a task.
pub(super) type Checkpoint = Arc<contracts::v1::Payload>;

/// A poll that waits, or whose tasks are not accepted yet.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Poll {
    pub(super) serial: u64,
    pub(super) request_id: String,
    /// How many tasks it still takes; 0 once it was answered.
    pub(super) room: u32,
    pub(super) keys: Vec<(TaskKey, LeaseToken)>,
}

/// What waits to be sent to an agent, and its clocks.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) token: Arc<str>,
    /// It has no stream; it polls.
    pub(super) polls: bool,
    /// Another replica lends the agent: what is sent to it goes over the link.
    pub(super) lent: bool,
    /// That link does not take more just now.
    pub(super) choked: bool,
    pub(super) poll: Option<Poll>,
    pub(super) outbox: VecDeque<Outgoing>,
    pub(super) last_ping: Instant,
    /// When the first ping went out after which nothing was heard.
    pub(super) unanswered_since: Option<Instant>,
    pub(super) nonce: u64,
    pub(super) rebalance_at: Instant,
    /// It was told to connect again and gets nothing new.
    pub(super) rebalanced: bool,
}

impl Session {
    /// Whether it may get another task.
    pub(super) fn has_room(&self) -> bool {
        if self.lent {
            !self.choked
        } else if self.polls {
            self.poll.as_ref().is_some_and(|poll| poll.room > 0)
        } else {
            !self.rebalanced && self.outbox.len() < limits::OUTBOX_FRAMES_FULL
        }
    }

    /// Puts a frame behind all others, but a cancel before everything that it does not concern:
    /// the agent is to hear of it at once, whatever else waits.
    pub(super) fn push(&mut self, frame: Outgoing) {
        let Outgoing::Cancel { key: cancelled, .. } = &frame else {
            self.outbox.push_back(frame);
            return;
        };
        let concerns = |waiting: &Outgoing| match waiting {
            Outgoing::Registered { .. } => true,
            Outgoing::Assign(assignment) => assignment.order.key == *cancelled,
            Outgoing::Proceed { key, .. } | Outgoing::Cancel { key, .. } => key == cancelled,
            _ => false,
        };
        let behind = self.outbox.iter().rposition(concerns).map_or(0, |index| index + 1);
        self.outbox.insert(behind, frame);
    }

    /// It does not read at all any more.
    pub(super) fn is_clogged(&self) -> bool {
        self.outbox.len() > limits::OUTBOX_FRAMES_MAX
    }
}

/// A frame from an agent, understood.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Incoming {
    Credits {
        total: u32,
        per_action: Vec<(Arc<str>, u32)>,
    },
    Accepted(TaskKey, LeaseToken),
    Progress {
        key: TaskKey,
        lease: LeaseToken,
        fraction: f64,
        message: String,
    },
    Log {
        key: TaskKey,
        lease: LeaseToken,
        level: String,
        message: String,
    },
    Chunk {
        key: TaskKey,
        lease: LeaseToken,
        chunk: contracts::v1::Payload,
    },
    Checkpoint {
        key: TaskKey,
        lease: LeaseToken,
        state: Checkpoint,
    },
    Extend(TaskKey, LeaseToken),
    Result(Box<Settled>),
    Release {
        key: TaskKey,
        lease: LeaseToken,
        reason: String,
    },
    Status(Vec<(TaskKey, LeaseToken)>),
    DrainRequested {
        reason: String,
    },
    Ping {
        nonce: u64,
    },
    Pong,
    Emit {
        name: String,
        payload: Json,
        run: engine::RunId,
        task: Option<(TaskKey, LeaseToken)>,
    },
    /// A frame about a task with a token that this control plane never gave out.
    Foreign(TaskKey),
    /// Something that cannot be understood.
    Wrong {
        message: String,
    },
}

impl Incoming {
    /// The task whose result it is.
    pub(super) fn result_of(&self) -> Option<TaskKey> {
        match self {
            Self::Result(settled) => Some(settled.key),
            _ => None,
        }
    }
}

/// What an agent says came of a task.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Settled {
    pub(super) key: TaskKey,
    pub(super) lease: LeaseToken,
    pub(super) verdict: AgentVerdict,
    pub(super) confidence: Option<f64>,
    pub(super) usage: Option<super::report::Usage>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum AgentVerdict {
    Succeeded(Json),
    Failed(engine::task::TaskError),
    Cancelled,
}
