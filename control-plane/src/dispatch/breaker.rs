//! The circuit breaker of one agent and action. Pure: told what happened and when.
//!
//! ```text
//! closed    --too many failures in the window--> open
//! open      --its time is over-----------------> half open
//! half open --the trial went well--------------> closed
//! half open --the trial failed-----------------> open, twice as long
//! ```

use std::time::Duration;

use engine::Instant;

use crate::limits;

/// Where a circuit breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stand {
    /// Tasks go through.
    Closed,
    /// No task goes through until then.
    Open(Instant),
    /// One task goes through, to try.
    HalfOpen,
}

/// What a task says about the agent's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The agent did its part, even if the answer was a refusal.
    Good,
    /// A failure that may be the agent's.
    Bad,
    /// Nothing, as a cancelled task.
    Nothing,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    number: i64,
    good: u32,
    bad: u32,
}

#[derive(Clone, Debug)]
pub(super) struct Breaker {
    stand: Stand,
    /// The trial is out.
    trial: bool,
    buckets: [Bucket; limits::BREAKER_BUCKETS],
    opened_in_a_row: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            stand: Stand::Closed,
            trial: false,
            buckets: [Bucket::default(); limits::BREAKER_BUCKETS],
            opened_in_a_row: 0,
        }
    }
}

impl Breaker {
    /// Whether a task may go through now.
    pub(super) fn permits(&self, now: Instant) -> bool {
        match self.stand {
            Stand::Closed => true,
            Stand::Open(until) => until <= now,
            Stand::HalfOpen => !self.trial,
        }
    }

    /// A permitted task goes through; says whether it is the trial.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        debug_assert!(self.permits(now), "only a permitted task goes through");
        self.turn(now);
        self.trial = self.stand == Stand::HalfOpen;
        self.trial
    }

    /// Moves on from open to half open when the time has come.
    pub(super) fn turn(&mut self, now: Instant) -> bool {
        match self.stand {
            Stand::Open(until) if until <= now => {
                self.stand = Stand::HalfOpen;
                self.trial = false;
                true
            }
            _ => false,
        }
    }

    /// A task came to its end.
    pub(super) fn settle(&mut self, verdict: Verdict, trial: bool, now: Instant) {
        match (self.stand, verdict) {
            (Stand::Closed, Verdict::Good) => self.bucket(now).good += 1,
            (Stand::Closed, Verdict::Bad) => {
                self.bucket(now).bad += 1;
                if self.is_too_bad(now) {
                    self.open(now);
                }
            }
            (Stand::HalfOpen, Verdict::Good) if trial => *self = Self::default(),
            (Stand::HalfOpen, Verdict::Bad) if trial => self.open(now),
            (Stand::HalfOpen, Verdict::Nothing) if trial => self.trial = false,
            _ => {}
        }
    }

    /// Where it stands.
    pub(super) fn stand(&self, now: Instant) -> Stand {
        match self.stand {
            Stand::Open(until) if until <= now => Stand::HalfOpen,
            stand => stand,
        }
    }

    /// When it lets a trial through; `None` unless it is open.
    pub(super) fn reopens_at(&self) -> Option<Instant> {
        match self.stand {
            Stand::Open(until) => Some(until),
            Stand::Closed | Stand::HalfOpen => None,
        }
    }

    /// How many failures its window has.
    pub(super) fn failures(&self, now: Instant) -> u32 {
        self.counts(now).1
    }

    fn open(&mut self, now: Instant) {
        let factor = 1_u32.checked_shl(self.opened_in_a_row).unwrap_or(u32::MAX);
        let time = limits::BREAKER_OPEN_MIN.saturating_mul(factor);
        self.stand = Stand::Open(now.after(time.min(limits::BREAKER_OPEN_MAX)));
        self.trial = false;
        self.opened_in_a_row = self.opened_in_a_row.saturating_add(1);
    }

    fn is_too_bad(&self, now: Instant) -> bool {
        let (good, bad) = self.counts(now);
        let all = u64::from(good) + u64::from(bad);
        all >= u64::from(limits::BREAKER_RESULTS_MIN)
            && u64::from(bad) * 100 >= all * u64::from(limits::BREAKER_FAILURE_PERCENT)
    }

    fn counts(&self, now: Instant) -> (u32, u32) {
        let oldest = bucket_number(now) - buckets_count();
        let recent = self.buckets.iter().filter(|bucket| bucket.number > oldest);
        recent.fold((0, 0), |(good, bad), bucket| (good + bucket.good, bad + bucket.bad))
    }

    fn bucket(&mut self, now: Instant) -> &mut Bucket {
        let number = bucket_number(now);
        let index = usize::try_from(number.rem_euclid(buckets_count())).unwrap_or(0);
        let bucket = &mut self.buckets[index];
        if bucket.number != number {
            *bucket = Bucket { number, ..Bucket::default() };
        }
        bucket
    }
}

fn buckets_count() -> i64 {
    i64::try_from(limits::BREAKER_BUCKETS).unwrap_or(1)
}

fn bucket_number(now: Instant) -> i64 {
    let width: Duration = limits::BREAKER_WINDOW;
    let micros = i64::try_from(width.as_micros()).unwrap_or(i64::MAX) / buckets_count();
    now.0.div_euclid(micros.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant(1_000_000_000_000);

    fn opened() -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..limits::BREAKER_RESULTS_MIN {
            assert_eq!(breaker.stand(START), Stand::Closed);
            breaker.settle(Verdict::Bad, false, START);
        }
        breaker
    }

    #[test]
    fn it_opens_when_enough_results_in_the_window_are_failures() {
        let breaker = opened();
        assert_eq!(breaker.stand(START), Stand::Open(START.after(limits::BREAKER_OPEN_MIN)));
        assert!(!breaker.permits(START));
    }

    #[test]
    fn it_stays_closed_while_most_results_are_good() {
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            breaker.settle(Verdict::Good, false, START);
            breaker.settle(Verdict::Good, false, START);
            breaker.settle(Verdict::Bad, false, START);
        }
        assert_eq!(breaker.stand(START), Stand::Closed);
    }

    #[test]
    fn failures_older_than_the_window_do_not_count() {
        let mut breaker = Breaker::default();
        for _ in 1..limits::BREAKER_RESULTS_MIN {
            breaker.settle(Verdict::Bad, false, START);
        }
        let later = START.after(limits::BREAKER_WINDOW + Duration::from_secs(4));
        breaker.settle(Verdict::Bad, false, later);
        assert_eq!(breaker.stand(later), Stand::Closed);
        assert_eq!(breaker.failures(later), 1);
    }

    #[test]
    fn half_open_lets_one_trial_through_which_closes_it_or_opens_it_for_longer() {
        let mut breaker = opened();
        let later = START.after(limits::BREAKER_OPEN_MIN);
        assert!(breaker.permits(later));
        assert!(breaker.begin(later));
        assert_eq!(breaker.stand(later), Stand::HalfOpen);
        assert!(!breaker.permits(later), "one trial at a time");

        let mut failed = breaker.clone();
        failed.settle(Verdict::Bad, false, later);
        assert_eq!(failed.stand(later), Stand::HalfOpen, "an older task is no trial");
        failed.settle(Verdict::Bad, true, later);
        assert_eq!(failed.stand(later), Stand::Open(later.after(limits::BREAKER_OPEN_MIN * 2)));

        breaker.settle(Verdict::Good, true, later);
        assert_eq!(breaker.stand(later), Stand::Closed);
        assert!(breaker.permits(later));
    }

    #[test]
    fn a_trial_that_says_nothing_makes_room_for_another() {
        let mut breaker = opened();
        let later = START.after(limits::BREAKER_OPEN_MIN);
        breaker.begin(later);
        breaker.settle(Verdict::Nothing, true, later);
        assert!(breaker.permits(later));
    }
}
