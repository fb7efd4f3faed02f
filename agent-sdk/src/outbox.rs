//! What waits to be sent on the stream. Frames keep their order; results that stand one behind
//! another go in one frame; of a task's progress only the latest is kept. Nothing here waits,
//! and nothing grows without bound.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use contracts::v1::connect_request::Frame;

use crate::limits::{EMITS_QUEUED_MAX, FRAMES_QUEUED_MAX, NEWS_QUEUED_MAX};

/// The id of a task: in many places at once, and made once.
pub(crate) type TaskId = Arc<str>;

/// One thing to send. Things that belong to a task are looked up when they are sent.
#[derive(Debug)]
pub(crate) enum Item {
    /// A frame that means nothing on another stream.
    Frame(Frame),
    /// A log line or a chunk: dropped when there are too many.
    News(Frame),
    /// A frame that is sent on the next stream when this one breaks.
    Kept(Frame),
    /// The latest progress of this task.
    Progress(TaskId),
    /// The latest checkpoint of this task.
    Checkpoint(TaskId),
    /// The result of this task.
    Result(TaskId),
    /// That this task was taken on.
    Accepted(TaskId),
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    items: VecDeque<Item>,
    news: usize,
    kept: usize,
    dropped: u64,
    waker: Option<Waker>,
}

impl Outbox {
    /// Puts something at the end and wakes the stream.
    pub(crate) fn push(&mut self, item: Item) {
        match &item {
            Item::News(_) if self.news >= NEWS_QUEUED_MAX => {
                self.drop_one();
                return;
            }
            Item::Kept(_) if self.kept >= EMITS_QUEUED_MAX => {
                self.drop_one();
                return;
            }
            Item::News(_) => self.news += 1,
            Item::Kept(_) => self.kept += 1,
            _ => {}
        }
        self.items.push_back(item);
        self.wake();
    }

    /// Takes the first thing.
    pub(crate) fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        match item {
            Item::News(_) => self.news -= 1,
            Item::Kept(_) => self.kept -= 1,
            _ => {}
        }
        Some(item)
    }

    /// Takes the first thing if it is a result; gives its task.
    pub(crate) fn pop_result(&mut self) -> Option<TaskId> {
        match self.items.front()? {
            Item::Result(_) => match self.items.pop_front()? {
                Item::Result(task_id) => Some(task_id),
                _ => None,
            },
            _ => None,
        }
    }

    /// Takes the first thing if it is that a task was taken on, and `is_wanted`; gives the task.
    pub(crate) fn pop_accepted(&mut self, is_wanted: impl Fn(&str) -> bool) -> Option<TaskId> {
        match self.items.front()? {
            Item::Accepted(task_id) if is_wanted(task_id) => match self.items.pop_front()? {
                Item::Accepted(task_id) => Some(task_id),
                _ => None,
            },
            _ => None,
        }
    }

    /// Puts a result back in front, for the next frame.
    pub(crate) fn push_front_result(&mut self, task_id: TaskId) {
        self.items.push_front(Item::Result(task_id));
    }

    /// Whether so much waits that no further task should be taken on.
    pub(crate) fn is_full(&self) -> bool {
        self.items.len() >= FRAMES_QUEUED_MAX
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Forgets what means nothing on another stream.
    pub(crate) fn cut(&mut self) {
        self.items.retain(|item| matches!(item, Item::Kept(_)));
        self.news = 0;
        self.wake();
    }

    /// Whom to wake when there is something.
    pub(crate) fn wait(&mut self, waker: &Waker) {
        match &mut self.waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }

    pub(crate) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn drop_one(&mut self) {
        self.dropped += 1;
        if self.dropped.is_power_of_two() {
            tracing::warn!(
                dropped = self.dropped,
                "the control plane reads too slowly: log lines, chunks or events were dropped"
            );
        }
    }
}
