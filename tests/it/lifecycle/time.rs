//! Time that runs out: attempts, steps, runs, queues; and what doctor says meanwhile.

use std::time::{Duration, Instant};

use contracts::v1::{EventKind, RunStatus};

use super::{World, on_both_stores};

on_both_stores!(
    an_attempt_out_of_time_is_stopped_and_retried,
    a_step_past_its_deadline_fails,
    a_run_past_its_deadline_fails,
    a_task_that_nobody_takes_fails_in_time_and_doctor_says_why,
    doctor_says_what_is_waited_for,
);

async fn an_attempt_out_of_time_is_stopped_and_retried(world: &World) {
    let client = &world.client;
    let yaml = "name: t\nsteps:\n  - {id: s, agent: echo, action: sleep, timeout: 50ms, \
                params: {duration: 1h}, retry: {max_attempts: 2, delay: 10ms}}\n";
    let began = Instant::now();
    let id = client.start(yaml).await;
    let (events, run) = client.events(&id, 0).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!((run.status(), run.failed_step.as_str()), (RunStatus::Failure, "s"));
    assert!(run.error.contains("50ms"), "{}", run.error);
    assert_eq!(events.iter().filter(|it| it.kind() == EventKind::AttemptFailed).count(), 1);
    assert_eq!(client.step(&id, "s").await.unwrap().attempts, 2);
}

async fn a_step_past_its_deadline_fails(world: &World) {
    let client = &world.client;
    let yaml = "name: t\nsteps:\n  - id: box\n    deadline: 100ms\n    steps:\n      \
                - {id: s, agent: echo, action: sleep, params: {duration: 1h}, timeout: 2h}\n  \
                - {id: never, agent: echo, action: echo}\n";
    let id = client.start(yaml).await;
    let run = client.ended(&id).await;
    assert_eq!(run.status(), RunStatus::Failure);
    assert_eq!(run.failed_step, "box");
    assert!(run.error.contains("deadline"), "{}", run.error);
    let steps = client.steps(&id).await;
    assert!(steps.iter().all(|step| step.status != "running"), "{steps:?}");
    assert_eq!(client.step(&id, "never").await.unwrap().status, "skipped");
}

async fn a_run_past_its_deadline_fails(world: &World) {
    let client = &world.client;
    let yaml = "name: t\ndeadline: 100ms\nsteps:\n  - {id: w, wait_for: never}\n";
    let run = client.ended(&client.start(yaml).await).await;
    assert_eq!(run.status(), RunStatus::Failure);
    assert!(run.error.contains("deadline"), "{}", run.error);
}

async fn a_task_that_nobody_takes_fails_in_time_and_doctor_says_why(world: &World) {
    let client = &world.client;
    let yaml = "name: q\nsteps:\n  - {id: n, agent: agent16, action: ingest, queue_timeout: 2s}\n";
    let id = client.start(yaml).await;
    let finding = client.finding(&id, "no agent of type `agent16` is connected").await;
    assert_eq!(finding.step, "n");
    assert!(finding.remedy.contains("start one"), "{finding:?}");
    assert!(finding.since.is_some());
    let step = client.step(&id, "n").await.unwrap();
    assert_eq!(step.status, "queued");
    assert!(step.waiting_reason.contains("agent16"), "{step:?}");
    let run = client.ended(&id).await;
    assert_eq!((run.status(), run.failed_step.as_str()), (RunStatus::Failure, "n"));
    assert!(run.error.contains("2s"), "{}", run.error);
}

async fn doctor_says_what_is_waited_for(world: &World) {
    let client = &world.client;
    let yaml = "name: d\nsteps:\n  \
        - {id: typo, agent: echo, action: ecko, depends_on: []}\n  \
        - {id: label, agent: echo, action: echo, requires: {gpu: true}, depends_on: []}\n  \
        - {id: time, wait: 1h, depends_on: []}\n  \
        - {id: again, agent: echo, action: fail, depends_on: [], \
           retry: {max_attempts: 2, delay: 1h}}\n";
    let id = client.start(yaml).await;
    assert!(client.finding(&id, "`ecko`").await.cause.contains("did you mean `echo`?"));
    assert_eq!(client.finding(&id, "gpu=true").await.step, "label");
    assert_eq!(client.finding(&id, "attempt 2").await.step, "again");
    let request = contracts::v1::DiagnoseRunRequest { run_id: id.clone() };
    let said = client.runs.clone().diagnose_run(request).await.unwrap().into_inner();
    assert!(said.findings.iter().any(|finding| finding.step == "time"), "{said:?}");
    assert!(said.findings.iter().all(|finding| !finding.cause.is_empty()), "{said:?}");
    client.cancel(&id).await.unwrap();
    assert_eq!(client.ended(&id).await.status(), RunStatus::Cancelled);
}
