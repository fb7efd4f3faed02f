//! Runs that people steer: cancel, pause, signal, decide, retry.

use std::time::{Duration, Instant};

use contracts::v1::{self, EventKind, RunStatus};

use super::{World, on_both_stores};
use crate::support::client::{reason, text};

on_both_stores!(
    a_cancel_reaches_a_running_task_quickly,
    a_paused_run_starts_nothing_until_it_is_resumed,
    signals_are_kept_until_a_step_waits_for_them,
    a_signal_that_does_not_come_fails_its_step,
    a_person_approves_or_rejects,
    a_failed_run_is_taken_up_again_where_it_failed,
    what_a_run_cannot_do_is_refused_with_a_reason,
);

async fn a_cancel_reaches_a_running_task_quickly(world: &World) {
    let client = &world.client;
    let yaml = "name: long\nsteps:\n  - {id: s, agent: echo, action: sleep, \
                params: {duration: 1h}, timeout: 2h}\n  - {id: never, agent: echo, action: echo}\n";
    let id = client.start(yaml).await;
    client.accepted(&id, "s").await;
    let began = Instant::now();
    client.cancel(&id).await.unwrap();
    let run = client.ended(&id).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(run.status(), RunStatus::Cancelled);
    let steps = client.steps(&id).await;
    assert_eq!((steps[0].status.as_str(), steps[1].status.as_str()), ("cancelled", "skipped"));
    assert_eq!(reason(&client.cancel(&id).await.unwrap_err()), "RUN_ENDED");
}

const GATED: &str = "name: gated\nsteps:\n  - {id: gate, wait_for: go}\n  \
                     - {id: behind, agent: echo, action: echo, params: {v: '${{ gate.v }}'}}\n";

async fn a_paused_run_starts_nothing_until_it_is_resumed(world: &World) {
    let client = &world.client;
    let id = client.start(GATED).await;
    client.event(&id, EventKind::StepWaiting, "gate").await;
    let pause = v1::PauseRunRequest { run_id: id.clone(), ..Default::default() };
    let paused = client.runs.clone().pause_run(pause.clone()).await.unwrap().into_inner();
    assert_eq!(paused.run.unwrap().status(), RunStatus::Paused);
    let again = client.runs.clone().pause_run(pause).await.unwrap_err();
    assert_eq!(reason(&again), "RUN_STATE");
    client.signal(&id, "go", r#"{"v":1}"#).await.unwrap();
    let run = client.run(&id).await;
    assert_eq!(run.status(), RunStatus::Paused);
    assert!(client.finding(&id, "paused").await.remedy.contains("runs resume"));
    let behind = client.step(&id, "behind").await.unwrap();
    assert_eq!((behind.status.as_str(), behind.start_time), ("pending", None));
    let resume = v1::ResumeRunRequest { run_id: id.clone(), ..Default::default() };
    client.runs.clone().resume_run(resume.clone()).await.unwrap();
    let run = client.ends_well(&id).await;
    assert!(run.version_sequence > 0);
    let late = client.runs.clone().resume_run(resume).await.unwrap_err();
    assert_eq!(reason(&late), "RUN_ENDED");
}

async fn signals_are_kept_until_a_step_waits_for_them(world: &World) {
    let client = &world.client;
    let yaml = "name: signals\nsteps:\n  - {id: first, wait_for: first}\n  \
                - {id: second, wait_for: {signal: second, timeout: 1h}}\n\
                outputs: {first: first.output, second: second.n}\n";
    let id = client.start(yaml).await;
    client.signal(&id, "second", r#"{"n":2}"#).await.unwrap();
    client.signal(&id, "nobody", "null").await.unwrap();
    let wrong = client.signal(&id, "first", "{").await.unwrap_err();
    assert_eq!(reason(&wrong), "INVALID_FIELD");
    client.event(&id, EventKind::StepWaiting, "first").await;
    assert_eq!(client.run(&id).await.status(), RunStatus::Waiting);
    assert!(client.finding(&id, "first").await.remedy.contains("runs signal"));
    client.signal(&id, "first", "[1,\"x\"]").await.unwrap();
    let run = client.ends_well(&id).await;
    assert_eq!(text(run.outputs.as_ref()), r#"{"first":[1,"x"],"second":2}"#);
    assert_eq!(reason(&client.signal(&id, "first", "1").await.unwrap_err()), "RUN_ENDED");
}

async fn a_signal_that_does_not_come_fails_its_step(world: &World) {
    let client = &world.client;
    let yaml = "name: late\nsteps:\n  - {id: w, wait_for: {signal: x, timeout: 30ms}}\n";
    let run = client.ended(&client.start(yaml).await).await;
    assert_eq!((run.status(), run.failed_step.as_str()), (RunStatus::Failure, "w"));
    assert!(run.error.contains("`x` did not come within 30ms"), "{}", run.error);
}

async fn a_person_approves_or_rejects(world: &World) {
    let client = &world.client;
    let yaml = "name: ask\nsteps:\n  - {id: ok, approve: {message: 'Go on?'}}\n  \
                - {id: then, agent: echo, action: echo, params: {said: '${{ ok.comment }}'}}\n";
    let id = client.start(yaml).await;
    client.event(&id, EventKind::StepWaiting, "ok").await;
    let finding = client.finding(&id, "Go on?").await;
    assert!(finding.remedy.contains("runs approve"), "{finding:?}");
    let unknown = client.decide(&id, "nothing", true, "").await.unwrap_err();
    assert_eq!(reason(&unknown), "STEP_NOT_FOUND");
    let other = client.decide(&id, "then", true, "").await.unwrap_err();
    assert_eq!(reason(&other), "STEP_NOT_WAITING");
    client.decide(&id, "ok", true, "fine").await.unwrap();
    let run = client.full(&client.ends_well(&id).await.run_id).await;
    let steps = run.result.unwrap().steps;
    assert_eq!(text(steps[1].output.as_ref()), r#"{"said":"fine"}"#);

    let id = client.start(yaml).await;
    client.event(&id, EventKind::StepWaiting, "ok").await;
    client.decide(&id, "ok", false, "too risky").await.unwrap();
    let run = client.ended(&id).await;
    assert_eq!((run.status(), run.failed_step.as_str()), (RunStatus::Failure, "ok"));
    assert!(run.error.contains("too risky"), "{}", run.error);
    assert_eq!(reason(&client.decide(&id, "ok", true, "").await.unwrap_err()), "RUN_ENDED");
}

async fn a_failed_run_is_taken_up_again_where_it_failed(world: &World) {
    let client = &world.client;
    let folder = world.shared.folder.path().join("made-later");
    let yaml = format!(
        "name: again\nsteps:\n  - {{id: a, agent: echo, action: echo, params: {{n: 1}}}}\n  \
         - {{id: f, agent: echo, action: append, params: {{file: {}/f.txt, line: x}}}}\n  \
         - {{id: z, agent: echo, action: echo, params: {{said: '${{{{ f.line }}}}'}}}}\n",
        folder.display()
    );
    let id = client.start(&yaml).await;
    let (before, run) = client.events(&id, 0).await;
    assert_eq!((run.status(), run.failed_step.as_str()), (RunStatus::Failure, "f"));
    assert!(run.error.contains("made-later"), "{}", run.error);
    std::fs::create_dir(&folder).unwrap();
    client.retry(&id).await.unwrap();
    let (after, run) = client.events(&id, i64::try_from(before.len()).unwrap()).await;
    assert_eq!(run.status(), RunStatus::Success, "{}", run.error);
    assert_eq!(after[0].kind(), EventKind::RunRetried);
    assert!(after.iter().all(|event| event.step != "a"), "what went well is not done again");
    assert_eq!(text(client.step(&id, "z").await.unwrap().output.as_ref()), r#"{"said":"x"}"#);
    assert_eq!((run.error.as_str(), run.failed_step.as_str()), ("", ""));
    assert_eq!(std::fs::read_to_string(folder.join("f.txt")).unwrap(), "x\n");
    assert_eq!(reason(&client.retry(&id).await.unwrap_err()), "RUN_STATE");
}

async fn what_a_run_cannot_do_is_refused_with_a_reason(world: &World) {
    let client = &world.client;
    let id = client.start(GATED).await;
    assert_eq!(reason(&client.retry(&id).await.unwrap_err()), "RUN_NOT_ENDED");
    let resume = v1::ResumeRunRequest { run_id: id.clone(), ..Default::default() };
    let status = client.runs.clone().resume_run(resume).await.unwrap_err();
    assert_eq!(reason(&status), "RUN_STATE");
    let unknown = "018bcfe5-6800-7000-8000-000000000000";
    assert_eq!(reason(&client.cancel(unknown).await.unwrap_err()), "RUN_NOT_FOUND");
    assert_eq!(reason(&client.retry(unknown).await.unwrap_err()), "RUN_NOT_FOUND");
    let watch = v1::WatchRunRequest { run_id: unknown.to_owned(), after_sequence: 0 };
    let status = client.runs.clone().watch_run(watch).await.unwrap_err();
    assert_eq!(reason(&status), "RUN_NOT_FOUND");
    assert_eq!(reason(&client.cancel("x").await.unwrap_err()), "INVALID_FIELD");
    assert_eq!(reason(&client.signal(&id, "", "1").await.unwrap_err()), "INVALID_FIELD");
    client.cancel(&id).await.unwrap();
    assert_eq!(client.ended(&id).await.status(), RunStatus::Cancelled);
}
