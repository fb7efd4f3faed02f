//! Streams: registration, results, cancel, drain, at most once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_sdk::testing::{ControlPlane, Peer, task};
use agent_sdk::{Action, Agent, CancellationToken, Context, Error, Failure, RunConfig};
use contracts::v1::{
    self, connect_request::Frame as Said, connect_response::Frame, task_result::Outcome,
};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// An agent at work against a scripted control plane.
pub(crate) struct Scene {
    pub(crate) control_plane: ControlPlane,
    pub(crate) shutdown: CancellationToken,
    pub(crate) run: JoinHandle<Result<(), Error>>,
    /// Fires when `wait` began.
    pub(crate) began: Arc<Notify>,
    /// Lets `wait` end.
    pub(crate) release: Arc<Notify>,
}

impl Scene {
    pub(crate) fn begin() -> Self {
        Self::with(|agent| agent)
    }

    pub(crate) fn with(change: impl FnOnce(Agent) -> Agent) -> Self {
        let control_plane = ControlPlane::start();
        let shutdown = CancellationToken::new();
        let began = Arc::new(Notify::new());
        let release = Arc::new(Notify::new());
        let agent = change(agent(&began, &release));
        let run = control_plane.run(agent, shutdown.clone());
        Self { control_plane, shutdown, run, began, release }
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.run.await.unwrap().unwrap();
    }
}

pub(crate) fn agent(began: &Arc<Notify>, release: &Arc<Notify>) -> Agent {
    let (began, release) = (Arc::clone(began), Arc::clone(release));
    let wait = move |context: Context, _: Value| {
        let (began, release) = (Arc::clone(&began), Arc::clone(&release));
        async move {
            began.notify_one();
            tokio::select! {
                () = release.notified() => Ok(json!({"attempt": context.attempt()})),
                () = context.cancelled().cancelled() => Err(Failure::cancelled("stopped")),
            }
        }
    };
    Agent::new("tester", "1")
        .instance("one")
        .slots(4)
        .action(Action::new("echo", "", |_: Context, value: Value| async move { Ok(value) }))
        .action(Action::new("wait", "", wait))
        .action(Action::new("crash", "", |_: Context, _: Value| async {
            panic!("as asked");
            #[expect(unreachable_code, reason = "it gives the type")]
            Ok(())
        }))
        .action(Action::new("deaf", "", |_: Context, _: Value| async {
            std::future::pending::<()>().await;
            Ok(())
        }))
        .action(Action::new("large", "", |_: Context, bytes: usize| async move {
            Ok("x".repeat(bytes))
        }))
        .action(Action::new("news", "", |context: Context, _: Value| async move {
            context.progress(0.25, "first");
            context.checkpoint(&json!({"page": 2}))?;
            context.emit("found", &json!(1), Some("run-2"))?;
            Ok(())
        }))
}

pub(crate) fn succeeded(result: &v1::TaskResult) -> Value {
    match &result.outcome {
        Some(Outcome::Success(v1::TaskSuccess { output: Some(output), .. })) => {
            let Some(v1::payload::Data::Json(text)) = &output.data else { panic!("{output:?}") };
            serde_json::from_str(text).unwrap()
        }
        other => panic!("{other:?}"),
    }
}

fn failed(result: v1::TaskResult) -> v1::TaskFailure {
    match result.outcome {
        Some(Outcome::Failure(failure)) => failure,
        other => panic!("{other:?}"),
    }
}

async fn say_drained(peer: &mut Peer) {
    peer.expect(|frame| matches!(frame, Said::DrainRequested(_)).then_some(())).await;
}

#[tokio::test]
async fn it_registers_first_and_accepts_before_it_reports() {
    let mut scene = Scene::begin();
    let mut peer = scene.control_plane.accept_and_welcome().await;
    assert_eq!((peer.register.slots, peer.register.instance.as_str()), (4, "one"));
    assert_eq!(peer.register.session_token, "");
    peer.assign(task("t1", "echo", &json!([1]))).await;
    let accepted = peer.expect(|frame| match frame {
        Said::Accepted(accepted) => Some(accepted.task.unwrap()),
        Said::Results(_) => panic!("the result came first"),
        _ => None,
    });
    assert_eq!(accepted.await.lease_token, "lease-t1");
    assert_eq!(succeeded(&peer.expect_result("t1").await), json!([1]));
    peer.acknowledge("t1", false).await;
    scene.stop().await;
}

#[tokio::test]
async fn a_panic_is_reported_and_the_agent_lives_on() {
    let mut scene = Scene::begin();
    let mut peer = scene.control_plane.accept_and_welcome().await;
    peer.assign(task("t1", "crash", &json!({}))).await;
    let failure = failed(peer.expect_result("t1").await);
    assert_eq!(failure.kind(), v1::FailureKind::Permanent);
    assert_eq!(failure.message, "the handler panicked: as asked");
    peer.acknowledge("t1", false).await;
    peer.assign(task("t2", "echo", &json!(2))).await;
    assert_eq!(succeeded(&peer.expect_result("t2").await), json!(2));
    peer.acknowledge("t2", false).await;
    scene.stop().await;
}

#[tokio::test]
async fn a_result_is_sent_again_until_it_is_acknowledged() {
    let mut scene = Scene::begin();
    let mut peer = scene.control_plane.accept_and_welcome().await;
    peer.assign(task("t1", "echo", &json!(1))).await;
    for _ in 0..3 {
        peer.expect_result("t1").await;
    }
    peer.acknowledge("t1", false).await;
    peer.acknowledge("t1", true).await;
    peer.assign(task("t2", "echo", &json!(2))).await;
    peer.expect_result("t2").await;
    peer.acknowledge("t2", false).await;
    scene.stop().await;
}

#[tokio::test]
async fn status_names_all_tasks() {
    let mut scene = Scene::begin();
    let mut peer = scene.control_plane.accept_and_welcome().await;
    peer.assign(task("t1", "wait", &json!({}))).await;
    peer.assign(task("t2", "wait", &json!({}))).await;
    peer.expect(|frame| match frame {
        Said::Status(status) => {
            let mut ids: Vec<_> = status.tasks.into_iter().map(|task| task.task_id).collect();
            ids.sort();
            (ids == ["t1", "t2"]).then_some(())
        }
        _ => None,
    })
    .await;
    for id in ["t1", "t2"] {
        peer.cancel(id, Duration::from_secs(5)).await;
        let result = peer.expect_result(id).await;
        assert!(matches!(result.outcome, Some(Outcome::Cancelled(_))), "{result:?}");
        peer.acknowledge(id, false).await;
    }
    scene.stop().await;
}

#[tokio::test]
async fn a_cancelled_handler_that_does_not_listen_is_aborted_after_the_grace() {
    let mut scene = Scene::begin();
    let mut peer = scene.control_plane.accept_and_welcome().await;
    peer.assign(task("t1", "deaf", &json!({}))).await;
    peer.expect_accepted("t1").await;
    let grace = Duration::from_millis(60);
    let asked = Instant::now();
    peer.cancel("t1", grace).await;
    let result = peer.expect_result("t1").await;
    assert!(asked.elapsed() >= grace);
    let Some(Outcome::Cancelled(cancelled)) = result.outcome else { panic!("{result:?}") };
    assert_eq!(cancelled.message, "the handler did not stop in time and was aborted");
    peer.acknowledge("t1", false).await;
    scene.stop().await;
}

#[tokio::test]
async fn at_most_once_begins_only_after_proceed() {
    let mut scene = Scene::begin();
    let mut peer = scene.control_plane.accept_and_welcome().await;
    let careful = |id| v1::Task { await_proceed: true, ..task(id, "echo", &json!(1)) };
    peer.assign(careful("t1")).await;
    peer.expect_accepted("t1").await;
    peer.assign(task("t2", "echo", &json!(2))).await;
    // The task behind it is through, and nothing came of the first one.
    peer.expect(|frame| match frame {
        Said::Results(results) => {
            let ids: Vec<_> = results.results.into_iter().map(|one| one.task.unwrap()).collect();
            assert!(ids.iter().all(|task| task.task_id == "t2"), "{ids:?}");
            Some(())
        }
        _ => None,
    })
    .await;
    peer.acknowledge("t2", false).await;
    peer.proceed("t1").await;
    assert_eq!(succeeded(&peer.expect_result("t1").await), json!(1));
    peer.acknowledge("t1", false).await;
    scene.stop().await;
}

#[tokio::test]
async fn without_proceed_the_task_is_given_back_and_a_late_proceed_changes_nothing() {
    let mut scene = Scene::begin();
    let mut peer = scene.control_plane.accept_and_welcome().await;
    peer.assign(v1::Task { await_proceed: true, ..task("t1", "echo", &json!(1)) }).await;
    peer.expect_accepted("t1").await;
    let released = peer.expect(|frame| match frame {
        Said::Release(release) => Some(release),
        Said::Results(results) => panic!("it began: {results:?}"),
        _ => None,
    });
    assert_eq!(released.await.task.unwrap().task_id, "t1");
    peer.proceed("t1").await;
    peer.assign(task("t2", "echo", &json!(2))).await;
    peer.expect(|frame| match frame {
        Said::Results(results) => {
            assert_eq!(results.results[0].task.as_ref().unwrap().task_id, "t2");
            Some(())
        }
        _ => None,
    })
    .await;
    peer.acknowledge("t2", false).await;
    scene.stop().await;
}

#[tokio::test]
async fn a_task_over_its_slots_is_given_back() {
    let mut scene = Scene::with(|agent| agent.slots(1));
    let mut peer = scene.control_plane.accept_and_welcome().await;
    peer.assign(task("t1", "wait", &json!({}))).await;
    peer.assign(task("t2", "wait", &json!({}))).await;
    let release = peer.expect(|frame| match frame {
        Said::Release(release) => Some(release),
        _ => None,
    });
    let release = release.await;
    assert_eq!(release.task.unwrap().task_id, "t2");
    assert_eq!(release.reason, "no slot is free");
    scene.release.notify_one();
    peer.expect_result("t1").await;
    peer.acknowledge("t1", false).await;
    scene.stop().await;
}

#[tokio::test]
async fn shutting_down_finishes_reports_and_takes_nothing_new() {
    let mut scene = Scene::begin();
    let mut peer = scene.control_plane.accept_and_welcome().await;
    peer.assign(task("t1", "wait", &json!({}))).await;
    scene.began.notified().await;
    scene.shutdown.cancel();
    say_drained(&mut peer).await;
    peer.assign(task("t2", "echo", &json!(2))).await;
    let release = peer.expect(|frame| match frame {
        Said::Release(release) => Some(release),
        _ => None,
    });
    assert_eq!(release.await.reason, "the agent is stopping");
    scene.release.notify_one();
    peer.expect_result("t1").await;
    assert!(!scene.run.is_finished(), "the result is not acknowledged");
    peer.acknowledge("t1", false).await;
    while peer.next().await.is_some() {}
    drop(peer);
    scene.run.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_program_pauses_its_agent_and_lets_it_go_on() {
    let mut capacity = None;
    let mut scene = Scene::with(|agent| {
        capacity = Some(agent.capacity());
        agent
    });
    let capacity = capacity.unwrap();
    let mut peer = scene.control_plane.accept_and_welcome().await;
    let credits = async |peer: &mut Peer| {
        let credits = peer.expect(|frame| match frame {
            Said::Credits(credits) => Some(credits.total),
            _ => None,
        });
        credits.await
    };
    capacity.pause();
    assert_eq!(credits(&mut peer).await, 0);
    capacity.limit(2);
    assert_eq!(credits(&mut peer).await, 2);
    peer.cut().await;
    let mut peer = scene.control_plane.accept_and_welcome().await;
    assert_eq!(credits(&mut peer).await, 2, "another session hears of it as well");
    capacity.resume();
    assert_eq!(credits(&mut peer).await, 4, "as many as there are slots");
    scene.stop().await;
}

#[tokio::test]
async fn the_control_plane_can_drain_it() {
    let mut scene = Scene::begin();
    let mut peer = scene.control_plane.accept_and_welcome().await;
    peer.assign(task("t1", "wait", &json!({}))).await;
    peer.send(Frame::Drain(v1::Drain { reason: "maintenance".into() })).await;
    say_drained(&mut peer).await;
    scene.release.notify_one();
    peer.expect_result("t1").await;
    peer.acknowledge("t1", false).await;
    scene.run.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_agent_that_was_never_connected_stops_at_once() {
    let scene = Scene::begin();
    scene.control_plane.set_down(true);
    scene.stop().await;
}

#[tokio::test]
async fn draining_that_takes_too_long_cancels_what_runs() {
    let mut scene = Scene::with(|agent| agent.drain_timeout(Duration::from_millis(20)));
    let mut peer = scene.control_plane.accept_and_welcome().await;
    peer.assign(task("t1", "wait", &json!({}))).await;
    scene.began.notified().await;
    scene.shutdown.cancel();
    let failure = failed(peer.expect_result("t1").await);
    assert_eq!(
        (failure.kind(), failure.code.as_str()),
        (v1::FailureKind::Retryable, "agent_stopping")
    );
    peer.acknowledge("t1", false).await;
    scene.run.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_output_that_is_too_large_is_a_failure_that_says_so() {
    let mut scene = Scene::begin();
    let mut peer = scene.control_plane.accept_and_welcome().await;
    peer.assign(task("t1", "large", &json!(5 * 1024 * 1024))).await;
    let failure = failed(peer.expect_result("t1").await);
    assert_eq!(failure.code, "output_too_large");
    peer.acknowledge("t1", false).await;
    peer.assign(task("t2", "large", &json!(4 * 1024 * 1024 - 2))).await;
    assert!(succeeded(&peer.expect_result("t2").await).is_string());
    peer.acknowledge("t2", false).await;
    scene.stop().await;
}

#[tokio::test]
async fn news_come_before_the_result() {
    let mut scene = Scene::begin();
    let mut peer = scene.control_plane.accept_and_welcome().await;
    peer.assign(task("t1", "news", &json!({}))).await;
    let mut heard = Vec::new();
    peer.expect(|frame| {
        match frame {
            Said::Progress(progress) => heard.push(progress.message),
            Said::Checkpoint(_) => heard.push("checkpoint".to_owned()),
            Said::Emit(emit) => heard.push(format!("{} to {}", emit.name, emit.run_id)),
            Said::Results(_) => return Some(()),
            _ => {}
        }
        None
    })
    .await;
    assert_eq!(heard, ["first", "checkpoint", "found to run-2"]);
    peer.acknowledge("t1", false).await;
    scene.stop().await;
}

#[tokio::test]
async fn a_task_that_the_control_plane_forgets_stops_by_itself() {
    let mut scene = Scene::begin();
    let mut peer = scene.control_plane.accept_and_welcome().await;
    let timeout = Some(prost_types::Duration { seconds: 0, nanos: 1_000_000 });
    peer.assign(v1::Task { timeout, ..task("t1", "wait", &json!({})) }).await;
    let failure = failed(peer.expect_result("t1").await);
    assert_eq!(failure.code, "timeout");
    peer.acknowledge("t1", false).await;
    scene.stop().await;
}

#[tokio::test]
async fn an_agent_whose_card_is_refused_stops_with_the_reason() {
    let control_plane = ControlPlane::start();
    let agent = Agent::new("tester", "1");
    let run = control_plane.run(agent, CancellationToken::new());
    let mut control_plane = control_plane;
    let peer = control_plane.accept().await;
    let status = v1::Fault {
        status: Some(tonic_types::Status { code: 3, message: "slots".into(), details: vec![] }),
    };
    peer.send(Frame::Fault(status)).await;
    let error = run.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Refused(_)), "{error}");
}

#[tokio::test]
async fn an_address_that_is_wrong_is_named() {
    for address in ["https://example.org", "http://", "http://a b"] {
        let config = RunConfig { servers: vec![address.to_owned()], ..RunConfig::default() };
        let run = Agent::new("tester", "1").run(config, CancellationToken::new());
        let error = run.await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("`{address}` is no address")), "{error}");
    }
}

/// A hop through a timer would cost a millisecond each time. Of a hundred trips the tenth counts:
/// the machine may have much else to do, but not all the time.
#[tokio::test]
async fn a_round_trip_is_short() {
    let mut scene = Scene::begin();
    let mut peer = scene.control_plane.accept_and_welcome().await;
    let mut times = Vec::new();
    for number in 0..101 {
        let id = format!("t{number}");
        let began = Instant::now();
        peer.assign(task(&id, "echo", &json!(number))).await;
        peer.expect_result(&id).await;
        times.push(began.elapsed());
        peer.acknowledge(&id, false).await;
    }
    times.sort();
    println!("shortest {:?}, median {:?}, longest {:?}", times[0], times[50], times[100]);
    assert!(times[10] < Duration::from_millis(1), "the tenth took {:?}", times[10]);
    scene.stop().await;
}
