//! Finds runs of tokens that stand in more than one place. Names count: code that merely has
//! the same shape is no duplicate. It must not keep the sources, only hashes of their tokens.

use std::collections::HashMap;

use crate::limits;
use crate::structure::Token;

/// The tokens of all files so far.
#[derive(Debug, Default)]
pub struct Duplication {
    tokens: Vec<Token>,
    files: Vec<(String, usize)>,
}

/// A run of lines that repeats an earlier one.
#[derive(Debug, PartialEq, Eq)]
pub struct Duplicate {
    /// Where the later one is.
    pub file: String,
    /// Its first line.
    pub line: u32,
    /// How many lines it has.
    pub lines: u32,
    /// Where the earlier one is.
    pub original_file: String,
    /// Its first line.
    pub original_line: u32,
}

impl Duplication {
    /// Adds a file's tokens; false when the bound is reached and they were left out.
    pub fn add(&mut self, file: &str, tokens: &[Token]) -> bool {
        if self.tokens.len() + tokens.len() > limits::TOKEN_COUNT_MAX {
            return false;
        }
        self.files.push((file.to_owned(), self.tokens.len()));
        self.tokens.extend_from_slice(tokens);
        true
    }

    /// All runs that repeat an earlier one, none counted twice.
    pub fn find(&self, cancelled: &dyn Fn() -> bool) -> Vec<Duplicate> {
        const WINDOW: usize = limits::DUPLICATE_TOKENS_MIN;
        let mut first: HashMap<u64, usize> = HashMap::new();
        let mut found = Vec::new();
        for (index, (file, start)) in self.files.iter().enumerate() {
            if cancelled() {
                break;
            }
            let end = self.end(index);
            let shingles = shingles(&self.tokens[*start..end]);
            let mut at = *start;
            while at + WINDOW <= end {
                let original = *first.entry(shingles[at - start]).or_insert(at);
                let length = self.common(original, at, end);
                if length < WINDOW {
                    at += 1;
                    continue;
                }
                let duplicate = self.describe(file, at, original, length);
                if duplicate.lines >= limits::DUPLICATE_LINES_MIN {
                    found.push(duplicate);
                }
                at += length;
            }
        }
        found
    }

    fn end(&self, index: usize) -> usize {
        let next = self.files.get(index + 1);
        next.map_or(self.tokens.len(), |(_, start)| *start)
    }

    /// How many tokens are equal from two places on, without leaving the files or running
    /// from the earlier run into the later one.
    fn common(&self, earlier: usize, later: usize, end: usize) -> usize {
        let file = self.file_of(earlier);
        let most = (end - later).min(self.end(file) - earlier).min(later - earlier);
        (0..most)
            .take_while(|offset| {
                self.tokens[earlier + offset].hash == self.tokens[later + offset].hash
            })
            .count()
    }

    fn file_of(&self, token: usize) -> usize {
        self.files.partition_point(|(_, start)| *start <= token) - 1
    }

    fn describe(&self, file: &str, at: usize, original: usize, length: usize) -> Duplicate {
        let line = self.tokens[at].line;
        Duplicate {
            file: file.to_owned(),
            line,
            lines: self.tokens[at + length - 1].line + 1 - line,
            original_file: self.files[self.file_of(original)].0.clone(),
            original_line: self.tokens[original].line,
        }
    }
}

/// The hash of each window of tokens, each computed from the one before.
fn shingles(tokens: &[Token]) -> Vec<u64> {
    const WINDOW: usize = limits::DUPLICATE_TOKENS_MIN;
    const BASE: u64 = 0x9e37_79b9_7f4a_7c15;
    if tokens.len() < WINDOW {
        return Vec::new();
    }
    let leading = (1..WINDOW).fold(1u64, |power, _| power.wrapping_mul(BASE));
    let push = |hash: u64, token: &Token| hash.wrapping_mul(BASE).wrapping_add(token.hash);
    let mut hash = tokens[..WINDOW].iter().fold(0, push);
    let mut hashes = vec![hash];
    for (gone, come) in tokens.iter().zip(&tokens[WINDOW..]) {
        hash = push(hash.wrapping_sub(gone.hash.wrapping_mul(leading)), come);
        hashes.push(hash);
    }
    hashes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(values: impl IntoIterator<Item = u64>) -> Vec<Token> {
        values
            .into_iter()
            .enumerate()
            .map(|(index, hash)| Token { hash, line: u32::try_from(index / 5).unwrap_or(0) + 1 })
            .collect()
    }

    fn check(files: &[Vec<Token>]) -> Vec<(String, u32, u32, String, u32)> {
        let mut duplication = Duplication::default();
        for (index, tokens) in files.iter().enumerate() {
            assert!(duplication.add(&index.to_string(), tokens));
        }
        duplication
            .find(&|| false)
            .into_iter()
            .map(|one| (one.file, one.line, one.lines, one.original_file, one.original_line))
            .collect()
    }

    #[test]
    fn a_run_in_two_files_is_found_once_and_whole() {
        let one = tokens((0..10).chain(1000..1100));
        let other = tokens((500..520).chain(1000..1100).chain(600..700));
        let expected = ("1".to_owned(), 5, 20, "0".to_owned(), 3);
        assert_eq!(check(&[one, other]), [expected]);
    }

    #[test]
    fn a_run_repeated_within_a_file_is_found() {
        let one = tokens((0..100).chain(0..100));
        assert_eq!(check(&[one]), [("0".to_owned(), 21, 20, "0".to_owned(), 1)]);
    }

    #[test]
    fn short_runs_and_runs_that_overlap_themselves_are_none() {
        let short = limits::DUPLICATE_TOKENS_MIN as u64 - 1;
        assert_eq!(check(&[tokens(0..short), tokens(0..short)]), []);
        assert_eq!(check(&[tokens((0..100).map(|_| 7))]), []);
        assert_eq!(check(&[Vec::new(), tokens(0..3)]), []);
    }
}
