//! A way between two processes that can be cut, stalled and mended by the test.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What the way does with what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Open,
    /// Everything stands still, and nobody is told.
    Stalled,
    /// Nobody gets through.
    Closed,
}

/// The way. It is gone with this.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    way: Arc<watch::Sender<Way>>,
    /// Raised to end all connections that there are.
    cuts: Arc<watch::Sender<u64>>,
    _ends: DropGuard,
}

impl Proxy {
    /// A way to `target`.
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (way, cuts) = (Arc::new(watch::channel(Way::Open).0), Arc::new(watch::channel(0).0));
        let ends = CancellationToken::new();
        let accept = accept(listener, target, Arc::clone(&way), Arc::clone(&cuts));
        tokio::spawn(ends.clone().run_until_cancelled_owned(accept));
        Self { address, way, cuts, _ends: ends.drop_guard() }
    }

    /// Breaks all connections; new ones get through.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Breaks all connections, and refuses new ones until it is opened.
    pub(crate) fn close(&self) {
        self.way.send_replace(Way::Closed);
        self.cut();
    }

    /// Nothing moves until it is opened, and nobody notices at once.
    pub(crate) fn stall(&self) {
        self.way.send_replace(Way::Stalled);
    }

    /// Everything gets through again.
    pub(crate) fn open(&self) {
        self.way.send_replace(Way::Open);
    }
}

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    way: Arc<watch::Sender<Way>>,
    cuts: Arc<watch::Sender<u64>>,
) {
    loop {
        let Ok((near, _)) = listener.accept().await else { return };
        if *way.borrow() == Way::Closed {
            continue;
        }
        let Ok(far) = TcpStream::connect(target).await else { continue };
        drop((near.set_nodelay(true), far.set_nodelay(true)));
        let (mut cut, way) = (cuts.subscribe(), way.subscribe());
        tokio::spawn(async move {
            let (near_in, near_out) = near.into_split();
            let (far_in, far_out) = far.into_split();
            tokio::select! {
                () = carry(near_in, far_out, way.clone()) => {}
                () = carry(far_in, near_out, way) => {}
                _ = cut.changed() => {}
            }
        });
    }
}

/// From one side to the other until one of them ends.
async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut way: watch::Receiver<Way>,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(count) = from.read(&mut buffer).await else { return };
        let moves = way.wait_for(|way| *way != Way::Stalled).await.is_ok();
        if count == 0 || !moves || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
