//! Connections between replicas: bytes take time, ways between two machines close for a while,
//! connections break, and who stands still or is dead says nothing.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use control_plane::replicas::{Connect, Tcp};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::machine::{Fate, wait_while};
use crate::random::Random;
use crate::world::World;

/// What a way holds, in bytes.
const PIPE_BYTES: usize = 256 * 1024;
/// How much is carried at once, in bytes.
const CHUNK_BYTES: usize = 16 * 1024;

/// The ways from one replica to the others.
#[derive(Clone)]
pub(crate) struct Wires(Arc<Inner>);

struct Inner {
    world: Arc<World>,
    slot: usize,
    fate: Fate,
    random: Mutex<Random>,
}

/// Where the replica of a slot is reached.
pub(crate) fn address(slot: usize) -> String {
    format!("127.0.0.1:{}", slot + 1)
}

fn slot_of(address: &str) -> Option<usize> {
    address.rsplit_once(':')?.1.parse::<usize>().ok()?.checked_sub(1)
}

impl Wires {
    pub(crate) fn new(world: Arc<World>, slot: usize, fate: Fate, random: Random) -> Self {
        Self(Arc::new(Inner { world, slot, fate, random: Mutex::new(random) }))
    }

    fn fork(&self) -> Random {
        self.0.random.lock().unwrap_or_else(PoisonError::into_inner).fork()
    }

    async fn open(self, to: usize) -> io::Result<TokioIo<DuplexStream>> {
        let Inner { world, slot, fate, .. } = &*self.0;
        let mut random = self.fork();
        let latency = latency(world);
        tokio::time::sleep(random.millis(0, latency)).await;
        wait_while(|| world.is_parted(*slot, to)).await;
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let there = world.replica_at(to).ok_or_else(refused)?;
        if there.fate.dead.is_cancelled() || fate.dead.is_cancelled() {
            return Err(refused());
        }
        let (near, near_end) = tokio::io::duplex(PIPE_BYTES);
        let (far_end, far) = tokio::io::duplex(PIPE_BYTES);
        there.serve_peer(far).ok_or_else(refused)?;
        let way = Way {
            world: Arc::clone(world),
            slots: (*slot, to),
            fates: [fate.clone(), there.fate.clone()],
            cut: CancellationToken::new(),
            resets: random.one_in(2),
        };
        let (near_in, near_out) = tokio::io::split(near_end);
        let (far_in, far_out) = tokio::io::split(far_end);
        tokio::spawn(way.clone().carry(near_in, far_out, random.fork()));
        tokio::spawn(way.carry(far_in, near_out, random.fork()));
        Ok(TokioIo::new(near))
    }
}

impl Connect for Wires {
    fn connect(&self, address: &str) -> Option<Channel> {
        let endpoint = Tcp::endpoint(address)?;
        let (wires, to) = (self.clone(), slot_of(address)?);
        let open = tower::service_fn(move |_: http::Uri| wires.clone().open(to));
        Some(endpoint.connect_with_connector_lazy(open))
    }
}

fn latency(world: &World) -> u64 {
    u64::try_from(world.plan.network.latency.as_millis()).unwrap_or(0) + 1
}

/// One connection.
#[derive(Clone)]
struct Way {
    world: Arc<World>,
    slots: (usize, usize),
    fates: [Fate; 2],
    /// It is over for both.
    cut: CancellationToken,
    /// Whether one side hears at once that the other died.
    resets: bool,
}

impl Way {
    fn is_closed(&self) -> bool {
        let (one, other) = self.slots;
        self.world.is_parted(one, other) || self.fates.iter().any(|fate| fate.pause.is_on())
    }

    fn is_dead(&self) -> bool {
        self.fates.iter().any(|fate| fate.dead.is_cancelled())
    }

    /// Returns when one side dies and the other hears of it.
    async fn reset(&self) {
        let [one, other] = &self.fates;
        tokio::select! {
            biased;
            () = one.dead.cancelled() => {}
            () = other.dead.cancelled() => {}
        }
        if !self.resets {
            std::future::pending::<()>().await;
        }
    }

    /// Carries one direction, until it breaks; then both are closed.
    async fn carry(
        self,
        from: impl AsyncRead + Unpin,
        to: impl AsyncWrite + Unpin,
        random: Random,
    ) {
        tokio::select! {
            biased;
            () = self.cut.cancelled() => {}
            () = self.reset() => {}
            () = self.carry_on(from, to, random) => {}
        }
        self.cut.cancel();
    }

    async fn carry_on(
        &self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        mut random: Random,
    ) {
        let mut chunk = vec![0; CHUNK_BYTES];
        let weather = &self.world.weather;
        loop {
            let Ok(count @ 1..) = from.read(&mut chunk).await else { return };
            if !weather.is_calm() && random.permille(self.world.plan.network.cut) {
                self.world.history.fault("link cut");
                return;
            }
            let latency: Duration = random.millis(0, latency(&self.world));
            tokio::time::sleep(latency).await;
            wait_while(|| self.is_closed()).await;
            if self.is_dead() {
                // Nobody takes it; who sent it finds out in time.
                continue;
            }
            if to.write_all(&chunk[..count]).await.is_err() {
                return;
            }
        }
    }
}
