//! The wall clock is wrong: it was set forward or back between two lives of a process, or those of
//! replicas differ. What was decided stands, nothing is done twice, and nobody takes another's
//! lease for over.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use contracts::v1::{self, start_run_request::Source};
use control_plane::clock::{Clock, SystemClock};
use control_plane::config::Secret;
use control_plane::testing::TestServer;
use engine::Instant;
use store::OwnerId;
use tokio_util::sync::CancellationToken;

/// How long anything may take that is waited for.
const DEADLINE: Duration = Duration::from_secs(60);
/// By how much clocks are wrong.
const HOUR: i64 = 3_600_000_000;

/// Steps before and behind a wait, and a try that comes again: all that hangs on time.
const STEPS: &str = "name: clocks\nsteps:\n  - {id: a, agent: echo, action: echo}\n  \
    - {id: go, wait_for: {signal: go, timeout: 3h}}\n  \
    - {id: b, agent: echo, action: fail, params: {message: no, succeed_after: 2}, \
       retry: {max_attempts: 3, delay: 100ms}}\n  \
    - {id: c, agent: echo, action: echo, timeout: 30s, queue_timeout: 30s}\n";

/// A clock that is ahead by so many microseconds.
struct Ahead(SystemClock, i64);

impl Ahead {
    fn by(micros: i64) -> Arc<dyn Clock> {
        Arc::new(Self(SystemClock::new(), micros))
    }
}

impl Clock for Ahead {
    fn now(&self) -> Instant {
        Instant(self.0.now().0 + self.1)
    }
}

/// An echo agent on a channel within the process, until the token is cancelled.
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

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, wait).await.is_ok(), "{what}: not in time");
}

async fn start(server: &TestServer) -> String {
    let definition = v1::Definition { yaml: STEPS.to_owned(), ..Default::default() };
    let source = Some(Source::Definition(definition));
    let request = v1::StartRunRequest { source, ..Default::default() };
    let started = server.orchestrator().start_run(request).await.unwrap().into_inner();
    started.run.unwrap().run_id
}

async fn status(server: &TestServer, run: &str) -> v1::RunStatus {
    let request = v1::GetRunRequest { run_id: run.to_owned(), ..Default::default() };
    let run = server.orchestrator().get_run(request).await.unwrap().into_inner().run.unwrap();
    run.status()
}

async fn waits(server: &TestServer, run: &str) {
    until("it waits", async || status(server, run).await == v1::RunStatus::Waiting).await;
}

async fn goes_on_to_its_end(server: &TestServer, run: &str) {
    let request = v1::SignalRunRequest {
        run_id: run.to_owned(),
        signal: "go".to_owned(),
        ..Default::default()
    };
    server.orchestrator().signal_run(request).await.unwrap();
    until("it ends", async || status(server, run).await == v1::RunStatus::Success).await;
    let request = v1::ListRunJournalRequest { run_id: run.to_owned(), ..Default::default() };
    let events = server.orchestrator().list_run_journal(request).await.unwrap().into_inner().events;
    let times: Vec<_> = events.iter().map(|event| event.time.unwrap()).collect();
    let times: Vec<_> = times.iter().map(|time| (time.seconds, time.nanos)).collect();
    assert!(times.is_sorted(), "the journal's time never runs back: {times:?}");
    let count = |step: &str| {
        let is_it = |event: &&v1::JournalEvent| {
            event.kind() == v1::EventKind::StepSucceeded && event.step == step
        };
        events.iter().filter(is_it).count()
    };
    assert_eq!(["a", "go", "b", "c"].map(count), [1; 4]);
}

async fn a_life_behind_another(first: i64, second: i64) {
    let server = TestServer::start_at(Ahead::by(first), |_| {}).await.unwrap();
    let _agent = echo(&server);
    let run = start(&server).await;
    waits(&server, &run).await;
    let server = server.restart_at(Ahead::by(second)).await.unwrap();
    let _agent = echo(&server);
    goes_on_to_its_end(&server, &run).await;
    let new = start(&server).await;
    waits(&server, &new).await;
    goes_on_to_its_end(&server, &new).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_was_set_back_between_two_lives_stops_nothing() {
    a_life_behind_another(HOUR, -HOUR).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_was_set_forward_between_two_lives_fires_nothing_too_early() {
    a_life_behind_another(-HOUR, HOUR).await;
}

fn owner(server: &TestServer) -> OwnerId {
    server.control_plane.core().replicas.own().owner
}

fn knows(server: &TestServer, other: OwnerId) -> bool {
    server.control_plane.core().replicas.peers().is_live(other)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_whose_clocks_differ_share_runs_and_keep_their_leases() {
    let database = store::testing::postgres().await;
    let replica = async |ahead: i64| {
        let server = TestServer::start_at(Ahead::by(ahead), |config| {
            config.database_url = Some(Secret::new(database.url()));
            config.replica_lease = Duration::from_secs(2);
        });
        server.await.unwrap()
    };
    let (early, late) = (replica(-HOUR).await, replica(HOUR).await);
    let owners = (owner(&early), owner(&late));
    until("they know each other", async || knows(&early, owners.1) && knows(&late, owners.0)).await;
    let _agents = (echo(&early), echo(&late));
    let runs = [start(&early).await, start(&late).await, start(&late).await];
    for (server, run) in [(&early, &runs[0]), (&late, &runs[1]), (&late, &runs[2])] {
        waits(server, run).await;
    }
    // Each is asked for what the other has.
    goes_on_to_its_end(&late, &runs[0]).await;
    goes_on_to_its_end(&early, &runs[1]).await;
    assert_eq!((owner(&early), owner(&late)), owners, "nobody was fenced");
    // The one whose clock is behind takes over what the other one has decided.
    late.control_plane.stop().await;
    goes_on_to_its_end(&early, &runs[2]).await;
    early.control_plane.stop().await;
}
