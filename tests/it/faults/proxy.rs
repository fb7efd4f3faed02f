//! A proxy between two that talk: it cuts, stalls either direction, slows down and changes to
//! another address, as it is told. It does not know what is said.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How much is read at once, in bytes.
const CHUNK_BYTES: usize = 16 * 1024;

/// What it does at present.
#[derive(Clone, Debug)]
struct State {
    target: SocketAddr,
    /// Nothing goes on to the target, or back; what is open stays open.
    stalled: (bool, bool),
    /// How much gets through in each direction, in bytes a second.
    rate: Option<u32>,
    /// New connections are broken at once.
    closed: bool,
    /// Connections of an earlier life are broken.
    life: u64,
}

/// It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    state: watch::Sender<State>,
}

impl Proxy {
    /// A way to `target`.
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let first = State { target, stalled: (false, false), rate: None, closed: false, life: 0 };
        let (state, seen) = watch::channel(first);
        tokio::spawn(accept(listener, seen));
        Self { address, state }
    }

    /// Where it leads.
    pub(crate) fn target(&self) -> SocketAddr {
        self.state.borrow().target
    }

    /// Breaks all connections; new ones get through.
    pub(crate) fn cut(&self) {
        self.state.send_modify(|state| state.life += 1);
    }

    /// Breaks all connections, and closed new ones until it is opened.
    pub(crate) fn close(&self) {
        self.state.send_modify(|state| {
            state.closed = true;
            state.life += 1;
        });
    }

    /// Nothing moves until it is opened, and nobody notices at once.
    pub(crate) fn stall(&self) {
        self.stall_ways(true, true);
    }

    /// Nothing moves to the target, or back from it, until it is opened.
    pub(crate) fn stall_ways(&self, to: bool, back: bool) {
        self.state.send_modify(|state| state.stalled = (to, back));
    }

    /// So much gets through in each direction of a connection, in bytes a second.
    pub(crate) fn slow_down(&self, rate: u32) {
        self.state.send_modify(|state| state.rate = Some(rate));
    }

    /// Everything gets through again.
    pub(crate) fn open(&self) {
        self.state.send_modify(|state| {
            state.closed = false;
            state.stalled = (false, false);
            state.rate = None;
        });
    }

    /// Leads elsewhere from now on; what led to the old place is broken.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        self.state.send_modify(|state| {
            state.target = target;
            state.life += 1;
        });
    }
}

async fn accept(listener: TcpListener, mut state: watch::Receiver<State>) {
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { return };
                if !state.borrow().closed {
                    tokio::spawn(serve(client, state.clone()));
                }
            }
            changed = state.changed() => if changed.is_err() { return },
        }
    }
}

/// Until one side closes or the connection's life is over; then both are closed.
async fn serve(near: TcpStream, mut state: watch::Receiver<State>) {
    let (life, target) = {
        let state = state.borrow();
        (state.life, state.target)
    };
    let Ok(far) = TcpStream::connect(target).await else { return };
    drop((near.set_nodelay(true), far.set_nodelay(true)));
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    let (to, back) = (state.clone(), state.clone());
    tokio::select! {
        () = carry(near_in, far_out, to, |state| state.stalled.0) => {}
        () = carry(far_in, near_out, back, |state| state.stalled.1) => {}
        _ = state.wait_for(|state| state.life != life) => {}
    }
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut state: watch::Receiver<State>,
    stalled: impl Fn(&State) -> bool,
) {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let Ok(read @ 1..) = from.read(&mut chunk).await else { return };
        // What was read before a stall is held back as well.
        let rate = match state.wait_for(|state| !stalled(state)).await {
            Ok(state) => state.rate,
            Err(_) => return,
        };
        if let Some(rate) = rate {
            let bytes = u32::try_from(read).unwrap_or(u32::MAX);
            tokio::time::sleep(Duration::from_secs(1) * bytes / rate).await;
        }
        if to.write_all(&chunk[..read]).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
}
