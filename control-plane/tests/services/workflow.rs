//! Validating, registering and listing workflows.

use contracts::v1::{self, start_run_request::Source};
use tonic::Code;

use crate::support::{definition, json, reason, server, started};

const ONE: &str = "
name: greet
version: '1'
description: Says something.
params:
  whom: {type: string, required: true}
  often: {type: integer, default: 2}
steps:
  - {id: w, wait: 1h}
";

fn register(yaml: &str) -> v1::RegisterWorkflowRequest {
    v1::RegisterWorkflowRequest { definition: Some(definition(yaml)), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workflow_is_registered_read_and_started_by_name() {
    let server = server().await;
    let mut client = server.orchestrator();
    let registered = client.register_workflow(register(ONE)).await.unwrap().into_inner();
    let workflow = registered.workflow.unwrap();
    assert_eq!((workflow.name.as_str(), workflow.version.as_str()), ("greet", "1"));
    assert_eq!(workflow.description, "Says something.");
    assert_eq!(workflow.hash.len(), 64);
    let schema: serde_json::Value =
        serde_json::from_str(&json(workflow.params_schema.as_ref())).unwrap();
    assert_eq!(schema["whom"]["type"], "string");
    assert_eq!(schema["often"]["default"], 2);
    let get = v1::GetWorkflowRequest { name: "greet".into(), version: String::new() };
    let got = client.get_workflow(get).await.unwrap().into_inner().workflow.unwrap();
    assert_eq!(got.definition, ONE);

    let two = ONE.replace("'1'", "'2'");
    client.register_workflow(register(&two)).await.unwrap();
    let params = Some(v1::Payload {
        data: Some(v1::payload::Data::Json(r#"{"whom": "you"}"#.into())),
        ..Default::default()
    });
    for (name, version) in [("greet", "2"), ("greet@1", "1"), ("greet@2", "2")] {
        let source = Some(Source::Workflow(name.to_owned()));
        let request = v1::StartRunRequest { source, params: params.clone(), ..Default::default() };
        let run = client.start_run(request).await.unwrap().into_inner().run.unwrap();
        assert_eq!(run.version, version);
    }
    let source = Some(Source::Workflow("greet@9".to_owned()));
    let request = v1::StartRunRequest { source, params: params.clone(), ..Default::default() };
    let status = client.start_run(request).await.unwrap_err();
    assert!(status.message().contains("its versions are 1, 2"), "{}", status.message());
    let source = Some(Source::Workflow("gret".to_owned()));
    let request = v1::StartRunRequest { source, params, ..Default::default() };
    let status = client.start_run(request).await.unwrap_err();
    assert!(status.message().contains("did you mean `greet`?"), "{}", status.message());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_content_under_the_same_version_must_be_asked_for() {
    let server = server().await;
    let mut client = server.orchestrator();
    let first = client.register_workflow(register(ONE)).await.unwrap().into_inner();
    let etag = first.workflow.unwrap().hash;
    client.register_workflow(register(ONE)).await.expect("the same content again is fine");
    let other = ONE.replace("1h", "2h");
    let status = client.register_workflow(register(&other)).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::AlreadyExists, "WORKFLOW_EXISTS"));
    let wrong =
        v1::RegisterWorkflowRequest { replace: true, etag: "0".repeat(64), ..register(&other) };
    let status = client.register_workflow(wrong).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Aborted, "ETAG_MISMATCH"));
    let right = v1::RegisterWorkflowRequest { replace: true, etag, ..register(&other) };
    client.register_workflow(right).await.unwrap();
    let get = v1::GetWorkflowRequest { name: "greet".into(), version: "1".into() };
    let got = client.get_workflow(get).await.unwrap().into_inner().workflow.unwrap();
    assert_eq!(got.definition, other);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registration_is_repeated_by_its_request_id() {
    let server = server().await;
    let mut client = server.orchestrator();
    let request = v1::RegisterWorkflowRequest { request_id: "r".into(), ..register(ONE) };
    let first = client.register_workflow(request.clone()).await.unwrap().into_inner();
    let again = client.register_workflow(request.clone()).await.unwrap().into_inner();
    assert_eq!(first.workflow, again.workflow);
    let other = v1::RegisterWorkflowRequest {
        definition: Some(definition(&ONE.replace("'1'", "'2'"))),
        ..request
    };
    let status = client.register_workflow(other).await.unwrap_err();
    assert_eq!(reason(&status), "REQUEST_ID_REUSED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workflows_are_listed_by_pages_without_their_text() {
    let server = server().await;
    let mut client = server.orchestrator();
    for name in ["b", "c", "a"] {
        client.register_workflow(register(&ONE.replace("greet", name))).await.unwrap();
    }
    let request = v1::ListWorkflowsRequest { page_size: 2, ..Default::default() };
    let first = client.list_workflows(request.clone()).await.unwrap().into_inner();
    let page_token = first.next_page_token.clone();
    let next = v1::ListWorkflowsRequest { page_token, ..request };
    let second = client.list_workflows(next).await.unwrap().into_inner();
    let both = first.workflows.iter().chain(&second.workflows);
    let names: Vec<&str> = both.clone().map(|workflow| workflow.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert!(both.clone().all(|workflow| workflow.definition.is_empty()));
    assert_eq!(second.next_page_token, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn validation_says_everything_and_stores_nothing() {
    let server = server().await;
    let mut client = server.orchestrator();
    let wrong =
        "name: x\nsteps:\n  - {id: a, action: echo, colour: red}\n  - {id: a, wait: soon}\n";
    let request = v1::ValidateWorkflowRequest { definition: Some(definition(wrong)), params: None };
    let said = client.validate_workflow(request).await.unwrap().into_inner();
    assert!(!said.valid && said.workflow.is_none());
    assert!(said.complaints.len() >= 2, "{said:?}");
    assert!(said.complaints.iter().all(|complaint| complaint.file == "w.yml"));

    let params = Some(v1::Payload {
        data: Some(v1::payload::Data::Json(r#"{"often": "x"}"#.into())),
        ..Default::default()
    });
    let definition = Some(definition(ONE));
    let request = v1::ValidateWorkflowRequest { definition: definition.clone(), params };
    let said = client.validate_workflow(request).await.unwrap().into_inner();
    assert!(!said.valid);
    let errors = said.complaints.iter().filter(|it| it.severity() == v1::Severity::Error);
    let errors: Vec<&str> = errors.map(|it| it.message.as_str()).collect();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors[0].starts_with("params.whom: "), "{errors:?}");
    assert!(errors[1].starts_with("params.often: "), "{errors:?}");
    let request = v1::ValidateWorkflowRequest { definition: definition.clone(), params: None };
    let said = client.validate_workflow(request).await.unwrap().into_inner();
    assert!(said.valid);
    assert_eq!(said.workflow.unwrap().name, "greet");
    let request =
        v1::RegisterWorkflowRequest { definition, validate_only: true, ..Default::default() };
    client.register_workflow(request).await.unwrap();
    let listed = client.list_workflows(v1::ListWorkflowsRequest::default()).await.unwrap();
    assert_eq!(listed.into_inner().workflows, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_sub_workflow_is_a_warning_until_it_is_to_run() {
    let server = server().await;
    let mut client = server.orchestrator();
    let up = "name: up\nsteps:\n  - workflow: down\n";
    let registered = client.register_workflow(register(up)).await.unwrap().into_inner();
    assert_eq!(registered.complaints.len(), 1);
    assert_eq!(registered.complaints[0].severity(), v1::Severity::Warning);
    let source = Some(Source::Workflow("up".to_owned()));
    let request = v1::StartRunRequest { source, ..Default::default() };
    let status = client.start_run(request.clone()).await.unwrap_err();
    assert_eq!(reason(&status), "INVALID_DEFINITION");
    client.register_workflow(register("name: down\nsteps:\n  - wait: 1h\n")).await.unwrap();
    started(&server, request).await;
}
