//! Finds strings that are too random to be words. It must not decide what they are.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

/// Bits per character; random base64 of this length has more, words and names have less.
const BASE64_BITS_MIN: f64 = 4.2;
/// Bits per character; random hexadecimal digits have nearly four.
const HEX_BITS_MIN: f64 = 3.2;
const BASE64_CHARS_MIN: usize = 24;
const HEX_CHARS_MIN: usize = 32;
/// Longer ones are data, not secrets.
const CHARS_MAX: usize = 512;

// What stands in quotes, or after an equals sign without them.
static CANDIDATE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r#"(?m)["'`=]([A-Za-z0-9+/_-]{24,4096}={0,2})(?:["'`]|\s|$)"#)
        .expect("a test compiles it")
});

/// Where strings are that look random.
pub fn candidates(text: &str) -> Vec<Range<usize>> {
    CANDIDATE
        .captures_iter(text)
        .filter_map(|captures| captures.get(1))
        .filter(|found| is_random(found.as_str()))
        .map(|found| found.range())
        .collect()
}

/// Whether what stands before it on its line says that a hash or an encoded file follows.
pub fn is_expected(before: &str) -> bool {
    let telling = ["integrity", "checksum", "sha1", "sha256", "sha384", "sha512", "base64", "hash"];
    let more = ["digest", "etag", "fingerprint", "commit", "revision", "uuid"];
    telling.iter().chain(&more).any(|word| before.contains(word))
}

fn is_random(value: &str) -> bool {
    if value.len() > CHARS_MAX || is_uuid(value) || is_words(value) || is_alphabet(value) {
        return false;
    }
    let count = |test: fn(&u8) -> bool| value.bytes().filter(test).count();
    let digits = count(u8::is_ascii_digit);
    let letters = count(u8::is_ascii_alphabetic);
    if value.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return value.len() >= HEX_CHARS_MIN
            && digits > 0
            && letters > 0
            && bits(value) >= HEX_BITS_MIN;
    }
    let mixed =
        digits >= 2 && count(u8::is_ascii_uppercase) >= 2 && count(u8::is_ascii_lowercase) >= 2;
    value.len() >= BASE64_CHARS_MIN && mixed && bits(value) >= BASE64_BITS_MIN
}

/// Paths, slugs and identifiers: parts that are letters alone, or digits alone.
fn is_words(value: &str) -> bool {
    value.split(['/', '-', '_', '+', '=']).all(|part| {
        part.bytes().all(|byte| byte.is_ascii_alphabetic())
            || part.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Tables of digits, as encoders have them.
fn is_alphabet(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    lower.contains("abcdefghijkl") || lower.contains("0123456789")
}

fn is_uuid(value: &str) -> bool {
    let lengths: Vec<usize> = value.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12]
}

/// Shannon's entropy in bits per character.
fn bits(value: &str) -> f64 {
    let mut counts = [0u32; 256];
    for byte in value.bytes() {
        counts[usize::from(byte)] += 1;
    }
    #[expect(clippy::cast_precision_loss, reason = "at most 512")]
    let total = value.len() as f64;
    counts
        .into_iter()
        .filter(|count| *count > 0)
        .map(|count| {
            let share = f64::from(count) / total;
            -share * share.log2()
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_is_shannons() {
        assert!(bits("aaaaaaaa").abs() < 1e-9);
        assert!((bits("abababab") - 1.0).abs() < 1e-9);
        assert!((bits("abcdefgh") - 3.0).abs() < 1e-9);
    }

    #[test]
    fn random_strings_are_found() {
        let base64 = "k3Jv9QxZ2mW8tR5yB7nL1pD4";
        let hex = "9f86d081884c7d659a2feaa0c55ad015";
        for text in [format!("a = '{base64}'"), format!("A={base64}\n"), format!("\"{hex}\"")] {
            assert_eq!(candidates(&text).len(), 1, "{text}");
        }
    }

    #[test]
    fn names_paths_and_ids_are_not() {
        for text in [
            "'/usr/local/share/applications/Firefox/bin'",
            "'getUserByNameAndPasswordFromDatabase'",
            "'3f2504e0-4f89-11d3-9a0c-0305e82c3301'",
            "'00000000000000000000000000000001'",
            "'abcdefghijklmnopqrstuvwxyzabcdefgh'",
            "'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'",
            "'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'",
        ] {
            assert!(candidates(text).is_empty(), "{text}");
        }
    }
}
