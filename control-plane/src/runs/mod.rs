//! The one write path: a run's commands -> `engine::decide` -> group commit -> effects.
//!
//! Nobody else writes the journal, and no effect is carried out before its transition is durable.
//! Reads go to the store directly (`Runs::read`).

mod adoption;
mod audited;
mod children;
mod commit;
mod effects;
mod ends;
mod folding;
mod keys;
mod lanes;
mod least_wait;
mod notify;
mod others;
mod parking;
pub mod projected;
mod setup;
mod slot;
mod telemetry;
mod wakes;
mod write_path;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use engine::event::{Origin, Parent, RollbackTo, RunStarted};
use engine::graph::Graph;
use engine::{Command, Event, Instant, Rejection, RunId, State};
use store::{Commit, JournalRow, OwnerId, RequestRow, RunRow, Store};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};

use crate::clock::Clock;
use crate::definitions::{self, Definitions};
use crate::dispatch::Dispatcher;
use crate::hash::QuickMap;
use crate::ids::Randomness;
use crate::lease::Lease;
use crate::limits;

pub use adoption::Identity;
pub use ends::{End, Final};
pub use keys::Holding;
pub use notify::Notifier;
pub use others::{Alone, Answered, Others, Passed, Standing};
pub use setup::{Among, Inbox, Parts, spawn, spawn_among};
pub use wakes::News;
pub(crate) use wakes::Woken;

use folding::Folding;
use slot::{Ask, Envelope, Reply};

/// A run to be started.
#[derive(Debug)]
pub struct NewRun {
    /// Its id.
    pub id: RunId,
    /// What it runs; the store has its text.
    pub graph: Arc<Graph>,
    /// How it starts.
    pub started: RunStarted,
    /// The request that asks for it.
    pub request: Option<RequestRow>,
    /// What it takes over from another run.
    pub fork: Option<Box<Fork>>,
}

/// What a run takes over from another one.
#[derive(Debug)]
pub struct Fork {
    /// The other run.
    pub of: Arc<State>,
    /// Its journal, from the first event on.
    pub journal: Vec<(Event, Instant)>,
    /// The checkpoint up to which.
    pub from: RollbackTo,
}

/// What became of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    /// It was started.
    New(RunId),
    /// The same request started this run before, or this run is there already.
    Before(RunId),
}

/// Why something asked of a run was not done.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// There is no such run.
    #[error("there is no run {0}")]
    NotFound(RunId),
    /// The engine said no.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The request id was used before with another body.
    #[error("request id `{0}` was used before with another body")]
    RequestIdReused(String),
    /// Too much is under way; nothing was done.
    #[error("{0}")]
    Overloaded(String),
    /// Another replica has the run.
    #[error("run {0} is held by another replica")]
    Elsewhere(RunId),
    /// The store cannot be reached, or its answer is unknown; the same request may be repeated.
    #[error("{0}; the same request can be repeated safely")]
    Unavailable(String),
    /// The run cannot be read; a defect, or a journal of a newer version.
    #[error("run {0} is stuck: {1}")]
    Stuck(RunId, String),
}

/// What waits in the write path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Commands that wait to be decided.
    pub commands: usize,
    /// Transitions that wait to be written.
    pub commits: usize,
    /// Runs that wait to be started.
    pub starts: usize,
    /// How long, of late, even the luckiest of these waited.
    pub start_wait: Duration,
    /// How long even the luckiest command waited.
    pub command_wait: Duration,
    /// How long even the luckiest transition waited.
    pub commit_wait: Duration,
}

/// The way to all runs. Cheap to clone.
#[derive(Clone)]
pub struct Runs {
    inbox: lanes::Sender<Envelope>,
    /// Runs to be started, which go behind what runs that there are need.
    starts: lanes::Sender<Envelope>,
    /// The queue of the committers, which ends with the write path.
    commits: lanes::WeakSender<Box<Commit>>,
    controls: mpsc::Sender<adoption::Control>,
    shared: Arc<Shared>,
}

/// What the write path and its users share.
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) definitions: Definitions,
    pub(crate) clock: Arc<dyn Clock>,
    identity: Mutex<Identity>,
    pub(crate) lease: Lease,
    pub(crate) others: Arc<dyn Others>,
    randomness: Randomness,
    /// Runs are about to be looked for that may be in nobody's memory.
    pub(crate) looking: std::sync::atomic::AtomicBool,
    /// What is on its way to other replicas.
    passing: Semaphore,
    /// When the first run wakes that was parked here.
    pub(crate) wake: parking::Wake,
    pub(crate) dispatcher: Dispatcher,
    watchers: Mutex<QuickMap<RunId, watch::Sender<i64>>>,
    pub(crate) ends: ends::Ends,
    /// Rung when a question to people was opened.
    asked: Arc<Notify>,
    pub(crate) stuck: Mutex<HashMap<RunId, String>>,
    pub(crate) active: std::sync::atomic::AtomicUsize,
    pub(crate) keys: keys::Keys,
}

impl Runs {
    /// Starts a run; returns once that is durable.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn start(&self, new: NewRun) -> Result<Started, Error> {
        let id = new.id;
        let (reply, answer) = oneshot::channel();
        let ask = Ask::Start(Box::new(new));
        self.send(Envelope { run: id, ask, reply: Reply::Started(reply) }).await?;
        wait(answer).await
    }

    /// Asks something of a run; returns once what it changes is durable.
    ///
    /// # Errors
    /// See [`Error`]. A repetition of a request that was carried out is no error.
    pub async fn ask(&self, run: RunId, command: Command) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        let ask = Ask::Command(Box::new(command));
        self.send(Envelope { run, ask, reply: Reply::Done(reply) }).await?;
        match wait(answer).await {
            Err(Error::Rejected(Rejection::Repeated)) => Ok(()),
            Err(Error::Rejected(Rejection::RequestIdReused(id))) => Err(Error::RequestIdReused(id)),
            other => other,
        }
    }

    async fn send(&self, envelope: Envelope) -> Result<(), Error> {
        let queue = if envelope.is_new_run() { &self.starts } else { &self.inbox };
        queue.try_send(envelope.is_urgent(), envelope).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                let max = limits::COMMANDS_QUEUED_MAX;
                Error::Overloaded(format!("{max} commands wait already; try again shortly"))
            }
            mpsc::error::TrySendError::Closed(_) => {
                Error::Unavailable("the server is stopping".to_owned())
            }
        })
    }

    /// A receiver that changes whenever something new stands in the run's journal.
    #[must_use]
    pub fn watch(&self, run: RunId) -> watch::Receiver<i64> {
        let mut watchers = lock(&self.shared.watchers);
        watchers.retain(|_, sender| sender.receiver_count() > 0);
        watchers.entry(run).or_insert_with(|| watch::channel(0).0).subscribe()
    }

    /// A run's row and state, as the store has them.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable` or `Stuck`.
    pub async fn read(&self, run: RunId) -> Result<(RunRow, State), Error> {
        self.shared.fold(run).await
    }

    /// A run's state as it was right behind event `sequence`.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable` or `Stuck`.
    pub async fn read_to(&self, run: RunId, sequence: i64) -> Result<State, Error> {
        let shared = &self.shared;
        let row = shared.store.run(run).await.map_err(unavailable)?.ok_or(Error::NotFound(run))?;
        let graph = shared.graph(&row).await?;
        let mut folding = Folding::new(run, graph);
        let mut last = 0;
        while last < sequence {
            let left = u32::try_from(sequence - last).unwrap_or(u32::MAX);
            let page = shared.store.journal(run, last, left.min(limits::READ_TO_EVENTS)).await;
            let page = page.map_err(unavailable)?;
            let Some(end) = page.last() else { return Err(Error::NotFound(run)) };
            last = end.seq;
            page.iter().for_each(|event| folding.push(event));
        }
        folding.finish().map_err(|why| Error::Stuck(run, why))
    }

    /// All events of a run, decoded.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`, `Stuck`, or `Overloaded` when there are too many to take over.
    pub async fn events(&self, run: RunId) -> Result<Vec<(Event, Instant)>, Error> {
        let store = &self.shared.store;
        let row = store.run(run).await.map_err(unavailable)?.ok_or(Error::NotFound(run))?;
        if usize::try_from(row.version).is_ok_and(|count| count > limits::EVENTS_FORKED_MAX) {
            let (count, max) = (row.version, limits::EVENTS_FORKED_MAX);
            return Err(Error::Overloaded(format!(
                "its journal has {count} events; a run takes over {max} at most"
            )));
        }
        let found = store.fold(run).await.map_err(unavailable)?;
        let (_, journal) = found.ok_or(Error::NotFound(run))?;
        let decode = |row: &JournalRow| {
            let event = Event::decode(row.kind, &row.body);
            event.map(|event| (event, Instant(row.at)))
        };
        let events: Result<Vec<_>, _> = journal.iter().map(decode).collect();
        events.map_err(|error| Error::Stuck(run, error.to_string()))
    }

    /// What is wrong with a run that is stuck.
    #[must_use]
    pub fn why_stuck(&self, run: RunId) -> Option<String> {
        lock(&self.shared.stuck).get(&run).cloned()
    }

    /// The runs that are stuck at this process, in the order of their ids.
    #[must_use]
    pub fn stuck(&self) -> Vec<RunId> {
        let mut runs: Vec<RunId> = lock(&self.shared.stuck).keys().copied().collect();
        runs.sort_unstable();
        runs
    }

    /// Who holds a concurrency key.
    #[must_use]
    pub fn holding(&self, key: &str) -> Option<Holding> {
        self.shared.keys.holding(key)
    }

    /// How many runs are under way here.
    #[must_use]
    pub fn active(&self) -> usize {
        self.shared.active.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// What waits in the write path just now.
    #[must_use]
    pub fn backlog(&self) -> Backlog {
        let commits = self.commits.upgrade();
        let commits = commits.as_ref();
        Backlog {
            commands: self.inbox.waiting(),
            commits: commits.map_or(0, lanes::Sender::waiting),
            starts: self.starts.waiting(),
            start_wait: self.starts.least_wait(),
            command_wait: self.inbox.least_wait(),
            commit_wait: commits.map_or(Duration::ZERO, lanes::Sender::least_wait),
        }
    }

    /// The store that all is in.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.shared.store
    }

    /// The definitions.
    #[must_use]
    pub fn definitions(&self) -> &Definitions {
        &self.shared.definitions
    }

    /// What is rung when a question to people was opened here.
    #[must_use]
    pub fn asked(&self) -> Arc<Notify> {
        Arc::clone(&self.shared.asked)
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.shared.clock
    }

    /// The epoch under which this process owns runs.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.shared.identity().epoch
    }
}

impl std::fmt::Debug for Runs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runs").finish_non_exhaustive()
    }
}

async fn wait<T>(answer: oneshot::Receiver<Result<T, Error>>) -> Result<T, Error> {
    match tokio::time::timeout(limits::ANSWER_WAIT_MAX, answer).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => {
            Err(Error::Unavailable("it is not known whether it was carried out".to_owned()))
        }
        Err(_) => Err(Error::Unavailable("the store did not answer in time".to_owned())),
    }
}

impl Shared {
    pub(crate) fn identity(&self) -> Identity {
        *lock(&self.identity)
    }

    pub(crate) fn owner(&self) -> OwnerId {
        self.identity().owner
    }

    /// Tells watchers that a run's journal has grown.
    pub(crate) fn wake(&self, run: RunId, version: i64) {
        if let Some(sender) = lock(&self.watchers).get(&run) {
            sender.send_replace(version);
        }
    }

    /// Reads a run and folds its journal.
    pub(crate) async fn fold(&self, run: RunId) -> Result<(RunRow, State), Error> {
        let row = self.store.run(run).await.map_err(unavailable)?.ok_or(Error::NotFound(run))?;
        let graph = self.graph(&row).await?;
        let mut folding = Folding::new(run, graph);
        let replayed = self.store.replay(&row, &mut |event| folding.push(&event)).await;
        if !replayed.map_err(unavailable)? {
            return Err(Error::NotFound(run));
        }
        let state = folding.finish().map_err(|why| Error::Stuck(run, why))?;
        Ok((row, state))
    }

    async fn graph(&self, row: &RunRow) -> Result<Arc<Graph>, Error> {
        self.definitions.graph(row.definition_hash).await.map_err(|error| match error {
            definitions::Error::Store(error) => unavailable(error),
            other => Error::Stuck(row.run_id, other.to_string()),
        })
    }
}

fn unavailable(error: store::Error) -> Error {
    tracing::warn!(%error, "the store could not be read");
    Error::Unavailable("the store cannot be read".to_owned())
}

/// Folds a journal.
///
/// # Errors
/// With what is wrong with it.
pub fn fold(run: RunId, graph: Arc<Graph>, journal: &[JournalRow]) -> Result<State, String> {
    let mut folding = Folding::new(run, graph);
    journal.iter().for_each(|event| folding.push(event));
    folding.finish()
}

/// The start of a child run or of a scheduled one, in the words of the journal.
#[must_use]
pub fn started(graph: &Graph, params: engine::task::Json, epoch: u64) -> RunStarted {
    RunStarted {
        workflow: graph.name.to_string(),
        version: graph.version.clone(),
        hash: graph.hash.to_string(),
        params,
        tenant: TENANT_DEFAULT.to_owned(),
        origin: Origin::default(),
        labels: std::collections::BTreeMap::new(),
        priority: graph.priority,
        parent: None::<Parent>,
        epoch,
        siblings: std::collections::BTreeMap::new(),
    }
}

/// The tenant of everything until there is authentication.
pub const TENANT_DEFAULT: &str = "default";

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
