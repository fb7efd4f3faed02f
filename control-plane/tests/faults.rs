//! What the write path owes when the store fails in the middle: nothing that is durable goes
//! without its effects, nothing that is not is acknowledged.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use control_plane::clock::{Clock, SystemClock};
use control_plane::definitions::Definitions;
use control_plane::dispatch::{self, Dispatcher};
use control_plane::runs::{self, Error, Inbox, NewRun, Notifier, Parts, Runs, Started, started};
use engine::event::Origin;
use engine::graph::Graph;
use engine::task::Purpose;
use engine::{Command, Effect, InstanceId, Phase, RunId, RunStatus, State};
use store::faulty::{Fault, Faulty};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(30);

struct Rig {
    store: Arc<Faulty>,
    runs: Runs,
    dispatcher: Dispatcher,
    _shutdown: tokio_util::sync::DropGuard,
    _folder: tempfile::TempDir,
}

impl Rig {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("test.db").display());
        let store = Faulty::new(store::open(&url).await.unwrap());
        let clock: Arc<dyn Clock> = SystemClock::shared();
        let shutdown = CancellationToken::new();
        let dispatcher = Dispatcher::new(dispatch::Config::default(), Arc::clone(&clock));
        let inbox = Inbox::new();
        dispatcher.start(inbox.sink(), shutdown.clone());
        let shared: Arc<dyn store::Store> = store.clone();
        let parts = Parts {
            definitions: Definitions::new(Arc::clone(&shared)),
            store: shared,
            owner: store::OwnerId(RunId::at_instant(clock.now(), "owner").0),
            epoch: 1,
            clock,
            dispatcher: dispatcher.clone(),
            notifier: Notifier::new(BTreeMap::new()).unwrap(),
        };
        let (runs, _) = runs::spawn(parts, inbox, shutdown.clone());
        assert_eq!(runs.adopt_all().await.unwrap(), 0);
        Self { store, runs, dispatcher, _shutdown: shutdown.drop_guard(), _folder: folder }
    }

    async fn graph(&self, yaml: &str) -> Arc<Graph> {
        let (graph, _) = self.runs.definitions().compile("t.yml", yaml.as_bytes()).unwrap();
        self.runs.definitions().keep(&graph, yaml).await.unwrap();
        graph
    }

    fn new_run(&self, graph: &Arc<Graph>, n: u32, siblings: &[&Arc<Graph>]) -> NewRun {
        let mut started = started(graph, "{}".into(), 1);
        let sibling = |graph: &&Arc<Graph>| (graph.name.to_string(), graph.hash.to_string());
        started.siblings = siblings.iter().map(sibling).collect();
        let id = RunId::at_instant(self.runs.clock().now(), &n.to_string());
        NewRun { id, graph: Arc::clone(graph), started, request: None, fork: None }
    }

    async fn start(&self, graph: &Arc<Graph>, n: u32, siblings: &[&Arc<Graph>]) -> RunId {
        let new = self.new_run(graph, n, siblings);
        let id = new.id;
        self.runs.start(new).await.unwrap();
        id
    }

    /// Waits until a run is as it should be.
    async fn until(&self, run: RunId, what: &str, is_so: impl Fn(&State) -> bool) -> State {
        let mut news = self.runs.watch(run);
        let looked = async {
            loop {
                if let Ok((_, state)) = self.runs.read(run).await
                    && is_so(&state)
                {
                    return state;
                }
                news.changed().await.unwrap();
            }
        };
        let found = tokio::time::timeout(PATIENCE, looked).await;
        found.unwrap_or_else(|_| panic!("run {run} is never so: {what}"))
    }

    async fn signal(&self, run: RunId) -> Result<(), Error> {
        let (signal, origin) = ("go".to_owned(), Origin::default());
        self.runs.ask(run, Command::Signal { signal, payload: "1".into(), origin }).await
    }

    async fn child_of(&self, parent: RunId) -> RunId {
        let (_, state) = self.runs.read(parent).await.unwrap();
        let owed = state.pending_effects().into_iter();
        let child = |effect| match effect {
            Effect::StartChild { child, .. } => Some(child.run),
            _ => None,
        };
        owed.filter_map(child).next().unwrap()
    }
}

fn has_ended(state: &State) -> bool {
    state.phase() == Phase::Ended
}

fn waits(state: &State) -> bool {
    state.steps()[0].status == "waiting"
}

const PARENT: &str = "name: parent\nsteps: [{id: sub, workflow: child}]\n";
const CHILD: &str = "name: child\nsteps: [{id: w, wait_for: {signal: go}}]\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_hears_of_an_end_whose_commit_gave_no_answer() {
    let rig = Rig::new().await;
    let (parent, child) = (rig.graph(PARENT).await, rig.graph(CHILD).await);
    let parent = rig.start(&parent, 1, &[&child]).await;
    let child = rig.child_of(parent).await;
    rig.until(child, "it waits", waits).await;
    rig.store.inject(Fault::UnknownWritten);
    let answer = rig.signal(child).await;
    assert!(matches!(answer, Err(Error::Unavailable(_))), "{answer:?}");
    let state = rig.until(parent, "its child has ended", has_ended).await;
    assert_eq!(state.status().word(), "success");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_free_when_its_holder_ended_though_the_commit_gave_no_answer() {
    let rig = Rig::new().await;
    let yaml =
        "name: t\nconcurrency: {key: db, limit: 1}\nsteps: [{id: w, wait_for: {signal: go}}]\n";
    let graph = rig.graph(yaml).await;
    let first = rig.start(&graph, 1, &[]).await;
    rig.until(first, "it has the key", waits).await;
    let second = rig.start(&graph, 2, &[]).await;
    rig.store.inject(Fault::UnknownWritten);
    assert!(rig.signal(first).await.is_err());
    rig.until(second, "it has the key", waits).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_a_step_is_free_though_the_commit_of_its_end_gave_no_answer() {
    let rig = Rig::new().await;
    let yaml = "name: t\nsteps:\n  - {id: w, wait_for: {signal: go}, concurrency: {key: db, limit: 1}}\n\
        \x20 - {id: later, wait: 1h}\n";
    let graph = rig.graph(yaml).await;
    for (fault, n) in [(Fault::UnknownWritten, 1), (Fault::UnknownLost, 3)] {
        let first = rig.start(&graph, n, &[]).await;
        rig.until(first, "it has the key", waits).await;
        let second = rig.start(&graph, n + 1, &[]).await;
        rig.store.inject(fault);
        assert!(rig.signal(first).await.is_err());
        if fault == Fault::UnknownLost {
            rig.signal(first).await.unwrap();
        }
        rig.until(second, "it has the key", waits).await;
        rig.signal(second).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_run_gives_its_tasks_out_though_the_commit_gave_no_answer() {
    let rig = Rig::new().await;
    let graph = rig.graph("name: t\nsteps: [{id: a, agent: echo, action: echo}]\n").await;
    let run = rig.start(&graph, 1, &[]).await;
    let key = engine::task::TaskKey { run, instance: InstanceId(0), purpose: Purpose::Do };
    let (reason, origin) = (String::new(), Origin::default());
    rig.runs.ask(run, Command::Pause { reason, origin: origin.clone() }).await.unwrap();
    // The answer to a later command comes behind the effects of the ones before.
    rig.signal(run).await.unwrap();
    let paused = || rig.dispatcher.why(&key).map(|why| why.cause == "the run is paused");
    assert_eq!(paused(), Some(true));
    rig.store.inject(Fault::UnknownWritten);
    assert!(rig.runs.ask(run, Command::Resume { origin }).await.is_err());
    rig.until(run, "it goes on", |state| state.status() == RunStatus::Running).await;
    rig.signal(run).await.unwrap();
    rig.signal(run).await.unwrap();
    assert_eq!(paused(), Some(false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_comes_while_a_lost_one_is_looked_for_is_carried_out() {
    let rig = Rig::new().await;
    let graph = rig.graph(CHILD).await;
    let new = rig.new_run(&graph, 1, &[]);
    let again = || NewRun {
        id: new.id,
        graph: Arc::clone(&new.graph),
        started: new.started.clone(),
        request: None,
        fork: None,
    };
    rig.store.set_unavailable(true);
    assert!(matches!(rig.runs.start(again()).await, Err(Error::Unavailable(_))));
    let second = rig.runs.start(again());
    tokio::pin!(second);
    assert!(futures::poll!(&mut second).is_pending());
    // A command behind it, so that both are in the run's queue: new runs come behind commands.
    let is_taken = async {
        while rig.runs.backlog().starts > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, is_taken).await.unwrap();
    let go = rig.signal(new.id);
    tokio::pin!(go);
    assert!(futures::poll!(&mut go).is_pending());
    rig.store.set_unavailable(false);
    let second = tokio::time::timeout(PATIENCE, second).await.unwrap();
    assert!(matches!(second, Ok(Started::New(id)) if id == new.id), "{second:?}");
    go.await.unwrap();
    rig.until(new.id, "it has ended", has_ended).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_that_is_cancelled_while_its_child_is_started_ends() {
    let rig = Rig::new().await;
    let (parent, child) = (rig.graph(PARENT).await, rig.graph(CHILD).await);
    // The child's definition is found after a while only; the cancel comes before.
    rig.store.fail_lookups(3);
    let run = rig.start(&parent, 1, &[&child]).await;
    let (reason, origin) = (String::new(), Origin::default());
    rig.runs.ask(run, Command::Cancel { reason, origin }).await.unwrap();
    let state = rig.until(run, "its child has stopped", has_ended).await;
    assert_eq!(state.status().word(), "cancelled");
}
