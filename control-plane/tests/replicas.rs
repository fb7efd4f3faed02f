//! Several control planes that share one PostgreSQL: who has which run, and how runs change
//! hands without standing still or being done twice.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::time::Duration;

use contracts::v1::recovery_service_client::RecoveryServiceClient;
use contracts::v1::start_runs_request::Item as Frame;
use contracts::v1::start_runs_response::Item;
use contracts::v1::task_update::Update;
use contracts::v1::watch_run_response::Item as Seen;
use contracts::v1::{self, start_run_request::Source, start_runs_setup};
use control_plane::config::{Config, Secret};
use control_plane::testing::TestServer;
use engine::RunId;
use store::testing::TestDatabase;
use store::{OwnerId, Store};
use tokio_util::sync::CancellationToken;

/// How long anything may take that is waited for.
const DEADLINE: Duration = Duration::from_secs(60);

const WAITS: &str = "name: waits\nsteps: [{id: w, wait_for: {signal: go}}]\n";

/// Two replicas and a database that they share.
struct Pair {
    a: TestServer,
    b: TestServer,
    // Dropped last.
    database: TestDatabase,
}

impl Pair {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl Fn(&mut Config)) -> Self {
        let database = store::testing::postgres().await;
        let a = replica(&database, &change).await;
        let b = replica(&database, &change).await;
        let pair = Self { a, b, database };
        let (a, b) = (owner(&pair.a), owner(&pair.b));
        until("they know each other", async || knows(&pair.a, b) && knows(&pair.b, a)).await;
        pair
    }

    fn store(&self) -> &dyn Store {
        &**self.b.control_plane.core().store()
    }

    async fn owner_of(&self, run: &str) -> Option<OwnerId> {
        let run: RunId = run.parse().unwrap();
        self.store().run(run).await.unwrap().unwrap().owner
    }
}

async fn replica(database: &TestDatabase, change: &impl Fn(&mut Config)) -> TestServer {
    let server = TestServer::start_with(|config| {
        config.database_url = Some(Secret::new(database.url()));
        config.replica_lease = Duration::from_secs(2);
        change(config);
    });
    server.await.unwrap()
}

fn owner(server: &TestServer) -> OwnerId {
    server.control_plane.core().replicas.own().owner
}

fn knows(server: &TestServer, other: OwnerId) -> bool {
    let live = server.control_plane.core().replicas.peers().live();
    live.borrow().iter().any(|peer| peer.id == other)
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

async fn start(server: &TestServer, yaml: &str) -> String {
    let definition =
        v1::Definition { yaml: yaml.to_owned(), file: "w.yml".to_owned(), ..Default::default() };
    let source = Some(Source::Definition(definition));
    let request = v1::StartRunRequest { source, ..Default::default() };
    let response = server.orchestrator().start_run(request).await.unwrap().into_inner();
    response.run.unwrap().run_id
}

async fn signal(server: &TestServer, run: &str) -> Result<(), tonic::Status> {
    let request = v1::SignalRunRequest {
        run_id: run.to_owned(),
        signal: "go".to_owned(),
        ..Default::default()
    };
    server.orchestrator().signal_run(request).await.map(drop)
}

async fn status(server: &TestServer, run: &str) -> v1::RunStatus {
    let request = v1::GetRunRequest { run_id: run.to_owned(), ..Default::default() };
    let run = server.orchestrator().get_run(request).await.unwrap().into_inner().run.unwrap();
    run.status()
}

/// The kinds of a run's events; its journal has no gaps.
async fn kinds(server: &TestServer, run: &str) -> Vec<v1::EventKind> {
    let request = v1::ListRunJournalRequest { run_id: run.to_owned(), ..Default::default() };
    let events = server.orchestrator().list_run_journal(request).await.unwrap().into_inner().events;
    for (n, event) in (1..).zip(&events) {
        assert_eq!(event.sequence, n);
    }
    events.iter().map(v1::JournalEvent::kind).collect()
}

async fn ended(server: &TestServer, run: &str) {
    until("the run ends", async || status(server, run).await == v1::RunStatus::Success).await;
}

/// Starts so many runs over one stream, or joins them when they were started before.
async fn start_runs(
    server: &TestServer,
    yaml: &str,
    count: i64,
    await_end: bool,
) -> tonic::Streaming<v1::StartRunsResponse> {
    let definition =
        v1::Definition { yaml: yaml.to_owned(), file: "w.yml".to_owned(), ..Default::default() };
    let source = Some(start_runs_setup::Source::Definition(definition));
    let setup = Frame::Setup(v1::StartRunsSetup { source, await_end, ..Default::default() });
    let runs = (0..count).map(|tag| {
        let request_id = format!("run-{tag}");
        Frame::Run(v1::RunToStart { tag, request_id, ..Default::default() })
    });
    let frames = std::iter::once(setup).chain(runs);
    let frames: Vec<_> = frames.map(|item| v1::StartRunsRequest { item: Some(item) }).collect();
    server.orchestrator().start_runs(tokio_stream::iter(frames)).await.unwrap().into_inner()
}

/// The next answer of a stream; none at its end.
async fn next(stream: &mut tonic::Streaming<v1::StartRunsResponse>) -> Option<(i64, Item)> {
    let answer = tokio::time::timeout(DEADLINE, stream.message()).await.expect("in time");
    answer.unwrap().map(|answer| (answer.tag, answer.item.unwrap()))
}

/// An echo agent on a channel within the process, until the token is cancelled.
async fn echo(server: &TestServer) -> CancellationToken {
    let stop = CancellationToken::new();
    let channel = server.channel();
    let open = move || {
        let channel = channel.clone();
        async move { Ok::<_, std::convert::Infallible>(channel) }
    };
    tokio::spawn(echo_agent::agent().run_on(open, stop.clone()));
    stop
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_of_another_replicas_run_is_passed_on() {
    let pair = Pair::start().await;
    let run = start(&pair.a, WAITS).await;
    signal(&pair.b, &run).await.unwrap();
    ended(&pair.b, &run).await;
    assert_eq!(pair.owner_of(&run).await, Some(owner(&pair.a)), "it stayed where it was");
    assert!(!kinds(&pair.b, &run).await.contains(&v1::EventKind::RunAdopted));
    // A refusal comes back as what it is.
    let refused = signal(&pair.b, &run).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_with_another_secret_are_not_listened_to() {
    let database = store::testing::postgres().await;
    let with = |secret: &'static str| {
        move |config: &mut Config| {
            config.peer_secret = Some(Secret::new(secret));
        }
    };
    let a = replica(&database, &with("the secret of the first")).await;
    let channel = tonic::transport::Endpoint::from_shared(a.url()).unwrap().connect_lazy();
    let mut client = v1::peer_service_client::PeerServiceClient::new(channel);
    let refused = client.take_over(v1::TakeOverRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silenced_replica_loses_its_runs_and_joins_anew() {
    let pair = Pair::start().await;
    let run = start(&pair.a, WAITS).await;
    let former = owner(&pair.a);
    assert!(pair.store().fence(former, None).await.unwrap());
    until("the other has the run", async || {
        pair.owner_of(&run).await == Some(owner(&pair.b))
            || pair.owner_of(&run).await == Some(owner(&pair.a))
    })
    .await;
    until("it has joined anew", async || owner(&pair.a) != former).await;
    until("its former row is gone", async || {
        let rows = pair.store().replicas().await.unwrap();
        rows.iter().all(|row| row.id != former)
    })
    .await;
    // Whoever has it now, both know.
    signal(&pair.a, &run).await.unwrap();
    ended(&pair.b, &run).await;
    let kinds = kinds(&pair.b, &run).await;
    assert!(kinds.contains(&v1::EventKind::RunAdopted), "{kinds:?}");
    // And what it starts from now on is its own again.
    let next = start(&pair.a, WAITS).await;
    assert_eq!(pair.owner_of(&next).await, Some(owner(&pair.a)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_stops_hands_its_runs_over() {
    let pair = Pair::start().await;
    let agent = echo(&pair.b).await;
    let waiting = start(&pair.a, WAITS).await;
    let chain = "name: chain\nsteps:\n  - {id: a, agent: echo, action: sleep, params: {duration: 300ms}}\n\
        \x20 - {id: b, agent: echo, action: echo, params: {n: 1}}\n";
    let busy = start(&pair.a, chain).await;
    let (former, own) = (owner(&pair.a), owner(&pair.b));
    let Pair { a, b, database } = pair;
    a.control_plane.stop().await;
    let store = b.control_plane.core().store();
    until("the other has the run", async || {
        let run = store.run(waiting.parse().unwrap()).await.unwrap().unwrap();
        run.owner == Some(own)
    })
    .await;
    until("its row is gone", async || {
        store.replicas().await.unwrap().iter().all(|row| row.id != former)
    })
    .await;
    signal(&b, &waiting).await.unwrap();
    ended(&b, &waiting).await;
    ended(&b, &busy).await;
    assert!(kinds(&b, &waiting).await.contains(&v1::EventKind::RunAdopted));
    agent.cancel();
    drop(b);
    drop(database);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_of_one_replica_serves_the_runs_of_the_other() {
    let pair = Pair::start().await;
    let agent = echo(&pair.b).await;
    let run =
        start(&pair.a, "name: t\nsteps: [{id: a, agent: echo, action: echo, params: {n: 1}}]\n")
            .await;
    ended(&pair.a, &run).await;
    assert_eq!(pair.owner_of(&run).await, Some(owner(&pair.a)));
    agent.cancel();
}

/// How a run is, as the replica says that was asked.
async fn progress(server: &TestServer, run: &str) -> v1::ProgressReport {
    let of = Some(v1::watch_progress_request::Of::RunId(run.to_owned()));
    let request = v1::WatchProgressRequest { of, once: true, ..Default::default() };
    let mut client = RecoveryServiceClient::new(server.channel());
    let mut stream = client.watch_progress(request).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap().report.unwrap()
}

async fn advice(server: &TestServer) -> v1::OptimizeResourcesResponse {
    let mut client = RecoveryServiceClient::new(server.channel());
    let request = v1::OptimizeResourcesRequest::default();
    client.optimize_resources(request).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_and_advice_take_in_the_agents_of_all_replicas() {
    let pair = Pair::start().await;
    let agent = echo(&pair.a).await;
    let yaml = "name: t\nsteps:\n  \
                - {id: a, agent: echo, action: sleep, params: {duration: 10m}, timeout: 1h}\n";
    let run = start(&pair.a, yaml).await;
    until("the other replica knows who works", async || {
        let report = progress(&pair.b, &run).await;
        let works = |one: &v1::ActiveAgent| one.agent == "echo" && one.step == "a";
        report.active_agents.iter().any(works) && report.silent_replicas.is_empty()
    })
    .await;
    assert_eq!(pair.owner_of(&run).await, Some(owner(&pair.a)));
    let (here, there) = (advice(&pair.a).await, advice(&pair.b).await);
    let slots = |advice: &v1::OptimizeResourcesResponse| {
        let load = advice.loads.iter().find(|load| load.agent == "echo").unwrap().clone();
        (load.slots, load.busy_percent.to_string())
    };
    assert!(slots(&here).0 > 0);
    assert_eq!(slots(&here), slots(&there), "each agent counts once, whoever is asked");
    let cancel = v1::CancelRunRequest { run_id: run.clone(), ..Default::default() };
    pair.b.orchestrator().cancel_run(cancel).await.unwrap();
    let is_cancelled = async || status(&pair.b, &run).await == v1::RunStatus::Cancelled;
    until("the run is cancelled", is_cancelled).await;
    agent.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_does_not_answer_is_named_and_not_waited_for() {
    let pair = Pair::start_with(|config| config.replica_lease = Duration::from_secs(20)).await;
    // It takes connections, and says nothing.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = store::NewReplica {
        id: OwnerId(uuid::Uuid::from_u128(7)),
        address: listener.local_addr().unwrap().to_string(),
        version: "0.0.0".to_owned(),
        kinds: 1,
    };
    pair.store().join(&silent, 1).await.unwrap();
    pair.b.control_plane.core().replicas.nudge();
    until("it is known", async || knows(&pair.b, silent.id)).await;
    let run = start(&pair.b, WAITS).await;
    let named = vec![silent.id.to_string()];
    assert_eq!(progress(&pair.b, &run).await.silent_replicas, named);
    assert_eq!(advice(&pair.b).await.silent_replicas, named);
    drop(listener);
}

/// The next item of a watch that is as wanted; those before are passed over.
async fn seen(
    watch: &mut tonic::Streaming<v1::WatchRunResponse>,
    what: &str,
    wanted: impl Fn(&Seen) -> bool,
) {
    let look = async {
        while let Some(response) = watch.message().await.unwrap() {
            if wanted(&response.item.unwrap()) {
                return;
            }
        }
        panic!("{what}: the watch is over");
    };
    assert!(tokio::time::timeout(DEADLINE, look).await.is_ok(), "{what}: not in time");
}

/// What tasks do is in no journal: only the run's owner can have told it.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_is_told_by_the_runs_owner_and_outlives_it() {
    let pair = Pair::start().await;
    let agent = echo(&pair.a).await;
    let yaml = "name: t\nsteps:\n  - {id: first, wait_for: {signal: go}}\n\
        \x20 - {id: task, agent: echo, action: sleep, params: {duration: 200ms}}\n\
        \x20 - {id: last, wait_for: {signal: go}}\n";
    let run = start(&pair.a, yaml).await;
    let request = v1::WatchRunRequest { run_id: run.clone(), ..Default::default() };
    let mut watch = pair.b.orchestrator().watch_run(request).await.unwrap().into_inner();
    let waits = |step: &'static str| {
        move |item: &Seen| {
            matches!(item, Seen::Event(event)
                if event.kind() == v1::EventKind::StepWaiting && event.step == step)
        }
    };
    seen(&mut watch, "the first step waits", waits("first")).await;
    until("its owner tells the other", async || {
        pair.a.control_plane.core().runs.is_watched(run.parse().unwrap())
    })
    .await;
    signal(&pair.b, &run).await.unwrap();
    let accepted = |item: &Seen| {
        matches!(item, Seen::Update(update)
            if update.step == "task" && matches!(update.update, Some(Update::Accepted(_))))
    };
    seen(&mut watch, "the task is accepted", accepted).await;
    seen(&mut watch, "the last step waits", waits("last")).await;
    agent.cancel();
    let Pair { a, b, database } = pair;
    a.control_plane.stop().await;
    signal_until_taken(&b, &run).await;
    seen(&mut watch, "the end", |item| matches!(item, Seen::Ended(_))).await;
    drop(b);
    drop(database);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_run_goes_on_wherever_it_is_asked() {
    let pair = Pair::start_with(|config| config.park_after = Duration::ZERO).await;
    let run = start(&pair.a, WAITS).await;
    until("it is parked", async || pair.owner_of(&run).await.is_none()).await;
    signal(&pair.b, &run).await.unwrap();
    ended(&pair.a, &run).await;
    assert_eq!(pair.owner_of(&run).await, Some(owner(&pair.b)));
}

/// The child runs of a run.
async fn children(server: &TestServer, run: &str) -> Vec<String> {
    let filter = format!("parent_run_id={run}");
    let request = v1::ListRunsRequest { filter, ..Default::default() };
    let runs = server.orchestrator().list_runs(request).await.unwrap().into_inner().runs;
    runs.into_iter().map(|run| run.run_id).collect()
}

/// Two replicas, a run and its child, both parked.
async fn parked_above(above: &str, below: &str) -> (Pair, String, String) {
    let pair = Pair::start_with(|config| config.park_after = Duration::ZERO).await;
    let below = v1::Definition { yaml: below.to_owned(), ..Default::default() };
    let register = v1::RegisterWorkflowRequest { definition: Some(below), ..Default::default() };
    pair.a.orchestrator().register_workflow(register).await.unwrap();
    let run = start(&pair.a, above).await;
    until("the child is there", async || !children(&pair.a, &run).await.is_empty()).await;
    let child = children(&pair.a, &run).await.remove(0);
    until("both are parked", async || {
        pair.owner_of(&run).await.is_none() && pair.owner_of(&child).await.is_none()
    })
    .await;
    (pair, run, child)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_run_hears_of_its_child_wherever_that_ends() {
    const ABOVE: &str = "name: above\nsteps: [{id: sub, workflow: below}]\n";
    const BELOW: &str = "name: below\nsteps: [{id: w, wait_for: {signal: go}}]\n";
    let (pair, run, child) = parked_above(ABOVE, BELOW).await;
    let active = |server: &TestServer| server.control_plane.core().runs.active();
    until("neither is in memory", async || active(&pair.a) + active(&pair.b) == 0).await;
    signal(&pair.b, &child).await.unwrap();
    ended(&pair.a, &run).await;
    assert_eq!(pair.owner_of(&child).await, Some(owner(&pair.b)), "where it was asked");
    let adopted = |kind: &v1::EventKind| *kind == v1::EventKind::RunAdopted;
    let below = kinds(&pair.a, &child).await;
    assert_eq!(below.iter().filter(|kind| adopted(kind)).count(), 1, "{below:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_run_is_cancelled_with_its_parked_child() {
    const ABOVE: &str = "name: above\nsteps: [{id: sub, workflow: waits}]\n";
    let (pair, run, child) = parked_above(ABOVE, WAITS).await;
    let cancel = v1::CancelRunRequest { run_id: run.clone(), ..Default::default() };
    pair.b.orchestrator().cancel_run(cancel).await.unwrap();
    for run in [run, child] {
        until("it is cancelled", async || status(&pair.a, &run).await == v1::RunStatus::Cancelled)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_replicas_are_listed() {
    let pair = Pair::start().await;
    start(&pair.a, WAITS).await;
    let standings = pair.b.control_plane.core().replicas.list().await.unwrap();
    let shown: Vec<(bool, u64)> =
        standings.iter().map(|standing| (standing.is_self, standing.runs)).collect();
    assert_eq!(shown, [(false, 1), (true, 0)]);
    assert!(standings.iter().all(|standing| standing.lease_age.is_some()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_joins_runs_that_changed_hands_and_asks_the_store_little() {
    const RUNS: i64 = 400;
    let pair = Pair::start().await;
    let mut first = start_runs(&pair.a, WAITS, RUNS, false).await;
    let mut ids = BTreeMap::new();
    while let Some((tag, item)) = next(&mut first).await {
        let Item::Started(started) = item else { panic!("{item:?}") };
        ids.insert(tag, started.run_id);
    }
    let former = owner(&pair.a);
    assert!(pair.store().fence(former, None).await.unwrap());
    let url = pair.database.url();
    let asked = async || store::testing::server_figures(url).await.unwrap().transactions;
    let before = asked().await;
    let mut joined = start_runs(&pair.b, WAITS, RUNS, true).await;
    let mut again = BTreeMap::new();
    while again.len() < ids.len() {
        let (tag, item) = next(&mut joined).await.expect("it goes on");
        let Item::Started(started) = item else { panic!("{item:?}") };
        again.insert(tag, started.run_id);
    }
    assert_eq!(again, ids, "the same runs");
    // All are looked for: none has ended, so nothing is told of any.
    signal_until_taken(&pair.b, &ids[&0]).await;
    let (tag, item) = next(&mut joined).await.expect("it goes on");
    assert!(matches!(item, Item::Ended(_)) && tag == 0, "{tag} {item:?}");
    let transactions = asked().await - before;
    assert!(transactions < 20 * RUNS, "{transactions} transactions");
    for run in ids.values().skip(1) {
        signal_until_taken(&pair.b, run).await;
    }
    let mut ended = 1;
    while let Some((tag, item)) = next(&mut joined).await {
        let Item::Ended(end) = item else { panic!("{item:?}") };
        let run = end.run.unwrap();
        assert_eq!((&run.run_id, run.status()), (&ids[&tag], v1::RunStatus::Success));
        ended += 1;
    }
    assert_eq!(ended, RUNS, "each end is told once");
    let kinds = kinds(&pair.b, &ids[&(RUNS - 1)]).await;
    assert!(kinds.contains(&v1::EventKind::RunAdopted), "{kinds:?}");
}

/// While a run changes hands, a signal may be refused for a moment.
async fn signal_until_taken(server: &TestServer, run: &str) {
    until("the signal is taken", async || signal(server, run).await.is_ok()).await;
}
