//! An agent without the SDK: the frames of the protocol, written by hand, as an agent in another
//! language would.

use contracts::v1::agent_service_client::AgentServiceClient;
use contracts::v1::task_result::Outcome;
use contracts::v1::{self, connect_request::Frame as Say, connect_response::Frame as Told};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::client::json;
use super::{DEADLINE, Server};

/// A session.
#[derive(Debug)]
pub(crate) struct RawAgent {
    say: mpsc::Sender<v1::ConnectRequest>,
    frames: Streaming<v1::ConnectResponse>,
    pub(crate) registered: v1::Registered,
}

/// What an agent says of itself that offers `work` and `more`.
pub(crate) fn register(agent_type: &str, instance: &str, slots: i32) -> v1::Register {
    let action = |name: &str| v1::ActionCard { name: name.to_owned(), ..Default::default() };
    v1::Register {
        agent_type: agent_type.to_owned(),
        instance: instance.to_owned(),
        version: "0.0.1".to_owned(),
        card: Some(v1::AgentCard {
            description: "Frames by hand.".to_owned(),
            actions: vec![action("work"), action("more")],
        }),
        slots,
        ..Default::default()
    }
}

/// A success with this output.
pub(crate) fn success(task: &v1::Task, output: &str) -> Say {
    let outcome = Outcome::Success(v1::TaskSuccess { output: json(output), confidence: None });
    results(task.r#ref.clone(), outcome)
}

pub(crate) fn results(task: Option<v1::TaskRef>, outcome: Outcome) -> Say {
    let result = v1::TaskResult { task, outcome: Some(outcome), usage: None };
    Say::Results(v1::Results { results: vec![result] })
}

pub(crate) fn accepted(task: &v1::Task) -> Say {
    Say::Accepted(v1::Accepted { task: task.r#ref.clone() })
}

/// Opens a stream with this first frame; what comes first on it, or why it is refused.
pub(crate) async fn open(
    channel: Channel,
    first: Say,
) -> Result<(mpsc::Sender<v1::ConnectRequest>, Streaming<v1::ConnectResponse>), Status> {
    let (say, said) = mpsc::channel(64);
    say.send(v1::ConnectRequest { frame: Some(first) }).await.unwrap();
    let mut client = AgentServiceClient::new(channel);
    let frames = client.connect(ReceiverStream::new(said)).await?.into_inner();
    Ok((say, frames))
}

impl RawAgent {
    pub(crate) async fn connect(server: &Server, register: v1::Register) -> Self {
        let first = Say::Register(register);
        let (say, frames) = open(server.channel().await, first).await.unwrap();
        let mut agent = Self { say, frames, registered: v1::Registered::default() };
        match agent.next().await {
            Some(Told::Registered(registered)) => agent.registered = registered,
            other => panic!("the first frame is `Registered`, not {other:?}"),
        }
        agent
    }

    pub(crate) async fn say(&self, frame: Say) {
        self.say.send(v1::ConnectRequest { frame: Some(frame) }).await.unwrap();
    }

    /// A frame that the control plane does not know.
    pub(crate) async fn say_nothing(&self) {
        self.say.send(v1::ConnectRequest { frame: None }).await.unwrap();
    }

    /// The next frame that is not a ping; `None` when the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<Told> {
        loop {
            let next = tokio::time::timeout(DEADLINE, self.frames.message()).await;
            match next.expect("a frame comes in time") {
                Ok(Some(v1::ConnectResponse { frame: Some(Told::Ping(ping)) })) => {
                    self.say(Say::Pong(v1::Pong { nonce: ping.nonce })).await;
                }
                Ok(Some(response)) => return response.frame,
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// The tasks of the next frame, which assigns some.
    pub(crate) async fn assigned(&mut self) -> Vec<v1::Task> {
        match self.next().await {
            Some(Told::Assign(assign)) => assign.tasks,
            other => panic!("tasks come, not {other:?}"),
        }
    }

    pub(crate) async fn task(&mut self) -> v1::Task {
        let mut tasks = self.assigned().await;
        assert_eq!(tasks.len(), 1, "{tasks:?}");
        tasks.remove(0)
    }

    /// Everything that was sent before the answer to a ping of ours, which comes in order.
    pub(crate) async fn sent_so_far(&mut self) -> Vec<Told> {
        self.say(Say::Ping(v1::Ping { nonce: 77 })).await;
        let mut frames = Vec::new();
        loop {
            match self.next().await.expect("the session goes on") {
                Told::Pong(pong) if pong.nonce == 77 => return frames,
                other => frames.push(other),
            }
        }
    }

    /// Takes a task and does it.
    pub(crate) async fn finish(&mut self, task: &v1::Task, output: &str) -> v1::ResultAck {
        self.say(success(task, output)).await;
        self.ack().await
    }

    pub(crate) async fn ack(&mut self) -> v1::ResultAck {
        match self.next().await {
            Some(Told::ResultsAck(mut acks)) => acks.acks.remove(0),
            other => panic!("an acknowledgement comes, not {other:?}"),
        }
    }
}
