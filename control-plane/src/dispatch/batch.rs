//! Many things for dispatch at once: what a commit of many runs leads to is done under one lock,
//! and each agent's stream is woken once for it.

use engine::RunId;
use engine::task::{TaskKey, TaskOrder};

use super::Dispatcher;
use super::matcher::Matcher;
use super::report::{Answer, ReportAck, Subject};

/// How many things are done before the lock is let go.
const DONE_AT_ONCE: usize = 64;

/// Things to be done, in order. What is in it when it is dropped is not done.
#[derive(Debug, Default)]
pub struct Batch(Vec<Act>);

#[derive(Debug)]
enum Act {
    Submit(Box<TaskOrder>),
    Answer(Subject, ReportAck),
    WithdrawRun(RunId),
}

impl Batch {
    /// As [`Dispatcher::submit`].
    pub fn submit(&mut self, order: Box<TaskOrder>) {
        self.0.push(Act::Submit(order));
    }

    /// As [`Answer::send`].
    pub fn answer(&mut self, answer: Answer, ack: ReportAck) {
        if let Some(subject) = answer.into_subject() {
            self.0.push(Act::Answer(subject, ack));
        }
    }

    /// As [`Dispatcher::withdraw_run`].
    pub fn withdraw_run(&mut self, run: RunId) {
        self.0.push(Act::WithdrawRun(run));
    }
}

impl Act {
    /// The task that it is about, if there is one.
    fn task(&self) -> Option<TaskKey> {
        match self {
            Self::Answer(subject, _) => Some(subject.key()),
            Self::Submit(_) | Self::WithdrawRun(_) => None,
        }
    }

    fn carry_out(self, matcher: &mut Matcher) {
        match self {
            Self::Submit(order) => matcher.submit(*order),
            Self::Answer(subject, ack) => matcher.answered(subject, Some(ack)),
            Self::WithdrawRun(run) => matcher.withdraw_run(run),
        }
    }
}

impl Dispatcher {
    /// Does what is in the batch, and leaves it empty.
    pub fn carry_out_all(&self, batch: &mut Batch) {
        let mut acts = batch.0.drain(..);
        while !acts.as_slice().is_empty() {
            self.with(|matcher| {
                let next = acts.as_slice().iter().take(DONE_AT_ONCE);
                matcher.fetch(next.filter_map(Act::task));
                acts.by_ref().take(DONE_AT_ONCE).for_each(|act| act.carry_out(matcher));
            });
        }
    }
}
