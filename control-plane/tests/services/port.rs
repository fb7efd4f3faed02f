//! What else the port serves, and how it stops.

use std::time::{Duration, Instant};

use contracts::v1::{self, watch_run_response::Item};
use control_plane::config::Config;
use control_plane::control_plane::ControlPlane;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

use crate::support::{DEADLINE, echo, ended, reason, server, start, started};

const WAIT: &str = "name: w\nsteps:\n  - wait: 1h\n";

/// An HTTP/1.1 request, spelled out; gives the whole answer as text.
async fn http(url: &str, request: &str) -> String {
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = request.replace('\n', "\r\n");
    stream.write_all(format!("{request}\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    tokio::time::timeout(DEADLINE, read).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

async fn get(url: &str, path: &str) -> String {
    http(url, &format!("GET {path} HTTP/1.1\nhost: x\nconnection: close")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_metrics_and_unknown_paths_are_answered() {
    let server = server().await;
    let _echo = echo(&server).await;
    let yaml = "name: e\nsteps:\n  - {agent: echo, action: echo, params: {a: 1}}\n";
    let id = started(&server, start(yaml)).await;
    ended(&server, &id, 0).await;
    let ask = "name: q\nsteps:\n  - approve: {message: Well?}\n";
    let waiting = started(&server, start(ask)).await;
    crate::support::until("it waits", async || {
        let run = crate::support::run(&server, &waiting, v1::RunView::Basic).await;
        run.status() == v1::RunStatus::Waiting
    })
    .await;

    let answer = get(&server.url(), "/health").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["status"], "ok");
    assert_eq!(body["store"], serde_json::json!({"kind": "sqlite", "ok": true}));
    assert_eq!(body["agents"]["connected"], 1);
    assert_eq!(body["agents"]["unhealthy"], 0);
    assert_eq!(body["active_runs"], 1);
    assert_eq!(body["escalations"], 1);
    assert!(body["version"].is_string());

    let answer = get(&server.url(), "/metrics").await;
    for name in [
        "orchestrator_workflows_total{status=\"success\"}",
        "orchestrator_workflows_active",
        "orchestrator_workflow_duration_seconds_bucket",
        "orchestrator_success_rate",
        "orchestrator_agent_executions_total{agent=\"echo\"",
        "orchestrator_agents_connected",
    ] {
        assert!(answer.contains(name), "{name}\n{answer}");
    }
    let answer = get(&server.url(), "/nothing").await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    assert!(answer.contains("\"NOT_FOUND\""), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn browsers_are_served_by_grpc_web_with_cors() {
    let server = server().await;
    let url = server.url();
    let path = "/orchestrator.v1.OrchestratorService/ListRuns";
    let preflight = http(
        &url,
        &format!(
            "OPTIONS {path} HTTP/1.1\nhost: x\nconnection: close\norigin: http://page\n\
             access-control-request-method: POST\n\
             access-control-request-headers: content-type,x-grpc-web"
        ),
    )
    .await;
    assert!(preflight.starts_with("HTTP/1.1 200"), "{preflight}");
    assert!(preflight.contains("access-control-allow-origin: *"), "{preflight}");
    // A frame: not compressed, of no bytes, which is an empty request.
    let answer = http(
        &url,
        &format!(
            "POST {path} HTTP/1.1\nhost: x\nconnection: close\norigin: http://page\n\
             content-type: application/grpc-web+proto\ncontent-length: 5\n\n\0\0\0\0\0"
        ),
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("grpc-status:0"), "{answer}");
    assert!(answer.contains("access-control-expose-headers"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_told_by_service_and_compressed_messages_are_understood() {
    let server = server().await;
    let channel = Endpoint::from_shared(server.url()).unwrap().connect().await.unwrap();
    let mut health = HealthClient::new(channel.clone());
    for service in ["", "orchestrator.v1.OrchestratorService", "orchestrator.v1.AgentService"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let status = health.check(request).await.unwrap().into_inner().status;
        assert_eq!(status, 1, "{service} is serving");
    }
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let client = contracts::v1::orchestrator_service_client::OrchestratorServiceClient::new(
            channel.clone(),
        );
        let mut client = client.send_compressed(encoding).accept_compressed(encoding);
        let response = client.list_runs(v1::ListRunsRequest::default()).await.unwrap();
        assert!(response.metadata().get("grpc-encoding").is_some(), "{encoding:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_are_reflected_in_both_versions_and_unknown_ones_refused() {
    use tonic_reflection::pb::{v1 as new, v1alpha as old};
    let server = server().await;
    let channel = server.channel();
    let ask = new::server_reflection_request::MessageRequest::ListServices(String::new());
    let ask = new::ServerReflectionRequest { message_request: Some(ask), ..Default::default() };
    let mut client = new::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let answers = client.server_reflection_info(tokio_stream::once(ask)).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap();
    let said = format!("{answer:?}");
    for service in ["OrchestratorService", "AgentService", "DeadLetterService"] {
        assert!(said.contains(&format!("orchestrator.v1.{service}")), "{said}");
    }
    let ask = old::server_reflection_request::MessageRequest::FileContainingSymbol(
        "orchestrator.v1.Run".to_owned(),
    );
    let ask = old::ServerReflectionRequest { message_request: Some(ask), ..Default::default() };
    let mut client = old::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let answers = client.server_reflection_info(tokio_stream::once(ask)).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap();
    assert!(format!("{answer:?}").contains("FileDescriptorResponse"));

    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let path = "/orchestrator.v9.Nothing/Nowhere".parse().unwrap();
    let codec = tonic_prost::ProstCodec::<v1::ListRunsRequest, v1::ListRunsResponse>::default();
    let request = tonic::Request::new(v1::ListRunsRequest::default());
    let status = grpc.unary(request, path, codec).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_too_large_are_refused() {
    let server = server().await;
    let payload = v1::Payload {
        data: Some(v1::payload::Data::Json(format!("\"{}\"", "x".repeat(5 * 1024 * 1024)))),
        ..Default::default()
    };
    let request = v1::StartRunRequest { params: Some(payload), ..start(WAIT) };
    let status = server.orchestrator().start_run(request).await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::ResourceExhausted, "LIMIT_EXCEEDED")
    );
    let request = start(&"x".repeat(9 * 1024 * 1024));
    let status = server.orchestrator().start_run(request).await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::ResourceExhausted, "LIMIT_EXCEEDED")
    );
    assert!(status.message().contains("8388608 bytes are allowed"), "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_ends_watches_with_the_advice_to_come_back() {
    let server = server().await;
    let _echo = echo(&server).await;
    let id = started(&server, start(WAIT)).await;
    let channel = Endpoint::from_shared(server.url()).unwrap().connect().await.unwrap();
    let mut client =
        contracts::v1::orchestrator_service_client::OrchestratorServiceClient::new(channel);
    let request = v1::WatchRunRequest { run_id: id, after_sequence: 0 };
    let mut stream = client.watch_run(request).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap().item.unwrap();
    assert!(matches!(first, Item::Event(event) if event.sequence == 1));
    let began = Instant::now();
    let stop = tokio::spawn(server.control_plane.stop());
    let status = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended without a word"),
            Err(status) => break status,
        }
    };
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "UNAVAILABLE"));
    assert!(status.get_error_details().retry_info().is_some());
    tokio::time::timeout(DEADLINE, stop).await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_sends_clients_and_agents_elsewhere_and_says_when_to_come_back() {
    use contracts::v1::{connect_request, connect_response};
    let server = server().await;
    let channel = Endpoint::from_shared(server.url()).unwrap().connect().await.unwrap();
    let mut agents = contracts::v1::agent_service_client::AgentServiceClient::new(channel.clone());
    let register = v1::Register {
        agent_type: "a".into(),
        instance: "1".into(),
        slots: 1,
        card: Some(v1::AgentCard {
            actions: vec![v1::ActionCard { name: "do".into(), ..Default::default() }],
            ..Default::default()
        }),
        ..Default::default()
    };
    let register = v1::ConnectRequest { frame: Some(connect_request::Frame::Register(register)) };
    let frames = tokio_stream::StreamExt::chain(
        tokio_stream::once(register),
        tokio_stream::pending::<v1::ConnectRequest>(),
    );
    let mut frames = agents.connect(frames).await.unwrap().into_inner();
    let first = frames.message().await.unwrap().unwrap().frame;
    assert!(matches!(first, Some(connect_response::Frame::Registered(_))), "{first:?}");

    server.control_plane.drain().await;
    let request = HealthCheckRequest { service: String::new() };
    let mut health = HealthClient::new(channel.clone());
    assert_eq!(health.check(request).await.unwrap().into_inner().status, 2, "not serving");
    let mut client =
        contracts::v1::orchestrator_service_client::OrchestratorServiceClient::new(channel);
    let refused = client.list_runs(v1::ListRunsRequest::default()).await.unwrap_err();
    let mut rebalanced = false;
    let ended = loop {
        match frames.message().await {
            Ok(Some(response)) => {
                let frame = response.frame.unwrap();
                rebalanced |= matches!(frame, connect_response::Frame::Rebalance(_));
            }
            Ok(None) => panic!("the stream ended without a word"),
            Err(status) => break status,
        }
    };
    assert!(rebalanced, "the agent is asked to go before its stream ends");
    for status in [refused, ended] {
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert!(status.get_error_details().retry_info().is_some(), "{status:?}");
    }
    server.control_plane.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_on_the_same_data_and_an_open_door_are_refused() {
    let server = server().await;
    let clock = control_plane::clock::SystemClock::shared();
    let second = ControlPlane::start(&server.config, clock.clone()).await.unwrap_err().to_string();
    assert!(second.contains("in use by"), "{second}");
    let open = Config { listen: Some(([0, 0, 0, 0], 0).into()), ..server.config.clone() };
    let refused = ControlPlane::start(&open, clock).await.unwrap_err().to_string();
    assert!(refused.contains("--insecure"), "{refused}");
}
