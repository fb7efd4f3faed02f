//! Runs that wait in nobody's memory for keys: each keeps its place in line, and hears of its key
//! whatever becomes of whoever gave it.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use control_plane::clock::SystemClock;
use control_plane::core::{Core, Setup};
use control_plane::runs::{NewRun, started};
use control_plane::{dispatch, limits, replicas};
use engine::graph::Graph;
use engine::{Command, RunId};
use store::KeyChange;
use store::testing::TestDatabase;

/// How long anything may take that is waited for: less than until the next look at all keys,
/// which finds what should not have been left to it.
const DEADLINE: Duration = Duration::from_secs(limits::KEYS_LOOK_EVERY.as_secs() - 5);

/// One that parks at once what only waits.
async fn open(database: &TestDatabase) -> Core {
    let setup = Setup {
        database_url: database.url().to_owned(),
        dispatch: dispatch::Config::default(),
        webhooks: BTreeMap::new(),
        replica: replicas::Config {
            park_after: Some(Duration::ZERO),
            ..replicas::Config::default()
        },
    };
    Core::start(setup, SystemClock::shared()).await.unwrap()
}

async fn graph(core: &Core, yaml: &str) -> Arc<Graph> {
    let (graph, _) = core.runs.definitions().compile("k.yml", yaml.as_bytes()).unwrap();
    core.runs.definitions().keep(&graph, yaml).await.unwrap();
    graph
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

async fn waits_for_signal(core: &Core, run: RunId) -> bool {
    let (_, state) = core.runs.read(run).await.unwrap();
    state.steps()[0].status == "waiting"
}

/// Until it is nobody's and in no memory.
async fn parked(core: &Core, run: RunId) {
    until("it is parked", async || core.store().run(run).await.unwrap().unwrap().owner.is_none())
        .await;
    until("it is let go", async || core.runs.active() == 0).await;
}

async fn signal(core: &Core, run: RunId) {
    let (signal, origin) = ("go".to_owned(), engine::event::Origin::default());
    core.runs.ask(run, Command::Signal { signal, payload: "1".into(), origin }).await.unwrap();
}

async fn begin(core: &Core, graph: &Arc<Graph>, n: u64) -> RunId {
    let id = RunId::at_instant(core.runs.clock().now(), &n.to_string());
    let started = started(graph, "{}".into(), core.runs.epoch());
    let new = NewRun { id, graph: Arc::clone(graph), started, request: None, fork: None };
    core.runs.start(new).await.unwrap();
    id
}

async fn version(core: &Core, run: RunId) -> i64 {
    core.store().run(run).await.unwrap().unwrap().version
}

const KEYED: &str = "
name: keyed
concurrency: {key: whole, limit: 1}
steps: [{id: w, wait_for: {signal: go}}]
";

async fn parked_runs_have_their_keys_one_after_the_other(database: TestDatabase) {
    let core = open(&database).await;
    let graph = graph(&core, KEYED).await;
    let mut line = Vec::new();
    for n in 0..4 {
        let run = begin(&core, &graph, n).await;
        parked(&core, run).await;
        line.push(run);
    }
    for (place, run) in line.iter().enumerate() {
        until("it has the key", async || waits_for_signal(&core, *run).await).await;
        for behind in &line[place + 1..] {
            assert!(!waits_for_signal(&core, *behind).await, "{place}: not in line");
        }
        parked(&core, *run).await;
        signal(&core, *run).await;
    }
    until("the key is nobody's", async || is_nobodys(&core).await).await;
    core.stop().await;
}

/// As a process leaves it which died between two writes: the row has one more holder than knows.
async fn a_run_that_was_parked_in_line_hears_of_a_grant_that_was_lost(database: TestDatabase) {
    let core = open(&database).await;
    let graph = graph(&core, KEYED).await;
    let knows = begin(&core, &graph, 0).await;
    parked(&core, knows).await;
    let waits = begin(&core, &graph, 1).await;
    parked(&core, waits).await;
    let before = version(&core, knows).await;
    core.stop().await;
    let store = store::open(database.url()).await.unwrap();
    let row = store.list_keys(None, 9).await.unwrap().remove(0);
    let text = String::from_utf8(row.body.clone()).unwrap();
    let mut body: serde_json::Value = serde_json::from_str(&text).unwrap();
    let waiting = body["concurrency"]["waiting"].as_array_mut().unwrap().remove(0);
    assert_eq!(waiting["holder"], waits.to_string());
    body["concurrency"]["holders"].as_array_mut().unwrap().push(waiting["holder"].clone());
    let change = KeyChange {
        kind: row.kind,
        key: row.key,
        expected_version: row.version,
        version: row.version + 1,
        body: Some(body.to_string().into_bytes()),
    };
    assert_eq!(store.put_keys(&[change]).await.unwrap(), [true]);
    store.close().await;
    drop(store);
    let core = open(&database).await;
    until("it has the key", async || waits_for_signal(&core, waits).await).await;
    assert_eq!(version(&core, knows).await, before, "who knows is left alone");
    core.stop().await;
}

/// As a process leaves it that died before it gave a key back: the row has a holder who has not.
async fn a_key_that_a_parked_run_gave_back_is_free_though_the_word_was_lost(
    database: TestDatabase,
) {
    const STEPS: &str = "
name: steps
steps:
  - {id: a, wait: 1ms, concurrency: {key: part, limit: 1}}
  - {id: b, wait_for: {signal: go}}
";
    let core = open(&database).await;
    let graph = graph(&core, STEPS).await;
    let run = begin(&core, &graph, 0).await;
    parked(&core, run).await;
    until("the key is nobody's", async || is_nobodys(&core).await).await;
    let before = version(&core, run).await;
    core.stop().await;
    let store = store::open(database.url()).await.unwrap();
    let holder = format!("{run}#0");
    let body = serde_json::json!({"concurrency": {"holders": [holder]}});
    let change = KeyChange {
        kind: 1,
        key: "part".to_owned(),
        expected_version: 0,
        version: 1,
        body: Some(body.to_string().into_bytes()),
    };
    assert_eq!(store.put_keys(&[change]).await.unwrap(), [true]);
    store.close().await;
    let core = open(&database).await;
    until("the key is nobody's", async || is_nobodys(&core).await).await;
    assert_eq!(version(&core, run).await, before, "it is not woken for it");
    core.stop().await;
}

async fn is_nobodys(core: &Core) -> bool {
    core.store().list_keys(None, 9).await.unwrap().is_empty()
}

macro_rules! on_both {
    ($($case:ident;)*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                super::$case(store::testing::sqlite()).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                super::$case(store::testing::postgres().await).await;
            })*
        }
    };
}

on_both! {
    parked_runs_have_their_keys_one_after_the_other;
    a_run_that_was_parked_in_line_hears_of_a_grant_that_was_lost;
    a_key_that_a_parked_run_gave_back_is_free_though_the_word_was_lost;
}
