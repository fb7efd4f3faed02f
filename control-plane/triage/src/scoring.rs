//! The one scoring function of the product: of several that could do something, who should. Used
//! for
//! agents; fit for models and whatever else is chosen by what it can, did, costs and has free.

use serde::{Deserialize, Serialize};

/// The weight of what a candidate can.
pub const CAPABILITY: f64 = 0.40;
/// The weight of how it did before.
pub const HISTORY: f64 = 0.25;
/// The weight of what it costs.
pub const COST: f64 = 0.20;
/// The weight of how much of it is free.
pub const AVAILABILITY: f64 = 0.15;
/// The part of a candidate whose cost is unknown: neither praised nor blamed.
const COST_UNKNOWN: f64 = 50.0;

/// One that could do it.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate<T> {
    /// Who. The order of `T` breaks ties.
    pub who: T,
    /// How well it fits, 0 to 1.
    pub capability: f64,
    /// The share that went well, 0 to 1.
    pub history: f64,
    /// What it costs; `None` when unknown.
    pub cost: Option<f64>,
    /// How much of it is free, 0 to 1.
    pub availability: f64,
}

/// A score and its parts, each 0 to 100, with two digits behind the point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The weighed sum of the parts.
    pub total: f64,
    /// How well it fits.
    pub capability: f64,
    /// How it did before.
    pub history: f64,
    /// 100 for the cheapest, less for dearer ones in proportion.
    pub cost: f64,
    /// How much of it is free.
    pub availability: f64,
}

/// Scores candidates: the best first, ties in the order of their names.
pub fn rank<T: Ord>(candidates: Vec<Candidate<T>>) -> Vec<(T, Score)> {
    let cheapest = candidates
        .iter()
        .filter_map(|candidate| candidate.cost)
        .filter(|cost| cost.is_finite() && *cost >= 0.0)
        .fold(f64::INFINITY, f64::min);
    let mut ranked: Vec<(T, Score)> = candidates
        .into_iter()
        .map(|candidate| {
            let score = score(&candidate, cheapest);
            (candidate.who, score)
        })
        .collect();
    ranked.sort_by(|left, right| {
        right.1.total.total_cmp(&left.1.total).then_with(|| left.0.cmp(&right.0))
    });
    ranked
}

fn score<T>(candidate: &Candidate<T>, cheapest: f64) -> Score {
    let share = |value: f64| {
        if value.is_nan() { 0.0 } else { round(value.clamp(0.0, 1.0) * 100.0) }
    };
    let cost = match candidate.cost {
        Some(cost) if cost.is_finite() && cost > 0.0 => round(cheapest / cost * 100.0),
        Some(0.0) => 100.0,
        _ => COST_UNKNOWN,
    };
    let (capability, history) = (share(candidate.capability), share(candidate.history));
    let availability = share(candidate.availability);
    let total =
        CAPABILITY * capability + HISTORY * history + COST * cost + AVAILABILITY * availability;
    Score { total: round(total), capability, history, cost, availability }
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(who: &str, cost: Option<f64>, availability: f64) -> Candidate<String> {
        Candidate { who: who.into(), capability: 0.9, history: 0.8, cost, availability }
    }

    #[test]
    fn each_part_weighs_what_it_should_and_is_kept() {
        let ranked = rank(vec![
            candidate("dear", Some(4.0), 1.0),
            candidate("cheap", Some(1.0), 0.5),
            candidate("unknown", None, 0.0),
        ]);
        let names: Vec<&str> = ranked.iter().map(|(who, _)| who.as_str()).collect();
        assert_eq!(names, ["cheap", "dear", "unknown"]);
        let cheap = ranked[0].1;
        assert_eq!((cheap.capability, cheap.history), (90.0, 80.0));
        assert_eq!((cheap.cost, cheap.availability), (100.0, 50.0));
        assert_eq!(cheap.total, 0.4 * 90.0 + 0.25 * 80.0 + 0.2 * 100.0 + 0.15 * 50.0);
        assert_eq!((ranked[1].1.cost, ranked[2].1.cost), (25.0, 50.0));
    }

    #[test]
    fn ties_break_by_name_and_nothing_breaks_on_odd_numbers() {
        let ranked = rank(vec![candidate("b", None, 1.0), candidate("a", None, 1.0)]);
        assert_eq!(ranked[0].0, "a");
        let ranked = rank(vec![
            candidate("free", Some(0.0), f64::NAN),
            candidate("odd", Some(f64::NAN), f64::INFINITY),
            candidate("minus", Some(-1.0), -1.0),
        ]);
        assert!(ranked.iter().all(|(_, score)| (0.0..=100.0).contains(&score.total)));
    }
}
