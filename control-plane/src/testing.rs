//! A control plane for tests: its own folder, its own port.

pub mod failpoint;

use std::sync::Arc;

use contracts::v1::agent_service_client::AgentServiceClient;
use contracts::v1::dead_letter_service_client::DeadLetterServiceClient;
use contracts::v1::lending_service_server::LendingServiceServer;
use contracts::v1::orchestrator_service_client::OrchestratorServiceClient;
use contracts::v1::peer_service_server::PeerServiceServer;
use contracts::v1::{ConnectRequest, Register};
use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::transport::server::Connected;

use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::control_plane::{ControlPlane, Error};
use crate::core::Core;
use crate::dispatch::{Dispatcher, SessionStream};
use crate::limits;
use crate::service::lending::LendingApi;
use crate::service::peer::PeerApi;

/// Connects an agent without a transport: what it sends comes from `frames`, what it is sent is
/// the stream.
///
/// # Errors
/// With what is wrong with the registration.
pub fn connect<S>(
    dispatcher: &Dispatcher,
    register: Register,
    frames: S,
) -> Result<SessionStream, String>
where
    S: Stream<Item = Result<ConnectRequest, tonic::Status>> + Send + Unpin + 'static,
{
    let stream = dispatcher.connect(register).map_err(|fault| format!("{fault:?}"))?;
    tokio::spawn(stream.inbox().run(frames));
    Ok(stream)
}

/// Serves other replicas what they ask of this one, without a port: connections come from
/// `incoming`, until it ends.
///
/// # Errors
/// When a connection cannot be taken.
pub fn serve_peers<S, Io>(
    core: &Core,
    incoming: S,
) -> impl Future<Output = Result<(), tonic::transport::Error>> + use<S, Io>
where
    S: Stream<Item = Result<Io, std::io::Error>>,
    Io: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let stopping = CancellationToken::new();
    let peer = PeerApi::new(core.runs.clone(), core.replicas.clone(), stopping);
    let peer = PeerServiceServer::new(peer)
        .max_decoding_message_size(limits::LINK_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(limits::LINK_MESSAGE_BYTES_MAX);
    let lending = LendingServiceServer::new(LendingApi::new(core.dispatcher.clone()))
        .max_decoding_message_size(limits::LINK_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(limits::LINK_MESSAGE_BYTES_MAX);
    let mut server = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(limits::PEER_PING_EVERY))
        .http2_keepalive_timeout(Some(limits::PEER_PING_WAIT_MAX));
    server.add_service(peer).add_service(lending).serve_with_incoming(incoming)
}

/// A control plane that is gone with its folder when the test is over.
#[derive(Debug)]
pub struct TestServer {
    /// What runs.
    pub control_plane: ControlPlane,
    /// How it was set up.
    pub config: Config,
    folder: Arc<tempfile::TempDir>,
}

impl TestServer {
    /// Starts one on a port that the system chooses.
    ///
    /// # Errors
    /// When it cannot start.
    pub async fn start() -> Result<Self, Error> {
        Self::start_with(|_| {}).await
    }

    /// The same, set up further.
    ///
    /// # Errors
    /// When it cannot start.
    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Result<Self, Error> {
        Self::start_at(SystemClock::shared(), change).await
    }

    /// The same by another clock than the machine's.
    ///
    /// # Errors
    /// When it cannot start.
    pub async fn start_at(
        clock: Arc<dyn Clock>,
        change: impl FnOnce(&mut Config),
    ) -> Result<Self, Error> {
        let folder = tempfile::tempdir().map_err(|source| {
            let path = std::env::temp_dir();
            Error::DataDir(crate::data_dir::Error::Io { path, source })
        })?;
        let mut config = Config {
            listen: Some(([127, 0, 0, 1], 0).into()),
            data_dir: folder.path().to_owned(),
            ..Config::default()
        };
        change(&mut config);
        Self::go(config, Arc::new(folder), clock).await
    }

    async fn go(
        config: Config,
        folder: Arc<tempfile::TempDir>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let control_plane = ControlPlane::start(&config, clock).await?;
        Ok(Self { control_plane, config, folder })
    }

    /// Stops it and starts another on the same data.
    ///
    /// # Errors
    /// When it cannot start again.
    pub async fn restart(self) -> Result<Self, Error> {
        self.restart_at(SystemClock::shared()).await
    }

    /// The same by another clock.
    ///
    /// # Errors
    /// When it cannot start again.
    pub async fn restart_at(self, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let Self { control_plane, config, folder } = self;
        control_plane.stop().await;
        Self::go(config, folder, clock).await
    }

    /// The address as a URL.
    #[must_use]
    pub fn url(&self) -> String {
        let address = self.control_plane.address();
        address.map(|address| format!("http://{address}")).unwrap_or_default()
    }

    /// A channel within the process.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.control_plane.channel()
    }

    /// A client of `OrchestratorService`.
    #[must_use]
    pub fn orchestrator(&self) -> OrchestratorServiceClient<Channel> {
        OrchestratorServiceClient::new(self.channel())
    }

    /// A client of `DeadLetterService`.
    #[must_use]
    pub fn dead_letters(&self) -> DeadLetterServiceClient<Channel> {
        DeadLetterServiceClient::new(self.channel())
    }

    /// A client of `AgentService`.
    #[must_use]
    pub fn agents(&self) -> AgentServiceClient<Channel> {
        AgentServiceClient::new(self.channel())
    }
}
