//! The service over real gRPC, with a sink that does what a test tells it.

use std::sync::Arc;
use std::time::Duration;

use contracts::v1::agent_service_client::AgentServiceClient;
use contracts::v1::agent_service_server::AgentServiceServer;
use contracts::v1::{connect_request, connect_response, payload, task_result};
use engine::task::{Delivery, Json, Purpose, TaskKey, TaskOrder, TaskOutcome};
use engine::{InstanceId, RunId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Code;
use tonic::transport::{Channel, Endpoint, Server};
use tonic_types::StatusExt as _;

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::dispatch::{
    Answer, Clocks, Config, Emitted, LeaseToken, Report, ReportAck, ReportSink, UpdateKind,
};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(10);

struct Sink(mpsc::UnboundedSender<Told>);

enum Told {
    Report(Box<Report>, Answer),
    Inquiry(TaskKey, Answer),
    Emitted(Emitted),
}

impl ReportSink for Sink {
    fn report(&self, report: Report, answer: Answer) {
        drop(self.0.send(Told::Report(Box::new(report), answer)));
    }

    fn inquire(&self, key: TaskKey, _lease: LeaseToken, answer: Answer) {
        drop(self.0.send(Told::Inquiry(key, answer)));
    }

    fn emit(&self, emitted: Emitted) {
        drop(self.0.send(Told::Emitted(emitted)));
    }
}

struct Service {
    dispatcher: Dispatcher,
    client: AgentServiceClient<Channel>,
    told: mpsc::UnboundedReceiver<Told>,
    _stop: DropGuard,
}

async fn serve(clocks: Clocks) -> Service {
    let clock: Arc<dyn Clock> = SystemClock::shared();
    let dispatcher = Dispatcher::new(Config { clocks, ..Config::default() }, clock);
    let (sender, told) = mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    dispatcher.start(Arc::new(Sink(sender)), stop.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service =
        AgentServiceServer::new(AgentApi::new(dispatcher.clone(), CancellationToken::new()))
            .max_decoding_message_size(limits::MESSAGE_BYTES_MAX);
    let server = Server::builder().add_service(service);
    let stopped = stop.clone().cancelled_owned();
    tokio::spawn(server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped));
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let client = AgentServiceClient::new(endpoint.connect().await.unwrap());
    Service { dispatcher, client, told, _stop: stop.drop_guard() }
}

struct Agent {
    sender: mpsc::Sender<v1::ConnectRequest>,
    frames: Streaming<v1::ConnectResponse>,
}

fn register(instance: &str) -> v1::Register {
    let action = |name: &str| v1::ActionCard { name: name.into(), ..Default::default() };
    v1::Register {
        agent_type: "t".into(),
        instance: instance.into(),
        slots: 2,
        card: Some(v1::AgentCard {
            actions: vec![
                v1::ActionCard { inherits: vec!["dir".into()], ..action("do") },
                action("other"),
            ],
            ..Default::default()
        }),
        ..Default::default()
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
        input: r#"{"n":1.0000000000000000001}"#.into(),
        upstream: Vec::new(),
        idempotency_key: "key".into(),
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
        epoch: 1,
        undo_of: false,
    }
}

fn json(text: &str) -> Option<v1::Payload> {
    Some(v1::Payload { data: Some(payload::Data::Json(text.into())), media_type: String::new() })
}

fn success(task: Option<v1::TaskRef>, output: Option<v1::Payload>) -> connect_request::Frame {
    let outcome = task_result::Outcome::Success(v1::TaskSuccess { output, confidence: None });
    let result = v1::TaskResult { task, outcome: Some(outcome), usage: None };
    connect_request::Frame::Results(v1::Results { results: vec![result] })
}

impl Service {
    async fn open(
        &mut self,
        first: connect_request::Frame,
    ) -> Result<(mpsc::Sender<v1::ConnectRequest>, Streaming<v1::ConnectResponse>), Status> {
        let (sender, receiver) = mpsc::channel(64);
        sender.send(v1::ConnectRequest { frame: Some(first) }).await.unwrap();
        let response = self.client.connect(ReceiverStream::new(receiver)).await?;
        Ok((sender, response.into_inner()))
    }

    async fn connect(&mut self, register: v1::Register) -> Agent {
        let first = connect_request::Frame::Register(register);
        let (sender, frames) = self.open(first).await.unwrap();
        Agent { sender, frames }
    }

    async fn told(&mut self) -> Told {
        tokio::time::timeout(PATIENCE, self.told.recv()).await.unwrap().unwrap()
    }

    async fn reported(&mut self, ack: Option<ReportAck>) -> Report {
        let Told::Report(report, answer) = self.told().await else { panic!("a report") };
        match ack {
            Some(ack) => answer.send(ack),
            None => drop(answer),
        }
        *report
    }
}

impl Agent {
    async fn say(&self, frame: connect_request::Frame) {
        self.sender.send(v1::ConnectRequest { frame: Some(frame) }).await.unwrap();
    }

    /// The next frame that is no ping.
    async fn next(&mut self) -> Option<connect_response::Frame> {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.frames.message()).await.unwrap();
            match next.unwrap()?.frame.unwrap() {
                connect_response::Frame::Ping(_) => {}
                frame => return Some(frame),
            }
        }
    }

    async fn registered(&mut self) -> v1::Registered {
        match self.next().await {
            Some(connect_response::Frame::Registered(registered)) => registered,
            other => panic!("{other:?}"),
        }
    }

    async fn task(&mut self) -> v1::Task {
        match self.next().await {
            Some(connect_response::Frame::Assign(mut assign)) => assign.tasks.remove(0),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_task_goes_out_and_its_result_is_acknowledged_once_durable() {
    let mut service = serve(Clocks::default()).await;
    let mut agent = service.connect(register("a")).await;
    let registered = agent.registered().await;
    assert_eq!(registered.session_token.len(), 32);
    assert_eq!(registered.lease.unwrap().seconds, 15);
    let upstream: Vec<(Arc<str>, Json)> =
        vec![("s".into(), "[]".into()), ("r".into(), r#"{"dir":1.50,"n":2}"#.into())];
    let order = TaskOrder { upstream, ..order(1) };
    let run = order.key.run;
    let mut updates = service.dispatcher.watch(run);
    service.dispatcher.submit(order.clone());
    let task = agent.task().await;
    assert_eq!(task.input, json(r#"{"n":1.0000000000000000001}"#), "all digits are kept");
    assert_eq!(task.inherited, json(r#"{"dir":1.50}"#));
    assert_eq!((task.attempt, task.run_id.as_str()), (1, run.to_string().as_str()));
    agent.say(connect_request::Frame::Accepted(v1::Accepted { task: task.r#ref.clone() })).await;
    agent.say(success(task.r#ref.clone(), json("[2.50]"))).await;
    let Told::Report(report, answer) = service.told().await else { panic!("a report") };
    let TaskOutcome::Succeeded { output, .. } = &report.task.outcome else { panic!("{report:?}") };
    assert_eq!(&**output, "[2.50]");
    let lease_token = task.r#ref.unwrap().lease_token;
    assert_eq!(report.lease.unwrap().to_string(), lease_token);
    assert_eq!(updates.recv().await.unwrap().what, UpdateKind::Accepted);
    // Before the answer there is nothing but pings.
    agent.say(connect_request::Frame::Ping(v1::Ping { nonce: 7 })).await;
    let next = agent.next().await;
    assert_eq!(next, Some(connect_response::Frame::Pong(v1::Pong { nonce: 7 })));
    answer.send(ReportAck::Durable);
    let ack = v1::ResultAck { task_id: order.key.to_string(), duplicate: false, lease_token };
    let expected = connect_response::Frame::ResultsAck(v1::ResultsAck { acks: vec![ack] });
    assert_eq!(agent.next().await, Some(expected));
}

#[tokio::test]
async fn the_first_frame_must_be_register() {
    let mut service = serve(Clocks::default()).await;
    let first = connect_request::Frame::Credits(v1::Credits::default());
    let status = service.open(first).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "NOT_REGISTERED");
}

#[tokio::test]
async fn a_wrong_registration_names_its_fields() {
    let mut service = serve(Clocks::default()).await;
    let wrong = v1::Register { agent_type: "T".into(), slots: 0, ..register("") };
    let first = connect_request::Frame::Register(wrong.clone());
    let status = service.open(first).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let fields = |status: Status| -> Vec<String> {
        let details = status.get_error_details();
        let violations = &details.bad_request().unwrap().field_violations;
        violations.iter().map(|violation| violation.field.clone()).collect()
    };
    assert_eq!(fields(status), ["agent_type", "instance", "slots"]);
    let request =
        v1::PollTasksRequest { register: Some(wrong), max_tasks: 1, ..Default::default() };
    let status = service.client.poll_tasks(request).await.unwrap_err();
    assert_eq!(fields(status)[0], "register.agent_type");
}

#[tokio::test]
async fn frames_that_make_no_sense_are_answered_and_the_session_goes_on() {
    let mut service = serve(Clocks::default()).await;
    let mut agent = service.connect(register("a")).await;
    agent.registered().await;
    let bad = v1::TaskRef { task_id: "x".into(), lease_token: String::new() };
    agent.say(connect_request::Frame::Accepted(v1::Accepted { task: Some(bad) })).await;
    agent.say(connect_request::Frame::Register(register("a"))).await;
    let wrong = v1::Credits { total: -1, ..Default::default() };
    agent.say(connect_request::Frame::Credits(wrong)).await;
    for _ in 0..3 {
        let next = agent.next().await;
        let Some(connect_response::Frame::Fault(fault)) = next else { panic!("{next:?}") };
        assert_eq!(fault.status.unwrap().code, Code::InvalidArgument as i32);
    }
    let foreign = v1::TaskRef { task_id: order(1).key.to_string(), lease_token: "not ours".into() };
    agent.say(success(Some(foreign), None)).await;
    let next = agent.next().await;
    assert!(matches!(next, Some(connect_response::Frame::LeaseLost(_))), "{next:?}");
    service.dispatcher.submit(order(1));
    agent.task().await;
}

#[tokio::test]
async fn an_output_that_is_not_json_fails_the_attempt() {
    let mut service = serve(Clocks::default()).await;
    let mut agent = service.connect(register("a")).await;
    agent.registered().await;
    for (number, output) in [(1, "{"), (2, "\"\\u12\"")] {
        service.dispatcher.submit(order(number));
        let task = agent.task().await;
        agent.say(success(task.r#ref, json(output))).await;
        let report = service.reported(Some(ReportAck::Durable)).await;
        let TaskOutcome::Failed(error) = report.task.outcome else { panic!("a failure") };
        assert_eq!(error.code, "invalid_output");
        assert!(error.message.contains("is not JSON"), "{error:?}");
        agent.next().await;
    }
}

#[tokio::test]
async fn what_must_run_at_most_once_proceeds_when_its_start_is_durable() {
    let mut service = serve(Clocks::default()).await;
    let mut agent = service.connect(register("a")).await;
    agent.registered().await;
    service.dispatcher.submit(TaskOrder { delivery: Delivery::AtMostOnce, ..order(1) });
    let task = agent.task().await;
    assert!(task.await_proceed);
    agent.say(connect_request::Frame::Accepted(v1::Accepted { task: task.r#ref.clone() })).await;
    let report = service.reported(Some(ReportAck::Durable)).await;
    assert_eq!(report.task.outcome, TaskOutcome::Started);
    let next = agent.next().await;
    assert_eq!(next, Some(connect_response::Frame::Proceed(v1::Proceed { task: task.r#ref })));
}

#[tokio::test]
async fn a_cancel_reaches_the_agent_at_once() {
    let mut service = serve(Clocks::default()).await;
    let mut agent = service.connect(register("a")).await;
    agent.registered().await;
    let order = order(1);
    service.dispatcher.submit(order.clone());
    let task = agent.task().await;
    let grace = Duration::from_secs(60);
    service.dispatcher.cancel(&order.key, "enough", grace);
    let next = agent.next().await;
    let Some(connect_response::Frame::Cancel(cancel)) = next else { panic!("{next:?}") };
    assert_eq!((cancel.task, cancel.reason.as_str()), (task.r#ref.clone(), "enough"));
    let outcome = task_result::Outcome::Cancelled(v1::TaskCancelled::default());
    let result = v1::TaskResult { task: task.r#ref, outcome: Some(outcome), usage: None };
    agent.say(connect_request::Frame::Results(v1::Results { results: vec![result] })).await;
    let report = service.reported(Some(ReportAck::Durable)).await;
    assert_eq!(report.task.outcome, TaskOutcome::Cancelled);
}

#[tokio::test]
async fn deadlines_are_watched_without_anything_happening() {
    let accept = Duration::from_millis(30);
    let mut service = serve(Clocks { accept, ..Clocks::default() }).await;
    let mut agent = service.connect(register("a")).await;
    agent.registered().await;
    service.dispatcher.submit(order(1));
    let first = agent.task().await.r#ref.unwrap();
    let next = agent.next().await;
    let Some(connect_response::Frame::LeaseLost(lost)) = next else { panic!("{next:?}") };
    assert_eq!(lost.task_id, first.task_id);
    assert_ne!(agent.task().await.r#ref.unwrap().lease_token, first.lease_token);
}

#[tokio::test]
async fn a_silent_agent_loses_its_stream() {
    let clocks = Clocks {
        ping_busy: Duration::from_millis(10),
        ping_idle: Duration::from_millis(10),
        ping_timeout: Duration::from_millis(30),
        ..Clocks::default()
    };
    let mut service = serve(clocks).await;
    let mut agent = service.connect(register("a")).await;
    agent.registered().await;
    assert_eq!(agent.next().await, None, "the stream ends");
    assert_eq!(service.dispatcher.counts().agents, 0);
}

#[tokio::test]
async fn an_agent_that_comes_back_keeps_its_task_and_a_dropped_report_is_made_again() {
    let report_again = Duration::from_millis(10);
    let mut service = serve(Clocks { report_again, ..Clocks::default() }).await;
    let mut agent = service.connect(register("a")).await;
    agent.registered().await;
    service.dispatcher.submit(order(1));
    let task = agent.task().await;
    agent.say(connect_request::Frame::Accepted(v1::Accepted { task: task.r#ref.clone() })).await;
    let tasks_in_flight = task.r#ref.clone().into_iter().collect();
    let mut again = service.connect(v1::Register { tasks_in_flight, ..register("a") }).await;
    assert_eq!(again.registered().await.tasks_kept, [task.r#ref.clone().unwrap()]);
    assert_eq!(agent.next().await, None, "the old stream ends");
    again.say(success(task.r#ref, json("1"))).await;
    service.reported(None).await;
    service.reported(Some(ReportAck::Durable)).await;
    let next = again.next().await;
    assert!(matches!(next, Some(connect_response::Frame::ResultsAck(_))), "{next:?}");
}

#[tokio::test]
async fn an_agent_that_leaves_gives_its_unaccepted_task_to_another() {
    let mut service = serve(Clocks::default()).await;
    let mut agent = service.connect(register("a")).await;
    agent.registered().await;
    service.dispatcher.submit(order(1));
    agent.task().await;
    let mut other = service.connect(register("b")).await;
    other.registered().await;
    drop(agent);
    other.task().await;
}

#[tokio::test]
async fn results_of_unknown_tasks_and_events_go_to_the_sink() {
    let mut service = serve(Clocks::default()).await;
    let mut agent = service.connect(register("a")).await;
    agent.registered().await;
    let key = order(9).key;
    let lease = LeaseToken { epoch: 1, attempt: 1, counter: 1 }.to_string();
    let task = v1::TaskRef { task_id: key.to_string(), lease_token: lease };
    agent.say(success(Some(task.clone()), None)).await;
    let Told::Inquiry(asked, answer) = service.told().await else { panic!("an inquiry") };
    assert_eq!(asked, key);
    answer.send(ReportAck::Duplicate);
    let next = agent.next().await;
    let Some(connect_response::Frame::ResultsAck(ack)) = next else { panic!("{next:?}") };
    assert!(ack.acks[0].duplicate);
    let emit = v1::Emit {
        name: "done".into(),
        payload: json("7"),
        run_id: String::new(),
        task: Some(task),
    };
    agent.say(connect_request::Frame::Emit(emit)).await;
    let Told::Emitted(emitted) = service.told().await else { panic!("an event") };
    assert_eq!((emitted.run, emitted.name.as_str(), &*emitted.payload), (key.run, "done", "7"));
}

#[tokio::test]
async fn an_event_under_a_lost_lease_is_no_event() {
    let mut service = serve(Clocks::default()).await;
    let mut agent = service.connect(register("a")).await;
    agent.registered().await;
    service.dispatcher.submit(order(1));
    let held = agent.task().await.r#ref.unwrap();
    let lease = LeaseToken { epoch: 1, attempt: 9, counter: 9 }.to_string();
    let lost = v1::TaskRef { lease_token: lease.clone(), ..held.clone() };
    let emit = |name: &str, task| {
        let (name, payload) = (name.to_owned(), json("7"));
        let emit = v1::Emit { name, payload, run_id: String::new(), task: Some(task) };
        connect_request::Frame::Emit(emit)
    };
    agent.say(emit("late", lost)).await;
    let next = agent.next().await;
    let Some(connect_response::Frame::LeaseLost(said)) = next else { panic!("{next:?}") };
    assert_eq!((said.task_id.as_str(), said.lease_token), (held.task_id.as_str(), lease));
    agent.say(emit("in time", held)).await;
    let Told::Emitted(emitted) = service.told().await else { panic!("an event") };
    assert_eq!(emitted.name, "in time");
}

fn poll(token: &str, id: &str, wait_secs: i64) -> v1::PollTasksRequest {
    v1::PollTasksRequest {
        register: Some(v1::Register { session_token: token.into(), ..register("p") }),
        max_tasks: 2,
        wait: Some(prost_types::Duration { seconds: wait_secs, nanos: 0 }),
        request_id: id.into(),
    }
}

#[tokio::test]
async fn an_agent_without_a_stream_polls_and_reports() {
    let mut service = serve(Clocks::default()).await;
    let mut client = service.client.clone();
    let waiting = tokio::spawn(async move { client.poll_tasks(poll("", "1", 30)).await });
    let order = order(1);
    while service.dispatcher.counts().agents == 0 {
        tokio::task::yield_now().await;
    }
    service.dispatcher.submit(TaskOrder { delivery: Delivery::AtMostOnce, ..order.clone() });
    let polled = waiting.await.unwrap().unwrap().into_inner();
    assert_eq!(polled.tasks.len(), 1);
    let token = polled.session_token;
    let again = service.client.poll_tasks(poll(&token, "1", 0)).await.unwrap().into_inner();
    assert_eq!(again.tasks, polled.tasks);
    assert_eq!(again.session_token, token);

    let task = polled.tasks[0].r#ref.clone();
    let report = |frame| v1::ReportTaskRequest {
        session_token: token.clone(),
        frames: vec![v1::ConnectRequest { frame: Some(frame) }],
    };
    let accepted = connect_request::Frame::Accepted(v1::Accepted { task: task.clone() });
    let mut client = service.client.clone();
    let request = report(accepted);
    let answered = tokio::spawn(async move { client.report_task(request).await });
    assert_eq!(service.reported(Some(ReportAck::Durable)).await.task.outcome, TaskOutcome::Started);
    let frames = answered.await.unwrap().unwrap().into_inner().frames;
    let proceed = connect_response::Frame::Proceed(v1::Proceed { task: task.clone() });
    assert_eq!(frames[0].frame, Some(proceed));

    service.dispatcher.cancel(&order.key, "enough", Duration::from_secs(60));
    let progress = v1::Progress { task: task.clone(), fraction: 0.5, message: String::new() };
    let request = report(connect_request::Frame::Progress(progress));
    let frames = service.client.report_task(request).await.unwrap().into_inner().frames;
    assert!(matches!(frames[0].frame, Some(connect_response::Frame::Cancel(_))), "{frames:?}");

    let request = report(success(task, json("1")));
    let mut client = service.client.clone();
    let answered = tokio::spawn(async move { client.report_task(request).await });
    service.reported(Some(ReportAck::Durable)).await;
    let frames = answered.await.unwrap().unwrap().into_inner().frames;
    assert!(matches!(frames[0].frame, Some(connect_response::Frame::ResultsAck(_))), "{frames:?}");
}

#[tokio::test]
async fn polls_and_reports_are_checked() {
    let mut service = serve(Clocks::default()).await;
    let cases = [
        (v1::PollTasksRequest { max_tasks: 0, ..poll("", "", 0) }, "max_tasks"),
        (v1::PollTasksRequest { max_tasks: 101, ..poll("", "", 0) }, "max_tasks"),
        (v1::PollTasksRequest { register: None, ..poll("", "", 0) }, "register"),
        (poll("", "", 61), "wait"),
        (poll("", "", -1), "wait"),
        (poll("", &"x".repeat(129), 0), "request_id"),
    ];
    for (request, field) in cases {
        let status = service.client.poll_tasks(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with(field), "{status:?}");
    }
    let request = v1::ReportTaskRequest { session_token: "x".into(), frames: Vec::new() };
    let status = service.client.report_task(request).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    let polled = service.client.poll_tasks(poll("", "", 0)).await.unwrap().into_inner();
    assert!(polled.tasks.is_empty(), "no wait, no task");
}

#[tokio::test]
async fn agents_are_listed_found_and_drained() {
    let mut service = serve(Clocks::default()).await;
    let mut agents = Vec::new();
    for instance in ["b", "a", "c"] {
        let mut agent = service.connect(register(instance)).await;
        agent.registered().await;
        agents.push(agent);
    }
    let mut seen = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListAgentsRequest { page_size: 2, page_token };
        let page = service.client.list_agents(request).await.unwrap().into_inner();
        seen.extend(page.agents.into_iter().map(|agent| agent.agent_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, ["t/a", "t/b", "t/c"]);
    let get = |id: &str| v1::GetAgentRequest { agent_id: id.into() };
    let agent = service.client.get_agent(get("t/b")).await.unwrap().into_inner().agent.unwrap();
    assert_eq!(agent.health(), v1::AgentHealth::Healthy);
    let status = service.client.get_agent(get("t")).await.unwrap_err();
    assert!(status.message().contains("t/a, t/b, t/c"), "{status:?}");
    let status = service.client.get_agent(get("u")).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);

    let reason = "maintenance".to_owned();
    let request =
        v1::DrainAgentRequest { agent_id: "t/b".into(), reason, request_id: String::new() };
    let drained = service.client.drain_agent(request).await.unwrap().into_inner().agent.unwrap();
    assert_eq!(drained.health(), v1::AgentHealth::Draining);
    let next = agents[0].next().await;
    let expected = v1::Drain { reason: "maintenance".into() };
    assert_eq!(next, Some(connect_response::Frame::Drain(expected)));
}

#[tokio::test]
async fn figures_are_given_for_actions() {
    let mut service = serve(Clocks::default()).await;
    let mut agent = service.connect(register("a")).await;
    agent.registered().await;
    service.dispatcher.submit(order(1));
    let task = agent.task().await;
    agent.say(success(task.r#ref, None)).await;
    service.reported(Some(ReportAck::Durable)).await;
    let request = v1::GetAgentMetricsRequest::default();
    let figures = service.client.get_agent_metrics(request).await.unwrap().into_inner();
    let action = &figures.actions[0];
    assert_eq!((action.agent_type.as_str(), action.action.as_str()), ("t", "do"));
    assert_eq!((action.executions, action.failures), (1, 0));
    assert!(action.latency_p50.is_some() && figures.range.unwrap().seconds == 3600);
    let range = Some(prost_types::Duration { seconds: 25 * 3600, nanos: 0 });
    let request = v1::GetAgentMetricsRequest { range, ..Default::default() };
    let status = service.client.get_agent_metrics(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}
