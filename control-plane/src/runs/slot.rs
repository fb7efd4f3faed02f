//! One run in memory: its state, the commands that wait for it, and the transition in the commit.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use engine::event::{Ending, Stops};
use engine::task::{FailureKind, TaskKey};
use engine::{
    Command, ContentHash, Counts, Effect, Event, Instant, Rejection, RunId, RunStatus, State,
};
use serde::Serialize;
use serde_json::json;
use store::{Commit, DeadLetterRow, JournalRow, OwnerId, RequestRow, RunRow};
use tokio::sync::oneshot;

use super::adoption::Identity;
use super::{Answered, Error, Fork, NewRun, Started, TENANT_DEFAULT};
use super::{audited, projected};
use crate::audit::Head;
use crate::dispatch::{Answer, Batch, ReportAck};
use crate::limits;

/// Something for one run.
pub(crate) struct Envelope {
    pub(crate) run: RunId,
    pub(crate) ask: Ask,
    pub(crate) reply: Reply,
}

impl Envelope {
    /// Whether it adds to what is under way: then it goes behind what that needs. A child run is
    /// part of what is under way.
    pub(crate) fn is_new_run(&self) -> bool {
        matches!(&self.ask, Ask::Start(new) if new.started.parent.is_none())
    }

    /// Whether it is to stop what is under way: then it overtakes what else waits.
    pub(crate) fn is_urgent(&self) -> bool {
        matches!(&self.ask, Ask::Command(command) if matches!(**command, Command::Cancel { .. }))
    }
}

/// What is asked.
pub(crate) enum Ask {
    Start(Box<NewRun>),
    Command(Box<Command>),
    /// Whether a task's result counts, when dispatch does not have the task.
    Inquire(TaskKey),
    /// Take the run over.
    Adopt,
    /// The same with what was read of it already.
    TakeIn(Box<State>),
}

/// Who waits for the answer.
pub(crate) enum Reply {
    Nobody,
    Done(oneshot::Sender<Result<(), Error>>),
    Started(oneshot::Sender<Result<Started, Error>>),
    Report(Answer),
    /// Another replica, for one of those.
    Passed(oneshot::Sender<Answered>),
}

impl Reply {
    pub(crate) fn done(self, run: RunId) {
        match self {
            Self::Nobody => {}
            // Whoever asked may be gone; then nobody needs the answer.
            Self::Done(to) => drop(to.send(Ok(()))),
            Self::Started(to) => drop(to.send(Ok(Started::New(run)))),
            Self::Report(answer) => answer.send(ReportAck::Durable),
            Self::Passed(to) => drop(to.send(Answered::Done)),
        }
    }

    /// The run that was to be started is there.
    pub(crate) fn done_before(self, run: RunId) {
        match self {
            Self::Started(to) => drop(to.send(Ok(Started::Before(run)))),
            other => other.done(run),
        }
    }

    /// The same, where an answer to dispatch can wait until others are answered too.
    pub(crate) fn done_among_others(self, run: RunId, batch: &mut Batch) {
        match self {
            Self::Report(answer) => batch.answer(answer, ReportAck::Durable),
            other => other.done(run),
        }
    }

    pub(crate) fn refuse(self, error: Error) {
        match self {
            Self::Nobody => {}
            Self::Done(to) => drop(to.send(Err(error))),
            Self::Started(to) => drop(to.send(Err(error))),
            // An answer that is dropped has the report made again.
            Self::Report(answer) => match error {
                Error::NotFound(_) => answer.send(ReportAck::LeaseLost),
                _ => drop(answer),
            },
            Self::Passed(to) => drop(to.send(Answered::of(error))),
        }
    }

    pub(crate) fn reject(self, rejection: Rejection, settled: bool) {
        match self {
            Self::Report(answer) => {
                answer.send(if settled { ReportAck::Duplicate } else { ReportAck::LeaseLost });
            }
            Self::Passed(to) => drop(to.send(Answered::Rejected { rejection, settled })),
            other => other.refuse(Error::Rejected(rejection)),
        }
    }
}

/// What a run is about, in memory.
pub(crate) enum Phase {
    /// Its journal is being read.
    Loading,
    /// Nothing of it is in the commit.
    Idle(Box<State>),
    /// Nothing of it is in the commit; where its chain of the audit log has come to is being read.
    Heading(Box<State>),
    /// A transition is in the commit. The state is ahead of the store.
    Committing(Box<Flight>),
    /// It is being left to nobody, since it only waits.
    Parking(Box<State>),
}

/// A transition in the commit.
pub(crate) struct Flight {
    pub(crate) state: Box<State>,
    pub(crate) effects: Vec<Effect>,
    pub(crate) replies: Vec<Reply>,
    /// What was refused, perhaps because of what is not durable yet.
    pub(crate) rejections: Vec<Rejected>,
    pub(crate) adopted: bool,
    pub(crate) more: bool,
    pub(crate) ended: Option<Ending>,
    /// It asks something of people.
    pub(crate) asks: bool,
    /// The request that a start came with: its id and the hash of its body.
    pub(crate) request: Option<(String, ContentHash)>,
}

/// A command that was refused, and whether that is because its task has settled.
pub(crate) struct Rejected {
    reply: Reply,
    rejection: Rejection,
    settled: bool,
}

impl Rejected {
    pub(crate) fn answer(self) {
        self.reply.reject(self.rejection, self.settled);
    }
}

impl Flight {
    fn new(state: Box<State>, effects: Vec<Effect>, replies: Vec<Reply>) -> Self {
        Self {
            state,
            effects,
            replies,
            rejections: Vec::new(),
            adopted: false,
            more: false,
            ended: None,
            asks: false,
            request: None,
        }
    }

    /// Whether it stops something at an agent.
    pub(crate) fn is_urgent(&self) -> bool {
        self.effects.iter().any(|effect| matches!(effect, Effect::CancelTask { .. }))
    }

    /// All who wait for an answer.
    pub(crate) fn askers(&mut self) -> impl Iterator<Item = Reply> + use<> {
        let rejected = std::mem::take(&mut self.rejections).into_iter();
        std::mem::take(&mut self.replies).into_iter().chain(rejected.map(|other| other.reply))
    }
}

/// A run in memory.
pub(crate) struct Slot {
    pub(crate) phase: Phase,
    pub(crate) queue: VecDeque<Envelope>,
    pub(crate) timer: Option<Instant>,
    /// Where its chain of the audit log has come to, once that is known.
    pub(crate) audit: Option<Head>,
    /// By how much the run's time is ahead of this process's clock: whoever decided before had
    /// another one. The run's time goes on from there, and what hangs on it comes no later.
    pub(crate) ahead: Duration,
    /// It is read again because nobody knows whether its last transition was written.
    pub(crate) unsure: bool,
}

impl Slot {
    pub(crate) fn loading() -> Self {
        Self {
            phase: Phase::Loading,
            queue: VecDeque::new(),
            timer: None,
            audit: None,
            ahead: Duration::ZERO,
            unsure: false,
        }
    }

    /// The run was read, and nothing of it is in the commit.
    pub(crate) fn has_read(&mut self, state: Box<State>, now: Instant) {
        self.ahead = state.last_at().since(now);
        self.phase = Phase::Idle(state);
    }
}

/// Another has the run.
pub(crate) fn lost() -> Error {
    Error::Unavailable("another process has taken the run over".to_owned())
}

/// Answers all of them alike.
pub(crate) fn refuse_all(replies: impl IntoIterator<Item = Reply>, error: &Error) {
    for reply in replies {
        reply.refuse(error.clone());
    }
}

/// Takes out of a queue the first start and all behind it.
pub(crate) fn split_at_start(queue: &mut VecDeque<Envelope>) -> Vec<Envelope> {
    let first = queue.iter().position(|envelope| matches!(envelope.ask, Ask::Start(_)));
    queue.split_off(first.unwrap_or(queue.len())).into()
}

/// What came of deciding.
pub(crate) enum Decided {
    /// Nothing changed; the state is as it was. The effects repeat what is durable already.
    Nothing(Box<State>, Vec<Effect>),
    /// A transition to be committed.
    Transition(Box<Flight>, Box<Commit>),
    /// The engine panicked: the state is lost and the run is quarantined.
    Stuck(String),
}

/// Decides all commands that wait for a run, as far as one transition may hold them.
pub(crate) fn decide(
    mut state: Box<State>,
    queue: &mut VecDeque<Envelope>,
    now: Instant,
    identity: Identity,
    head: &mut Option<Head>,
) -> Decided {
    let Identity { owner, epoch } = identity;
    let before = state.version();
    // The journal says the same time that the engine was told.
    let now = now.max(state.last_at());
    let mut events: Vec<Event> = Vec::new();
    let mut effects = Vec::new();
    let mut replies = Vec::new();
    let mut rejections = Vec::new();
    let (mut adopted, mut more, mut count) = (false, false, 0);
    while count < limits::COMMANDS_PER_TRANSITION_MAX
        && events.len() < limits::EVENTS_PER_TRANSITION_MAX
    {
        let Some(Envelope { run, ask, reply }) = queue.pop_front() else { break };
        count += 1;
        let command = match ask {
            Ask::Command(command) => *command,
            Ask::Adopt | Ask::TakeIn(_) => {
                adopted = true;
                Command::Adopt { epoch }
            }
            Ask::Start(_) => {
                // The run is there: the same start came before.
                reply.done_before(run);
                continue;
            }
            Ask::Inquire(key) => {
                let settled = state.is_task_taken_in(&key);
                rejections.push(Rejected { reply, rejection: Rejection::TaskNotOut, settled });
                continue;
            }
        };
        let task = match &command {
            Command::Report(report) => Some(report.key),
            _ => None,
        };
        let decided = catch_unwind(AssertUnwindSafe(|| engine::decide(&mut state, command, now)));
        match decided {
            Err(panic) => {
                let rejected = rejections.into_iter().map(|other: Rejected| other.reply);
                replies.into_iter().chain(rejected).for_each(|reply: Reply| {
                    reply.refuse(Error::Stuck(run, "the engine failed".to_owned()));
                });
                reply.refuse(Error::Stuck(run, "the engine failed".to_owned()));
                return Decided::Stuck(text_of(&*panic));
            }
            Ok(Err(rejection)) => {
                let settled = task.is_some_and(|key| state.is_task_taken_in(&key));
                rejections.push(Rejected { reply, rejection, settled });
            }
            Ok(Ok(transition)) => {
                append(&mut events, transition.events);
                append(&mut effects, transition.effects);
                more |= transition.more;
                replies.push(reply);
            }
        }
    }
    if events.is_empty() {
        let run = state.id();
        replies.into_iter().for_each(|reply| reply.done(run));
        rejections.into_iter().for_each(Rejected::answer);
        return Decided::Nothing(state, effects);
    }
    let audit = head.as_mut().map(|head| audited::rows(state.id(), before, &events, now, head));
    let commit = commit_of(&mut state, before, now, owner, &events, None);
    let commit = commit.map(|commit| Commit { audit: audit.unwrap_or_default(), ..commit });
    let ended = ending(&events);
    let flight =
        Flight { rejections, adopted, more, ended, ..Flight::new(state, effects, replies) };
    pack(flight, commit)
}

/// Puts `more` behind `all`; as a rule that is all there is.
fn append<T>(all: &mut Vec<T>, more: Vec<T>) {
    if all.is_empty() {
        *all = more;
    } else {
        all.extend(more);
    }
}

fn pack(flight: Flight, commit: Result<Commit, String>) -> Decided {
    match commit {
        Ok(commit) => {
            let asks = projected::asks_people(&commit.documents);
            Decided::Transition(Box::new(Flight { asks, ..flight }), Box::new(commit))
        }
        Err(why) => Decided::Stuck(why),
    }
}

fn ending(events: &[Event]) -> Option<Ending> {
    events.iter().find_map(|event| match event {
        Event::RunEnded { status, .. } => Some(*status),
        _ => None,
    })
}

/// The first transition of a run.
pub(crate) fn decide_start(
    new: NewRun,
    reply: Reply,
    now: Instant,
    owner: OwnerId,
    head: &mut Head,
) -> Decided {
    let NewRun { id, graph, started, request, fork } = new;
    let decided = catch_unwind(AssertUnwindSafe(|| match fork {
        None => engine::start(id, graph, started, now),
        Some(fork) => {
            let Fork { of, journal, from } = *fork;
            engine::fork(id, &of, &journal, &from, started, now)
        }
    }));
    match decided {
        Err(panic) => {
            reply.refuse(Error::Stuck(id, "the engine failed".to_owned()));
            Decided::Stuck(text_of(&*panic))
        }
        Ok(Err(rejection)) => {
            let why = rejection.to_string();
            reply.refuse(Error::Rejected(rejection));
            Decided::Stuck(why)
        }
        Ok(Ok((mut state, transition))) => {
            let mark = request.as_ref().map(|row| (row.request_id.clone(), row.body_hash));
            let audit = audited::fork(id, &transition.events, now, head);
            let commit = commit_of(&mut state, 0, now, owner, &transition.events, request);
            let commit = commit.map(|commit| Commit { audit, ..commit });
            let new = Flight::new(Box::new(state), transition.effects, vec![reply]);
            let (more, ended) = (transition.more, ending(&transition.events));
            let flight = Flight { more, ended, request: mark, ..new };
            pack(flight, commit)
        }
    }
}

/// The numbers of statuses in `runs`: those of `contracts::v1::RunStatus`.
#[must_use]
pub(crate) fn status_number(status: RunStatus) -> i16 {
    use contracts::v1::RunStatus as Wire;
    use engine::EndedStatus;
    let wire = match status {
        RunStatus::Running => Wire::Running,
        RunStatus::Waiting => Wire::Waiting,
        RunStatus::Paused => Wire::Paused,
        RunStatus::Stuck => Wire::Stuck,
        RunStatus::Ended(EndedStatus::Success) => Wire::Success,
        RunStatus::Ended(EndedStatus::Failure) => Wire::Failure,
        RunStatus::Ended(EndedStatus::Cancelled) => Wire::Cancelled,
        RunStatus::Ended(EndedStatus::RolledBack) => Wire::RolledBack,
    };
    i16::try_from(wire as i32).unwrap_or(0)
}

/// What the body of an event has room in at first.
const BODY_BYTES_USUAL: usize = 512;

fn commit_of(
    state: &mut State,
    before: i64,
    now: Instant,
    owner: OwnerId,
    events: &[Event],
    request: Option<RequestRow>,
) -> Result<Commit, String> {
    let mut rows = Vec::with_capacity(events.len());
    let mut body = Vec::with_capacity(BODY_BYTES_USUAL);
    for (seq, event) in (before + 1..).zip(events) {
        body.clear();
        event.encode_into(&mut body).map_err(|error| error.to_string())?;
        let (kind, schema) = (event.kind(), engine::event::SCHEMA);
        rows.push(JournalRow { seq, at: now.0, kind, schema, body: body.as_slice().into() });
    }
    let documents = projected::documents(state, before, events);
    let documents = documents.map_err(|error| error.to_string())?;
    let started = state.started();
    // Of a run that is there these stay as they are, whatever the row says.
    let fixed = |text: &String| if before == 0 { text.clone() } else { String::new() };
    let row = RunRow {
        run_id: state.id(),
        tenant: fixed(&started.tenant),
        workflow: fixed(&started.workflow),
        version_name: fixed(&started.version),
        definition_hash: state.graph().hash,
        status: status_number(state.status()),
        version: state.version(),
        owner: Some(owner),
        created_at: state.started_at().0,
        ended_at: state.ended_at().map(|at| at.0),
        parent: started.parent.map(|parent| parent.run),
        priority: i16::from(started.priority),
        labels: if started.labels.is_empty() { b"{}".to_vec() } else { as_json(&started.labels) },
        summary: summary(state),
        wake_at: state.next_wakeup().map(|at| at.0),
    };
    let dead_letters = dead_letters(state, events, now);
    let mut remove_dead_letters = retried(state, events);
    // One that is there already stays as it is.
    remove_dead_letters.retain(|id| dead_letters.iter().all(|letter| letter.id != *id));
    Ok(Commit {
        run: state.id(),
        expected_version: before,
        row,
        dead_letters,
        remove_dead_letters,
        events: rows,
        request,
        blobs: Vec::new(),
        documents,
        audit: Vec::new(),
    })
}

/// What lists show of a run beyond its columns.
#[derive(Serialize)]
struct Summary<'a> {
    actor: &'a str,
    // From here on once it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed_step: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    counts: Option<SummaryOfSteps>,
}

#[derive(Serialize)]
struct SummaryOfSteps {
    total: u32,
    successful: u32,
    failed: u32,
    skipped: u32,
}

fn summary(state: &State) -> Vec<u8> {
    let actor = &state.started().origin.actor;
    if state.ended_at().is_none() {
        return as_json(&Summary { actor, error: None, failed_step: None, counts: None });
    }
    let (failed_step, error) = state.failure();
    let Counts { total, successful, failed, skipped } = state.counts();
    let counts = Some(SummaryOfSteps { total, successful, failed, skipped });
    as_json(&Summary { actor, error: Some(error), failed_step: Some(failed_step), counts })
}

fn as_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts and numbers under texts can always be written")
}

/// Actions whose attempts are used up, where that stops the run; those from before the run was
/// taken up again are none any more.
fn dead_letters(state: &State, events: &[Event], now: Instant) -> Vec<DeadLetterRow> {
    let mut letters = Vec::new();
    let retried = events.iter().rposition(|event| matches!(event, Event::RunRetried { .. }));
    let events = &events[retried.map_or(0, |at| at + 1)..];
    for event in events {
        let Event::StepFailed { n, step, error, stops, by, .. } = event else { continue };
        let Some(action) = state.action_of(*n) else { continue };
        if *stops == Stops::Nothing {
            continue;
        }
        let input: serde_json::Value = state
            .task_input(*n)
            .and_then(|input| serde_json::from_str(&input).ok())
            .unwrap_or_default();
        let body = json!({
            "agent": action.agent.as_deref().unwrap_or_default(),
            "agent_instance": by.as_ref().map(|by| &*by.instance),
            "action": &*action.action,
            "attempts": state.attempts(*n),
            "error": error.message,
            "error_code": error.code,
            "permanent": error.kind == FailureKind::Permanent,
            "input": input,
        });
        letters.push(DeadLetterRow {
            id: format!("{}/{step}", state.id()),
            tenant: TENANT_DEFAULT.to_owned(),
            run_id: state.id(),
            workflow: state.started().workflow.clone(),
            step: step.to_string(),
            at: now.0,
            body: body.to_string().into_bytes(),
        });
    }
    letters
}

/// A retried run takes its dead letters back.
fn retried(state: &State, events: &[Event]) -> Vec<String> {
    let is_retried = events.iter().any(|event| matches!(event, Event::RunRetried { .. }));
    if !is_retried {
        return Vec::new();
    }
    let letter = |step: engine::StepView| {
        (!step.action.is_empty()).then(|| format!("{}/{}", state.id(), step.path))
    };
    state.steps().into_iter().filter_map(letter).collect()
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "the engine panicked".to_owned())
}
