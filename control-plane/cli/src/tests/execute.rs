//! `workflows execute` and `validate`, whole.

use std::collections::HashMap;
use std::path::Path;

use contracts::v1::payload::Data;
use contracts::v1::start_run_request::Source;
use contracts::v1::{
    Complaint, EventKind, Finding, Payload, Run, RunMetrics, RunStatus, Severity, StepResult,
    TaskAccepted, TaskUpdate, ValidateWorkflowResponse, Workflow, task_update, watch_run_response,
};
use prost_types::Timestamp;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt as _};

use super::fake::{Fake, Item, Part, dead_url, locked};
use super::{orchestrator, run};
use crate::connection::Connection;
use crate::exit::Exit;

fn json(text: &str) -> Option<Payload> {
    Some(Payload { data: Some(Data::Json(text.to_owned())), ..Default::default() })
}

fn ended(status: RunStatus) -> Run {
    Run {
        run_id: "run-1".into(),
        workflow: "Build".into(),
        status: status.into(),
        create_time: Some(Timestamp { seconds: 1, nanos: 0 }),
        end_time: Some(Timestamp { seconds: 2, nanos: 500_000_000 }),
        metrics: Some(RunMetrics { total_steps: 3, successful_steps: 3, ..Default::default() }),
        ..Default::default()
    }
}

fn step(id: &str, status: &str) -> StepResult {
    StepResult {
        step_id: id.into(),
        agent: "echo".into(),
        status: status.into(),
        output: json(r#"{"z":9007199254740993,"a":1}"#),
        ..Default::default()
    }
}

fn steps() -> Vec<StepResult> {
    vec![step("a", "success"), step("b", "success"), step("c", "success")]
}

fn file(folder: &TempDir, text: &str) -> String {
    let path = folder.path().join("build.yml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test]
async fn a_run_that_succeeds_prints_one_document_on_stdout() {
    let mut done = ended(RunStatus::Success);
    done.outputs = json(r#"{"url":"x","n":12345678901234567890}"#);
    let server = Fake::with_run(done, steps()).serve().await;
    let folder = folder();
    let file = file(&folder, "name: Build\n");
    let outcome = orchestrator(&server.url, &["workflows", "execute", &file, "-o", "json"]).await;
    assert_eq!(outcome.exit, Exit::Success, "{outcome:?}");
    let expected_start = r#"{
  "workflowId": "run-1",
  "status": "success",
  "startTime": "1970-01-01T00:00:01Z",
  "endTime": "1970-01-01T00:00:02.500Z",
  "duration": "1.5s",
  "steps": [
    {
      "stepId": "a",
      "agent": "echo",
      "status": "success",
      "output": {"z":9007199254740993,"a":1},"#;
    assert!(outcome.stdout.starts_with(expected_start), "{}", outcome.stdout);
    assert!(outcome.stdout.contains(r#""outputs": {"url":"x","n":12345678901234567890}"#));
    let value: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(value["steps"].as_array().unwrap().len(), 3);
    assert_eq!(value["metrics"]["failedSteps"], 0);
    assert!(outcome.stderr.contains("run run-1 of `Build` started"), "{}", outcome.stderr);
}

#[tokio::test]
async fn progress_is_told_line_by_line_on_stderr() {
    let done = ended(RunStatus::Success);
    let accepted = watch_run_response::Item::Update(TaskUpdate {
        step: "a".into(),
        agent: "echo".into(),
        attempt: 1,
        update: Some(task_update::Update::Accepted(TaskAccepted {})),
        ..Default::default()
    });
    let items = vec![
        Ok(Item::event(1, "", EventKind::RunStarted)),
        Ok(Item::event(2, "a", EventKind::StepQueued)),
        Ok(accepted),
        Ok(Item::event(5, "a", EventKind::StepSucceeded)),
        Ok(Item::ended(&done)),
    ];
    let fake = Fake::with_run(done, steps()).parts(vec![Part { items, when_cancelled: None }]);
    let server = fake.serve().await;
    let folder = folder();
    let file = file(&folder, "name: Build\n");
    let outcome = orchestrator(&server.url, &["workflows", "execute", &file]).await;
    assert_eq!(outcome.exit, Exit::Success);
    let lines: Vec<&str> =
        outcome.stderr.lines().filter(|line| line.contains("a (echo)")).collect();
    assert_eq!(lines.len(), 2, "{}", outcome.stderr);
    assert!(lines[0].contains("● a (echo) running"), "{}", lines[0]);
    assert!(lines[1].ends_with("✓ a (echo) success 3.0s"), "{}", lines[1]);
    assert!(outcome.stdout.starts_with("STEP  AGENT  STATUS"), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("✓ success  Build in 1.5s: 3 of 3 steps succeeded"));
}

#[tokio::test]
async fn a_run_that_does_not_succeed_exits_with_one_and_names_the_step() {
    for status in [RunStatus::Failure, RunStatus::RolledBack, RunStatus::Cancelled] {
        let mut done = ended(status);
        done.failed_step = "b".into();
        let mut steps = steps();
        steps[1] = StepResult { error: "no space left".into(), ..step("b", "failure") };
        let server = Fake::with_run(done, steps).serve().await;
        let folder = folder();
        let file = file(&folder, "name: Build\n");
        let outcome = orchestrator(&server.url, &["workflows", "execute", &file]).await;
        assert_eq!(outcome.exit, Exit::RunFailed);
        assert!(outcome.stdout.contains(": step `b`: no space left"), "{}", outcome.stdout);
    }
}

fn with_complaints() -> Fake {
    let complaint = |line, column, severity: Severity| Complaint {
        file: "FILE".into(),
        line,
        column,
        message: "unknown field `stepz`".into(),
        suggestion: "steps".into(),
        severity: severity.into(),
    };
    Fake {
        validated: ValidateWorkflowResponse {
            valid: false,
            complaints: vec![complaint(2, 1, Severity::Error), complaint(1, 1, Severity::Warning)],
            workflow: None,
        },
        ..Fake::new()
    }
}

#[tokio::test]
async fn complaints_are_a_document_with_json() {
    let server = with_complaints().serve().await;
    let folder = folder();
    let file = file(&folder, "name: Build\nstepz: []\n");
    for command in ["execute", "validate", "register"] {
        let outcome = orchestrator(&server.url, &["workflows", command, &file, "-o", "json"]).await;
        assert_eq!(outcome.exit, Exit::BadRequest);
        let value: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert_eq!(
            value["complaints"][0],
            serde_json::json!({
                "file": "FILE", "line": 2, "column": 1,
                "message": "unknown field `stepz`", "suggestion": "steps",
            })
        );
        assert_eq!(outcome.stderr, "");
    }
    assert!(locked(&server.seen.starts).is_empty());
}

#[tokio::test]
async fn complaints_show_the_line_with_a_caret_on_stderr() {
    let folder = folder();
    let file = file(&folder, "name: Build\nstepz: []\n");
    let mut fake = with_complaints();
    for complaint in &mut fake.validated.complaints {
        complaint.file.clone_from(&file);
    }
    let server = fake.serve().await;
    let outcome = orchestrator(&server.url, &["workflows", "execute", &file]).await;
    assert_eq!(outcome.exit, Exit::BadRequest);
    assert_eq!(outcome.stdout, "");
    let expected = format!(
        "{file}:2:1: error: unknown field `stepz` (did you mean `steps`?)\n  \
         2 | stepz: []\n    | ^\n\
         {file}:1:1: warning: unknown field `stepz` (did you mean `steps`?)\n  \
         1 | name: Build\n    | ^\n"
    );
    assert_eq!(outcome.stderr, expected);
}

#[tokio::test]
async fn what_is_sent_has_params_by_type_labels_priority_and_siblings() {
    let mut fake = Fake::with_run(ended(RunStatus::Success), steps());
    let schema = r#"{"name":{"type":"string"},"count":{"type":"integer"}}"#;
    fake.validated.workflow = Some(Workflow { params_schema: json(schema), ..Default::default() });
    let server = fake.serve().await;
    let folder = folder();
    let file = file(&folder, "name: Build\nsteps:\n  - workflow: sub\n");
    std::fs::write(folder.path().join("sub.yml"), "name: sub\n").unwrap();
    let arguments = [
        "workflows",
        "execute",
        &file,
        "--param",
        "name=7",
        "--param",
        "count=7",
        "--label",
        "team=a",
        "--priority",
        "9",
        "--request-id",
        "again",
    ];
    let outcome = orchestrator(&server.url, &arguments).await;
    assert_eq!(outcome.exit, Exit::Success, "{outcome:?}");
    let start = locked(&server.seen.starts).remove(0);
    assert_eq!(start.params, json(r#"{"name":"7","count":7}"#));
    assert_eq!(start.labels, HashMap::from([("team".to_owned(), "a".to_owned())]));
    assert_eq!((start.priority, start.request_id.as_str()), (Some(9), "again"));
    assert!(!start.require_agents);
    let Some(Source::Definition(definition)) = start.source else { panic!("a file was given") };
    assert_eq!(definition.file, file);
    assert_eq!(definition.siblings["sub"], "name: sub\n");
}

#[tokio::test]
async fn a_registered_workflow_is_started_by_its_name() {
    let mut fake = Fake::with_run(ended(RunStatus::Success), steps());
    fake.registered = Some(Workflow { name: "deploy".into(), ..Default::default() });
    let server = fake.serve().await;
    let outcome =
        orchestrator(&server.url, &["workflows", "execute", "deploy@1.2", "--detach"]).await;
    assert_eq!((outcome.exit, outcome.stdout.as_str()), (Exit::Success, "run-1\n"));
    let start = locked(&server.seen.starts).remove(0);
    assert_eq!(start.source, Some(Source::Workflow("deploy@1.2".into())));
    assert!(locked(&server.seen.watches).is_empty());
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_and_exits_with_three() {
    let url = dead_url().await;
    let folder = folder();
    let file = file(&folder, "name: Build\n");
    let outcome = orchestrator(&url, &["workflows", "execute", &file]).await;
    assert_eq!(outcome.exit, Exit::Unavailable);
    assert_eq!(outcome.stdout, "");
    assert!(outcome.stderr.contains(&format!("error: cannot reach {url}")), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("orchestrator up"), "{}", outcome.stderr);
}

#[tokio::test]
async fn the_next_address_is_taken_when_one_is_dead() {
    let server = Fake::with_run(ended(RunStatus::Success), steps()).serve().await;
    let urls = format!("{},{}", dead_url().await, server.url);
    let folder = folder();
    let file = file(&folder, "name: Build\n");
    let outcome = orchestrator(&urls, &["workflows", "execute", &file]).await;
    assert_eq!(outcome.exit, Exit::Success, "{outcome:?}");
}

#[tokio::test]
async fn a_watch_that_breaks_goes_on_behind_what_was_seen() {
    let done = ended(RunStatus::Success);
    let broken = |items| Part { items, when_cancelled: None };
    let fake = Fake::with_run(done.clone(), steps()).parts(vec![
        broken(vec![
            Ok(Item::event(1, "", EventKind::RunStarted)),
            Ok(Item::event(2, "a", EventKind::StepSucceeded)),
            Err(Status::unavailable("going away")),
        ]),
        // The server repeats an event, and then ends the stream with no word.
        broken(vec![
            Ok(Item::event(2, "a", EventKind::StepSucceeded)),
            Ok(Item::event(3, "b", EventKind::StepSucceeded)),
        ]),
        broken(vec![Ok(Item::event(4, "c", EventKind::StepSucceeded)), Ok(Item::ended(&done))]),
    ]);
    let server = fake.serve().await;
    let folder = folder();
    let file = file(&folder, "name: Build\n");
    let outcome = orchestrator(&server.url, &["workflows", "execute", &file]).await;
    assert_eq!(outcome.exit, Exit::Success, "{outcome:?}");
    assert_eq!(locked(&server.seen.watches), [0, 2, 3]);
    let count = |path: &str| outcome.stderr.matches(&format!("✓ {path} ")).count();
    assert_eq!((count("a"), count("b"), count("c")), (1, 1, 1), "{}", outcome.stderr);
}

#[tokio::test]
async fn a_watch_that_is_refused_is_not_tried_again() {
    let fake = Fake::with_run(ended(RunStatus::Success), steps()).parts(vec![Part {
        items: vec![Err(Status::not_found("there is no such run"))],
        when_cancelled: None,
    }]);
    let server = fake.serve().await;
    let outcome = orchestrator(&server.url, &["runs", "watch", "run-1", "-o", "json"]).await;
    assert_eq!(outcome.exit, Exit::BadRequest);
    assert!(outcome.stderr.starts_with("error: there is no such run"), "{}", outcome.stderr);
}

#[tokio::test]
async fn an_interrupt_cancels_the_run_and_waits_for_its_end() {
    let done = ended(RunStatus::Cancelled);
    let fake = Fake::with_run(done.clone(), steps()).parts(vec![Part {
        items: vec![Ok(Item::event(1, "", EventKind::RunStarted))],
        when_cancelled: Some(vec![Item::ended(&done)]),
    }]);
    let server = fake.serve().await;
    let (interrupt, interrupts) = mpsc::channel(1);
    let watching = server.seen.clone();
    tokio::spawn(async move {
        watching.watching.notified().await;
        interrupt.send(()).await.unwrap();
        // The sender lives on, so that the end of the channel is not taken for an interrupt.
        std::future::pending::<()>().await;
    });
    let folder = folder();
    let file = file(&folder, "name: Build\n");
    let connection = Connection::Url(server.url.clone());
    let outcome = run(connection, &["workflows", "execute", &file], Some(interrupts)).await;
    assert_eq!(outcome.exit, Exit::RunFailed);
    assert!(outcome.stderr.contains("cancelling the run"), "{}", outcome.stderr);
    assert!(outcome.stdout.contains("⊘ cancelled"), "{}", outcome.stdout);
}

#[tokio::test]
async fn a_second_interrupt_leaves() {
    let fake = Fake::with_run(ended(RunStatus::Cancelled), steps()).parts(vec![Part {
        items: vec![Ok(Item::event(1, "", EventKind::RunStarted))],
        when_cancelled: Some(vec![]),
    }]);
    let server = fake.serve().await;
    let (interrupt, interrupts) = mpsc::channel(2);
    interrupt.send(()).await.unwrap();
    interrupt.send(()).await.unwrap();
    let folder = folder();
    let file = file(&folder, "name: Build\n");
    let connection = Connection::Url(server.url.clone());
    let outcome = run(connection, &["workflows", "execute", &file], Some(interrupts)).await;
    assert_eq!((outcome.exit, outcome.stdout.as_str()), (Exit::RunFailed, ""));
    assert!(outcome.stderr.contains("left; `orchestrator runs get run-1`"), "{}", outcome.stderr);
}

#[tokio::test]
async fn a_refused_parameter_is_told_with_its_reason_and_as_a_complaint() {
    let mut details = ErrorDetails::new();
    details.set_error_info("INVALID_PARAMS", "orchestrator.v1", HashMap::new());
    details.add_bad_request_violation("params.cuont", "is not declared; did you mean `count`?");
    let status = Status::with_error_details(
        tonic::Code::InvalidArgument,
        "the parameters do not fit",
        details,
    );
    let mut fake = Fake::with_run(ended(RunStatus::Success), steps());
    fake.start_error = Some(status);
    let server = fake.serve().await;
    let folder = folder();
    let file = file(&folder, "name: Build\n");
    let execute = ["workflows", "execute", &file, "--param", "cuont=1"];
    let outcome = orchestrator(&server.url, &execute).await;
    assert_eq!((outcome.exit, outcome.stdout.as_str()), (Exit::BadRequest, ""));
    assert_eq!(
        outcome.stderr,
        "error: the parameters do not fit\n  \
         params.cuont: is not declared; did you mean `count`?\n  reason: INVALID_PARAMS\n"
    );
    let with_json = execute.iter().copied().chain(["-o", "json"]).collect::<Vec<_>>();
    let outcome = orchestrator(&server.url, &with_json).await;
    assert_eq!(outcome.exit, Exit::BadRequest);
    let value: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(
        value["complaints"][0]["message"],
        "params.cuont: is not declared; did you mean `count`?"
    );
}

#[tokio::test]
async fn a_control_plane_of_its_own_must_have_the_agents_and_cannot_be_left() {
    let server = Fake::with_run(ended(RunStatus::Success), steps()).serve().await;
    let channel =
        tonic::transport::Endpoint::from_shared(server.url.clone()).unwrap().connect_lazy();
    let folder = folder();
    let file = file(&folder, "name: Build\n");
    let connection = Connection::Channel(channel);
    let outcome = run(connection.clone(), &["workflows", "execute", &file], None).await;
    assert_eq!(outcome.exit, Exit::Success, "{outcome:?}");
    assert!(locked(&server.seen.starts)[0].require_agents);
    let outcome = run(connection.clone(), &["workflows", "execute", &file, "--detach"], None).await;
    assert_eq!(outcome.exit, Exit::BadRequest);
    assert!(outcome.stderr.contains("--detach"), "{}", outcome.stderr);
    let outcome = run(connection, &["workflows", "execute", "deploy"], None).await;
    assert_eq!(outcome.exit, Exit::BadRequest);
    assert!(outcome.stderr.contains("neither a file nor a workflow"), "{}", outcome.stderr);
}

#[tokio::test]
async fn a_stuck_run_is_not_waited_for() {
    let mut fake = Fake::with_run(ended(RunStatus::Stuck), steps());
    fake.findings = vec![Finding { cause: "a defect".into(), ..Default::default() }];
    fake = fake.parts(vec![Part { items: vec![], when_cancelled: Some(vec![]) }]);
    let server = fake.serve().await;
    let folder = folder();
    let file = file(&folder, "name: Build\n");
    let outcome = orchestrator(&server.url, &["workflows", "execute", &file]).await;
    assert_eq!(outcome.exit, Exit::RunFailed);
    assert!(outcome.stderr.contains("the run: a defect"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("a defect stopped the run"), "{}", outcome.stderr);
}

#[tokio::test]
async fn files_that_cannot_be_read_are_told() {
    let server = Fake::new().serve().await;
    for (name, expected) in [("/no/such.yml", "cannot read `/no/such.yml`"), ("/", "cannot read")] {
        let outcome = orchestrator(&server.url, &["workflows", "execute", name]).await;
        assert_eq!(outcome.exit, Exit::BadRequest);
        assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
    }
    let folder = folder();
    let path = folder.path().join("latin.yml");
    std::fs::write(&path, b"name: \xe4").unwrap();
    let arguments = ["workflows", "validate", path.to_str().unwrap(), "-o", "json"];
    let outcome = orchestrator(&server.url, &arguments).await;
    assert_eq!(outcome.exit, Exit::BadRequest);
    let value: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(value["complaints"][0]["column"], 7);
    assert!(Path::new(value["complaints"][0]["file"].as_str().unwrap()).ends_with("latin.yml"));
}
