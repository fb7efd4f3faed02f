//! Streams that break, and frames that get lost, late, twice or out of order.

use std::time::Duration;

use agent_sdk::testing::{ControlPlane, Fault, task};
use agent_sdk::{CancellationToken, RunConfig};
use contracts::v1::{self, connect_request::Frame as Said, connect_response::Frame};
use serde_json::json;

use crate::session::{Scene, agent, succeeded};

#[tokio::test]
async fn tasks_go_on_while_the_stream_is_broken_and_stay_with_the_agent() {
    let mut scene = Scene::begin();
    let mut peer = scene.control_plane.accept_and_welcome().await;
    peer.assign(task("t1", "wait", &json!({}))).await;
    peer.expect_accepted("t1").await;
    peer.cut().await;
    let mut peer = scene.control_plane.accept().await;
    assert_eq!(peer.register.session_token, "session of one");
    assert_eq!(peer.register.tasks_in_flight[0].task_id, "t1");
    let mut registered = peer.registered(peer.register.tasks_in_flight.clone());
    registered.tasks_kept[0].lease_token = "renewed".to_owned();
    peer.send(Frame::Registered(registered)).await;
    scene.release.notify_one();
    let result = peer.expect_result("t1").await;
    assert_eq!(result.task.unwrap().lease_token, "renewed");
    peer.acknowledge("t1", false).await;
    scene.stop().await;
}

#[tokio::test]
async fn a_result_that_was_not_acknowledged_comes_again_on_the_next_stream() {
    let mut scene = Scene::begin();
    let mut peer = scene.control_plane.accept_and_welcome().await;
    peer.assign(task("t1", "echo", &json!("kept"))).await;
    peer.expect_result("t1").await;
    peer.cut().await;
    let mut peer = scene.control_plane.accept_and_welcome().await;
    assert_eq!(peer.register.tasks_in_flight[0].task_id, "t1");
    assert_eq!(succeeded(&peer.expect_result("t1").await), json!("kept"));
    peer.acknowledge("t1", false).await;
    scene.stop().await;
}

#[tokio::test]
async fn a_task_that_ended_while_there_was_no_stream_is_reported_on_the_next() {
    let mut scene = Scene::begin();
    let peer = scene.control_plane.accept_and_welcome().await;
    peer.assign(task("t1", "wait", &json!({}))).await;
    scene.began.notified().await;
    scene.control_plane.set_down(true);
    peer.cut().await;
    scene.release.notify_one();
    scene.control_plane.set_down(false);
    let mut peer = scene.control_plane.accept_and_welcome().await;
    peer.expect_result("t1").await;
    peer.acknowledge("t1", false).await;
    scene.stop().await;
}

#[tokio::test]
async fn a_task_that_is_not_kept_is_dropped_without_a_report() {
    let mut scene = Scene::begin();
    let mut peer = scene.control_plane.accept_and_welcome().await;
    peer.assign(task("t1", "wait", &json!({}))).await;
    peer.expect_accepted("t1").await;
    peer.cut().await;
    let mut peer = scene.control_plane.accept().await;
    peer.send(Frame::Registered(peer.registered(Vec::new()))).await;
    peer.assign(task("t2", "echo", &json!(2))).await;
    only_t2(&mut peer).await;
    scene.stop().await;
}

#[tokio::test]
async fn a_lost_lease_drops_the_task_without_a_report() {
    let mut scene = Scene::begin();
    let mut peer = scene.control_plane.accept_and_welcome().await;
    peer.assign(task("t1", "wait", &json!({}))).await;
    peer.expect_accepted("t1").await;
    let lost = v1::LeaseLost {
        task_id: "t1".into(),
        reason: "given out anew".into(),
        ..Default::default()
    };
    peer.send(Frame::LeaseLost(lost)).await;
    peer.assign(task("t2", "echo", &json!(2))).await;
    only_t2(&mut peer).await;
    scene.stop().await;
}

async fn only_t2(peer: &mut agent_sdk::testing::Peer) {
    peer.expect(|frame| match frame {
        Said::Results(results) => {
            assert_eq!(results.results.len(), 1);
            assert_eq!(results.results[0].task.as_ref().unwrap().task_id, "t2");
            Some(())
        }
        _ => None,
    })
    .await;
    peer.acknowledge("t2", false).await;
}

#[tokio::test]
async fn rebalance_leads_to_a_new_stream_and_tasks_go_on() {
    let mut scene = Scene::begin();
    let mut peer = scene.control_plane.accept_and_welcome().await;
    peer.assign(task("t1", "wait", &json!({}))).await;
    peer.expect_accepted("t1").await;
    peer.send(Frame::Rebalance(v1::Rebalance { within: None })).await;
    let mut peer = scene.control_plane.accept_and_welcome().await;
    assert_eq!(peer.register.tasks_in_flight.len(), 1);
    scene.release.notify_one();
    peer.expect_result("t1").await;
    peer.acknowledge("t1", false).await;
    scene.stop().await;
}

#[tokio::test]
async fn a_stream_is_left_only_when_there_is_another() {
    let mut scene = Scene::begin();
    let mut peer = scene.control_plane.accept_and_welcome().await;
    scene.control_plane.set_down(true);
    peer.send(Frame::Rebalance(v1::Rebalance { within: None })).await;
    peer.assign(task("t1", "echo", &json!(1))).await;
    peer.expect_result("t1").await;
    peer.acknowledge("t1", false).await;
    scene.control_plane.set_down(false);
    let second = scene.control_plane.accept_and_welcome().await;
    assert!(second.register.tasks_in_flight.is_empty());
    while peer.next().await.is_some() {}
    scene.stop().await;
}

#[tokio::test]
async fn answers_that_name_another_lease_change_nothing() {
    let mut scene = Scene::begin();
    let mut peer = scene.control_plane.accept_and_welcome().await;
    let assigned = task("t1", "wait", &json!({}));
    let lease_token = assigned.r#ref.clone().unwrap().lease_token;
    peer.assign(assigned).await;
    scene.began.notified().await;
    let lost = |lease_token: &str| v1::LeaseLost {
        task_id: "t1".into(),
        reason: "given out anew".into(),
        lease_token: lease_token.into(),
    };
    peer.send(Frame::LeaseLost(lost("an earlier one"))).await;
    scene.release.notify_one();
    peer.expect_result("t1").await;
    let ack = |lease_token: &str| v1::ResultsAck {
        acks: vec![v1::ResultAck {
            task_id: "t1".into(),
            duplicate: false,
            lease_token: lease_token.into(),
        }],
    };
    peer.send(Frame::ResultsAck(ack("an earlier one"))).await;
    peer.expect_result("t1").await;
    peer.send(Frame::ResultsAck(ack(&lease_token))).await;
    scene.stop().await;
}

#[tokio::test]
async fn a_silent_stream_is_left_while_tasks_are_out() {
    let mut scene = Scene::begin();
    let peer = scene.control_plane.accept().await;
    let mut registered = peer.registered(Vec::new());
    registered.ping_timeout = Some(prost_types::Duration { seconds: 0, nanos: 50_000_000 });
    registered.ping_interval = Some(prost_types::Duration { seconds: 0, nanos: 10_000_000 });
    peer.send(Frame::Registered(registered)).await;
    peer.assign(task("t1", "wait", &json!({}))).await;
    // Nothing more is said on the first stream, which stays open.
    let mut second = scene.control_plane.accept_and_welcome().await;
    assert_eq!(second.register.tasks_in_flight[0].task_id, "t1");
    scene.release.notify_one();
    second.expect_result("t1").await;
    second.acknowledge("t1", false).await;
    drop(peer);
    scene.stop().await;
}

#[tokio::test]
async fn lost_results_and_acknowledgements_are_made_up_for() {
    let mut scene = Scene::begin();
    scene.control_plane.faults_from_agent().add("results", Fault::Drop);
    scene.control_plane.faults_to_agent().add("results_ack", Fault::Drop);
    let mut peer = scene.control_plane.accept_and_welcome().await;
    peer.assign(task("t1", "echo", &json!(1))).await;
    for duplicate in [false, true] {
        peer.expect_result("t1").await;
        peer.acknowledge("t1", duplicate).await;
    }
    scene.stop().await;
}

#[tokio::test]
async fn an_assignment_that_comes_twice_is_done_once() {
    let mut scene = Scene::begin();
    scene.control_plane.faults_to_agent().add("assign", Fault::Duplicate);
    let mut peer = scene.control_plane.accept_and_welcome().await;
    peer.assign(task("t1", "wait", &json!({}))).await;
    peer.expect_accepted("t1").await;
    peer.expect_accepted("t1").await;
    scene.began.notified().await;
    scene.release.notify_one();
    peer.expect_result("t1").await;
    peer.acknowledge("t1", false).await;
    // A second handler would have begun by now, and would hold up the end.
    scene.stop().await;
}

#[tokio::test]
async fn a_proceed_that_overtakes_its_assignment_changes_nothing() {
    let mut scene = Scene::begin();
    scene.control_plane.faults_to_agent().add("assign", Fault::Swap);
    let mut peer = scene.control_plane.accept_and_welcome().await;
    peer.assign(v1::Task { await_proceed: true, ..task("t1", "echo", &json!(1)) }).await;
    peer.proceed("t1").await;
    peer.expect(|frame| match frame {
        Said::Release(release) => Some(release),
        Said::Results(results) => panic!("it began: {results:?}"),
        _ => None,
    })
    .await;
    scene.stop().await;
}

#[tokio::test]
async fn a_late_acknowledgement_is_as_good() {
    let mut scene = Scene::begin();
    let late = Fault::Delay(Duration::from_millis(300));
    scene.control_plane.faults_to_agent().add("results_ack", late);
    let mut peer = scene.control_plane.accept_and_welcome().await;
    peer.assign(task("t1", "echo", &json!(1))).await;
    peer.expect_result("t1").await;
    peer.acknowledge("t1", false).await;
    scene.stop().await;
}

#[tokio::test]
async fn a_reader_that_stands_still_costs_no_result() {
    const TASKS: usize = 500;
    let mut scene = Scene::with(|agent| agent.slots(4000));
    let mut peer = scene.control_plane.accept_and_welcome().await;
    let params = json!("x".repeat(1000));
    // Nothing is read until everything is assigned: the stream back fills up.
    for number in 0..TASKS {
        peer.assign(task(&format!("t{number}"), "echo", &params)).await;
    }
    let mut missing: std::collections::HashSet<String> =
        (0..TASKS).map(|number| format!("t{number}")).collect();
    while !missing.is_empty() {
        let results = peer
            .expect(|frame| match frame {
                Said::Results(results) => Some(results.results),
                _ => None,
            })
            .await;
        for result in results {
            let id = result.task.unwrap().task_id;
            peer.acknowledge(&id, !missing.remove(&id)).await;
        }
    }
    scene.stop().await;
}

#[tokio::test]
async fn answers_about_an_earlier_attempt_do_not_touch_the_next_one() {
    let mut scene = Scene::begin();
    let mut peer = scene.control_plane.accept_and_welcome().await;
    peer.assign(task("t1", "wait", &json!({}))).await;
    scene.began.notified().await;
    peer.cancel("t1", Duration::from_secs(5)).await;
    peer.expect_result("t1").await;
    let second = v1::Task { attempt: 2, ..task("t1", "wait", &json!({})) };
    peer.assign(second).await;
    scene.began.notified().await;
    // What the control plane says of the first attempt's late result.
    let lost = v1::LeaseLost {
        task_id: "t1".into(),
        reason: "given out anew".into(),
        ..Default::default()
    };
    peer.send(Frame::LeaseLost(lost)).await;
    scene.release.notify_one();
    assert_eq!(succeeded(&peer.expect_result("t1").await), json!({"attempt": 2}));
    peer.acknowledge("t1", false).await;
    scene.stop().await;
}

#[tokio::test]
async fn a_task_that_was_told_to_stop_and_is_assigned_again_begins_anew() {
    let mut scene = Scene::begin();
    let mut peer = scene.control_plane.accept_and_welcome().await;
    peer.assign(task("t1", "deaf", &json!({}))).await;
    peer.expect_accepted("t1").await;
    peer.cancel("t1", Duration::from_secs(60)).await;
    peer.assign(task("t1", "wait", &json!({}))).await;
    scene.began.notified().await;
    scene.release.notify_one();
    assert_eq!(succeeded(&peer.expect_result("t1").await), json!({"attempt": 1}));
    peer.acknowledge("t1", false).await;
    scene.stop().await;
}

#[tokio::test]
async fn an_agent_with_tasks_moves_to_another_address_though_one_is_dead_and_one_is_deaf() {
    let (mut first, mut second) = (ControlPlane::start(), ControlPlane::start());
    let (first_address, first_listens) = first.listen().await.unwrap();
    let (second_address, _listens) = second.listen().await.unwrap();
    let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let deaf_address = deaf.local_addr().unwrap().to_string();
    let (began, release) = Default::default();
    let shutdown = CancellationToken::new();
    let config = RunConfig {
        servers: vec![first_address, deaf_address, second_address],
        ..RunConfig::default()
    };
    let run = tokio::spawn(agent(&began, &release).run(config, shutdown.clone()));
    let mut peer = first.accept_and_welcome().await;
    peer.assign(task("t1", "wait", &json!({}))).await;
    peer.expect_accepted("t1").await;
    drop(first_listens);
    let mut peer = second.accept_and_welcome().await;
    assert_eq!(peer.register.tasks_in_flight[0].task_id, "t1");
    release.notify_one();
    peer.expect_result("t1").await;
    peer.acknowledge("t1", false).await;
    shutdown.cancel();
    run.await.unwrap().unwrap();
}
