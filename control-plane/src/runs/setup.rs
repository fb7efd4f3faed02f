//! The way into the loop and how it is put together: its mailbox, its parts, and what runs beside
//! it. It decides nothing about a run.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use engine::Command;
use engine::task::TaskKey;
use store::{OwnerId, Store};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::adoption::Identity;
use super::effects::Effects;
use super::keys::Keys;
use super::others::{Alone, Others};
use super::parking::Parker;
use super::slot::{Ask, Envelope, Reply};
use super::write_path::{Made, Ways, WritePath};
use super::{Notifier, Runs, Shared, commit, lanes};
use crate::clock::Clock;
use crate::definitions::Definitions;
use crate::dispatch::{Answer, Dispatcher, Emitted, Report, ReportSink};
use crate::ids::Randomness;
use crate::lease::Lease;
use crate::limits;

/// Who else there is, and for how long this process may act for its runs.
pub struct Among {
    /// Who else may own runs.
    pub others: Arc<dyn Others>,
    /// Holds as long as nobody else can have taken them over.
    pub lease: Lease,
    /// A run that only waits is left to nobody after this time.
    pub park_after: Option<Duration>,
    /// Where marks come from for what is passed on to others.
    pub randomness: Randomness,
    /// With more runs in memory than these, those that only wait go soon.
    pub park_soon_beyond: usize,
}

impl Default for Among {
    fn default() -> Self {
        Self {
            others: Arc::new(Alone),
            lease: Lease::endless(),
            park_after: None,
            randomness: Randomness::System,
            park_soon_beyond: limits::PARK_SOON_RUNS,
        }
    }
}

impl std::fmt::Debug for Among {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Among").field("park_after", &self.park_after).finish_non_exhaustive()
    }
}

/// What the write path is made of.
pub struct Parts {
    /// Where runs are kept.
    pub store: Arc<dyn Store>,
    /// What they run.
    pub definitions: Definitions,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Who this process is.
    pub owner: OwnerId,
    /// The epoch of its leases.
    pub epoch: u64,
    /// Who gives tasks to agents.
    pub dispatcher: Dispatcher,
    /// Who sends notifications.
    pub notifier: Notifier,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("owner", &self.owner).finish_non_exhaustive()
    }
}

/// The mailbox of all runs, made before the loop so that dispatch can be given its sink.
#[derive(Debug)]
pub struct Inbox {
    sender: lanes::Sender<Envelope>,
    receiver: lanes::Receiver<Envelope>,
    starts: (lanes::Sender<Envelope>, lanes::Receiver<Envelope>),
}

impl Inbox {
    /// An empty mailbox.
    #[must_use]
    pub fn new() -> Self {
        let (sender, receiver) = lanes::lanes(limits::COMMANDS_QUEUED_MAX);
        Self { sender, receiver, starts: lanes::lanes(limits::COMMANDS_QUEUED_MAX) }
    }

    /// Where dispatch reports to.
    #[must_use]
    pub fn sink(&self) -> Arc<dyn ReportSink> {
        Arc::new(Sink(self.sender.clone()))
    }
}

impl Default for Inbox {
    fn default() -> Self {
        Self::new()
    }
}

struct Sink(lanes::Sender<Envelope>);

impl ReportSink for Sink {
    fn report(&self, report: Report, answer: Answer) {
        let run = report.task.key.run;
        let ask = Ask::Command(Box::new(Command::Report(report.task)));
        // With the mailbox full the answer is dropped, and the report is made again.
        drop(self.0.try_send(false, Envelope { run, ask, reply: Reply::Report(answer) }));
    }

    fn inquire(&self, key: TaskKey, _lease: crate::dispatch::LeaseToken, answer: Answer) {
        let ask = Ask::Inquire(key);
        let envelope = Envelope { run: key.run, ask, reply: Reply::Report(answer) };
        drop(self.0.try_send(false, envelope));
    }

    fn emit(&self, emitted: Emitted) {
        let Emitted { name, payload, run, agent, .. } = emitted;
        let actor = format!("agent:{}/{}", agent.agent_type, agent.instance);
        let origin = engine::event::Origin { actor, request: None };
        let ask = Ask::Command(Box::new(Command::Signal { signal: name, payload, origin }));
        if self.0.try_send(false, Envelope { run, ask, reply: Reply::Nobody }).is_err() {
            tracing::warn!(%run, "an agent's event was dropped: too many commands wait");
        }
    }
}

/// Starts the write path of the only process that uses the store.
#[must_use]
pub fn spawn(
    parts: Parts,
    inbox: Inbox,
    shutdown: CancellationToken,
) -> (Runs, tokio::task::JoinHandle<()>) {
    spawn_among(parts, Among::default(), inbox, shutdown)
}

/// Starts the write path. It ends, with everything in the commit settled, after `shutdown`.
#[must_use]
pub fn spawn_among(
    parts: Parts,
    among: Among,
    inbox: Inbox,
    shutdown: CancellationToken,
) -> (Runs, tokio::task::JoinHandle<()>) {
    let Among { others, lease, park_after, park_soon_beyond, randomness } = among;
    let shared = Arc::new(Shared {
        store: parts.store,
        definitions: parts.definitions,
        clock: parts.clock,
        identity: std::sync::Mutex::new(Identity { owner: parts.owner, epoch: parts.epoch }),
        lease,
        others,
        randomness,
        looking: std::sync::atomic::AtomicBool::new(false),
        passing: Semaphore::new(limits::PASSING_MAX),
        wake: super::parking::Wake::default(),
        dispatcher: parts.dispatcher,
        watchers: std::sync::Mutex::default(),
        ends: super::ends::Ends::default(),
        asked: Arc::default(),
        stuck: std::sync::Mutex::default(),
        active: AtomicUsize::new(0),
        keys: Keys::new(),
    });
    let (controls, controlled) = mpsc::channel(limits::CONTROLS_QUEUED_MAX);
    // A run has one transition in the commit at most, so this bound is never met.
    let (commits, queue) = lanes::lanes(2 * limits::RUNS_ACTIVE_MAX);
    let runs = Runs {
        inbox: inbox.sender,
        starts: inbox.starts.0,
        commits: commits.downgrade(),
        controls,
        shared: Arc::clone(&shared),
    };
    let (done, committed) = mpsc::channel(limits::LOADS_MAX);
    let (loads, loaded) = mpsc::channel(limits::LOADS_MAX);
    commit::spawn(&shared, queue, &done);
    let effects = Effects::new(runs.clone(), parts.notifier);
    effects.look_for_children(shutdown.clone());
    super::keys::spawn(&runs, shutdown.clone());
    let (parked, parkings) = mpsc::channel(limits::PARKINGS_UNDER_WAY);
    let parking = Parker::new(park_after, park_soon_beyond, parked);
    let made = Made { runs: runs.clone(), parking, shared, effects, commits, loads };
    let (inbox, starts) = (inbox.receiver, inbox.starts.1);
    let ways = Ways { inbox, starts, committed, loaded, parked: parkings, controls: controlled };
    let task = tokio::spawn(WritePath::new(made).run(ways, shutdown));
    (runs, task)
}
