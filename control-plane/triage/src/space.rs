//! Weighed vectors of tokens and the products between them.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

/// Hashes keys that are hashes already, by leaving them as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

/// A map by keys of [`crate::words::key`].
pub type KeyMap<T> = HashMap<u64, T, BuildHasherDefault<AsItIs>>;

/// A sparse vector of length one (or zero), sorted by token.
pub type Vector = Vec<(u32, f32)>;

/// The tokens that are known, each with its weight: the rarer, the heavier.
#[derive(Clone, Debug, Default)]
pub struct Space {
    ids: KeyMap<u32>,
    weights: Vec<f32>,
    /// Of how many texts each is.
    counts: Vec<u32>,
    texts: usize,
    texts_min: u32,
}

/// How much a token weighs that is in `count` of `texts` texts.
fn weight(count: u32, texts: usize) -> f32 {
    (((1.0 + texts as f64) / (1.0 + f64::from(count))).ln() + 1.0) as f32
}

impl Space {
    /// From texts; tokens of fewer than `texts_min` texts are left out.
    pub fn new(texts: &[&[(u64, u32)]], texts_min: u32) -> Space {
        let mut counts: BTreeMap<u64, u32> = BTreeMap::new();
        for text in texts {
            for (key, _) in *text {
                *counts.entry(*key).or_default() += 1;
            }
        }
        let mut space = Space { texts: texts.len(), texts_min, ..Space::default() };
        for (key, count) in counts {
            if count >= texts_min {
                let id = u32::try_from(space.weights.len()).unwrap_or(u32::MAX);
                space.ids.insert(key, id);
                space.weights.push(weight(count, texts.len()));
                space.counts.push(count);
            }
        }
        space
    }

    /// How many tokens are known.
    pub fn len(&self) -> usize {
        self.weights.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.weights.is_empty()
    }

    /// The id of a token.
    pub fn id(&self, key: u64) -> Option<u32> {
        self.ids.get(&key).copied()
    }

    /// The vector of a text.
    pub fn vector(&self, text: &[(u64, u32)]) -> Vector {
        self.weighed(text, |id| Some(self.weights[id as usize]))
    }

    /// The vector of a text that the space was made from, as if that had not been among them: what
    /// it alone has is not known then, and what it shares is rarer.
    pub fn vector_unseen(&self, text: &[(u64, u32)]) -> Vector {
        self.weighed(text, |id| {
            let others = self.counts[id as usize].saturating_sub(1);
            (others >= self.texts_min).then(|| weight(others, self.texts.saturating_sub(1)))
        })
    }

    fn weighed(&self, text: &[(u64, u32)], weight: impl Fn(u32) -> Option<f32>) -> Vector {
        let mut vector: Vector = text
            .iter()
            .filter_map(|(key, count)| {
                let id = self.id(*key)?;
                Some((id, (1.0 + (*count as f32).ln()) * weight(id)?))
            })
            .collect();
        vector.sort_unstable_by_key(|(id, _)| *id);
        unit(&mut vector);
        vector
    }
}

/// Makes a vector one long.
pub fn unit(vector: &mut Vector) {
    let length = vector.iter().map(|(_, x)| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
    if length > 0.0 {
        for (_, x) in vector {
            *x = (f64::from(*x) / length) as f32;
        }
    }
}

/// The product of two vectors.
pub fn product(left: &Vector, right: &Vector) -> f64 {
    let mut sum = 0.0;
    let mut right = right.iter().peekable();
    for (id, x) in left {
        while right.next_if(|(other, _)| other < id).is_some() {}
        if let Some((_, y)) = right.next_if(|(other, _)| other == id) {
            sum += f64::from(*x) * f64::from(*y);
        }
    }
    sum
}

/// The sum of vectors.
pub fn sum<'a>(vectors: impl Iterator<Item = &'a Vector>) -> Vector {
    let mut all: BTreeMap<u32, f32> = BTreeMap::new();
    for vector in vectors {
        for (id, x) in vector {
            *all.entry(*id).or_default() += x;
        }
    }
    all.into_iter().collect()
}

/// Vectors by token, for products with all of them at once.
#[derive(Clone, Debug, Default)]
pub struct Index {
    starts: Vec<u32>,
    entries: Vec<(u32, f32)>,
    rows: usize,
}

impl Index {
    /// Of vectors in a space of `tokens` tokens.
    pub fn new(tokens: usize, vectors: &[Vector]) -> Index {
        let mut starts = vec![0_u32; tokens + 1];
        for (id, _) in vectors.iter().flatten() {
            starts[*id as usize + 1] += 1;
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        let mut next = starts.clone();
        let mut entries = vec![(0, 0.0); starts[tokens] as usize];
        for (row, vector) in vectors.iter().enumerate() {
            for (id, x) in vector {
                let at = &mut next[*id as usize];
                entries[*at as usize] = (u32::try_from(row).unwrap_or(u32::MAX), *x);
                *at += 1;
            }
        }
        Index { starts, entries, rows: vectors.len() }
    }

    /// The products of a vector with each of the index's.
    pub fn products(&self, vector: &Vector) -> Vec<f32> {
        let mut out = vec![0.0; self.rows];
        for (id, x) in vector {
            for (row, y) in self.of(*id) {
                out[*row as usize] += x * y;
            }
        }
        out
    }

    /// The entries of one token: row and value.
    pub fn of(&self, id: u32) -> &[(u32, f32)] {
        let at = id as usize;
        &self.entries[self.starts[at] as usize..self.starts[at + 1] as usize]
    }
}
