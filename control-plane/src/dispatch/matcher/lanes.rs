//! The one ordered queue, cut into lanes: tasks of equal needs. Between lanes that one agent
//! serves, the better head goes first.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::task::TaskOrder;

use super::super::fair_queue::{FairQueue, Shares};
use super::super::registry::{Agent, AgentId, LaneId, Needs, Registry};
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
    /// No agent of it has room; looked at anew once one has.
    full: bool,
    /// Where the next look at many agents begins.
    cursor: usize,
}

#[derive(Debug, Default)]
pub(super) struct Lanes {
    by_needs: QuickMap<Needs, LaneId>,
    pub(super) lanes: QuickMap<LaneId, Lane>,
    pub(super) shares: Shares,
    /// How many of them are full.
    full: usize,
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
        let queue = FairQueue::default();
        let lane = Lane { needs, queue, agents, tasks: 1, full: false, cursor: 0 };
        self.lanes.insert(id, lane);
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
        let name = registry.get(agent).map(Agent::name);
        for (id, lane) in &mut self.lanes {
            let Some(name) = &name else { continue };
            let place = lane.place(name, registry, agent);
            if registry.get(agent).is_some_and(|found| found.suits(&lane.needs)) {
                if let Err(place) = place {
                    lane.agents.insert(place, agent);
                }
                served.push(*id);
            } else if let Ok(place) = place {
                lane.agents.remove(place);
            }
        }
        served.sort_unstable();
        if let Some(found) = registry.get_mut(agent) {
            found.lanes = served;
        }
    }

    fn sweep(&mut self, registry: &mut Registry) {
        self.lanes.retain(|_, lane| lane.tasks > 0);
        self.full = self.lanes.values().filter(|lane| lane.full).count();
        let lanes = &self.lanes;
        self.by_needs.retain(|_, id| lanes.contains_key(id));
        for agent in registry.agents.values_mut() {
            agent.lanes.retain(|id| lanes.contains_key(id));
        }
    }

    /// Who should have a task of this lane now: the preferred instance alone while it is there,
    /// otherwise the least loaded that can take it, the first by name among equals. Who is to be
    /// avoided comes last. Of very many agents only some are compared, each time others.
    pub(super) fn pick(
        &mut self,
        id: LaneId,
        registry: &Registry,
        avoid: Option<AgentId>,
        now: engine::Instant,
    ) -> Option<AgentId> {
        let lane = self.lanes.get_mut(&id)?;
        let action: &Arc<str> = &lane.needs.action;
        if let Some(preferred) = present_preferred(lane, registry) {
            let agent = registry.get(preferred)?;
            return agent.can_take(action, now).then_some(preferred);
        }
        if lane.full {
            return None;
        }
        let count = lane.agents.len();
        let start = if count > limits::AGENTS_COMPARED { lane.cursor % count } else { 0 };
        let mut best: Option<&Agent> = None;
        let mut compared = 0;
        for index in (start..count).chain(0..start) {
            let agent = registry.get(lane.agents[index]);
            let Some(agent) = agent.filter(|agent| agent.can_take(action, now)) else { continue };
            lane.cursor = index + 1;
            compared += 1;
            // What is lent comes after what is here: it is farther.
            let rank = |found: &Agent| (Some(found.id) == avoid, found.lender.is_some());
            let better = best.is_none_or(|best| match rank(agent).cmp(&rank(best)) {
                std::cmp::Ordering::Less => true,
                std::cmp::Ordering::Greater => false,
                std::cmp::Ordering::Equal => agent.is_less_loaded(best),
            });
            if better {
                best = Some(agent);
            }
            // Nobody is less loaded than an idle one, and it is the first by name of those.
            let is_idle = agent.taken() == 0 && agent.lender.is_none() && avoid.is_none();
            if is_idle || compared == limits::AGENTS_COMPARED {
                break;
            }
        }
        // A lane that prefers an instance has room again also when that one leaves.
        if best.is_none() && lane.needs.preferred.is_none() {
            lane.full = true;
            self.full += 1;
        }
        best.map(|agent| agent.id)
    }

    /// An agent has room: its lanes may have.
    pub(super) fn reopen(&mut self, agent: AgentId, registry: &Registry) {
        if self.full == 0 {
            return;
        }
        let lanes = registry.get(agent).map_or(&[][..], |agent| &agent.lanes);
        for lane in lanes {
            if let Some(lane) = self.lanes.get_mut(lane)
                && std::mem::take(&mut lane.full)
            {
                self.full -= 1;
            }
        }
    }

    /// An agent is gone.
    pub(super) fn forget(&mut self, agent: &Agent, registry: &Registry) {
        let name = agent.name();
        for lane in &agent.lanes {
            if let Some(lane) = self.lanes.get_mut(lane)
                && let Ok(place) = lane.place(&name, registry, agent.id)
            {
                lane.agents.remove(place);
            }
        }
    }
}

impl Lane {
    /// Whether no agent of it had room when one was looked for, and none has since.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// Where an agent of this name stands, or would stand. `known` is found even when it is not
    /// registered any more.
    fn place(
        &self,
        name: &(Arc<str>, Arc<str>),
        registry: &Registry,
        known: AgentId,
    ) -> Result<usize, usize> {
        self.agents.binary_search_by(|other| {
            if *other == known {
                return std::cmp::Ordering::Equal;
            }
            let other = registry.get(*other).map(|agent| &agent.registration);
            other.map_or(std::cmp::Ordering::Less, |other| {
                (&other.agent_type, &other.instance).cmp(&(&name.0, &name.1))
            })
        })
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
