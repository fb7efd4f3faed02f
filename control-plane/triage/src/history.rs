//! How agents did: successes and durations per agent type and category, fading with time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Days after which what happened counts half.
const HALF_LIFE_DAYS: f64 = 30.0;
/// Outcomes that the prior is worth.
const PRIOR_COUNT: f64 = 4.0;
/// The share that is thought to go well of those of whom nothing is known.
const PRIOR_RATE: f64 = 0.75;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// What is known of one agent type in one category.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Record {
    /// What went well, faded to `day`.
    good: f64,
    /// What did not.
    bad: f64,
    /// The sum of durations in milliseconds, and how many they were, faded.
    duration_ms: f64,
    timed: f64,
    /// Days since 1970.
    day: i64,
}

/// The history of all agents.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// By agent type, then category.
    records: BTreeMap<String, BTreeMap<String, Record>>,
}

impl History {
    /// Takes in one outcome. `duration_ms` is how long it took, where that is known.
    pub fn record(
        &mut self,
        agent_type: &str,
        category: &str,
        good: bool,
        duration_ms: Option<u64>,
        at_ms: i64,
    ) {
        let day = at_ms.div_euclid(DAY_MS);
        let record = self
            .records
            .entry(agent_type.to_owned())
            .or_default()
            .entry(category.to_owned())
            .or_default();
        let fade = fading(day - record.day);
        for value in [&mut record.good, &mut record.bad, &mut record.duration_ms, &mut record.timed]
        {
            *value *= fade;
        }
        // Outcomes come in any order; an old one counts as what it is worth by now.
        let worth = fading(record.day - day);
        record.day = record.day.max(day);
        *(if good { &mut record.good } else { &mut record.bad }) += worth;
        if let Some(duration_ms) = duration_ms {
            record.duration_ms += worth * duration_ms as f64;
            record.timed += worth;
        }
    }

    /// The share that went well, the prior included, 0 to 1. Changes with the day, not the hour.
    pub fn rate(&self, agent_type: &str, category: &str, now_ms: i64) -> f64 {
        let Some(record) = self.get(agent_type, category) else { return PRIOR_RATE };
        let fade = fading(now_ms.div_euclid(DAY_MS) - record.day);
        let (good, bad) = (record.good * fade, record.bad * fade);
        (good + PRIOR_COUNT * PRIOR_RATE) / (good + bad + PRIOR_COUNT)
    }

    /// The mean duration in milliseconds, where any is known.
    pub fn duration_ms(&self, agent_type: &str, category: &str) -> Option<u64> {
        let record = self.get(agent_type, category).filter(|record| record.timed > 0.0)?;
        Some((record.duration_ms / record.timed).round() as u64)
    }

    fn get(&self, agent_type: &str, category: &str) -> Option<&Record> {
        self.records.get(agent_type)?.get(category)
    }
}

fn fading(days: i64) -> f64 {
    if days <= 0 { 1.0 } else { 0.5_f64.powf(days as f64 / HALF_LIFE_DAYS) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_raises_and_failure_lowers_and_time_forgets() {
        let mut history = History::default();
        assert_eq!(history.rate("a", "x", 0), PRIOR_RATE);
        for _ in 0..20 {
            history.record("a", "x", true, Some(2_000), 0);
            history.record("b", "x", false, None, 0);
        }
        assert!(history.rate("a", "x", 0) > 0.9);
        assert!(history.rate("b", "x", 0) < 0.2);
        assert_eq!(history.rate("a", "y", 0), PRIOR_RATE);
        let year = 365 * DAY_MS;
        assert!((history.rate("b", "x", year) - PRIOR_RATE).abs() < 0.01);
        assert_eq!(history.duration_ms("a", "x"), Some(2_000));
        assert_eq!(history.duration_ms("b", "x"), None);
    }

    #[test]
    fn an_old_outcome_that_comes_late_counts_little() {
        let mut history = History::default();
        history.record("a", "x", true, None, 300 * DAY_MS);
        let before = history.rate("a", "x", 300 * DAY_MS);
        history.record("a", "x", false, None, 0);
        assert!((history.rate("a", "x", 300 * DAY_MS) - before).abs() < 0.01);
    }
}
