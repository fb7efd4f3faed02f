//! The one port: gRPC, gRPC-Web, reflection, health, `/health` and `/metrics`, over TCP and over
//! pipes within the process. Knows no service's logic.

mod connection;
mod guard;
mod http;
mod telemetry;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state, map_response};
use contracts::v1::agent_service_server::AgentServiceServer;
use contracts::v1::audit_service_server::AuditServiceServer;
use contracts::v1::dead_letter_service_server::DeadLetterServiceServer;
use contracts::v1::escalation_service_server::EscalationServiceServer;
use contracts::v1::lending_service_server::LendingServiceServer;
use contracts::v1::orchestrator_service_server::OrchestratorServiceServer;
use contracts::v1::peer_service_server::PeerServiceServer;

use contracts::v1::recovery_service_server::RecoveryServiceServer;
use contracts::v1::triage_service_server::TriageServiceServer;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding::{Gzip, Zstd};
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tonic_web::GrpcWebLayer;
use tower_http::cors::{Any, CorsLayer};

pub use telemetry::install as install_metrics;

use crate::core::Core;
use crate::dispatch::Dispatcher;
use crate::limits;
use crate::schedules::Schedules;
use crate::service::admission::Admission;
use crate::service::agent::AgentApi;
use crate::service::audit::AuditApi;
use crate::service::context::Policy;
use crate::service::dead_letter::DeadLetterApi;
use crate::service::escalation::EscalationApi;
use crate::service::lending::LendingApi;
use crate::service::orchestrator::OrchestratorApi;
use crate::service::peer::PeerApi;
use crate::service::recovery::RecoveryApi;
use crate::service::triage::TriageApi;
use crate::service::{Context, auth};
use crate::triages::Learning;
use connection::Connections;

/// The services whose health is told, each by its name.
const SERVICES: [&str; 8] = [
    "",
    <OrchestratorServiceServer<OrchestratorApi> as NamedService>::NAME,
    <AgentServiceServer<AgentApi> as NamedService>::NAME,
    <DeadLetterServiceServer<DeadLetterApi> as NamedService>::NAME,
    <RecoveryServiceServer<RecoveryApi> as NamedService>::NAME,
    <AuditServiceServer<AuditApi> as NamedService>::NAME,
    <TriageServiceServer<TriageApi> as NamedService>::NAME,
    <EscalationServiceServer<EscalationApi> as NamedService>::NAME,
];

/// Why a server cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is not to be listened on.
    #[error(
        "{0} can be reached from other machines and there is no authentication; listen on \
         127.0.0.1, or say --insecure if everybody who reaches it may use it"
    )]
    NotLoopback(SocketAddr),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// A part of the server cannot be made: a defect.
    #[error("the server cannot be put together: {0}")]
    Part(String),
}

/// The server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Server {
    connections: Connections,
    health: HealthReporter,
    dispatcher: Dispatcher,
    learning: Learning,
    stopping: CancellationToken,
}

impl Server {
    /// Puts the server together; it listens nowhere yet. `data_dir` is where the embedded store
    /// lies, if it does.
    ///
    /// # Errors
    /// When the contracts cannot be reflected: a defect.
    pub async fn new(
        core: &Core,
        schedules: Schedules,
        admission: Admission,
        data_dir: Option<&std::path::Path>,
        policy: Policy,
    ) -> Result<Self, Error> {
        let stopping = CancellationToken::new();
        let dispatcher = core.dispatcher.clone();
        let context = Context::new(core, schedules, admission, stopping.clone());
        let context = context.with_data_dir(data_dir).with_policy(policy);
        let (health, health_service) = tonic_health::server::health_reporter();
        let reflection = |error: tonic_reflection::server::Error| Error::Part(error.to_string());
        let reflector = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(contracts::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                // So that generic clients can show the details of errors.
                .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        };
        let routes = services(&context)
            .add_service(health_service)
            .add_service(reflector().build_v1().map_err(reflection)?)
            .add_service(reflector().build_v1alpha().map_err(reflection)?);
        for service in SERVICES {
            health.set_service_status(service, ServingStatus::Serving).await;
        }
        let learning = context.learning.clone();
        let router = router(routes, http::routes(context), stopping.clone());
        tokio::spawn(telemetry::upkeep(stopping.clone()));
        Ok(Self { connections: Connections::new(router), health, dispatcher, learning, stopping })
    }

    /// What confirmed outcomes and ended recoveries taught.
    #[must_use]
    pub fn learning(&self) -> &Learning {
        &self.learning
    }

    /// Listens on an address. Others than loopback are refused unless `insecure`.
    ///
    /// # Errors
    /// When the address is refused, or in use.
    pub async fn listen(address: SocketAddr, insecure: bool) -> Result<TcpListener, Error> {
        if !insecure && !address.ip().to_canonical().is_loopback() {
            return Err(Error::NotLoopback(address));
        }
        TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })
    }

    /// Serves those who connect, until [`Server::stop`].
    pub fn serve(&self, listener: TcpListener) {
        self.connections.accept(listener);
    }

    /// A channel to this server within the process; nothing bypasses the protocol.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.connections.channel()
    }

    /// Drains: first it is said that nothing is served any more; then agents are asked to connect
    /// elsewhere, watches end, and clients' new requests are refused, each with UNAVAILABLE and
    /// when to ask again. What is under way is still answered, and other replicas are still
    /// served. Doing it again changes nothing.
    pub async fn drain(&self) {
        for service in SERVICES {
            self.health.set_service_status(service, ServingStatus::NotServing).await;
        }
        if self.stopping.is_cancelled() {
            return;
        }
        self.dispatcher.leave();
        self.stopping.cancel();
    }

    /// Drains, waits until what is under way is answered, and closes all connections; all within
    /// a bounded time.
    pub async fn stop(&self) {
        self.drain().await;
        self.connections.close(limits::STOP_WAIT_MAX).await;
    }
}

/// The services of the contracts with their bounds.
fn services(context: &Context) -> Routes {
    macro_rules! bounded {
        ($server:expr) => {
            $server
                .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
                .max_encoding_message_size(limits::MESSAGE_BYTES_MAX)
                .accept_compressed(Gzip)
                .accept_compressed(Zstd)
                .send_compressed(Gzip)
                .send_compressed(Zstd)
        };
    }
    let orchestrator = OrchestratorServiceServer::new(OrchestratorApi::new(context.clone()));
    let dead_letter = DeadLetterServiceServer::new(DeadLetterApi::new(context.clone()));
    let triage = TriageServiceServer::new(TriageApi::new(context.clone()));
    let recovery = RecoveryServiceServer::new(RecoveryApi::new(context.clone()));
    let audit = AuditServiceServer::new(AuditApi::new(context.clone()));
    let escalation = EscalationServiceServer::new(EscalationApi::new(context.clone()));
    let agents = AgentApi::new(context.dispatcher.clone(), context.stopping.clone());
    let agent = AgentServiceServer::new(agents.with_requests(context.runs.clone()));
    // Between replicas messages are larger, and compressing them would cost more than it saves.
    let (runs, replicas) = (context.runs.clone(), context.replicas.clone());
    let peer = PeerServiceServer::new(PeerApi::new(runs, replicas, context.stopping.clone()))
        .max_decoding_message_size(limits::LINK_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(limits::LINK_MESSAGE_BYTES_MAX);
    let lending = LendingServiceServer::new(LendingApi::new(context.dispatcher.clone()))
        .max_decoding_message_size(limits::LINK_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(limits::LINK_MESSAGE_BYTES_MAX);
    Routes::new(bounded!(orchestrator))
        .add_service(bounded!(dead_letter))
        .add_service(bounded!(audit))
        .add_service(bounded!(recovery))
        .add_service(bounded!(triage))
        .add_service(bounded!(escalation))
        .add_service(bounded!(agent))
        .add_service(lending)
        .add_service(peer)
}

fn router(routes: Routes, http: Router, draining: CancellationToken) -> Router {
    // What is not gRPC must not reach the gRPC-Web layer, which answers it with an empty 400.
    let grpc = routes.prepare().into_axum_router().reset_fallback().layer(GrpcWebLayer::new());
    grpc.merge(http)
        .layer(map_response(guard::too_large))
        .layer(from_fn(guard::deadline))
        .layer(from_fn_with_state(draining, guard::draining))
        .layer(from_fn(auth::principal))
        .layer(from_fn(guard::panics))
        .layer(cors())
}

/// Browsers may call from any page: there is nothing that a page could borrow, no cookie and no
/// password of the browser's.
fn cors() -> CorsLayer {
    let exposed = ["grpc-status", "grpc-message", "grpc-status-details-bin", "grpc-encoding"];
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods(Any)
        .allow_headers(Any)
        .expose_headers(exposed.map(::http::HeaderName::from_static))
}

/// What the routes outside of gRPC share.
pub(crate) type SharedContext = Arc<Context>;
