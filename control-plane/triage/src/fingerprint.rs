//! When two issues are the same: a hash over title, component and evidence in which whatever
//! differs from one occurrence to the next is masked.

use std::collections::BTreeMap;
use std::fmt::Write;

use sha2::{Digest, Sha256};

use crate::issue::Issue;

/// The fingerprint of an issue, in hexadecimal digits. Numbers, hexadecimal strings, UUIDs, times,
/// paths and hosts are masked. An issue with neither component nor evidence is known by its
/// description too: titles alone, as `it crashed`, are no sign of sameness.
pub fn fingerprint(issue: &Issue) -> String {
    let mut hash = Sha256::new();
    let mut part = |text: &str| {
        let text = masked(text);
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    };
    part(&issue.title);
    part(&issue.component);
    if issue.component.is_empty() && issue.evidence.is_empty() {
        part(&issue.description);
    }
    let mut evidence: Vec<String> = issue.evidence.iter().map(|line| masked(line)).collect();
    evidence.sort();
    evidence.dedup();
    for line in &evidence {
        part(line);
    }
    hash.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Groups issues of one fingerprint: for each issue the index of the first of its group.
pub fn groups(fingerprints: &[String]) -> Vec<usize> {
    let mut first = BTreeMap::new();
    fingerprints
        .iter()
        .enumerate()
        .map(|(index, fingerprint)| *first.entry(fingerprint.as_str()).or_insert(index))
        .collect()
}

/// Lower case, words apart by one space, what varies replaced by its kind.
pub fn masked(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.to_lowercase().split_whitespace() {
        let word = word.trim_matches(|c: char| ",;:()[]{}<>\"'`!?.".contains(c));
        if word.is_empty() {
            continue;
        }
        if !out.is_empty() {
            out.push(' ');
        }
        mask_word(word, &mut out);
    }
    out
}

fn mask_word(word: &str, out: &mut String) {
    // `key=value` and `key:value` keep their key.
    if let Some((key, value)) = word.split_once('=')
        && !key.is_empty()
        && !value.is_empty()
    {
        out.push_str(key);
        out.push('=');
        mask_word(value, out);
        return;
    }
    let digits = word.chars().filter(char::is_ascii_digit).count();
    let is_hex = word.len() >= 6 && word.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    if word.contains("://") {
        out.push_str("<url>");
    } else if word.starts_with('/') || word.contains(":\\") || word.matches('/').count() > 1 {
        out.push_str("<path>");
    } else if word.len() == 36 && word.matches('-').count() == 4 && is_hex {
        out.push_str("<uuid>");
    } else if is_host(word) {
        out.push_str("<host>");
    } else if digits >= 8 && word.chars().all(|c| c.is_ascii_digit() || "-:.tz+/".contains(c)) {
        out.push_str("<time>");
    } else if (is_hex && digits > 0) || word.starts_with("0x") {
        out.push_str("<hex>");
    } else {
        mask_numbers(word, out);
    }
}

/// An address, or a name with a port or of at least three parts that does not end as a file does.
fn is_host(word: &str) -> bool {
    let (name, port) = match word.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
            (name, true)
        }
        _ => (word, false),
    };
    let parts: Vec<&str> = name.split('.').collect();
    let is_name = parts.iter().all(|part| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    });
    let is_address = parts.len() == 4
        && parts.iter().all(|part| part.len() <= 3 && part.bytes().all(|b| b.is_ascii_digit()));
    let has_letters = name.bytes().any(|b| b.is_ascii_alphabetic());
    is_address || (is_name && has_letters && (port || parts.len() >= 3))
}

fn mask_numbers(word: &str, out: &mut String) {
    let mut inside = false;
    for c in word.chars() {
        if c.is_ascii_digit() {
            if !inside {
                out.push('#');
            }
            inside = true;
        } else if !(inside && c == '.') {
            inside = false;
            out.push(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_varies_is_masked() {
        let text = "Worker 17 at 10.0.0.7:9090 lost lease 0xdeadbeef since 2026-11-21T09:30:20Z: \
                    read /var/lib/data/x.db took 31.5s (id 3f2504e0-4f89-11d3-9a0c-0305e82c3301)";
        let want = "worker # at <host> lost lease <hex> since <time> read <path> took #s id <uuid>";
        assert_eq!(masked(text), want);
        assert_eq!(masked("connect to db-3.prod.example.org"), "connect to <host>");
        assert_eq!(masked("see   https://x.org/1  retries=5"), "see <url> retries=#");
    }

    #[test]
    fn the_same_trouble_has_one_fingerprint_and_other_trouble_another() {
        let issue = |title: &str, component: &str, evidence: &str| Issue {
            title: title.into(),
            component: component.into(),
            evidence: vec![evidence.into()],
            ..Issue::default()
        };
        let first = fingerprint(&issue("Worker 3 died", "queue", "exit code 137 at 12:00:01"));
        let again = fingerprint(&issue("worker 9 died!", "queue", "exit code 1 at 13:10:59"));
        let other = fingerprint(&issue("Worker 3 died", "mail", "exit code 137 at 12:00:01"));
        assert_eq!(first, again);
        assert_ne!(first, other);
        assert_eq!(groups(&[first.clone(), other, again]), [0, 1, 0]);
        let bare = |description: &str| Issue {
            title: "crash".into(),
            description: description.into(),
            ..Issue::default()
        };
        assert_ne!(fingerprint(&bare("on start")), fingerprint(&bare("while writing")));
    }
}
