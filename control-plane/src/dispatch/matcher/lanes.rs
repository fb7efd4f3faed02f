//! The one ordered queue, cut into lanes: tasks of equal needs. Between lanes that one agent
//! serves, the better head goes first.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::task::TaskOrder;

use super::super::fair_queue::{FairQueue, Shares};
use super::super::registry::{AgentId, LaneId, Needs, Registry};
use crate::hash::QuickMap;
use crate::limits;

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) needs: Needs,
    pub(super) queue: FairQueue,
    /// The agents that could ever serve it, by name.
    pub(super) agents: Vec<AgentId>,
    /// How many tasks there are with these needs, out ones included, and how many borrowers
    /// want some.
    tasks: usize,
}

#[derive(Debug, Default)]
pub(super) struct Lanes {
    by_needs: QuickMap<Needs, LaneId>,
    pub(super) lanes: QuickMap<LaneId, Lane>,
    pub(super) shares: Shares,
    counter: u64,
}

impl Lanes {
    pub(super) fn new(weights: BTreeMap<String, u32>) -> Self {
        Self { shares: Shares::new(weights), ..Self::default() }
    }

    pub(super) fn get(&self, id: LaneId) -> Option<&Lane> {
        self.lanes.get(&id)
    }

    /// The lane of an order, one task more in it.
    pub(super) fn enter(&mut self, order: &TaskOrder, registry: &mut Registry) -> LaneId {
        self.enter_needs(Needs::of(order), registry)
    }

    /// The lane of these needs, one user more of it.
    pub(super) fn enter_needs(&mut self, needs: Needs, registry: &mut Registry) -> LaneId {
        if let Some(id) = self.by_needs.get(&needs) {
            if let Some(lane) = self.lanes.get_mut(id) {
                lane.tasks += 1;
            }
            return *id;
        }
        if self.lanes.len() >= limits::EMPTY_LANES_KEPT {
            self.sweep(registry);
        }
        self.counter += 1;
        let id = LaneId(self.counter);
        let suited = registry.in_order().filter(|agent| agent.suits(&needs));
        let agents: Vec<AgentId> = suited.map(|agent| agent.id).collect();
        for agent in &agents {
            if let Some(agent) = registry.get_mut(*agent) {
                agent.lanes.push(id);
            }
        }
        self.by_needs.insert(needs.clone(), id);
        self.lanes.insert(id, Lane { needs, queue: FairQueue::default(), agents, tasks: 1 });
        id
    }

    /// One task less in the lane.
    pub(super) fn leave(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.tasks = lane.tasks.saturating_sub(1);
        }
    }

    /// An agent came or changed: finds out anew which lanes it serves.
    pub(super) fn refresh(&mut self, agent: AgentId, registry: &mut Registry) {
        let mut served = Vec::new();
        for (id, lane) in &mut self.lanes {
            lane.agents.retain(|other| *other != agent);
            if registry.get(agent).is_some_and(|found| found.suits(&lane.needs)) {
                lane.agents.push(agent);
                lane.agents.sort_by_key(|id| registry.get(*id).map(|found| found.name()));
                served.push(*id);
            }
        }
        served.sort_unstable();
        if let Some(found) = registry.get_mut(agent) {
            found.lanes = served;
        }
    }

    fn sweep(&mut self, registry: &mut Registry) {
        self.lanes.retain(|_, lane| lane.tasks > 0);
        let lanes = &self.lanes;
        self.by_needs.retain(|_, id| lanes.contains_key(id));
        for agent in registry.agents.values_mut() {
            agent.lanes.retain(|id| lanes.contains_key(id));
        }
    }

    /// Who should have a task of this lane now: the preferred instance alone while it is there,
    /// otherwise the least loaded that can take it, the first by name among equals. Who is to be
    /// avoided comes last.
    pub(super) fn pick(
        &self,
        lane: &Lane,
        registry: &Registry,
        avoid: Option<AgentId>,
        now: engine::Instant,
    ) -> Option<AgentId> {
        let action: &Arc<str> = &lane.needs.action;
        if let Some(preferred) = present_preferred(lane, registry) {
            let agent = registry.get(preferred)?;
            return agent.can_take(action, now).then_some(preferred);
        }
        let mut best: Option<&super::super::registry::Agent> = None;
        for agent in lane.agents.iter().filter_map(|id| registry.get(*id)) {
            if !agent.can_take(action, now) {
                continue;
            }
            // What is lent comes after what is here: it is farther.
            let rank = |found: &super::super::registry::Agent| {
                (Some(found.id) == avoid, found.lender.is_some())
            };
            let better = best.is_none_or(|best| match rank(agent).cmp(&rank(best)) {
                std::cmp::Ordering::Less => true,
                std::cmp::Ordering::Greater => false,
                std::cmp::Ordering::Equal => agent.is_less_loaded(best),
            });
            if better {
                best = Some(agent);
            }
            if agent.taken() == 0 && agent.lender.is_none() && avoid.is_none() {
                // Nobody is less loaded than this one, and it is the first by name of those.
                break;
            }
        }
        best.map(|agent| agent.id)
    }
}

/// The instance that the lane prefers, while it is there.
pub(super) fn present_preferred(lane: &Lane, registry: &Registry) -> Option<AgentId> {
    let instance = lane.needs.preferred.as_ref()?;
    lane.agents.iter().copied().find(|id| {
        let agent = registry.get(*id);
        agent.is_some_and(|agent| agent.registration.instance == *instance && agent.is_open())
    })
}
