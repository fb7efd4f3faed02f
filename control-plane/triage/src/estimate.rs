//! How long it takes and what it needs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a task is thought to take where neither history nor declaration says.
pub const DURATION_UNKNOWN_MS: u64 = 5 * 60 * 1000;

/// One piece of work.
#[derive(Clone, Debug, PartialEq)]
pub struct Work<'a> {
    /// The issue.
    pub id: &'a str,
    /// The agent type that does it.
    pub agent_type: &'a str,
    /// How long it takes.
    pub duration_ms: u64,
    /// What it costs; 0 when unknown.
    pub cost: f64,
}

/// What an agent type is needed for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Need {
    /// The agent type.
    pub agent_type: String,
    /// Tasks in all.
    pub tasks: u32,
    /// The most that could run at once.
    pub slots_useful: u32,
    /// What is there now.
    pub slots_present: u32,
    /// The sum of its tasks' durations.
    pub busy_ms: u64,
    /// The sum of its tasks' costs.
    pub cost: f64,
}

/// How long all takes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// For each stage.
    pub stages_ms: Vec<u64>,
    /// The whole.
    pub whole_ms: u64,
    /// By agent type.
    pub needs: Vec<Need>,
}

/// Estimates stages, one after the other, each agent type with the slots that are there now (at
/// least
/// one: what is missing now is assumed to come).
pub fn estimate(stages: &[Vec<Work<'_>>], slots: &BTreeMap<&str, u32>) -> Estimate {
    let mut out = Estimate::default();
    let mut needs: BTreeMap<&str, Need> = BTreeMap::new();
    for stage in stages {
        let mut by_agent: BTreeMap<&str, Vec<&Work<'_>>> = BTreeMap::new();
        for work in stage {
            by_agent.entry(work.agent_type).or_default().push(work);
        }
        let mut stage_ms = 0;
        for (agent_type, work) in by_agent {
            let present = slots.get(agent_type).copied().unwrap_or(0);
            let busy_ms: u64 = work.iter().map(|work| work.duration_ms).sum();
            let longest = work.iter().map(|work| work.duration_ms).max().unwrap_or(0);
            stage_ms = stage_ms.max(longest).max(busy_ms.div_ceil(u64::from(present.max(1))));
            let tasks = u32::try_from(work.len()).unwrap_or(u32::MAX);
            let need = needs.entry(agent_type).or_default();
            need.tasks += tasks;
            need.slots_useful = need.slots_useful.max(tasks);
            need.slots_present = present;
            need.busy_ms += busy_ms;
            need.cost += work.iter().map(|work| work.cost).sum::<f64>();
        }
        out.whole_ms += stage_ms;
        out.stages_ms.push(stage_ms);
    }
    out.needs = needs
        .into_iter()
        .map(|(agent_type, need)| Need { agent_type: agent_type.to_owned(), ..need })
        .collect();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_takes_as_long_as_its_busiest_agent() {
        let work = |id, agent_type, duration_ms| Work { id, agent_type, duration_ms, cost: 0.5 };
        let stages = [
            vec![
                work("a", "x", 100),
                work("b", "x", 100),
                work("c", "x", 100),
                work("d", "y", 120),
            ],
            vec![work("e", "y", 70)],
        ];
        let found = estimate(&stages, &BTreeMap::from([("x", 2)]));
        assert_eq!(found.stages_ms, [150, 70]);
        assert_eq!(found.whole_ms, 220);
        let needs = |at: usize| {
            let need = &found.needs[at];
            (need.tasks, need.slots_useful, need.slots_present, need.busy_ms)
        };
        assert_eq!(needs(0), (3, 3, 2, 300));
        assert_eq!(needs(1), (2, 1, 0, 190));
        assert_eq!(found.needs[0].cost, 1.5);
    }
}
