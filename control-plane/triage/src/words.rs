//! Text to words, phrases and runs of letters. Knows nothing of what they weigh.

use crate::limits;

/// Words that say nothing about which part of a system is meant.
const STOP: &str = "a an the of to in on at by for with from and or not is are was were be been \
    being it its this that these those i we you they my our your has have had do does did can \
    could may might must shall should will would when while where which who what why how if then \
    than as so such into out up down over under after before again once there here all any both \
    each more most other some no nor only own same too very just about above below between \
    through during without via per but also get gets getting using use used user users issue \
    issues bug error errors problem problems fail fails failed failing failure wrong still even \
    since because however new old one two see like want need make made way please help question \
    log logs logged version versions upgrade update updated";

/// Letters of the shortest and of the longest run within a word.
const RUN_MIN: usize = 3;
const RUN_MAX: usize = 5;

/// The part of a text that is read.
pub fn read(text: &str) -> &str {
    let mut end = text.len().min(limits::TEXT_BYTES_READ);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Words in lower case, `CamelCase` taken apart, plural ends cut off.
pub fn split(text: &str) -> Vec<String> {
    let mut spaced = String::with_capacity(text.len() + 16);
    let chars: Vec<char> = text.chars().collect();
    for (at, c) in chars.iter().enumerate() {
        let before = at.checked_sub(1).map(|at| chars[at]);
        let after = chars.get(at + 1);
        if let Some(before) = before
            && c.is_ascii_uppercase()
            && (before.is_ascii_lowercase()
                || before.is_ascii_digit()
                || (before.is_ascii_uppercase() && after.is_some_and(char::is_ascii_lowercase)))
        {
            spaced.push(' ');
        }
        spaced.push(*c);
    }
    whole(&spaced)
}

/// Words in lower case as they stand, plural ends cut off.
pub fn whole(text: &str) -> Vec<String> {
    text.to_lowercase()
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(stem)
        .collect()
}

/// Whether a word says nothing.
pub fn is_stop(word: &str) -> bool {
    use std::collections::HashSet;
    use std::sync::LazyLock;
    static WORDS: LazyLock<HashSet<String>> =
        LazyLock::new(|| STOP.split_whitespace().map(stem).collect());
    WORDS.contains(word)
}

fn stem(word: &str) -> String {
    if word.len() > 4
        && let Some(start) = word.strip_suffix("ies")
    {
        return format!("{start}y");
    }
    if word.len() > 4 && word.ends_with("sses") {
        return word[..word.len() - 2].to_owned();
    }
    let is_plural =
        word.len() > 3 && word.ends_with('s') && !word.ends_with("ss") && !word.ends_with("us");
    let end = word.len() - usize::from(is_plural);
    word[..end].to_owned()
}

/// A stable hash of a token: FNV-1a of 64 bits, the same on every machine and in every release.
pub fn key(text: &str) -> u64 {
    key_on(KEY_START, text.as_bytes())
}

const KEY_START: u64 = 0xcbf2_9ce4_8422_2325;

fn key_on(hash: u64, bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// What one text is made of, for comparing it with others.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    /// Words and pairs of words, sorted, each with its count.
    pub words: Vec<(u64, u32)>,
    /// The same words in the order of `names`, for reasons.
    pub names: Vec<(u64, String)>,
    /// Runs of three to five letters within words, sorted, each with its count.
    pub runs: Vec<(u64, u32)>,
    /// Phrases of up to five words, in both spellings, as keys, sorted, each once.
    pub phrases: Vec<u64>,
}

/// Takes texts apart. They stand for themselves: nothing spans two of them.
pub fn tokens(parts: &[&str]) -> Tokens {
    let mut words = Vec::new();
    let mut names = Vec::new();
    let mut runs = Vec::new();
    let mut phrases = Vec::new();
    for part in parts {
        let part = read(part);
        let (parted, whole) = (split(part), whole(part));
        let is_number = |word: &str| word.bytes().all(|b| b.is_ascii_digit());
        let mut add = |name: String| {
            let key = key(&name);
            words.push(key);
            names.push((key, name));
        };
        let says_something = |word: &&String| word.len() > 1 && !is_number(word) && !is_stop(word);
        for word in parted.iter().filter(says_something) {
            add(word.clone());
        }
        for word in whole.iter().filter(says_something).filter(|word| !parted.contains(word)) {
            add(word.clone());
        }
        for pair in parted.windows(2) {
            if !(is_stop(&pair[0]) && is_stop(&pair[1])) {
                add(format!("{} {}", pair[0], pair[1]));
            }
        }
        runs_of(part, &mut runs);
        phrases_of(&parted, &mut phrases);
        phrases_of(&whole, &mut phrases);
    }
    phrases.sort_unstable();
    phrases.dedup();
    names.sort();
    names.dedup();
    Tokens { words: counted(words), names, runs: counted(runs), phrases }
}

fn counted(mut keys: Vec<u64>) -> Vec<(u64, u32)> {
    keys.sort_unstable();
    let mut out: Vec<(u64, u32)> = Vec::with_capacity(keys.len());
    for key in keys {
        match out.last_mut() {
            Some((last, count)) if *last == key => *count += 1,
            _ => out.push((key, 1)),
        }
    }
    out
}

fn runs_of(text: &str, out: &mut Vec<u64>) {
    let mut padded: Vec<char> = Vec::new();
    for word in text.to_lowercase().split(|c: char| !c.is_alphanumeric()) {
        if word.is_empty() || word.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        padded.clear();
        padded.push(' ');
        padded.extend(word.chars());
        padded.push(' ');
        for start in 0..padded.len().saturating_sub(RUN_MIN - 1) {
            let mut hash = KEY_START;
            for (at, c) in padded[start..].iter().take(RUN_MAX).enumerate() {
                hash = (hash ^ u64::from(u32::from(*c))).wrapping_mul(0x0000_0100_0000_01b3);
                if at + 1 >= RUN_MIN {
                    out.push(hash);
                }
            }
        }
    }
}

fn phrases_of(words: &[String], out: &mut Vec<u64>) {
    for start in 0..words.len() {
        // The same as `key` of the words with a space between them.
        let mut hash = KEY_START;
        for (at, word) in words[start..].iter().take(limits::PHRASE_WORDS_MAX).enumerate() {
            if at > 0 {
                hash = key_on(hash, b" ");
            }
            hash = key_on(hash, word.as_bytes());
            out.push(hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_in_both_spellings() {
        assert_eq!(
            split("KafkaTopics fail in HTTPServer2"),
            ["kafka", "topic", "fail", "in", "http", "server2"]
        );
        assert_eq!(whole("KafkaTopics; policies"), ["kafkatopic", "policy"]);
        let tokens = tokens(&["KafkaTopic"]);
        let has = |name: &str| tokens.names.iter().any(|(_, found)| found == name);
        assert!(has("kafka") && has("topic") && has("kafkatopic") && has("kafka topic"));
        assert!(tokens.phrases.contains(&key("kafka topic")));
        assert!(tokens.phrases.contains(&key("kafkatopic")));
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let text = "é".repeat(limits::TEXT_BYTES_READ);
        assert!(read(&text).len() <= limits::TEXT_BYTES_READ);
    }
}
