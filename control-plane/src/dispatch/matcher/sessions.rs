//! Agents come, come back, poll, drain and go.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use engine::task::{Delivery, TaskKey};

use super::super::card::Registration;
use super::super::lease::LeaseToken;
use super::super::registry::{Agent, AgentId};
use super::super::session::{Assignment, Outgoing, Poll, Session, SessionId};
use super::settle::Loss;
use super::{Claim, Matcher, Phase, State};
use crate::limits;

/// Why an agent is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// So many are connected already.
    TooManyAgents(usize),
}

/// What a poll begins with.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PollStart {
    /// Tasks are there.
    Ready(Vec<Assignment>),
    /// To be asked for again under this number when the session is woken.
    Waits(u64),
    /// The session has ended.
    Gone,
}

/// What a stream finds in its outbox.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Taken {
    /// Frames to send, possibly none.
    Frames(Vec<Outgoing>),
    /// The session has ended.
    Closed,
}

impl Matcher {
    /// An agent opens a session, in place of the one it had.
    pub(crate) fn register(
        &mut self,
        mut registration: Registration,
        token: Arc<str>,
        life: Duration,
        polls: bool,
    ) -> Result<SessionId, Refusal> {
        let name = (registration.agent_type.clone(), registration.instance.clone());
        let known = self.registry.by_name.get(&name).copied();
        if known.is_none() && self.counts.agents >= limits::SESSIONS_MAX {
            return Err(Refusal::TooManyAgents(self.counts.agents));
        }
        let claims = std::mem::take(&mut registration.claims);
        self.cards.share(&mut registration);
        let registration = Arc::new(registration);
        let id = known.unwrap_or_else(|| self.add_agent(&registration));
        self.end_session(id);
        self.renew(id, registration, &token);
        let session = SessionId(self.registry.next_id());
        self.registry.open(id, self.new_session(session, token.clone(), life, polls));
        self.counts.agents += 1;
        let kept = self.keep(id, &claims);
        self.lanes.refresh(id, &mut self.registry);
        if !polls && let Some(found) = self.registry.session_mut(session) {
            // Ahead of what keeping the tasks has put there: it is always the first frame.
            found.outbox.push_front(Outgoing::Registered { token, kept });
        }
        if self.registry.get(id).is_some_and(|agent| agent.draining) {
            self.send(id, Outgoing::Drain { reason: "it was asked to drain before".to_owned() });
        }
        self.offer_to_all(id);
        self.lose_unnamed(id, &claims);
        self.match_agent(id);
        self.schedule_agent(id);
        Ok(session)
    }

    pub(super) fn add_agent(&mut self, registration: &Arc<Registration>) -> AgentId {
        let id = AgentId(self.registry.next_id());
        self.registry.insert(Agent::new(id, registration.clone(), self.now));
        id
    }

    /// What the agent says of itself holds from now on.
    pub(super) fn renew(&mut self, id: AgentId, registration: Arc<Registration>, token: &Arc<str>) {
        let now = self.now;
        let Some(agent) = self.registry.get_mut(id) else { return };
        for stopping in std::mem::take(&mut agent.stopping).into_values() {
            agent.count_back(&stopping.action);
        }
        agent.credits.total = registration.slots;
        agent.credits.per_action.clear();
        agent.lender = None;
        // A new process is not the one that was told to drain.
        agent.draining &= *agent.last_token == *registration.session_token;
        agent.last_token = token.clone();
        agent.registration = registration;
        agent.connected_at = now;
        agent.last_heard = now;
    }

    pub(super) fn new_session(
        &self,
        id: SessionId,
        token: Arc<str>,
        life: Duration,
        polls: bool,
    ) -> Session {
        Session {
            id,
            token,
            polls,
            lent: false,
            choked: false,
            poll: None,
            outbox: VecDeque::new(),
            last_ping: self.now,
            unanswered_since: None,
            nonce: 0,
            rebalance_at: self.now.after(life),
            rebalanced: false,
        }
    }

    /// Which of the tasks that an agent names stay with it.
    fn keep(
        &mut self,
        id: AgentId,
        claims: &[(TaskKey, LeaseToken)],
    ) -> Vec<(TaskKey, LeaseToken)> {
        let mut kept = Vec::with_capacity(claims.len());
        for (key, lease) in claims.iter().copied() {
            if self.keeps(id, key, lease) {
                kept.push((key, lease));
            }
        }
        kept
    }

    pub(super) fn keeps(&mut self, id: AgentId, key: TaskKey, lease: LeaseToken) -> bool {
        let until = self.now.after(self.clocks.lease);
        let Some(task) = self.tasks.get_mut(&key) else {
            if self.recent.contains(key, lease) {
                return true;
            }
            return self.claim_unknown(id, (key, lease));
        };
        match &mut task.state {
            State::Out(out) if out.lease == lease && out.agent == id => {
                out.lease_until = until;
                self.accept(key);
                self.tell_again(key);
                true
            }
            State::Ended(ended) => ended.origin.is_some_and(|(_, own)| own == lease),
            State::Waiting(_) => self.claim(key, id, lease),
            State::Out(_) => self.recent.contains(key, lease),
        }
    }

    /// What may have been lost with the old stream is said once more.
    fn tell_again(&mut self, key: TaskKey) {
        let Some(task) = self.tasks.get(&key) else { return };
        let State::Out(out) = &task.state else { return };
        let (agent, lease) = (out.agent, out.lease);
        if let Some(until) = out.cancel_until {
            let (reason, grace) = ("it was cancelled".to_owned(), until.since(self.now));
            self.send(agent, Outgoing::Cancel { key, lease, reason, grace });
        } else if out.phase == Phase::Running && task.order.delivery == Delivery::AtMostOnce {
            self.send(agent, Outgoing::Proceed { key, lease });
        }
    }

    pub(super) fn remember_claim(
        &mut self,
        agent: AgentId,
        key: TaskKey,
        lease: LeaseToken,
    ) -> bool {
        if self.claims.len() >= limits::CLAIMS_MAX {
            return false;
        }
        let until = self.now.after(self.clocks.claim);
        self.claims.insert(key, Claim { agent, lease, until });
        self.schedule_claim(key, until);
        true
    }

    /// What the agent had and does not name, it does not have.
    pub(super) fn lose_unnamed(&mut self, id: AgentId, claims: &[(TaskKey, LeaseToken)]) {
        let Some(agent) = self.registry.get(id) else { return };
        let out: Vec<TaskKey> = agent.tasks.iter().copied().collect();
        let named: std::collections::HashSet<TaskKey> =
            claims.iter().map(|(key, _)| *key).collect();
        for key in out.into_iter().filter(|key| !named.contains(key)) {
            self.lose(key, Loss::NotNamed);
        }
    }

    /// The session's stream has ended, or its agent is dead.
    pub(crate) fn gone(&mut self, session: SessionId) {
        let Some(id) = self.registry.of_session(session) else { return };
        self.end_session(id);
        let Some(agent) = self.registry.get_mut(id) else { return };
        for stopping in std::mem::take(&mut agent.stopping).into_values() {
            agent.count_back(&stopping.action);
        }
        let tasks: Vec<TaskKey> = agent.tasks.iter().copied().collect();
        let has_moved = self.lending.sources.has(&agent.name());
        for key in tasks.into_iter().filter(|_| !has_moved) {
            let unaccepted = self.tasks.get(&key).is_some_and(
                |task| matches!(&task.state, State::Out(out) if out.phase == Phase::Assigned),
            );
            if unaccepted {
                self.lose(key, Loss::StreamEnded);
            }
        }
        self.left(id);
    }

    pub(super) fn end_session(&mut self, id: AgentId) {
        let Some(session) = self.registry.close(id) else { return };
        self.effects.wake.push(session.id);
        if !session.lent {
            self.counts.agents -= 1;
            self.withdraw_offer(id, session.id);
        }
    }

    pub(super) fn remove_agent(&mut self, id: AgentId) {
        self.end_session(id);
        let Some(agent) = self.registry.remove(id) else { return };
        self.unschedule_agent(id, agent.timer);
        self.lanes.forget(&agent, &self.registry);
    }

    /// The agent finishes what it has and gets nothing new.
    pub(crate) fn drain(&mut self, id: AgentId, reason: &str) {
        let Some(agent) = self.registry.get_mut(id) else { return };
        agent.draining = true;
        self.send(id, Outgoing::Drain { reason: reason.to_owned() });
        self.opened_or_closed(id);
        self.match_lanes_preferring(id);
    }

    /// Asks all agents to connect elsewhere: this control plane stops.
    pub(crate) fn rebalance_all(&mut self) {
        let ids: Vec<AgentId> = self.registry.by_name.values().copied().collect();
        let within = self.clocks.rebalance_within;
        for id in ids {
            let session = self.registry.get_mut(id).and_then(|agent| agent.session.as_mut());
            let session = session.filter(|session| !session.rebalanced && !session.lent);
            if let Some(session) = session {
                session.rebalanced = true;
                session.rebalance_at = self.now;
                self.send(id, Outgoing::Rebalance { within });
                self.opened_or_closed(id);
                self.schedule_agent(id);
            }
        }
    }

    /// Frames for the session's stream. Those that act for runs are dropped unless `may_act`:
    /// the runs are another's, who gives their tasks out by itself.
    pub(crate) fn take(&mut self, session: SessionId, may_act: bool) -> Taken {
        let Some(id) = self.registry.of_session(session) else { return Taken::Closed };
        let Some(found) = self.registry.session_mut(session) else { return Taken::Closed };
        let count = found.outbox.len().min(limits::OUTBOX_FRAMES_TAKEN);
        let was_full = found.outbox.len() >= limits::OUTBOX_FRAMES_FULL;
        let frames = found.outbox.drain(..count).filter(|frame| may_act || !frame.acts()).collect();
        if was_full {
            self.match_agent(id);
        }
        Taken::Frames(frames)
    }

    /// A poll comes: its registration is taken, with the session of its token if there is one.
    pub(crate) fn poll_session(
        &mut self,
        registration: Registration,
        token: Arc<str>,
    ) -> Result<(SessionId, Arc<str>), Refusal> {
        let session = self.registry.of_token(&registration.session_token);
        let id = session.and_then(|session| self.registry.of_session(session));
        let name = (registration.agent_type.clone(), registration.instance.clone());
        if let (Some(session), Some(id)) = (session, id)
            && let Some(agent) = self.registry.get_mut(id)
            && agent.name() == name
            && agent.session.as_ref().is_some_and(|session| session.polls)
        {
            agent.last_heard = self.now;
            agent.credits.total = registration.slots;
            let token = registration.session_token.as_str().into();
            agent.registration = Arc::new(registration);
            self.lanes.refresh(id, &mut self.registry);
            return Ok((session, token));
        }
        let life = Duration::MAX;
        let session = self.register(registration, token.clone(), life, true)?;
        Ok((session, token))
    }

    /// Begins a poll. The same request id again gives the tasks that are not accepted yet.
    pub(crate) fn poll(&mut self, session: SessionId, request_id: &str, max: u32) -> PollStart {
        let Some(id) = self.registry.of_session(session) else { return PollStart::Gone };
        let again = self.unaccepted(session, request_id);
        if !again.is_empty() {
            return PollStart::Ready(again);
        }
        let serial = self.registry.next_id();
        let Some(found) = self.registry.session_mut(session) else { return PollStart::Gone };
        let request_id = request_id.to_owned();
        found.poll = Some(Poll { serial, request_id, room: max, keys: Vec::new() });
        // A poll in place of another one that still waits ends that one.
        self.effects.wake.push(session);
        self.match_agent(id);
        self.poll_ready(session, serial).map_or(PollStart::Waits(serial), PollStart::Ready)
    }

    /// What a waiting poll has got; `None`: nothing yet.
    pub(crate) fn poll_ready(
        &mut self,
        session: SessionId,
        serial: u64,
    ) -> Option<Vec<Assignment>> {
        let Some(found) = self.registry.session_mut(session) else { return Some(Vec::new()) };
        let Some(poll) = found.poll.as_mut().filter(|poll| poll.serial == serial) else {
            return Some(Vec::new());
        };
        if poll.keys.is_empty() {
            return None;
        }
        poll.room = 0;
        let request_id = poll.request_id.clone();
        Some(self.unaccepted(session, &request_id))
    }

    /// The poll waits no more.
    pub(crate) fn poll_end(&mut self, session: SessionId, serial: u64) {
        let now = self.now;
        let Some(id) = self.registry.of_session(session) else { return };
        let Some(agent) = self.registry.get_mut(id) else { return };
        agent.last_heard = now;
        let poll = agent.session.as_mut().and_then(|session| session.poll.as_mut());
        if let Some(poll) = poll.filter(|poll| poll.serial == serial) {
            poll.room = 0;
        }
        self.schedule_agent(id);
    }

    fn unaccepted(&mut self, session: SessionId, request_id: &str) -> Vec<Assignment> {
        let Some(found) = self.registry.session_mut(session) else { return Vec::new() };
        let Some(poll) = found.poll.as_ref() else { return Vec::new() };
        if poll.request_id != request_id {
            return Vec::new();
        }
        let keys = poll.keys.clone();
        let assignment = |(key, lease): (TaskKey, LeaseToken)| {
            let task = self.tasks.get(&key)?;
            let State::Out(out) = &task.state else { return None };
            let current = out.lease == lease && out.phase == Phase::Assigned;
            current.then(|| Assignment {
                order: task.order.clone(),
                lease,
                action: out.action.clone(),
                checkpoint: task.checkpoint.clone(),
                at: out.assigned_at,
            })
        };
        keys.into_iter().filter_map(assignment).collect()
    }

    /// The session that a report names by its token.
    pub(crate) fn session_of_token(&self, token: &str) -> Option<SessionId> {
        self.registry.of_token(token)
    }

    /// Whether the task awaits the word that its agent may begin.
    pub(crate) fn awaits_started(&self, key: TaskKey) -> bool {
        let task = self.tasks.get(&key);
        task.is_some_and(
            |task| matches!(&task.state, State::Out(out) if out.phase == Phase::AwaitsStarted),
        )
    }
}
