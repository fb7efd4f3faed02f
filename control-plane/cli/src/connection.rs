//! How the control plane is reached: addresses, retries, and the next address when one dies.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use contracts::v1::agent_service_client::AgentServiceClient;
use contracts::v1::dead_letter_service_client::DeadLetterServiceClient;
use contracts::v1::orchestrator_service_client::OrchestratorServiceClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

use crate::arguments::Globals;
use crate::error::Error;

/// Where the control plane is sought when nothing is said.
pub const DEFAULT_SERVER: &str = "http://127.0.0.1:8000";

const MESSAGE_BYTES_MAX: usize = 16 << 20;
const ADDRESSES_MAX: usize = 16;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection that answers no ping is given up, so that a watch notices a dead server.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
const ROUNDS_MAX: usize = 3;
const ROUND_DELAY: Duration = Duration::from_millis(150);
const OVERLOAD_RETRIES_MAX: usize = 3;
const OVERLOAD_DELAY_MAX: Duration = Duration::from_secs(5);

/// How the control plane is reached.
#[derive(Clone, Debug)]
pub enum Connection {
    /// By address; several stand behind commas.
    Url(String),
    /// By a channel to a control plane that lives in this process, for this command alone.
    Channel(Channel),
}

impl Connection {
    /// The address that the arguments name, or the default one.
    pub fn of(globals: &Globals) -> Connection {
        Connection::Url(globals.server().unwrap_or(DEFAULT_SERVER).to_owned())
    }
}

/// A client of all services. Cheap to clone; clones share which address is in use.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    addresses: Arc<[Address]>,
    current: Arc<AtomicUsize>,
}

#[derive(Clone, Debug)]
struct Address {
    name: String,
    channel: Channel,
}

impl Client {
    /// Checks the addresses; connects to none yet.
    pub(crate) fn new(connection: Connection) -> Result<Client, Error> {
        let addresses = match connection {
            Connection::Channel(channel) => {
                vec![Address { name: "the control plane of this command".to_owned(), channel }]
            }
            Connection::Url(urls) => addresses(&urls)?,
        };
        Ok(Client { addresses: addresses.into(), current: Arc::default() })
    }

    /// Calls a method. Where the server cannot be reached, the next address is tried, and all of
    /// them again a few times; where it is overloaded, what it says is waited for.
    pub(crate) async fn call<T>(
        &self,
        method: impl AsyncFn(Channel) -> Result<Response<T>, Status>,
    ) -> Result<T, Error> {
        let attempts_max = self.addresses.len() * ROUNDS_MAX;
        let mut unreachable = 0;
        let mut overloaded = 0;
        loop {
            let outcome = tokio::time::timeout(CALL_TIMEOUT, method(self.channel())).await;
            let status = match outcome {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded(format!(
                    "the server gave no answer within {} s",
                    CALL_TIMEOUT.as_secs()
                )),
            };
            if let Some(delay) = overload_delay(&status)
                && overloaded < OVERLOAD_RETRIES_MAX
            {
                overloaded += 1;
                tokio::time::sleep(delay).await;
                continue;
            }
            if !is_transient(&status) {
                return Err(Error::refused(status));
            }
            unreachable += 1;
            // A server that is silent for long is not asked again, only another one.
            let silent = status.code() == Code::DeadlineExceeded;
            if unreachable >= attempts_max || (silent && unreachable >= self.addresses.len()) {
                return Err(self.unreachable(&status));
            }
            self.next_address();
            if unreachable.is_multiple_of(self.addresses.len()) {
                tokio::time::sleep(ROUND_DELAY).await;
            }
        }
    }

    /// Each address with a client that knows it alone.
    pub(crate) fn singles(&self) -> Vec<(String, Client)> {
        let single = |address: &Address| Client {
            addresses: Arc::new([address.clone()]),
            current: Arc::default(),
        };
        self.addresses.iter().map(|address| (address.name.clone(), single(address))).collect()
    }

    /// The channel to the address in use.
    pub(crate) fn channel(&self) -> Channel {
        let current = self.current.load(Ordering::Relaxed) % self.addresses.len();
        self.addresses[current].channel.clone()
    }

    /// Goes on to the next address.
    pub(crate) fn next_address(&self) {
        self.current.fetch_add(1, Ordering::Relaxed);
    }

    /// The error for a server that could not be reached, or says itself that it cannot serve.
    pub(crate) fn unreachable(&self, status: &Status) -> Error {
        if status.get_details_error_info().is_some() {
            return Error::refused(status.clone());
        }
        Error::Unreachable {
            servers: self.addresses.iter().map(|address| address.name.clone()).collect(),
            cause: cause(status),
        }
    }
}

/// A client of workflows and runs.
pub(crate) fn orchestrator(channel: Channel) -> OrchestratorServiceClient<Channel> {
    OrchestratorServiceClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// A client of agents.
pub(crate) fn agents(channel: Channel) -> AgentServiceClient<Channel> {
    AgentServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// A client of dead letters.
pub(crate) fn dead_letters(channel: Channel) -> DeadLetterServiceClient<Channel> {
    DeadLetterServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// Whether the same request may succeed at another address or a moment later.
pub(crate) fn is_transient(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded => true,
        _ if is_foreign(status) => true,
        // What the transport itself says when a connection breaks within a call; a server's own
        // words carry a reason.
        Code::Unknown | Code::Internal | Code::Cancelled => {
            status.get_details_error_info().is_none() && std::error::Error::source(status).is_some()
        }
        _ => false,
    }
}

fn overload_delay(status: &Status) -> Option<Duration> {
    if status.code() != Code::ResourceExhausted {
        return None;
    }
    let delay = status.get_details_retry_info()?.retry_delay?;
    Some(delay.min(OVERLOAD_DELAY_MAX))
}

/// Whether something answered that speaks HTTP and is no gRPC server.
fn is_foreign(status: &Status) -> bool {
    status.message().starts_with("grpc-status header missing")
}

/// The innermost cause, which for a transport error is the only part that says anything.
fn cause(status: &Status) -> String {
    if is_foreign(status) {
        return "what answers there is no orchestrator".to_owned();
    }
    let mut innermost: Option<String> = None;
    let mut next = std::error::Error::source(status);
    while let Some(error) = next {
        innermost = Some(error.to_string());
        next = error.source();
    }
    innermost.unwrap_or_else(|| status.message().to_owned())
}

fn addresses(urls: &str) -> Result<Vec<Address>, Error> {
    let mut addresses = Vec::new();
    for url in urls.split(',').map(str::trim).filter(|url| !url.is_empty()) {
        addresses.push(address(url)?);
    }
    if addresses.is_empty() {
        return Err(Error::request("`--server` names no address")
            .help(format!("give one like {DEFAULT_SERVER}")));
    }
    if addresses.len() > ADDRESSES_MAX {
        return Err(Error::request(format!(
            "`--server` names {} addresses; at most {ADDRESSES_MAX} are allowed",
            addresses.len()
        )));
    }
    Ok(addresses)
}

fn address(url: &str) -> Result<Address, Error> {
    let name = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let wrong = |found: &str| {
        Error::request(format!("`--server`: `{url}` {found}"))
            .help(format!("give an address like {DEFAULT_SERVER}"))
    };
    if !name.starts_with("http://") {
        return Err(wrong("is not an http:// address"));
    }
    let endpoint = Endpoint::from_shared(name.clone())
        .map_err(|_| wrong("is not an address"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    if endpoint.uri().host().is_none_or(str::is_empty) {
        return Err(wrong("names no host"));
    }
    let authority = endpoint.uri().authority().map_or("", |authority| authority.as_str());
    let port = authority.rsplit_once(':').map(|(_, port)| port).filter(|it| !it.contains(']'));
    if port.is_some_and(|port| !port.parse::<u16>().is_ok_and(|port| port > 0)) {
        return Err(wrong("names no port from 1 to 65535"));
    }
    Ok(Address { name, channel: endpoint.connect_lazy() })
}
