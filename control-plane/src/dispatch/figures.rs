//! Counts and latencies of agents, by minute, over a bounded span. Pure; told when.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use engine::Instant;

use crate::limits;

const MINUTE: Duration = Duration::from_secs(60);
/// Four buckets per doubling from a microsecond: an error of at most 19 %.
const BUCKETS_PER_DOUBLING: f64 = 4.0;
const BUCKETS_MAX: usize = 160;

/// The figures of one agent type and action.
#[derive(Clone, Debug, PartialEq)]
pub struct ActionFigures {
    /// The agent type.
    pub agent_type: Arc<str>,
    /// The action.
    pub action: Arc<str>,
    /// Tasks that ended.
    pub executions: u64,
    /// Those that failed.
    pub failures: u64,
    /// The median latency.
    pub p50: Option<Duration>,
    /// The 99th percentile of the latency.
    pub p99: Option<Duration>,
}

#[derive(Debug, Default)]
pub(super) struct Figures {
    series: BTreeMap<(Arc<str>, Arc<str>), VecDeque<Minute>>,
}

#[derive(Debug)]
struct Minute {
    number: i64,
    executions: u32,
    failures: u32,
    /// Grown as far as the slowest result needs.
    latencies: Vec<u32>,
}

impl Figures {
    pub(super) fn record(
        &mut self,
        agent_type: &Arc<str>,
        action: &Arc<str>,
        failed: bool,
        latency: Duration,
        now: Instant,
    ) {
        let key = (agent_type.clone(), action.clone());
        let is_full = self.series.len() >= limits::FIGURES_SERIES_MAX;
        if is_full && !self.series.contains_key(&key) {
            return;
        }
        let minutes = self.series.entry(key).or_default();
        let number = minute(now);
        if minutes.back().is_none_or(|last| last.number < number) {
            minutes.push_back(Minute { number, executions: 0, failures: 0, latencies: vec![] });
            let oldest = number - minutes_in(limits::FIGURES_SPAN);
            while minutes.front().is_some_and(|first| first.number <= oldest) {
                minutes.pop_front();
            }
        }
        let Some(last) = minutes.back_mut() else { return };
        last.executions += 1;
        last.failures += u32::from(failed);
        let bucket = bucket_of(latency);
        if last.latencies.len() <= bucket {
            last.latencies.resize(bucket + 1, 0);
        }
        last.latencies[bucket] += 1;
    }

    /// The figures of the last `range`, by type and action.
    pub(super) fn read(&self, range: Duration, now: Instant) -> Vec<ActionFigures> {
        let after = minute(now) - minutes_in(range).max(1);
        self.series.iter().map(|(key, minutes)| sum(key, minutes, after)).collect()
    }
}

impl Figures {
    /// Of each agent type how many tasks ended in each minute of `range`, the current one left
    /// out, and how long one took.
    pub(super) fn by_type(
        &self,
        range: Duration,
        now: Instant,
    ) -> Vec<(Arc<str>, Vec<u32>, Option<Duration>)> {
        let span = minutes_in(range).max(1);
        let first = minute(now) - span;
        let mut types: BTreeMap<&Arc<str>, (Vec<u32>, f64, f64)> = BTreeMap::new();
        for (key, minutes) in &self.series {
            let (counts, seconds, weight) = types.entry(&key.0).or_default();
            counts.resize(usize::try_from(span).unwrap_or_default(), 0);
            for one in minutes {
                let place = usize::try_from(one.number - first).ok();
                if let Some(count) = place.and_then(|place| counts.get_mut(place)) {
                    *count += one.executions;
                }
            }
            let figures = sum(key, minutes, first - 1);
            if let Some(p50) = figures.p50 {
                let executions = f64::from(u32::try_from(figures.executions).unwrap_or(u32::MAX));
                *seconds += p50.as_secs_f64() * executions;
                *weight += executions;
            }
        }
        let mean = |seconds: f64, weight: f64| {
            (weight > 0.0).then(|| Duration::from_secs_f64(seconds / weight))
        };
        types
            .into_iter()
            .map(|(agent, (counts, seconds, weight))| {
                (Arc::clone(agent), counts, mean(seconds, weight))
            })
            .collect()
    }
}

fn sum(key: &(Arc<str>, Arc<str>), minutes: &VecDeque<Minute>, after: i64) -> ActionFigures {
    let mut latencies = [0_u64; BUCKETS_MAX];
    let (mut executions, mut failures) = (0, 0);
    for minute in minutes.iter().filter(|minute| minute.number > after) {
        executions += u64::from(minute.executions);
        failures += u64::from(minute.failures);
        for (sum, count) in latencies.iter_mut().zip(&minute.latencies) {
            *sum += u64::from(*count);
        }
    }
    ActionFigures {
        agent_type: key.0.clone(),
        action: key.1.clone(),
        executions,
        failures,
        p50: percentile(&latencies, executions, 50),
        p99: percentile(&latencies, executions, 99),
    }
}

fn percentile(latencies: &[u64], count: u64, percent: u64) -> Option<Duration> {
    let rank = (count * percent).div_ceil(100).max(1);
    let mut seen = 0;
    let bucket = latencies.iter().position(|count| {
        seen += count;
        seen >= rank
    })?;
    Some(middle_of(bucket))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "clamped to the table before it is an index; precision is the table's"
)]
fn bucket_of(latency: Duration) -> usize {
    let micros = latency.as_micros().max(1) as f64;
    ((micros.log2() * BUCKETS_PER_DOUBLING).floor() as usize).min(BUCKETS_MAX - 1)
}

#[expect(clippy::cast_precision_loss, reason = "the number of a bucket is small")]
fn middle_of(bucket: usize) -> Duration {
    let micros = ((bucket as f64 + 0.5) / BUCKETS_PER_DOUBLING).exp2();
    Duration::from_secs_f64(micros / 1_000_000.0)
}

fn minute(now: Instant) -> i64 {
    now.0.div_euclid(i64::try_from(MINUTE.as_micros()).unwrap_or(i64::MAX))
}

fn minutes_in(span: Duration) -> i64 {
    i64::try_from(span.as_secs().div_ceil(60)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant(60_000_000 * 1_000);

    fn recorded(figures: &mut Figures, millis: u64, failed: bool, now: Instant) {
        figures.record(&"t".into(), &"a".into(), failed, Duration::from_millis(millis), now);
    }

    fn is_near(found: Option<Duration>, millis: f64) -> bool {
        let ratio = found.unwrap().as_secs_f64() * 1000.0 / millis;
        (0.8..1.25).contains(&ratio)
    }

    #[test]
    fn percentiles_are_within_a_fifth() {
        let mut figures = Figures::default();
        for millis in 1..=100 {
            recorded(&mut figures, millis, millis == 7, START);
        }
        let read = &figures.read(Duration::from_secs(3600), START)[0];
        assert_eq!((read.executions, read.failures), (100, 1));
        assert!(is_near(read.p50, 50.0), "{read:?}");
        assert!(is_near(read.p99, 99.0), "{read:?}");
    }

    #[test]
    fn what_is_older_than_the_range_does_not_count() {
        let mut figures = Figures::default();
        recorded(&mut figures, 1, false, START);
        let later = START.after(Duration::from_secs(600));
        recorded(&mut figures, 1, false, later);
        assert_eq!(figures.read(Duration::from_secs(300), later)[0].executions, 1);
        assert_eq!(figures.read(Duration::from_secs(1200), later)[0].executions, 2);
    }

    #[test]
    fn no_more_than_a_day_is_kept() {
        let mut figures = Figures::default();
        for number in 0..2000 {
            recorded(&mut figures, 1, false, START.after(MINUTE * number));
        }
        let minutes = figures.series.values().next().unwrap();
        assert_eq!(minutes.len(), 24 * 60);
    }

    #[test]
    fn extremes_fit_the_table() {
        let mut figures = Figures::default();
        recorded(&mut figures, 0, false, START);
        recorded(&mut figures, u64::MAX / 1_000_000, false, START);
        assert_eq!(figures.read(MINUTE, START)[0].executions, 2);
    }
}
