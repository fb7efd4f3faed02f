//! How tasks come back: lost and queued again, or ended and reported. A report is kept until
//! the sink has answered it, and made again when nobody did.

use engine::task::{
    DeclaredUndo, Delivery, FailureKind, Purpose, TaskKey, TaskOutcome, TaskReport, Touch,
};

use std::time::Duration;

use super::super::breaker::Verdict;
use super::super::lease::LeaseToken;
use super::super::registry::{AgentId, Stopping};
use super::super::report::{Report, ReportAck, Subject};
use super::super::session::{AgentVerdict, Outgoing, Settled};
use super::timers::failed;
use super::{Ended, Executed, Matcher, Out, Phase, State, Waiting};
use crate::limits;

/// How an agent came to lose a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    NotAccepted,
    LeaseEnded,
    StreamEnded,
    NotNamed,
    Released,
    CancelGraceEnded,
}

impl Loss {
    fn verdict(self) -> Verdict {
        match self {
            Self::NotAccepted | Self::LeaseEnded => Verdict::Bad,
            Self::StreamEnded | Self::NotNamed => Verdict::Bad,
            Self::Released | Self::CancelGraceEnded => Verdict::Nothing,
        }
    }

    fn tell(self) -> Option<&'static str> {
        match self {
            Self::NotAccepted => Some("it was not accepted in time"),
            Self::LeaseEnded => Some("its lease ended"),
            Self::CancelGraceEnded => Some("it was cancelled and did not stop in time"),
            Self::StreamEnded | Self::NotNamed | Self::Released => None,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::NotAccepted => "the agent did not accept it in time",
            Self::LeaseEnded => "the agent was not heard of until its lease ended",
            Self::StreamEnded => "the agent's connection was lost",
            Self::NotNamed => "the agent connected again without it",
            Self::Released => "the agent gave it back",
            Self::CancelGraceEnded => "the agent did not stop in time",
        }
    }
}

impl Matcher {
    /// A task that was out is not at its agent any more.
    pub(super) fn lose(&mut self, key: TaskKey, loss: Loss) {
        let Some(out) = self.take_out(key) else { return };
        self.settle_breaker(&out, loss.verdict());
        if let Some(reason) = loss.tell() {
            self.send(out.agent, Outgoing::LeaseLost { key, lease: Some(out.lease), reason });
        }
        let name = self.registry.get(out.agent).map(|agent| agent.as_ref());
        // One that gives a task back unharmed has not begun it.
        if loss != Loss::Released {
            self.remember_holder(key, &out);
        }
        self.free_slot(&out, key, None);
        let Some(task) = self.tasks.get_mut(&key) else { return };
        let begun = task.order.delivery == Delivery::AtMostOnce && out.phase != Phase::Assigned;
        let outcome = if out.cancel_until.is_some() {
            Some(TaskOutcome::Cancelled)
        } else if begun && loss == Loss::Released {
            let message = "the agent gave the task back unharmed".to_owned();
            Some(failed(FailureKind::Retryable, "released", message, true))
        } else if begun {
            Some(TaskOutcome::LostAtMostOnce)
        } else {
            task.losses += 1;
            task.avoid = Some(out.agent);
            (task.losses > limits::LOSSES_MAX).then(|| {
                let (losses, text) = (task.losses, loss.text());
                let message = format!("the task was lost {losses} times; the last time {text}");
                failed(FailureKind::Retryable, "lost", message, false)
            })
        };
        let lane = task.lane;
        match outcome {
            Some(outcome) => {
                let mut report = self.report_of(key, outcome);
                report.task.agent = name;
                report.task.took = Some(self.had(&out));
                report.lease = Some(out.lease);
                self.end(key, report, None);
            }
            None => {
                self.enqueue(key);
                self.match_lane(lane);
                self.schedule_task(key);
            }
        }
        self.match_agent(out.agent);
    }

    /// An agent says what came of a task that it has.
    pub(super) fn settle(&mut self, settled: Settled) {
        let key = settled.key;
        let Some(out) = self.take_out(key) else { return };
        let (verdict, is_failure) = match &settled.verdict {
            AgentVerdict::Failed(error) if error.kind == FailureKind::Retryable => {
                (Verdict::Bad, true)
            }
            AgentVerdict::Failed(_) => (Verdict::Good, true),
            AgentVerdict::Succeeded(_) => (Verdict::Good, false),
            AgentVerdict::Cancelled => (Verdict::Nothing, false),
        };
        self.settle_breaker(&out, verdict);
        self.count_executed(&out, is_failure);
        let name = self.registry.get(out.agent).map(|agent| agent.as_ref());
        let unharmed = match &settled.verdict {
            AgentVerdict::Failed(error) => error.no_effect,
            AgentVerdict::Succeeded(_) => true,
            AgentVerdict::Cancelled => false,
        };
        if !unharmed {
            self.remember_holder(key, &out);
        }
        self.free_slot(&out, key, None);
        let outcome = match settled.verdict {
            AgentVerdict::Succeeded(output) => {
                TaskOutcome::Succeeded { output, undo: out.action.undo.clone() }
            }
            AgentVerdict::Failed(error) => TaskOutcome::Failed(error),
            AgentVerdict::Cancelled if out.cancel_until.is_none() => {
                let message = "the agent cancelled the task by itself".to_owned();
                failed(FailureKind::Retryable, "cancelled", message, false)
            }
            AgentVerdict::Cancelled => TaskOutcome::Cancelled,
        };
        let mut report = self.report_of(key, outcome);
        report.task.agent = name;
        report.task.took = Some(self.had(&out));
        report.lease = Some(out.lease);
        report.confidence = settled.confidence;
        report.usage = settled.usage;
        self.end(key, report, Some((out.agent, out.lease)));
        self.match_agent(out.agent);
    }

    /// A task that is out comes to its end without the agent's word, which may need some time
    /// to stop.
    pub(super) fn end_out(&mut self, key: TaskKey, outcome: TaskOutcome, stop: Option<Duration>) {
        let Some(out) = self.take_out(key) else { return };
        self.settle_breaker(&out, Verdict::Bad);
        self.count_executed(&out, true);
        let name = self.registry.get(out.agent).map(|agent| agent.as_ref());
        self.remember_holder(key, &out);
        self.free_slot(&out, key, stop);
        let mut report = self.report_of(key, outcome);
        report.task.agent = name;
        report.task.took = Some(self.had(&out));
        report.lease = Some(out.lease);
        self.end(key, report, None);
        self.match_agent(out.agent);
    }

    /// A task that waits comes to its end.
    pub(super) fn end_waiting(&mut self, key: TaskKey, outcome: TaskOutcome) {
        self.dequeue(key);
        let report = self.report_of(key, outcome);
        self.end(key, report, None);
    }

    fn report_of(&self, key: TaskKey, outcome: TaskOutcome) -> Report {
        let task = self.tasks.get(&key);
        let attempt = task.map_or(0, |task| task.order.attempt);
        let mut touched = task.map_or_else(Vec::new, |task| task.touched.clone());
        // It was out under an earlier owner, perhaps, and nobody knows at whom.
        let is_unknown = task.is_none_or(|task| task.claimable);
        if is_unknown && key.purpose == Purpose::Do && !matches!(outcome, TaskOutcome::Started) {
            touched.push(Touch::unknown());
        }
        let task = TaskReport { key, attempt, agent: None, outcome, touched, took: None };
        Report { task, lease: None, confidence: None, usage: None }
    }

    /// For how long an agent had a task, in microseconds.
    fn had(&self, out: &Out) -> u64 {
        u64::try_from(self.now.since(out.assigned_at).as_micros()).unwrap_or(u64::MAX)
    }

    /// Remembers that the agent which had a task may have changed something.
    fn remember_holder(&mut self, key: TaskKey, out: &Out) {
        let agent = self.registry.get(out.agent).map(|agent| agent.as_ref());
        let Some(task) = self.tasks.get_mut(&key) else { return };
        if key.purpose == Purpose::Undo || out.action.undo == DeclaredUndo::Nothing {
            return;
        }
        let undo = Some(out.action.undo.clone());
        let name = |touch: &Touch| touch.agent.as_ref().map(|agent| agent.agent_type.clone());
        let touch = Touch { agent, undo };
        task.touched.retain(|known| name(known) != name(&touch));
        task.touched.push(touch);
    }

    fn end(&mut self, key: TaskKey, report: Report, origin: Option<(AgentId, LeaseToken)>) {
        let now = self.now;
        let Some(task) = self.tasks.get_mut(&key) else { return };
        debug_assert!(matches!(task.state, State::Waiting(_)), "taken back before it ends");
        let subject = Subject::Ended { key, attempt: task.order.attempt, origin };
        self.effects.reports.push((report.clone(), subject));
        let ended = Ended { report, origin, pending: true, again_at: now, reordered: None };
        task.state = State::Ended(Box::new(ended));
        let timer = task.timer.take();
        self.counts.queued -= 1;
        self.unschedule_task(key, timer);
        if let Some(agent) = origin.and_then(|(agent, _)| self.registry.get_mut(agent)) {
            agent.unacknowledged += 1;
        }
    }

    /// A result of an agent is settled: it has room for another one.
    fn settled_of(&mut self, id: AgentId) {
        let Some(agent) = self.registry.get_mut(id) else { return };
        let was_full = agent.unacknowledged >= limits::RESULTS_UNACKNOWLEDGED_MAX;
        agent.unacknowledged = agent.unacknowledged.saturating_sub(1);
        if was_full {
            self.match_agent(id);
        }
    }

    /// What is asked to be cancelled is not here: it has ended, or never came.
    pub(super) fn report_unknown_cancelled(&mut self, key: TaskKey) {
        let report = self.report_of(key, TaskOutcome::Cancelled);
        let subject = Subject::Ended { key, attempt: 0, origin: None };
        self.effects.reports.push((report, subject));
    }

    pub(super) fn report_again(&mut self, key: TaskKey) {
        let Some(task) = self.tasks.get_mut(&key) else { return };
        let State::Ended(ended) = &mut task.state else { return };
        if ended.pending {
            return;
        }
        ended.pending = true;
        let attempt = task.order.attempt;
        let subject = Subject::Ended { key, attempt, origin: ended.origin };
        self.effects.reports.push((ended.report.clone(), subject));
    }

    /// The sink has answered a report; `None`: it could not.
    pub(crate) fn answered(&mut self, subject: Subject, ack: Option<ReportAck>) {
        match subject {
            Subject::Started { key, lease } => self.started_answered(key, lease, ack),
            Subject::Ended { key, attempt, origin } => {
                self.ended_answered(key, attempt, ack);
                if let (Some((agent, lease)), Some(ack)) = (origin, ack) {
                    self.acknowledge(key, lease, agent, ack);
                }
            }
            Subject::Unknown { key, lease, agent } => {
                let duplicate = |ack| match ack {
                    ReportAck::LeaseLost => ReportAck::LeaseLost,
                    ReportAck::Durable | ReportAck::Duplicate => ReportAck::Duplicate,
                };
                if let Some(ack) = ack.map(duplicate) {
                    self.acknowledge(key, lease, agent, ack);
                }
            }
        }
    }

    fn acknowledge(&mut self, key: TaskKey, lease: LeaseToken, agent: AgentId, ack: ReportAck) {
        let frame = match ack {
            ReportAck::LeaseLost => {
                let reason = "its result came too late";
                Outgoing::LeaseLost { key, lease: Some(lease), reason }
            }
            ReportAck::Durable | ReportAck::Duplicate => {
                self.recent.insert(key, lease);
                Outgoing::Ack { key, lease, duplicate: ack == ReportAck::Duplicate }
            }
        };
        self.send(agent, frame);
    }

    fn started_answered(&mut self, key: TaskKey, lease: LeaseToken, ack: Option<ReportAck>) {
        let agent = self.tasks.get(&key).and_then(|task| match &task.state {
            State::Out(out) if out.lease == lease => Some(out.agent),
            _ => None,
        });
        let Some(agent) = agent else { return };
        match ack {
            Some(ReportAck::Durable | ReportAck::Duplicate) => self.proceed(key),
            Some(ReportAck::LeaseLost) => {
                let reason = "the task is not to be done any more";
                self.send(agent, Outgoing::LeaseLost { key, lease: Some(lease), reason });
                if let Some(out) = self.remove(key) {
                    self.settle_breaker(&out, Verdict::Nothing);
                    self.free_slot(&out, key, None);
                }
                self.match_agent(agent);
            }
            None => self.start_again_later(key),
        }
    }

    fn start_again_later(&mut self, key: TaskKey) {
        let again_at = self.now.after(self.clocks.report_again);
        let Some(task) = self.tasks.get_mut(&key) else { return };
        if let State::Out(out) = &mut task.state
            && out.phase == Phase::AwaitsStarted
        {
            out.start_again_at = Some(again_at);
        }
        self.schedule_task(key);
    }

    fn ended_answered(&mut self, key: TaskKey, attempt: u32, ack: Option<ReportAck>) {
        let again_at = self.now.after(self.clocks.report_again);
        let Some(task) = self.tasks.get_mut(&key) else { return };
        let State::Ended(ended) = &mut task.state else { return };
        if task.order.attempt != attempt {
            return;
        }
        let durable = matches!(ack, Some(ReportAck::Durable | ReportAck::Duplicate));
        let reordered = ended.reordered.take().filter(|_| !durable);
        if let Some(order) = reordered {
            self.remove(key);
            self.insert(order, Some(self.clocks.grace));
        } else if ack.is_some() {
            self.remove(key);
        } else {
            ended.pending = false;
            ended.again_at = again_at;
            self.schedule_task(key);
        }
    }

    /// Takes a task out of its agent's hands; it waits, outside of the queue.
    fn take_out(&mut self, key: TaskKey) -> Option<Out> {
        let held = self.held.contains(&key.run);
        let task = self.tasks.get_mut(&key)?;
        if !matches!(task.state, State::Out(_)) {
            return None;
        }
        let waiting = State::Waiting(Waiting {
            since: self.now,
            gate: None,
            reserved: false,
            queued: false,
            held_since: held.then_some(self.now),
            cancel: None,
            withdrawn: false,
        });
        let State::Out(out) = std::mem::replace(&mut task.state, waiting) else { return None };
        self.counts.running -= 1;
        self.counts.queued += 1;
        Some(out)
    }

    /// The agent has room again, at once or after the time it may need to stop.
    pub(super) fn free_slot(&mut self, out: &Out, key: TaskKey, stop: Option<Duration>) {
        let until = stop.map(|stop| self.now.after(stop));
        let Some(agent) = self.registry.get_mut(out.agent) else { return };
        agent.tasks.remove(&key);
        match until.filter(|_| agent.session.is_some()) {
            Some(until) => {
                let action = out.action.name.clone();
                agent.stopping.insert(out.lease, Stopping { action, until });
            }
            None => agent.count_back(&out.action.name),
        }
        if agent.is_gone() {
            self.remove_agent(out.agent);
        } else {
            self.schedule_agent(out.agent);
        }
    }

    fn settle_breaker(&mut self, out: &Out, verdict: Verdict) {
        let now = self.now;
        let Some(agent) = self.registry.get_mut(out.agent) else { return };
        let name = &out.action.name;
        if !agent.breakers.contains_key(name) {
            agent.breakers.insert(name.clone(), Default::default());
        }
        if let Some(breaker) = agent.breakers.get_mut(name) {
            breaker.settle(verdict, out.trial, now);
        }
        self.schedule_agent(out.agent);
    }

    fn count_executed(&mut self, out: &Out, failed: bool) {
        let Some(agent) = self.registry.get_mut(out.agent) else { return };
        if failed {
            agent.failed += 1;
        } else {
            agent.succeeded += 1;
        }
        let latency = self.now.since(out.assigned_at);
        let agent_type = agent.registration.agent_type.clone();
        let action = out.action.name.clone();
        self.figures.record(&agent_type, &action, failed, latency, self.now);
        self.effects.executed.push(Executed { agent_type, action, failed, latency });
    }

    /// Forgets a task without a report; an agent that has it is told to stop.
    pub(super) fn forget(&mut self, key: TaskKey, reason: &str) {
        let Some(out) = self.remove(key) else { return };
        let grace = self.clocks.stop_grace;
        let (agent, lease, reason) = (out.agent, out.lease, reason.to_owned());
        self.settle_breaker(&out, Verdict::Nothing);
        self.send(agent, Outgoing::Cancel { key, lease, reason, grace });
        self.free_slot(&out, key, Some(grace));
        self.match_agent(agent);
    }

    /// Takes a task out of everything; says where it was out, whose slot is not free yet.
    pub(super) fn remove(&mut self, key: TaskKey) -> Option<Out> {
        self.dequeue(key);
        let task = self.tasks.remove(&key)?;
        self.unschedule_task(key, task.timer);
        self.lanes.leave(task.lane);
        match task.state {
            State::Waiting(_) => {
                self.counts.queued -= 1;
                None
            }
            State::Out(out) => {
                self.counts.running -= 1;
                Some(out)
            }
            State::Ended(ended) => {
                if let Some(state) = task.checkpoint
                    && matches!(ended.report.task.outcome, TaskOutcome::Failed(_))
                {
                    self.checkpoints.keep(key, state);
                }
                if let Some((agent, _)) = ended.origin {
                    self.settled_of(agent);
                }
                None
            }
        }
    }
}
