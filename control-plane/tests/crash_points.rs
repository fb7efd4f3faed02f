//! Every crash point of a recovery with rollback, and of a parked run that waits for another: the
//! control plane is killed by SIGKILL right behind each durable transition and before its effects,
//! one transition after the other, and what stands outside in the end is what stands there without
//! a crash. The agent lives in this process and keeps what it did by idempotency key, as agents are
//! to do; the control plane is this test binary started again.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use agent_sdk::{Action, Agent, Context, Failure, Json, RunConfig, Undo};
use contracts::v1::orchestrator_service_client::OrchestratorServiceClient;
use contracts::v1::recovery_service_client::RecoveryServiceClient;
use contracts::v1::{self, RunStatus, start_run_request::Source};
use control_plane::clock::SystemClock;
use control_plane::config::{Config, Secret};
use control_plane::control_plane::ControlPlane;
use control_plane::testing::failpoint;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::Channel;

const LISTEN: &str = "CRASH_POINTS_LISTEN";
const FOLDER: &str = "CRASH_POINTS_FOLDER";
const DATABASE: &str = "CRASH_POINTS_DATABASE";
const DIE_BEHIND: &str = "CRASH_POINTS_DIE_BEHIND";
const PARKS: &str = "CRASH_POINTS_PARKS";
/// Leases and grace are short, so that nothing is waited for.
const LEASE: Duration = Duration::from_millis(200);
/// How long anything may take that is waited for.
const DEADLINE: Duration = Duration::from_secs(60);
/// How many crash points there are at least.
const CRASHES_MIN: u64 = 60;
/// How many crash points are gone through side by side.
const SIDE_BY_SIDE: usize = 4;
const CHANGES: usize = 28;

/// Changes one behind the other and side by side, a child run, retries; then one fails for good,
/// in the middle, and everything is undone. One undo fails at first.
fn recovery() -> (String, String) {
    let mut yaml = "name: recovery\nerror_handling: {rollback: to_start}\nsteps:\n".to_owned();
    for n in 0..CHANGES {
        let checkpoint = if n % 8 == 0 { format!(", checkpoint: c{n}") } else { String::new() };
        yaml.push_str(&format!("  - {{id: s{n}, agent: changer, action: change{checkpoint}}}\n"));
    }
    yaml.push_str("  - id: group\n    agent: changer\n    action: change\n    parallel:\n");
    yaml.push_str("      - {id: left, agent: changer, action: change}\n");
    yaml.push_str("      - {id: right, agent: changer, action: stubborn}\n");
    yaml.push_str("  - {id: below, workflow: below}\n");
    yaml.push_str(
        "  - {id: breaks, agent: changer, action: break, retry: {max_attempts: 2, delay: 1ms}}\n",
    );
    let below = "name: below\nsteps:\n  - {id: inner, agent: changer, action: change}\n  \
                 - {id: second, agent: changer, action: change}\n";
    (yaml, below.to_owned())
}

/// What stands outside under one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Change {
    there: bool,
    undone: bool,
    /// How often it took effect, and how often its undo did.
    made: u32,
    taken_back: u32,
    /// How often an undo was asked for.
    asked: u32,
}

type Outside = Arc<Mutex<BTreeMap<String, Change>>>;

/// The agent: what it did it does not do again, what it undid it does no more.
fn agent(outside: &Outside) -> Agent {
    let make = |outside: &Outside, breaks: bool| {
        let outside = Arc::clone(outside);
        move |context: Context, params: Json| {
            let outside = Arc::clone(&outside);
            async move {
                let mut changes = outside.lock().unwrap();
                let change = changes.entry(context.step().to_owned()).or_default();
                if change.undone {
                    return Err(Failure::permanent("it was undone").no_effect());
                }
                if !change.there {
                    change.there = true;
                    change.made += 1;
                }
                if breaks {
                    return Err(Failure::retryable("it broke behind the change"));
                }
                Ok(params)
            }
        }
    };
    let undo = |outside: &Outside, stubborn: bool| {
        let outside = Arc::clone(outside);
        move |context: Context, params: Json| {
            let outside = Arc::clone(&outside);
            async move {
                let mut changes = outside.lock().unwrap();
                let change = changes.entry(context.step().to_owned()).or_default();
                change.asked += 1;
                if change.there {
                    change.there = false;
                    change.taken_back += 1;
                }
                change.undone = true;
                if stubborn && context.attempt() == 1 {
                    return Err(Failure::retryable("it was undone, and the answer was lost"));
                }
                Ok(params)
            }
        }
    };
    Agent::new("changer", "1.0.0")
        .slots(8)
        .action(
            Action::new("change", "Changes something.", make(outside, false))
                .undo(Undo::action("unchange")),
        )
        .action(
            Action::new(
                "stubborn",
                "Changes something that is hard to undo.",
                make(outside, false),
            )
            .undo(Undo::action("struggle")),
        )
        .action(
            Action::new("break", "Fails behind its change.", make(outside, true))
                .undo(Undo::action("unchange")),
        )
        .action(Action::new("unchange", "Undoes a change.", undo(outside, false)))
        .action(Action::new("struggle", "Undoes it; says so late.", undo(outside, true)))
}

/// A control plane in a process of its own, which dies where it is told to.
struct Server {
    child: Child,
}

impl Server {
    fn start(listen: SocketAddr, folder: &Path, database: Option<&str>, die_behind: u64) -> Self {
        Self::start_with(listen, folder, database, die_behind, false)
    }

    /// It may let go of runs that only wait, at once.
    fn start_with(
        listen: SocketAddr,
        folder: &Path,
        database: Option<&str>,
        die_behind: u64,
        parks: bool,
    ) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["a_control_plane", "--exact", "--include-ignored"])
            .env(LISTEN, listen.to_string())
            .env(FOLDER, folder)
            .env(DATABASE, database.unwrap_or_default())
            .env(DIE_BEHIND, die_behind.to_string())
            .env(PARKS, parks.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child }
    }

    /// Waits until it has died by itself.
    async fn died(&mut self) {
        while self.child.try_wait().unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "no test: the process that the tests here start and kill"]
async fn a_control_plane() {
    let Ok(listen) = std::env::var(LISTEN) else { return };
    let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    let database = std::env::var(DATABASE).unwrap();
    failpoint::die_behind(std::env::var(DIE_BEHIND).unwrap().parse().unwrap());
    let usual = Config::default();
    let parks: bool = std::env::var(PARKS).unwrap().parse().unwrap();
    let config = Config {
        listen: Some(listen.parse().unwrap()),
        data_dir: folder.clone(),
        park_after: if parks { Duration::ZERO } else { usual.park_after },
        database_url: (!database.is_empty()).then(|| Secret::new(database)),
        grace_after_adoption: LEASE,
        replica_lease: LEASE,
        ..usual
    };
    let _running = ControlPlane::start(&config, SystemClock::shared()).await.unwrap();
    let (writing, counted) = (folder.join("transitions.new"), folder.join("transitions"));
    loop {
        std::fs::write(&writing, failpoint::durable_transitions().to_string()).unwrap();
        std::fs::rename(&writing, &counted).unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn free_port() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

async fn client(listen: SocketAddr) -> OrchestratorServiceClient<Channel> {
    let channel = Channel::from_shared(format!("http://{listen}")).unwrap().connect_lazy();
    OrchestratorServiceClient::new(channel)
}

/// Starts the run, again and again under one request id, until a server is there that says yes.
async fn start_run(listen: SocketAddr, (yaml, below): (String, String)) -> String {
    start_as(listen, "the one", (yaml, below)).await
}

async fn start_as(listen: SocketAddr, request: &str, (yaml, below): (String, String)) -> String {
    let siblings = [("below".to_owned(), below)].into();
    let definition = v1::Definition { yaml, file: "recovery.yml".to_owned(), siblings };
    let request = v1::StartRunRequest {
        source: Some(Source::Definition(definition)),
        request_id: request.to_owned(),
        ..Default::default()
    };
    let begun = Instant::now();
    loop {
        match client(listen).await.start_run(request.clone()).await {
            Ok(started) => return started.into_inner().run.unwrap().run_id,
            Err(status) => {
                let transient = matches!(status.code(), Code::Unavailable | Code::Unknown);
                assert!(transient && begun.elapsed() < DEADLINE, "{status:?}");
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn ended(listen: SocketAddr, run_id: &str) -> v1::Run {
    let begun = Instant::now();
    let mut client = client(listen).await;
    loop {
        let request = v1::GetRunRequest { run_id: run_id.to_owned(), ..Default::default() };
        if let Ok(found) = client.get_run(request).await {
            let run = found.into_inner().run.unwrap();
            if run.end_time.is_some() {
                return run;
            }
        }
        assert!(begun.elapsed() < DEADLINE, "run {run_id} does not end");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What came of a life.
struct Lived {
    outside: BTreeMap<String, Change>,
    transitions: u64,
    crashed: bool,
}

/// Lives a recovery with one crash. What ends at the same time shares a transition, so the last
/// points may lie behind the end of the run; then there is no crash.
async fn life(database: Option<String>, die_behind: u64) -> Lived {
    let folder = tempfile::tempdir().unwrap();
    let listen = free_port();
    let outside = Outside::default();
    let shutdown = CancellationToken::new();
    let config = RunConfig { servers: vec![format!("http://{listen}")], ..RunConfig::default() };
    let agent = tokio::spawn(agent(&outside).run(config, shutdown.clone()));
    let start = |die| Server::start(listen, folder.path(), database.as_deref(), die);
    let mut server = start(die_behind);
    let living = async {
        let run_id = start_run(listen, recovery()).await;
        assert_eq!(ended(listen, &run_id).await.status(), RunStatus::RolledBack);
        run_id
    };
    tokio::pin!(living);
    let crashed = tokio::select! {
        _ = &mut living => false,
        () = server.died() => true,
    };
    if crashed {
        server = start(0);
        let run_id = living.await;
        written(listen, &run_id).await;
    }
    shutdown.cancel();
    drop(agent.await);
    drop(server);
    let transitions = std::fs::read_to_string(folder.path().join("transitions"));
    let transitions = transitions.ok().and_then(|text| text.parse().ok()).unwrap_or_default();
    let outside = outside.lock().unwrap().clone();
    Lived { outside, transitions, crashed }
}

/// What the run's commits wrote beside its journal says the same, whoever made them.
async fn written(listen: SocketAddr, run_id: &str) {
    let channel = Channel::from_shared(format!("http://{listen}")).unwrap().connect_lazy();
    let mut recovery = RecoveryServiceClient::new(channel);
    let filter = format!("run_id={run_id}");
    let list = v1::ListRollbacksRequest { filter, ..Default::default() };
    let rollbacks = recovery.list_rollbacks(list).await.unwrap().into_inner().rollbacks;
    assert_eq!(rollbacks.len(), 1, "{rollbacks:?}");
    assert_eq!(rollbacks[0].status(), v1::RollbackStatus::Succeeded, "{rollbacks:?}");
    let counts = rollbacks[0].counts.unwrap();
    assert_eq!((counts.undone, counts.stuck), (counts.total, 0), "{counts:?}");
    let list = v1::ListCheckpointsRequest { run_id: run_id.to_owned(), ..Default::default() };
    let checkpoints = recovery.list_checkpoints(list).await.unwrap().into_inner().checkpoints;
    let names: Vec<_> = checkpoints.iter().map(|checkpoint| checkpoint.name.as_str()).collect();
    assert_eq!(names, ["start", "c0", "c8", "c16", "c24"]);
}

/// What must stand outside, whatever happened on the way.
fn check(outside: &BTreeMap<String, Change>, expected: &BTreeMap<String, Change>, point: u64) {
    let steps: Vec<&String> = outside.keys().collect();
    assert_eq!(steps, expected.keys().collect::<Vec<_>>(), "crash behind transition {point}");
    for (step, change) in outside {
        let right = !change.there && change.made == 1 && change.taken_back == 1;
        assert!(right, "crash behind transition {point}: {step} {change:?}");
    }
}

async fn every_crash_point(databases: impl AsyncFn() -> Option<Database>) {
    let calm = databases().await;
    let Lived { outside: expected, transitions, .. } =
        life(calm.as_ref().map(Database::url), 0).await;
    check(&expected, &expected, 0);
    let (mut points, mut crashes) = (1..=transitions + 1, 0);
    let mut lives = tokio::task::JoinSet::new();
    loop {
        while lives.len() < SIDE_BY_SIDE
            && let Some(point) = points.next()
        {
            let database = databases().await;
            lives.spawn(async move {
                let url = database.as_ref().map(Database::url);
                (point, life(url, point).await)
            });
        }
        let Some(lived) = lives.join_next().await else { break };
        let (point, lived) = lived.unwrap();
        check(&lived.outside, &expected, point);
        crashes += u64::from(lived.crashed);
    }
    assert!(crashes >= CRASHES_MIN, "only {crashes} crashes at {transitions} transitions");
}

/// A database of its own.
struct Database(store::testing::TestDatabase);

impl Database {
    fn url(&self) -> String {
        self.0.url().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_every_crash_point_of_a_rollback_leads_to_the_same_end() {
    every_crash_point(async || None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_every_crash_point_of_a_rollback_leads_to_the_same_end() {
    every_crash_point(on_postgres).await;
}

/// A run that waits for another, which waits for a signal.
fn waiting() -> (String, String) {
    let above = "name: waiting\nsteps: [{id: sub, workflow: below}]\n";
    let below = "name: below\nsteps: [{id: w, wait_for: {signal: go}}]\n";
    (above.to_owned(), below.to_owned())
}

/// The child run of a run, once both are nobody's.
async fn parked_child(listen: SocketAddr, run_id: &str) -> String {
    let begun = Instant::now();
    let mut client = client(listen).await;
    loop {
        let filter = format!("parent_run_id={run_id}");
        let list = v1::ListRunsRequest { filter, ..Default::default() };
        let found = client.list_runs(list).await.map(|list| list.into_inner().runs);
        let replicas = client.list_replicas(v1::ListReplicasRequest::default()).await;
        let replicas = replicas.map(|list| list.into_inner().replicas);
        if let (Ok(runs), Ok(replicas)) = (found, replicas)
            && let [child] = &runs[..]
            && replicas.iter().all(|replica| replica.runs == 0)
        {
            return child.run_id.clone();
        }
        assert!(begun.elapsed() < DEADLINE, "run {run_id} and its child are not parked");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Signals a run until it is known to have ended: an answer may be lost with a server.
async fn signal(listen: SocketAddr, run_id: &str) {
    let begun = Instant::now();
    loop {
        let request = v1::SignalRunRequest {
            run_id: run_id.to_owned(),
            signal: "go".to_owned(),
            request_id: format!("signal {run_id}"),
            ..Default::default()
        };
        match client(listen).await.signal_run(request).await {
            Ok(_) => return,
            Err(status) if status.code() == Code::FailedPrecondition => return,
            Err(status) => assert!(begun.elapsed() < DEADLINE, "{status:?}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Lives a life of parked runs with one crash; gives whether there was one.
async fn parked_life(
    database: Option<String>,
    die_behind: u64,
    life: impl AsyncFn(SocketAddr),
) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let listen = free_port();
    let start = |die| Server::start_with(listen, folder.path(), database.as_deref(), die, true);
    let mut server = start(die_behind);
    let living = life(listen);
    tokio::pin!(living);
    let crashed = tokio::select! {
        () = &mut living => false,
        () = server.died() => true,
    };
    if crashed {
        server = start(0);
        living.await;
    }
    drop(server);
    crashed
}

/// Waits until no run is in memory.
async fn all_parked(listen: SocketAddr) {
    let begun = Instant::now();
    let mut client = client(listen).await;
    loop {
        let replicas = client.list_replicas(v1::ListReplicasRequest::default()).await;
        let replicas = replicas.map(|list| list.into_inner().replicas);
        if replicas.is_ok_and(|replicas| replicas.iter().all(|replica| replica.runs == 0)) {
            return;
        }
        assert!(begun.elapsed() < DEADLINE, "runs are in memory still");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Two runs in line for one key: the first waits for a signal.
async fn line(listen: SocketAddr) {
    let keyed = |name: &str, step: &str| {
        let key = "concurrency: {key: k, limit: 1}";
        let yaml = format!("name: {name}\n{key}\nsteps: [{{id: w, {step}}}]\n");
        (yaml, "name: below\nsteps: [{id: w, wait: 1ms}]\n".to_owned())
    };
    let first = start_as(listen, "the first", keyed("first", "wait_for: {signal: go}")).await;
    all_parked(listen).await;
    let second = start_as(listen, "the second", keyed("second", "wait: 1ms")).await;
    all_parked(listen).await;
    signal(listen, &first).await;
    for run in [&first, &second] {
        assert_eq!(ended(listen, run).await.status(), RunStatus::Success);
    }
}

/// A child's end, told to a parked parent.
async fn parked_parent(listen: SocketAddr) {
    let run_id = start_run(listen, waiting()).await;
    let child = parked_child(listen, &run_id).await;
    signal(listen, &child).await;
    assert_eq!(ended(listen, &child).await.status(), RunStatus::Success);
    assert_eq!(ended(listen, &run_id).await.status(), RunStatus::Success);
}

/// The starts of both, the end of the one that nobody is told of any more, and that of the other.
const PARKED_CRASHES_MIN: u64 = 4;

async fn every_crash_point_of_parked_runs(
    databases: impl AsyncFn() -> Option<Database>,
    life: impl AsyncFn(SocketAddr),
) {
    let mut crashes = 0;
    loop {
        let database = databases().await;
        if !parked_life(database.as_ref().map(Database::url), crashes + 1, &life).await {
            break;
        }
        crashes += 1;
    }
    assert!(crashes >= PARKED_CRASHES_MIN, "only {crashes} crashes");
}

async fn on_postgres() -> Option<Database> {
    Some(Database(store::testing::postgres().await))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_a_parked_run_goes_on_behind_every_crash_point_of_its_child() {
    every_crash_point_of_parked_runs(async || None, parked_parent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_a_parked_run_goes_on_behind_every_crash_point_of_its_child() {
    every_crash_point_of_parked_runs(on_postgres, parked_parent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_a_parked_run_has_its_key_behind_every_crash_point_of_whoever_had_it() {
    every_crash_point_of_parked_runs(async || None, line).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_a_parked_run_has_its_key_behind_every_crash_point_of_whoever_had_it() {
    every_crash_point_of_parked_runs(on_postgres, line).await;
}
