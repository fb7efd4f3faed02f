//! Load with its own books: what clients were promised and what agents did, to be compared with
//! the journals when all runs have ended.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use contracts::v1::orchestrator_service_client::OrchestratorServiceClient;
use contracts::v1::{self, RunStatus};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::checker::{Event, History, Promise};
use super::counter;
use crate::support::client::{json, request, text};
use crate::support::{DEADLINE, until};

/// How many clients call at once.
const CLIENTS: usize = 8;
/// How many runs are started by each: a multiple of four.
const RUNS: usize = 24;

/// Tells loads of one control plane apart.
static LOADS: AtomicUsize = AtomicUsize::new(0);

/// How long a client waits for an answer before it asks again, elsewhere where it can.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// How long it waits behind a refusal.
const BETWEEN_CALLS: Duration = Duration::from_millis(20);

/// Three steps, the second at most once, and a signal before the third.
const WORKFLOW: &str = "name: load\nsteps:\n  - {id: a, agent: counter, action: count}\n  \
    - {id: b, agent: counter, action: count}\n  - {id: go, wait_for: go}\n  \
    - {id: c, agent: counter, action: count}\n";
/// The same with a step in it that never runs twice.
const ONCE: &str = "name: once\nsteps:\n  - {id: a, agent: counter, action: count}\n  \
    - {id: once, agent: counter, action: count, delivery: at_most_once}\n";

/// Clients under way.
#[derive(Debug)]
pub(crate) struct Load {
    file: PathBuf,
    promises: Arc<Mutex<Vec<(String, Promise)>>>,
    clients: Vec<tokio::task::JoinHandle<()>>,
    runs: Doors,
}

/// The control planes that may be asked, by one client.
#[derive(Clone, Debug)]
struct Doors {
    all: Arc<[OrchestratorServiceClient<Channel>]>,
    /// The one that is asked next: the client stays with it while it answers.
    next: Arc<AtomicUsize>,
}

impl Doors {
    fn door(&self) -> (usize, OrchestratorServiceClient<Channel>) {
        let at = self.next.load(Ordering::Relaxed);
        (at, self.all[at % self.all.len()].clone())
    }

    /// For another client, which begins at another one.
    fn another(&self, number: usize) -> Self {
        Self { all: Arc::clone(&self.all), next: Arc::new(AtomicUsize::new(number)) }
    }

    /// Away from this one.
    fn turn(&self, at: usize) {
        let turned = at.wrapping_add(1);
        let _ = self.next.compare_exchange(at, turned, Ordering::Relaxed, Ordering::Relaxed);
    }
}

impl Load {
    pub(crate) fn start(urls: &[&str], file: &Path) -> Self {
        Self::of(RUNS, urls, file)
    }

    /// With so many runs of each client: a multiple of four.
    pub(crate) fn of(each: usize, urls: &[&str], file: &Path) -> Self {
        let door = |url: &&str| {
            let endpoint = Endpoint::from_shared((*url).to_owned()).unwrap();
            OrchestratorServiceClient::new(endpoint.connect_lazy())
        };
        let all = urls.iter().map(door).collect();
        let runs = Doors { all, next: Arc::default() };
        let promises = Arc::default();
        let unique = LOADS.fetch_add(1, Ordering::Relaxed);
        let clients = (0..CLIENTS)
            .map(|number| {
                let (doors, promises) = (runs.another(number), Arc::clone(&promises));
                tokio::spawn(client((unique, number), each, doors, promises))
            })
            .collect();
        Self { file: file.to_owned(), promises, clients, runs }
    }

    /// Whether all has been asked for.
    pub(crate) fn is_asked(&self) -> bool {
        self.clients.iter().all(tokio::task::JoinHandle::is_finished)
    }

    /// How much was promised so far.
    pub(crate) fn promised(&self) -> usize {
        self.promises.lock().unwrap().len()
    }

    /// When this share of all promises was given, in percent.
    pub(crate) async fn reaches(&self, percent: usize) {
        let enough = CLIENTS * RUNS * 7 / 4 * percent / 100;
        until("the load goes on", async || self.promised() >= enough).await;
    }

    /// Waits for all, and checks all. Runs may fail only where a task was lost that must not be
    /// done twice.
    pub(crate) async fn ends_well(self) {
        for client in self.clients {
            tokio::time::timeout(2 * DEADLINE, client).await.expect("clients end").unwrap();
        }
        let promises = std::mem::take(&mut *self.promises.lock().unwrap());
        let mut journals = BTreeMap::new();
        for (run, _) in promises.iter().filter(|(_, promise)| *promise == Promise::Started) {
            let ended = ended(&self.runs, run).await;
            let is_once = ended.workflow == "once";
            let well = ended.status() == RunStatus::Success;
            assert!(well || is_once, "{run}: {}: {}", ended.failed_step, ended.error);
            journals.insert(run.clone(), journal(&self.runs, run).await);
        }
        let history = History {
            promises,
            journals,
            marks: counter::read(&self.file),
            order: vec![("b", "a"), ("c", "b"), ("once", "a")],
            at_most_once: ["once"].into(),
            owners_follow: self.runs.all.len() == 1,
        };
        let wrong = history.violations();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

/// Starts runs and signals those that wait. What is not answered is asked again, with the same
/// request id.
async fn client(
    (unique, number): (usize, usize),
    each: usize,
    runs: Doors,
    promises: Arc<Mutex<Vec<(String, Promise)>>>,
) {
    for round in 0..each {
        let once = round % 4 == 0;
        let mut start = request(if once { ONCE } else { WORKFLOW });
        start.request_id = format!("start-{unique}-{number}-{round}");
        let started = asked(&runs, |mut runs| {
            let request = start.clone();
            async move { runs.start_run(request).await }
        })
        .await;
        let run = started.into_inner().run.unwrap().run_id;
        promises.lock().unwrap().push((run.clone(), Promise::Started));
        if once {
            continue;
        }
        let signal = v1::SignalRunRequest {
            run_id: run.clone(),
            signal: "go".to_owned(),
            payload: json("1"),
            request_id: format!("signal-{unique}-{number}-{round}"),
        };
        asked(&runs, |mut runs| {
            let request = signal.clone();
            async move { runs.signal_run(request).await }
        })
        .await;
        promises.lock().unwrap().push((run, Promise::Signalled("go".to_owned())));
    }
}

/// Asks until there is an answer. Only what a fault may lead to is asked again.
async fn asked<Answer, Asking>(
    runs: &Doors,
    ask: impl Fn(OrchestratorServiceClient<Channel>) -> Asking,
) -> Answer
where
    Asking: Future<Output = Result<Answer, Status>>,
{
    let began = Instant::now();
    loop {
        let (at, door) = runs.door();
        match tokio::time::timeout(ANSWER_WAIT, ask(door)).await {
            Ok(Ok(answer)) => return answer,
            Ok(Err(status)) => assert!(passes(&status), "{status:?}"),
            Err(_) => {}
        }
        runs.turn(at);
        assert!(began.elapsed() < DEADLINE, "a call is not answered in time");
        tokio::time::sleep(BETWEEN_CALLS).await;
    }
}

fn passes(status: &Status) -> bool {
    use tonic::Code;
    matches!(
        status.code(),
        Code::Unavailable
            | Code::Unknown
            | Code::Cancelled
            | Code::ResourceExhausted
            | Code::DeadlineExceeded
            | Code::Aborted
    )
}

async fn ended(runs: &Doors, run: &str) -> v1::Run {
    let request = v1::GetRunRequest { run_id: run.to_owned(), view: v1::RunView::Full.into() };
    let began = Instant::now();
    loop {
        let got = asked(runs, |mut runs| {
            let request = request.clone();
            async move { runs.get_run(request).await }
        });
        let got = got.await.into_inner().run.unwrap();
        if got.end_time.is_some() {
            return got;
        }
        if began.elapsed() > DEADLINE {
            let request = v1::DiagnoseRunRequest { run_id: run.to_owned() };
            let found = runs.door().1.diagnose_run(request).await;
            let journal: Vec<_> = journal(runs, run).await;
            panic!("the run does not end: {got:?}\n{found:?}\n{journal:#?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn journal(runs: &Doors, run: &str) -> Vec<Event> {
    let request =
        v1::ListRunJournalRequest { run_id: run.to_owned(), page_size: 1000, ..Default::default() };
    let page = asked(runs, |mut runs| {
        let request = request.clone();
        async move { runs.list_run_journal(request).await }
    })
    .await;
    let page = page.into_inner();
    assert_eq!(page.next_page_token, "", "such runs have few events");
    page.events.iter().map(event).collect()
}

fn event(event: &v1::JournalEvent) -> Event {
    let body: serde_json::Value = match text(event.body.as_ref()) {
        "" => serde_json::Value::Null,
        text => serde_json::from_str(text).unwrap(),
    };
    let about = match body["signal"].as_str() {
        Some(signal) => signal.to_owned(),
        None => event.step.clone(),
    };
    Event {
        sequence: event.sequence,
        kind: event.kind(),
        about,
        epoch: body["epoch"].as_u64().unwrap_or_default(),
    }
}
