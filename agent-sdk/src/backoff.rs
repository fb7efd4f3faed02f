//! How long to wait before connecting again: twice as long each time, with jitter, so that
//! agents do not come back all at once.

use std::time::Duration;

use rand::RngExt as _;

use crate::limits::{BACKOFF_MAX, BACKOFF_MIN, BACKOFF_WITH_TASKS_MAX};

#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The next delay: between half of the bound and the bound.
    pub(crate) fn next(&mut self, with_tasks: bool) -> Duration {
        let most = if with_tasks { BACKOFF_WITH_TASKS_MAX } else { BACKOFF_MAX };
        let bound = BACKOFF_MIN.saturating_mul(1 << self.failures.min(16)).min(most);
        self.failures = self.failures.saturating_add(1);
        #[expect(clippy::disallowed_methods, reason = "jitter is to differ between processes")]
        let mut rng = rand::rng();
        rng.random_range(bound / 2..=bound)
    }

    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_up_to_their_bound() {
        let mut backoff = Backoff::default();
        let delays: Vec<Duration> = (0..40).map(|_| backoff.next(false)).collect();
        assert!(delays[0] <= BACKOFF_MIN && delays[0] >= BACKOFF_MIN / 2);
        assert!(delays.iter().all(|delay| *delay <= BACKOFF_MAX));
        assert!(delays[39] >= BACKOFF_MAX / 2);
        backoff.reset();
        assert!(backoff.next(false) <= BACKOFF_MIN);
    }

    #[test]
    fn with_tasks_it_is_tried_at_least_each_second() {
        let mut backoff = Backoff::default();
        assert!((0..40).all(|_| backoff.next(true) <= BACKOFF_WITH_TASKS_MAX));
    }
}
