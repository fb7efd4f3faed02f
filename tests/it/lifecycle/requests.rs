//! Starting: request ids, validation alone, params, labels, priorities.

use contracts::v1::{self, EventKind, RunStatus};
use tonic::Code;
use tonic_types::StatusExt as _;

use super::{World, on_both_stores};
use crate::support::client::{by_name, fields, json, reason, request, text};

on_both_stores!(
    a_repeated_request_gets_the_same_answer,
    a_repeated_command_is_carried_out_once,
    validation_alone_starts_and_stores_nothing,
    params_are_checked_all_at_once,
    labels_priority_and_version_stand_on_the_run,
    a_start_can_insist_on_agents,
);

const ECHO: &str = "name: e\nsteps:\n  - {id: a, agent: echo, action: echo, params: {n: 1}}\n";
const GATED: &str = "name: g\nsteps:\n  - {id: gate, wait_for: go}\n";

async fn a_repeated_request_gets_the_same_answer(world: &World) {
    let client = &world.client;
    let request_id = "start-1".to_owned();
    let start = v1::StartRunRequest { request_id, ..request(ECHO) };
    let together: Vec<_> = (0..10)
        .map(|_| {
            let (client, start) = (client.clone(), start.clone());
            tokio::spawn(async move { client.try_start(start).await.unwrap().run_id })
        })
        .collect();
    let mut ids = Vec::new();
    for one in together {
        ids.push(one.await.unwrap());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "one run, however often and at once it is asked for: {ids:?}");
    client.ends_well(&ids[0]).await;
    assert_eq!(client.try_start(start.clone()).await.unwrap().run_id, ids[0]);
    for other in [
        v1::StartRunRequest { priority: Some(1), ..start.clone() },
        v1::StartRunRequest { params: json("{}"), ..start.clone() },
        v1::StartRunRequest { request_id: start.request_id.clone(), ..request(GATED) },
    ] {
        let status = client.try_start(other).await.unwrap_err();
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::AlreadyExists, "REQUEST_ID_REUSED")
        );
    }
    let long = v1::StartRunRequest { request_id: "x".repeat(129), ..request(ECHO) };
    assert_eq!(fields(&client.try_start(long).await.unwrap_err()), ["request_id"]);

    let mark = |request_id: &str| v1::RegisterWorkflowRequest {
        request_id: request_id.to_owned(),
        ..Default::default()
    };
    let first = "name: repeated\nsteps:\n  - wait: 1s\n";
    let one = client.register_as(mark("register-1"), first).await.unwrap();
    let two = client.register_as(mark("register-1"), first).await.unwrap();
    assert_eq!(one, two);
    let second = first.replace("1s", "2s");
    let status = client.register_as(mark("register-1"), &second).await.unwrap_err();
    assert_eq!(reason(&status), "REQUEST_ID_REUSED");
}

async fn a_repeated_command_is_carried_out_once(world: &World) {
    let client = &world.client;
    let yaml = "name: g\nsteps:\n  - {id: one, wait_for: go}\n  - {id: two, wait_for: go}\n";
    let id = client.start(yaml).await;
    let signal = v1::SignalRunRequest {
        run_id: id.clone(),
        signal: "go".to_owned(),
        payload: json("1"),
        request_id: "signal-1".to_owned(),
    };
    for _ in 0..3 {
        client.runs.clone().signal_run(signal.clone()).await.unwrap();
    }
    let other = v1::SignalRunRequest { payload: json("2"), ..signal.clone() };
    let status = client.runs.clone().signal_run(other).await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::AlreadyExists, "REQUEST_ID_REUSED")
    );
    client.event(&id, EventKind::StepWaiting, "two").await;
    assert_eq!(client.run(&id).await.status(), RunStatus::Waiting, "the second signal is to come");
    let cancel = v1::CancelRunRequest {
        run_id: id.clone(),
        request_id: "cancel-1".to_owned(),
        ..Default::default()
    };
    client.runs.clone().cancel_run(cancel.clone()).await.unwrap();
    let (events, run) = client.events(&id, 0).await;
    assert_eq!(run.status(), RunStatus::Cancelled);
    let count = |kind| events.iter().filter(|event| event.kind() == kind).count();
    assert_eq!(count(EventKind::SignalReceived), 1);
    let again = client.runs.clone().cancel_run(cancel).await.unwrap().into_inner().run.unwrap();
    assert_eq!(again.status(), RunStatus::Cancelled, "the same answer, though the run has ended");
    let again = client.runs.clone().signal_run(signal).await.unwrap().into_inner().run.unwrap();
    assert_eq!(again.version_sequence, run.version_sequence);
}

async fn validation_alone_starts_and_stores_nothing(world: &World) {
    let client = &world.client;
    let yaml = ECHO.replace("name: e", "name: only-checked");
    let run = v1::StartRunRequest { validate_only: true, ..request(&yaml) };
    let run = client.try_start(run).await.unwrap();
    assert_eq!((run.run_id.as_str(), run.workflow.as_str()), ("", "only-checked"));
    assert_eq!(client.list("workflow=only-checked").await, []);
    let register = v1::RegisterWorkflowRequest { validate_only: true, ..Default::default() };
    let workflow = client.register_as(register, &yaml).await.unwrap();
    assert_eq!(workflow.hash.len(), 64);
    let get = v1::GetWorkflowRequest { name: "only-checked".into(), version: String::new() };
    let status = client.runs.clone().get_workflow(get).await.unwrap_err();
    assert_eq!(reason(&status), "WORKFLOW_NOT_FOUND");

    let wrong = "name: w\nsteps:\n  - {id: a, agent: echo, actoin: echo}\n  - {wait: soon}\n";
    let definition =
        v1::Definition { yaml: wrong.into(), file: "w.yml".into(), ..Default::default() };
    let validate =
        v1::ValidateWorkflowRequest { definition: Some(definition), ..Default::default() };
    let said = client.runs.clone().validate_workflow(validate).await.unwrap().into_inner();
    assert!(!said.valid && said.workflow.is_none());
    let at: Vec<(i32, i32)> =
        said.complaints.iter().map(|complaint| (complaint.line, complaint.column)).collect();
    assert!(at.contains(&(3, 26)) && at.contains(&(4, 12)), "{:?}", said.complaints);
    assert!(said.complaints.iter().all(|complaint| complaint.file == "w.yml"));
    let typo = said.complaints.iter().find(|complaint| complaint.line == 3).unwrap();
    assert_eq!(typo.suggestion, "action");
    let status = client.try_start(request(wrong)).await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::InvalidArgument, "INVALID_DEFINITION")
    );
    assert!(fields(&status).contains(&"definition:3:26".to_owned()), "{:?}", fields(&status));
}

async fn params_are_checked_all_at_once(world: &World) {
    let client = &world.client;
    let yaml = "name: p\nparams:\n  city: {type: string, minLength: 1, required: true}\n  \
                count: {type: integer, minimum: 1, maximum: 20, default: 2}\n  \
                mode: {enum: [fast, safe], default: safe}\n  note:\nsteps:\n  \
                - {id: a, agent: echo, action: echo, params: '${{ params }}'}\n\
                outputs: {all: a.output}\n";
    let with = |params: &str| v1::StartRunRequest { params: json(params), ..request(yaml) };
    let run = client.try_start(with(r#"{"city":"Köln"}"#)).await.unwrap();
    let run = client.ends_well(&run.run_id).await;
    let all = r#"{"city":"Köln","count":2,"mode":"safe","note":null}"#;
    assert_eq!(text(run.params.as_ref()), all);
    assert_eq!(text(run.outputs.as_ref()), format!("{{\"all\":{all}}}"));
    let wrong = r#"{"count":21,"mode":"slow","citty":"x"}"#;
    let status = client.try_start(with(wrong)).await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::InvalidArgument, "INVALID_PARAMS")
    );
    let mut wrong = fields(&status);
    wrong.sort();
    assert_eq!(wrong, ["params.citty", "params.city", "params.count", "params.mode"]);
    let details = status.get_error_details();
    let said = &details.bad_request().unwrap().field_violations;
    let unknown = said.iter().find(|one| one.field == "params.citty").unwrap();
    assert!(unknown.description.contains("`city`"), "{unknown:?}");
    for not_an_object in ["[]", "1", "null "] {
        let status = client.try_start(with(not_an_object)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{not_an_object}");
    }
    assert_eq!(reason(&client.try_start(with("{")).await.unwrap_err()), "INVALID_FIELD");
    let none = v1::StartRunRequest { source: None, ..Default::default() };
    assert_eq!(reason(&client.try_start(none).await.unwrap_err()), "INVALID_FIELD");
}

async fn labels_priority_and_version_stand_on_the_run(world: &World) {
    let client = &world.client;
    let yaml = ECHO.replace("name: e", "name: labelled\nversion: '7'\npriority: 3");
    client.register(&yaml).await.unwrap();
    let labels = [("team".to_owned(), "blue".to_owned())].into_iter().collect();
    let start = v1::StartRunRequest { labels, ..by_name("labelled@7") };
    let run = client.try_start(start.clone()).await.unwrap();
    let run = client.ends_well(&run.run_id).await;
    assert_eq!((run.version.as_str(), run.priority), ("7", 3));
    assert_eq!(run.labels["team"], "blue");
    assert!(!run.actor.is_empty());
    let run = client.try_start(v1::StartRunRequest { priority: Some(0), ..start.clone() }).await;
    assert_eq!(run.unwrap().priority, 0);
    let wrong = v1::StartRunRequest { priority: Some(10), ..start };
    assert_eq!(fields(&client.try_start(wrong).await.unwrap_err()), ["priority"]);
    for name in ["labelled@8", "nothing", "nothing@1"] {
        let status = client.try_start(by_name(name)).await.unwrap_err();
        assert_eq!(reason(&status), "WORKFLOW_NOT_FOUND", "{name}");
    }
}

async fn a_start_can_insist_on_agents(world: &World) {
    let client = &world.client;
    let yaml = "name: n\nsteps:\n  - {id: a, agent: ecco, action: echo}\n";
    let warned = client.runs.clone().start_run(request(yaml)).await.unwrap().into_inner();
    assert_eq!(warned.complaints.len(), 1);
    assert_eq!(warned.complaints[0].severity(), v1::Severity::Warning);
    assert!(warned.complaints[0].message.contains("ecco"), "{:?}", warned.complaints);
    let id = warned.run.unwrap().run_id;
    assert!(client.finding(&id, "no agent of type `ecco`").await.cause.contains("`echo`"));
    client.cancel(&id).await.unwrap();
    assert_eq!(client.ended(&id).await.status(), RunStatus::Cancelled);
    let insist = v1::StartRunRequest { require_agents: true, ..request(yaml) };
    let status = client.try_start(insist).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("ecco"), "{status:?}");
}
