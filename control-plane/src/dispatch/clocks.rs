//! The clocks of the agent protocol, all in one table. The inequalities between them are what
//! makes the protocol safe; a test holds them.

use std::time::Duration;

/// How long what may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// Between pings to an agent that has tasks.
    pub ping_busy: Duration,
    /// Between pings to an agent that has none.
    pub ping_idle: Duration,
    /// An agent that sends nothing for so long after a ping is taken for dead.
    pub ping_timeout: Duration,
    /// A task that is not accepted for so long goes back to the queue.
    pub accept: Duration,
    /// A task that its agent says nothing about for so long is lost.
    pub lease: Duration,
    /// How long a replica's lease on its runs lasts.
    pub replica_lease: Duration,
    /// How long the tasks of adopted runs wait to be claimed.
    pub grace: Duration,
    /// How long a task whose time is up, or whose run ended, may take to stop.
    pub stop_grace: Duration,
    /// How long a claim of a task not known yet stands.
    pub claim: Duration,
    /// How long a stream lives, more or less a fifth.
    pub stream_life: Duration,
    /// How long an agent may take to connect again after `Rebalance`.
    pub rebalance_within: Duration,
    /// A report that nobody took is made again after so long.
    pub report_again: Duration,
}

impl Default for Clocks {
    fn default() -> Self {
        Self {
            ping_busy: Duration::from_secs(1),
            ping_idle: Duration::from_secs(20),
            ping_timeout: Duration::from_secs(3),
            accept: Duration::from_secs(5),
            lease: Duration::from_secs(15),
            replica_lease: Duration::from_secs(5),
            grace: Duration::from_secs(3),
            stop_grace: Duration::from_secs(5),
            claim: Duration::from_secs(15),
            stream_life: Duration::from_secs(30 * 60),
            rebalance_within: Duration::from_secs(10),
            report_again: Duration::from_secs(1),
        }
    }
}

impl Clocks {
    /// How long a stream lives, given a random number from 0 to 1.
    #[must_use]
    pub fn stream_life(&self, random: f64) -> Duration {
        self.stream_life.mul_f64(0.8 + 0.4 * random.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inequalities_that_make_the_protocol_safe_hold() {
        let clocks = Clocks::default();
        assert!(clocks.ping_busy < clocks.ping_timeout, "a dead agent misses more than one ping");
        assert!(clocks.ping_timeout < clocks.replica_lease, "an agent leaves a cut-off replica");
        assert!(clocks.replica_lease <= clocks.accept, "what is accepted late is another's");
        assert!(clocks.accept < clocks.lease, "acceptance is decided before the lease");
        assert!(clocks.ping_timeout + clocks.accept < clocks.lease, "time to reconnect");
        assert!(clocks.grace < clocks.lease, "a claim comes before the lease ends");
        assert!(clocks.ping_timeout <= clocks.grace, "agents notice a restart within the grace");
        assert!(clocks.claim >= clocks.grace, "a claim outlives the adoption it waits for");
        assert!(clocks.rebalance_within < clocks.lease, "moving to a new stream loses no task");
        assert!(clocks.ping_idle < clocks.stream_life);
    }

    #[test]
    fn a_stream_lives_thirty_minutes_more_or_less_a_fifth() {
        let clocks = Clocks::default();
        assert_eq!(clocks.stream_life(0.0), Duration::from_secs(24 * 60));
        assert_eq!(clocks.stream_life(1.0), Duration::from_secs(36 * 60));
    }
}
