//! One stream to the control plane, from `Register` until it breaks or is left. What it hears
//! about tasks goes to the board; here are the clocks of the stream itself.

use std::sync::Arc;
use std::time::Duration;

use contracts::v1::agent_service_client::AgentServiceClient;
use contracts::v1::{self, connect_request, connect_response};
use futures::future::{BoxFuture, Fuse, FusedFuture as _, FutureExt as _};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::board::{Board, Clocks, Frames};
use crate::capacity::Changes;
use crate::limits::{FAREWELL_TIMEOUT, MESSAGE_BYTES_MAX, PING_IDLE_INTERVAL};

/// A registered session.
pub(crate) struct Session {
    board: Arc<Board>,
    inbound: Streaming<v1::ConnectResponse>,
    clocks: Clocks,
    heard: Instant,
    pinged: Option<Instant>,
    opened: Instant,
    next_status: Instant,
    nonce: u64,
    silent_before: bool,
    /// The way to where the agent goes next, once it was asked to go; this session lasts until
    /// that is there.
    leaving: Fuse<Dialling>,
}

/// A connection in the making: which address it is to, and how it is reached.
pub(crate) type Dialling = BoxFuture<'static, (usize, Channel)>;

/// Why a session ended.
#[derive(Debug)]
pub(crate) enum End {
    /// Everything is done and reported.
    Drained,
    /// The control plane asked to connect anew, and this is the way.
    Rebalance((usize, Channel)),
    /// The stream broke, or is taken for broken.
    Lost(String),
}

/// Opens a session over a channel; gives its token as well.
pub(crate) async fn open(
    board: &Arc<Board>,
    channel: Channel,
    instance: &str,
    token: &str,
) -> Result<(Session, String), Status> {
    let (number, register) = board.begin_session(instance, token);
    let named = register.tasks_in_flight.clone();
    let frames = Frames::new(Arc::clone(board), number, register);
    let mut client = AgentServiceClient::new(channel.clone())
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let mut inbound = client.connect(frames).await?.into_inner();
    let first = inbound.message().await?.and_then(|response| response.frame);
    let Some(connect_response::Frame::Registered(registered)) = first else {
        return Err(match first {
            Some(connect_response::Frame::Fault(v1::Fault { status: Some(status) })) => {
                Status::new(tonic::Code::from(status.code), status.message)
            }
            _ => Status::unavailable("the first frame was not `Registered`"),
        });
    };
    board.registered(&registered, &named, channel);
    tracing::info!(
        agent = board.agent().agent_type(),
        instance,
        server_version = registered.server_version,
        "registered"
    );
    let now = Instant::now();
    let session = Session {
        board: Arc::clone(board),
        inbound,
        clocks: board.clocks(),
        heard: now,
        pinged: None,
        opened: now,
        next_status: now,
        nonce: 0,
        silent_before: false,
        leaving: Fuse::terminated(),
    };
    Ok((session, registered.session_token))
}

impl Session {
    /// Serves the session until it ends. `drain` says when to take nothing new; it is cancelled
    /// from here when the control plane asks for it. `dial` finds the way elsewhere.
    pub(crate) async fn run(
        mut self,
        drain: &CancellationToken,
        mut changes: Changes,
        dial: impl Fn() -> Dialling,
    ) -> End {
        let board = Arc::clone(&self.board);
        let mut tick = tokio::time::interval(self.tick());
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut draining = false;
        let end = loop {
            if draining && board.tasks() == 0 {
                self.say_farewell().await;
                break End::Drained;
            }
            tokio::select! {
                message = self.inbound.message(), if !board.is_full() => match message {
                    Ok(Some(response)) => {
                        self.heard = Instant::now();
                        if let Some(frame) = response.frame {
                            self.hear(frame, drain, &dial);
                        }
                    }
                    Ok(None) => {
                        break End::Lost("the control plane closed the stream".to_owned());
                    }
                    Err(status) => break End::Lost(describe(&status)),
                },
                // Only now is this session left: there is no gap to speak of.
                way = &mut self.leaving => break End::Rebalance(way),
                total = changes.next(), if !draining => board.credit(total),
                now = tick.tick() => if let Some(end) = self.tick_at(now) { break end },
                () = board.changed.notified(), if draining => {}
                () = drain.cancelled(), if !draining => {
                    draining = true;
                    board.drain();
                }
            }
        };
        board.end_session();
        end
    }

    /// Takes a frame.
    fn hear(
        &mut self,
        frame: connect_response::Frame,
        drain: &CancellationToken,
        dial: &impl Fn() -> Dialling,
    ) {
        use connect_response::Frame;
        match frame {
            Frame::Assign(assign) => {
                for task in assign.tasks {
                    self.board.assign(task);
                }
            }
            Frame::Proceed(proceed) => {
                if let Some(task) = proceed.task {
                    self.board.proceed(&task.task_id);
                }
            }
            Frame::Cancel(cancel) => self.board.cancel(&cancel),
            Frame::ResultsAck(acks) => self.board.acknowledge(&acks.acks),
            Frame::LeaseLost(lost) => self.board.lease_lost(&lost),
            Frame::Rebalance(_) => {
                if self.leaving.is_terminated() {
                    self.leaving = dial().fuse();
                }
            }
            Frame::Drain(order) => {
                tracing::info!(order.reason, "the control plane asks the agent to drain");
                drain.cancel();
            }
            Frame::Ping(ping) => {
                let nonce = ping.nonce;
                self.board.send(connect_request::Frame::Pong(v1::Pong { nonce }));
            }
            Frame::Fault(v1::Fault { status }) => {
                let status = status.unwrap_or_default();
                tracing::warn!(status.code, status.message, "the control plane complains");
            }
            // A pong has done its work by being heard; what is not known is passed over.
            Frame::Pong(_) | Frame::Registered(_) => {}
        }
    }

    /// Looks at the clocks; gives how the session ends if it does.
    fn tick_at(&mut self, now: Instant) -> Option<End> {
        let busy = self.board.tasks() > 0;
        let timeout = self.clocks.ping_timeout;
        let silence = now.saturating_duration_since(self.heard);
        let unanswered = self
            .pinged
            .filter(|pinged| *pinged > self.heard)
            .is_some_and(|pinged| now.saturating_duration_since(pinged) > timeout);
        let silent = unanswered || (busy && silence > timeout);
        // When the process itself stood still, what was said meanwhile is read first.
        if silent && self.silent_before {
            return Some(End::Lost(format!("nothing was heard for {silence:?}")));
        }
        self.silent_before = silent;
        if busy && now >= self.next_status {
            self.next_status = now + self.clocks.status_interval;
            self.board.remind(now);
        }
        let interval = if busy { self.clocks.ping_interval } else { PING_IDLE_INTERVAL };
        let pinged = self.pinged.unwrap_or(self.opened);
        if !silent && now.saturating_duration_since(pinged) >= interval {
            self.nonce += 1;
            self.pinged = Some(now);
            self.board.send(connect_request::Frame::Ping(v1::Ping { nonce: self.nonce }));
        }
        None
    }

    fn tick(&self) -> Duration {
        let finest = self
            .clocks
            .status_interval
            .min(self.clocks.ping_interval)
            .min(self.clocks.ping_timeout / 3);
        (finest / 2).clamp(Duration::from_millis(5), Duration::from_millis(500))
    }

    /// Sends what is left and waits until the control plane has closed the stream.
    async fn say_farewell(&mut self) {
        self.board.close();
        let closed = async { while let Ok(Some(_)) = self.inbound.message().await {} };
        if tokio::time::timeout(FAREWELL_TIMEOUT, closed).await.is_err() {
            tracing::debug!("the control plane did not close the stream in time");
        }
    }
}

/// A status for the log: its code and message, with no metadata.
pub(crate) fn describe(status: &Status) -> String {
    if status.message().is_empty() {
        format!("{}", status.code())
    } else {
        format!("{} ({:?})", status.message(), status.code())
    }
}
