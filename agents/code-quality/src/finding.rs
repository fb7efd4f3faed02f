//! What a check finds, and what it costs. It must not know how anything is found.

use schemars::JsonSchema;
use serde::Serialize;

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It is broken or far beyond a bound.
    Error,
    /// It makes the code harder to change.
    Warning,
    /// It is untidy.
    Info,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Finding {
    /// The rule, as `complexity` or `long-function`.
    pub rule: &'static str,
    /// How grave it is.
    pub severity: Severity,
    /// The file, relative to the project's folder.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// What was found and what is expected.
    pub message: String,
}

impl Finding {
    /// A finding of the rule at a place.
    pub fn new(
        (rule, severity): (&'static str, Severity),
        file: &str,
        line: u32,
        message: String,
    ) -> Self {
        Self { rule, severity, file: file.to_owned(), line, message }
    }
}

/// From 100 for code without findings down to 0: per hundred lines of code, an error costs ten
/// points, a warning three, a mere untidiness a half. A project of less than a hundred lines
/// counts as one of a hundred, so that one finding does not sink it.
pub fn score(findings: &[Finding], lines: u64) -> f64 {
    let points: f64 = findings
        .iter()
        .map(|finding| match finding.severity {
            Severity::Error => 10.0,
            Severity::Warning => 3.0,
            Severity::Info => 0.5,
        })
        .sum();
    #[expect(clippy::cast_precision_loss, reason = "lines are far below 2^52")]
    let hundreds = lines.max(100) as f64 / 100.0;
    ((100.0 - points / hundreds).max(0.0) * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(severity: Severity, count: usize) -> Vec<Finding> {
        vec![Finding::new(("rule", severity), "a.rs", 1, String::new()); count]
    }

    #[test]
    fn the_score_falls_with_findings_and_rises_with_size() {
        let of = |severity, count, lines| score(&some(severity, count), lines).to_string();
        assert_eq!(score(&[], 0).to_string(), "100");
        assert_eq!(of(Severity::Error, 1, 10), "90");
        assert_eq!(of(Severity::Error, 1, 1000), "99");
        assert_eq!(of(Severity::Warning, 2, 100), "94");
        assert_eq!(of(Severity::Info, 1, 100), "99.5");
        assert_eq!(of(Severity::Error, 50, 100), "0");
    }
}
