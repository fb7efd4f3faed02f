//! Deterministic mutations of bytes.

/// Numbers that look random: xorshift.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        // Neighbouring seeds are spread; zero would stay zero.
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// A number below `count`, which is not zero.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.next() % count as u64).unwrap()
    }
}

/// The longest input that mutations make.
const BYTES_MAX: usize = 64 * 1024;

/// Bytes that parsers look at.
const SPECIAL: &[u8] = b"\0\t\n\r \"#$&'()*+,-.:;<=>?[\\]`{|}~\x7f\x80\xc3\xe2\xf0\xff";

/// A seed, changed in a few places.
pub(crate) fn mutated(seed: &[u8], other: &[u8], words: &[&str], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(6) {
        mutate(&mut bytes, other, words, random);
        bytes.truncate(BYTES_MAX);
    }
    bytes
}

fn mutate(bytes: &mut Vec<u8>, other: &[u8], words: &[&str], random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    let until = at + random.below((bytes.len() - at).min(64) + 1);
    match random.below(9) {
        0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        1 if at < bytes.len() => bytes[at] = SPECIAL[random.below(SPECIAL.len())],
        2 => bytes.insert(at, u8::try_from(random.below(256)).unwrap()),
        3 => drop(bytes.drain(at..until)),
        4 => {
            let copy = bytes[at..until].to_vec();
            let to = random.below(bytes.len() + 1);
            bytes.splice(to..to, copy);
        }
        5 => {
            let from = random.below(other.len() + 1);
            let to = from + random.below((other.len() - from).min(256) + 1);
            bytes.splice(at..at, other[from..to].iter().copied());
        }
        6 if words.is_empty() => {
            // Input without words is choices: all are made anew.
            let count = random.below(500);
            *bytes = (0..count).map(|_| u8::try_from(random.below(256)).unwrap()).collect();
        }
        6 => {
            let word = words[random.below(words.len())];
            bytes.splice(at..until.min(at + 8), word.bytes());
        }
        7 => {
            for _ in 0..random.below(12) {
                bytes.push(u8::try_from(random.below(256)).unwrap());
            }
        }
        _ => bytes.truncate(at),
    }
}
