//! An agent that knows nothing but the `.proto`: sessions, leases, credits, polls, reports.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use contracts::v1::agent_service_client::AgentServiceClient;
use contracts::v1::connect_request::Frame as Say;
use contracts::v1::connect_response::Frame as Told;
use contracts::v1::task_result::Outcome;
use contracts::v1::{self, EventKind, RunStatus, watch_run_response::Item};
use tempfile::TempDir;
use tokio::sync::Mutex;
use tonic::Code;
use tonic::transport::Channel;

use crate::support::client::{Client, fields, json, reason, text};
use crate::support::raw::{self, RawAgent, accepted, register, success};
use crate::support::{DEADLINE, Server};

/// A control plane without agents, shared by the tests here; each has an agent type of its own.
#[derive(Debug)]
struct Shared {
    server: Server,
    _folder: TempDir,
}

struct World {
    client: Client,
    shared: Arc<Shared>,
}

impl World {
    async fn new() -> Self {
        static SHARED: Mutex<Weak<Shared>> = Mutex::const_new(Weak::new());
        let mut slot = SHARED.lock().await;
        let shared = slot.upgrade().unwrap_or_else(|| {
            let folder = tempfile::tempdir().unwrap();
            let server = Server::start("serve", &folder.path().join("data"), None, &[]);
            Arc::new(Shared { server, _folder: folder })
        });
        *slot = Arc::downgrade(&shared);
        drop(slot);
        Self { client: Client::of(&shared.server).await, shared }
    }

    fn server(&self) -> &Server {
        &self.shared.server
    }

    async fn agent(&self, agent_type: &str, instance: &str, slots: i32) -> RawAgent {
        RawAgent::connect(self.server(), register(agent_type, instance, slots)).await
    }

    async fn polls(&self) -> AgentServiceClient<Channel> {
        self.server().agents().await
    }
}

/// One step for this agent.
fn one(agent_type: &str, more: &str) -> String {
    format!(
        "name: {agent_type}\nsteps:\n  - {{id: s, agent: {agent_type}, action: work, \
         params: {{n: 9007199254740993}}{more}}}\n"
    )
}

/// So many steps side by side.
fn several(agent_type: &str, count: usize) -> String {
    format!(
        "name: {agent_type}\nsteps:\n  - {{id: each, foreach: {:?}, agent: {agent_type}, \
         action: work, params: {{n: '${{{{ item }}}}'}}}}\n",
        (0..count).collect::<Vec<_>>()
    )
}

fn lease(task: &v1::Task) -> v1::TaskRef {
    task.r#ref.clone().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_is_taken_told_of_done_and_acknowledged_once() {
    let world = World::new().await;
    let mut agent = world.agent("raw-done", "a", 1).await;
    let hello = agent.registered.clone();
    assert!(!hello.session_token.is_empty() && !hello.server_version.is_empty());
    assert!(hello.lease.unwrap().seconds > hello.accept_timeout.unwrap().seconds);
    assert!(hello.ping_interval.is_some() && hello.payload_bytes_max > 0);
    let id = world.client.start(&one("raw-done", "")).await;
    let task = agent.task().await;
    assert_eq!((task.action.as_str(), task.step.as_str(), task.attempt), ("work", "s", 1));
    assert_eq!(
        (task.run_id.as_str(), text(task.input.as_ref())),
        (id.as_str(), r#"{"n":9007199254740993}"#)
    );
    assert!(!task.idempotency_key.is_empty() && !task.await_proceed && !task.is_undo);
    assert!(task.lease.is_some() && task.timeout.unwrap().seconds == 30);
    agent.say(accepted(&task)).await;
    let said = v1::Progress { task: task.r#ref.clone(), fraction: 0.5, message: "half".into() };
    let watching = world.client.seen(&id, 0, |item| match item {
        Item::Update(update) => match update.update {
            Some(v1::task_update::Update::Progress(progress)) => Some(progress),
            _ => None,
        },
        _ => None,
    });
    let (progress, ()) = tokio::join!(watching, agent.say(Say::Progress(said)));
    assert_eq!((progress.fraction, progress.message.as_str()), (0.5, "half"));
    let ack = agent.finish(&task, r#"{"b":1,"a":18446744073709551615}"#).await;
    assert_eq!((ack.task_id, ack.duplicate), (lease(&task).task_id, false));
    for _ in 0..2 {
        let ack = agent.finish(&task, r#"{"other":true}"#).await;
        assert_eq!((ack.task_id, ack.duplicate), (lease(&task).task_id, true));
    }
    world.client.ends_well(&id).await;
    let step = world.client.step(&id, "s").await.unwrap();
    assert_eq!(text(step.output.as_ref()), r#"{"b":1,"a":18446744073709551615}"#);
    assert_eq!((step.agent_instance.as_str(), step.attempts), ("a", 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unaccepted_task_of_a_broken_stream_goes_to_another_at_once() {
    let world = World::new().await;
    let mut first = world.agent("raw-gone", "a", 1).await;
    let id = world.client.start(&one("raw-gone", "")).await;
    let task = first.task().await;
    let mut second = world.agent("raw-gone", "b", 1).await;
    let began = Instant::now();
    drop(first);
    let again = second.task().await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(lease(&again).task_id, lease(&task).task_id);
    assert_eq!(again.idempotency_key, task.idempotency_key);
    assert_ne!(lease(&again).lease_token, lease(&task).lease_token);
    assert_eq!(again.attempt, 1, "what was not begun is not an attempt");
    second.finish(&again, "1").await;
    world.client.ends_well(&id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_accepted_task_of_a_broken_stream_goes_to_another_when_its_lease_ends() {
    let world = World::new().await;
    let mut first = world.agent("raw-lease", "a", 1).await;
    let id = world.client.start(&one("raw-lease", ", timeout: 5m")).await;
    let task = first.task().await;
    first.say(accepted(&task)).await;
    first.sent_so_far().await;
    let mut second = world.agent("raw-lease", "b", 1).await;
    let began = Instant::now();
    drop(first);
    let again = second.task().await;
    let lease_time = task.lease.unwrap().seconds.try_into().unwrap();
    let lease_time = Duration::from_secs(lease_time);
    let waited = began.elapsed();
    assert!(waited + Duration::from_secs(3) > lease_time, "not before: {waited:?}");
    assert!(waited < lease_time + Duration::from_secs(5), "not long after: {waited:?}");
    assert_ne!(lease(&again).lease_token, lease(&task).lease_token);
    assert_eq!(again.idempotency_key, task.idempotency_key);
    // The first comes back with what it did: too late.
    let mut first = world.agent("raw-lease", "a", 1).await;
    first.say(success(&task, "\"late\"")).await;
    let next = first.next().await;
    let Some(Told::LeaseLost(lost)) = next else { panic!("{next:?}") };
    assert_eq!(lost.task_id, lease(&task).task_id);
    second.finish(&again, "\"in time\"").await;
    world.client.ends_well(&id).await;
    let step = world.client.step(&id, "s").await.unwrap();
    assert_eq!(text(step.output.as_ref()), "\"in time\"");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_comes_back_keeps_its_task() {
    let world = World::new().await;
    let mut agent = world.agent("raw-back", "a", 1).await;
    let id = world.client.start(&one("raw-back", "")).await;
    let task = agent.task().await;
    agent.say(accepted(&task)).await;
    agent.sent_so_far().await;
    let session_token = agent.registered.session_token.clone();
    drop(agent);
    let _other = world.agent("raw-back", "b", 1).await;
    let foreign = v1::TaskRef { lease_token: "1-1-99".into(), ..lease(&task) };
    let again = v1::Register {
        session_token,
        tasks_in_flight: vec![lease(&task)],
        ..register("raw-back", "a", 1)
    };
    let mut agent = RawAgent::connect(world.server(), again).await;
    assert_eq!(agent.registered.tasks_kept, [lease(&task)]);
    agent.say(Say::Status(v1::Status { tasks: vec![lease(&task)] })).await;
    assert_eq!(agent.sent_so_far().await, [], "nothing is taken from it");
    let wrong = Outcome::Success(v1::TaskSuccess { output: json("0"), confidence: None });
    agent.say(raw::results(Some(foreign), wrong)).await;
    let next = agent.next().await;
    assert!(matches!(next, Some(Told::LeaseLost(_))), "{next:?}");
    assert_ne!(world.client.run(&id).await.status(), RunStatus::Success);
    assert!(!agent.finish(&task, "7").await.duplicate);
    let (events, run) = world.client.events(&id, 0).await;
    assert_eq!(run.status(), RunStatus::Success, "{}", run.error);
    assert!(events.iter().all(|event| event.kind() != EventKind::AttemptFailed));
    assert_eq!(text(world.client.step(&id, "s").await.unwrap().output.as_ref()), "7");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_whose_acknowledgement_was_lost_is_taken_once() {
    let world = World::new().await;
    let mut agent = world.agent("raw-resend", "a", 1).await;
    let id = world.client.start(&one("raw-resend", "")).await;
    let task = agent.task().await;
    agent.say(success(&task, "1")).await;
    world.client.ends_well(&id).await;
    let session_token = agent.registered.session_token.clone();
    drop(agent);
    let again = v1::Register {
        session_token,
        tasks_in_flight: vec![lease(&task)],
        ..register("raw-resend", "a", 1)
    };
    let mut agent = RawAgent::connect(world.server(), again).await;
    agent.say(success(&task, "2")).await;
    let frame = loop {
        match agent.next().await.unwrap() {
            Told::LeaseLost(_) => {}
            other => break other,
        }
    };
    let Told::ResultsAck(acks) = frame else { panic!("{frame:?}") };
    assert!(acks.acks[0].duplicate);
    assert_eq!(text(world.client.step(&id, "s").await.unwrap().output.as_ref()), "1");
}

/// The last first, each in one frame with a second answer and once more behind another's, and only
/// then that they were accepted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_count_once_in_whatever_order_and_however_often_they_come() {
    const COUNT: usize = 24;
    let world = World::new().await;
    let mut agent = world.agent("raw-order", "a", 24).await;
    let id = world.client.start(&several("raw-order", COUNT)).await;
    let mut tasks = Vec::new();
    while tasks.len() < COUNT {
        tasks.extend(agent.assigned().await);
    }
    let result = |task: &v1::Task, output: &str| {
        let Say::Results(mut results) = success(task, output) else { panic!("no result") };
        results.results.remove(0)
    };
    for (at, task) in tasks.iter().enumerate().rev() {
        let input: serde_json::Value = serde_json::from_str(text(task.input.as_ref())).unwrap();
        let mut results = vec![result(task, &input["n"].to_string()), result(task, "-1")];
        results.extend(tasks.get(at + 2).map(|before| result(before, "-2")));
        agent.say(Say::Results(v1::Results { results })).await;
        agent.say(accepted(task)).await;
    }
    // What comes again while the first is being written needs no answer of its own.
    let mut acks: Vec<v1::ResultAck> = Vec::new();
    let mut open: BTreeSet<String> = tasks.iter().map(|task| lease(task).task_id).collect();
    while !open.is_empty() {
        match agent.next().await.unwrap() {
            Told::ResultsAck(more) => {
                open.retain(|task| more.acks.iter().all(|ack| ack.task_id != *task));
                acks.extend(more.acks);
            }
            Told::LeaseLost(_) => {}
            other => panic!("{other:?}"),
        }
    }
    world.client.ends_well(&id).await;
    for frame in agent.sent_so_far().await {
        let Told::ResultsAck(more) = frame else { continue };
        acks.extend(more.acks);
    }
    for task in &tasks {
        let about = |ack: &&v1::ResultAck| ack.task_id == lease(task).task_id;
        let counted = acks.iter().filter(about).filter(|ack| !ack.duplicate).count();
        assert_eq!(counted, 1, "{acks:?}");
    }
    let (events, run) = world.client.events(&id, 0).await;
    assert_eq!(run.status(), RunStatus::Success, "{}", run.error);
    let succeeded = events.iter().filter(|event| event.kind() == EventKind::StepSucceeded);
    assert_eq!(succeeded.count(), COUNT + 1, "each member and the step around them");
    let step = world.client.step(&id, "each").await.unwrap();
    let output: Vec<usize> = serde_json::from_str(text(step.output.as_ref())).unwrap();
    assert_eq!(output, (0..COUNT).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_beginning_is_refused() {
    let world = World::new().await;
    let status = raw::open(world.server().channel().await, Say::Pong(v1::Pong { nonce: 1 })).await;
    let status = status.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::FailedPrecondition, "NOT_REGISTERED")
    );
    let wrong = v1::Register { instance: String::new(), ..register("Wrong Type", "", 0) };
    let status = raw::open(world.server().channel().await, Say::Register(wrong)).await;
    let status = status.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "INVALID_FIELD"));
    assert_eq!(fields(&status), ["agent_type", "instance", "slots"]);
    let mut twice = register("raw-twice", "a", 1);
    let actions = &mut twice.card.as_mut().unwrap().actions;
    actions.push(actions[0].clone());
    actions[1].input_schema = json("{not json");
    let status = raw::open(world.server().channel().await, Say::Register(twice)).await;
    let status = status.unwrap_err();
    assert_eq!(fields(&status).len(), 2, "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_say_nothing_known_change_nothing() {
    let world = World::new().await;
    let mut agent = world.agent("raw-odd", "a", 1).await;
    let first = Say::Register(register("raw-odd", "a", 1));
    agent.say(first).await;
    let next = agent.next().await;
    let Some(Told::Fault(fault)) = next else { panic!("{next:?}") };
    assert_eq!(fault.status.unwrap().code, Code::InvalidArgument as i32);
    agent.say_nothing().await;
    assert_eq!(agent.sent_so_far().await, [], "an unknown frame is passed over");
    let id = world.client.start(&one("raw-odd", "")).await;
    let task = agent.task().await;
    agent.finish(&task, "1").await;
    world.client.ends_well(&id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credits_bound_what_is_out() {
    let world = World::new().await;
    let mut agent = world.agent("raw-credit", "a", 2).await;
    let id = world.client.start(&several("raw-credit", 6)).await;
    let mut tasks = Vec::new();
    while tasks.len() < 2 {
        tasks.extend(agent.assigned().await);
    }
    world.client.finding(&id, "all slots are taken (2 of 2)").await;
    assert_eq!((tasks.len(), agent.sent_so_far().await), (2, vec![]));
    let per_action = [("work".to_owned(), 3)].into_iter().collect();
    agent.say(Say::Credits(v1::Credits { total: 10, per_action })).await;
    tasks.extend(agent.assigned().await);
    assert_eq!((tasks.len(), agent.sent_so_far().await), (3, vec![]), "three of this action");
    agent.say(Say::Credits(v1::Credits { total: 1, ..Default::default() })).await;
    for _ in 0..2 {
        let task = tasks.remove(0);
        agent.finish(&task, "1").await;
        assert_eq!(agent.sent_so_far().await, [], "lowered credits hold for new tasks");
    }
    agent.say(success(&tasks.remove(0), "1")).await;
    // One after the other from here on; the acknowledgement and the next task in any order.
    let (mut done, mut out) = (2, 0);
    while done < 6 {
        match agent.next().await.unwrap() {
            Told::ResultsAck(acks) => done += acks.acks.len(),
            Told::Assign(assign) => {
                out += assign.tasks.len();
                assert_eq!(assign.tasks.len(), 1);
                agent.say(success(&assign.tasks[0], "1")).await;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(out, 3);
    world.client.ends_well(&id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_comes_within_the_blink_of_an_eye() {
    let world = World::new().await;
    let mut agent = world.agent("raw-cancel", "a", 1).await;
    let id = world.client.start(&one("raw-cancel", "")).await;
    let task = agent.task().await;
    agent.say(accepted(&task)).await;
    agent.sent_so_far().await;
    let began = Instant::now();
    world.client.cancel(&id).await.unwrap();
    let next = agent.next().await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    let Some(Told::Cancel(cancel)) = next else { panic!("{next:?}") };
    assert_eq!((cancel.task, cancel.reason.is_empty()), (task.r#ref.clone(), false));
    assert!(cancel.grace.is_some());
    let outcome = Outcome::Cancelled(v1::TaskCancelled { message: "left nothing".into() });
    agent.say(raw::results(task.r#ref.clone(), outcome)).await;
    assert!(!agent.ack().await.duplicate);
    assert_eq!(world.client.ended(&id).await.status(), RunStatus::Cancelled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_released_or_rejected_or_asked_goes_its_way() {
    let world = World::new().await;
    let mut agent = world.agent("raw-ways", "a", 1).await;
    let id = world.client.start(&one("raw-ways", "")).await;
    let task = agent.task().await;
    let mut other = world.agent("raw-ways", "b", 1).await;
    // Without credits it is not given it again.
    agent.say(Say::Credits(v1::Credits::default())).await;
    agent.say(Say::Release(v1::Release { task: task.r#ref.clone(), reason: "busy".into() })).await;
    let again = other.task().await;
    assert_eq!((lease(&again).task_id, again.attempt), (lease(&task).task_id, 1));
    let rejected = v1::TaskRejected { message: "no such order".into(), code: "nope".into() };
    other.say(raw::results(again.r#ref.clone(), Outcome::Rejected(rejected))).await;
    other.ack().await;
    let run = world.client.ended(&id).await;
    assert_eq!(run.status(), RunStatus::Failure);
    assert!(run.error.contains("no such order"), "{}", run.error);

    let retried = one("raw-ways", ", retry: {max_attempts: 3, delay: 1ms, no_retry_on: [hard]}");
    let id = world.client.start(&retried).await;
    let fail = |code: &str| {
        Outcome::Failure(v1::TaskFailure {
            message: "not yet".into(),
            code: code.into(),
            ..Default::default()
        })
    };
    let task = other.task().await;
    other.say(raw::results(task.r#ref.clone(), fail("soft"))).await;
    other.ack().await;
    let second = other.task().await;
    assert_eq!((second.attempt, &second.idempotency_key), (2, &task.idempotency_key));
    other.say(raw::results(second.r#ref.clone(), fail("hard"))).await;
    other.ack().await;
    assert_eq!(world.client.ended(&id).await.status(), RunStatus::Failure);
    assert_eq!(world.client.step(&id, "s").await.unwrap().attempts, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_attempt_keeps_is_given_to_the_next_and_events_are_signals() {
    let world = World::new().await;
    let mut agent = world.agent("raw-state", "a", 1).await;
    let yaml = "name: raw-state\nsteps:\n  - {id: s, agent: raw-state, action: work, \
                retry: {max_attempts: 2, delay: 1ms}}\n  - {id: w, wait_for: done}\n";
    let id = world.client.start(yaml).await;
    let task = agent.task().await;
    assert_eq!(task.last_checkpoint, None);
    let state = v1::TaskCheckpoint { task: task.r#ref.clone(), state: json("{\"page\":7}") };
    agent.say(Say::Checkpoint(state)).await;
    let failure = v1::TaskFailure { message: "not yet".into(), ..Default::default() };
    agent.say(raw::results(task.r#ref.clone(), Outcome::Failure(failure))).await;
    agent.ack().await;
    let task = agent.task().await;
    assert_eq!(text(task.last_checkpoint.as_ref()), "{\"page\":7}");
    let emit = v1::Emit {
        name: "done".into(),
        payload: json("[1]"),
        run_id: String::new(),
        task: task.r#ref.clone(),
    };
    agent.say(Say::Emit(emit)).await;
    agent.finish(&task, "1").await;
    world.client.ends_well(&id).await;
    assert_eq!(text(world.client.step(&id, "w").await.unwrap().output.as_ref()), "[1]");
}

fn poll(agent_type: &str, token: &str, request_id: &str, wait: i64) -> v1::PollTasksRequest {
    let session_token = token.to_owned();
    v1::PollTasksRequest {
        register: Some(v1::Register { session_token, ..register(agent_type, "p", 4) }),
        max_tasks: 2,
        wait: Some(prost_types::Duration { seconds: wait, nanos: 0 }),
        request_id: request_id.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_without_a_stream_polls_and_reports() {
    let world = World::new().await;
    let mut client = world.polls().await;
    let id = world.client.start(&several("raw-poll", 3)).await;
    let first = client.poll_tasks(poll("raw-poll", "", "1", 30)).await.unwrap().into_inner();
    let mut tasks = first.tasks.clone();
    assert!((1..=2).contains(&tasks.len()), "no more than it asked for");
    let token = first.session_token.clone();
    let again = client.poll_tasks(poll("raw-poll", &token, "1", 0)).await.unwrap().into_inner();
    assert_eq!(again, first, "the same request, the same tasks");
    let mut number = 1;
    while tasks.len() < 3 {
        number += 1;
        let more = poll("raw-poll", &token, &number.to_string(), 30);
        tasks.extend(client.poll_tasks(more).await.unwrap().into_inner().tasks);
    }
    let report = async |frames: Vec<Say>| {
        let frames =
            frames.into_iter().map(|frame| v1::ConnectRequest { frame: Some(frame) }).collect();
        let request = v1::ReportTaskRequest { session_token: token.clone(), frames };
        let told = world.polls().await.report_task(request).await;
        told.map(|told| told.into_inner().frames.into_iter().filter_map(|it| it.frame).collect())
    };
    let told: Vec<Told> = report(tasks.iter().map(accepted).collect()).await.unwrap();
    assert_eq!(told, []);
    for task in &tasks[..2] {
        for duplicate in [false, true] {
            let told = report(vec![success(task, "1")]).await.unwrap();
            let [Told::ResultsAck(acks)] = &told[..] else { panic!("{told:?}") };
            assert_eq!(acks.acks[0].duplicate, duplicate);
        }
    }
    world.client.cancel(&id).await.unwrap();
    let last = &tasks[2];
    let progress = || {
        let task = last.r#ref.clone();
        Say::Progress(v1::Progress { task, fraction: 0.1, message: String::new() })
    };
    let mut told = Vec::new();
    crate::support::until("the next report brings the cancel", async || {
        told.extend(report(vec![progress()]).await.unwrap());
        !told.is_empty()
    })
    .await;
    assert!(matches!(&told[..], [Told::Cancel(cancel)] if cancel.task == last.r#ref), "{told:?}");
    let outcome = Outcome::Cancelled(v1::TaskCancelled::default());
    report(vec![raw::results(last.r#ref.clone(), outcome)]).await.unwrap();
    assert_eq!(world.client.ended(&id).await.status(), RunStatus::Cancelled);
    let request = v1::ReportTaskRequest { session_token: "x".into(), frames: vec![] };
    let status = client.report_task(request).await.unwrap_err();
    assert_eq!(reason(&status), "NOT_REGISTERED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_poll_is_answered_when_a_task_comes_and_empty_when_none_does() {
    let world = World::new().await;
    let mut client = world.polls().await;
    let none = client.poll_tasks(poll("raw-wait", "", "1", 0)).await.unwrap().into_inner();
    assert_eq!(none.tasks, []);
    let token = none.session_token;
    let mut waiting = client.clone();
    let request = poll("raw-wait", &token, "2", 60);
    let waiting = tokio::spawn(async move { waiting.poll_tasks(request).await });
    let listed = v1::GetAgentRequest { agent_id: "raw-wait/p".into() };
    assert!(client.get_agent(listed).await.unwrap().into_inner().agent.unwrap().polls);
    let id = world.client.start(&one("raw-wait", ", delivery: at_most_once")).await;
    let polled = tokio::time::timeout(DEADLINE, waiting).await.unwrap().unwrap().unwrap();
    let task = polled.into_inner().tasks.remove(0);
    assert!(task.await_proceed);
    let frames = |frame| vec![v1::ConnectRequest { frame: Some(frame) }];
    let session_token = token.clone();
    let request = v1::ReportTaskRequest { session_token, frames: frames(accepted(&task)) };
    let told = client.report_task(request).await.unwrap().into_inner().frames;
    assert!(matches!(told[0].frame, Some(Told::Proceed(_))), "{told:?}");
    world.client.event(&id, EventKind::TaskStarted, "s").await;
    let request =
        v1::ReportTaskRequest { session_token: token, frames: frames(success(&task, "1")) };
    client.report_task(request).await.unwrap();
    world.client.ends_well(&id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_are_seen_drained_and_leave() {
    let world = World::new().await;
    let mut agent = world.agent("raw-drain", "a", 2).await;
    let id = world.client.start(&several("raw-drain", 2)).await;
    let mut tasks = Vec::new();
    while tasks.len() < 2 {
        tasks.extend(agent.assigned().await);
    }
    let mut client = world.polls().await;
    let drain = v1::DrainAgentRequest { agent_id: "raw-drain".into(), ..Default::default() };
    let drained = client.drain_agent(drain).await.unwrap().into_inner().agent.unwrap();
    assert_eq!((drained.health(), drained.tasks_in_flight), (v1::AgentHealth::Draining, 2));
    assert!(matches!(agent.next().await, Some(Told::Drain(_))));
    let late = world.client.start(&one("raw-drain", "")).await;
    world.client.finding(&late, "about to leave").await;
    for task in &tasks {
        agent.finish(task, "1").await;
    }
    world.client.ends_well(&id).await;
    assert_eq!(agent.sent_so_far().await, [], "nothing new comes");
    let mut other = world.agent("raw-drain", "b", 1).await;
    let task = other.task().await;
    other.finish(&task, "1").await;
    world.client.ends_well(&late).await;
    drop(agent);
    crate::support::until("it has left", async || {
        let get = v1::GetAgentRequest { agent_id: "raw-drain/a".into() };
        client.get_agent(get).await.is_err()
    })
    .await;
}
