//! What a seed stands for: how much there is, and which faults it meets how often. Each kind of
//! fault is left out of many lives, so that those do not hide each other.

use std::time::Duration;

use crate::random::Random;

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// How long faults happen and clients begin something new.
    pub(crate) chaos: Duration,
    pub(crate) clients: u64,
    pub(crate) runs_per_client: u64,
    pub(crate) agents: u64,
    pub(crate) slots: i32,
    pub(crate) store: StoreFaults,
    pub(crate) network: NetworkFaults,
    /// Between two crashes of the replica, on average.
    pub(crate) replica_crashes: Option<Duration>,
    /// Between two crashes of an agent, on average.
    pub(crate) agent_crashes: Option<Duration>,
    /// Between two stops of an agent, on average; it then stands still for a while.
    pub(crate) agent_stalls: Option<Duration>,
    /// In a thousand, how many tasks take longer than a lease.
    pub(crate) slow_tasks: u64,
    /// In a thousand, how many attempts fail by themselves.
    pub(crate) failing_tasks: u64,
    /// Between two things that a client asks of its run, on average.
    pub(crate) commands: Option<Duration>,
    /// Several replicas live at once.
    pub(crate) several: Option<Several>,
}

/// Replicas that share the store by leases, and what befalls them, each so often on average.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Several {
    pub(crate) replicas: usize,
    /// What befalls one of them comes after such pauses.
    pub(crate) pause: Duration,
    pub(crate) dies: bool,
    pub(crate) restarts: bool,
    pub(crate) stalls: bool,
    /// It does not reach the store for a while.
    pub(crate) away: bool,
    /// It and another do not reach one another for a while.
    pub(crate) parted: bool,
    /// By how much clocks of machines differ at most.
    pub(crate) skew: Duration,
}

impl Several {
    fn new(random: &mut Random) -> Self {
        let skews = [Duration::from_secs(1), Duration::from_secs(60), Duration::from_secs(1200)];
        Self {
            replicas: 2 + usize::try_from(random.below(3)).unwrap(),
            pause: Duration::from_secs(3 + random.below(20)),
            dies: random.one_in(2),
            restarts: random.one_in(2),
            stalls: random.one_in(2),
            away: random.one_in(2),
            parted: random.one_in(2),
            skew: *random.pick(&skews),
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StoreFaults {
    /// The longest time that an answer takes as a rule.
    pub(crate) latency: Duration,
    /// In a thousand: nothing was done, and that is certain.
    pub(crate) unavailable: u64,
    /// In a thousand: whether it was written cannot be told.
    pub(crate) unknown: u64,
    /// In a thousand: which runs were taken over is not heard.
    pub(crate) unknown_take_over: u64,
    /// In a thousand: the answer takes seconds.
    pub(crate) slow: u64,
    /// Between two times at which nothing is answered, on average.
    pub(crate) outages: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NetworkFaults {
    pub(crate) latency: Duration,
    /// In a thousand frames: the connection breaks.
    pub(crate) cut: u64,
    /// In a thousand frames: the direction stands still for seconds.
    pub(crate) stall: u64,
    /// In a thousand frames of an agent: it comes twice.
    pub(crate) twice: u64,
    /// In a thousand frames of an agent: it comes late, behind others.
    pub(crate) late: u64,
}

impl Plan {
    pub(crate) fn new(random: &mut Random) -> Self {
        let sometimes = |random: &mut Random, share: u64| {
            if random.one_in(2) { random.below(share) } else { 0 }
        };
        let now_and_then = |random: &mut Random| {
            let pause = Duration::from_secs(2 + random.below(20));
            random.one_in(2).then_some(pause)
        };
        Self {
            chaos: Duration::from_secs(5 + random.below(55)),
            clients: 1 + random.below(4),
            runs_per_client: 1 + random.below(3),
            agents: 1 + random.below(4),
            slots: i32::try_from(1 + random.below(6)).unwrap(),
            store: StoreFaults {
                latency: Duration::from_millis(random.below(20)),
                unavailable: sometimes(random, 100),
                unknown: sometimes(random, 100),
                unknown_take_over: 0,
                slow: sometimes(random, 30),
                outages: now_and_then(random),
            },
            network: NetworkFaults {
                latency: Duration::from_millis(random.below(20)),
                cut: sometimes(random, 40),
                stall: sometimes(random, 20),
                twice: sometimes(random, 60),
                late: sometimes(random, 60),
            },
            replica_crashes: now_and_then(random),
            agent_crashes: now_and_then(random),
            agent_stalls: now_and_then(random),
            slow_tasks: sometimes(random, 100),
            failing_tasks: sometimes(random, 200),
            commands: now_and_then(random),
            several: None,
        }
    }

    /// Several replicas live at once.
    pub(crate) fn of_several(random: &mut Random) -> Self {
        let mut plan = Self::new(random);
        plan.replica_crashes = None;
        plan.agents += 1;
        plan.several = Some(Several::new(random));
        plan
    }

    /// Answers are lost that say which runs were taken over.
    pub(crate) fn of_lost_take_overs(random: &mut Random) -> Self {
        let mut plan = Self::new(random);
        plan.store.unknown_take_over = 200;
        plan.replica_crashes = Some(Duration::from_secs(5));
        plan
    }

    /// A whole day of rare faults.
    pub(crate) fn of_a_day(random: &mut Random) -> Self {
        let hours = |hours: u64| Some(Duration::from_secs(hours * 3600));
        let day = Duration::from_secs(24 * 3600);
        let mut plan = Self::new(random);
        plan.chaos = day;
        plan.clients = 4;
        plan.runs_per_client = 40;
        plan.agents = 3;
        plan.replica_crashes = hours(2);
        plan.agent_crashes = hours(1);
        plan.agent_stalls = hours(1);
        plan.store.outages = hours(3);
        plan.network.cut = 1;
        plan.network.stall = 1;
        plan.commands = Some(Duration::from_secs(600));
        plan
    }
}
