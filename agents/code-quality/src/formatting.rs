//! Checks the look of a text line by line. One finding per file and rule says how often, so
//! that a file in another style does not drown all else. It must not know any language.

use crate::finding::{Finding, Severity};
use crate::limits;

/// Endings of files whose look is checked, parsed languages and others.
const ENDINGS: [&str; 21] = [
    "c", "cjs", "css", "cts", "go", "h", "html", "java", "js", "json", "jsx", "mjs", "mts", "py",
    "pyi", "rs", "sh", "sql", "toml", "ts", "tsx",
];

/// Whether the look of this file is checked.
pub fn applies(path: &str) -> bool {
    path.rsplit_once('.').is_some_and(|(_, ending)| ENDINGS.contains(&ending))
}

/// How often something was seen, and where first.
#[derive(Default)]
struct Seen {
    count: u32,
    line: u32,
}

impl Seen {
    fn at(&mut self, line: u32) {
        if self.count == 0 {
            self.line = line;
        }
        self.count += 1;
    }
}

/// Checks one text.
pub fn check(file: &str, text: &str) -> Vec<Finding> {
    let (mut trailing, mut long, mut crlf) = (Seen::default(), Seen::default(), Seen::default());
    let (mut tabs, mut spaces) = (Seen::default(), Seen::default());
    let mut last = 0;
    for (line, number) in text.split_inclusive('\n').zip(1u32..) {
        last = number;
        let bare = line.strip_suffix('\n').unwrap_or(line);
        let content = bare.strip_suffix('\r').unwrap_or(bare);
        if content.len() != bare.len() {
            crlf.at(number);
        }
        if content.ends_with([' ', '\t']) {
            trailing.at(number);
        }
        if content.chars().nth(limits::LINE_CHARS_MAX).is_some() {
            long.at(number);
        }
        let indent = &content[..content.len() - content.trim_start_matches([' ', '\t']).len()];
        if indent.contains('\t') {
            tabs.at(number);
        } else if indent.len() > 1 {
            spaces.at(number);
        }
    }
    let mut findings = Vec::new();
    let mut tell = |seen: &Seen, rule, severity, what: &str| {
        if seen.count > 0 {
            let message = format!("{what} ({} in this file)", lines(seen.count));
            findings.push(Finding::new((rule, severity), file, seen.line, message));
        }
    };
    tell(&trailing, "trailing-blanks", Severity::Info, "blanks at the end of a line");
    let most = limits::LINE_CHARS_MAX;
    let what = format!("a line of more than {most} characters");
    tell(&long, "long-line", Severity::Info, &what);
    if tabs.count > 0 && spaces.count > 0 {
        let fewer = if tabs.count < spaces.count { &tabs } else { &spaces };
        let what = "tabs and blanks both indent";
        tell(fewer, "mixed-indentation", Severity::Warning, what);
    }
    if crlf.count > 0 && crlf.count < last {
        tell(&crlf, "mixed-line-ends", Severity::Info, "CRLF and LF both end lines");
    }
    if !text.is_empty() && !text.ends_with('\n') {
        let message = "the last line has no newline".to_owned();
        let rule = ("final-newline", Severity::Info);
        findings.push(Finding::new(rule, file, last, message));
    }
    findings
}

fn lines(count: u32) -> String {
    if count == 1 { "1 line".to_owned() } else { format!("{count} lines") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Vec<(&'static str, u32)> {
        let findings = check("a.ts", text);
        findings.iter().map(|finding| (finding.rule, finding.line)).collect()
    }

    #[test]
    fn tidy_text_has_no_findings() {
        assert_eq!(rules(""), []);
        assert_eq!(rules("a {\n  b\n}\n"), []);
        assert_eq!(rules("a\r\nb\r\n"), []);
        assert_eq!(rules("\ta\n\t\tb\n"), []);
    }

    #[test]
    fn each_untidiness_is_found_at_its_first_line() {
        assert_eq!(rules("a\nb \nc\t\n"), [("trailing-blanks", 2)]);
        assert_eq!(rules("\ta\n  b\n  c\n"), [("mixed-indentation", 1)]);
        assert_eq!(rules("a\nb\r\n"), [("mixed-line-ends", 2)]);
        assert_eq!(rules("a\nb"), [("final-newline", 2)]);
        let most = "é".repeat(limits::LINE_CHARS_MAX);
        assert_eq!(rules(&format!("{most}\n")), []);
        assert_eq!(rules(&format!("a\n{most}é\n")), [("long-line", 2)]);
    }

    #[test]
    fn the_message_counts() {
        let finding = &check("a.ts", "a \nb \n")[0];
        assert!(finding.message.contains("2 lines"), "{}", finding.message);
    }
}
