//! What the port shows beside runs, and how the process starts and stops.

use std::path::Path;
use std::process::Output;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use contracts::v1::orchestrator_service_client::OrchestratorServiceClient;
use contracts::v1::{self, EventKind};
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::Mutex;
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::{v1 as reflect, v1alpha as reflect_alpha};
use tonic_types::StatusExt as _;

use crate::support::client::{Client, reason};
use crate::support::{DEADLINE, Server, http, orchestrator};

const SERVICES: [&str; 3] = [
    "orchestrator.v1.AgentService",
    "orchestrator.v1.DeadLetterService",
    "orchestrator.v1.OrchestratorService",
];

#[derive(Debug)]
struct Shared {
    server: Server,
    _folder: TempDir,
}

/// One `up` for the tests here that only look.
async fn shared() -> Arc<Shared> {
    static SHARED: Mutex<Weak<Shared>> = Mutex::const_new(Weak::new());
    let mut slot = SHARED.lock().await;
    let shared = slot.upgrade().unwrap_or_else(|| {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start("up", &folder.path().join("data"), None, &[]);
        Arc::new(Shared { server, _folder: folder })
    });
    *slot = Arc::downgrade(&shared);
    shared
}

#[tokio::test]
async fn reflection_lists_every_service_in_both_versions() {
    let shared = shared().await;
    let mut expected = SERVICES.map(ToOwned::to_owned).to_vec();
    expected.push("grpc.health.v1.Health".to_owned());

    use reflect::server_reflection_request::MessageRequest;
    use reflect::server_reflection_response::MessageResponse;
    let ask = |request| reflect::ServerReflectionRequest {
        message_request: Some(request),
        ..Default::default()
    };
    let requests = [
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol("orchestrator.v1.StartRunRequest".into())),
    ];
    let channel = shared.server.channel().await;
    let mut client = reflect::server_reflection_client::ServerReflectionClient::new(channel);
    let answers = client.server_reflection_info(tokio_stream::iter(requests)).await.unwrap();
    let answers: Vec<_> = answers.into_inner().map(Result::unwrap).collect().await;
    let Some(MessageResponse::ListServicesResponse(listed)) = &answers[0].message_response else {
        panic!("{answers:?}")
    };
    let names: Vec<&String> = listed.service.iter().map(|service| &service.name).collect();
    assert!(expected.iter().all(|name| names.contains(&name)), "{names:?}");
    let file = answers[1].message_response.as_ref().unwrap();
    assert!(matches!(file, MessageResponse::FileDescriptorResponse(found)
        if !found.file_descriptor_proto.is_empty()));

    use reflect_alpha::server_reflection_request::MessageRequest as AlphaRequest;
    use reflect_alpha::server_reflection_response::MessageResponse as AlphaResponse;
    let request = reflect_alpha::ServerReflectionRequest {
        message_request: Some(AlphaRequest::ListServices(String::new())),
        ..Default::default()
    };
    let channel = shared.server.channel().await;
    let mut client = reflect_alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let answers = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap();
    let answer = answers.into_inner().next().await.unwrap().unwrap();
    let Some(AlphaResponse::ListServicesResponse(listed)) = answer.message_response else {
        panic!("no list")
    };
    let names: Vec<String> = listed.service.into_iter().map(|service| service.name).collect();
    assert!(expected.iter().all(|name| names.contains(name)), "{names:?}");
}

#[tokio::test]
async fn health_is_told_for_each_service() {
    let shared = shared().await;
    let mut client = HealthClient::new(shared.server.channel().await);
    for service in [""].iter().chain(&SERVICES) {
        let request = HealthCheckRequest { service: (*service).to_owned() };
        let answer = client.check(request).await;
        let Ok(answer) = answer else { panic!("{service}: {answer:?}") };
        assert_eq!(answer.into_inner().status, 1, "{service}");
    }
    let request = HealthCheckRequest { service: "nobody".to_owned() };
    assert_eq!(client.check(request).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn health_as_json_has_its_fields() {
    let shared = shared().await;
    let began = Instant::now();
    let answer = http::get(&shared.server.url, "/health");
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!(answer.status, 200);
    assert!(answer.headers.contains("content-type: application/json"), "{}", answer.headers);
    let body = answer.json();
    assert_eq!(body["status"], "ok");
    assert_eq!(body["store"], json!({"kind": "sqlite", "ok": true}));
    assert!(body["agents"]["connected"].as_u64().unwrap() >= 8);
    assert_eq!(body["agents"]["unhealthy"], 0);
    assert!(body["active_runs"].is_u64() && body["escalations"].is_u64(), "{body}");
    assert!(!body["version"].as_str().unwrap().is_empty());
}

#[tokio::test]
async fn what_people_owe_is_counted_as_escalations() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start("serve", &folder.path().join("data"), None, &[]);
    let client = Client::of(&server).await;
    let id = client.start("name: q\nsteps:\n  - {id: ok, approve: {message: 'Go?'}}\n").await;
    client.event(&id, EventKind::StepWaiting, "ok").await;
    let count = || http::get(&server.url, "/health").json()["escalations"].clone();
    assert_eq!(count(), 1);
    client.decide(&id, "ok", true, "").await.unwrap();
    client.ends_well(&id).await;
    crate::support::until("it is decided", async || count() == 0).await;
    assert_eq!(http::get(&server.url, "/health").json()["active_runs"], 0);
}

#[tokio::test]
async fn metrics_have_the_names_of_the_documents() {
    let shared = shared().await;
    let client = Client::of(&shared.server).await;
    let yaml = "name: m\nsteps:\n  - {id: a, agent: echo, action: echo}\n";
    client.ends_well(&client.start(yaml).await).await;
    let fails = "name: m\nsteps:\n  - {id: a, agent: echo, action: fail}\n";
    client.ended(&client.start(fails).await).await;
    let answer = http::get(&shared.server.url, "/metrics");
    assert_eq!(answer.status, 200);
    assert!(answer.headers.contains("content-type: text/plain"), "{}", answer.headers);
    let text = answer.text();
    for name in [
        "orchestrator_workflows_total{status=\"success\"}",
        "orchestrator_workflows_total{status=\"failure\"}",
        "orchestrator_workflows_active ",
        "orchestrator_workflow_duration_seconds_bucket{",
        "orchestrator_workflow_duration_seconds_count",
        "orchestrator_success_rate ",
        "orchestrator_agent_executions_total{agent=\"echo\"",
        "orchestrator_agent_errors_total{agent=\"echo\"",
        "orchestrator_agent_latency_seconds_bucket{agent=\"echo\"",
    ] {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name}\n{text}");
    }
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with("orchestrator_"), "{line}");
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
    let rate = text.lines().find_map(|line| line.strip_prefix("orchestrator_success_rate "));
    let rate: f64 = rate.unwrap().parse().unwrap();
    assert!(rate > 0.0 && rate < 1.0, "{rate}");
}

#[tokio::test]
async fn other_paths_and_methods_are_answered_in_json() {
    let shared = shared().await;
    let url = &shared.server.url;
    let answer = http::get(url, "/api/nothing");
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (404, &json!("NOT_FOUND")));
    assert!(answer.json()["error"]["message"].as_str().unwrap().contains("/api/nothing"));
    let answer = http::send(url, "POST /health", &[], b"{}");
    assert_eq!(answer.status, 405);
    assert_eq!(answer.json()["error"]["code"], "METHOD_NOT_ALLOWED");
}

/// A message of `ListRuns` in a frame, and the answer's frames: flags and bodies.
fn grpc_web(url: &str, path: &str, content_type: &str, body: &[u8]) -> http::Answer {
    let header = format!("content-type: {content_type}");
    let accept = format!("accept: {content_type}");
    let headers = [&*header, &*accept, "x-grpc-web: 1", "origin: http://page.example"];
    http::send(url, &format!("POST {path}"), &headers, body)
}

#[tokio::test]
async fn browsers_call_over_http_1_by_grpc_web() {
    let shared = shared().await;
    let url = &shared.server.url;
    let path = "/orchestrator.v1.OrchestratorService/ListRuns";
    // Field 1 is the page size: 1. The frame: no flags, two bytes.
    let frame = [0, 0, 0, 0, 2, 0x08, 0x01];
    let answer = grpc_web(url, path, "application/grpc-web+proto", &frame);
    assert_eq!(answer.status, 200);
    assert!(answer.headers.contains("access-control-allow-origin"), "{}", answer.headers);
    assert!(answer.headers.contains("content-type: application/grpc-web"), "{}", answer.headers);
    let length = u32::from_be_bytes(answer.body[1..5].try_into().unwrap()) as usize;
    assert_eq!(answer.body[0], 0, "a message comes first");
    let trailers = &answer.body[5 + length..];
    assert_eq!(trailers[0], 0x80, "then the trailers");
    let trailers = String::from_utf8_lossy(&trailers[5..]).into_owned();
    assert!(
        trailers.contains("grpc-status:0") || trailers.contains("grpc-status: 0"),
        "{trailers}"
    );
    // The same as text: base64 of an empty message's frame.
    let answer = grpc_web(url, path, "application/grpc-web-text", b"AAAAAAA=");
    assert_eq!(answer.status, 200);
    assert!(answer.body.starts_with(b"AAAA"), "{}", answer.text());
    // A refusal: field 3 is the filter, `x`.
    let frame = [0, 0, 0, 0, 3, 0x1a, 0x01, b'x'];
    let answer = grpc_web(url, path, "application/grpc-web+proto", &frame);
    let said = format!("{}{}", answer.headers, answer.text());
    assert!(said.contains("grpc-status:3") || said.contains("grpc-status: 3"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_ends_watches_with_advice_and_the_process_with_0() {
    let folder = tempfile::tempdir().unwrap();
    let Server { process, url } = Server::start("up", &folder.path().join("data"), None, &[]);
    let channel = tonic::transport::Channel::from_shared(url).unwrap().connect().await.unwrap();
    let mut client = OrchestratorServiceClient::new(channel);
    let request = crate::support::client::request("name: w\nsteps:\n  - {id: w, wait: 1h}\n");
    let id = client.start_run(request).await.unwrap().into_inner().run.unwrap().run_id;
    let watch = v1::WatchRunRequest { run_id: id, after_sequence: 0 };
    let mut stream = client.watch_run(watch).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    let began = Instant::now();
    let ending = tokio::task::spawn_blocking(move || process.terminate());
    let status = loop {
        match tokio::time::timeout(DEADLINE, stream.message()).await.unwrap() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the watch ended as if the run had"),
            Err(status) => break status,
        }
    };
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "UNAVAILABLE"));
    assert!(status.get_error_details().retry_info().is_some());
    assert_eq!(ending.await.unwrap(), 0);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_does_not_wait_for_a_task_that_takes_long() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start("up", &data, None, &[]);
    let client = Client::of(&server).await;
    let yaml = "name: s\nsteps:\n  - {id: s, agent: echo, action: sleep, \
                params: {duration: 1h}, timeout: 2h}\n";
    let id = client.start(yaml).await;
    client.accepted(&id, "s").await;
    let began = Instant::now();
    let Server { process, .. } = server;
    let ending = tokio::task::spawn_blocking(move || process.terminate());
    assert_eq!(ending.await.unwrap(), 0);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    // The run is still there, and goes on with the next process.
    let server = Server::start("up", &data, None, &[]);
    let client = Client::of(&server).await;
    client.accepted(&id, "s").await;
    client.cancel(&id).await.unwrap();
    assert_eq!(client.ended(&id).await.status(), v1::RunStatus::Cancelled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_ends_an_agent_in_bounded_time_however_long_its_task_takes() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start("serve", &folder.path().join("data"), None, &[]);
    let agent = std::process::Command::new(crate::support::binary())
        .args(["agent", "echo", "--drain-timeout", "0", "--server", &server.url])
        .spawn();
    let agent = crate::support::Process::of(agent.unwrap());
    let client = Client::of(&server).await;
    let yaml = "name: s\nsteps:\n  - {id: s, agent: echo, action: sleep, \
                params: {duration: 1h}, timeout: 2h}\n";
    let id = client.start(yaml).await;
    client.accepted(&id, "s").await;
    let ending = tokio::task::spawn_blocking(move || agent.terminate());
    assert_eq!(ending.await.unwrap(), 0, "it told that the task was cancelled, and left");
}

fn serve(arguments: &[&str], folder: &Path) -> (Output, String, String) {
    let data = folder.join("data");
    let mut all = vec!["serve", "--data-dir", data.to_str().unwrap()];
    all.extend(arguments);
    let output = orchestrator(&all, folder);
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, stdout, stderr)
}

#[test]
fn an_open_door_is_refused_unless_it_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (output, _, said) = serve(&["--listen", "0.0.0.0:0"], folder.path());
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("insecure") && said.contains("no authentication"), "{said}");
    let data = folder.path().join("data");
    let server = Server::start("serve", &data, Some("http://0.0.0.0:0"), &["--insecure"]);
    assert_eq!(server.process.terminate(), 0);
}

#[test]
fn the_configuration_is_shown_with_its_sources_and_without_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("orchestrator.toml");
    let text = "retention_days = 7\nslack_webhook_url = 'https://hooks.example/T0/hidden'\n";
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let database = "postgres://me:hidden@db.example/orchestrator";
    let arguments =
        ["--config", file, "--listen", "127.0.0.1:1", "--database-url", database, "--check-config"];
    let (output, shown, said) = serve(&arguments, folder.path());
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(!shown.contains("hidden") && !said.contains("hidden"), "{shown}{said}");
    let line = |name: &str| {
        let found = shown.lines().find(|line| line.starts_with(name));
        found.unwrap_or_else(|| panic!("{name} in {shown}")).to_owned()
    };
    assert!(line("listen").contains("127.0.0.1:1") && line("listen").contains("--listen"));
    assert!(line("retention_days").contains('7') && line("retention_days").contains(file));
    assert!(line("log_format").contains("default"));
    assert!(line("database_url").contains("db.example"), "{shown}");
    assert!(!folder.path().join("data").exists(), "nothing is started or made");
}

#[test]
fn everything_wrong_with_a_configuration_is_said_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("orchestrator.toml");
    std::fs::write(&file, "retention_dayz = 3\nlog_format = 'xml'\nretention_runs = 'many'\n")
        .unwrap();
    let (output, _, said) = serve(&["--config", file.to_str().unwrap()], folder.path());
    assert_eq!(output.status.code(), Some(2), "{said}");
    for part in ["`retention_dayz`", "`retention_days`", "log_format", "xml", "retention_runs"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    let (output, _, said) = serve(&["--config", "/no/such/file.toml"], folder.path());
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("/no/such/file.toml"), "{said}");
    let database = "postgres://me:hidden@127.0.0.1:1/none";
    let (output, _, said) =
        serve(&["--listen", "127.0.0.1:0", "--database-url", database], folder.path());
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(!said.contains("hidden"), "{said}");
}
