//! How the control plane is reached: addresses; calls go on at the next one when one dies.

use std::time::Duration;

use agent_sdk::client::{self, CallError, is_foreign};
use contracts::v1::agent_service_client::AgentServiceClient;
use contracts::v1::audit_service_client::AuditServiceClient;
use contracts::v1::dead_letter_service_client::DeadLetterServiceClient;
use contracts::v1::escalation_service_client::EscalationServiceClient;
use contracts::v1::recovery_service_client::RecoveryServiceClient;
use contracts::v1::triage_service_client::TriageServiceClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

pub(crate) use agent_sdk::client::{is_transient, orchestrator};

use crate::arguments::Globals;
use crate::error::Error;

/// Where the control plane is sought when nothing is said.
pub const DEFAULT_SERVER: &str = "http://127.0.0.1:8000";

const MESSAGE_BYTES_MAX: usize = 16 << 20;
const ADDRESSES_MAX: usize = 16;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A connection that answers no ping is given up, so that a watch notices a dead server.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one address by itself is asked.
const SINGLE_PATIENCE: Duration = Duration::from_secs(5);

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
pub(crate) struct Client(client::Client);

impl Client {
    /// Checks the addresses; connects to none yet.
    pub(crate) fn new(connection: Connection) -> Result<Client, Error> {
        let addresses = match connection {
            Connection::Channel(channel) => {
                vec![("the control plane of this command".to_owned(), channel)]
            }
            Connection::Url(urls) => addresses(&urls)?,
        };
        Ok(Client(client::Client::over(addresses)))
    }

    /// Calls a method, again at the next address where a server cannot serve just now, and later
    /// where it has too much to do.
    pub(crate) async fn call<T>(
        &self,
        method: impl AsyncFn(Channel) -> Result<Response<T>, Status>,
    ) -> Result<T, Error> {
        self.0.call(method).await.map_err(Error::from)
    }

    /// Each address with a client that knows it alone and asks but for a short time.
    pub(crate) fn singles(&self) -> Vec<(String, Client)> {
        let single = |(name, client): (String, client::Client)| {
            (name, Client(client.patience(SINGLE_PATIENCE)))
        };
        self.0.singles().into_iter().map(single).collect()
    }

    /// The channel to the address in use.
    pub(crate) fn channel(&self) -> Channel {
        self.0.channel().expect("a client is never made without an address")
    }

    /// Goes on to the next address.
    pub(crate) fn next_address(&self) {
        self.0.next_address();
    }

    /// The error for a server that could not be reached, or says itself that it cannot serve.
    pub(crate) fn unreachable(&self, status: &Status) -> Error {
        self.0.unreachable(status.clone()).into()
    }
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(status) => Error::Refused(status),
            CallError::Unreachable { servers, status } => {
                Error::Unreachable { servers, cause: cause(&status) }
            }
            other => Error::request(other.to_string()),
        }
    }
}

/// A client of agents.
pub(crate) fn agents(channel: Channel) -> AgentServiceClient<Channel> {
    AgentServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// A client of the audit log.
pub(crate) fn audit(channel: Channel) -> AuditServiceClient<Channel> {
    AuditServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// A client of dead letters.
pub(crate) fn dead_letters(channel: Channel) -> DeadLetterServiceClient<Channel> {
    DeadLetterServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// A client of triages.
pub(crate) fn triage(channel: Channel) -> TriageServiceClient<Channel> {
    TriageServiceClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// A client of questions to people.
pub(crate) fn escalations(channel: Channel) -> EscalationServiceClient<Channel> {
    EscalationServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// A client of rollbacks and recovery.
pub(crate) fn recovery(channel: Channel) -> RecoveryServiceClient<Channel> {
    RecoveryServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
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

fn addresses(urls: &str) -> Result<Vec<(String, Channel)>, Error> {
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

fn address(url: &str) -> Result<(String, Channel), Error> {
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
    Ok((name, endpoint.connect_lazy()))
}
