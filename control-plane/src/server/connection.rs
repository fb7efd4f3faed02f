//! Connections: accepted from a listener or made within the process, each served by the same
//! router, bounded in number, closed gracefully.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::{Channel, Endpoint};

use crate::limits;

/// How often a silent peer is asked whether it lives, and how long it may take to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How long a client may take to send the head of a request.
const HEAD_WAIT_MAX: Duration = Duration::from_secs(30);
/// The pause after the system refused another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What one stream may send before it is read: a whole large message.
const STREAM_WINDOW: u32 = 1024 * 1024;
/// The same for all streams of one connection.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// The most that the headers of one request may have.
const HEADER_BYTES_MAX: u32 = 64 * 1024;

/// All connections. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Connections {
    router: Router,
    /// No new connections; those that are there finish what they have.
    closing: CancellationToken,
    /// Those that are still there are dropped.
    aborting: CancellationToken,
    tasks: TaskTracker,
    room: Arc<Semaphore>,
}

impl Connections {
    pub(super) fn new(router: Router) -> Self {
        Self {
            router,
            closing: CancellationToken::new(),
            aborting: CancellationToken::new(),
            tasks: TaskTracker::new(),
            room: Arc::new(Semaphore::new(limits::CONNECTIONS_MAX)),
        }
    }

    pub(super) fn accept(&self, listener: TcpListener) {
        let connections = self.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = connections.accept_all(listener) => {}
                () = connections.closing.cancelled() => {}
            }
        });
    }

    async fn accept_all(&self, listener: TcpListener) {
        loop {
            let Ok(permit) = Arc::clone(&self.room).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    // Without it small frames wait for acknowledgements of earlier ones.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "a connection is slow");
                    }
                    self.serve(stream, Some(permit));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// A channel whose connections are pipes within the process.
    pub(super) fn channel(&self) -> Channel {
        let connections = self.clone();
        let connector = tower::service_fn(move |_: ::http::Uri| {
            let connections = connections.clone();
            async move {
                if connections.closing.is_cancelled() {
                    let kind = std::io::ErrorKind::ConnectionRefused;
                    return Err(std::io::Error::new(kind, "the server stops"));
                }
                let (near, far) = tokio::io::duplex(limits::PIPE_BYTES);
                connections.serve(far, None);
                Ok(TokioIo::new(near))
            }
        });
        Endpoint::from_static("http://in-process").connect_with_connector_lazy(connector)
    }

    fn serve(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        permit: Option<OwnedSemaphorePermit>,
    ) {
        let service = TowerToHyperService::new(self.router.clone());
        let (closing, aborting) = (self.closing.clone(), self.aborting.clone());
        self.tasks.spawn(async move {
            let builder = builder();
            let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
            let mut connection = std::pin::pin!(connection);
            let served = tokio::select! {
                served = connection.as_mut() => served,
                () = closing.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    tokio::select! {
                        served = connection => served,
                        () = aborting.cancelled() => Ok(()),
                    }
                }
            };
            if let Err(error) = served {
                tracing::debug!(%error, "a connection broke");
            }
            drop(permit);
        });
    }

    /// Closes all connections, gracefully for as long as `wait`.
    pub(super) async fn close(&self, wait: Duration) {
        self.closing.cancel();
        self.tasks.close();
        if tokio::time::timeout(wait, self.tasks.wait()).await.is_err() {
            tracing::info!(count = self.tasks.len(), "connections were cut off by the stop");
            self.aborting.cancel();
            self.tasks.wait().await;
        }
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_WAIT_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_concurrent_streams(limits::STREAMS_PER_CONNECTION);
    builder
}
