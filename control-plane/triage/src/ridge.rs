//! What examples and declarations say together of a class: ridge regression in their likeness to
//! each other. Where [`crate::likeness`] looks at the sum of a class or at its nearest, this weighs
//! each known text by what it adds to the others.

use crate::limits;

/// How much is taken for noise: the larger, the less a single text counts.
const NOISE: f64 = 0.1;

/// The weights of the known texts, for each class.
#[derive(Debug)]
pub(crate) struct Ridge {
    /// The first example that is weighed; older ones are not.
    first: usize,
    examples: usize,
    classes: usize,
    /// By text (examples, then declarations) and class.
    weights: Vec<f64>,
    /// How much each text says of itself: what is needed to leave it out.
    own: Vec<f64>,
}

impl Ridge {
    /// From the class of each example and from the likeness of two texts; texts are numbered:
    /// first the examples, then the declaration of each class. `row` gives a text's likeness to all
    /// examples and to all declarations, a text's to itself being one.
    pub(crate) fn new(
        class_of: &[usize],
        classes: usize,
        row: impl Fn(usize) -> (Vec<f64>, Vec<f64>),
    ) -> Ridge {
        let first = class_of.len().saturating_sub(limits::RIDGE_EXAMPLES_MAX);
        let examples = class_of.len() - first;
        let texts = examples + classes;
        let mut lower = Vec::with_capacity(texts);
        for text in 0..texts {
            let (to_examples, to_declared) = row(first + text);
            let mut row: Vec<f64> = to_examples[first..].to_vec();
            row.extend(to_declared);
            row.truncate(text + 1);
            row[text] += NOISE;
            lower.push(row);
        }
        factor(&mut lower);
        let inverse = inverse(&lower);
        let class = |text: usize| match text.checked_sub(examples) {
            Some(declared) => declared,
            None => class_of[first + text],
        };
        let mut ridge =
            Ridge { first, examples, classes, weights: vec![0.0; texts * classes], own: vec![] };
        ridge.own = vec![0.0; texts];
        let even = 1.0 / classes as f64;
        for row in &inverse {
            // This row times the wanted values: one for a text's class, less the mean.
            let all: f64 = row.iter().sum();
            let mut wanted = vec![-all * even; classes];
            for (text, value) in row.iter().enumerate() {
                wanted[class(text)] += value;
            }
            for (text, value) in row.iter().enumerate() {
                ridge.own[text] += value * value;
                let weights = &mut ridge.weights[text * classes..(text + 1) * classes];
                for (weight, wanted) in weights.iter_mut().zip(&wanted) {
                    *weight += value * wanted;
                }
            }
        }
        ridge
    }

    /// What it says of each class of a text, from the text's likeness to all examples and to all
    /// declarations.
    pub(crate) fn says(&self, to_examples: &[f32], to_declared: &[f32]) -> Vec<f64> {
        let mut out = vec![0.0; self.classes];
        let known = to_examples[self.first..].iter().chain(to_declared);
        for (likeness, weights) in known.zip(self.weights.chunks_exact(self.classes.max(1))) {
            if *likeness != 0.0 {
                for (out, weight) in out.iter_mut().zip(weights) {
                    *out += f64::from(*likeness) * weight;
                }
            }
        }
        out
    }

    /// What it would say of an example, had that one not been known; nothing where it is too old to
    /// be weighed.
    pub(crate) fn says_without(&self, example: usize, class: usize) -> Option<Vec<f64>> {
        let text = example.checked_sub(self.first)?;
        let even = 1.0 / self.classes as f64;
        let weights = &self.weights[text * self.classes..(text + 1) * self.classes];
        let of = |(at, weight): (usize, &f64)| {
            let wanted = f64::from(u8::from(at == class)) - even;
            wanted - weight / self.own[text]
        };
        Some(weights.iter().enumerate().map(of).collect())
    }

    /// The weight of an example for a class.
    pub(crate) fn of_example(&self, example: usize, class: usize) -> f64 {
        let text = example.checked_sub(self.first);
        text.map_or(0.0, |text| self.weights[text * self.classes + class])
    }

    /// The weight of a declaration for a class.
    pub(crate) fn of_declared(&self, declared: usize, class: usize) -> f64 {
        self.weights[(self.examples + declared) * self.classes + class]
    }
}

/// Takes a symmetric positive matrix, given by its lower half, apart into `L * L^T` (Cholesky).
fn factor(lower: &mut [Vec<f64>]) {
    for row in 0..lower.len() {
        let (done, rest) = lower.split_at_mut(row);
        let own = &mut rest[0];
        for (column, other) in done.iter().enumerate() {
            let (before, at) = own.split_at_mut(column);
            let sum: f64 = before.iter().zip(other).map(|(left, right)| left * right).sum();
            at[0] = (at[0] - sum) / other[column];
        }
        let length: f64 = own[..row].iter().map(|x| x * x).sum();
        own[row] = (own[row] - length).max(1e-12).sqrt();
    }
}

/// The inverse of a lower triangle.
fn inverse(lower: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let mut inverse: Vec<Vec<f64>> = Vec::with_capacity(lower.len());
    for (at, row) in lower.iter().enumerate() {
        let mut own = vec![0.0; at + 1];
        for (factor, before) in row.iter().zip(&inverse) {
            for (own, before) in own.iter_mut().zip(before) {
                *own -= factor * before;
            }
        }
        own[at] = 1.0;
        for value in &mut own {
            *value /= row[at];
        }
        inverse.push(own);
    }
    inverse
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Six texts of three numbers: four examples of two classes, and the declarations of both.
    const TEXTS: [[f64; 3]; 6] = [
        [1.0, 0.1, 0.0],
        [0.9, 0.0, 0.4],
        [0.0, 1.0, 0.2],
        [0.3, 0.9, 0.0],
        [1.0, 0.0, 0.0],
        [0.0, 1.0, 0.0],
    ];

    fn likeness(left: &[f64; 3], right: &[f64; 3]) -> f64 {
        left.iter().zip(right).map(|(left, right)| left * right).sum()
    }

    fn ridge(examples: &[usize], class_of: &[usize]) -> Ridge {
        let texts: Vec<usize> = examples.iter().copied().chain([4, 5]).collect();
        Ridge::new(class_of, 2, |text| {
            let to = |other: &usize| likeness(&TEXTS[texts[text]], &TEXTS[*other]);
            (examples.iter().map(to).collect(), [4, 5].iter().map(to).collect())
        })
    }

    fn says(ridge: &Ridge, examples: &[usize], text: &[f64; 3]) -> Vec<f64> {
        let to = |other: &usize| likeness(text, &TEXTS[*other]) as f32;
        let known: Vec<f32> = examples.iter().map(to).collect();
        ridge.says(&known, &[4, 5].map(|other| to(&other)))
    }

    #[test]
    fn leaving_one_out_is_the_same_as_never_having_seen_it() {
        let all = ridge(&[0, 1, 2, 3], &[0, 0, 1, 1]);
        let fewer = ridge(&[0, 1, 3], &[0, 0, 1]);
        let left_out = all.says_without(2, 1).unwrap();
        let unseen = says(&fewer, &[0, 1, 3], &TEXTS[2]);
        for (left, right) in left_out.iter().zip(&unseen) {
            assert!((left - right).abs() < 1e-6, "{left_out:?} {unseen:?}");
        }
        assert!(unseen[1] > unseen[0]);
    }

    #[test]
    fn what_is_known_is_said_of_what_is_like_it() {
        let all = ridge(&[0, 1, 2, 3], &[0, 0, 1, 1]);
        let said = says(&all, &[0, 1, 2, 3], &[0.8, 0.1, 0.3]);
        assert!(said[0] > 0.2 && said[1] < -0.2, "{said:?}");
        let by_hand: f64 = (0..4).map(|at| all.of_example(at, 0)).sum::<f64>()
            + (0..2).map(|at| all.of_declared(at, 0)).sum::<f64>();
        let of_all = all.says(&[1.0; 4], &[1.0; 2]);
        assert!((by_hand - of_all[0]).abs() < 1e-9, "{by_hand} {of_all:?}");
    }
}
