//! Whether new runs are taken on: the bounds of what may be under way, and how full each is.
//!
//! Only starts are asked for here. Signals, results and cancels of runs that there are always
//! pass, for they are what makes room again; and what was accepted is never given up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::Context;
use super::status::Refusal;
use crate::limits;

/// When a refused start is worth another try.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Counts the starts that are under way, and those that were refused. Cheap to clone; all clones
/// count together.
#[derive(Clone, Debug)]
pub struct Admission(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    runs_max: usize,
    starting: AtomicUsize,
    refused: AtomicU64,
}

/// A start that was let in; it counts until this is dropped.
#[derive(Debug)]
pub struct Permit(Arc<Counts>);

/// A bound of what may be under way, and how full it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Its name in metrics and errors.
    pub name: &'static str,
    /// What it counts, for people.
    pub what: &'static str,
    /// How many there are.
    pub used: usize,
    /// With so many, starts are refused.
    pub max: usize,
    /// What helps where it is often reached.
    pub remedy: &'static str,
}

impl Bound {
    /// Whether starts are refused for it.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        self.used >= self.max
    }
}

impl Admission {
    /// Lets at most `runs_max` runs be under way at once.
    #[must_use]
    pub fn new(runs_max: usize) -> Self {
        let (starting, refused) = (AtomicUsize::new(0), AtomicU64::new(0));
        Self(Arc::new(Counts { runs_max, starting, refused }))
    }
}

fn millis(duration: Duration) -> usize {
    usize::try_from(duration.as_millis()).unwrap_or(usize::MAX)
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.starting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Context {
    /// All bounds, as they are now.
    #[must_use]
    pub fn bounds(&self) -> [Bound; 6] {
        let counts = &self.admission.0;
        // A start that is being committed counts twice for a moment: rather too few than too many.
        let runs = self.runs.active() + counts.starting.load(Ordering::Relaxed);
        self.bounds_with(runs)
    }

    fn bounds_with(&self, runs: usize) -> [Bound; 6] {
        let backlog = self.runs.backlog();
        [
            Bound {
                name: "active_runs",
                what: "runs in memory",
                used: runs,
                max: self.admission.0.runs_max,
                remedy: "raise `max_active_runs` if there is memory for more, or add a replica",
            },
            Bound {
                name: "starts",
                what: "runs that wait to be begun",
                used: backlog.starts,
                max: limits::STARTS_WAITING_ADMITTED,
                remedy: "start them more evenly, or add a replica",
            },
            Bound {
                name: "start_wait",
                what: "milliseconds that a run waits to be begun",
                used: millis(backlog.start_wait),
                max: millis(limits::START_WAIT_ADMITTED),
                remedy: "what is under way takes all there is: add a replica, or a faster machine",
            },
            Bound {
                name: "commands",
                what: "commands that wait to be decided",
                used: backlog.commands,
                max: limits::COMMANDS_WAITING_ADMITTED,
                remedy: "the processor is the limit: add a replica, or a faster machine",
            },
            Bound {
                name: "commits",
                what: "transitions that wait to be written",
                used: backlog.commits,
                max: limits::COMMITS_WAITING_ADMITTED,
                remedy: "the database is the limit: see to its disk and its load",
            },
            Bound {
                name: "tasks",
                what: "tasks that wait for an agent",
                used: self.dispatcher.waiting(),
                max: limits::TASKS_WAITING_MAX,
                remedy: "add agents, or more slots to those that there are",
            },
        ]
    }

    /// How many starts were refused since the server started.
    #[must_use]
    pub fn refused_starts(&self) -> u64 {
        self.admission.0.refused.load(Ordering::Relaxed)
    }

    /// Lets a start in, as long as no bound is reached.
    ///
    /// # Errors
    /// With the bound that is reached, and when to come again.
    pub fn admit(&self) -> Result<Permit, Refusal> {
        let counts = &self.admission.0;
        // Counted before the look, so that of many at once none slips by.
        let before = counts.starting.fetch_add(1, Ordering::Relaxed);
        let permit = Permit(Arc::clone(counts));
        let bounds = self.bounds_with(self.runs.active() + before);
        match bounds.into_iter().find(Bound::is_reached) {
            None => Ok(permit),
            Some(bound) => Err(self.refuse(bound)),
        }
    }

    fn refuse(&self, bound: Bound) -> Refusal {
        let Bound { name, what, used, max, remedy } = bound;
        metrics::counter!("orchestrator_starts_refused_total", "bound" => name).increment(1);
        let refused = self.admission.0.refused.fetch_add(1, Ordering::Relaxed) + 1;
        if refused.is_power_of_two() {
            tracing::warn!(refused, bound = name, used, max, "starts are refused; {remedy}");
        }
        let message = format!("there are {used} {what}, and {max} are allowed; try again shortly");
        Refusal::overloaded(message.clone()).quota(name, message).retry_after(RETRY_AFTER)
    }
}
