//! What agents say about tasks. Every frame about a task carries its lease; with another lease
//! than the one in force it changes nothing and is answered `LeaseLost`.

use engine::task::{Delivery, TaskKey, TaskOutcome, TaskReport};

use super::super::lease::LeaseToken;
use super::super::registry::{AgentId, Credits};
use super::super::report::{Emitted, Report, Subject, TaskUpdate, UpdateKind};
use super::super::session::{Incoming, Outgoing, SessionId, Settled};
use super::settle::Loss;
use super::{Matcher, Phase, Progress, State};

/// How a task stands to the lease that a frame names.
enum Standing {
    /// The agent has it.
    Held,
    /// Its result is on the way to the sink.
    Ended,
    /// Its result was acknowledged before.
    Acknowledged,
    /// It is not the agent's any more.
    Lost,
    /// There is no such task here.
    Unknown,
}

impl Matcher {
    /// An agent has sent frames; false when the session is not its agent's any more.
    pub(crate) fn hear(&mut self, session: SessionId, frames: Vec<Incoming>) -> bool {
        let Some(id) = self.registry.of_session(session) else { return false };
        self.fetch(frames.iter().filter_map(Incoming::result_of));
        for frame in frames {
            let Some(agent) = self.registry.get_mut(id) else { return false };
            agent.last_heard = self.now;
            match agent.session.as_mut() {
                Some(current) if current.id == session => current.unanswered_since = None,
                _ => return false,
            }
            self.hear_one(id, frame);
        }
        self.schedule_agent(id);
        true
    }

    pub(super) fn hear_one(&mut self, id: AgentId, frame: Incoming) {
        match frame {
            Incoming::Credits { total, per_action } => {
                if let Some(agent) = self.registry.get_mut(id) {
                    let per_action = per_action.into_iter().collect();
                    agent.credits = Credits { total, per_action };
                }
                self.fit_loans(id);
                self.match_agent(id);
            }
            Incoming::Accepted(key, lease) | Incoming::Extend(key, lease) => {
                self.touch(id, key, lease);
            }
            Incoming::Progress { key, lease, fraction, message } => {
                if self.touch(id, key, lease) {
                    let progress = Progress { fraction, message: message.clone(), at: self.now };
                    if let Some(task) = self.tasks.get_mut(&key) {
                        task.progress = Some(progress);
                    }
                    self.update(key, UpdateKind::Progress { fraction, message });
                }
            }
            Incoming::Log { key, lease, level, message } => {
                if self.touch(id, key, lease) {
                    self.update(key, UpdateKind::Log { level, message });
                }
            }
            Incoming::Chunk { key, lease, chunk } => {
                if self.touch(id, key, lease) {
                    self.update(key, UpdateKind::Chunk(chunk));
                }
            }
            Incoming::Checkpoint { key, lease, state } => {
                if self.touch(id, key, lease)
                    && let Some(task) = self.tasks.get_mut(&key)
                {
                    task.checkpoint = Some(state);
                }
            }
            Incoming::Result(settled) => self.hear_result(id, *settled),
            Incoming::Release { key, lease, reason } => self.hear_release(id, key, lease, &reason),
            Incoming::Status(tasks) => {
                for (key, lease) in tasks {
                    self.touch(id, key, lease);
                }
            }
            Incoming::DrainRequested { reason } => self.drain(id, &reason),
            Incoming::Ping { nonce } => self.send(id, Outgoing::Pong { nonce }),
            Incoming::Pong => {}
            Incoming::Emit { task: Some((key, lease)), .. }
                if matches!(self.standing(id, key, lease), Standing::Lost) =>
            {
                self.tell_lost(id, key, Some(lease));
            }
            Incoming::Emit { name, payload, run, task } => {
                let task = task.map(|(key, _)| key);
                if let Some(agent) = self.registry.get(id).map(|agent| agent.as_ref()) {
                    let emitted = Emitted { name, payload, run, agent, task };
                    self.effects.emitted.push(emitted);
                }
            }
            Incoming::Foreign(key) => self.tell_lost(id, key, None),
            Incoming::Wrong { message } => self.send(id, Outgoing::Fault { message }),
        }
    }

    fn standing(&mut self, id: AgentId, key: TaskKey, lease: LeaseToken) -> Standing {
        let Some(task) = self.tasks.get(&key) else {
            return if self.recent.contains(key, lease) {
                Standing::Acknowledged
            } else {
                Standing::Unknown
            };
        };
        match &task.state {
            State::Out(out) if out.lease == lease && out.agent == id => return Standing::Held,
            State::Ended(ended) if ended.origin.is_some_and(|(_, own)| own == lease) => {
                return Standing::Ended;
            }
            _ => {}
        }
        if self.claim(key, id, lease) {
            Standing::Held
        } else if self.recent.contains(key, lease) {
            Standing::Acknowledged
        } else {
            Standing::Lost
        }
    }

    /// A frame about a task that the agent should have: extends the lease, and counts as
    /// acceptance. False when the agent does not have the task.
    fn touch(&mut self, id: AgentId, key: TaskKey, lease: LeaseToken) -> bool {
        match self.standing(id, key, lease) {
            Standing::Held => {
                self.accept(key);
                let until = self.now.after(self.clocks.lease);
                if let Some(task) = self.tasks.get_mut(&key)
                    && let State::Out(out) = &mut task.state
                {
                    out.lease_until = until;
                }
                true
            }
            // The agent may send these for as long as its result is not acknowledged.
            Standing::Ended | Standing::Acknowledged => false,
            Standing::Unknown if self.claims.contains_key(&key) => false,
            Standing::Lost | Standing::Unknown => {
                if !self.is_stopping(id, lease) {
                    self.tell_lost(id, key, Some(lease));
                }
                false
            }
        }
    }

    /// The agent has taken the task.
    pub(super) fn accept(&mut self, key: TaskKey) {
        let Some(task) = self.tasks.get_mut(&key) else { return };
        let State::Out(out) = &mut task.state else { return };
        if out.phase != Phase::Assigned {
            return;
        }
        if task.order.delivery == Delivery::AtMostOnce {
            out.phase = Phase::AwaitsStarted;
            self.report_started(key);
        } else {
            out.phase = Phase::Running;
            out.timeout_at = task.order.timeout.map(|timeout| self.now.after(timeout));
        }
        self.schedule_task(key);
        self.update(key, UpdateKind::Accepted);
    }

    /// Asks the sink to make it durable that a task starts which must run at most once.
    pub(super) fn report_started(&mut self, key: TaskKey) {
        let Some(task) = self.tasks.get_mut(&key) else { return };
        let State::Out(out) = &mut task.state else { return };
        out.start_again_at = None;
        let (lease, attempt, agent) = (out.lease, task.order.attempt, out.agent);
        let agent = self.registry.get(agent).map(|agent| agent.as_ref());
        let outcome = TaskOutcome::Started;
        let task = TaskReport { key, attempt, agent, outcome, touched: Vec::new(), took: None };
        let report = Report { task, lease: Some(lease), confidence: None, usage: None };
        self.effects.reports.push((report, Subject::Started { key, lease }));
    }

    fn hear_result(&mut self, id: AgentId, settled: Settled) {
        let (key, lease) = (settled.key, settled.lease);
        match self.standing(id, key, lease) {
            Standing::Held => self.settle(settled),
            Standing::Ended => self.report_again(key),
            Standing::Acknowledged => self.send(id, Outgoing::Ack { key, lease, duplicate: true }),
            Standing::Unknown => {
                let was_stopping = self.stopped(id, lease);
                if was_stopping {
                    self.tell_lost(id, key, Some(lease));
                } else {
                    self.effects.inquiries.push((key, lease, id));
                }
            }
            Standing::Lost => {
                self.stopped(id, lease);
                self.tell_lost(id, key, Some(lease));
            }
        }
    }

    fn hear_release(&mut self, id: AgentId, key: TaskKey, lease: LeaseToken, reason: &str) {
        match self.standing(id, key, lease) {
            Standing::Held => {
                tracing::debug!(%key, reason, "an agent gave a task back");
                self.lose(key, Loss::Released);
            }
            Standing::Lost | Standing::Unknown => {
                self.stopped(id, lease);
            }
            Standing::Ended | Standing::Acknowledged => {}
        }
    }

    fn is_stopping(&self, id: AgentId, lease: LeaseToken) -> bool {
        self.registry.get(id).is_some_and(|agent| agent.stopping.contains_key(&lease))
    }

    /// The agent has stopped what was taken from it: it has room again.
    fn stopped(&mut self, id: AgentId, lease: LeaseToken) -> bool {
        let Some(agent) = self.registry.get_mut(id) else { return false };
        let Some(stopping) = agent.stopping.remove(&lease) else { return false };
        agent.count_back(&stopping.action);
        self.match_agent(id);
        true
    }

    fn tell_lost(&mut self, id: AgentId, key: TaskKey, lease: Option<LeaseToken>) {
        let reason = "the task is another's, or has ended";
        self.send(id, Outgoing::LeaseLost { key, lease, reason });
    }

    fn update(&mut self, key: TaskKey, what: UpdateKind) {
        let Some(task) = self.tasks.get(&key) else { return };
        let State::Out(out) = &task.state else { return };
        let Some(agent) = self.registry.get(out.agent) else { return };
        self.effects.updates.push(TaskUpdate {
            key,
            path: task.order.path.clone(),
            attempt: task.order.attempt,
            agent: agent.as_ref(),
            at: self.now,
            what,
        });
    }
}
