//! A client for programs that start runs and steer them: several addresses, calls that are
//! repeated where that is safe, and waiting for a run's end over broken connections.
//!
//! ```no_run
//! use agent_sdk::client::{Client, orchestrator};
//! use contracts::v1;
//!
//! # async fn main_() -> anyhow::Result<()> {
//! let client = Client::new(["http://10.0.0.1:8000", "http://10.0.0.2:8000"])?;
//! let source = v1::start_run_request::Source::Workflow("deploy".to_owned());
//! let request = v1::StartRunRequest { source: Some(source), ..Default::default() };
//! let run = client.start_run(request).await?;
//! let ended = client.wait(&run.run_id).await?;
//! let get = v1::ListRunsRequest::default();
//! let runs = client
//!     .call(async |channel| orchestrator(channel).list_runs(get.clone()).await)
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! A call is repeated at the next address when a server cannot be reached or says UNAVAILABLE,
//! and after the time in `RetryInfo` when it says that it has too much to do, until the client's
//! patience is over. So give every request that changes something a `request_id`, the same each
//! time: then nothing is done twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use contracts::v1;
use contracts::v1::orchestrator_service_client::OrchestratorServiceClient;
use contracts::v1::watch_run_response::Item;
use rand::RngExt as _;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

use crate::limits::{CALL_PATIENCE, CALL_TIMEOUT, MESSAGE_BYTES_MAX};
use crate::{Error, connect, session};

/// How often all addresses are tried when none of them says a word.
const ROUNDS_MAX: usize = 3;
/// The pause between two such rounds, and the shortest before anything is repeated.
const ROUND_DELAY: Duration = Duration::from_millis(150);
/// The longest pause before a call is repeated, whatever the server asks for.
const DELAY_MAX: Duration = Duration::from_secs(5);
/// How often an overloaded server is asked again; the pause that it asks for doubles each time.
const OVERLOADED_MAX: u32 = 8;
/// The shortest such pause.
const OVERLOADED_DELAY_MIN: Duration = Duration::from_millis(10);

/// A client of the control plane. Cheap to clone; clones share which address is in use.
#[derive(Clone, Debug)]
pub struct Client {
    addresses: Arc<[Address]>,
    current: Arc<AtomicUsize>,
    patience: Duration,
}

#[derive(Clone, Debug)]
struct Address {
    name: String,
    channel: Channel,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The control plane refused, or did not become ready in time.
    #[error("{}", session::describe(.0))]
    Refused(Box<Status>),
    /// None of the addresses answers.
    #[error("cannot reach {}: {}", servers.join(" or "), session::describe(status))]
    Unreachable {
        /// The addresses.
        servers: Vec<String>,
        /// What the last attempt said.
        status: Box<Status>,
    },
}

/// How the tries of one call went so far.
#[derive(Debug, Default)]
struct Tries {
    silent: usize,
    unavailable: usize,
    overloaded: u32,
}

impl Client {
    /// A client of these addresses; connects to none yet.
    ///
    /// # Errors
    /// When one is no address, or there is none.
    pub fn new<Name: AsRef<str>>(servers: impl IntoIterator<Item = Name>) -> Result<Self, Error> {
        let mut channels = Vec::new();
        for server in servers {
            let name = server.as_ref().to_owned();
            let channel = connect::endpoint(&name)?.connect_lazy();
            channels.push((name, channel));
        }
        if channels.is_empty() {
            return Err(Error::Argument("no address of a control plane is given".to_owned()));
        }
        Ok(Self::over(channels))
    }

    /// A client over channels, each with the name by which errors call it. Without any, every
    /// call fails.
    pub fn over(channels: Vec<(String, Channel)>) -> Self {
        let addresses = channels.into_iter().map(|(name, channel)| Address { name, channel });
        Self { addresses: addresses.collect(), current: Arc::default(), patience: CALL_PATIENCE }
    }

    /// The same with another patience: how long a call is repeated.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Calls a method, again and elsewhere as the module's text says.
    ///
    /// # Errors
    /// What the server said at last, or that there is none.
    pub async fn call<T>(
        &self,
        method: impl AsyncFn(Channel) -> Result<Response<T>, Status>,
    ) -> Result<T, CallError> {
        let until = Instant::now() + self.patience;
        let mut tries = Tries::default();
        loop {
            let outcome = match self.channel() {
                Some(channel) => tokio::time::timeout(CALL_TIMEOUT, method(channel)).await,
                None => Ok(Err(Status::unavailable("the client has no address"))),
            };
            let status = match outcome {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded(format!(
                    "the server gave no answer within {} s",
                    CALL_TIMEOUT.as_secs()
                )),
            };
            match self.delay(&status, &mut tries) {
                Some(delay) if Instant::now() + delay < until => tokio::time::sleep(delay).await,
                _ if is_transient(&status) => return Err(self.unreachable(status)),
                _ => return Err(CallError::Refused(Box::new(status))),
            }
        }
    }

    /// Starts a run; makes the request repeatable where it is not yet.
    ///
    /// # Errors
    /// As those of [`Client::call`].
    pub async fn start_run(&self, mut request: v1::StartRunRequest) -> Result<v1::Run, CallError> {
        if request.request_id.is_empty() {
            #[expect(clippy::disallowed_methods, reason = "the id is to be like no other's")]
            let id = rand::rng().random::<u128>();
            request.request_id = format!("{id:032x}");
        }
        let started =
            self.call(async |channel| orchestrator(channel).start_run(request.clone()).await);
        Ok(started.await?.run.unwrap_or_default())
    }

    /// Waits for a run's end, over broken connections and stopping servers, and gives the run as
    /// it ended.
    ///
    /// # Errors
    /// When the watch is refused, or nothing was heard of the run for the client's patience.
    pub async fn wait(&self, run_id: &str) -> Result<v1::Run, CallError> {
        let mut after_sequence = 0;
        loop {
            let watched = self.call(async |channel| {
                let request = v1::WatchRunRequest { run_id: run_id.to_owned(), after_sequence };
                orchestrator(channel).watch_run(request).await
            });
            let mut items = watched.await?;
            let status = loop {
                match items.message().await {
                    Ok(Some(v1::WatchRunResponse { item: Some(Item::Ended(ended)) })) => {
                        return Ok(ended.run.unwrap_or_default());
                    }
                    Ok(Some(v1::WatchRunResponse { item: Some(Item::Event(event)) })) => {
                        after_sequence = event.sequence;
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => break Status::unavailable("the server ended the watch"),
                    Err(status) => break status,
                }
            };
            if !is_transient(&status) {
                return Err(CallError::Refused(Box::new(status)));
            }
            self.next_address();
            tokio::time::sleep(jittered(ROUND_DELAY)).await;
        }
    }

    /// The channel to the address in use; `None` when the client has none.
    pub fn channel(&self) -> Option<Channel> {
        let current = self.current.load(Ordering::Relaxed) % self.addresses.len().max(1);
        self.addresses.get(current).map(|address| address.channel.clone())
    }

    /// Goes on to the next address, for streams that ended.
    pub fn next_address(&self) {
        self.current.fetch_add(1, Ordering::Relaxed);
    }

    /// Each address with a client that knows it alone.
    pub fn singles(&self) -> Vec<(String, Client)> {
        let single = |address: &Address| Client {
            addresses: Arc::new([address.clone()]),
            current: Arc::default(),
            patience: self.patience,
        };
        self.addresses.iter().map(|address| (address.name.clone(), single(address))).collect()
    }

    /// The error for what a server said that could not be reached, or cannot serve just now.
    pub fn unreachable(&self, status: Status) -> CallError {
        if status.get_details_error_info().is_some() {
            return CallError::Refused(Box::new(status));
        }
        let servers = self.addresses.iter().map(|address| address.name.clone()).collect();
        CallError::Unreachable { servers, status: Box::new(status) }
    }

    /// When a call is worth another try after this; `None` when it is not.
    fn delay(&self, status: &Status, tries: &mut Tries) -> Option<Duration> {
        let asked = status.get_details_retry_info().and_then(|info| info.retry_delay);
        if status.code() == Code::ResourceExhausted {
            let delay =
                asked?.max(OVERLOADED_DELAY_MIN).saturating_mul(1 << tries.overloaded.min(16));
            tries.overloaded += 1;
            let again = tries.overloaded <= OVERLOADED_MAX;
            return again.then(|| jittered(delay.min(DELAY_MAX)));
        }
        if !is_transient(status) {
            return None;
        }
        self.next_address();
        let count = self.addresses.len();
        if let Some(asked) = asked {
            // A server that says so itself: it, or another one, is there again soon.
            tries.unavailable += 1;
            let round = tries.unavailable.is_multiple_of(count);
            return Some(if round {
                jittered(asked.clamp(ROUND_DELAY, DELAY_MAX))
            } else {
                Duration::ZERO
            });
        }
        tries.silent += 1;
        // A server that is silent for long is not asked again, only another one.
        let most = if status.code() == Code::DeadlineExceeded { count } else { count * ROUNDS_MAX };
        if tries.silent >= most && tries.unavailable == 0 {
            return None;
        }
        let round = tries.silent.is_multiple_of(count);
        Some(if round { jittered(ROUND_DELAY) } else { Duration::ZERO })
    }
}

/// A client of workflows and runs, for [`Client::call`], with room for the largest messages.
pub fn orchestrator(channel: Channel) -> OrchestratorServiceClient<Channel> {
    OrchestratorServiceClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// Whether the same request may succeed at another address or a moment later.
pub fn is_transient(status: &Status) -> bool {
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

/// Whether something answered that speaks HTTP and is no gRPC server.
pub fn is_foreign(status: &Status) -> bool {
    status.message().starts_with("grpc-status header missing")
}

/// As long, or up to half as long again, so that many clients do not come back all at once.
fn jittered(delay: Duration) -> Duration {
    #[expect(clippy::disallowed_methods, reason = "jitter is to differ between processes")]
    let mut rng = rand::rng();
    rng.random_range(delay..=delay + delay / 2)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    fn client(count: usize) -> Client {
        Client::new((0..count).map(|n| format!("http://127.0.0.1:{}", n + 1))).unwrap()
    }

    fn said(code: Code, retry_ms: u64) -> Status {
        let mut details = ErrorDetails::with_error_info("X", "orchestrator.v1", HashMap::new());
        details.set_retry_info(Some(Duration::from_millis(retry_ms)));
        Status::with_error_details(code, "said", details)
    }

    #[tokio::test]
    async fn silent_servers_are_given_up_after_some_rounds() {
        let (client, mut tries) = (client(2), Tries::default());
        let refused = Status::unavailable("connection refused");
        let delays: Vec<_> = (0..6).map(|_| client.delay(&refused, &mut tries)).collect();
        assert_eq!(delays.iter().flatten().count(), 5, "two addresses, three rounds: {delays:?}");
        assert_eq!(delays[0], Some(Duration::ZERO), "the next address is tried at once");
        assert!(delays[1] >= Some(ROUND_DELAY), "{delays:?}");
        let silent = Status::deadline_exceeded("no answer");
        let mut tries = Tries::default();
        assert!(client.delay(&silent, &mut tries).is_some());
        assert!(client.delay(&silent, &mut tries).is_none(), "each is waited for once");
    }

    #[tokio::test]
    async fn a_server_that_says_when_to_come_back_is_asked_until_patience_is_over() {
        let (client, mut tries) = (client(1), Tries::default());
        for _ in 0..100 {
            let delay = client.delay(&said(Code::Unavailable, 500), &mut tries).unwrap();
            assert!((500..=750).contains(&delay.as_millis()), "{delay:?}");
        }
        assert!(client.delay(&Status::unavailable("refused"), &mut tries).is_some());
    }

    #[tokio::test]
    async fn an_overloaded_server_is_asked_more_and_more_seldom_at_the_same_address() {
        let (client, mut tries) = (client(2), Tries::default());
        let overloaded = said(Code::ResourceExhausted, 1000);
        for bound in [1000, 2000, 4000, 5000, 5000] {
            let delay = client.delay(&overloaded, &mut tries).unwrap().as_millis();
            assert!((bound..=bound * 3 / 2).contains(&delay), "{delay}");
        }
        let more = (0..9).filter_map(|_| client.delay(&overloaded, &mut tries)).count();
        assert_eq!(more, 3, "eight times in all");
        assert_eq!(client.current.load(Ordering::Relaxed), 0);
        let too_large = Status::resource_exhausted("too large");
        assert!(client.delay(&too_large, &mut tries).is_none(), "waiting does not help");
        assert!(client.delay(&Status::not_found("no"), &mut tries).is_none());
    }
}
