//! What agent types have to do and with what, and who has the tasks of a run: for advice and for
//! progress. Changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use engine::task::{AgentRef, TaskKey};
use engine::{Instant, RunId};

use super::{Matcher, State};
use crate::recovery::resources::{Instance, Load};

impl Matcher {
    /// The tasks of a run that agents have, with who and since when.
    pub(crate) fn held(&self, run: RunId) -> Vec<(TaskKey, AgentRef, Instant)> {
        let mut held = Vec::new();
        for key in self.tasks.keys_of(run) {
            let Some(task) = self.tasks.get(&key) else { continue };
            let State::Out(out) = &task.state else { continue };
            let Some(agent) = self.registry.get(out.agent) else { continue };
            held.push((key, agent.as_ref(), out.assigned_at));
        }
        held
    }

    /// The agents that are there, by type; with a `range` also what they have to do, and the
    /// history of this time.
    pub(crate) fn loads(&self, range: Option<Duration>) -> Vec<Load> {
        let mut loads: BTreeMap<Arc<str>, Load> = BTreeMap::new();
        for agent in self.registry.in_order().filter(|agent| agent.session.is_some()) {
            let registration = &agent.registration;
            let instance = Instance {
                name: registration.instance.to_string(),
                slots: agent.credits.total,
                busy: u32::try_from(agent.out()).unwrap_or(u32::MAX),
                draining: !agent.is_open(),
                lent: !agent.is_connected(),
            };
            load_of(&mut loads, &registration.agent_type).instances.push(instance);
        }
        if let Some(range) = range {
            self.add_what_is_to_do(&mut loads, range);
        }
        loads.into_values().collect()
    }

    fn add_what_is_to_do(&self, loads: &mut BTreeMap<Arc<str>, Load>, range: Duration) {
        for task in self.tasks.values() {
            let State::Waiting(waiting) = &task.state else { continue };
            let lane = self.lanes.get(task.lane);
            let first = lane.and_then(|lane| lane.agents.first());
            let offered = first.and_then(|id| self.registry.get(*id));
            let agent = match (offered, &task.order.agent) {
                (Some(agent), _) => Arc::clone(&agent.registration.agent_type),
                (None, Some(named)) => Arc::clone(named),
                // Whoever offers the action would do; nobody does.
                (None, None) => continue,
            };
            let load = load_of(loads, &agent);
            load.queued += 1;
            load.oldest = load.oldest.max(self.now.since(waiting.since));
        }
        for (agent, minutes, duration) in self.figures.by_type(range, self.now) {
            if let Some(load) = loads.get_mut(&agent) {
                load.ended = minutes;
                load.duration = duration;
            }
        }
    }
}

fn load_of<'l>(loads: &'l mut BTreeMap<Arc<str>, Load>, agent: &Arc<str>) -> &'l mut Load {
    let fresh = || Load { agent: agent.to_string(), ..Load::default() };
    loads.entry(Arc::clone(agent)).or_insert_with(fresh)
}
