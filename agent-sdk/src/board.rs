//! All tasks that an agent has, from their assignment until their result is acknowledged. It
//! outlives streams: tasks go on while there is none. One short lock guards it; nobody waits
//! while holding it.

mod frames;
mod orders;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use contracts::v1::{self, connect_request::Frame};
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::context::{Cancel, Context, Figures, News, Reporter};
use crate::limits::{
    CANCEL_GRACE, PAYLOAD_BYTES_MAX, PING_INTERVAL, PING_TIMEOUT, PROCEED_TIMEOUT,
    RESEND_DOUBLINGS_MAX, STATUS_INTERVAL, TASKS_MAX,
};
use crate::outbox::{Item, Outbox, TaskId};
use crate::outcome::{self, Stop, clipped};
use crate::{Agent, Failure, payload, work};

pub(crate) use frames::Frames;

/// What an agent has to do, and what it has to tell.
pub(crate) struct Board {
    agent: Agent,
    state: Mutex<State>,
    /// Fires when a task is gone.
    pub(crate) changed: Notify,
}

struct State {
    tasks: HashMap<TaskId, Entry, foldhash::fast::RandomState>,
    /// How many of them are done: their results are kept until they are acknowledged.
    done: usize,
    /// Tasks that were assigned and are not taken on before there is room in the outbox.
    held: VecDeque<v1::Task>,
    outbox: Outbox,
    clocks: Clocks,
    /// Counts sessions; frames of an older one are not sent.
    session: u64,
    /// Whether the present session is registered.
    live: bool,
    /// Whether the stream is to end once everything is sent.
    closing: bool,
    draining: bool,
    /// Counts tasks, so that a late word of an old one is not taken for the new one's.
    numbers: u64,
    channel: Option<Channel>,
}

/// What the control plane said on registering.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clocks {
    pub(crate) ping_interval: Duration,
    pub(crate) ping_timeout: Duration,
    pub(crate) status_interval: Duration,
    /// Also after how long an unacknowledged result is sent again.
    pub(crate) accept_timeout: Duration,
    pub(crate) payload_bytes_max: usize,
}

impl Default for Clocks {
    fn default() -> Self {
        Self {
            ping_interval: PING_INTERVAL,
            ping_timeout: PING_TIMEOUT,
            status_interval: STATUS_INTERVAL,
            accept_timeout: PROCEED_TIMEOUT,
            payload_bytes_max: PAYLOAD_BYTES_MAX,
        }
    }
}

struct Entry {
    lease_token: String,
    attempt: i32,
    number: u64,
    stage: Stage,
    cancel: Cancel,
    stop: Option<Stop>,
    /// How many answers to come are about an earlier attempt.
    stale_answers: u32,
    worker: Option<AbortHandle>,
    progress: Option<(f64, String)>,
    checkpoint: Option<v1::Payload>,
}

enum Stage {
    /// Accepted; it may not begin before `Proceed`.
    Waiting(Option<oneshot::Sender<()>>),
    Running,
    /// Its result is not acknowledged yet.
    Done {
        result: Box<v1::TaskResult>,
        sent: Option<Instant>,
        times: u32,
    },
}

impl Board {
    pub(crate) fn new(agent: Agent) -> Arc<Self> {
        let state = State {
            tasks: HashMap::default(),
            done: 0,
            held: VecDeque::new(),
            outbox: Outbox::default(),
            clocks: Clocks::default(),
            session: 0,
            live: false,
            closing: false,
            draining: false,
            numbers: 0,
            channel: None,
        };
        Arc::new(Self { agent, state: Mutex::new(state), changed: Notify::new() })
    }

    pub(crate) fn agent(&self) -> &Agent {
        &self.agent
    }

    pub(crate) fn clocks(&self) -> Clocks {
        self.lock().clocks
    }

    /// How many tasks there are, those included whose results are not acknowledged.
    pub(crate) fn tasks(&self) -> usize {
        let state = self.lock();
        state.tasks.len() + state.held.len()
    }

    /// Whether so much waits that nothing more should be read.
    pub(crate) fn is_full(&self) -> bool {
        self.lock().held.len() >= TASKS_MAX
    }

    /// Sends a frame that belongs to the present session.
    pub(crate) fn send(&self, frame: Frame) {
        let mut state = self.lock();
        if state.live {
            state.outbox.push(Item::Frame(frame));
        }
    }

    /// Takes nothing new from now on.
    pub(crate) fn drain(&self) {
        let mut state = self.lock();
        state.draining = true;
        state.ask_to_drain();
    }

    /// Says how many tasks may be out at once: this many, or as many as there are slots.
    pub(crate) fn credit(&self, most: Option<u32>) {
        let slots = self.agent.slots;
        let total = i32::try_from(most.map_or(slots, |most| most.min(slots))).unwrap_or(i32::MAX);
        self.send(Frame::Credits(v1::Credits { total, per_action: HashMap::new() }));
    }

    /// Ends the stream once everything is sent.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closing = true;
        state.outbox.wake();
    }

    /// Says that the agent lives and what it has; sends results again that were not acknowledged.
    pub(crate) fn remind(&self, now: Instant) {
        let mut state = self.lock();
        if !state.live || state.tasks.is_empty() {
            return;
        }
        let tasks = state.tasks.iter().map(|(id, entry)| entry.task_ref(id)).collect();
        let again = state.clocks.accept_timeout;
        // Ever more seldom, lest an overloaded control plane is loaded even more.
        let late = |sent: Option<Instant>, times: u32| {
            let wait = again.saturating_mul(1 << times.saturating_sub(1).min(RESEND_DOUBLINGS_MAX));
            sent.is_some_and(|sent| now.saturating_duration_since(sent) > wait)
        };
        let mut unheard = Vec::new();
        for (id, entry) in &mut state.tasks {
            if let Stage::Done { sent, times, .. } = &mut entry.stage
                && late(*sent, *times)
            {
                *sent = None;
                unheard.push(id.clone());
            }
        }
        state.outbox.push(Item::Frame(Frame::Status(v1::Status { tasks })));
        for id in unheard {
            state.outbox.push(Item::Result(id));
        }
    }

    /// Tells all tasks to stop.
    pub(crate) fn stop_all(self: &Arc<Self>, stop: Stop, grace: Duration) {
        let tasks: Vec<(TaskId, u64)> = {
            let state = self.lock();
            state.tasks.iter().map(|(id, entry)| (id.clone(), entry.number)).collect()
        };
        for (id, number) in tasks {
            self.stop(&id, Some(number), stop, grace);
        }
    }

    /// Tells a task to stop; when it has not after the grace, it is aborted.
    fn stop(self: &Arc<Self>, id: &TaskId, number: Option<u64>, stop: Stop, grace: Duration) {
        let number = {
            let mut state = self.lock();
            let Some(entry) = state.tasks.get_mut(id) else { return };
            if number.is_some_and(|number| number != entry.number) {
                return;
            }
            let number = entry.number;
            match &entry.stage {
                Stage::Done { .. } => return,
                Stage::Running => {}
                Stage::Waiting(_) => {
                    // It never began, so there is nothing to wait for.
                    state.settle(id, number, never_began(stop));
                    return;
                }
            }
            let earlier = entry.stop.replace(stop);
            entry.cancel.cancel();
            // The control plane's cancel counts more than the agent's own reasons.
            if earlier == Some(Stop::Cancelled) {
                entry.stop = earlier;
                return;
            }
            number
        };
        let board = Arc::clone(self);
        let id = Arc::clone(id);
        tokio::spawn(async move {
            tokio::time::sleep(grace).await;
            board.abort(&id, number);
        });
    }

    fn abort(&self, id: &TaskId, number: u64) {
        let mut state = self.lock();
        let Some(entry) = state.tasks.get(id).filter(|entry| entry.number == number) else {
            return;
        };
        let (Stage::Running, Some(stop)) = (&entry.stage, entry.stop) else { return };
        if let Some(worker) = &entry.worker {
            worker.abort();
        }
        state.settle(id, number, outcome::aborted(stop));
    }

    /// Takes a handler's result.
    fn finish(&self, id: &TaskId, number: u64, result: Result<String, Failure>, figures: Figures) {
        let mut state = self.lock();
        let bytes_max = state.clocks.payload_bytes_max;
        let Some(entry) = state.tasks.get(id).filter(|entry| entry.number == number) else {
            tracing::debug!(task = &**id, "a task that is not this agent's any more has ended");
            return;
        };
        let result = outcome::result(result, entry.stop, figures, bytes_max);
        state.settle(id, number, result);
    }

    /// Gives a task back that never began; `false` when it has begun meanwhile.
    fn give_back(&self, id: &str, number: u64, reason: &str) -> bool {
        let mut state = self.lock();
        let Some(entry) = state.tasks.get(id).filter(|entry| entry.number == number) else {
            return true;
        };
        if !matches!(entry.stage, Stage::Waiting(_)) {
            return false;
        }
        let task = entry.task_ref(id);
        state.remove(id);
        state.release(task, reason);
        drop(state);
        self.changed.notify_one();
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Keeps a result until it is acknowledged and sends it.
    fn settle(&mut self, id: &TaskId, number: u64, result: v1::TaskResult) {
        let Some(entry) = self.tasks.get_mut(id).filter(|entry| entry.number == number) else {
            return;
        };
        if matches!(entry.stage, Stage::Done { .. }) {
            return;
        }
        entry.stage = Stage::Done { result: Box::new(result), sent: None, times: 0 };
        entry.worker = None;
        self.done += 1;
        if self.live {
            self.outbox.push(Item::Result(Arc::clone(id)));
        }
    }

    /// Takes a task out.
    fn remove(&mut self, id: &str) -> Option<Entry> {
        let entry = self.tasks.remove(id)?;
        self.done -= usize::from(entry.is_done());
        Some(entry)
    }

    /// Gives a task back unharmed. Sent on the next stream when there is none now: until the
    /// control plane knows, the task waits for this agent.
    fn release(&mut self, task: v1::TaskRef, reason: &str) {
        let release = v1::Release { task: Some(task), reason: reason.to_owned() };
        self.outbox.push(Item::Kept(Frame::Release(release)));
    }

    fn ask_to_drain(&mut self) {
        if self.live {
            // Also for a control plane that takes its time with the request.
            let none = v1::Credits { total: 0, per_action: HashMap::new() };
            self.outbox.push(Item::Frame(Frame::Credits(none)));
            let reason = "the agent is to stop".to_owned();
            let request = v1::DrainRequested { reason };
            self.outbox.push(Item::Frame(Frame::DrainRequested(request)));
        }
    }
}

impl Entry {
    /// Whether its result is known.
    fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done { .. })
    }

    fn task_ref(&self, id: &str) -> v1::TaskRef {
        v1::TaskRef { task_id: id.to_owned(), lease_token: self.lease_token.clone() }
    }
}

/// The result of a task that was stopped before it began.
fn never_began(stop: Stop) -> v1::TaskResult {
    let failure = Failure::cancelled("it had not begun").no_effect();
    outcome::result(Err(failure), Some(stop), Figures::default(), PAYLOAD_BYTES_MAX)
}

/// The work of one task, from `Accepted` to its result.
struct Worker {
    board: Arc<Board>,
    number: u64,
    context: Context,
    input: String,
    inherited: Option<String>,
    proceed: Option<oneshot::Receiver<()>>,
    /// When the agent stops the task by itself.
    stop_at: Option<Instant>,
}

impl Worker {
    async fn run(self) {
        let Self { board, number, context, input, inherited, proceed, stop_at } = self;
        let id = Arc::clone(context.id());
        if let Some(proceed) = proceed {
            let wait = board.clocks().accept_timeout;
            let told = tokio::time::timeout(wait, proceed).await;
            if told.is_err() && board.give_back(&id, number, "no Proceed came in time") {
                return;
            }
            if matches!(told, Ok(Err(_))) {
                return;
            }
        }
        let work = work::perform(&board.agent, context.clone(), input, inherited);
        tokio::pin!(work);
        let result = match stop_at {
            None => work.await,
            Some(at) => match tokio::time::timeout_at(at, &mut work).await {
                Ok(result) => result,
                Err(_) => {
                    board.stop(&id, Some(number), Stop::TimedOut, CANCEL_GRACE);
                    work.await
                }
            },
        };
        board.finish(&id, number, result, context.figures());
    }
}

/// Takes the news of one task's handler.
struct Voice {
    board: Arc<Board>,
    number: u64,
}

impl Reporter for Voice {
    fn tell(&self, task_id: &TaskId, news: News) {
        let mut state = self.board.lock();
        let state = &mut *state;
        let Some(entry) = state.tasks.get_mut(task_id).filter(|task| task.number == self.number)
        else {
            return;
        };
        if matches!(entry.stage, Stage::Done { .. }) {
            return;
        }
        let task = Some(entry.task_ref(task_id));
        let item = match news {
            News::Progress { fraction, message } => {
                let queued = entry.progress.replace((fraction, clipped(&message))).is_some();
                if queued {
                    return;
                }
                Item::Progress(Arc::clone(task_id))
            }
            News::Checkpoint(payload) if !fits(&payload, &state.clocks) => return,
            News::Checkpoint(payload) => {
                let queued = entry.checkpoint.replace(payload).is_some();
                if queued {
                    return;
                }
                Item::Checkpoint(Arc::clone(task_id))
            }
            News::Log { level, message } => {
                let level = level.name().to_owned();
                Item::News(Frame::Log(v1::Log { task, level, message: clipped(&message) }))
            }
            News::Chunk(chunk) if !fits(&chunk, &state.clocks) => return,
            News::Chunk(chunk) => {
                Item::News(Frame::OutputChunk(v1::OutputChunk { task, chunk: Some(chunk) }))
            }
            News::ExtendLease => Item::News(Frame::ExtendLease(v1::ExtendLease { task })),
            News::Emit { payload, .. } if !fits(&payload, &state.clocks) => return,
            News::Emit { name, payload, run_id } => {
                let payload = Some(payload);
                Item::Kept(Frame::Emit(v1::Emit { name, payload, run_id, task }))
            }
        };
        if state.live || matches!(item, Item::Kept(_)) {
            state.outbox.push(item);
        }
    }

    fn channel(&self) -> Option<Channel> {
        self.board.lock().channel.clone()
    }
}

/// Whether a payload may be sent; what may not is dropped with a warning, for it is news only.
fn fits(payload: &v1::Payload, clocks: &Clocks) -> bool {
    let bytes = payload::bytes(payload);
    let fits = bytes <= clocks.payload_bytes_max;
    if !fits {
        tracing::warn!(bytes, max = clocks.payload_bytes_max, "a payload is too large to be sent");
    }
    fits
}
