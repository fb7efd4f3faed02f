//! What the orchestrator adds to a recovery: its wall time less the longest chain of agent times,
//! over that chain. Pure: it is told what happened when, and reads nothing else.

use std::time::Duration;

use engine::Instant;

/// How long a recovery took, and how long it had to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overhead {
    /// For how long issues were mended: from the start to the end, or to a rollback. Waits for
    /// slots, attempts that follow later and pauses count.
    pub wall: Duration,
    /// The longest chain of steps that wait for each other, by how long they were really had: by
    /// agents, or, where no agent does a step, by people, clocks and inner steps.
    pub chain: Duration,
}

impl Overhead {
    /// Wall time less chain, over the chain; `None` before anybody has done anything.
    #[must_use]
    pub fn share(&self) -> Option<f64> {
        let over = self.wall.saturating_sub(self.chain).as_secs_f64();
        (!self.chain.is_zero()).then(|| over / self.chain.as_secs_f64())
    }
}

/// A clock that stands while nothing is mended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wall {
    before: Duration,
    since: Option<Instant>,
}

impl Wall {
    /// It runs from now on.
    pub(super) fn go_on(&mut self, at: Instant) {
        self.since.get_or_insert(at);
    }

    /// It stands from now on.
    pub(super) fn stop(&mut self, at: Instant) {
        if let Some(since) = self.since.take() {
            self.before += at.since(since);
        }
    }

    /// How long it has run.
    pub(super) fn until(&self, now: Instant) -> Duration {
        self.before + self.since.map_or(Duration::ZERO, |since| now.since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_of_the_chain() {
        let seconds = Duration::from_secs;
        let overhead = |wall, chain| Overhead { wall: seconds(wall), chain: seconds(chain) };
        assert_eq!(overhead(11, 10).share(), Some(0.1));
        assert_eq!(overhead(9, 10).share(), Some(0.0), "clocks of agents run otherwise");
        assert_eq!(overhead(9, 0).share(), None);
    }

    #[test]
    fn what_lies_between_an_end_and_a_return_does_not_count() {
        let at = |seconds: i64| Instant(seconds * 1_000_000);
        let mut wall = Wall::default();
        wall.go_on(at(1));
        wall.stop(at(4));
        wall.stop(at(5));
        assert_eq!(wall.until(at(60)), Duration::from_secs(3));
        wall.go_on(at(100));
        assert_eq!(wall.until(at(107)), Duration::from_secs(10));
    }
}
