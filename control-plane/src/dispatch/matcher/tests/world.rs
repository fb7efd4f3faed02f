//! A matcher, its time, and what came out of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use contracts::v1;
use engine::task::{Delivery, Purpose, TaskError, TaskKey, TaskOrder, TaskOutcome};
use engine::{InstanceId, Instant, RunId};

use super::super::super::card;
use super::super::super::clocks::Clocks;
use super::super::super::lease::LeaseToken;
use super::super::super::report::{Report, ReportAck, Subject, TaskUpdate};
use super::super::super::session::{
    AgentVerdict, Assignment, Incoming, Outgoing, SessionId, Settled,
};
use super::super::{Matcher, Taken};

pub(super) const START: Instant = Instant(1_700_000_000_000_000);

pub(super) struct World {
    pub(super) matcher: Matcher,
    pub(super) now: Instant,
    pub(super) reports: Vec<(Report, Subject)>,
    pub(super) updates: Vec<TaskUpdate>,
    pub(super) inquiries: Vec<TaskKey>,
}

/// A run of its own for each name.
pub(super) fn run(name: &str) -> RunId {
    RunId::derived(RunId::at_instant(START, ""), name)
}

pub(super) fn key(name: &str, number: u32) -> TaskKey {
    TaskKey { run: run(name), instance: InstanceId(number), purpose: Purpose::Do }
}

/// The first attempt of a task of agent type `t`, action `do`.
pub(in crate::dispatch) fn order(name: &str, number: u32) -> TaskOrder {
    TaskOrder {
        key: key(name, number),
        path: format!("step{number}").into(),
        attempt: 1,
        agent: Some("t".into()),
        preferred_instance: None,
        action: "do".into(),
        requires: Arc::default(),
        input: "{}".into(),
        upstream: Vec::new(),
        idempotency_key: format!("{name}/{number}").into(),
        timeout: None,
        deadline: None,
        not_before: None,
        queued_at: START,
        queue_timeout: None,
        priority: 5,
        fairness_key: name.into(),
        delivery: Delivery::AtLeastOnce,
        begun: false,
        begun_by: None,
        epoch: 1,
        undo_of: false,
    }
}

pub(super) fn register(agent_type: &str, instance: &str, slots: i32) -> v1::Register {
    v1::Register { slots, ..card::tests::register(agent_type, instance) }
}

pub(super) fn failure(code: &str, kind: engine::task::FailureKind) -> AgentVerdict {
    AgentVerdict::Failed(TaskError {
        kind,
        code: code.to_owned(),
        message: String::new(),
        retry_after_ms: None,
        no_effect: false,
    })
}

pub(super) const LIFE: Duration = Duration::from_secs(1_800);

impl World {
    pub(super) fn new() -> Self {
        Self {
            matcher: Matcher::new(Clocks::default(), BTreeMap::new()),
            now: START,
            reports: Vec::new(),
            updates: Vec::new(),
            inquiries: Vec::new(),
        }
    }

    pub(super) fn act<T>(&mut self, act: impl FnOnce(&mut Matcher) -> T) -> T {
        self.matcher.advance(self.now);
        let result = act(&mut self.matcher);
        let effects = self.matcher.take_effects();
        self.reports.extend(effects.reports);
        self.updates.extend(effects.updates);
        self.inquiries.extend(effects.inquiries.into_iter().map(|(key, _, _)| key));
        result
    }

    /// Lets time pass, deadline by deadline.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now.after(time);
        while let Some(next) = self.matcher.next_deadline().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.act(Matcher::tick);
        }
        self.now = end;
    }

    pub(super) fn pass_secs(&mut self, secs: u64) {
        self.pass(Duration::from_secs(secs));
    }

    /// Lets time pass while agents answer pings and say that they live.
    pub(super) fn pass_alive(&mut self, secs: u64, sessions: &[SessionId]) {
        for _ in 0..secs {
            self.pass_secs(1);
            for session in sessions {
                self.hear(*session, Incoming::Pong);
            }
        }
    }

    pub(super) fn connect(&mut self, register: v1::Register) -> SessionId {
        let registration = card::check(register).unwrap();
        let token = format!("token-{}", self.now.0).into();
        self.act(|matcher| matcher.register(registration, token, LIFE, false)).unwrap()
    }

    /// An agent of type `t` with action `do`.
    pub(super) fn agent(&mut self, instance: &str, slots: i32) -> SessionId {
        self.connect(register("t", instance, slots))
    }

    pub(super) fn submit(&mut self, order: TaskOrder) {
        self.act(|matcher| matcher.submit(order));
    }

    pub(super) fn hear(&mut self, session: SessionId, frame: Incoming) -> bool {
        self.act(|matcher| matcher.hear(session, vec![frame]))
    }

    pub(super) fn frames(&mut self, session: SessionId) -> Vec<Outgoing> {
        let mut all = Vec::new();
        while let Taken::Frames(frames) = self.act(|matcher| matcher.take(session, true)) {
            if frames.is_empty() {
                break;
            }
            all.extend(frames);
        }
        all
    }

    pub(super) fn assignments(&mut self, session: SessionId) -> Vec<Assignment> {
        let frames = self.frames(session).into_iter();
        let assigned = frames.filter_map(|frame| match frame {
            Outgoing::Assign(assignment) => Some(*assignment),
            _ => None,
        });
        assigned.collect()
    }

    /// The names and numbers of the steps that were assigned since the last look.
    pub(super) fn assigned(&mut self, session: SessionId) -> Vec<String> {
        let assigned = self.assignments(session).into_iter();
        assigned.map(|assignment| assignment.order.idempotency_key.to_string()).collect()
    }

    /// The one task that was assigned since the last look.
    pub(super) fn one(&mut self, session: SessionId) -> (TaskKey, LeaseToken) {
        let assigned = self.assignments(session);
        assert_eq!(assigned.len(), 1, "{assigned:?}");
        (assigned[0].order.key, assigned[0].lease)
    }

    pub(super) fn accept(&mut self, session: SessionId, (key, lease): (TaskKey, LeaseToken)) {
        self.hear(session, Incoming::Accepted(key, lease));
    }

    pub(super) fn result(
        &mut self,
        session: SessionId,
        (key, lease): (TaskKey, LeaseToken),
        verdict: AgentVerdict,
    ) {
        let settled = Settled { key, lease, verdict, confidence: None, usage: None };
        self.hear(session, Incoming::Result(Box::new(settled)));
    }

    pub(super) fn succeed(&mut self, session: SessionId, task: (TaskKey, LeaseToken)) {
        self.result(session, task, AgentVerdict::Succeeded("null".into()));
    }

    /// Answers all reports that were made, and gives their outcomes.
    pub(super) fn answer_all(&mut self, ack: Option<ReportAck>) -> Vec<TaskOutcome> {
        let reports = std::mem::take(&mut self.reports);
        let mut outcomes = Vec::new();
        for (report, subject) in reports {
            outcomes.push(report.task.outcome);
            self.act(|matcher| matcher.answered(subject, ack));
        }
        outcomes
    }

    pub(super) fn outcomes(&mut self) -> Vec<TaskOutcome> {
        self.answer_all(Some(ReportAck::Durable))
    }

    /// The codes of the failures that were reported.
    pub(super) fn failures(&mut self) -> Vec<String> {
        let outcomes = self.outcomes().into_iter();
        let codes = outcomes.filter_map(|outcome| match outcome {
            TaskOutcome::Failed(error) => Some(error.code),
            _ => None,
        });
        codes.collect()
    }

    pub(super) fn gone(&mut self, session: SessionId) {
        self.act(|matcher| matcher.gone(session));
    }

    pub(super) fn cause(&mut self, key: TaskKey) -> String {
        self.act(|matcher| matcher.why(key)).map_or_else(String::new, |why| why.cause)
    }
}
