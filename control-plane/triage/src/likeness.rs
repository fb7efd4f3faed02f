//! How like an issue is to what agents declare, and to issues whose outcome is known: the
//! evidence that the classifier weighs.

use std::collections::{BTreeMap, BTreeSet};

use crate::declaration::{Class, short_name};
use crate::ridge::Ridge;
use crate::space::{self, Index, KeyMap, Space, Vector};
use crate::words::{self, Tokens};

/// How many kinds of evidence there are.
pub const KINDS: usize = 8;
/// Of these the first need no confirmed outcomes.
pub const KINDS_DECLARED: usize = 3;
/// How much more than a keyword a class's name weighs.
const NAME: f32 = 2.0;
/// The place of what all known texts say.
const RIDGE: usize = 7;
/// Declared keywords found; likeness of words, then of runs of letters, to the declarations, to all
/// issues of a class together, to the most similar issue of a class; and what all known texts say,
/// each weighed (see [`crate::ridge`]).
pub type Evidence = [f64; KINDS];

/// What is known of the classes, ready to be compared with an issue.
#[derive(Debug)]
pub struct Knowledge {
    words: Side,
    runs: Side,
    phrases: KeyMap<Vec<(u32, f32)>>,
    /// None without examples.
    ridge: Option<Ridge>,
    class_of: Vec<usize>,
    classes: usize,
}

/// One way of looking at texts: by words or by runs of letters.
#[derive(Debug)]
struct Side {
    space: Space,
    declared: Index,
    sums: Index,
    lengths: Vec<f64>,
    examples: Index,
}

/// What is found out about one text.
#[derive(Debug, Default)]
pub struct Study {
    /// What speaks for each class.
    pub evidence: Vec<Evidence>,
    /// Where the text stands.
    pub place: Place,
    /// How like it is to each example.
    likeness: Vec<f32>,
}

/// A text in both spaces.
#[derive(Debug, Default)]
pub struct Place {
    words: Vector,
    runs: Vector,
}

impl Knowledge {
    /// From the declared classes and from examples, each with the index of its class.
    pub fn new(classes: &[Class], examples: &[(Tokens, usize)]) -> Knowledge {
        let declared: Vec<Tokens> =
            classes.iter().map(|class| words::tokens(&[&class.text])).collect();
        let class_of: Vec<usize> = examples.iter().map(|(_, class)| *class).collect();
        // Runs of letters that only one text has say little and are many; without examples the
        // declarations are too few to tell.
        let runs_min = if examples.is_empty() { 1 } else { 2 };
        let words = Side::new(&declared, examples, classes.len(), |text| &text.words, 1);
        let runs = Side::new(&declared, examples, classes.len(), |text| &text.runs, runs_min);
        let ridge = (!examples.is_empty()).then(|| {
            Ridge::new(&class_of, classes.len(), |text| {
                let tokens = match text.checked_sub(examples.len()) {
                    Some(class) => &declared[class],
                    None => &examples[text].0,
                };
                let by_words = words.space.vector(&tokens.words);
                let by_runs = runs.space.vector(&tokens.runs);
                let both = |of: fn(&Side) -> &Index| {
                    halves(&of(&words).products(&by_words), &of(&runs).products(&by_runs))
                };
                (both(|side| &side.examples), both(|side| &side.declared))
            })
        });
        Knowledge {
            phrases: phrases(classes),
            words,
            runs,
            ridge,
            class_of,
            classes: classes.len(),
        }
    }

    /// Where a text stands; one that is left out stands where it would if it had not been seen.
    fn place(&self, tokens: &Tokens, is_left_out: bool) -> Place {
        let (words, runs) = (&self.words.space, &self.runs.space);
        if is_left_out {
            let (words, runs) =
                (words.vector_unseen(&tokens.words), runs.vector_unseen(&tokens.runs));
            return Place { words, runs };
        }
        Place { words: words.vector(&tokens.words), runs: runs.vector(&tokens.runs) }
    }

    /// The evidence for each class. `without` leaves one example out, as if it had not been seen.
    pub fn study(&self, tokens: &Tokens, without: Option<usize>) -> Study {
        let place = self.place(tokens, without.is_some());
        let mut out = vec![[0.0; KINDS]; self.classes];
        for key in &tokens.phrases {
            for (class, weight) in self.phrases.get(key).into_iter().flatten() {
                out[*class as usize][0] += f64::from(*weight);
            }
        }
        for evidence in &mut out {
            evidence[0] = evidence[0].ln_1p();
        }
        let mut likeness = vec![0.0; self.class_of.len()];
        let mut declared = vec![0.0; self.classes];
        let seen = without.map(|_| self.place(tokens, false)).unwrap_or_default();
        let sides =
            [(&self.words, &place.words, &seen.words), (&self.runs, &place.runs, &seen.runs)];
        for (offset, (side, vector, seen)) in sides.into_iter().enumerate() {
            let left_out = without.map(|at| (at, seen));
            let to_declared = self.look(side, vector, left_out, offset, (&mut out, &mut likeness));
            for (sum, likeness) in declared.iter_mut().zip(to_declared) {
                *sum += likeness / 2.0;
            }
        }
        for likeness in &mut likeness {
            *likeness /= 2.0;
        }
        if let Some(ridge) = &self.ridge {
            let without = without.and_then(|at| ridge.says_without(at, self.class_of[at]));
            let said = without.unwrap_or_else(|| ridge.says(&likeness, &declared));
            for (evidence, said) in out.iter_mut().zip(said) {
                evidence[RIDGE] = said;
            }
        }
        Study { evidence: out, place, likeness }
    }

    /// One side's part of a study; gives the likeness to each declaration. What is left out is an
    /// example with its vector as it was when it was seen.
    fn look(
        &self,
        side: &Side,
        vector: &Vector,
        left_out: Option<(usize, &Vector)>,
        offset: usize,
        (out, likeness): (&mut [Evidence], &mut [f32]),
    ) -> Vec<f32> {
        let declared = side.declared.products(vector);
        let sums = side.sums.products(vector);
        let without = left_out.map(|(at, _)| at);
        for (class, evidence) in out.iter_mut().enumerate() {
            evidence[1 + offset] = f64::from(declared[class]);
            let (mut product, mut length) = (f64::from(sums[class]), side.lengths[class]);
            if let Some((at, seen)) = left_out
                && self.class_of[at] == class
            {
                let in_sum = f64::from(side.sums.products(seen)[class]);
                let rest = length * length - 2.0 * in_sum + space::product(seen, seen);
                length = rest.max(0.0).sqrt();
                product -= space::product(seen, vector);
            }
            if length > 1e-6 {
                evidence[3 + offset] = product / length;
            }
        }
        for (example, product) in side.examples.products(vector).into_iter().enumerate() {
            if without != Some(example) {
                likeness[example] += product;
                let nearest = &mut out[self.class_of[example]][5 + offset];
                *nearest = nearest.max(f64::from(product));
            }
        }
        declared
    }

    /// The example of a class that is most like a text.
    pub fn nearest(&self, study: &Study, class: usize) -> Option<usize> {
        let mut best: Option<(usize, f32)> = None;
        for (at, likeness) in study.likeness.iter().enumerate() {
            let is_more = *likeness > best.map_or(0.0, |(_, best)| best);
            if is_more && self.class_of[at] == class {
                best = Some((at, *likeness));
            }
        }
        best.map(|(at, _)| at)
    }

    /// What a word of a text weighs for one class against another.
    pub fn word_weight(
        &self,
        place: &Place,
        key: u64,
        pair: (usize, usize),
        weights: &Evidence,
    ) -> f64 {
        let mut weight = 0.0;
        if let Some(id) = self.words.space.id(key)
            && let Ok(at) = place.words.binary_search_by_key(&id, |(id, _)| *id)
        {
            let x = f64::from(place.words[at].1);
            let value = |index: &Index, class: usize| {
                let found = index.of(id).iter().find(|(row, _)| *row as usize == class);
                found.map_or(0.0, |(_, y)| f64::from(*y))
            };
            let apart = |index: &Index, by: &dyn Fn(usize) -> f64| {
                value(index, pair.0) / by(pair.0) - value(index, pair.1) / by(pair.1)
            };
            weight += weights[1] * x * apart(&self.words.declared, &|_| 1.0);
            let lengths = |class: usize| self.words.lengths[class].max(1e-6);
            weight += weights[3] * x * apart(&self.words.sums, &lengths);
            weight += weights[RIDGE] * x * self.ridge_weight(id, pair);
        }
        for (class, phrase) in self.phrases.get(&key).into_iter().flatten() {
            let sign = match *class as usize {
                class if class == pair.0 => 1.0,
                class if class == pair.1 => -1.0,
                _ => 0.0,
            };
            weight += sign * weights[0] * f64::from(*phrase);
        }
        weight
    }

    /// What a word, by its id, weighs among all known texts for one class against another.
    fn ridge_weight(&self, id: u32, (class, next): (usize, usize)) -> f64 {
        let Some(ridge) = &self.ridge else { return 0.0 };
        let sum = |index: &Index, of: &dyn Fn(usize, usize) -> f64| -> f64 {
            let rows = index.of(id).iter().map(|(row, y)| (*row as usize, f64::from(*y)));
            rows.map(|(row, y)| y * (of(row, class) - of(row, next))).sum()
        };
        let examples = sum(&self.words.examples, &|row, class| ridge.of_example(row, class));
        let declared = sum(&self.words.declared, &|row, class| ridge.of_declared(row, class));
        (examples + declared) / 2.0
    }
}

/// The mean of both.
fn halves(left: &[f32], right: &[f32]) -> Vec<f64> {
    let pairs = left.iter().zip(right);
    pairs.map(|(left, right)| (f64::from(*left) + f64::from(*right)) / 2.0).collect()
}

impl Side {
    fn new(
        declared: &[Tokens],
        examples: &[(Tokens, usize)],
        classes: usize,
        part: impl Fn(&Tokens) -> &[(u64, u32)],
        texts_min: u32,
    ) -> Side {
        let texts: Vec<&[(u64, u32)]> = examples
            .iter()
            .map(|(tokens, _)| part(tokens))
            .chain(declared.iter().map(&part))
            .collect();
        let space = Space::new(&texts, texts_min);
        let declared: Vec<Vector> = declared.iter().map(|text| space.vector(part(text))).collect();
        let vectors: Vec<Vector> =
            examples.iter().map(|(tokens, _)| space.vector(part(tokens))).collect();
        let of_class = |class: usize| {
            let members = examples.iter().zip(&vectors);
            space::sum(members.filter(|(example, _)| example.1 == class).map(|(_, v)| v))
        };
        let sums: Vec<Vector> = (0..classes).map(of_class).collect();
        let length = |v: &Vector| v.iter().map(|(_, x)| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        Side {
            declared: Index::new(space.len(), &declared),
            lengths: sums.iter().map(length).collect(),
            sums: Index::new(space.len(), &sums),
            examples: Index::new(space.len(), &vectors),
            space,
        }
    }
}

/// Keywords by their key: a keyword weighs the more, the fewer classes declare it and the more
/// words it has. A class's name weighs double.
fn phrases(classes: &[Class]) -> KeyMap<Vec<(u32, f32)>> {
    let names: BTreeSet<String> = classes
        .iter()
        .map(|class| short_name(&class.name))
        .flat_map(|name| [words::split(name).join(" "), words::whole(name).join(" ")])
        .collect();
    let mut by_phrase: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for (at, class) in classes.iter().enumerate() {
        for phrase in &class.phrases {
            by_phrase.entry(phrase).or_default().push(u32::try_from(at).unwrap_or(u32::MAX));
        }
    }
    by_phrase
        .into_iter()
        .map(|(phrase, classes)| {
            let spaces = phrase.matches(' ').count() as f32;
            let named = if names.contains(phrase) { NAME } else { 1.0 };
            let weight = named * (1.0 + 0.5 * spaces) / classes.len() as f32;
            (words::key(phrase), classes.into_iter().map(|class| (class, weight)).collect())
        })
        .collect()
}
