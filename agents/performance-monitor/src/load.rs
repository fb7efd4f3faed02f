//! Sends requests to a server and takes the time. Each of the connections sends one request
//! after the other. It must not judge the figures.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout};

use crate::limits;
use crate::target::Target;

/// How much to send.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How many requests at most.
    pub requests: u32,
    /// How many at once.
    pub concurrency: u32,
    /// How long at most.
    pub duration: Duration,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// How many requests were tried.
    pub requests: u32,
    /// How many gave no answer, or one of 400 or above.
    pub errors: u32,
    /// How long each answered request took, without the time to connect.
    pub latencies: Vec<Duration>,
    /// How often each status came.
    pub statuses: BTreeMap<u16, u32>,
    /// How long all took together.
    pub elapsed: Duration,
}

/// Carries out a plan. When it is dropped, nothing goes on.
pub async fn run(target: &Target, plan: Plan) -> Outcome {
    let started = Instant::now();
    let until = started + plan.duration;
    let left = Arc::new(AtomicU32::new(plan.requests));
    let mut workers = JoinSet::new();
    for _ in 0..plan.concurrency.min(plan.requests) {
        let (target, left) = (target.clone(), Arc::clone(&left));
        workers.spawn(async move { work(&target, &left, until).await });
    }
    let mut sum = Outcome::default();
    while let Some(finished) = workers.join_next().await {
        if let Ok(outcome) = finished {
            sum.add(outcome);
        }
    }
    sum.elapsed = started.elapsed();
    sum
}

/// One request: whether the server answers with success.
pub async fn is_healthy(target: &Target) -> bool {
    let Ok(mut connection) = Connection::open(target).await else {
        return false;
    };
    let answer = connection.ask(target).await;
    answer.is_ok_and(|status| status.is_success())
}

async fn work(target: &Target, left: &AtomicU32, until: Instant) -> Outcome {
    let mut outcome = Outcome::default();
    let mut connection = None;
    while Instant::now() < until && take(left) {
        outcome.requests += 1;
        let mut open = match connection.take() {
            Some(open) => open,
            None => match Connection::open(target).await {
                Ok(open) => open,
                Err(Broken) => {
                    outcome.errors += 1;
                    continue;
                }
            },
        };
        let sent = Instant::now();
        let Ok(status) = open.ask(target).await else {
            outcome.errors += 1;
            continue;
        };
        outcome.latencies.push(sent.elapsed());
        *outcome.statuses.entry(status.as_u16()).or_insert(0) += 1;
        if status.is_client_error() || status.is_server_error() {
            outcome.errors += 1;
        }
        // A server may close after an answer; that is no error of the next request.
        connection = open.is_open().await.then_some(open);
    }
    outcome
}

fn take(left: &AtomicU32) -> bool {
    let next = |left: u32| left.checked_sub(1);
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
}

impl Outcome {
    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.latencies.extend(other.latencies);
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_insert(0) += count;
        }
    }
}

/// No answer came, or none that is whole.
struct Broken;

struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    driver: AbortHandle,
}

impl Connection {
    async fn open(target: &Target) -> Result<Self, Broken> {
        let connect = async {
            let stream = TcpStream::connect(target.address).await.map_err(|_| Broken)?;
            stream.set_nodelay(true).map_err(|_| Broken)?;
            handshake(TokioIo::new(stream)).await.map_err(|_| Broken)
        };
        let (sender, connection) =
            timeout(limits::CONNECT_TIME_MAX, connect).await.map_err(|_| Broken)??;
        let driver = tokio::spawn(async move {
            // Its errors come out at the requests.
            let _ = connection.await;
        });
        let driver = driver.abort_handle();
        Ok(Self { sender, driver })
    }

    async fn ask(&mut self, target: &Target) -> Result<StatusCode, Broken> {
        let request = Request::get(&target.path)
            .header(header::HOST, &target.authority)
            .header(header::USER_AGENT, "performance-monitor")
            .header(header::ACCEPT, "*/*")
            .body(Empty::new())
            .map_err(|_| Broken)?;
        let exchange = async {
            let answer = self.sender.send_request(request).await.map_err(|_| Broken)?;
            let status = answer.status();
            let mut body = Limited::new(answer.into_body(), limits::ANSWER_BYTES_MAX);
            while let Some(frame) = body.frame().await {
                frame.map_err(|_| Broken)?;
            }
            Ok(status)
        };
        timeout(limits::REQUEST_TIME_MAX, exchange).await.map_err(|_| Broken)?
    }

    async fn is_open(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
