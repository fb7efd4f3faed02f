//! Agents without a stream: they poll for tasks and report about them, with the same matcher
//! behind.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use contracts::v1::connect_request::Frame;
use contracts::v1::{ConnectRequest, ConnectResponse, Register, Task, TaskRef};
use engine::task::TaskKey;

use super::matcher::{PollStart, Taken};
use super::session::{Incoming, Outgoing, SessionId};
use super::{Dispatcher, RegisterFault, card, convert, new_token};
use crate::limits;

/// Why a report was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReportFault {
    /// The session of this token has ended, or never was.
    NoSession,
}

/// Ends a poll when its caller is gone.
struct Waiting<'a> {
    dispatcher: &'a Dispatcher,
    session: SessionId,
    serial: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.dispatcher.with(|matcher| matcher.poll_end(self.session, self.serial));
    }
}

impl Dispatcher {
    /// Takes tasks for an agent, waiting up to `wait` for the first one.
    pub(crate) async fn poll(
        &self,
        register: Register,
        max: u32,
        wait: Duration,
        request_id: &str,
    ) -> Result<(Vec<Task>, Arc<str>), RegisterFault> {
        let registration = card::check(register).map_err(RegisterFault::Invalid)?;
        let token = new_token();
        let request_id = if request_id.is_empty() { token.clone() } else { request_id.into() };
        let (session, token) = self.with(|matcher| matcher.poll_session(registration, token))?;
        let tasks = match self.with(|matcher| matcher.poll(session, &request_id, max)) {
            PollStart::Ready(tasks) => tasks,
            PollStart::Gone => Vec::new(),
            PollStart::Waits(serial) => {
                let _waiting = Waiting { dispatcher: self, session, serial };
                let ready = poll_fn(|cx| {
                    self.with_locked(|locked| match locked.matcher.poll_ready(session, serial) {
                        Some(tasks) => Poll::Ready(tasks),
                        None => {
                            Self::wake_for(locked, session, cx.waker());
                            Poll::Pending
                        }
                    })
                });
                tokio::time::timeout(wait, ready).await.unwrap_or_default()
            }
        };
        let clocks = self.clocks();
        let tasks = if self.may_act() { tasks } else { Vec::new() };
        Ok((tasks.iter().map(|task| convert::task(task, clocks)).collect(), token))
    }

    /// Takes frames of an agent without a stream, and waits until the results among them are
    /// durable; gives what is to be told to the agent.
    pub(crate) async fn report_frames(
        &self,
        token: &str,
        frames: Vec<ConnectRequest>,
    ) -> Result<Vec<ConnectResponse>, ReportFault> {
        let session = self.with(|matcher| matcher.session_of_token(token));
        let session = session.ok_or(ReportFault::NoSession)?;
        let frames: Vec<Frame> = frames.into_iter().filter_map(|request| request.frame).collect();
        let mut open = about(&frames);
        let pass = |frame| self.pass_on(session, frame);
        let frames: Vec<Incoming> =
            frames.into_iter().filter_map(pass).flat_map(convert::incoming).collect();
        if !self.with(|matcher| matcher.hear(session, frames)) {
            return Err(ReportFault::NoSession);
        }
        let mut told: Vec<Outgoing> = Vec::new();
        let mut closed = false;
        let settled = poll_fn(|cx| {
            let may_act = self.may_act();
            self.with_locked(|locked| {
                match locked.matcher.take(session, may_act) {
                    Taken::Frames(frames) => told.extend(frames),
                    Taken::Closed => closed = true,
                }
                open.retain(|(key, is_result)| {
                    let told = told.iter().any(|frame| frame.settles(*key));
                    !told && (*is_result || locked.matcher.awaits_started(*key))
                });
                if open.is_empty() || closed {
                    return Poll::Ready(());
                }
                Self::wake_for(locked, session, cx.waker());
                Poll::Pending
            })
        });
        // What is not durable in time is not acknowledged; the agent reports it again.
        let _ = tokio::time::timeout(limits::REPORT_WAIT_MAX, settled).await;
        Ok(convert::responses(told, self.clocks()))
    }
}

/// The tasks whose results, or whose acceptance, the agent wants to have settled.
fn about(frames: &[Frame]) -> Vec<(TaskKey, bool)> {
    let key = |task: &Option<TaskRef>| task.as_ref()?.task_id.parse::<TaskKey>().ok();
    let mut open = Vec::new();
    for frame in frames {
        match frame {
            Frame::Results(it) => {
                let keys = it.results.iter().filter_map(|result| key(&result.task));
                open.extend(keys.map(|key| (key, true)));
            }
            Frame::Accepted(it) => open.extend(key(&it.task).map(|key| (key, false))),
            _ => {}
        }
    }
    open
}
