//! Connections between agents and replicas: frames take time, directions stand still, connections
//! break, and what an agent sends may come twice or late.

use std::time::Duration;

use contracts::v1::{ConnectRequest, ConnectResponse, Register};
use control_plane::testing;
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::conditions::NetworkFaults;
use crate::history::History;
use crate::machine::Fate;
use crate::random::Random;
use crate::replica::Replica;
use crate::world::Weather;

/// How long an agent waits to be taken in.
const CONNECT_WAIT: Duration = Duration::from_secs(3);

/// The agent's end of a connection. Dropped, it closes the connection: what was sent arrives.
pub(crate) struct Link {
    outgoing: mpsc::UnboundedSender<(Instant, ConnectRequest)>,
    incoming: mpsc::UnboundedReceiver<ConnectResponse>,
    way: Way,
    /// Nothing is sent or heard any more.
    cut: CancellationToken,
}

/// One direction.
struct Way {
    faults: NetworkFaults,
    random: Random,
    weather: Weather,
    history: History,
    /// The frame before arrives then.
    last: Instant,
}

impl Way {
    fn meets(&mut self, share: u64, what: &'static str) -> bool {
        let meets = !self.weather.is_calm() && self.random.permille(share);
        if meets {
            self.history.fault(what);
        }
        meets
    }

    /// When a frame that is sent now arrives, in order as a rule.
    fn arrival(&mut self) -> Instant {
        let latency = u64::try_from(self.faults.latency.as_millis()).unwrap_or(0) + 1;
        let mut at = Instant::now() + self.random.millis(0, latency);
        if self.meets(self.faults.stall, "stalled direction") {
            at += self.random.millis(500, 20_000);
        }
        self.last = self.last.max(at);
        self.last
    }
}

pub(crate) struct Network {
    pub(crate) faults: NetworkFaults,
    pub(crate) weather: Weather,
    pub(crate) history: History,
}

impl Network {
    fn way(&self, random: Random) -> Way {
        Way {
            faults: self.faults,
            random,
            weather: self.weather.clone(),
            history: self.history.clone(),
            last: Instant::now(),
        }
    }

    /// Opens a connection; `None` when nobody is there.
    pub(crate) async fn connect(
        &self,
        replica: &Replica,
        register: Register,
        mut random: Random,
    ) -> Option<Link> {
        let mut up = self.way(random.fork());
        let mut down = self.way(random.fork());
        tokio::time::sleep_until(up.arrival()).await;
        // Who stands still takes nobody in; the agent asks elsewhere.
        tokio::time::timeout(CONNECT_WAIT, replica.fate.pause.over()).await.ok()?;
        if replica.fate.dead.is_cancelled() {
            return None;
        }
        let (to_replica, frames) = mpsc::unbounded_channel();
        let frames = tokio_stream::wrappers::UnboundedReceiverStream::new(frames);
        let stream = testing::connect(&replica.dispatcher, register, frames).ok()?;
        let cut = CancellationToken::new();
        let (outgoing, sent) = mpsc::unbounded_channel();
        let (under_way, arriving) = mpsc::unbounded_channel();
        let (to_agent, incoming) = mpsc::unbounded_channel();
        // Whether the agent hears at once that the replica died.
        let reset = random.one_in(2);
        let end = End { fate: replica.fate.clone(), cut: cut.clone(), reset };
        tokio::spawn(carry_up(sent, to_replica, end.clone()));
        tokio::spawn(carry_down(arriving, to_agent, end.clone()));
        tokio::spawn(async move {
            let mut stream = stream;
            loop {
                let frame = tokio::select! {
                    biased;
                    () = end.over(&under_way) => return,
                    frame = stream.next() => frame,
                };
                end.fate.pause.over().await;
                let Some(Ok(frame)) = frame else { return };
                if down.meets(down.faults.cut, "connection cut") {
                    end.cut.cancel();
                    return;
                }
                drop(under_way.send((down.arrival(), frame)));
            }
        });
        Some(Link { outgoing, incoming, way: up, cut })
    }
}

/// How a connection ends from the replica's side.
#[derive(Clone)]
struct End {
    fate: Fate,
    cut: CancellationToken,
    reset: bool,
}

impl End {
    /// Returns when the connection is over for both; with a death that nobody hears of, when the
    /// agent has given it up.
    async fn over<T>(&self, to_agent: &mpsc::UnboundedSender<T>) {
        tokio::select! {
            biased;
            () = self.cut.cancelled() => return,
            () = to_agent.closed() => return,
            () = self.fate.dead.cancelled() => {}
        }
        if !self.reset {
            to_agent.closed().await;
        }
    }
}

type Frames = mpsc::UnboundedSender<Result<ConnectRequest, tonic::Status>>;

/// Brings the agent's frames to the replica, each at its time.
async fn carry_up(
    mut sent: mpsc::UnboundedReceiver<(Instant, ConnectRequest)>,
    to_replica: Frames,
    end: End,
) {
    loop {
        let next = tokio::select! {
            biased;
            () = end.cut.cancelled() => return,
            () = end.fate.dead.cancelled() => return,
            next = sent.recv() => next,
        };
        let Some((at, frame)) = next else { return };
        tokio::select! {
            biased;
            () = end.cut.cancelled() => return,
            () = end.fate.dead.cancelled() => return,
            () = tokio::time::sleep_until(at) => {}
        }
        end.fate.pause.over().await;
        if to_replica.send(Ok(frame)).is_err() {
            return;
        }
    }
}

/// Brings the replica's frames to the agent, each at its time.
async fn carry_down(
    mut arriving: mpsc::UnboundedReceiver<(Instant, ConnectResponse)>,
    to_agent: mpsc::UnboundedSender<ConnectResponse>,
    end: End,
) {
    loop {
        let next = tokio::select! {
            biased;
            () = end.cut.cancelled() => return,
            () = to_agent.closed() => return,
            next = arriving.recv() => next,
        };
        let Some((at, frame)) = next else { return };
        tokio::select! {
            biased;
            () = end.cut.cancelled() => return,
            () = to_agent.closed() => return,
            () = tokio::time::sleep_until(at) => {}
        }
        drop(to_agent.send(frame));
    }
}

impl Link {
    /// Sends a frame; it arrives, or does not.
    pub(crate) fn send(&mut self, frame: ConnectRequest) {
        if self.way.meets(self.way.faults.cut, "connection cut") {
            self.cut.cancel();
            return;
        }
        if self.way.meets(self.way.faults.twice, "frame twice") {
            drop(self.outgoing.send((self.way.arrival(), frame.clone())));
        }
        if self.way.meets(self.way.faults.late, "frame late") {
            let wait = self.way.random.millis(5, 2_000);
            let outgoing = self.outgoing.downgrade();
            tokio::spawn(async move {
                tokio::time::sleep(wait).await;
                if let Some(outgoing) = outgoing.upgrade() {
                    drop(outgoing.send((Instant::now(), frame)));
                }
            });
            return;
        }
        drop(self.outgoing.send((self.way.arrival(), frame)));
    }

    /// The next frame; `None` when the connection is over.
    pub(crate) async fn receive(&mut self) -> Option<ConnectResponse> {
        self.incoming.recv().await
    }
}
