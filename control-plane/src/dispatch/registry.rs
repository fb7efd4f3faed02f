//! Who is connected: agents by name and by session, what they offer and what they hold. Pure
//! data; decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use engine::Instant;
use engine::task::{AgentRef, TaskKey, TaskOrder};

use super::breaker::Breaker;
use super::card::Registration;
use super::lease::LeaseToken;
use super::lending::Replica;
use super::loan::Loan;
use super::session::{Session, SessionId};
use crate::hash::QuickMap;
use crate::limits;

/// An agent, the same over all its sessions while it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AgentId(pub(super) u64);

/// A lane of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LaneId(pub(super) u64);

/// How many tasks may be out at an agent at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Credits {
    pub(super) total: u32,
    pub(super) per_action: QuickMap<Arc<str>, u32>,
}

/// A task that is not this agent's any more, and that it may still be stopping.
#[derive(Clone, Debug)]
pub(super) struct Stopping {
    pub(super) action: Arc<str>,
    pub(super) until: Instant,
}

/// A known agent.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) id: AgentId,
    pub(super) registration: Arc<Registration>,
    /// `None`: unreachable, kept while leases of its tasks last.
    pub(super) session: Option<Session>,
    /// The token of its last session.
    pub(super) last_token: Arc<str>,
    pub(super) credits: Credits,
    /// The tasks that are out at it.
    pub(super) tasks: BTreeSet<TaskKey>,
    pub(super) stopping: BTreeMap<LeaseToken, Stopping>,
    /// Tasks and stopping ones of each action.
    pub(super) out_per_action: QuickMap<Arc<str>, u32>,
    pub(super) draining: bool,
    pub(super) breakers: BTreeMap<Arc<str>, Breaker>,
    pub(super) connected_at: Instant,
    pub(super) last_heard: Instant,
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    pub(super) timer: Option<Instant>,
    pub(super) lanes: Vec<LaneId>,
    /// Who lends it to this replica; `None`: it is connected here, or was.
    pub(super) lender: Option<Replica>,
    /// What is lent of it to other replicas.
    pub(super) loans: BTreeMap<Replica, Loan>,
    /// The tasks of other replicas' runs that it has, or whose results are not acknowledged.
    pub(super) strays: BTreeSet<(TaskKey, LeaseToken)>,
    /// How many of those it has whose owner is not known.
    pub(super) sought: u32,
    /// How many of its results are not acknowledged yet.
    pub(super) unacknowledged: u32,
}

impl Agent {
    pub(super) fn new(id: AgentId, registration: Arc<Registration>, now: Instant) -> Self {
        Self {
            id,
            credits: Credits { total: registration.slots, ..Credits::default() },
            registration,
            session: None,
            last_token: "".into(),
            tasks: BTreeSet::new(),
            stopping: BTreeMap::new(),
            out_per_action: QuickMap::default(),
            draining: false,
            breakers: BTreeMap::new(),
            connected_at: now,
            last_heard: now,
            succeeded: 0,
            failed: 0,
            timer: None,
            lanes: Vec::new(),
            lender: None,
            loans: BTreeMap::new(),
            strays: BTreeSet::new(),
            sought: 0,
            unacknowledged: 0,
        }
    }

    pub(super) fn name(&self) -> (Arc<str>, Arc<str>) {
        (self.registration.agent_type.clone(), self.registration.instance.clone())
    }

    pub(super) fn as_ref(&self) -> AgentRef {
        let (agent_type, instance) = self.name();
        AgentRef { agent_type, instance }
    }

    /// Whether it goes by this name.
    pub(super) fn answers_to(&self, name: &str) -> bool {
        *self.registration.agent_type == *name
            || self.registration.aliases.iter().any(|alias| **alias == *name)
    }

    /// Whether it has all these labels.
    pub(super) fn has_labels(&self, requires: &BTreeMap<String, String>) -> bool {
        let labels = &self.registration.labels;
        requires.iter().all(|(name, value)| labels.get(name) == Some(value))
    }

    /// Whether a step that asks for this could ever be its.
    pub(super) fn suits(&self, needs: &Needs) -> bool {
        needs.agent.as_ref().is_none_or(|name| self.answers_to(name))
            && self.registration.actions.contains_key(&needs.action)
            && self.has_labels(&needs.requires)
    }

    /// Whether it is there and takes new tasks.
    pub(super) fn is_open(&self) -> bool {
        !self.draining && self.session.as_ref().is_some_and(|session| !session.rebalanced)
    }

    /// How many tasks it has, those included that it is stopping.
    pub(super) fn out(&self) -> usize {
        self.tasks.len() + self.stopping.len()
    }

    /// How many of its credits are taken up: by tasks, or by being lent.
    pub(super) fn taken(&self) -> usize {
        let lent: u32 = self.loans.values().map(Loan::reserved).sum();
        self.out() + (self.sought + lent) as usize
    }

    pub(super) fn has_credit(&self, action: &str) -> bool {
        self.taken() < self.credits.total as usize
            && self.credits.per_action.get(action).is_none_or(|credit| {
                let out = self.out_per_action.get(action).copied().unwrap_or(0);
                let lent: u32 = self.loans.values().map(|loan| loan.reserved_of(action)).sum();
                out + lent < *credit
            })
    }

    /// How many more tasks of this action it may get, or be lent for.
    pub(super) fn free(&self, action: &str) -> u32 {
        let taken = u32::try_from(self.taken()).unwrap_or(u32::MAX);
        let free = self.credits.total.saturating_sub(taken);
        let limited = self.credits.per_action.get(action).map(|credit| {
            let out = self.out_per_action.get(action).copied().unwrap_or(0);
            let lent: u32 = self.loans.values().map(|loan| loan.reserved_of(action)).sum();
            credit.saturating_sub(out + lent)
        });
        free.min(limited.unwrap_or(u32::MAX))
    }

    /// Whether it is connected to this replica.
    pub(super) fn is_connected(&self) -> bool {
        self.session.as_ref().is_some_and(|session| !session.lent)
    }

    /// Whether it is connected here by a stream, so that it may be lent.
    pub(super) fn is_lendable(&self) -> bool {
        self.session.as_ref().is_some_and(|session| !session.polls && !session.lent)
    }

    pub(super) fn breaker_permits(&self, action: &str, now: Instant) -> bool {
        self.breakers.get(action).is_none_or(|breaker| breaker.permits(now))
    }

    /// Whether it may get a task of this action now.
    pub(super) fn can_take(&self, action: &str, now: Instant) -> bool {
        self.is_open()
            && self.takes_more()
            && self.has_credit(action)
            && self.breaker_permits(action, now)
    }

    /// Whether it reads what it is sent, and has room for more results.
    pub(super) fn takes_more(&self) -> bool {
        self.session.as_ref().is_some_and(Session::has_room)
            && self.unacknowledged < limits::RESULTS_UNACKNOWLEDGED_MAX
    }

    /// Whether it takes anything at all now.
    pub(super) fn has_room(&self) -> bool {
        self.is_open() && self.takes_more() && self.taken() < self.credits.total as usize
    }

    /// Whether it is less loaded than `other`.
    pub(super) fn is_less_loaded(&self, other: &Self) -> bool {
        let share = |agent: &Self, by: &Self| agent.taken() as u64 * u64::from(by.credits.total);
        share(self, other) < share(other, self)
    }

    /// Nothing of it is left to wait for.
    pub(super) fn is_gone(&self) -> bool {
        self.session.is_none() && self.tasks.is_empty()
    }

    pub(super) fn count_out(&mut self, action: &Arc<str>) {
        *self.out_per_action.entry(action.clone()).or_default() += 1;
    }

    pub(super) fn count_back(&mut self, action: &Arc<str>) {
        if let Some(count) = self.out_per_action.get_mut(action) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.out_per_action.remove(action);
            }
        }
    }
}

/// What a task needs of an agent; tasks with equal needs share a lane.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Needs {
    pub(super) agent: Option<Arc<str>>,
    pub(super) action: Arc<str>,
    pub(super) requires: Arc<BTreeMap<String, String>>,
    pub(super) preferred: Option<Arc<str>>,
}

impl Needs {
    pub(super) fn of(order: &TaskOrder) -> Self {
        Self {
            agent: order.agent.clone(),
            action: order.action.clone(),
            requires: order.requires.clone(),
            preferred: order.preferred_instance.clone(),
        }
    }
}

/// All known agents.
#[derive(Debug, Default)]
pub(super) struct Registry {
    pub(super) agents: QuickMap<AgentId, Agent>,
    pub(super) by_name: BTreeMap<(Arc<str>, Arc<str>), AgentId>,
    sessions: QuickMap<SessionId, AgentId>,
    tokens: QuickMap<Arc<str>, SessionId>,
    counter: u64,
}

impl Registry {
    pub(super) fn get(&self, id: AgentId) -> Option<&Agent> {
        self.agents.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: AgentId) -> Option<&mut Agent> {
        self.agents.get_mut(&id)
    }

    /// Agents in the order of their names.
    pub(super) fn in_order(&self) -> impl Iterator<Item = &Agent> {
        self.by_name.values().filter_map(|id| self.agents.get(id))
    }

    pub(super) fn of_session(&self, session: SessionId) -> Option<AgentId> {
        self.sessions.get(&session).copied()
    }

    pub(super) fn of_token(&self, token: &str) -> Option<SessionId> {
        self.tokens.get(token).copied()
    }

    pub(super) fn session_mut(&mut self, session: SessionId) -> Option<&mut Session> {
        let id = self.sessions.get(&session)?;
        self.agents.get_mut(id)?.session.as_mut()
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    pub(super) fn insert(&mut self, agent: Agent) {
        self.by_name.insert(agent.name(), agent.id);
        self.agents.insert(agent.id, agent);
    }

    pub(super) fn remove(&mut self, id: AgentId) -> Option<Agent> {
        self.close(id);
        let agent = self.agents.remove(&id)?;
        self.by_name.remove(&agent.name());
        Some(agent)
    }

    /// Gives the agent a session in place of the one it had.
    pub(super) fn open(&mut self, id: AgentId, session: Session) {
        self.close(id);
        self.sessions.insert(session.id, id);
        if !session.lent {
            self.tokens.insert(session.token.clone(), session.id);
        }
        if let Some(agent) = self.agents.get_mut(&id) {
            agent.session = Some(session);
        }
    }

    /// Ends the agent's session, if it has one.
    pub(super) fn close(&mut self, id: AgentId) -> Option<Session> {
        let session = self.agents.get_mut(&id)?.session.take()?;
        self.sessions.remove(&session.id);
        self.tokens.remove(&session.token);
        Some(session)
    }
}
