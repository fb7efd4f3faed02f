//! Which tasks wait for agents, put together by what they need. Changes nothing.

use engine::Instant;
use engine::task::TaskKey;

use super::super::registry::{LaneId, Needs};
use super::{Matcher, State};
use crate::hash::QuickMap;

/// Tasks of equal needs that wait for an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingTasks {
    /// How many.
    pub count: usize,
    /// Since when the first of them has.
    pub since: Instant,
    /// No agent is there that could ever take them.
    pub is_missing: bool,
    /// What the first of them waits for.
    pub cause: String,
    /// What would help; empty when waiting is all there is to do.
    pub remedy: String,
}

impl Matcher {
    /// The tasks that could be given out now if an agent had room, at most `limit` kinds of them:
    /// first those that no agent can take, then those that have waited longest.
    pub(crate) fn backlog(&self, limit: usize) -> Vec<WaitingTasks> {
        let mut kinds: QuickMap<LaneId, (usize, Instant, TaskKey)> = QuickMap::default();
        for task in self.tasks.values() {
            let State::Waiting(waiting) = &task.state else { continue };
            let is_due = waiting.gate.is_none_or(|gate| gate <= self.now);
            if !is_due || waiting.held_since.is_some() || waiting.is_over() {
                continue;
            }
            let since = waiting.since.max(task.order.queued_at.min(self.now));
            let kind = kinds.entry(task.lane).or_insert((0, since, task.order.key));
            kind.0 += 1;
            if since < kind.1 {
                (kind.1, kind.2) = (since, task.order.key);
            }
        }
        let kind = |(count, since, first): (usize, Instant, TaskKey)| {
            let order = &self.tasks.get(&first)?.order;
            let is_missing = self.missing(order, &Needs::of(order)).is_some();
            let why = self.why(first)?;
            let (cause, remedy) = (why.cause, why.remedy);
            Some(WaitingTasks { count, since, is_missing, cause, remedy })
        };
        let mut all: Vec<WaitingTasks> = kinds.into_values().filter_map(kind).collect();
        all.sort_by(|a, b| {
            (!a.is_missing, a.since, &a.cause).cmp(&(!b.is_missing, b.since, &b.cause))
        });
        all.truncate(limit);
        all
    }
}
