//! What happens when time passes: one ordered set of deadlines for all tasks and agents. A
//! deadline that moves away is left where it is and found to be early when it comes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use engine::Instant;
use engine::definition::show_duration;
use engine::task::{FailureKind, TaskError, TaskKey, TaskOrder, TaskOutcome};

use super::super::registry::AgentId;
use super::super::session::Outgoing;
use super::settle::Loss;
use super::{Matcher, Phase, State, Task};
use crate::limits;

/// How many deadlines are handled before the lock is let go.
const DUE_AT_ONCE: usize = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Task(TaskKey),
    Agent(AgentId),
    Claim(TaskKey),
    /// What is lent, and the tasks of others.
    Lending,
    /// What waits is to be told to lenders.
    Wants,
}

#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<(Instant, Timer)>);

/// The level of priority that an order has reached by waiting.
pub(super) fn level(order: &TaskOrder, now: Instant) -> u8 {
    let steps = now.since(order.queued_at).as_secs() / limits::AGEING_STEP.as_secs();
    let steps = u8::try_from(steps).unwrap_or(u8::MAX);
    order.priority.saturating_add(steps).min(limits::PRIORITY_MAX)
}

/// When an order reaches the next level; `None` at the highest.
fn next_level_at(order: &TaskOrder, level: u8) -> Option<Instant> {
    if level >= limits::PRIORITY_MAX {
        return None;
    }
    let steps = u32::from(level.saturating_sub(order.priority)) + 1;
    Some(order.queued_at.after(limits::AGEING_STEP * steps))
}

impl Task {
    /// When it has waited too long for an agent.
    fn queue_timeout_at(&self, since: Instant) -> Option<Instant> {
        let ready = self.order.queued_at.max(self.order.not_before.unwrap_or(Instant(i64::MIN)));
        let from = if self.losses > 0 { ready.max(since) } else { ready };
        let timeout = self.order.queue_timeout?;
        Some(from.after(timeout.saturating_add(self.held_for)))
    }

    fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting(waiting) if self.order.begun || waiting.is_over() => waiting.gate,
            State::Waiting(waiting) if waiting.held_since.is_some() => None,
            State::Waiting(waiting) => {
                let aged = waiting.queued.then(|| next_level_at(&self.order, self.level));
                let timeout = self.queue_timeout_at(waiting.since);
                [waiting.gate, aged.flatten(), timeout].into_iter().flatten().min()
            }
            State::Out(out) => {
                let accept = (out.phase == Phase::Assigned).then_some(out.accept_by);
                let ends = [Some(out.lease_until), out.timeout_at, out.cancel_until];
                ends.into_iter().chain([accept, out.start_again_at]).flatten().min()
            }
            State::Ended(ended) if ended.pending => None,
            State::Ended(ended) => Some(ended.again_at),
        }
    }
}

impl Matcher {
    /// When `tick` is to be called next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.timers.0.first().map(|(at, _)| *at)
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self) {
        for _ in 0..DUE_AT_ONCE {
            let Some((at, timer)) = self.timers.0.first().copied() else { return };
            if at > self.now {
                return;
            }
            self.timers.0.pop_first();
            match timer {
                Timer::Task(key) => self.task_due(key),
                Timer::Agent(id) => self.agent_due(id),
                Timer::Claim(key) => self.claim_due(key),
                Timer::Lending => self.lending_due(),
                Timer::Wants => self.wants_due(),
            }
        }
    }

    /// Sees to it that the task is looked at in time.
    pub(super) fn schedule_task(&mut self, key: TaskKey) {
        let Some(task) = self.tasks.get_mut(&key) else { return };
        let Some(deadline) = task.deadline() else { return };
        if task.timer.is_some_and(|timer| timer <= deadline) {
            return;
        }
        if let Some(timer) = task.timer.replace(deadline) {
            self.timers.0.remove(&(timer, Timer::Task(key)));
        }
        self.timers.0.insert((deadline, Timer::Task(key)));
    }

    pub(super) fn unschedule_task(&mut self, key: TaskKey, timer: Option<Instant>) {
        if let Some(timer) = timer {
            self.timers.0.remove(&(timer, Timer::Task(key)));
        }
    }

    pub(super) fn schedule_claim(&mut self, key: TaskKey, at: Instant) {
        self.timers.0.insert((at, Timer::Claim(key)));
    }

    /// Sees to it that what is lent is looked at, as long as something is.
    pub(super) fn schedule_lending(&mut self) {
        let idle = self.lending.lent.is_empty() && self.lending.strays.is_empty();
        if idle || self.lending.ticks_at.is_some() {
            return;
        }
        let at = self.now.after(limits::LENDING_EVERY);
        self.lending.ticks_at = Some(at);
        self.timers.0.insert((at, Timer::Lending));
    }

    fn lending_due(&mut self) {
        self.lending.ticks_at = None;
        self.tick_strays();
        self.tick_loans();
        self.schedule_lending();
    }

    pub(super) fn schedule_wants(&mut self, at: Instant) {
        self.timers.0.insert((at, Timer::Wants));
    }

    pub(super) fn schedule_agent(&mut self, id: AgentId) {
        let Some(agent) = self.registry.get(id) else { return };
        let Some(deadline) = agent.deadline(&self.clocks) else { return };
        if agent.timer.is_some_and(|timer| timer <= deadline) {
            return;
        }
        let Some(agent) = self.registry.get_mut(id) else { return };
        if let Some(timer) = agent.timer.replace(deadline) {
            self.timers.0.remove(&(timer, Timer::Agent(id)));
        }
        self.timers.0.insert((deadline, Timer::Agent(id)));
    }

    pub(super) fn unschedule_agent(&mut self, id: AgentId, timer: Option<Instant>) {
        if let Some(timer) = timer {
            self.timers.0.remove(&(timer, Timer::Agent(id)));
        }
    }

    fn claim_due(&mut self, key: TaskKey) {
        let is_due = |at: Instant| at <= self.now;
        if self.claims.get(&key).is_some_and(|claim| is_due(claim.until))
            && let Some(claim) = self.claims.remove(&key)
            && self.registry.get(claim.agent).is_some_and(|agent| agent.lender.is_none())
        {
            self.drop_stray((key, claim.lease));
            let reason = "nobody knows this task";
            let lease = Some(claim.lease);
            self.send(claim.agent, Outgoing::LeaseLost { key, lease, reason });
            self.match_agent(claim.agent);
        }
    }

    fn task_due(&mut self, key: TaskKey) {
        let Some(task) = self.tasks.get_mut(&key) else { return };
        task.timer = None;
        match &task.state {
            State::Waiting(_) => self.waiting_due(key),
            State::Out(_) => self.out_due(key),
            State::Ended(ended) => {
                if !ended.pending && ended.again_at <= self.now {
                    self.report_again(key);
                }
            }
        }
        self.schedule_task(key);
    }

    fn waiting_due(&mut self, key: TaskKey) {
        let Some(task) = self.tasks.get(&key) else { return };
        let State::Waiting(waiting) = &task.state else { return };
        let (lane, is_queued) = (task.lane, waiting.queued);
        let gate_is_open = waiting.gate.is_none_or(|gate| gate <= self.now);
        if task.order.begun {
            if gate_is_open {
                self.end_waiting(key, TaskOutcome::LostAtMostOnce);
            }
            return;
        }
        if waiting.is_over() {
            if gate_is_open {
                self.end_waiting(key, TaskOutcome::Cancelled);
            }
            return;
        }
        let timeout_at = task.queue_timeout_at(waiting.since);
        if waiting.held_since.is_none() && timeout_at.is_some_and(|at| at <= self.now) {
            let timeout = task.order.queue_timeout.unwrap_or_default();
            let cause = self.why(key).map_or_else(String::new, |why| format!(": {}", why.cause));
            let message =
                format!("no agent took the task within {}{cause}", show_duration(timeout));
            self.end_waiting(key, failed(FailureKind::Retryable, "queue_timeout", message, true));
        } else if is_queued {
            self.promote(key);
        } else if gate_is_open {
            self.enqueue(key);
            self.match_lane(lane);
        }
    }

    fn out_due(&mut self, key: TaskKey) {
        let Some(task) = self.tasks.get(&key) else { return };
        let State::Out(out) = &task.state else { return };
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= self.now);
        if is_due(out.cancel_until) {
            self.lose(key, Loss::CancelGraceEnded);
        } else if out.phase == Phase::Assigned && is_due(Some(out.accept_by)) {
            self.lose(key, Loss::NotAccepted);
        } else if is_due(out.timeout_at) {
            self.time_out(key);
        } else if is_due(Some(out.lease_until)) {
            self.lose(key, Loss::LeaseEnded);
        } else if is_due(out.start_again_at) {
            self.report_started(key);
        }
    }

    fn time_out(&mut self, key: TaskKey) {
        let Some(task) = self.tasks.get(&key) else { return };
        let State::Out(out) = &task.state else { return };
        let (agent, lease, grace) = (out.agent, out.lease, self.clocks.stop_grace);
        let timeout = task.order.timeout.unwrap_or_default();
        let message = format!("the attempt took longer than {}", show_duration(timeout));
        let reason = message.clone();
        self.send(agent, Outgoing::Cancel { key, lease, reason, grace });
        let outcome = failed(FailureKind::Retryable, "timeout", message, false);
        self.end_out(key, outcome, Some(grace));
    }

    fn agent_due(&mut self, id: AgentId) {
        let now = self.now;
        let Some(agent) = self.registry.get_mut(id) else { return };
        agent.timer = None;
        let (over, on): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut agent.stopping).into_iter().partition(|(_, it)| it.until <= now);
        agent.stopping = on;
        for stopped in over.into_values() {
            agent.count_back(&stopped.action);
        }
        for breaker in agent.breakers.values_mut() {
            breaker.turn(now);
        }
        self.session_due(id);
        self.match_agent(id);
        self.schedule_agent(id);
    }

    fn session_due(&mut self, id: AgentId) {
        let (now, clocks) = (self.now, &self.clocks);
        let Some(agent) = self.registry.get_mut(id) else { return };
        let interval = agent.ping_interval(clocks);
        let last_heard = agent.last_heard;
        let Some(session) = agent.session.as_mut() else { return };
        if session.lent {
            // Its lender sees whether it lives.
            return;
        }
        if session.polls {
            let waits = session.poll.as_ref().is_some_and(|poll| poll.room > 0);
            let session = session.id;
            if waits {
                // Who waits for an answer is there.
                agent.last_heard = now;
            } else if last_heard.after(clocks.lease) <= now {
                self.gone(session);
            }
            return;
        }
        let is_silent =
            session.unanswered_since.is_some_and(|since| since.after(clocks.ping_timeout) <= now);
        let life_over = session.rebalance_at <= now;
        let moved = session.rebalance_at.after(clocks.rebalance_within) <= now;
        if is_silent || (session.rebalanced && moved) {
            let session = session.id;
            self.gone(session);
            return;
        }
        let rebalance = life_over && !session.rebalanced;
        session.rebalanced |= rebalance;
        let ping = session.last_ping.after(interval) <= now;
        let mut nonce = session.nonce;
        if ping {
            session.last_ping = now;
            session.unanswered_since = session.unanswered_since.or(Some(now));
            session.nonce += 1;
            nonce = session.nonce;
        }
        let within = clocks.rebalance_within;
        if ping {
            self.send(id, Outgoing::Ping { nonce });
        }
        if rebalance {
            self.send(id, Outgoing::Rebalance { within });
            self.opened_or_closed(id);
            self.match_lanes_preferring(id);
        }
    }
}

impl super::super::registry::Agent {
    fn ping_interval(&self, clocks: &super::super::clocks::Clocks) -> Duration {
        let is_busy = self.out() > 0 || !self.strays.is_empty();
        if is_busy { clocks.ping_busy } else { clocks.ping_idle }
    }

    fn deadline(&self, clocks: &super::super::clocks::Clocks) -> Option<Instant> {
        let stopping = self.stopping.values().map(|it| it.until).min();
        let breaker = self.breakers.values().filter_map(|breaker| breaker.reopens_at()).min();
        let session = self.session.as_ref().filter(|session| !session.lent);
        let session = session.map(|session| {
            if session.polls {
                return self.last_heard.after(clocks.lease);
            }
            let ping = session.last_ping.after(self.ping_interval(clocks));
            let silence = session.unanswered_since.map(|since| since.after(clocks.ping_timeout));
            let life = if session.rebalanced {
                session.rebalance_at.after(clocks.rebalance_within)
            } else {
                session.rebalance_at
            };
            ping.min(life).min(silence.unwrap_or(life))
        });
        [stopping, breaker, session].into_iter().flatten().min()
    }
}

/// A failure that the orchestrator itself states.
pub(super) fn failed(
    kind: FailureKind,
    code: &str,
    message: String,
    no_effect: bool,
) -> TaskOutcome {
    let code = code.to_owned();
    TaskOutcome::Failed(TaskError { kind, code, message, retry_after_ms: None, no_effect })
}
