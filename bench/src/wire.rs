//! The bare stream: the same agents and the same frames, and nothing behind them. A control plane
//! that keeps nothing gives a new task for each result.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use contracts::v1::agent_service_server::{AgentService, AgentServiceServer};
use contracts::v1::{self, connect_request, connect_response::Frame};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

use crate::host::agents::Agents;
use crate::workload::NOOP;

/// How many frames may wait for the connection.
const FRAMES_WAITING: usize = 64;

/// Tasks a second over the bare stream, with so many out at a time.
pub(crate) async fn measure(
    concurrency: u32,
    agents: usize,
    warm_up: Duration,
    window: Duration,
) -> anyhow::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let done = Arc::new(AtomicU64::new(0));
    let connected = Connected::default();
    let share = concurrency.div_ceil(u32::try_from(agents)?.max(1));
    let bare = Bare { share, done: Arc::clone(&done), connected };
    let serving = tokio::spawn(
        tonic::transport::Server::builder()
            .tcp_nodelay(true)
            .add_service(AgentServiceServer::new(bare))
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    let agents = Agents::start_at(agents, share, &url).await?;
    tokio::time::sleep(warm_up).await;
    let before = done.load(Ordering::Relaxed);
    let began = std::time::Instant::now();
    tokio::time::sleep(window).await;
    let count = done.load(Ordering::Relaxed) - before;
    let rate = count as f64 / began.elapsed().as_secs_f64();
    drop(agents);
    serving.abort();
    Ok(rate)
}

/// The agents that have registered, by instance.
type Connected = Arc<Mutex<Vec<String>>>;

/// A control plane that keeps nothing.
struct Bare {
    share: u32,
    done: Arc<AtomicU64>,
    connected: Connected,
}

#[tonic::async_trait]
impl AgentService for Bare {
    type ConnectStream = ReceiverStream<Result<v1::ConnectResponse, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<v1::ConnectRequest>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let frames = request.into_inner();
        let (sender, stream) = mpsc::channel(FRAMES_WAITING);
        let (done, connected) = (Arc::clone(&self.done), Arc::clone(&self.connected));
        tokio::spawn(follow(frames, sender, self.share, done, connected));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn poll_tasks(
        &self,
        _: Request<v1::PollTasksRequest>,
    ) -> Result<Response<v1::PollTasksResponse>, Status> {
        Err(Status::unimplemented("the bare stream has no polls"))
    }

    async fn report_task(
        &self,
        _: Request<v1::ReportTaskRequest>,
    ) -> Result<Response<v1::ReportTaskResponse>, Status> {
        Err(Status::unimplemented("the bare stream has no polls"))
    }

    async fn list_agents(
        &self,
        _: Request<v1::ListAgentsRequest>,
    ) -> Result<Response<v1::ListAgentsResponse>, Status> {
        let connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        let agent = |instance: &String| {
            let instance = instance.clone();
            v1::Agent { instance, ..Default::default() }
        };
        let agents = connected.iter().map(agent).collect();
        Ok(Response::new(v1::ListAgentsResponse { agents, ..Default::default() }))
    }

    async fn get_agent(
        &self,
        _: Request<v1::GetAgentRequest>,
    ) -> Result<Response<v1::GetAgentResponse>, Status> {
        Err(Status::unimplemented("the bare stream keeps nothing"))
    }

    async fn drain_agent(
        &self,
        _: Request<v1::DrainAgentRequest>,
    ) -> Result<Response<v1::DrainAgentResponse>, Status> {
        Err(Status::unimplemented("the bare stream keeps nothing"))
    }

    async fn get_agent_metrics(
        &self,
        _: Request<v1::GetAgentMetricsRequest>,
    ) -> Result<Response<v1::GetAgentMetricsResponse>, Status> {
        Err(Status::unimplemented("the bare stream keeps nothing"))
    }
}

type Frames = mpsc::Sender<Result<v1::ConnectResponse, Status>>;

/// Serves one agent until it is gone.
async fn follow(
    mut frames: Streaming<v1::ConnectRequest>,
    to: Frames,
    share: u32,
    done: Arc<AtomicU64>,
    connected: Connected,
) -> Option<()> {
    let mut next = 0_u64;
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    while let Ok(Some(frame)) = frames.message().await {
        match frame.frame {
            Some(connect_request::Frame::Register(register)) => {
                let name = register.instance;
                connected.lock().unwrap_or_else(PoisonError::into_inner).push(name);
                let registered = v1::Registered {
                    session_token: "bare".to_owned(),
                    ping_interval: seconds(1),
                    ping_timeout: seconds(3),
                    accept_timeout: seconds(5),
                    lease: seconds(15),
                    payload_bytes_max: 1 << 20,
                    ..Default::default()
                };
                send(&to, Frame::Registered(registered)).await?;
                send(&to, assign(share as usize, &mut next)).await?;
            }
            Some(connect_request::Frame::Results(results)) => {
                let count = results.results.len();
                done.fetch_add(count as u64, Ordering::Relaxed);
                let ack = |result: v1::TaskResult| v1::ResultAck {
                    task_id: result.task.map(|task| task.task_id).unwrap_or_default(),
                    ..Default::default()
                };
                let acks = results.results.into_iter().map(ack).collect();
                send(&to, Frame::ResultsAck(v1::ResultsAck { acks })).await?;
                send(&to, assign(count, &mut next)).await?;
            }
            Some(connect_request::Frame::Ping(_)) => {
                send(&to, Frame::Pong(v1::Pong::default())).await?;
            }
            _ => {}
        }
    }
    Some(())
}

async fn send(to: &Frames, frame: Frame) -> Option<()> {
    to.send(Ok(v1::ConnectResponse { frame: Some(frame) })).await.ok()
}

fn assign(count: usize, next: &mut u64) -> Frame {
    let task = |_| {
        *next += 1;
        let number = *next;
        let data = Some(v1::payload::Data::Json("{}".to_owned()));
        v1::Task {
            r#ref: Some(v1::TaskRef {
                task_id: format!("00000000-0000-7000-8000-{number:012}/1"),
                lease_token: format!("1.{number}"),
            }),
            action: NOOP.to_owned(),
            run_id: format!("00000000-0000-7000-8000-{number:012}"),
            step: "s0".to_owned(),
            attempt: 1,
            input: Some(v1::Payload { data, media_type: String::new() }),
            idempotency_key: format!("00000000-0000-7000-8000-{number:012}/s0"),
            ..Default::default()
        }
    };
    Frame::Assign(v1::Assign { tasks: (0..count).map(task).collect() })
}
