//! What the control plane says about tasks.

use std::sync::Arc;
use std::time::Duration;

use contracts::v1;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tonic::transport::Channel;

use super::{Board, Clocks, Entry, Stage, State, Voice, Worker, never_began};
use crate::context::{Cancel, Context, Facts, Figures};
use crate::limits::{CANCEL_GRACE, STATUS_INTERVAL, TASKS_MAX, TIMEOUT_MARGIN};
use crate::outbox::{Item, TaskId};
use crate::outcome::{self, Stop};
use crate::payload::{from_duration, text};

impl Board {
    /// Begins a session; gives its number and the frame to begin it with.
    pub(crate) fn begin_session(&self, instance: &str, token: &str) -> (u64, v1::Register) {
        let mut state = self.lock();
        state.end_session();
        let mut register = self.agent.register(instance);
        register.session_token = token.to_owned();
        register.tasks_in_flight =
            state.tasks.iter().map(|(id, entry)| entry.task_ref(id)).collect();
        (state.session, register)
    }

    /// Ends the present session; tasks go on.
    pub(crate) fn end_session(&self) {
        self.lock().end_session();
    }

    /// Takes over what the control plane says on registering: its clocks, and which tasks stay
    /// with this agent. Everything that it may have missed is said again.
    pub(crate) fn registered(
        self: &Arc<Self>,
        registered: &v1::Registered,
        named: &[v1::TaskRef],
        channel: Channel,
    ) {
        let lost: Vec<String> = {
            let mut state = self.lock();
            state.clocks = clocks(registered);
            state.channel = Some(channel);
            state.live = true;
            for entry in state.tasks.values_mut() {
                entry.stale_answers = 0;
            }
            for kept in &registered.tasks_kept {
                if let Some(entry) = state.tasks.get_mut(kept.task_id.as_str()) {
                    entry.lease_token.clone_from(&kept.lease_token);
                }
            }
            let kept = |id: &str| registered.tasks_kept.iter().any(|kept| kept.task_id == id);
            named.iter().map(|task| task.task_id.clone()).filter(|id| !kept(id)).collect()
        };
        for id in lost {
            let reason = "the control plane does not know it as this agent's".to_owned();
            self.drop_task(&id, &reason);
        }
        let mut state = self.lock();
        state.repeat();
        if state.draining {
            state.ask_to_drain();
        }
    }

    /// Takes a task on, gives it back when there is no room for it, or holds it as long as there
    /// is no room to say so: what is said about other tasks is heard meanwhile.
    pub(crate) fn assign(self: &Arc<Self>, task: v1::Task) {
        let mut state = self.lock();
        if state.outbox.is_full() {
            let id = task.r#ref.as_ref().map(|task| task.task_id.as_str());
            // The same task again, under another lease, stands for both.
            drop(id.and_then(|id| state.take_held(id)));
            state.held.push_back(task);
        } else {
            self.take_on(&mut state, task);
        }
    }

    /// Takes on what was held, as far as there is room.
    pub(super) fn take_on_held(self: &Arc<Self>, state: &mut State) {
        while !state.outbox.is_full()
            && let Some(task) = state.held.pop_front()
        {
            self.take_on(state, task);
        }
    }

    fn take_on(self: &Arc<Self>, state: &mut State, mut task: v1::Task) {
        let now = Instant::now();
        let Some(task_ref) = task.r#ref.take() else {
            tracing::warn!("a task without an id was assigned; it is left aside");
            return;
        };
        let id = TaskId::from(task_ref.task_id.as_str());
        let Again::New { stale_answers } = state.again(&task_ref, task.attempt) else { return };
        if let Some(reason) = self.no_room(state) {
            state.release(task_ref, reason);
            return;
        }
        let (allow, proceed) = match task.await_proceed {
            true => {
                let (allow, proceed) = oneshot::channel();
                (Some(allow), Some(proceed))
            }
            false => (None, None),
        };
        let stage = match proceed {
            Some(_) => Stage::Waiting(allow),
            None => Stage::Running,
        };
        let cancel = Cancel::default();
        let number = state.insert(&id, task_ref.lease_token, task.attempt, stage, cancel.clone());
        if let Some(entry) = state.tasks.get_mut(&id) {
            entry.stale_answers = stale_answers;
        }
        state.outbox.push(Item::Accepted(Arc::clone(&id)));
        let input = text(task.input.take(), "the input");
        let inherited = text(task.inherited.take(), "what is inherited");
        let stop_at = from_duration(task.timeout)
            .and_then(|timeout| now.checked_add(timeout.checked_add(TIMEOUT_MARGIN)?));
        let parts = Facts::of(Arc::clone(&id), &mut task, now)
            .and_then(|facts| Ok((facts, input?.unwrap_or_else(|| "{}".to_owned()), inherited?)));
        match parts {
            Ok((facts, input, inherited)) => {
                let voice = Arc::new(Voice { board: Arc::clone(self), number });
                let context = Context::new(facts, cancel, voice);
                let board = Arc::clone(self);
                let worker = Worker { board, number, context, input, inherited, proceed, stop_at };
                let handle = tokio::spawn(worker.run());
                if let Some(entry) = state.tasks.get_mut(&id) {
                    entry.worker = Some(handle.abort_handle());
                }
            }
            Err(failure) => {
                let bytes_max = state.clocks.payload_bytes_max;
                let result = outcome::result(Err(failure), None, Figures::default(), bytes_max);
                state.settle(&id, number, result);
            }
        }
    }

    /// Lets a task begin that waited for it.
    pub(crate) fn proceed(&self, id: &str) {
        let mut state = self.lock();
        let Some(entry) = state.tasks.get_mut(id) else { return };
        if let Stage::Waiting(allow) = &mut entry.stage {
            let allow = allow.take();
            entry.stage = Stage::Running;
            if let Some(allow) = allow {
                // The worker is gone only when the whole process stops.
                let _ = allow.send(());
            }
        }
    }

    /// Asks a task to stop.
    pub(crate) fn cancel(self: &Arc<Self>, cancel: &v1::Cancel) {
        let Some(task) = &cancel.task else { return };
        let grace = from_duration(cancel.grace).unwrap_or(CANCEL_GRACE);
        {
            let mut state = self.lock();
            if let Some(held) = state.take_held(&task.task_id) {
                state.settle_held(held);
                return;
            }
        }
        self.stop(&TaskId::from(task.task_id.as_str()), None, Stop::Cancelled, grace);
    }

    /// Forgets the results that are durable.
    pub(crate) fn acknowledge(&self, acks: &[v1::ResultAck]) {
        let mut state = self.lock();
        for ack in acks {
            let done = |entry: &Entry| matches!(entry.stage, Stage::Done { .. });
            if !state.is_stale(&ack.task_id, &ack.lease_token)
                && state.tasks.get(ack.task_id.as_str()).is_some_and(done)
            {
                state.remove(&ack.task_id);
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Drops a task that is not this agent's any more, without a report.
    pub(crate) fn lease_lost(&self, lost: &v1::LeaseLost) {
        if self.lock().take_held(&lost.task_id).is_some() {
            return;
        }
        if !self.lock().is_stale(&lost.task_id, &lost.lease_token) {
            self.drop_task(&lost.task_id, &lost.reason);
        }
    }

    fn drop_task(&self, id: &str, reason: &str) {
        let Some(entry) = self.lock().remove(id) else { return };
        tracing::warn!(task = id, reason, "the task is not this agent's any more");
        entry.drop_work();
        self.changed.notify_one();
    }

    fn no_room(&self, state: &State) -> Option<&'static str> {
        if state.draining {
            return Some("the agent is stopping");
        }
        let slots = usize::try_from(self.agent.slots).unwrap_or(usize::MAX).min(TASKS_MAX);
        // Counted all along: at an agent with thousands of tasks a look at each would be dear.
        let busy = state.tasks.len() - state.done;
        (busy >= slots || state.tasks.len() >= TASKS_MAX).then_some("no slot is free")
    }
}

impl State {
    /// Puts a task among those that the agent has; gives its number.
    fn insert(
        &mut self,
        id: &TaskId,
        lease_token: String,
        attempt: i32,
        stage: Stage,
        cancel: Cancel,
    ) -> u64 {
        self.numbers += 1;
        let entry = Entry {
            lease_token,
            attempt,
            number: self.numbers,
            stage,
            cancel,
            stop: None,
            stale_answers: 0,
            worker: None,
            progress: None,
            checkpoint: None,
        };
        self.remove(id);
        self.tasks.insert(Arc::clone(id), entry);
        self.numbers
    }

    /// Takes out a task that is held under this id.
    fn take_held(&mut self, id: &str) -> Option<v1::Task> {
        let named = |task: &v1::Task| task.r#ref.as_ref().is_some_and(|it| it.task_id == id);
        let at = self.held.iter().position(named)?;
        self.held.remove(at)
    }

    /// A task that was held is cancelled: it never begins.
    fn settle_held(&mut self, task: v1::Task) {
        let Some(task_ref) = task.r#ref else { return };
        let Again::New { .. } = self.again(&task_ref, task.attempt) else { return };
        let stage = Stage::Waiting(None);
        let id = TaskId::from(task_ref.task_id);
        let number = self.insert(&id, task_ref.lease_token, task.attempt, stage, Cancel::default());
        self.settle(&id, number, never_began(Stop::Cancelled));
    }

    fn end_session(&mut self) {
        // The control plane gives them out anew when they are not named.
        self.held.clear();
        self.session += 1;
        self.live = false;
        self.closing = false;
        self.channel = None;
        self.outbox.cut();
    }

    /// Says again what the control plane may have missed while there was no stream.
    fn repeat(&mut self) {
        for (id, entry) in &mut self.tasks {
            if let Stage::Done { sent, .. } = &mut entry.stage {
                *sent = None;
                self.outbox.push(Item::Result(id.clone()));
                continue;
            }
            self.outbox.push(Item::Accepted(id.clone()));
            if entry.progress.is_some() {
                self.outbox.push(Item::Progress(id.clone()));
            }
            if entry.checkpoint.is_some() {
                self.outbox.push(Item::Checkpoint(id.clone()));
            }
        }
        self.outbox.wake();
    }

    /// Whether the task is here already: then it is said again how it stands. Another attempt,
    /// or the same one after it was told to stop, takes the place of the one that is here.
    fn again(&mut self, task: &v1::TaskRef, attempt: i32) -> Again {
        let Some(entry) = self.tasks.get_mut(task.task_id.as_str()) else {
            return Again::New { stale_answers: 0 };
        };
        if entry.attempt != attempt || entry.stop.is_some() {
            let Some(entry) = self.remove(&task.task_id) else {
                return Again::New { stale_answers: 0 };
            };
            let sent = matches!(entry.stage, Stage::Done { sent: Some(_), .. });
            let stale_answers = entry.stale_answers + u32::from(sent);
            // The slot of what was here is free again.
            self.release(entry.task_ref(&task.task_id), "another attempt takes its place");
            entry.drop_work();
            return Again::New { stale_answers };
        }
        entry.lease_token.clone_from(&task.lease_token);
        let id = TaskId::from(task.task_id.as_str());
        let item = match &mut entry.stage {
            Stage::Done { sent, .. } => {
                *sent = None;
                Item::Result(id)
            }
            _ => Item::Accepted(id),
        };
        self.outbox.push(item);
        Again::Known
    }

    /// Whether an answer about a task is about an earlier attempt of it, or about a lease that
    /// was renewed since. A control plane of an earlier version names no lease: then each result
    /// of an earlier attempt that was sent has one answer.
    fn is_stale(&mut self, id: &str, lease_token: &str) -> bool {
        let Some(entry) = self.tasks.get_mut(id) else { return false };
        if !lease_token.is_empty() {
            return lease_token != entry.lease_token;
        }
        let stale = entry.stale_answers > 0;
        entry.stale_answers = entry.stale_answers.saturating_sub(1);
        stale
    }
}

/// What an assignment is to an agent.
enum Again {
    /// It has the task.
    Known,
    /// It has not, or had an earlier attempt about which so many answers are still to come.
    New { stale_answers: u32 },
}

impl Entry {
    /// Lets the handler know that nobody wants its result, and aborts it when it does not stop.
    fn drop_work(self) {
        self.cancel.cancel();
        if let Some(worker) = self.worker {
            tokio::spawn(async move {
                tokio::time::sleep(CANCEL_GRACE).await;
                worker.abort();
            });
        }
    }
}

/// The clocks of a session; what the control plane leaves out is as usual.
fn clocks(registered: &v1::Registered) -> Clocks {
    let usual = Clocks::default();
    let given = |clock: Option<prost_types::Duration>, usual: Duration| {
        from_duration(clock).filter(|clock| !clock.is_zero()).unwrap_or(usual)
    };
    let status_interval = match from_duration(registered.lease).filter(|lease| !lease.is_zero()) {
        // Several chances within a lease, should one be late.
        Some(lease) => STATUS_INTERVAL.min(lease / 5),
        None => usual.status_interval,
    };
    Clocks {
        ping_interval: given(registered.ping_interval, usual.ping_interval),
        ping_timeout: given(registered.ping_timeout, usual.ping_timeout),
        status_interval,
        accept_timeout: given(registered.accept_timeout, usual.accept_timeout),
        payload_bytes_max: usize::try_from(registered.payload_bytes_max)
            .ok()
            .filter(|bytes| *bytes > 0)
            .unwrap_or(usual.payload_bytes_max),
    }
}
