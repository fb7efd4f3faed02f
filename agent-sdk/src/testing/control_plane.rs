//! A control plane that does what a test says, over a real gRPC connection in memory.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use contracts::v1::agent_service_server::{AgentService, AgentServiceServer};
use contracts::v1::{self, connect_request, connect_response};
use futures::Stream;
use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};
use tower::service_fn;

use super::faults::{self, Faults, kind_of_request, kind_of_response};
use crate::limits::MESSAGE_BYTES_MAX;
use crate::{Agent, CancellationToken, Error, payload};

/// How long a test waits for anything before it fails.
pub const WAIT_MAX: Duration = Duration::from_secs(20);
const QUEUE: usize = 64;
const PIPE_BYTES: usize = 64 * 1024;

/// A scripted control plane.
#[derive(Debug)]
pub struct ControlPlane {
    connect: mpsc::Sender<DuplexStream>,
    peers: mpsc::Receiver<Peer>,
    down: Arc<AtomicBool>,
    from_agent: Faults,
    to_agent: Faults,
}

/// One session of an agent, as the control plane has it.
#[derive(Debug)]
pub struct Peer {
    /// What the agent said first.
    pub register: v1::Register,
    inbound: mpsc::Receiver<connect_request::Frame>,
    outbound: mpsc::Sender<Result<connect_response::Frame, Status>>,
}

impl ControlPlane {
    /// Starts one. It lives as long as the value.
    pub fn start() -> Self {
        let (connect, incoming) = mpsc::channel::<DuplexStream>(QUEUE);
        let (peers, accepted) = mpsc::channel(QUEUE);
        let from_agent = Faults::default();
        let to_agent = Faults::default();
        let service =
            Scripted { peers, from_agent: from_agent.clone(), to_agent: to_agent.clone() };
        let incoming = ReceiverStream::new(incoming).map(Ok::<_, std::io::Error>);
        tokio::spawn(async move {
            let service =
                AgentServiceServer::new(service).max_decoding_message_size(MESSAGE_BYTES_MAX);
            let server = Server::builder().add_service(service);
            if let Err(error) = server.serve_with_incoming(incoming).await {
                tracing::error!(%error, "the scripted control plane ended");
            }
        });
        let down = Arc::default();
        Self { connect, peers: accepted, down, from_agent, to_agent }
    }

    /// Runs an agent against it until `shutdown`.
    pub fn run(
        &self,
        agent: Agent,
        shutdown: CancellationToken,
    ) -> tokio::task::JoinHandle<Result<(), Error>> {
        tokio::spawn(agent.run_on(self.channels(), shutdown))
    }

    /// What gives an agent its channels.
    pub fn channels(
        &self,
    ) -> impl Fn() -> BoxFuture<'static, Result<Channel, String>> + Send + Sync + Clone + 'static
    {
        let connect = self.connect.clone();
        let down = Arc::clone(&self.down);
        move || {
            let connect = connect.clone();
            let down = Arc::clone(&down);
            Box::pin(async move {
                if down.load(Ordering::SeqCst) {
                    return Err("the control plane is down".to_owned());
                }
                let connector = service_fn(move |_| {
                    let connect = connect.clone();
                    async move {
                        let (here, there) = tokio::io::duplex(PIPE_BYTES);
                        connect.send(there).await.map_err(std::io::Error::other)?;
                        Ok::<_, std::io::Error>(TokioIo::new(here))
                    }
                });
                let endpoint = Endpoint::from_static("http://in-memory");
                let opened = endpoint.connect_with_connector(connector).await;
                opened.map_err(|error| error.to_string())
            })
        }
    }

    /// Listens on a TCP port of this machine as well, until the guard is dropped; gives the
    /// address.
    pub async fn listen(&self) -> std::io::Result<(String, tokio_util::sync::DropGuard)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = format!("http://{}", listener.local_addr()?);
        let connect = self.connect.clone();
        let ended = CancellationToken::new();
        let guard = ended.clone().drop_guard();
        tokio::spawn(ended.clone().run_until_cancelled_owned(async move {
            while let Ok((mut tcp, _)) = listener.accept().await {
                let (mut here, there) = tokio::io::duplex(PIPE_BYTES);
                if tcp.set_nodelay(true).is_err() || connect.send(there).await.is_err() {
                    return;
                }
                let pump = async move { tokio::io::copy_bidirectional(&mut tcp, &mut here).await };
                tokio::spawn(ended.clone().run_until_cancelled_owned(pump));
            }
        }));
        Ok((address, guard))
    }

    /// From now on nobody can connect, or everybody again.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    /// Faults for frames on their way from agents.
    pub fn faults_from_agent(&self) -> &Faults {
        &self.from_agent
    }

    /// Faults for frames on their way to agents.
    pub fn faults_to_agent(&self) -> &Faults {
        &self.to_agent
    }

    /// Waits for the next session; its `Register` is read, and `Registered` not sent yet.
    ///
    /// # Panics
    /// When none comes in time.
    pub async fn accept(&mut self) -> Peer {
        let accepted = tokio::time::timeout(WAIT_MAX, self.peers.recv()).await;
        accepted.expect("an agent connects in time").expect("the scripted control plane is there")
    }

    /// Waits for the next session and answers it with [`Peer::welcome`].
    pub async fn accept_and_welcome(&mut self) -> Peer {
        let peer = self.accept().await;
        peer.welcome().await;
        peer
    }
}

impl Peer {
    /// Answers `Register` with short clocks and keeps all tasks in flight.
    pub async fn welcome(&self) {
        let kept = self.register.tasks_in_flight.clone();
        self.send(connect_response::Frame::Registered(self.registered(kept))).await;
    }

    /// An answer to `Register` with clocks for tests, which keeps these tasks.
    pub fn registered(&self, tasks_kept: Vec<v1::TaskRef>) -> v1::Registered {
        let millis = |millis| Some(payload::duration(Duration::from_millis(millis)));
        v1::Registered {
            session_token: format!("session of {}", self.register.instance),
            server_version: "scripted".to_owned(),
            ping_interval: millis(1000),
            ping_timeout: millis(10_000),
            accept_timeout: millis(200),
            lease: millis(500),
            payload_bytes_max: 4 * 1024 * 1024,
            tasks_kept,
        }
    }

    /// Sends a frame.
    pub async fn send(&self, frame: connect_response::Frame) {
        if self.outbound.send(Ok(frame)).await.is_err() {
            tracing::debug!("the agent has left");
        }
    }

    /// Assigns a task.
    pub async fn assign(&self, task: v1::Task) {
        self.send(connect_response::Frame::Assign(v1::Assign { tasks: vec![task] })).await;
    }

    /// Lets a task begin.
    pub async fn proceed(&self, task_id: &str) {
        let task = Some(task_ref(task_id));
        self.send(connect_response::Frame::Proceed(v1::Proceed { task })).await;
    }

    /// Cancels a task.
    pub async fn cancel(&self, task_id: &str, grace: Duration) {
        self.send(connect_response::Frame::Cancel(v1::Cancel {
            task: Some(task_ref(task_id)),
            reason: "the test says so".to_owned(),
            grace: Some(payload::duration(grace)),
        }))
        .await;
    }

    /// Says that a result is durable.
    pub async fn acknowledge(&self, task_id: &str, duplicate: bool) {
        let acks = vec![v1::ResultAck {
            task_id: task_id.to_owned(),
            duplicate,
            lease_token: String::new(),
        }];
        self.send(connect_response::Frame::ResultsAck(v1::ResultsAck { acks })).await;
    }

    /// Breaks the stream.
    pub async fn cut(self) {
        let broken = Err(Status::unavailable("cut by the test"));
        if self.outbound.send(broken).await.is_err() {
            tracing::debug!("the agent has left");
        }
    }

    /// The next frame, whatever it is; `None` when the agent has closed the stream.
    ///
    /// # Panics
    /// When none comes in time.
    pub async fn next(&mut self) -> Option<connect_request::Frame> {
        let frame = tokio::time::timeout(WAIT_MAX, self.inbound.recv()).await;
        frame.expect("the agent says something in time")
    }

    /// The first thing that `pick` takes; what it does not take is passed over.
    ///
    /// # Panics
    /// When the stream ends before, or nothing comes in time.
    pub async fn expect<Picked>(
        &mut self,
        mut pick: impl FnMut(connect_request::Frame) -> Option<Picked>,
    ) -> Picked {
        let search = async {
            loop {
                let frame = self.inbound.recv().await.expect("the agent has closed the stream");
                if let Some(picked) = pick(frame) {
                    return picked;
                }
            }
        };
        tokio::time::timeout(WAIT_MAX, search).await.expect("the agent says it in time")
    }

    /// Waits until a task is accepted, alone or among others.
    pub async fn expect_accepted(&mut self, task_id: &str) {
        self.expect(|frame| match frame {
            connect_request::Frame::Accepted(accepted) => {
                accepted.task.filter(|task| task.task_id == task_id).map(|_| ())
            }
            connect_request::Frame::Status(status) => {
                status.tasks.iter().find(|task| task.task_id == task_id).map(|_| ())
            }
            _ => None,
        })
        .await;
    }

    /// Waits for the result of a task.
    pub async fn expect_result(&mut self, task_id: &str) -> v1::TaskResult {
        self.expect(|frame| match frame {
            connect_request::Frame::Results(results) => results
                .results
                .into_iter()
                .find(|result| result.task.as_ref().is_some_and(|task| task.task_id == task_id)),
            _ => None,
        })
        .await
    }
}

/// A task with this id, action and params, whose lease token is `lease-ID`.
pub fn task(task_id: &str, action: &str, params: &serde_json::Value) -> v1::Task {
    v1::Task {
        r#ref: Some(task_ref(task_id)),
        action: action.to_owned(),
        run_id: "run-1".to_owned(),
        step: action.to_owned(),
        attempt: 1,
        input: Some(payload::json(params.to_string())),
        idempotency_key: format!("key-{task_id}"),
        ..v1::Task::default()
    }
}

fn task_ref(task_id: &str) -> v1::TaskRef {
    v1::TaskRef { task_id: task_id.to_owned(), lease_token: format!("lease-{task_id}") }
}

struct Scripted {
    peers: mpsc::Sender<Peer>,
    from_agent: Faults,
    to_agent: Faults,
}

type Answers = Pin<Box<dyn Stream<Item = Result<v1::ConnectResponse, Status>> + Send>>;

#[tonic::async_trait]
impl AgentService for Scripted {
    type ConnectStream = Answers;

    async fn connect(
        &self,
        request: Request<Streaming<v1::ConnectRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|request| request.frame);
        let Some(connect_request::Frame::Register(register)) = first else {
            return Err(Status::failed_precondition("the first frame must be `Register`"));
        };
        let (frames, inbound) = mpsc::channel(QUEUE);
        let (outbound, answers) = mpsc::channel(QUEUE);
        let ended = CancellationToken::new();
        let faults = self.from_agent.clone();
        let end = ended.clone().drop_guard();
        tokio::spawn(async move {
            pass_requests(requests, frames, faults).await;
            drop(end);
        });
        let peer = Peer { register, inbound, outbound };
        if self.peers.send(peer).await.is_err() {
            return Err(Status::unavailable("the test is over"));
        }
        let responses = responses(answers, self.to_agent.clone());
        // A session that its agent has left is over for the control plane as well.
        let responses = futures::StreamExt::take_until(responses, ended.cancelled_owned());
        Ok(Response::new(Box::pin(responses)))
    }

    async fn poll_tasks(
        &self,
        _: Request<v1::PollTasksRequest>,
    ) -> Result<Response<v1::PollTasksResponse>, Status> {
        Err(not_scripted())
    }

    async fn report_task(
        &self,
        _: Request<v1::ReportTaskRequest>,
    ) -> Result<Response<v1::ReportTaskResponse>, Status> {
        Err(not_scripted())
    }

    async fn list_agents(
        &self,
        _: Request<v1::ListAgentsRequest>,
    ) -> Result<Response<v1::ListAgentsResponse>, Status> {
        Err(not_scripted())
    }

    async fn get_agent(
        &self,
        _: Request<v1::GetAgentRequest>,
    ) -> Result<Response<v1::GetAgentResponse>, Status> {
        Err(not_scripted())
    }

    async fn drain_agent(
        &self,
        _: Request<v1::DrainAgentRequest>,
    ) -> Result<Response<v1::DrainAgentResponse>, Status> {
        Err(not_scripted())
    }

    async fn get_agent_metrics(
        &self,
        _: Request<v1::GetAgentMetricsRequest>,
    ) -> Result<Response<v1::GetAgentMetricsResponse>, Status> {
        Err(not_scripted())
    }
}

fn not_scripted() -> Status {
    Status::unimplemented("the scripted control plane speaks on the stream only")
}

async fn pass_requests(
    mut requests: Streaming<v1::ConnectRequest>,
    frames: mpsc::Sender<connect_request::Frame>,
    faults: Faults,
) {
    let mut channel = faults::Channel::new(faults, kind_of_request);
    while let Ok(Some(request)) = requests.message().await {
        let Some(frame) = request.frame else { continue };
        let (delay, passed) = channel.pass(frame);
        wait(delay).await;
        for frame in passed {
            if frames.send(frame).await.is_err() {
                return;
            }
        }
    }
}

/// Waits only where there is a delay: the shortest sleep takes a millisecond.
async fn wait(delay: Duration) {
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
}

fn responses(
    answers: mpsc::Receiver<Result<connect_response::Frame, Status>>,
    faults: Faults,
) -> Answers {
    let channel = Arc::new(Mutex::new(faults::Channel::new(faults, kind_of_response)));
    let passed = ReceiverStream::new(answers).then(move |answer| {
        let channel = Arc::clone(&channel);
        async move {
            match answer {
                Err(status) => vec![Err(status)],
                Ok(frame) => {
                    let (delay, frames) = channel.lock().await.pass(frame);
                    wait(delay).await;
                    frames
                        .into_iter()
                        .map(|frame| Ok(v1::ConnectResponse { frame: Some(frame) }))
                        .collect()
                }
            }
        }
    });
    Box::pin(futures::StreamExt::flat_map(passed, futures::stream::iter))
}
