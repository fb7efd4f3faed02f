//! The core with a real agent over real frames: the thinnest whole path.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use contracts::v1::agent_service_server::AgentServiceServer;
use control_plane::clock::SystemClock;
use control_plane::core::{Core, Setup};
use control_plane::dispatch;
use control_plane::runs::{NewRun, started};
use control_plane::service::agent::AgentApi;
use engine::RunId;
use tokio_util::sync::CancellationToken;

const CHAIN: &str = "
name: chain
steps:
  - {id: a, agent: echo, action: echo, params: {n: 1}}
  - {id: b, agent: echo, action: echo, params: {n: '${{ a.n + 1 }}'}}
  - {id: c, agent: echo, action: echo, params: {n: '${{ b.n + 1 }}'}}
  - {id: d, agent: echo, action: echo, params: {n: '${{ c.n + 1 }}'}}
  - {id: e, agent: echo, action: echo, params: {n: '${{ d.n + 1 }}'}}
outputs: {n: e.n}
";

async fn start(folder: &std::path::Path) -> Core {
    let setup = Setup {
        database_url: format!("sqlite:{}", folder.join("test.db").display()),
        dispatch: dispatch::Config::default(),
        webhooks: std::collections::BTreeMap::new(),
        replica: control_plane::replicas::Config::default(),
    };
    Core::start(setup, SystemClock::shared()).await.unwrap()
}

/// Serves agents of `core` on a free port and connects an echo agent to it.
async fn serve(core: &Core, shutdown: &CancellationToken) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service =
        AgentServiceServer::new(AgentApi::new(core.dispatcher.clone(), CancellationToken::new()));
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    tokio::spawn(
        tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming),
    );
    let config = agent_sdk::RunConfig {
        servers: vec![format!("http://{address}")],
        ..agent_sdk::RunConfig::default()
    };
    tokio::spawn(echo_agent::agent().run(config, shutdown.clone()));
}

async fn run_one(core: &Core, graph: &Arc<engine::graph::Graph>, n: u64) -> RunId {
    let id = RunId::at_instant(core.runs.clock().now(), &n.to_string());
    let started = started(graph, "{}".into(), core.runs.epoch());
    let new = NewRun { id, graph: Arc::clone(graph), started, request: None, fork: None };
    let mut news = core.runs.watch(id);
    core.runs.start(new).await.unwrap();
    loop {
        let row = core.store().run(id).await.unwrap().unwrap();
        if row.ended_at.is_some() {
            return id;
        }
        news.changed().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_of_five_steps_runs_on_a_real_agent() {
    let folder = tempfile::tempdir().unwrap();
    let core = start(folder.path()).await;
    let shutdown = CancellationToken::new();
    serve(&core, &shutdown).await;
    let (graph, _) = core.runs.definitions().compile("chain.yml", CHAIN.as_bytes()).unwrap();
    core.runs.definitions().keep(&graph, CHAIN).await.unwrap();
    let id = run_one(&core, &graph, 0).await;
    let (_, state) = core.runs.read(id).await.unwrap();
    assert_eq!(state.outputs().map(|json| &**json), Some(r#"{"n":5}"#));
    let mut took: Vec<Duration> = Vec::new();
    for n in 1..50 {
        let began = Instant::now();
        run_one(&core, &graph, n).await;
        took.push(began.elapsed());
    }
    took.sort();
    println!("a lone chain: median {:?}, p98 {:?}", took[24], took[48]);
    let began = Instant::now();
    let many: Vec<_> = (100..1100).map(|n| run_one(&core, &graph, n)).collect();
    futures::future::join_all(many).await;
    println!("1000 chains at once: {:?}", began.elapsed());
    shutdown.cancel();
    core.stop().await;
}
