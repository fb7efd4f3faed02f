//! Many at once, and limits that hold over all runs.

use std::collections::BTreeSet;
use std::time::Duration;

use contracts::v1::{self, EventKind, RunStatus};

use super::{World, on_both_stores};
use crate::support::client::{json, request, text};

on_both_stores!(
    a_loop_over_a_thousand_items_keeps_its_bound_and_its_order,
    two_hundred_runs_at_once_all_end_well,
    a_concurrency_key_is_held_by_one_run_at_a_time,
    a_concurrency_key_can_reject_and_can_displace,
    a_concurrency_key_of_a_step_spans_runs,
    a_rate_limit_spaces_what_starts,
);

async fn a_loop_over_a_thousand_items_keeps_its_bound_and_its_order(world: &World) {
    let client = &world.client;
    let yaml = "name: thousand\nparams: {items: {type: array}}\nsteps:\n  \
                - {id: each, foreach: params.items, max_parallel: 50, agent: echo, action: echo, \
                params: {n: '${{ item }}', i: '${{ index }}'}}\n\
                outputs: {count: each.output.size(), all: each.output}\n";
    let items: Vec<u32> = (0..1000).map(|n| n * 7).collect();
    let params = json(&format!("{{\"items\":{items:?}}}"));
    let run = client.try_start(v1::StartRunRequest { params, ..request(yaml) }).await.unwrap();
    let (events, run) = client.events(&run.run_id, 0).await;
    assert_eq!(run.status(), RunStatus::Success, "{}", run.error);
    let (mut out, mut most) = (0, 0);
    for event in events.iter().filter(|event| event.step.starts_with("each[")) {
        match event.kind() {
            EventKind::StepQueued => out += 1,
            EventKind::StepSucceeded => out -= 1,
            _ => {}
        }
        most = most.max(out);
    }
    assert_eq!((out, most), (0, 50));
    let outputs: serde_json::Value = serde_json::from_str(text(run.outputs.as_ref())).unwrap();
    assert_eq!(outputs["count"], 1000);
    for (index, one) in outputs["all"].as_array().unwrap().iter().enumerate() {
        assert_eq!((&one["n"], &one["i"]), (&(index * 7).into(), &index.into()));
    }
    assert_eq!(run.metrics.unwrap().successful_steps, 1001);
    assert_eq!(client.steps(&run.run_id).await.len(), 1001);
}

async fn two_hundred_runs_at_once_all_end_well(world: &World) {
    let client = &world.client;
    let yaml = "name: many\nparams: {n: {type: integer}}\nsteps:\n  \
                - {id: a, agent: echo, action: echo, params: {n: '${{ params.n }}'}}\n  \
                - {id: b, agent: echo, action: echo, params: {n: '${{ a.n + 1 }}'}}\n\
                outputs: {n: b.n}\n";
    let runs: Vec<_> = (0..200)
        .map(|n| {
            let client = client.clone();
            let params = json(&format!("{{\"n\":{n}}}"));
            let request = v1::StartRunRequest { params, ..request(yaml) };
            tokio::spawn(async move {
                let run = client.try_start(request).await.unwrap();
                let run = client.ends_well(&run.run_id).await;
                assert_eq!(text(run.outputs.as_ref()), format!("{{\"n\":{}}}", n + 1));
                run.run_id
            })
        })
        .collect();
    let mut ids = BTreeSet::new();
    for run in runs {
        ids.insert(run.await.unwrap());
    }
    assert_eq!(ids.len(), 200);
    assert_eq!(client.list("workflow=many AND status=success").await.len(), 200);
}

/// Holds a key until it gets a signal.
fn holder(name: &str, on_conflict: &str) -> String {
    format!(
        "name: {name}\nconcurrency: {{key: {name}, on_conflict: {on_conflict}}}\n\
         steps:\n  - {{id: hold, wait_for: go}}\n"
    )
}

async fn a_concurrency_key_is_held_by_one_run_at_a_time(world: &World) {
    let client = &world.client;
    let yaml = holder("queue-key", "queue");
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(client.start(&yaml).await);
    }
    client.event(&ids[0], EventKind::StepWaiting, "hold").await;
    client.finding(&ids[1], "concurrency key").await;
    assert_eq!(client.run(&ids[2]).await.status(), RunStatus::Waiting);
    client.cancel(&ids[1]).await.unwrap();
    assert_eq!(client.ended(&ids[1]).await.status(), RunStatus::Cancelled, "it need not hold it");
    client.signal(&ids[0], "go", "1").await.unwrap();
    let first = client.ends_well(&ids[0]).await;
    let began = client.event(&ids[2], EventKind::StepWaiting, "hold").await;
    let at = |time: Option<prost_types::Timestamp>| time.map(|time| (time.seconds, time.nanos));
    assert!(at(began.time) >= at(first.end_time), "it begins when the first has ended");
    client.signal(&ids[2], "go", "1").await.unwrap();
    client.ends_well(&ids[2]).await;
}

async fn a_concurrency_key_can_reject_and_can_displace(world: &World) {
    let client = &world.client;
    let yaml = holder("reject-key", "reject");
    let first = client.start(&yaml).await;
    client.event(&first, EventKind::StepWaiting, "hold").await;
    let second = client.ended(&client.start(&yaml).await).await;
    assert_eq!(second.status(), RunStatus::Failure);
    assert!(second.error.contains("reject-key"), "{}", second.error);
    client.cancel(&first).await.unwrap();
    client.ended(&first).await;
    let third = client.start(&yaml).await;
    client.signal(&third, "go", "1").await.unwrap();
    client.ends_well(&third).await;

    let yaml = holder("displace-key", "cancel_running");
    let first = client.start(&yaml).await;
    client.event(&first, EventKind::StepWaiting, "hold").await;
    let second = client.start(&yaml).await;
    assert_eq!(client.ended(&first).await.status(), RunStatus::Cancelled);
    client.signal(&second, "go", "1").await.unwrap();
    client.ends_well(&second).await;
}

async fn a_concurrency_key_of_a_step_spans_runs(world: &World) {
    let client = &world.client;
    let yaml = |on_conflict: &str| {
        format!(
            "name: stepkey\nsteps:\n  - {{id: s, agent: echo, action: sleep, \
             params: {{duration: 1h}}, timeout: 2h, \
             concurrency: {{key: step-{on_conflict}, on_conflict: {on_conflict}}}}}\n"
        )
    };
    let first = client.start(&yaml("queue")).await;
    client.accepted(&first, "s").await;
    let second = client.start(&yaml("queue")).await;
    let finding = client.finding(&second, "step-queue").await;
    assert!(finding.cause.contains(&first), "doctor names who holds it: {finding:?}");
    client.cancel(&first).await.unwrap();
    client.accepted(&second, "s").await;
    client.cancel(&second).await.unwrap();
    client.ended(&second).await;

    let first = client.start(&yaml("reject")).await;
    client.accepted(&first, "s").await;
    let second = client.ended(&client.start(&yaml("reject")).await).await;
    assert_eq!((second.status(), second.failed_step.as_str()), (RunStatus::Failure, "s"));
    client.cancel(&first).await.unwrap();

    let first = client.start(&yaml("cancel_running")).await;
    client.accepted(&first, "s").await;
    let second = client.start(&yaml("cancel_running")).await;
    client.accepted(&second, "s").await;
    let first = client.ended(&first).await;
    assert_ne!(first.status(), RunStatus::Success);
    client.cancel(&second).await.unwrap();
}

async fn a_rate_limit_spaces_what_starts(world: &World) {
    let client = &world.client;
    let yaml = "name: rated\nsteps:\n  - {id: a, agent: echo, action: echo, \
                rate_limit: {key: rated, limit: 2, per: 1s}}\n";
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(client.start(yaml).await);
    }
    let mut times = Vec::new();
    for id in &ids {
        client.ends_well(id).await;
        let queued = client.event(id, EventKind::StepSucceeded, "a").await.time.unwrap();
        let nanos = u32::try_from(queued.nanos).unwrap();
        times.push(Duration::new(u64::try_from(queued.seconds).unwrap(), nanos));
    }
    times.sort();
    assert!(times[3] - times[0] >= Duration::from_millis(900), "{times:?}");
    assert!(times[3] - times[0] < Duration::from_secs(10), "{times:?}");
}
