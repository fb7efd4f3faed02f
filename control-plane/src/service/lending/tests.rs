//! Two replicas that lend each other agents over real gRPC, with sinks that make everything
//! durable at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use contracts::v1::agent_service_client::AgentServiceClient;
use contracts::v1::agent_service_server::AgentServiceServer;
use contracts::v1::lending_service_server::LendingServiceServer;
use contracts::v1::{connect_request, connect_response};
use engine::task::{Delivery, Purpose, TaskKey, TaskOrder, TaskOutcome};
use engine::{InstanceId, RunId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Endpoint, Server};

use super::*;
use crate::clock::{Clock as _, SystemClock};
use crate::config::Secret;
use crate::dispatch::{Answer, Config, Emitted, LeaseToken, Report, ReportAck, ReportSink};
use crate::replicas::{Peer, Peers, Tcp};
use crate::service::agent::AgentApi;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

struct Sink(mpsc::UnboundedSender<(TaskKey, TaskOutcome)>);

impl ReportSink for Sink {
    fn report(&self, report: Report, answer: Answer) {
        drop(self.0.send((report.task.key, report.task.outcome)));
        answer.send(ReportAck::Durable);
    }

    fn inquire(&self, _key: TaskKey, _lease: LeaseToken, answer: Answer) {
        answer.send(ReportAck::Duplicate);
    }

    fn emit(&self, _emitted: Emitted) {}
}

struct Node {
    dispatcher: Dispatcher,
    ended: mpsc::UnboundedReceiver<(TaskKey, TaskOutcome)>,
    peers: Peers,
    stop: CancellationToken,
    address: SocketAddr,
}

fn peer(number: u64, address: SocketAddr) -> Peer {
    let id = store::OwnerId(uuid::Uuid::from_u64_pair(1, number));
    Peer { id, epoch: number, address: address.to_string() }
}

/// Two replicas that know each other and have the same secret.
async fn two() -> [Node; 2] {
    let mut listeners = Vec::new();
    for _ in 0..2 {
        listeners.push(tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let places: Vec<Peer> = listeners
        .iter()
        .zip(1..)
        .map(|(listener, number)| peer(number, listener.local_addr().unwrap()))
        .collect();
    let mut nodes = Vec::new();
    for (number, listener) in listeners.into_iter().enumerate() {
        let dispatcher = Dispatcher::new(Config::default(), SystemClock::shared());
        let (sender, ended) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        dispatcher.start(Arc::new(Sink(sender)), stop.clone());
        let address = listener.local_addr().unwrap();
        let agents = AgentApi::new(dispatcher.clone(), stop.clone());
        let server = Server::builder()
            .add_service(AgentServiceServer::new(agents))
            .add_service(LendingServiceServer::new(LendingApi::new(dispatcher.clone())));
        let stopped = stop.clone().cancelled_owned();
        let incoming = TcpListenerStream::new(listener);
        tokio::spawn(server.serve_with_incoming_shutdown(incoming, stopped));
        let peers = Peers::new(Some(Secret::new("between us")), Arc::new(Tcp));
        peers.set(Some(places[number].clone()), vec![places[1 - number].clone()]);
        tokio::spawn(dispatcher.clone().share(peers.clone(), stop.clone()));
        nodes.push(Node { dispatcher, ended, peers, stop, address });
    }
    nodes.try_into().unwrap_or_else(|_| panic!("two"))
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Agent {
    sender: mpsc::Sender<v1::ConnectRequest>,
    frames: Streaming<v1::ConnectResponse>,
}

async fn connect(node: &Node, slots: i32) -> Agent {
    let endpoint = Endpoint::from_shared(format!("http://{}", node.address)).unwrap();
    let mut client = AgentServiceClient::new(endpoint.connect().await.unwrap());
    let (sender, receiver) = mpsc::channel(10_000);
    let action = v1::ActionCard { name: "do".into(), ..Default::default() };
    let register = v1::Register {
        agent_type: "t".into(),
        instance: "a".into(),
        slots,
        card: Some(v1::AgentCard { actions: vec![action], ..Default::default() }),
        ..Default::default()
    };
    let frame = Some(connect_request::Frame::Register(register));
    sender.send(v1::ConnectRequest { frame }).await.unwrap();
    let frames = client.connect(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    Agent { sender, frames }
}

impl Agent {
    async fn next(&mut self) -> connect_response::Frame {
        let message = tokio::time::timeout(PATIENCE, self.frames.message()).await;
        message.expect("in time").unwrap().expect("the stream goes on").frame.unwrap()
    }

    async fn say(&self, frame: connect_request::Frame) {
        self.sender.send(v1::ConnectRequest { frame: Some(frame) }).await.unwrap();
    }

    /// Does everything at once until so many results are acknowledged.
    async fn work(&mut self, count: usize) {
        let mut acknowledged = 0;
        while acknowledged < count {
            match self.next().await {
                connect_response::Frame::Assign(assign) => {
                    let result = |task: v1::Task| v1::TaskResult {
                        task: task.r#ref,
                        outcome: Some(v1::task_result::Outcome::Success(Default::default())),
                        usage: None,
                    };
                    let results = assign.tasks.into_iter().map(result).collect();
                    self.say(connect_request::Frame::Results(v1::Results { results })).await;
                }
                connect_response::Frame::ResultsAck(acks) => acknowledged += acks.acks.len(),
                connect_response::Frame::Ping(ping) => {
                    let pong = v1::Pong { nonce: ping.nonce };
                    self.say(connect_request::Frame::Pong(pong)).await;
                }
                _ => {}
            }
        }
    }
}

fn order(number: u32) -> TaskOrder {
    let now = SystemClock::new().now();
    TaskOrder {
        key: TaskKey {
            run: RunId::derived(RunId::at_instant(now, ""), "w"),
            instance: InstanceId(number),
            purpose: Purpose::Do,
        },
        path: "step".into(),
        attempt: 1,
        agent: Some("t".into()),
        preferred_instance: None,
        action: "do".into(),
        requires: Arc::default(),
        input: "{}".into(),
        upstream: Vec::new(),
        idempotency_key: format!("w/{number}").into(),
        timeout: None,
        deadline: None,
        not_before: None,
        queued_at: now,
        queue_timeout: None,
        priority: 5,
        fairness_key: "w".into(),
        delivery: Delivery::AtLeastOnce,
        begun: false,
        begun_by: None,
        epoch: 2,
        undo_of: false,
    }
}

async fn ended(node: &mut Node) -> TaskOutcome {
    let ended = tokio::time::timeout(PATIENCE, node.ended.recv()).await;
    ended.expect("in time").expect("the sink lives").1
}

#[tokio::test]
async fn agents_of_one_replica_do_the_tasks_of_the_other() {
    let [one, mut other] = two().await;
    let mut agent = connect(&one, 50).await;
    let count = 1_000;
    for number in 0..count {
        other.dispatcher.submit(order(number));
    }
    tokio::time::timeout(PATIENCE, agent.work(count as usize)).await.expect("in time");
    for _ in 0..count {
        assert!(matches!(ended(&mut other).await, TaskOutcome::Succeeded { .. }));
    }
    let shown = other.dispatcher.agents(None, 10);
    assert_eq!(shown.len(), 1);
    let place = one.peers.own().unwrap().id;
    assert_eq!(shown[0].replica, Some(place));
    assert_eq!(one.dispatcher.agents(None, 10)[0].replica, Some(place));
}

#[tokio::test]
async fn who_does_not_know_the_secret_borrows_nothing() {
    let [one, _other] = two().await;
    let endpoint = Endpoint::from_shared(format!("http://{}", one.address)).unwrap();
    let channel = endpoint.connect().await.unwrap();
    let mut client = v1::lending_service_client::LendingServiceClient::new(channel);
    let refused = client.lend(tokio_stream::empty()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
}

#[tokio::test]
async fn a_replica_that_lives_no_more_is_lent_nothing() {
    let [one, mut other] = two().await;
    let mut agent = connect(&one, 1).await;
    other.dispatcher.submit(order(0));
    agent.work(1).await;
    assert!(matches!(ended(&mut other).await, TaskOutcome::Succeeded { .. }));
    one.peers.set(one.peers.own(), Vec::new());
    let gone = async {
        while !other.dispatcher.agents(None, 10).is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("in time");
    one.peers.set(one.peers.own(), other.peers.own().into_iter().collect());
    other.dispatcher.submit(order(1));
    agent.work(1).await;
    assert!(matches!(ended(&mut other).await, TaskOutcome::Succeeded { .. }));
}
