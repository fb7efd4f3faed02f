//! How like an issue is to what agents declare, and to issues whose outcome is known: the
//! evidence that the classifier weighs.

use std::collections::BTreeMap;

use crate::declaration::Class;
use crate::space::{self, Index, KeyMap, Space, Vector};
use crate::words::{self, Tokens};

/// How many kinds of evidence there are.
pub const KINDS: usize = 7;
/// Of these the first need no confirmed outcomes.
pub const KINDS_DECLARED: usize = 3;
/// Declared keywords found; likeness of words, then of runs of letters, to the declarations, to all
/// issues of a class together, to the most similar issue of a class.
pub type Evidence = [f64; KINDS];

/// What is known of the classes, ready to be compared with an issue.
#[derive(Debug)]
pub struct Knowledge {
    words: Side,
    runs: Side,
    phrases: KeyMap<Vec<(u32, f32)>>,
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
        Knowledge {
            words: Side::new(&declared, examples, classes.len(), |text| &text.words, 1),
            runs: Side::new(&declared, examples, classes.len(), |text| &text.runs, runs_min),
            phrases: phrases(classes),
            class_of,
            classes: classes.len(),
        }
    }

    /// Where a text stands.
    pub fn place(&self, tokens: &Tokens) -> Place {
        Place {
            words: self.words.space.vector(&tokens.words),
            runs: self.runs.space.vector(&tokens.runs),
        }
    }

    /// The evidence for each class. `without` leaves one example out, as if it had not been seen.
    pub fn study(&self, tokens: &Tokens, without: Option<usize>) -> Study {
        let place = self.place(tokens);
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
        self.look(&self.words, &place.words, without, 0, (&mut out, &mut likeness));
        self.look(&self.runs, &place.runs, without, 1, (&mut out, &mut likeness));
        Study { evidence: out, place, likeness }
    }

    fn look(
        &self,
        side: &Side,
        vector: &Vector,
        without: Option<usize>,
        offset: usize,
        (out, likeness): (&mut [Evidence], &mut [f32]),
    ) {
        let left_out = without.map(|at| self.class_of[at]);
        let declared = side.declared.products(vector);
        let sums = side.sums.products(vector);
        let own = vector.iter().map(|(_, x)| f64::from(*x) * f64::from(*x)).sum::<f64>();
        for (class, evidence) in out.iter_mut().enumerate() {
            evidence[1 + offset] = f64::from(declared[class]);
            let (mut product, mut length) = (f64::from(sums[class]), side.lengths[class]);
            if left_out == Some(class) {
                let rest = length * length - 2.0 * product + own;
                product -= own;
                length = rest.max(0.0).sqrt();
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
/// words
/// it has.
fn phrases(classes: &[Class]) -> KeyMap<Vec<(u32, f32)>> {
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
            let weight = (1.0 + 0.5 * spaces) / classes.len() as f32;
            (words::key(phrase), classes.into_iter().map(|class| (class, weight)).collect())
        })
        .collect()
}
