//! Finds secrets that stand in files, by their shape and by the names that they are given.
//! A secret must never leave this module in full.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use crate::entropy;
use crate::finding::{Finding, Severity, line_at};
use crate::limits;

/// What a secret looks like; the group 1, or else the whole match, is the secret.
struct Shape {
    rule: &'static str,
    name: &'static str,
    pattern: &'static str,
}

/// Secrets that are known by their shape alone.
static SHAPES: &[Shape] = &[
    Shape {
        rule: "secret-private-key",
        name: "a private key",
        pattern: r"-----BEGIN (?:[A-Z0-9]+ ){0,4}PRIVATE KEY(?: BLOCK)?-----",
    },
    Shape {
        rule: "secret-aws-key",
        name: "an AWS access key",
        pattern: r"\b((?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16})\b",
    },
    Shape {
        rule: "secret-aws-key",
        name: "an AWS secret key",
        pattern: concat!(
            r#"(?i)aws_?(?:secret|sec)_?(?:access_?)?key["']?\s{0,4}(?::|=|=>|:=)\s{0,4}"#,
            r#"["']?([A-Za-z0-9/+]{40})(?:[^A-Za-z0-9/+]|$)"#
        ),
    },
    Shape {
        rule: "secret-github-token",
        name: "a GitHub token",
        pattern: r"\b(gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255})\b",
    },
    Shape {
        rule: "secret-gitlab-token",
        name: "a GitLab token",
        pattern: r"\b(glpat-[A-Za-z0-9_-]{20,64})",
    },
    Shape {
        rule: "secret-slack-token",
        name: "a Slack token",
        pattern: r"\b(xox[abeoprs]-[A-Za-z0-9-]{10,255})",
    },
    Shape {
        rule: "secret-slack-token",
        name: "the address of a Slack hook",
        pattern: concat!(
            r"(https://hooks\.slack\.com/services/",
            r"T[A-Za-z0-9]+/B[A-Za-z0-9]+/[A-Za-z0-9]{16,64})"
        ),
    },
    Shape {
        rule: "secret-stripe-key",
        name: "a Stripe key",
        pattern: r"\b([sr]k_live_[A-Za-z0-9]{16,255})\b",
    },
    Shape {
        rule: "secret-google-key",
        name: "a Google key",
        pattern: r"\b(AIza[0-9A-Za-z_-]{35})",
    },
    Shape {
        rule: "secret-model-key",
        name: "a model provider's key",
        pattern: r"\b(sk-(?:ant-|proj-)?[A-Za-z0-9_-]{32,255})",
    },
    Shape {
        rule: "secret-registry-token",
        name: "a package registry's token",
        pattern: r"\b(npm_[A-Za-z0-9]{36}|pypi-AgE[A-Za-z0-9_-]{50,255})",
    },
    Shape {
        rule: "secret-json-web-token",
        name: "a JSON Web Token",
        pattern: concat!(
            r"\b(eyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,4000}",
            r"\.[A-Za-z0-9_-]{10,2000})"
        ),
    },
    Shape {
        rule: "secret-url-password",
        name: "a password in a URL",
        pattern: concat!(
            r#"\b[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s:/?#@"'`<>{}$]{0,64}:"#,
            r#"([^\s/@"'`<>{}$]{1,128})@[A-Za-z0-9\[]"#
        ),
    },
];

/// Names that say that their value is secret.
const NAMES: &str = concat!(
    r"(?:password|passwd|passphrase|pwd|secret|token|api[_-]?key|apikey|access[_-]?key|",
    r"auth[_-]?key|private[_-]?key|signing[_-]?key|encryption[_-]?key|credential)"
);

static PATTERNS: LazyLock<Vec<(&'static Shape, Regex)>> = LazyLock::new(|| {
    let compile = |shape: &'static Shape| {
        let regex = Regex::new(shape.pattern).expect("a test compiles every pattern");
        (shape, regex)
    };
    SHAPES.iter().map(compile).collect()
});

static QUOTED: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = format!(
        concat!(
            r#"(?i)\b([\w.-]{{0,64}}{names}\w{{0,32}})["']?\s{{0,4}}"#,
            r#"(?::\s?[\w<>\[\]]{{1,32}}\s?=|=>|:=|[:=])\s{{0,4}}"#,
            r#"[bru]?["'`]([^"'`\r\n]{{6,512}})["'`]"#
        ),
        names = NAMES
    );
    Regex::new(&pattern).expect("a test compiles it")
});

static BARE: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = format!(
        concat!(
            r#"(?im)^[ \t]*(?:-[ \t]+|export[ \t]+)?([\w.-]{{0,64}}{names}\w{{0,32}})"#,
            r#"[ \t]*[:=][ \t]*([^\s"'`#]{{6,512}})[ \t]*\r?$"#
        ),
        names = NAMES
    );
    Regex::new(&pattern).expect("a test compiles it")
});

/// Endings of files where values stand without quotes.
const BARE_ENDINGS: [&str; 8] = ["env", "ini", "cfg", "conf", "properties", "yml", "yaml", "npmrc"];

/// The secrets in a file.
pub fn scan(path: &str, text: &str) -> Vec<Finding> {
    let mut scan = Scan { path, text, findings: Vec::new(), taken: Vec::new() };
    scan.shapes();
    if !is_lock_file(path) {
        scan.assigned(&QUOTED);
        if has_bare_values(path) {
            scan.assigned(&BARE);
        }
        scan.random();
    }
    scan.findings
}

/// Lock files are full of hashes, and nobody writes them by hand.
fn is_lock_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let known = ["package-lock.json", "npm-shrinkwrap.json", "pnpm-lock.yaml", "go.sum"];
    name.ends_with(".lock") || known.contains(&name)
}

fn has_bare_values(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.starts_with(".env")
        || name.rsplit_once('.').is_some_and(|(_, ending)| BARE_ENDINGS.contains(&ending))
}

struct Scan<'a> {
    path: &'a str,
    text: &'a str,
    findings: Vec<Finding>,
    // What is told already, so that one secret is one finding.
    taken: Vec<Range<usize>>,
}

impl Scan<'_> {
    fn shapes(&mut self) {
        for (shape, pattern) in PATTERNS.iter() {
            for captures in pattern.captures_iter(self.text) {
                let Some(found) = captures.get(1).or_else(|| captures.get(0)) else {
                    continue;
                };
                let value = found.as_str();
                let severity = match shape.rule {
                    "secret-private-key" => Severity::Critical,
                    "secret-url-password" if is_placeholder(value) => Severity::Low,
                    _ => Severity::High,
                };
                let shown = if shape.rule == "secret-private-key" {
                    String::new()
                } else {
                    format!(" {}", masked(value))
                };
                let name = shape.name;
                self.tell(shape.rule, severity, found.range(), &format!("{name}{shown}"));
            }
        }
    }

    fn assigned(&mut self, pattern: &Regex) {
        for captures in pattern.captures_iter(self.text) {
            let (Some(name), Some(value)) = (captures.get(1), captures.get(2)) else {
                continue;
            };
            let Some(severity) = judge_assigned(name.as_str(), value.as_str()) else {
                continue;
            };
            let shown = masked(value.as_str());
            let what = format!("`{}` is given a value {shown}", name.as_str());
            self.tell("secret-assigned", severity, value.range(), &what);
        }
    }

    fn random(&mut self) {
        for found in entropy::candidates(self.text) {
            let value = &self.text[found.clone()];
            let line_start = self.text[..found.start].rfind('\n').map_or(0, |at| at + 1);
            let before = self.text[line_start..found.start].to_ascii_lowercase();
            if entropy::is_expected(&before) {
                continue;
            }
            let suspicious = ["key", "token", "secret", "passw", "auth", "cred"];
            let severity = if suspicious.iter().any(|word| before.contains(word)) {
                Severity::High
            } else {
                Severity::Medium
            };
            let what = format!("what looks like a random secret {}", masked(value));
            self.tell("secret-entropy", severity, found, &what);
        }
    }

    fn tell(&mut self, rule: &'static str, severity: Severity, at: Range<usize>, what: &str) {
        let overlaps = |taken: &Range<usize>| taken.start < at.end && at.start < taken.end;
        if self.taken.iter().any(overlaps) || self.taken.len() >= limits::FINDINGS_PER_FILE_MAX {
            return;
        }
        self.findings.push(Finding {
            rule,
            severity,
            file: self.path.to_owned(),
            line: line_at(self.text, at.start),
            message: format!("{what}: take it from the environment, and replace it by a new one"),
            advisory: None,
        });
        self.taken.push(at);
    }
}

/// How grave it is that a secret's name stands beside a value; none when the value is no secret.
fn judge_assigned(name: &str, value: &str) -> Option<Severity> {
    if is_placeholder(value) || is_reference(value) {
        return None;
    }
    let has = |test: fn(&char) -> bool| value.chars().any(|letter| test(&letter));
    let mixed = has(char::is_ascii_digit) && has(char::is_ascii_alphabetic);
    let symbols =
        value.chars().any(|letter| letter.is_ascii_punctuation() && !"-_./: ,?()".contains(letter));
    let name = name.to_ascii_lowercase();
    let is_password = name.contains("passw") || name.contains("pwd");
    if value.contains(' ') {
        // A sentence about it.
        return None;
    }
    match (mixed || symbols, is_password) {
        (true, true) => Some(Severity::High),
        (true, false) if value.len() >= 16 => Some(Severity::High),
        (true, false) | (false, true) => Some(Severity::Medium),
        (false, false) => None,
    }
}

/// Values that stand where the reader is to put another.
fn is_placeholder(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    let telling = [
        "example",
        "changeme",
        "change-me",
        "change_me",
        "your",
        "placeholder",
        "dummy",
        "xxx",
        "***",
        "...",
        "redacted",
        "insert",
        "replace",
    ];
    let whole = ["password", "passwd", "pass", "pwd", "secret", "token", "user", "test", "null"];
    let first = lower.chars().next();
    telling.iter().any(|word| lower.contains(word))
        || whole.contains(&lower.as_str())
        || lower.chars().all(|letter| Some(letter) == first)
}

/// Values that name where the secret comes from, or are code.
fn is_reference(value: &str) -> bool {
    value.contains("${")
        || value.contains("{{")
        || value.starts_with(['$', '<', '%', '{', '[', '(', '/', '.', '@'])
        || value.contains("process.env")
        || value.contains("environ")
        || value.contains("getenv")
        || value.contains("://")
        || value.contains("()")
        || value.ends_with([';', '{', '('])
}

/// What may be shown of a secret: the first four characters of a long one, and its length.
fn masked(value: &str) -> String {
    let count = value.chars().count();
    let shown: String = if count >= 16 { value.chars().take(4).collect() } else { String::new() };
    format!("`{shown}****` ({count} characters)")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, text: &str, expect: &[(&str, Severity)]) {
        let findings = scan(path, text);
        let found: Vec<_> =
            findings.iter().map(|finding| (finding.rule, finding.severity)).collect();
        assert_eq!(found, expect, "{text}\n{findings:?}");
    }

    // Put together, so that this file bears no secrets itself.
    fn joined(parts: &[&str]) -> String {
        parts.concat()
    }

    #[test]
    fn secrets_are_known_by_their_shape() {
        use Severity::{Critical, High};
        let letters = "aZ3kQ9xW7bN2mP5rT8vY1cF4gH6jL0dSeUiO";
        let begin = joined(&["-----BEGIN RSA PRIVATE", " KEY-----"]);
        check("a.pem", &begin, &[("secret-private-key", Critical)]);
        for (rule, secret) in [
            ("secret-aws-key", joined(&["AKIA", "IOSFODNN7EXAMPLE"])),
            ("secret-github-token", joined(&["ghp_", letters])),
            ("secret-gitlab-token", joined(&["glpat-", &letters[..20]])),
            ("secret-slack-token", joined(&["xoxb-", "123456789012-abcdef"])),
            ("secret-stripe-key", joined(&["sk_live_", &letters[..24]])),
            ("secret-google-key", joined(&["AIza", &letters[..35]])),
            ("secret-model-key", joined(&["sk-ant-", letters])),
            ("secret-registry-token", joined(&["npm_", letters])),
        ] {
            check("a.js", &format!("const a = '{secret}';"), &[(rule, High)]);
            check("a.md", &format!("as {secret} says"), &[(rule, High)]);
        }
        let url = joined(&["postgres://admin:", "hunter2@db/x"]);
        check("a.yml", &format!("url: {url}"), &[("secret-url-password", High)]);
    }

    #[test]
    fn secrets_are_known_by_their_names() {
        use Severity::{High, Medium};
        let rule = "secret-assigned";
        let value = joined(&["hunter2", "hunter2"]);
        check("a.ts", &format!("const password = '{value}';"), &[(rule, High)]);
        check("a.ts", &format!("const dbPassword: string = '{value}'"), &[(rule, High)]);
        check("a.json", &format!("{{\"client_secret\": \"{value}{value}\"}}"), &[(rule, High)]);
        check(".env", &format!("export API_TOKEN={value}xyz9\n"), &[(rule, High)]);
        check("a.yaml", &format!("db:\n  password: {value}\n"), &[(rule, High)]);
        check("a.py", "password = 'letmeinnow'", &[(rule, Medium)]);
    }

    #[test]
    fn what_is_no_secret_is_no_finding() {
        for text in [
            "const token = process.env.TOKEN;",
            "password: \"${{ secrets.PASSWORD }}\"",
            "const password = 'your-password-1';",
            "token = \"invalid-token\"",
            "error: 'the password has 8 characters'",
            "const secretName = 'my-secret';",
            "url = 'http://localhost:8080/a@b'",
            "url = 'postgres://localhost:5432/db'",
            "ssh_key = 'git@github.com:a/b'",
            "const passwordField = document.getElementById('x1y2z3');",
        ] {
            check("a.ts", text, &[]);
        }
        let password = "postgres://user:password@localhost/db";
        check("a.md", password, &[("secret-url-password", Severity::Low)]);
    }

    #[test]
    fn a_secret_is_never_shown_in_full() {
        let secret = joined(&["AKIA", "IOSFODNN7EXAMPLE"]);
        let short = joined(&["hun", "ter2"]);
        let text = format!("a = '{secret}'\npassword = '{short}'\nredis://:{short}@h/1");
        let findings = scan("a.py", &text);
        assert_eq!(findings.len(), 3, "{findings:?}");
        for finding in findings {
            assert!(!finding.message.contains(&secret), "{finding:?}");
            assert!(!finding.message.contains(&short), "{finding:?}");
        }
    }
}
