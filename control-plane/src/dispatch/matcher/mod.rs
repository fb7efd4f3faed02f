//! Decides which agent gets which task, and keeps what is out. Pure: no async, no clock, no
//! randomness, no I/O; told what happened and when, it leaves what is to be done in `Effects`.
//!
//! ```text
//! waiting --assigned to an agent-----------------------------> out
//! waiting --claimed by the agent that had it-----------------> out
//! waiting --cancelled, too long in the queue, begun and lost-> ended
//! out     --not accepted, lost, given back-------------------> waiting
//! out     --result, time-out, cancelled, lost too often------> ended
//! ended   --the report is durable----------------------------> forgotten
//! ```

mod assign;
mod backlog;
mod borrow;
mod hear;
mod lanes;
mod lend;
mod loads;
mod sessions;
mod settle;
mod strays;
mod tasks;
mod timers;
mod view;
mod why;

#[cfg(test)]
pub(super) mod tests;

pub use backlog::WaitingTasks;
pub(super) use sessions::{PollStart, Refusal, Taken};
pub use view::Offer;
pub(crate) use view::{ActionView, AgentView};
pub use why::Waiting as WaitingReason;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use engine::task::{Delivery, TaskKey, TaskOrder, Touch};
use engine::{Instant, RunId};

use self::lanes::Lanes;
use self::lend::Lending;
use self::tasks::Tasks;
use self::timers::Timers;
use super::card::ActionSpec;
use super::clocks::Clocks;
use super::figures::Figures;
use super::lease::LeaseToken;
use super::registry::{AgentId, LaneId, Registry};
use super::report::{Emitted, Report, Subject, TaskUpdate};
use super::session::{Checkpoint, Outgoing, SessionId};
use crate::hash::{QuickMap, QuickSet};
use crate::limits;

/// A task that dispatch has.
#[derive(Debug)]
pub(super) struct Task {
    order: Arc<TaskOrder>,
    /// Makes its place in the queue its own.
    serial: u64,
    level: u8,
    lane: LaneId,
    state: State,
    losses: u32,
    /// It was out under an earlier owner and has not been given out anew.
    claimable: bool,
    /// Who lost it last; others go first.
    avoid: Option<AgentId>,
    /// Who had this attempt and lost it: each may have changed something.
    touched: Vec<Touch>,
    progress: Option<Progress>,
    checkpoint: Option<Checkpoint>,
    timer: Option<Instant>,
    /// How long its run was held while it waited.
    held_for: Duration,
}

#[derive(Debug)]
enum State {
    Waiting(Waiting),
    Out(Out),
    Ended(Box<Ended>),
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    /// Not to be given out before.
    gate: Option<Instant>,
    /// Until the gate, only the agent that had it may have it.
    reserved: bool,
    queued: bool,
    held_since: Option<Instant>,
    /// To be passed on to the agent that claims it.
    cancel: Option<(String, Duration)>,
    /// Not to be given out any more; who claims it keeps it.
    withdrawn: bool,
}

impl Waiting {
    /// Whether an agent may still come that has it.
    fn may_be_out(&self, now: Instant) -> bool {
        self.reserved && self.gate.is_some_and(|gate| gate > now)
    }

    /// Whether it is given out no more, whatever comes.
    fn is_over(&self) -> bool {
        self.cancel.is_some() || self.withdrawn
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Sent, not accepted.
    Assigned,
    /// Accepted; that it begins is not durable yet.
    AwaitsStarted,
    /// The agent may work on it.
    Running,
}

#[derive(Debug)]
struct Out {
    agent: AgentId,
    lease: LeaseToken,
    action: Arc<ActionSpec>,
    assigned_at: Instant,
    phase: Phase,
    accept_by: Instant,
    lease_until: Instant,
    timeout_at: Option<Instant>,
    cancel_until: Option<Instant>,
    /// Nobody answered that it starts; it is reported again.
    start_again_at: Option<Instant>,
    /// It tries whether an open circuit breaker may close.
    trial: bool,
}

#[derive(Debug)]
struct Ended {
    report: Report,
    origin: Option<(AgentId, LeaseToken)>,
    /// The sink has it and has not answered.
    pending: bool,
    again_at: Instant,
    /// The same attempt was ordered again meanwhile; it stands if the report does not.
    reordered: Option<TaskOrder>,
}

/// How far a task is, as its agent said last.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// From 0 to 1.
    pub fraction: f64,
    /// What it does just now; may be empty.
    pub message: String,
    /// When it said so.
    pub at: Instant,
}

/// A claim of a task that is not known yet.
#[derive(Clone, Copy, Debug)]
struct Claim {
    agent: AgentId,
    lease: LeaseToken,
    until: Instant,
}

/// What is to be done outside.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// Sessions with something to send or to end.
    pub(super) wake: Vec<SessionId>,
    pub(super) reports: Vec<(Report, Subject)>,
    pub(super) inquiries: Vec<(TaskKey, LeaseToken, AgentId)>,
    pub(super) emitted: Vec<Emitted>,
    pub(super) updates: Vec<TaskUpdate>,
    pub(super) executed: Vec<Executed>,
}

/// A task that came to its end at an agent, for the figures.
#[derive(Clone, Debug)]
pub(super) struct Executed {
    pub(super) agent_type: Arc<str>,
    pub(super) action: Arc<str>,
    pub(super) failed: bool,
    pub(super) latency: Duration,
}

/// How many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tasks that wait.
    pub queued: usize,
    /// Tasks that are out.
    pub running: usize,
    /// Agents with a session.
    pub agents: usize,
}

impl Task {
    /// Something of each of its parts.
    fn weight(&self) -> u64 {
        let of_state = match &self.state {
            State::Waiting(_) => 0,
            State::Out(out) => out.lease.counter,
            State::Ended(ended) => u64::from(ended.pending),
        };
        u64::from(self.order.attempt).wrapping_add(of_state)
    }
}

/// The matcher.
#[derive(Debug)]
pub(super) struct Matcher {
    now: Instant,
    clocks: Clocks,
    tasks: Tasks,
    registry: Registry,
    lanes: Lanes,
    timers: Timers,
    claims: QuickMap<TaskKey, Claim>,
    held: QuickSet<RunId>,
    lending: Lending,
    cards: super::card::Cards,
    recent: Recent,
    checkpoints: Checkpoints,
    figures: Figures,
    effects: Effects,
    counts: Counts,
    lease_counter: u64,
    serial: u64,
}

impl Matcher {
    pub(super) fn new(clocks: Clocks, weights: BTreeMap<String, u32>) -> Self {
        Self {
            now: Instant(i64::MIN),
            clocks,
            tasks: Tasks::default(),
            registry: Registry::default(),
            lanes: Lanes::new(weights),
            timers: Timers::default(),
            claims: QuickMap::default(),
            held: QuickSet::default(),
            lending: Lending::default(),
            cards: super::card::Cards::default(),
            recent: Recent::default(),
            checkpoints: Checkpoints::default(),
            figures: Figures::default(),
            effects: Effects::default(),
            counts: Counts::default(),
            lease_counter: 0,
            serial: 0,
        }
    }

    /// Time never runs back here, whatever the caller's clock does.
    pub(super) fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    /// Looks at tasks that are about to be dealt with one by one. They lie apart, and are in no
    /// cache when there are many: so they are waited for together.
    pub(super) fn fetch(&self, keys: impl Iterator<Item = TaskKey>) {
        let weights = keys.filter_map(|key| self.tasks.get(&key)).map(Task::weight);
        std::hint::black_box(weights.fold(0, u64::wrapping_add));
    }

    pub(super) fn take_effects(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Takes an order. One that is there already changes nothing.
    pub(super) fn submit(&mut self, order: TaskOrder) {
        let grace = order.begun.then_some(self.clocks.grace);
        self.order(order, grace);
    }

    /// Takes an order of an adopted run: until the grace is over, only the agent that had the
    /// task may have it.
    pub(super) fn expect(&mut self, order: TaskOrder, grace: Duration) {
        self.order(order, Some(grace));
    }

    fn order(&mut self, order: TaskOrder, grace: Option<Duration>) {
        let key = order.key;
        if let Some(task) = self.tasks.get_mut(&key) {
            match order.attempt.cmp(&task.order.attempt) {
                std::cmp::Ordering::Less => return,
                std::cmp::Ordering::Equal => match &mut task.state {
                    State::Out(_) => {
                        task.order = Arc::new(order);
                        return;
                    }
                    State::Ended(ended) if ended.pending => {
                        ended.reordered = Some(order);
                        return;
                    }
                    State::Waiting(_) | State::Ended(_) => {}
                },
                std::cmp::Ordering::Greater => {}
            }
            self.forget(key, "another attempt has begun");
        }
        self.insert(order, grace);
    }

    fn insert(&mut self, order: TaskOrder, grace: Option<Duration>) {
        let key = order.key;
        let lane = self.lanes.enter(&order, &mut self.registry);
        self.serial += 1;
        let grace_end = grace.map(|grace| self.now.after(grace));
        let held = self.held.contains(&key.run);
        let task = Task {
            serial: self.serial,
            level: timers::level(&order, self.now),
            lane,
            state: State::Waiting(Waiting {
                since: self.now,
                gate: order.not_before.max(grace_end).filter(|gate| *gate > self.now),
                reserved: grace.is_some(),
                queued: false,
                held_since: held.then_some(self.now),
                cancel: None,
                withdrawn: false,
            }),
            order: Arc::new(order),
            losses: 0,
            claimable: grace.is_some(),
            avoid: None,
            touched: Vec::new(),
            progress: None,
            checkpoint: self.checkpoints.take(key),
            timer: None,
            held_for: Duration::ZERO,
        };
        self.counts.queued += 1;
        self.tasks.insert(key, task);
        if let Some(claim) = self.claims.remove(&key) {
            if self.claim(key, claim.agent, claim.lease) {
                return;
            }
            let reason = "the claim is of another attempt";
            let lease = Some(claim.lease);
            self.send(claim.agent, Outgoing::LeaseLost { key, lease, reason });
        }
        if !self.assign_at_once(key, lane) {
            self.enqueue(key);
            self.match_lane(lane);
        }
        self.schedule_task(key);
    }

    /// Stops a task; it is reported as cancelled when its agent says so or the grace is over,
    /// and at once when it is not out.
    pub(super) fn cancel(&mut self, key: TaskKey, reason: &str, grace: Duration) {
        let until = self.now.after(grace);
        let Some(task) = self.tasks.get_mut(&key) else {
            self.report_unknown_cancelled(key);
            return;
        };
        match &mut task.state {
            State::Waiting(waiting) if task.order.begun || waiting.may_be_out(self.now) => {
                waiting.cancel = Some((reason.to_owned(), grace));
                self.schedule_task(key);
            }
            State::Waiting(_) => self.end_waiting(key, engine::task::TaskOutcome::Cancelled),
            State::Out(out) => {
                let first = out.cancel_until.is_none();
                out.cancel_until = Some(out.cancel_until.map_or(until, |old| old.min(until)));
                let (agent, lease) = (out.agent, out.lease);
                if first {
                    let reason = reason.to_owned();
                    self.send(agent, Outgoing::Cancel { key, lease, reason, grace });
                }
                self.schedule_task(key);
            }
            State::Ended(_) => {}
        }
    }

    /// Takes a task back and reports it as cancelled, unless an agent has it.
    pub(super) fn withdraw(&mut self, key: TaskKey) {
        let Some(task) = self.tasks.get_mut(&key) else {
            return self.report_unknown_cancelled(key);
        };
        match &mut task.state {
            State::Waiting(_) if task.order.begun => {}
            State::Waiting(waiting) if waiting.may_be_out(self.now) => waiting.withdrawn = true,
            State::Waiting(_) => self.end_waiting(key, engine::task::TaskOutcome::Cancelled),
            State::Out(_) | State::Ended(_) => {}
        }
        self.schedule_task(key);
    }

    /// The run has ended: its tasks are stopped and forgotten, without reports.
    pub(super) fn withdraw_run(&mut self, run: RunId) {
        self.held.remove(&run);
        for key in self.keys_of(run) {
            self.forget(key, "the run has ended");
            self.checkpoints.take(key);
        }
    }

    /// The run is another replica's: its tasks are forgotten and left to their agents.
    pub(super) fn forget_run(&mut self, run: RunId) {
        self.held.remove(&run);
        for key in self.keys_of(run) {
            self.leave_behind(key);
        }
    }

    /// All runs may be another replica's. Sessions stay; links end.
    pub(super) fn forget_all(&mut self) {
        self.leave_links();
        self.held.clear();
        for agent in self.registry.agents.values_mut() {
            if let Some(session) = agent.session.as_mut() {
                session.outbox.retain(|frame| !frame.acts());
            }
        }
        let keys: Vec<TaskKey> = self.tasks.keys().copied().collect();
        for key in keys {
            self.leave_behind(key);
        }
    }

    /// Forgets a task. An agent that has it, or its result, goes on with it for as long as an
    /// unknown claim stands.
    fn leave_behind(&mut self, key: TaskKey) {
        let origin = match self.tasks.get(&key).map(|task| &task.state) {
            Some(State::Out(out)) => Some((out.agent, out.lease)),
            Some(State::Ended(ended)) => ended.origin,
            Some(State::Waiting(_)) | None => None,
        };
        let out = self.remove(key);
        if let Some(out) = &out {
            self.free_slot(out, key, None);
        }
        if let Some((agent, lease)) = origin {
            self.leave_to(agent, (key, lease), out.is_some());
            self.match_agent(agent);
        }
    }

    /// Gives out no task of the run, or goes on.
    pub(super) fn hold_run(&mut self, run: RunId, hold: bool) {
        let changed = if hold { self.held.insert(run) } else { self.held.remove(&run) };
        if !changed {
            return;
        }
        for key in self.keys_of(run) {
            let Some(task) = self.tasks.get_mut(&key) else { continue };
            let State::Waiting(waiting) = &mut task.state else { continue };
            let lane = task.lane;
            if hold {
                waiting.held_since = Some(self.now);
                self.dequeue(key);
            } else {
                if let Some(since) = waiting.held_since.take() {
                    task.held_for += self.now.since(since);
                }
                self.enqueue(key);
                self.match_lane(lane);
            }
            self.schedule_task(key);
        }
    }

    /// That the task begins is durable: it may begin.
    pub(super) fn proceed(&mut self, key: TaskKey) {
        let Some(task) = self.tasks.get_mut(&key) else { return };
        if task.order.delivery != Delivery::AtMostOnce {
            return;
        }
        match &mut task.state {
            State::Out(out) if out.phase == Phase::AwaitsStarted => {
                out.phase = Phase::Running;
                out.start_again_at = None;
                out.timeout_at = task.order.timeout.map(|timeout| self.now.after(timeout));
                let (agent, lease) = (out.agent, out.lease);
                let cancelled = out.cancel_until.is_some();
                if !cancelled {
                    self.send(agent, Outgoing::Proceed { key, lease });
                }
            }
            State::Waiting(_) if task.claimable && !task.order.begun => {
                Arc::make_mut(&mut task.order).begun = true;
                self.dequeue(key);
            }
            _ => {}
        }
        self.schedule_task(key);
    }

    pub(super) fn progress(&self, key: TaskKey) -> Option<Progress> {
        self.tasks.get(&key)?.progress.clone()
    }

    fn keys_of(&self, run: RunId) -> Vec<TaskKey> {
        self.tasks.keys_of(run)
    }

    /// Puts a frame where the agent's stream finds it.
    fn send(&mut self, agent: AgentId, frame: Outgoing) {
        let Some(frame) = self.send_by_link(agent, frame) else { return };
        let Some(session) = self.registry.get_mut(agent).and_then(|a| a.session.as_mut()) else {
            return;
        };
        session.push(frame);
        let (id, clogged) = (session.id, session.is_clogged());
        self.effects.wake.push(id);
        if clogged {
            tracing::warn!(?agent, "an agent does not read what it is sent; its stream is closed");
            self.gone(id);
        }
    }
}

/// The leases under which tasks ended lately, so that a second delivery is known as such. Each has
/// its place by its number, and gives way to the next that has the same: leases that are given out
/// one behind the other lie so, and nothing is looked for.
#[derive(Debug, Default)]
struct Recent(Vec<Option<(TaskKey, LeaseToken)>>);

impl Recent {
    fn place(lease: LeaseToken) -> usize {
        usize::try_from(lease.counter).unwrap_or(usize::MAX) % limits::ENDED_TASKS_KEPT
    }

    fn insert(&mut self, key: TaskKey, lease: LeaseToken) {
        let place = Self::place(lease);
        if place >= self.0.len() {
            self.0.resize(place + 1, None);
        }
        if let Some(kept) = self.0.get_mut(place) {
            *kept = Some((key, lease));
        }
    }

    fn contains(&self, key: TaskKey, lease: LeaseToken) -> bool {
        self.0.get(Self::place(lease)) == Some(&Some((key, lease)))
    }
}

/// What failed attempts left for the next ones.
#[derive(Debug, Default)]
struct Checkpoints {
    states: QuickMap<TaskKey, (u64, Checkpoint)>,
    order: VecDeque<(u64, TaskKey)>,
    bytes: usize,
    serial: u64,
}

impl Checkpoints {
    fn keep(&mut self, key: TaskKey, state: Checkpoint) {
        self.take(key);
        self.serial += 1;
        self.bytes += prost::Message::encoded_len(&*state);
        self.states.insert(key, (self.serial, state));
        self.order.push_back((self.serial, key));
        while self.order.len() > limits::CHECKPOINTS_KEPT
            || self.bytes > limits::CHECKPOINT_BYTES_KEPT
        {
            let Some((serial, oldest)) = self.order.pop_front() else { break };
            if self.states.get(&oldest).is_some_and(|(found, _)| *found == serial) {
                self.take(oldest);
            }
        }
    }

    fn take(&mut self, key: TaskKey) -> Option<Checkpoint> {
        let (_, state) = self.states.remove(&key)?;
        self.bytes = self.bytes.saturating_sub(prost::Message::encoded_len(&*state));
        Some(state)
    }
}
