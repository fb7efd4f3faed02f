//! The steps of a run as its events tell them.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use contracts::v1::{
    EventKind, JournalEvent, StepStatus, TaskUpdate, payload::Data, task_update::Update,
};
use serde::Deserialize;

use crate::{moment, status};

/// All steps seen so far.
#[derive(Debug, Default)]
pub(crate) struct Board {
    steps: Vec<StepState>,
    by_path: HashMap<String, usize>,
    active: BTreeSet<usize>,
    settled: usize,
    failed: usize,
    total: usize,
}

/// One step as far as it is known.
#[derive(Debug)]
pub(crate) struct StepState {
    /// Its path.
    pub(crate) path: String,
    /// The agent type; may be empty.
    pub(crate) agent: String,
    /// Where it stands.
    pub(crate) status: StepStatus,
    /// When it became ready.
    pub(crate) started: Option<DateTime<Utc>>,
    /// When it settled.
    pub(crate) ended: Option<DateTime<Utc>>,
    /// The attempt, from 1.
    pub(crate) attempt: i32,
    /// How far its task is.
    pub(crate) fraction: Option<f64>,
    /// What it does just now, why it waits, or why it failed.
    pub(crate) message: String,
}

impl StepState {
    /// A step of which nothing is known but its path.
    pub(crate) fn new(path: &str) -> StepState {
        StepState {
            path: path.to_owned(),
            agent: String::new(),
            status: StepStatus::Unspecified,
            started: None,
            ended: None,
            attempt: 1,
            fraction: None,
            message: String::new(),
        }
    }
}

/// What event bodies say in a common way; other fields are none of this crate's business.
#[derive(Default, Deserialize)]
struct Body {
    #[serde(default)]
    error: Option<serde_json::Value>,
    #[serde(default)]
    attempt: Option<i32>,
    #[serde(default)]
    reason: Option<serde_json::Value>,
    #[serde(default)]
    waiting_for: Option<serde_json::Value>,
}

impl Body {
    /// The error, which is text or an object with a message.
    fn error_text(self) -> Option<String> {
        match self.error? {
            serde_json::Value::String(error) => Some(error),
            serde_json::Value::Object(error) => Some(error.get("message")?.as_str()?.to_owned()),
            _ => None,
        }
    }

    /// What there is to say of the step: why it failed, was skipped, or waits.
    fn message(self, status: StepStatus) -> String {
        match status {
            // All other reasons follow from what is told of other steps.
            StepStatus::Skipped
                if self.reason.as_ref().is_some_and(|it| it == "not_configured") =>
            {
                "no webhook is configured for its channel".to_owned()
            }
            StepStatus::Waiting => {
                let waiting = self.waiting_for.as_ref();
                let text = |key| waiting?.get(key)?.as_str();
                match (text("signal"), text("decision")) {
                    (Some(signal), _) => format!("for the signal `{signal}`"),
                    (_, Some(question)) => format!("for a decision: {question}"),
                    _ => String::new(),
                }
            }
            _ => self.error_text().unwrap_or_default(),
        }
    }
}

impl Board {
    /// Takes in a step of which it is known that it is still to come.
    pub(crate) fn expect(&mut self, path: &str) {
        self.index(path);
    }

    /// Takes in an event; says which step it changed.
    pub(crate) fn event(&mut self, event: &JournalEvent) -> Option<usize> {
        if event.step.is_empty() {
            return None;
        }
        let status = status_behind(event)?;
        let body = body(event);
        let index = self.index(&event.step);
        let step = &mut self.steps[index];
        if !event.agent.is_empty() {
            step.agent.clone_from(&event.agent);
        }
        let time = event.time.as_ref().and_then(moment::time);
        let attempt_failed = event.kind() == EventKind::AttemptFailed;
        if let Some(attempt) = body.attempt.filter(|attempt| *attempt > 0) {
            step.attempt = if attempt_failed { attempt + 1 } else { attempt };
        } else if attempt_failed {
            step.attempt += 1;
        }
        let was = std::mem::replace(&mut step.status, status);
        if was == status && !attempt_failed {
            return None;
        }
        step.fraction = None;
        step.message = body.message(status);
        if status::is_settled(status) {
            step.ended = time;
        } else {
            step.ended = None;
            step.started = step.started.filter(|_| !status::is_settled(was)).or(time);
        }
        self.count(index, was, status);
        Some(index)
    }

    /// Takes in progress of a task that runs; says which step began by it.
    pub(crate) fn update(&mut self, update: &TaskUpdate) -> Option<usize> {
        let index = self.by_path.get(&update.step).copied()?;
        let step = &mut self.steps[index];
        if status::is_settled(step.status) {
            return None;
        }
        // News of an attempt that has failed meanwhile comes behind the event that says so.
        if update.attempt > 0 && update.attempt < step.attempt {
            return None;
        }
        step.attempt = step.attempt.max(update.attempt);
        if !update.agent.is_empty() {
            step.agent.clone_from(&update.agent);
        }
        let was = step.status;
        match &update.update {
            Some(Update::Accepted(_)) => step.message.clear(),
            Some(Update::Progress(progress)) => {
                step.fraction = Some(progress.fraction);
                step.message.clone_from(&progress.message);
            }
            Some(Update::Log(log)) => step.message.clone_from(&log.message),
            Some(Update::OutputChunk(_)) | None => {}
        }
        step.status = StepStatus::Running;
        self.count(index, was, StepStatus::Running);
        (was != StepStatus::Running).then_some(index)
    }

    /// A step by its index.
    pub(crate) fn step(&self, index: usize) -> &StepState {
        &self.steps[index]
    }

    /// The steps that are neither settled nor still to come: first those that run, then those
    /// that wait, each the earliest first.
    pub(crate) fn active(&self) -> impl Iterator<Item = &StepState> {
        let runs = |index: &&usize| self.steps[**index].status == StepStatus::Running;
        let running = self.active.iter().filter(runs);
        let waiting = self.active.iter().filter(move |index| !runs(index));
        running.chain(waiting).map(|index| &self.steps[*index])
    }

    /// How many are active.
    pub(crate) fn active_count(&self) -> usize {
        self.active.len()
    }

    /// How many have settled.
    pub(crate) fn settled_count(&self) -> usize {
        self.settled
    }

    /// How many have failed.
    pub(crate) fn failed_count(&self) -> usize {
        self.failed
    }

    /// How many there are, as far as is known.
    pub(crate) fn total(&self) -> usize {
        self.total
    }

    fn index(&mut self, path: &str) -> usize {
        if let Some(index) = self.by_path.get(path) {
            return *index;
        }
        let index = self.steps.len();
        self.total += usize::from(status::is_counted(path));
        self.steps.push(StepState::new(path));
        self.by_path.insert(path.to_owned(), index);
        index
    }

    fn count(&mut self, index: usize, was: StepStatus, is: StepStatus) {
        if status::is_counted(&self.steps[index].path) {
            match (status::is_settled(was), status::is_settled(is)) {
                (false, true) => self.settled += 1,
                (true, false) => self.settled -= 1,
                _ => {}
            }
            self.failed -= usize::from(was == StepStatus::Failure);
            self.failed += usize::from(is == StepStatus::Failure);
        }
        let is_active =
            matches!(is, StepStatus::Running | StepStatus::Queued | StepStatus::Waiting);
        if is_active {
            self.active.insert(index);
        } else {
            self.active.remove(&index);
        }
    }
}

/// The step's status behind an event: as it says, or what its kind means.
fn status_behind(event: &JournalEvent) -> Option<StepStatus> {
    if event.step_status() != StepStatus::Unspecified {
        return Some(event.step_status());
    }
    Some(match event.kind() {
        EventKind::StepQueued | EventKind::AttemptFailed => StepStatus::Queued,
        EventKind::TaskStarted | EventKind::BlockOpened | EventKind::IterationStarted => {
            StepStatus::Running
        }
        EventKind::StepWaiting => StepStatus::Waiting,
        EventKind::StepSucceeded => StepStatus::Success,
        EventKind::StepFailed => StepStatus::Failure,
        EventKind::StepSkipped => StepStatus::Skipped,
        EventKind::StepCancelled => StepStatus::Cancelled,
        _ => return None,
    })
}

/// The error that an event tells of.
pub(super) fn error(event: &JournalEvent) -> Option<String> {
    body(event).error_text()
}

fn body(event: &JournalEvent) -> Body {
    match event.body.as_ref().and_then(|body| body.data.as_ref()) {
        Some(Data::Json(json)) => serde_json::from_str(json).unwrap_or_default(),
        _ => Body::default(),
    }
}

#[cfg(test)]
mod tests {
    use contracts::v1::{Payload, TaskAccepted};

    use super::*;

    fn event(step: &str, kind: EventKind, body: &str) -> JournalEvent {
        JournalEvent {
            step: step.into(),
            agent: "echo".into(),
            kind: kind.into(),
            time: Some(prost_types::Timestamp { seconds: 5, nanos: 0 }),
            body: Some(Payload { data: Some(Data::Json(body.into())), ..Default::default() }),
            ..Default::default()
        }
    }

    #[test]
    fn a_step_goes_from_queued_over_running_to_its_end() {
        let mut board = Board::default();
        for path in ["a", "b", "c"] {
            board.expect(path);
        }
        assert_eq!(board.event(&event("a", EventKind::StepQueued, "{}")), Some(0));
        assert_eq!((board.active_count(), board.total()), (1, 3));
        board.update(&TaskUpdate {
            step: "a".into(),
            attempt: 1,
            update: Some(Update::Accepted(TaskAccepted {})),
            ..Default::default()
        });
        assert_eq!(board.step(0).status, StepStatus::Running);
        board.event(&event("a", EventKind::AttemptFailed, r#"{"error":"x","attempt":1}"#));
        assert_eq!((board.step(0).attempt, board.step(0).message.as_str()), (2, "x"));
        board.event(&event("a", EventKind::StepSucceeded, "{}"));
        assert_eq!((board.active_count(), board.settled_count()), (0, 1));
        assert_eq!(board.step(0).message, "");
    }

    #[test]
    fn a_failed_step_that_is_retried_counts_once() {
        let mut board = Board::default();
        board.event(&event("a", EventKind::StepFailed, r#"{"error":{"message":"no"}}"#));
        assert_eq!((board.settled_count(), board.failed_count()), (1, 1));
        assert_eq!(board.step(0).message, "no");
        board.event(&event("a", EventKind::StepQueued, "{}"));
        assert_eq!((board.settled_count(), board.failed_count()), (0, 0));
        board.event(&event("a", EventKind::StepSucceeded, "{}"));
        assert_eq!((board.settled_count(), board.failed_count()), (1, 0));
    }

    #[test]
    fn news_of_an_attempt_that_has_failed_changes_nothing() {
        let mut board = Board::default();
        board.event(&event("a", EventKind::StepQueued, "{}"));
        board.event(&event("a", EventKind::AttemptFailed, r#"{"error":"x","attempt":1}"#));
        let update = |attempt| TaskUpdate {
            step: "a".into(),
            attempt,
            update: Some(Update::Accepted(TaskAccepted {})),
            ..Default::default()
        };
        assert_eq!(board.update(&update(1)), None);
        assert_eq!((board.step(0).attempt, board.step(0).status), (2, StepStatus::Queued));
        assert_eq!(board.update(&update(2)), Some(0));
        assert_eq!(board.step(0).status, StepStatus::Running);
    }

    #[test]
    fn steps_of_on_failure_are_shown_and_not_counted() {
        let mut board = Board::default();
        board.event(&event("a", EventKind::StepFailed, r#"{"error":"x"}"#));
        let skipped = r#"{"reason":"not_configured"}"#;
        board.event(&event("on_failure.notify", EventKind::StepSkipped, skipped));
        assert_eq!((board.total(), board.settled_count(), board.failed_count()), (1, 1, 1));
        assert_eq!(board.step(1).message, "no webhook is configured for its channel");
    }

    #[test]
    fn a_step_that_waits_says_what_for() {
        let mut board = Board::default();
        let signal = r#"{"waiting_for":{"signal":"go"},"until":5}"#;
        board.event(&event("a", EventKind::StepWaiting, signal));
        assert_eq!(board.step(0).message, "for the signal `go`");
        board.event(&event("b", EventKind::StepWaiting, r#"{"waiting_for":"time"}"#));
        assert_eq!(board.step(1).message, "");
    }

    #[test]
    fn events_about_the_run_or_of_unknown_bodies_change_no_step() {
        let mut board = Board::default();
        assert_eq!(board.event(&event("", EventKind::RunStarted, "{}")), None);
        assert_eq!(board.event(&event("a", EventKind::SignalReceived, "{}")), None);
        assert_eq!(board.event(&event("a", EventKind::StepSucceeded, "[not json")), Some(0));
        assert_eq!(board.event(&event("a", EventKind::StepSucceeded, "{}")), None);
        assert_eq!(board.total(), 1);
    }
}
