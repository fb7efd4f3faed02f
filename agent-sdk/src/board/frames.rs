//! The frames of one session, as a stream that the transport takes from directly: what is put
//! in the outbox goes out with no task between.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use contracts::v1::{self, connect_request::Frame};
use futures::Stream;
use prost::Message as _;
use tokio::time::Instant;

use super::{Board, Entry, Stage, State};
use crate::limits::{RESULT_BYTES_PER_FRAME_MAX, RESULTS_PER_FRAME_MAX};
use crate::outbox::{Item, TaskId};

/// What an agent sends in one session, `Register` first; the rest once it is registered.
pub(crate) struct Frames {
    board: Arc<Board>,
    session: u64,
    register: Option<v1::Register>,
}

impl Frames {
    pub(crate) fn new(board: Arc<Board>, session: u64, register: v1::Register) -> Self {
        Self { board, session, register: Some(register) }
    }
}

impl Stream for Frames {
    type Item = v1::ConnectRequest;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<v1::ConnectRequest>> {
        if let Some(register) = self.register.take() {
            return Poll::Ready(Some(request(Frame::Register(register))));
        }
        let mut state = self.board.lock();
        if state.session != self.session {
            return Poll::Ready(None);
        }
        if state.live {
            let frame = state.next_frame();
            self.board.take_on_held(&mut state);
            if let Some(frame) = frame.or_else(|| state.next_frame()) {
                return Poll::Ready(Some(request(frame)));
            }
        }
        if state.closing && state.outbox.is_empty() {
            return Poll::Ready(None);
        }
        state.outbox.wait(context.waker());
        Poll::Pending
    }
}

impl State {
    fn next_frame(&mut self) -> Option<Frame> {
        loop {
            let frame = match self.outbox.pop()? {
                Item::Frame(frame) | Item::News(frame) => Some(frame),
                Item::Kept(frame) => Some(self.with_present_lease(frame)),
                Item::Progress(id) => self.progress(&id),
                Item::Checkpoint(id) => self.checkpoint(&id),
                Item::Result(id) => self.results(id),
                Item::Accepted(id) => self.accepted(id),
            };
            if frame.is_some() {
                return frame;
            }
        }
    }

    /// An event may have waited for this stream, and its task's lease may be another since.
    fn with_present_lease(&self, mut frame: Frame) -> Frame {
        if let Frame::Emit(v1::Emit { task: Some(task), .. }) = &mut frame
            && let Some(entry) = self.tasks.get(task.task_id.as_str())
        {
            task.lease_token.clone_from(&entry.lease_token);
        }
        frame
    }

    fn progress(&mut self, id: &str) -> Option<Frame> {
        let entry = self.tasks.get_mut(id)?;
        let (fraction, message) = entry.progress.take()?;
        let task = Some(entry.task_ref(id));
        Some(Frame::Progress(v1::Progress { task, fraction, message }))
    }

    fn checkpoint(&mut self, id: &str) -> Option<Frame> {
        let entry = self.tasks.get_mut(id)?;
        let state = entry.checkpoint.take();
        let task = Some(entry.task_ref(id));
        Some(Frame::Checkpoint(v1::TaskCheckpoint { task, state }))
    }

    /// That this task was taken on, and those right behind it: one by `Accepted`, several by one
    /// `Status`, which says the same. Of a task that is done its result says so.
    fn accepted(&mut self, first: TaskId) -> Option<Frame> {
        let mut tasks = Vec::new();
        let mut next = Some(first);
        while let Some(id) = next {
            if let Some(entry) = self.tasks.get(&id)
                && !entry.is_done()
            {
                tasks.push(entry.task_ref(&id));
            }
            if tasks.len() >= RESULTS_PER_FRAME_MAX {
                break;
            }
            next = self.outbox.pop_accepted(|_| true);
        }
        if tasks.len() > 1 {
            return Some(Frame::Status(v1::Status { tasks }));
        }
        tasks.pop().map(|task| Frame::Accepted(v1::Accepted { task: Some(task) }))
    }

    /// This result, and those that wait right behind it.
    fn results(&mut self, first: TaskId) -> Option<Frame> {
        let now = Instant::now();
        let mut results = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(id) = next {
            if let Some(result) = self.result(&id, now) {
                bytes += result.encoded_len();
                if bytes > RESULT_BYTES_PER_FRAME_MAX && !results.is_empty() {
                    self.outbox.push_front_result(id);
                    break;
                }
                results.push(result);
            }
            if results.len() >= RESULTS_PER_FRAME_MAX {
                break;
            }
            // What is done and waits behind needs no word that it was taken on.
            let tasks = &self.tasks;
            let is_done = |id: &str| tasks.get(id).is_none_or(Entry::is_done);
            while self.outbox.pop_accepted(is_done).is_some() {}
            next = self.outbox.pop_result();
        }
        (!results.is_empty()).then_some(Frame::Results(v1::Results { results }))
    }

    fn result(&mut self, id: &str, now: Instant) -> Option<v1::TaskResult> {
        let entry = self.tasks.get_mut(id)?;
        let task = entry.task_ref(id);
        let Stage::Done { result, sent, times } = &mut entry.stage else { return None };
        *sent = Some(now);
        *times = times.saturating_add(1);
        Some(v1::TaskResult { task: Some(task), ..v1::TaskResult::clone(result) })
    }
}

fn request(frame: Frame) -> v1::ConnectRequest {
    v1::ConnectRequest { frame: Some(frame) }
}
