//! The stream of frames to one agent: takes what its session's outbox has, no more at once than
//! the transport sends.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use contracts::v1::{ConnectRequest, ConnectResponse};
use futures::Stream;
use tokio_util::sync::CancellationToken;

use super::matcher::Taken;
use super::session::SessionId;
use super::{Dispatcher, convert};

/// The frames to one agent. Ends when the session does; its session ends when it is dropped.
pub struct SessionStream {
    dispatcher: Dispatcher,
    session: SessionId,
    ready: VecDeque<ConnectResponse>,
    ended: CancellationToken,
}

/// The other half: what the agent sends.
#[derive(Clone)]
pub(crate) struct SessionInbox {
    dispatcher: Dispatcher,
    session: SessionId,
    ended: CancellationToken,
}

impl SessionStream {
    pub(super) fn new(dispatcher: Dispatcher, session: SessionId) -> Self {
        let ended = CancellationToken::new();
        Self { dispatcher, session, ready: VecDeque::new(), ended }
    }

    pub(crate) fn inbox(&self) -> SessionInbox {
        SessionInbox {
            dispatcher: self.dispatcher.clone(),
            session: self.session,
            ended: self.ended.clone(),
        }
    }
}

impl SessionInbox {
    /// Takes the agent's frames until its stream, or the session, ends.
    pub(crate) async fn run<S>(self, mut frames: S)
    where
        S: Stream<Item = Result<ConnectRequest, tonic::Status>> + Unpin,
    {
        loop {
            let next = tokio::select! {
                biased;
                () = self.ended.cancelled() => break,
                next = futures::StreamExt::next(&mut frames) => next,
            };
            match next {
                Some(Ok(request)) => {
                    if !self.hear(request) {
                        break;
                    }
                }
                Some(Err(status)) => {
                    tracing::debug!(code = ?status.code(), "an agent's stream broke");
                    break;
                }
                None => break,
            }
        }
        self.dispatcher.with(|matcher| matcher.gone(self.session));
    }

    fn hear(&self, request: ConnectRequest) -> bool {
        // Frames that are not known are ignored.
        let Some(frame) = request.frame else { return true };
        let passed = self.dispatcher.pass_on(self.session, frame);
        // All of it may have been for other replicas.
        let Some(frame) = passed else { return true };
        let frames = convert::incoming(frame);
        self.dispatcher.with(|matcher| matcher.hear(self.session, frames))
    }
}

impl Stream for SessionStream {
    type Item = Result<ConnectResponse, tonic::Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while let Some(frame) = self.ready.pop_front() {
            // It may have waited here for the transport.
            if !convert::acts(&frame) || self.dispatcher.may_act() {
                return Poll::Ready(Some(Ok(frame)));
            }
        }
        let session = self.session;
        let may_act = self.dispatcher.may_act();
        let taken = self.dispatcher.with_locked(|locked| {
            let taken = locked.matcher.take(session, may_act);
            if matches!(&taken, Taken::Frames(frames) if frames.is_empty()) {
                Dispatcher::wake_for(locked, session, cx.waker());
            }
            taken
        });
        match taken {
            Taken::Closed => Poll::Ready(None),
            Taken::Frames(frames) => {
                self.ready = convert::responses(frames, self.dispatcher.clocks()).into();
                match self.ready.pop_front() {
                    Some(frame) => Poll::Ready(Some(Ok(frame))),
                    None => Poll::Pending,
                }
            }
        }
    }
}

impl Drop for SessionStream {
    fn drop(&mut self) {
        self.ended.cancel();
        self.dispatcher.with(|matcher| matcher.gone(self.session));
        self.dispatcher.forget_wakers(self.session);
    }
}
