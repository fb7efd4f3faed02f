//! Gives tasks to agents and brings back what comes of them.
//!
//! A pure matcher (`matcher`) decides, behind one lock that is never held while anything is
//! awaited, sent or reported; this shell hands it the time, carries out what it leaves to be
//! done, and has one task of its own that sleeps until the next deadline. It knows no workflow
//! and writes no journal: the sink does.

mod batch;
mod breaker;
mod card;
pub mod clocks;
mod convert;
mod fair_queue;
mod figures;
mod inherit;
mod lease;
mod lending;
mod loan;
mod matcher;
mod poll;
mod registry;
mod report;
mod session;
mod stream;
mod telemetry;
mod updates;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Waker;
use std::time::Duration;

use engine::task::{AgentRef, TaskKey, TaskOrder};
use engine::{Instant, RunId};
use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;

pub use batch::Batch;
pub use card::Violation;
pub use clocks::Clocks;
pub use figures::ActionFigures;
pub use lease::LeaseToken;
pub use lending::Replica;
pub use matcher::{Counts, Offer, Progress, WaitingReason, WaitingTasks};
pub use report::{Answer, Emitted, Report, ReportAck, ReportSink, TaskUpdate, UpdateKind, Usage};

pub(crate) use convert::agent_to_proto;
pub use lending::link::LinkStream;
pub(crate) use poll::ReportFault;
pub use stream::SessionStream;

use crate::clock::{Clock, until};
use crate::ids::Randomness;
use crate::lease::Lease;
use crate::limits;
use crate::replicas::Peers;
pub(crate) use matcher::AgentView;
use matcher::{Effects, Matcher, Refusal};
use report::Subject;
use session::SessionId;

/// How dispatch is set up.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The clocks of the protocol.
    pub clocks: Clocks,
    /// Weights of fairness keys; 1 where none is given.
    pub weights: BTreeMap<String, u32>,
    /// While it does not hold, no task is given out, let begin or stopped.
    pub lease: Lease,
    /// By how much the lives of streams differ.
    pub randomness: Randomness,
}

/// The way to dispatch. Cheap to clone.
#[derive(Clone)]
pub struct Dispatcher(Arc<Inner>);

struct Inner {
    locked: Mutex<Locked>,
    clock: Arc<dyn Clock>,
    clocks: Clocks,
    lease: Lease,
    randomness: Randomness,
    /// How many tasks wait, to be read without the lock.
    waiting: AtomicUsize,
    /// The other replicas, once agents are shared with them.
    peers: OnceLock<Peers>,
    /// No other replica borrows, to be read without the lock.
    alone: AtomicBool,
    sink: OnceLock<Arc<dyn ReportSink>>,
    updates: updates::Updates,
    telemetry: telemetry::Telemetry,
    /// The next deadline has come nearer.
    alarm: Notify,
}

struct Locked {
    matcher: Matcher,
    /// Who is to be woken when a session has something to send.
    wakers: HashMap<SessionId, Vec<Waker>>,
    /// Until when the deadline task sleeps.
    sleeps_until: Instant,
    /// What telemetry was told last.
    told: matcher::Counts,
}

impl Dispatcher {
    /// Makes a dispatcher, which does nothing by itself before [`Dispatcher::start`]. The
    /// recorder of metrics must be installed before.
    #[must_use]
    pub fn new(config: Config, clock: Arc<dyn Clock>) -> Self {
        let matcher = Matcher::new(config.clocks.clone(), config.weights);
        let locked = Locked {
            matcher,
            wakers: HashMap::new(),
            sleeps_until: Instant(i64::MAX),
            told: Counts::default(),
        };
        Self(Arc::new(Inner {
            locked: Mutex::new(locked),
            clock,
            clocks: config.clocks,
            lease: config.lease,
            randomness: config.randomness,
            waiting: AtomicUsize::new(0),
            peers: OnceLock::new(),
            alone: AtomicBool::new(true),
            sink: OnceLock::new(),
            updates: updates::Updates::default(),
            telemetry: telemetry::Telemetry::new(),
            alarm: Notify::new(),
        }))
    }

    /// Names the sink and starts the task that watches the deadlines. Only the first call
    /// counts.
    pub fn start(&self, sink: Arc<dyn ReportSink>, shutdown: CancellationToken) {
        if self.0.sink.set(sink).is_ok() {
            tokio::spawn(self.clone().watch_deadlines(shutdown));
        }
    }

    async fn watch_deadlines(self, shutdown: CancellationToken) {
        loop {
            let next = {
                let mut locked = self.lock();
                let next = locked.matcher.next_deadline().unwrap_or(Instant(i64::MAX));
                locked.sleeps_until = next;
                next
            };
            let nap = until(&*self.0.clock, next).min(LONGEST_NAP);
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = self.0.alarm.notified() => {}
                () = tokio::time::sleep(nap) => {}
            }
            self.with(Matcher::tick);
        }
    }

    /// Takes an order; it is given out as soon as an agent has room for it. The same attempt
    /// again changes nothing.
    pub fn submit(&self, order: TaskOrder) {
        self.with(|matcher| matcher.submit(order));
    }

    /// Takes orders of adopted runs: until the grace is over, each is given only to the agent
    /// that had it and claims it.
    pub fn expect(&self, claims: Vec<TaskOrder>) {
        let grace = self.0.clocks.grace;
        self.with(|matcher| claims.into_iter().for_each(|order| matcher.expect(order, grace)));
    }

    /// Stops a task. It is reported as cancelled when its agent says so or `grace` is over, at
    /// once when it is not out, and with attempt 0 when it is not known.
    pub fn cancel(&self, key: &TaskKey, reason: &str, grace: Duration) {
        self.with(|matcher| matcher.cancel(*key, reason, grace));
    }

    /// Takes a task back and reports it as cancelled, unless an agent has it.
    pub fn withdraw(&self, key: &TaskKey) {
        self.with(|matcher| matcher.withdraw(*key));
    }

    /// The run has ended: its tasks are stopped and forgotten without reports.
    pub fn withdraw_run(&self, run: RunId) {
        self.with(|matcher| matcher.withdraw_run(run));
    }

    /// The run is another's: its tasks are forgotten here and left to their agents.
    pub fn forget_run(&self, run: RunId) {
        self.with(|matcher| matcher.forget_run(run));
    }

    /// All runs may be another's: their tasks are forgotten here and left to their agents,
    /// whose sessions stay. What is expected again in time goes on; of the rest the agents are
    /// told that they have lost it.
    pub fn forget_all(&self) {
        self.with(Matcher::forget_all);
    }

    /// Gives out no further task of the run (true), or goes on (false).
    pub fn hold_run(&self, run: RunId, hold: bool) {
        self.with(|matcher| matcher.hold_run(run, hold));
    }

    /// That a task which must run at most once begins is durable: it may begin.
    pub fn proceed(&self, key: &TaskKey) {
        self.with(|matcher| matcher.proceed(*key));
    }

    /// What happens to the running tasks of a run from now on. Who is slow misses some.
    #[must_use]
    pub fn watch(&self, run: RunId) -> broadcast::Receiver<TaskUpdate> {
        self.0.updates.watch(run)
    }

    /// How far a task is, as its agent said last.
    #[must_use]
    pub fn progress(&self, key: &TaskKey) -> Option<Progress> {
        self.with(|matcher| matcher.progress(*key))
    }

    /// Why a task waits; `None` when it does not wait here.
    #[must_use]
    pub fn why(&self, key: &TaskKey) -> Option<WaitingReason> {
        self.with(|matcher| matcher.why(*key))
    }

    /// The tasks that wait for room at an agent, at most `limit` kinds of them.
    #[must_use]
    pub fn backlog(&self, limit: usize) -> Vec<WaitingTasks> {
        self.with(|matcher| matcher.backlog(limit))
    }

    /// The tasks of a run that agents have here, with who and since when.
    #[must_use]
    pub fn held(&self, run: RunId) -> Vec<(TaskKey, AgentRef, Instant)> {
        self.with(|matcher| matcher.held(run))
    }

    /// The agents that are there, by type; with a `range` also what they have to do, and the
    /// history of this time.
    #[must_use]
    pub fn loads(&self, range: Option<Duration>) -> Vec<crate::recovery::resources::Load> {
        self.with(|matcher| matcher.loads(range))
    }

    /// Whether connected agents offer an action; without an agent's name, whether any does.
    #[must_use]
    pub fn offers(&self, agent: Option<&str>, action: &str) -> Offer {
        self.with(|matcher| matcher.offers(agent, action))
    }

    /// How many tasks and agents there are.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.with(|matcher| matcher.counts())
    }

    /// How many tasks wait for an agent.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.waiting.load(Ordering::Relaxed)
    }

    /// Whether so many tasks wait that no further work should be taken on for a while.
    #[must_use]
    pub fn is_overloaded(&self) -> bool {
        self.waiting() > limits::TASKS_WAITING_MAX
    }

    /// Asks all agents to connect elsewhere, and ends their streams when they had time to: this
    /// process stops. Tasks go on at their agents.
    pub fn leave(&self) {
        self.with(Matcher::rebalance_all);
    }

    /// Known agents by type and instance, from behind `after` on.
    pub(crate) fn agents(&self, after: Option<(&str, &str)>, limit: usize) -> Vec<AgentView> {
        self.with_place(self.with(|matcher| matcher.agents(after, limit)))
    }

    /// The agents that go by this name: `type/instance`, a type or an alias.
    pub(crate) fn find(&self, name: &str) -> Vec<AgentView> {
        self.with_place(self.with(|matcher| matcher.find(name)))
    }

    /// Lets an agent finish what it has and gives it nothing new.
    pub(crate) fn drain(&self, agent: &AgentView, reason: &str) -> Option<AgentView> {
        let drained = self.with(|matcher| {
            matcher.drain(agent.id, reason);
            matcher.find(&format!("{}/{}", agent.agent_type, agent.instance))
        });
        self.with_place(drained).pop()
    }

    /// The figures of the last `range`.
    pub(crate) fn figures(
        &self,
        agent: Option<&str>,
        range: Duration,
    ) -> Vec<contracts::v1::ActionMetrics> {
        convert::actions_to_proto(self.with(|matcher| matcher.figures(agent, range)))
    }

    /// Registers an agent that comes by a stream.
    pub(crate) fn connect(
        &self,
        register: contracts::v1::Register,
    ) -> Result<SessionStream, RegisterFault> {
        let registration = card::check(register).map_err(RegisterFault::Invalid)?;
        let life = self.0.clocks.stream_life(self.0.randomness.share());
        let session = self
            .with(|matcher| matcher.register(registration, new_token(), life, false))
            .map_err(RegisterFault::from)?;
        Ok(SessionStream::new(self.clone(), session))
    }

    /// Takes out of an agent's frame what is for other replicas; gives back the rest.
    fn pass_on(
        &self,
        session: SessionId,
        frame: contracts::v1::connect_request::Frame,
    ) -> Option<contracts::v1::connect_request::Frame> {
        if self.0.alone.load(Ordering::Relaxed) {
            return Some(frame);
        }
        self.with(|matcher| matcher.pass_on(session, frame))
    }

    /// Whether agents may be told to begin or to stop something: the runs are still ours.
    fn may_act(&self) -> bool {
        self.0.lease.holds(self.0.clock.now())
    }

    /// The other replicas, once agents are shared with them.
    pub(crate) fn peers(&self) -> Option<&Peers> {
        self.0.peers.get()
    }

    /// Of agents that are connected here it is said where that is, if there are other replicas.
    fn with_place(&self, mut views: Vec<AgentView>) -> Vec<AgentView> {
        let own = self.peers().and_then(Peers::own).map(|own| own.id);
        views.iter_mut().for_each(|view| view.replica = view.replica.or(own));
        views
    }

    pub(crate) fn clocks(&self) -> &Clocks {
        &self.0.clocks
    }

    fn answered(&self, subject: Subject, ack: Option<ReportAck>) {
        self.with(|matcher| matcher.answered(subject, ack));
    }

    /// Wakes `waker` once the session has something to send, or has ended.
    fn wake_for(locked: &mut Locked, session: SessionId, waker: &Waker) {
        let wakers = locked.wakers.entry(session).or_default();
        if !wakers.iter().any(|known| known.will_wake(waker)) {
            wakers.push(waker.clone());
        }
    }

    fn forget_wakers(&self, session: SessionId) {
        self.lock().wakers.remove(&session);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Locked> {
        self.0.locked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one way to the matcher.
    fn with<T>(&self, act: impl FnOnce(&mut Matcher) -> T) -> T {
        self.with_locked(|locked| act(&mut locked.matcher))
    }

    fn with_locked<T>(&self, act: impl FnOnce(&mut Locked) -> T) -> T {
        let mut locked = self.lock();
        locked.matcher.advance(self.0.clock.now());
        let result = act(&mut locked);
        let effects = locked.matcher.take_effects();
        let counts = locked.matcher.counts();
        let news = (counts != locked.told).then_some(counts);
        locked.told = counts;
        self.0.alone.store(locked.matcher.is_alone(), Ordering::Relaxed);
        let mut wakers = Vec::new();
        let mut last = None;
        for session in &effects.wake {
            // Frames to one session mostly come one behind another.
            if last.replace(session) != Some(session)
                && let Some(mut waiting) = locked.wakers.remove(session)
            {
                wakers.append(&mut waiting);
            }
        }
        let next = locked.matcher.next_deadline();
        let sooner = next.is_some_and(|next| next < locked.sleeps_until);
        if let (true, Some(next)) = (sooner, next) {
            locked.sleeps_until = next;
        }
        drop(locked);
        wakers.into_iter().for_each(Waker::wake);
        if sooner {
            self.0.alarm.notify_one();
        }
        self.0.waiting.store(counts.queued, Ordering::Relaxed);
        self.carry_out(effects);
        if let Some(counts) = news {
            self.0.telemetry.counts(counts);
        }
        result
    }

    fn carry_out(&self, effects: Effects) {
        for (report, subject) in effects.reports {
            let answer = Answer::new(subject, self.clone());
            if let Some(sink) = self.0.sink.get() {
                sink.report(report, answer);
            }
        }
        for (key, lease, agent) in effects.inquiries {
            let answer = Answer::new(Subject::Unknown { key, lease, agent }, self.clone());
            if let Some(sink) = self.0.sink.get() {
                sink.inquire(key, lease, answer);
            }
        }
        if let Some(sink) = self.0.sink.get() {
            effects.emitted.into_iter().for_each(|emitted| sink.emit(emitted));
        }
        self.0.updates.publish(effects.updates);
        self.0.telemetry.executed(effects.executed);
    }
}

impl std::fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatcher").finish_non_exhaustive()
    }
}

/// The deadline task looks at the clock at least so often.
const LONGEST_NAP: Duration = Duration::from_secs(60);

/// Why an agent was not registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RegisterFault {
    /// What it says of itself is wrong.
    Invalid(Vec<Violation>),
    /// So many agents are connected already.
    TooMany(usize),
}

impl From<Refusal> for RegisterFault {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::TooManyAgents(count) => Self::TooMany(count),
        }
    }
}

fn new_token() -> Arc<str> {
    crate::ids::unique().simple().to_string().into()
}
