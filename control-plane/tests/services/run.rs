//! Starting, steering, reading and watching runs.

use contracts::v1::{self, RunStatus, RunView, start_run_request::Source};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::{
    self, definition, echo, ended, json, reason, run, server, start, started, until,
};

const CHAIN: &str = "
name: chain
version: '1'
params:
  n: {type: integer, default: 1}
steps:
  - {id: a, agent: echo, action: echo, params: {value: '${{ params.n }}'}}
  - {id: b, agent: echo, action: echo, params: {value: '${{ a.value + 1 }}'}}
outputs: {sum: b.value}
";

const GATE: &str = "
name: gate
steps:
  - {id: ask, approve: {message: Go on?}}
  - {id: go, wait_for: {signal: go}}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_started_watched_and_read() {
    let server = server().await;
    let _echo = echo(&server).await;
    let params = v1::Payload {
        data: Some(v1::payload::Data::Json(r#"{"n": 41}"#.to_owned())),
        ..Default::default()
    };
    let request = v1::StartRunRequest {
        params: Some(params),
        labels: [("team".to_owned(), "a".to_owned())].into(),
        priority: Some(7),
        ..start(CHAIN)
    };
    let response = server.orchestrator().start_run(request).await.unwrap().into_inner();
    assert_eq!(response.complaints, []);
    let id = response.run.unwrap().run_id;
    let (events, last) = ended(&server, &id, 0).await;
    let sequences: Vec<i64> = events.iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, (1..=events.len() as i64).collect::<Vec<_>>(), "none missed, none twice");
    assert_eq!(events.last().unwrap().kind(), v1::EventKind::RunEnded);
    assert_eq!(last.status(), RunStatus::Success, "{last:?}");
    assert_eq!(json(last.outputs.as_ref()), r#"{"sum":42}"#);
    assert_eq!((last.priority, last.labels["team"].as_str()), (7, "a"));
    assert_eq!(last.actor, "anonymous");

    let (rest, _) = ended(&server, &id, 3).await;
    assert_eq!(rest[..], events[3..], "a watch goes on where it was broken off");
    let (none, _) = ended(&server, &id, i64::MAX).await;
    assert_eq!(none, []);

    let full = run(&server, &id, RunView::Full).await;
    let result = full.result.unwrap();
    assert_eq!((result.status.as_str(), result.workflow_id.as_str()), ("success", id.as_str()));
    let steps: Vec<_> = result.steps.iter().map(|step| step.step_id.as_str()).collect();
    assert_eq!(steps, ["a", "b"]);
    assert_eq!(result.metrics.unwrap().successful_steps, 2);
    assert_eq!(json(full.params.as_ref()), r#"{"n":41}"#);
    let basic = run(&server, &id, RunView::Basic).await;
    assert_eq!((basic.params, basic.outputs), (full.params, full.outputs));
    assert_eq!(basic.metrics, full.metrics);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_request_starts_one_run_and_another_under_its_id_is_refused() {
    let server = server().await;
    let request = v1::StartRunRequest { request_id: "r-1".to_owned(), ..start(GATE) };
    let both = [request.clone(), request.clone()].map(|request| {
        let mut client = server.orchestrator();
        async move { client.start_run(request).await.unwrap().into_inner().run.unwrap().run_id }
    });
    let [one, two] = both;
    let (one, two) = tokio::join!(one, two);
    assert_eq!(one, two);
    let third = started(&server, request.clone()).await;
    assert_eq!(one, third);
    let other = v1::StartRunRequest { priority: Some(1), ..request };
    let status = server.orchestrator().start_run(other).await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::AlreadyExists, "REQUEST_ID_REUSED")
    );
    let all = server.orchestrator().list_runs(v1::ListRunsRequest::default()).await.unwrap();
    assert_eq!(all.into_inner().runs.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_and_a_signal_let_a_run_go_on() {
    let server = server().await;
    let id = started(&server, start(GATE)).await;
    let mut client = server.orchestrator();
    until("the run waits", async || {
        run(&server, &id, RunView::Basic).await.status() == RunStatus::Waiting
    })
    .await;
    let diagnose = v1::DiagnoseRunRequest { run_id: id.clone() };
    let found = client.diagnose_run(diagnose.clone()).await.unwrap().into_inner();
    assert_eq!(found.findings.len(), 1, "{found:?}");
    assert!(found.findings[0].cause.contains("Go on?"), "{found:?}");
    assert!(found.findings[0].remedy.contains(&format!("runs approve {id} ask")), "{found:?}");

    let wrong =
        v1::DecideStepRequest { run_id: id.clone(), step: "go".into(), ..Default::default() };
    let status = client.decide_step(wrong).await.unwrap_err();
    assert_eq!(reason(&status), "STEP_NOT_WAITING");
    let missing =
        v1::DecideStepRequest { run_id: id.clone(), step: "nope".into(), ..Default::default() };
    assert_eq!(reason(&client.decide_step(missing).await.unwrap_err()), "STEP_NOT_FOUND");

    let decide = v1::DecideStepRequest {
        run_id: id.clone(),
        step: "ask".into(),
        approve: true,
        comment: "fine".into(),
        request_id: "d-1".into(),
        amendment: None,
    };
    client.decide_step(decide.clone()).await.unwrap();
    client.decide_step(decide.clone()).await.expect("the same request gets the same answer");
    let other = v1::DecideStepRequest { approve: false, ..decide };
    assert_eq!(reason(&client.decide_step(other).await.unwrap_err()), "REQUEST_ID_REUSED");

    let signal = v1::SignalRunRequest {
        run_id: id.clone(),
        signal: "go".into(),
        payload: Some(v1::Payload {
            data: Some(v1::payload::Data::Json(r#"{"big": 123456789012345678}"#.into())),
            ..Default::default()
        }),
        ..Default::default()
    };
    client.signal_run(signal).await.unwrap();
    let (_, last) = ended(&server, &id, 0).await;
    assert_eq!(last.status(), RunStatus::Success);
    let steps = v1::ListStepsRequest { run_id: id.clone(), ..Default::default() };
    let steps = client.list_steps(steps).await.unwrap().into_inner().steps;
    assert_eq!(json(steps[1].output.as_ref()), r#"{"big": 123456789012345678}"#);
    let cancel = v1::CancelRunRequest { run_id: id, ..Default::default() };
    assert_eq!(reason(&client.cancel_run(cancel).await.unwrap_err()), "RUN_ENDED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_paused_resumed_and_cancelled() {
    let server = server().await;
    let id = started(&server, start(GATE)).await;
    let mut client = server.orchestrator();
    let pause = v1::PauseRunRequest { run_id: id.clone(), ..Default::default() };
    let paused = client.pause_run(pause).await.unwrap().into_inner().run.unwrap();
    assert_eq!(paused.status(), RunStatus::Paused);
    let resume = v1::ResumeRunRequest { run_id: id.clone(), ..Default::default() };
    let resumed = client.resume_run(resume).await.unwrap().into_inner().run.unwrap();
    assert_ne!(resumed.status(), RunStatus::Paused);
    let retry = v1::RetryRunRequest { run_id: id.clone(), ..Default::default() };
    let status = client.retry_run(retry).await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::FailedPrecondition, "RUN_NOT_ENDED")
    );
    let cancel =
        v1::CancelRunRequest { run_id: id.clone(), reason: "no".into(), ..Default::default() };
    client.cancel_run(cancel).await.unwrap();
    let (_, last) = ended(&server, &id, 0).await;
    assert_eq!(last.status(), RunStatus::Cancelled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_starts_are_refused_with_what_is_wrong() {
    let server = server().await;
    let mut client = server.orchestrator();
    let mut refused =
        async |request: v1::StartRunRequest| client.start_run(request).await.unwrap_err();

    let status = refused(v1::StartRunRequest::default()).await;
    assert_eq!(reason(&status), "INVALID_FIELD");

    let status = refused(start("name: x\nstepz: []\n")).await;
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::InvalidArgument, "INVALID_DEFINITION")
    );
    let details = status.get_error_details();
    let violations = &details.bad_request().unwrap().field_violations;
    assert!(violations.iter().any(|it| it.field == "definition:2:1"), "{violations:?}");
    let metadata = &details.error_info().unwrap().metadata;
    assert!(metadata["complaints"].contains("\"line\":2"), "{metadata:?}");

    let params = Some(v1::Payload {
        data: Some(v1::payload::Data::Json(r#"{"n": "x", "m": 1}"#.into())),
        ..Default::default()
    });
    let status = refused(v1::StartRunRequest { params, ..start(CHAIN) }).await;
    assert_eq!(reason(&status), "INVALID_PARAMS");
    let details = status.get_error_details();
    let violations = &details.bad_request().unwrap().field_violations;
    let mut fields: Vec<&str> = violations.iter().map(|it| it.field.as_str()).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["params.m", "params.n"]);

    let status = refused(v1::StartRunRequest { require_agents: true, ..start(CHAIN) }).await;
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("step `a`"), "{}", status.message());
    assert!(status.message().contains("echo"), "{}", status.message());

    let source = Some(Source::Workflow("chian".to_owned()));
    let status = refused(v1::StartRunRequest { source, ..Default::default() }).await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "WORKFLOW_NOT_FOUND"));

    let status = refused(v1::StartRunRequest { priority: Some(12), ..start(CHAIN) }).await;
    assert!(status.message().contains("0 to 9"));

    let sub = "name: up\nsteps:\n  - workflow: down\n";
    let status = refused(start(sub)).await;
    assert_eq!(reason(&status), "INVALID_DEFINITION");
    assert!(status.message().contains("w.yml:3:"), "{}", status.message());
    let get = v1::GetRunRequest { run_id: "x".into(), ..Default::default() };
    assert_eq!(reason(&server.orchestrator().get_run(get).await.unwrap_err()), "INVALID_FIELD");
    let run_id = "018bcfe5-6800-7000-8000-000000000000".to_owned();
    let get = v1::GetRunRequest { run_id, ..Default::default() };
    assert_eq!(reason(&server.orchestrator().get_run(get).await.unwrap_err()), "RUN_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_only_checked_is_not_started_and_missing_agents_are_warned_of() {
    let server = server().await;
    let request = v1::StartRunRequest { validate_only: true, ..start(CHAIN) };
    let response = server.orchestrator().start_run(request).await.unwrap().into_inner();
    let run = response.run.unwrap();
    assert_eq!((run.run_id.as_str(), run.workflow.as_str()), ("", "chain"));
    assert_eq!(json(run.params.as_ref()), r#"{"n":1}"#);
    let first = &response.complaints[0];
    assert_eq!((first.line, first.severity()), (7, v1::Severity::Warning));
    assert!(first.message.contains("`echo`"), "{first:?}");
    let all = server.orchestrator().list_runs(v1::ListRunsRequest::default()).await.unwrap();
    assert_eq!(all.into_inner().runs, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sub_workflow_comes_from_beside_the_file() {
    let server = server().await;
    let _echo = echo(&server).await;
    let main = "name: up\nsteps:\n  - {id: sub, workflow: chain, params: {n: 4}}\noutputs: {got: sub.sum}\n";
    let mut definition = definition(main);
    definition.siblings = [("chain".to_owned(), CHAIN.to_owned())].into();
    let source = Some(Source::Definition(definition));
    let id = started(&server, v1::StartRunRequest { source, ..Default::default() }).await;
    let (_, last) = ended(&server, &id, 0).await;
    assert_eq!(last.status(), RunStatus::Success, "{last:?}");
    assert_eq!(json(last.outputs.as_ref()), r#"{"got":5}"#);
    let filter = format!("parent_run_id={id}");
    let request = v1::ListRunsRequest { filter, ..Default::default() };
    let children = server.orchestrator().list_runs(request).await.unwrap().into_inner().runs;
    assert_eq!(children.len(), 1);
    assert_eq!(children[0].parent_run_id, id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_task_is_a_dead_letter_that_can_be_replayed_or_discarded() {
    let server = server().await;
    let _echo = echo(&server).await;
    let yaml = "name: bad\nsteps:\n  - {id: f, agent: echo, action: fail, params: {message: boom, kind: permanent}}\n";
    let id = started(&server, start(yaml)).await;
    let (_, last) = ended(&server, &id, 0).await;
    assert_eq!((last.status(), last.failed_step.as_str()), (RunStatus::Failure, "f"));
    assert!(last.error.contains("boom"), "{last:?}");
    let mut client = server.dead_letters();
    let list = v1::ListDeadLettersRequest::default();
    let letters = client.list_dead_letters(list.clone()).await.unwrap().into_inner().dead_letters;
    let letter_id = format!("{id}/f");
    assert_eq!(letters[0].dead_letter_id, letter_id);
    assert_eq!((letters[0].action.as_str(), letters[0].attempts), ("fail", 1));
    assert_eq!(letters[0].input, None);
    let get = v1::GetDeadLetterRequest { dead_letter_id: letter_id.clone() };
    let letter =
        client.get_dead_letter(get.clone()).await.unwrap().into_inner().dead_letter.unwrap();
    assert!(json(letter.input.as_ref()).contains("boom"));

    let replay = v1::ReplayDeadLetterRequest {
        dead_letter_id: letter_id.clone(),
        request_id: "again".to_owned(),
    };
    let before = last.version_sequence;
    client.replay_dead_letter(replay.clone()).await.unwrap();
    client.replay_dead_letter(replay).await.expect("the same request gets the same answer");
    let (events, last) = ended(&server, &id, before).await;
    assert_eq!(events[0].kind(), v1::EventKind::RunRetried);
    let retries = events.iter().filter(|event| event.kind() == v1::EventKind::RunRetried).count();
    assert_eq!((last.status(), retries), (RunStatus::Failure, 1));

    let discard = v1::DiscardDeadLetterRequest { dead_letter_id: letter_id, ..Default::default() };
    client.discard_dead_letter(discard.clone()).await.unwrap();
    let status = client.discard_dead_letter(discard).await.unwrap_err();
    assert_eq!(reason(&status), "DEAD_LETTER_NOT_FOUND");
    assert_eq!(reason(&client.get_dead_letter(get).await.unwrap_err()), "DEAD_LETTER_NOT_FOUND");
    let letters = client.list_dead_letters(list).await.unwrap().into_inner().dead_letters;
    assert_eq!(letters, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_steps_and_journals_are_read_by_pages() {
    let server = server().await;
    let _echo = echo(&server).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        let id = started(&server, start(CHAIN)).await;
        ended(&server, &id, 0).await;
        ids.push(id);
    }
    let mut client = server.orchestrator();
    for (order_by, reverse) in [("", true), ("create_time", false)] {
        let (mut seen, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = v1::ListRunsRequest {
                page_size: 2,
                page_token,
                filter: "workflow=chain AND status=success".into(),
                order_by: order_by.into(),
            };
            let page = client.list_runs(request).await.unwrap().into_inner();
            assert!(page.runs.len() <= 2);
            seen.extend(page.runs.into_iter().map(|run| run.run_id));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        let mut expected = ids.clone();
        if reverse {
            expected.reverse();
        }
        assert_eq!(seen, expected);
    }
    let steps = v1::ListStepsRequest { run_id: ids[0].clone(), page_size: 1, ..Default::default() };
    let first = client.list_steps(steps.clone()).await.unwrap().into_inner();
    let page_token = first.next_page_token.clone();
    let second = v1::ListStepsRequest { page_token: page_token.clone(), ..steps };
    let second = client.list_steps(second).await.unwrap().into_inner();
    assert_eq!((first.steps[0].step_id.as_str(), second.steps[0].step_id.as_str()), ("a", "b"));
    assert_eq!(second.next_page_token, "");
    let wrong = v1::ListStepsRequest { run_id: ids[1].clone(), page_token, ..Default::default() };
    assert_eq!(reason(&client.list_steps(wrong).await.unwrap_err()), "INVALID_PAGE_TOKEN");

    let (mut sequences, mut page_token) = (Vec::new(), String::new());
    loop {
        let run_id = ids[0].clone();
        let request = v1::ListRunJournalRequest { run_id, page_size: 3, page_token };
        let page = client.list_run_journal(request).await.unwrap().into_inner();
        sequences.extend(page.events.iter().map(|event| event.sequence));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(sequences, (1..=sequences.len() as i64).collect::<Vec<_>>());
    assert!(sequences.len() > 3);
    let wrong = v1::ListRunsRequest { filter: "x=1".into(), ..Default::default() };
    assert_eq!(reason(&client.list_runs(wrong).await.unwrap_err()), "INVALID_FILTER");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_without_an_agent_says_so_and_goes_on_when_one_comes() {
    let server = server().await;
    let id = started(&server, start(CHAIN)).await;
    let mut client = server.orchestrator();
    let mut findings = Vec::new();
    until("the step waits for an agent", async || {
        let request = v1::DiagnoseRunRequest { run_id: id.clone() };
        findings = client.diagnose_run(request).await.unwrap().into_inner().findings;
        !findings.is_empty()
    })
    .await;
    assert_eq!(findings[0].step, "a");
    assert!(findings[0].cause.contains("no agent of type `echo` is connected"), "{findings:?}");
    let steps = v1::ListStepsRequest { run_id: id.clone(), ..Default::default() };
    let steps = client.list_steps(steps).await.unwrap().into_inner().steps;
    assert_eq!(steps[0].status, "queued");
    assert!(steps[0].waiting_reason.contains("echo"), "{steps:?}");
    let _echo = support::echo(&server).await;
    let (_, last) = ended(&server, &id, 0).await;
    assert_eq!(last.status(), RunStatus::Success);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_goes_on_after_a_restart_and_its_watch_with_it() {
    let server = server().await;
    let id = started(&server, start(GATE)).await;
    until("the run waits", async || {
        run(&server, &id, RunView::Basic).await.status() == RunStatus::Waiting
    })
    .await;
    let seen = run(&server, &id, RunView::Basic).await.version_sequence;
    let server = server.restart().await.unwrap();
    let cancel = v1::CancelRunRequest { run_id: id.clone(), ..Default::default() };
    server.orchestrator().cancel_run(cancel).await.unwrap();
    let (events, last) = ended(&server, &id, seen).await;
    assert_eq!(events[0].sequence, seen + 1);
    assert_eq!(last.status(), RunStatus::Cancelled);
}
