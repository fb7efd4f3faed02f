//! Percentiles of latencies. It must not measure anything.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

/// Latencies in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct Latency {
    /// The shortest.
    pub min: f64,
    /// The mean.
    pub mean: f64,
    /// Half of all took no longer.
    pub p50: f64,
    /// Nine of ten took no longer.
    pub p90: f64,
    /// Ninety-nine of a hundred took no longer.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Latency {
    /// Sums up; none when there is nothing to sum up.
    pub fn of(mut durations: Vec<Duration>) -> Option<Self> {
        durations.sort_unstable();
        let count = u32::try_from(durations.len()).ok()?;
        let (min, max) = (*durations.first()?, *durations.last()?);
        let sum: Duration = durations.iter().sum();
        let rank = |percent: usize| {
            // The nearest rank: a value that was measured, not one in between.
            let rank = (durations.len() * percent).div_ceil(100).max(1);
            milliseconds(durations[rank - 1])
        };
        Some(Self {
            min: milliseconds(min),
            mean: milliseconds(sum / count),
            p50: rank(50),
            p90: rank(90),
            p99: rank(99),
            max: milliseconds(max),
        })
    }
}

/// To the microsecond: finer digits are noise.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(millis: impl IntoIterator<Item = u64>) -> Option<Latency> {
        Latency::of(millis.into_iter().map(Duration::from_millis).collect())
    }

    #[test]
    fn percentiles_are_measured_values() {
        let latency = of((1..=100).rev()).unwrap();
        let expect = Latency { min: 1.0, mean: 50.5, p50: 50.0, p90: 90.0, p99: 99.0, max: 100.0 };
        assert_eq!(latency, expect);
        let one = of([7]).unwrap();
        assert_eq!((one.min, one.p50, one.p99, one.max), (7.0, 7.0, 7.0, 7.0));
        assert_eq!(of([]), None);
    }
}
