//! Fits the weights of the evidence: the conditional logit model, by Newton's method, held near
//! weights that are known to be good. Few weights, a convex problem: no library is needed, and the
//! same input gives the same weights to the last bit.

use crate::likeness::{Evidence, KINDS};
use crate::limits;

/// How strongly weights are held where they began.
const HOLD: f64 = 0.05;

/// What each class is thought to be worth: the weights times the evidence, made into shares.
pub(crate) fn shares(evidence: &[Evidence], weights: &Evidence) -> Vec<f64> {
    let scores: Vec<f64> = evidence.iter().map(|evidence| dot(evidence, weights)).collect();
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut shares: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
    let all: f64 = shares.iter().sum();
    for share in &mut shares {
        *share /= all;
    }
    shares
}

/// The weights under which the known classes are likeliest, not far from `start`.
pub(crate) fn fit(examples: &[(Vec<Evidence>, usize)], start: &Evidence) -> Evidence {
    let mut weights = *start;
    let mut loss = loss_of(examples, &weights, start);
    for _ in 0..limits::FIT_STEPS_MAX {
        let step = newton_step(examples, &weights, start);
        let mut scale = 1.0;
        let mut better = None;
        // Halving keeps Newton's method from leaping over the valley.
        for _ in 0..20 {
            let mut next = weights;
            for (next, step) in next.iter_mut().zip(&step) {
                *next -= scale * step;
            }
            let next_loss = loss_of(examples, &next, start);
            if next_loss < loss {
                better = Some((next, next_loss));
                break;
            }
            scale /= 2.0;
        }
        let Some((next, next_loss)) = better else { break };
        let gain = loss - next_loss;
        (weights, loss) = (next, next_loss);
        if gain < 1e-9 {
            break;
        }
    }
    weights
}

fn dot(left: &Evidence, right: &Evidence) -> f64 {
    left.iter().zip(right).map(|(left, right)| left * right).sum()
}

fn loss_of(examples: &[(Vec<Evidence>, usize)], weights: &Evidence, start: &Evidence) -> f64 {
    let fitted: f64 = examples
        .iter()
        .map(|(evidence, class)| -shares(evidence, weights)[*class].max(1e-300).ln())
        .sum();
    let held: f64 = weights.iter().zip(start).map(|(weight, start)| (weight - start).powi(2)).sum();
    fitted + 0.5 * HOLD * held
}

fn newton_step(
    examples: &[(Vec<Evidence>, usize)],
    weights: &Evidence,
    start: &Evidence,
) -> Evidence {
    let mut slope = [0.0; KINDS];
    let mut bend = [[0.0; KINDS]; KINDS];
    for at in 0..KINDS {
        slope[at] = HOLD * (weights[at] - start[at]);
        bend[at][at] = HOLD;
    }
    for (evidence, class) in examples {
        let shares = shares(evidence, weights);
        let mut mean = [0.0; KINDS];
        for (evidence, share) in evidence.iter().zip(&shares) {
            for at in 0..KINDS {
                mean[at] += share * evidence[at];
            }
        }
        for at in 0..KINDS {
            slope[at] += mean[at] - evidence[*class][at];
        }
        for (evidence, share) in evidence.iter().zip(&shares) {
            for row in 0..KINDS {
                for column in 0..=row {
                    bend[row][column] +=
                        share * (evidence[row] - mean[row]) * (evidence[column] - mean[column]);
                }
            }
        }
    }
    solve(bend, slope)
}

/// Solves `bend * x = slope` for a symmetric positive `bend` given by its lower half (Cholesky).
fn solve(mut bend: [[f64; KINDS]; KINDS], slope: Evidence) -> Evidence {
    for row in 0..KINDS {
        for column in 0..=row {
            let done: f64 = (0..column).map(|at| bend[row][at] * bend[column][at]).sum();
            let value = bend[row][column] - done;
            bend[row][column] =
                if row == column { value.max(1e-12).sqrt() } else { value / bend[column][column] };
        }
    }
    let mut x = slope;
    for row in 0..KINDS {
        for at in 0..row {
            x[row] -= bend[row][at] * x[at];
        }
        x[row] /= bend[row][row];
    }
    for row in (0..KINDS).rev() {
        for at in row + 1..KINDS {
            x[row] -= bend[at][row] * x[at];
        }
        x[row] /= bend[row][row];
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_that_tells_classes_apart_gains_weight_and_noise_does_not() {
        let examples: Vec<(Vec<Evidence>, usize)> = (0..200)
            .map(|number| {
                let class = number % 2;
                let mut evidence = vec![[0.0; KINDS]; 2];
                // Right nine times of ten.
                let told = if number % 10 == 0 { 1 - class } else { class };
                evidence[told][0] = 1.0;
                evidence[number / 2 % 2][1] = 1.0;
                (evidence, class)
            })
            .collect();
        let weights = fit(&examples, &[0.0; KINDS]);
        assert!((weights[0] - 9.0_f64.ln()).abs() < 0.1, "{weights:?}");
        assert!(weights[1].abs() < 0.2, "{weights:?}");
        assert_eq!(weights, fit(&examples, &[0.0; KINDS]));
    }
}
