//! Percentiles, medians and slopes of what was measured. Pure.

use serde::Serialize;

/// How a quantity is spread, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Spread {
    /// Half are at most this.
    pub(crate) p50_ms: f64,
    /// All but one in a hundred are at most this.
    pub(crate) p99_ms: f64,
    /// The greatest.
    pub(crate) max_ms: f64,
    /// How many there are.
    pub(crate) count: usize,
}

impl Spread {
    /// The spread of times in microseconds; all zero when there are none.
    pub(crate) fn of(mut micros: Vec<u64>) -> Self {
        micros.sort_unstable();
        let milliseconds = |micros: u64| micros as f64 / 1000.0;
        Self {
            p50_ms: milliseconds(percentile(&micros, 50)),
            p99_ms: milliseconds(percentile(&micros, 99)),
            max_ms: milliseconds(micros.last().copied().unwrap_or(0)),
            count: micros.len(),
        }
    }
}

/// The smallest value that at least so many of a hundred are not above. `sorted` is ascending.
pub(crate) fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

/// The middle one, or the mean of the two in the middle; nothing of nothing.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[half]),
        _ => Some(f64::midpoint(sorted[half - 1], sorted[half])),
    }
}

/// How much the values grow from one to the next, by least squares.
pub(crate) fn slope(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    if values.len() < 2 {
        return 0.0;
    }
    let mean_place = (count - 1.0) / 2.0;
    let mean = values.iter().sum::<f64>() / count;
    let (mut up, mut down) = (0.0, 0.0);
    for (place, value) in values.iter().enumerate() {
        let away = place as f64 - mean_place;
        up += away * (value - mean);
        down += away * away;
    }
    up / down
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occur() {
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!(percentile(&hundred, 50), 50);
        assert_eq!(percentile(&hundred, 99), 99);
        assert_eq!(percentile(&hundred, 100), 100);
        assert_eq!(percentile(&[7], 50), 7);
        assert_eq!(percentile(&[7], 99), 7);
        assert_eq!(percentile(&[1, 2, 3], 99), 3);
        assert_eq!(percentile(&[], 99), 0);
    }

    #[test]
    fn a_spread_does_not_mind_the_order() {
        let spread = Spread::of(vec![3000, 1000, 2000]);
        assert_eq!((spread.p50_ms, spread.p99_ms, spread.max_ms), (2.0, 3.0, 3.0));
        assert_eq!(Spread::of(Vec::new()), Spread::default());
    }

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn slopes_see_growth_and_ignore_noise_around_a_level() {
        assert!((slope(&[1.0, 3.0, 5.0, 7.0]) - 2.0).abs() < 1e-9);
        assert!(slope(&[5.0, 4.0, 5.0, 4.0, 5.0]).abs() < 0.1);
        assert_eq!(slope(&[5.0]), 0.0);
    }
}
