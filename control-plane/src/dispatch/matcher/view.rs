//! What is shown of agents, and whether an action is offered. Changes nothing.

use std::sync::Arc;
use std::time::Duration;

use contracts::v1;
use engine::Instant;

use super::super::breaker::Stand;
use super::super::figures::ActionFigures;
use super::super::registry::{Agent, AgentId};
use super::{Matcher, State};

/// An agent as it is shown.
#[derive(Clone, Debug)]
pub(crate) struct AgentView {
    pub(crate) id: AgentId,
    pub(crate) agent_type: Arc<str>,
    pub(crate) instance: Arc<str>,
    pub(crate) version: String,
    pub(crate) aliases: Vec<Arc<str>>,
    pub(crate) card: Arc<v1::AgentCard>,
    pub(crate) labels: std::collections::BTreeMap<String, String>,
    pub(crate) slots: u32,
    pub(crate) tasks: usize,
    pub(crate) health: v1::AgentHealth,
    pub(crate) connected_at: Instant,
    pub(crate) last_heard: Instant,
    pub(crate) breakers: Vec<(Arc<str>, Stand, u32)>,
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
    pub(crate) polls: bool,
    /// The replica that it is connected to, if it is another one.
    pub(crate) replica: Option<super::super::lending::Replica>,
}

/// Whether connected agents offer an action.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// An agent of this type or alias is connected (any agent, when none is named).
    pub known_agent: bool,
    /// One of those offers the action.
    pub offers_action: bool,
    /// A name like the one that was not found: of an agent when that is not known, else of an
    /// action.
    pub suggestion: Option<String>,
}

/// The figures of an action with what waits and runs now.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ActionView {
    pub(crate) figures: ActionFigures,
    pub(crate) queued: usize,
    pub(crate) running: usize,
}

impl Matcher {
    /// Known agents by type and instance, from behind `after` on.
    pub(crate) fn agents(&self, after: Option<(&str, &str)>, limit: usize) -> Vec<AgentView> {
        let behind = |agent: &&Agent| {
            let registration = &agent.registration;
            after.is_none_or(|after| (&*registration.agent_type, &*registration.instance) > after)
        };
        self.registry.in_order().filter(behind).take(limit).map(|it| self.view(it)).collect()
    }

    /// The agents that go by this name: `type/instance`, a type or an alias.
    pub(crate) fn find(&self, name: &str) -> Vec<AgentView> {
        if let Some((agent_type, instance)) = name.split_once('/') {
            let key = (agent_type.into(), instance.into());
            let id = self.registry.by_name.get(&key);
            let found = id.and_then(|id| self.registry.get(*id));
            return found.map(|agent| self.view(agent)).into_iter().collect();
        }
        let found = self.registry.in_order().filter(|agent| agent.answers_to(name));
        found.map(|agent| self.view(agent)).collect()
    }

    fn view(&self, agent: &Agent) -> AgentView {
        let registration = &agent.registration;
        let breakers: Vec<_> = agent
            .breakers
            .iter()
            .map(|(action, it)| (action.clone(), it.stand(self.now), it.failures(self.now)))
            .filter(|(_, stand, _)| *stand != Stand::Closed)
            .collect();
        let health = if agent.session.is_none() {
            v1::AgentHealth::Unreachable
        } else if agent.draining {
            v1::AgentHealth::Draining
        } else if breakers.is_empty() {
            v1::AgentHealth::Healthy
        } else {
            v1::AgentHealth::Degraded
        };
        AgentView {
            id: agent.id,
            agent_type: registration.agent_type.clone(),
            instance: registration.instance.clone(),
            version: registration.version.clone(),
            aliases: registration.aliases.clone(),
            card: registration.card.clone(),
            labels: registration.labels.clone(),
            slots: registration.slots,
            tasks: agent.tasks.len(),
            health,
            connected_at: agent.connected_at,
            last_heard: agent.last_heard,
            breakers,
            succeeded: agent.succeeded,
            failed: agent.failed,
            polls: agent.session.as_ref().is_some_and(|session| session.polls),
            replica: agent.lender,
        }
    }

    /// Whether connected agents offer an action.
    pub(crate) fn offers(&self, agent: Option<&str>, action: &str) -> Offer {
        let connected = || self.registry.in_order().filter(|agent| agent.session.is_some());
        let named = |found: &&Agent| agent.is_none_or(|name| found.answers_to(name));
        let known_agent = connected().any(|found| named(&found));
        if !known_agent {
            let names = connected().flat_map(names_of);
            let suggestion = agent.and_then(|name| nearest(name, names));
            return Offer { known_agent, offers_action: false, suggestion };
        }
        let offers_action =
            connected().filter(named).any(|it| it.registration.actions.contains_key(action));
        let names = connected().filter(named).flat_map(|it| it.registration.actions.keys());
        let suggestion = if offers_action { None } else { nearest(action, names.cloned()) };
        Offer { known_agent, offers_action, suggestion }
    }

    /// The figures of the last `range`, of one agent type or all.
    pub(crate) fn figures(&self, agent: Option<&str>, range: Duration) -> Vec<ActionView> {
        let agent_type = |name: &str| {
            let name = name.split_once('/').map_or(name, |(agent_type, _)| agent_type);
            let found = self.registry.in_order().find(|agent| agent.answers_to(name));
            found.map_or_else(|| Arc::from(name), |it| it.registration.agent_type.clone())
        };
        let only = agent.map(agent_type);
        let mut views: Vec<ActionView> = Vec::new();
        for figures in self.figures.read(range, self.now) {
            if only.as_ref().is_none_or(|only| *only == figures.agent_type) {
                views.push(ActionView { figures, queued: 0, running: 0 });
            }
        }
        self.count_present(&mut views);
        views
    }

    fn count_present(&self, views: &mut [ActionView]) {
        for task in self.tasks.values() {
            let agent = match &task.state {
                State::Out(out) => self.registry.get(out.agent),
                State::Waiting(_) => {
                    let lane = self.lanes.get(task.lane);
                    let first = lane.and_then(|lane| lane.agents.first());
                    first.and_then(|id| self.registry.get(*id))
                }
                State::Ended(_) => None,
            };
            let Some(agent) = agent else { continue };
            let view = views.iter_mut().find(|view| {
                view.figures.action == task.order.action
                    && view.figures.agent_type == agent.registration.agent_type
            });
            match (view, &task.state) {
                (Some(view), State::Out(_)) => view.running += 1,
                (Some(view), State::Waiting(_)) => view.queued += 1,
                _ => {}
            }
        }
    }
}

pub(super) fn names_of(agent: &Agent) -> Vec<Arc<str>> {
    let mut names = agent.registration.aliases.clone();
    names.push(agent.registration.agent_type.clone());
    names
}

/// The name most like this one, if one is like it.
pub(super) fn nearest(name: &str, names: impl Iterator<Item = Arc<str>>) -> Option<String> {
    const LIKE: f64 = 0.75;
    let rated = names.map(|other| (strsim::jaro_winkler(name, &other), other));
    let best = rated.filter(|(like, _)| *like >= LIKE).max_by(|a, b| a.0.total_cmp(&b.0));
    best.map(|(_, other)| other.to_string())
}
