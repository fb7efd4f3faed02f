//! The control plane, an echo agent, how to wait for things.

use std::time::Duration;

use contracts::v1::{self, start_run_request::Source, watch_run_response::Item};
use control_plane::config::Secret;
use control_plane::testing::TestServer;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic_types::StatusExt as _;

/// How long anything may take that is waited for.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) async fn server() -> TestServer {
    control_plane::server::install_metrics();
    TestServer::start().await.unwrap()
}

/// The same on a database of its own.
pub(crate) async fn server_on(database: &store::testing::TestDatabase) -> TestServer {
    control_plane::server::install_metrics();
    let url = Secret::new(database.url());
    TestServer::start_with(|config| config.database_url = Some(url)).await.unwrap()
}

/// An echo agent on a channel within the process, until the token is dropped or cancelled.
pub(crate) async fn echo(server: &TestServer) -> CancellationToken {
    let stop = CancellationToken::new();
    let channel = server.channel();
    let open = move || {
        let channel = channel.clone();
        async move { Ok::<_, std::convert::Infallible>(channel) }
    };
    tokio::spawn(echo_agent::agent().run_on(open, stop.clone()));
    until("the agent is connected", async || {
        let listed = server.agents().list_agents(v1::ListAgentsRequest::default()).await.unwrap();
        !listed.into_inner().agents.is_empty()
    })
    .await;
    stop
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, wait).await.is_ok(), "{what}: not in time");
}

pub(crate) fn definition(yaml: &str) -> v1::Definition {
    v1::Definition { yaml: yaml.to_owned(), file: "w.yml".to_owned(), ..Default::default() }
}

pub(crate) fn start(yaml: &str) -> v1::StartRunRequest {
    v1::StartRunRequest { source: Some(Source::Definition(definition(yaml))), ..Default::default() }
}

pub(crate) async fn started(server: &TestServer, request: v1::StartRunRequest) -> String {
    let response = server.orchestrator().start_run(request).await.unwrap().into_inner();
    response.run.unwrap().run_id
}

/// Watches a run to its end: the events and the run as it ended.
pub(crate) async fn ended(
    server: &TestServer,
    run_id: &str,
    after_sequence: i64,
) -> (Vec<v1::JournalEvent>, v1::Run) {
    let request = v1::WatchRunRequest { run_id: run_id.to_owned(), after_sequence };
    let mut stream = server.orchestrator().watch_run(request).await.unwrap().into_inner();
    let mut events = Vec::new();
    let watch = async {
        loop {
            match stream.message().await.unwrap().unwrap().item.unwrap() {
                Item::Event(event) => events.push(event),
                Item::Update(_) => {}
                Item::Ended(ended) => return ended.run.unwrap(),
            }
        }
    };
    let run = tokio::time::timeout(DEADLINE, watch).await.unwrap();
    (events, run)
}

pub(crate) async fn run(server: &TestServer, run_id: &str, view: v1::RunView) -> v1::Run {
    let request = v1::GetRunRequest { run_id: run_id.to_owned(), view: view.into() };
    server.orchestrator().get_run(request).await.unwrap().into_inner().run.unwrap()
}

pub(crate) fn reason(status: &Status) -> String {
    status.get_error_details().error_info().unwrap().reason.clone()
}

pub(crate) fn json(payload: Option<&v1::Payload>) -> String {
    match payload.and_then(|payload| payload.data.as_ref()) {
        Some(v1::payload::Data::Json(text)) => text.clone(),
        other => panic!("no JSON: {other:?}"),
    }
}
