//! Makes equal errors recognisable: what differs between two occurrences of one error is
//! masked, and the rest hashed. It must not keep anything.

use std::sync::LazyLock;

use regex::Regex;
use sha2::{Digest, Sha256};

use crate::limits;

/// What differs between occurrences, and what stands for it. The order matters: what comes
/// first takes what later patterns would take apart.
static PATTERNS: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| {
    let patterns = [
        (r"\b[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s'`<>]+", "<url>"),
        (r"(?i)\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "<id>"),
        (
            r"\b\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?)?",
            "<time>",
        ),
        (r"(?:[A-Za-z]:)?(?:[\\/][\w.@+~-]+){2,}[\\/]?", "<path>"),
        (r"(?i)\b0x[0-9a-f]+\b", "<hex>"),
        // Long words of hexadecimal digits, with a digit among them: `deadbeef` may be a word.
        (r"(?i)\b[a-f]*[0-9][0-9a-f]{6,}[0-9a-f]*\b", "<hex>"),
        (r"[+-]?\d+(?:[.:,_]\d+)*", "<n>"),
        (r"\s+", " "),
    ];
    let compile = |(pattern, mask)| {
        let regex = Regex::new(pattern).expect("a test compiles every pattern");
        (regex, mask)
    };
    patterns.into_iter().map(compile).collect()
});

/// What would give access, in messages that quote it: passwords in URLs, and values given to
/// telling names.
static SECRETS: LazyLock<[Regex; 2]> = LazyLock::new(|| {
    let compile = |pattern| Regex::new(pattern).expect("a test compiles every pattern");
    [
        compile(r"(://[^\s:/@]*:)[^\s/@]+(@)"),
        compile(concat!(
            r#"(?i)((?:password|passwd|secret|token|api[_-]?key|authorization)["']?"#,
            r#"\s*(?:=|:)\s*(?:bearer\s+)?["']?)[^\s"',;&]+()"#,
        )),
    ]
});

/// The message with what differs from one occurrence to the next masked.
pub fn normalise(message: &str) -> String {
    let mut text = message.trim().to_owned();
    for (pattern, mask) in PATTERNS.iter() {
        text = pattern.replace_all(&text, *mask).into_owned();
    }
    text
}

/// Equal for messages that are one error: sixteen hexadecimal digits.
pub fn fingerprint(message: &str) -> String {
    let digest = Sha256::digest(normalise(message).as_bytes());
    let bytes = digest.iter().take(8);
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

/// The message as it may be kept: without secrets, and not too long.
pub fn presentable(message: &str) -> String {
    let mut text = shortened(message.trim(), limits::MESSAGE_BYTES_MAX);
    for pattern in SECRETS.iter() {
        text = pattern.replace_all(&text, "${1}****${2}").into_owned();
    }
    text
}

/// At most so many bytes of a text, cut between characters.
pub fn shortened(text: &str, bytes_max: usize) -> String {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let cut = if end < text.len() { "…" } else { "" };
    format!("{}{cut}", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_masked() {
        for (message, expect) in [
            ("took 1.5 s, not 3", "took <n> s, not <n>"),
            ("cannot open /var/lib/a/b.txt: no", "cannot open <path>: no"),
            ("at 0xDEADbeef in 1f3a9c77b2", "at <hex> in <hex>"),
            ("run 01890a5d-ac96-774b-bcce-b302099a8057 died", "run <id> died"),
            ("GET http://h:80/x?y=1 gave 502", "GET <url> gave <n>"),
            ("since 2026-01-02T03:04:05Z\n  waiting", "since <time> waiting"),
            ("connection refused", "connection refused"),
        ] {
            assert_eq!(normalise(message), expect);
        }
    }

    #[test]
    fn one_error_has_one_fingerprint() {
        let one = fingerprint("step 3 of run 17 timed out after 30 s");
        assert_eq!(one, fingerprint("step 12 of run 4 timed out after 5 s"));
        assert_ne!(one, fingerprint("step 3 of run 17 was refused"));
        assert_eq!(one.len(), 16);
    }

    #[test]
    fn secrets_are_not_kept_and_long_messages_are_cut() {
        let message = "postgres://a:hunter2@db refused; token: abc123, Authorization: Bearer xyz";
        let kept = presentable(message);
        for secret in ["hunter2", "abc123", "xyz"] {
            assert!(!kept.contains(secret), "{kept}");
        }
        assert!(kept.contains("refused"), "{kept}");
        let long = "é".repeat(limits::MESSAGE_BYTES_MAX);
        assert!(presentable(&long).len() <= limits::MESSAGE_BYTES_MAX + "…".len());
    }
}
