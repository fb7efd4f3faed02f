//! Two control planes that share one PostgreSQL, with all agents connected to one of them.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use contracts::v1::{self, start_run_request::Source};
use control_plane::config::Secret;
use control_plane::testing::TestServer;
use store::testing::TestDatabase;
use tokio_util::sync::CancellationToken;

/// How long anything may take that is waited for.
const DEADLINE: Duration = Duration::from_secs(60);

/// Two replicas and a database that they share.
struct Pair {
    a: TestServer,
    b: TestServer,
    // Dropped last.
    _database: TestDatabase,
}

impl Pair {
    async fn start() -> Self {
        let database = store::testing::postgres().await;
        let (a, b) = (replica(&database).await, replica(&database).await);
        let pair = Self { a, b, _database: database };
        until("they know each other", async || {
            let knows = |server: &TestServer| {
                !server.control_plane.core().replicas.peers().live().borrow().is_empty()
            };
            knows(&pair.a) && knows(&pair.b)
        })
        .await;
        pair
    }
}

async fn replica(database: &TestDatabase) -> TestServer {
    let server = TestServer::start_with(|config| {
        config.database_url = Some(Secret::new(database.url()));
    });
    server.await.unwrap()
}

/// Waits until something holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, wait).await.is_ok(), "{what}: not in time");
}

/// An echo agent, until the token is cancelled.
fn echo(server: &TestServer) -> CancellationToken {
    let stop = CancellationToken::new();
    let channel = server.channel();
    let open = move || {
        let channel = channel.clone();
        async move { Ok::<_, std::convert::Infallible>(channel) }
    };
    tokio::spawn(echo_agent::agent().run_on(open, stop.clone()));
    stop
}

async fn start(server: &TestServer, yaml: &str) -> String {
    let definition =
        v1::Definition { yaml: yaml.to_owned(), file: "w.yml".to_owned(), ..Default::default() };
    let source = Some(Source::Definition(definition));
    let request = v1::StartRunRequest { source, ..Default::default() };
    let response = server.orchestrator().start_run(request).await.unwrap().into_inner();
    response.run.unwrap().run_id
}

async fn run(server: &TestServer, run: &str) -> v1::Run {
    let request = v1::GetRunRequest { run_id: run.to_owned(), ..Default::default() };
    server.orchestrator().get_run(request).await.unwrap().into_inner().run.unwrap()
}

async fn ended(server: &TestServer, id: &str, status: v1::RunStatus) {
    until("the run ends", async || run(server, id).await.status() == status).await;
}

async fn agents(server: &TestServer) -> Vec<v1::Agent> {
    let request = v1::ListAgentsRequest::default();
    server.agents().list_agents(request).await.unwrap().into_inner().agents
}

const CHAIN: &str = "name: chain\nsteps:\n\
    \x20 - {id: a, agent: echo, action: echo, params: {n: 1}}\n\
    \x20 - {id: b, agent: echo, action: echo, params: {n: 2}}\n\
    \x20 - {id: c, agent: echo, action: echo, params: {n: 3}}\n";
const LONG: &str = "name: long\nsteps:\n\
    \x20 - {id: a, agent: echo, action: sleep, params: {duration: 10m}}\n";

#[tokio::test(flavor = "multi_thread")]
async fn runs_of_both_replicas_end_with_all_agents_on_one_side() {
    let pair = Pair::start().await;
    let stop = echo(&pair.a);
    until("both see the agent", async || {
        !agents(&pair.a).await.is_empty() && !agents(&pair.b).await.is_empty()
    })
    .await;
    let (at_a, at_b) = (agents(&pair.a).await, agents(&pair.b).await);
    assert_eq!(at_a[0].replica_id, at_b[0].replica_id, "both say where it is");
    assert!(!at_a[0].replica_id.is_empty());
    let mut runs = Vec::new();
    for _ in 0..40 {
        runs.push((&pair.a, start(&pair.a, CHAIN).await));
        runs.push((&pair.b, start(&pair.b, CHAIN).await));
    }
    for (server, run) in &runs {
        ended(server, run, v1::RunStatus::Success).await;
    }
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_reaches_an_agent_of_another_replica_and_so_does_a_drain() {
    let pair = Pair::start().await;
    let stop = echo(&pair.a);
    let long = start(&pair.b, LONG).await;
    until("the agent has it", async || {
        agents(&pair.b).await.iter().any(|agent| agent.tasks_in_flight == 1)
    })
    .await;
    let request = v1::CancelRunRequest { run_id: long.clone(), ..Default::default() };
    pair.b.orchestrator().cancel_run(request).await.unwrap();
    ended(&pair.b, &long, v1::RunStatus::Cancelled).await;
    let agent_id = agents(&pair.b).await[0].agent_id.clone();
    let request = v1::DrainAgentRequest { agent_id, ..Default::default() };
    pair.b.agents().drain_agent(request).await.unwrap();
    until("it has left", async || agents(&pair.a).await.is_empty()).await;
    until("both know", async || agents(&pair.b).await.is_empty()).await;
    stop.cancel();
}
