//! What a scan finds. It must not know how anything is found.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How grave a finding is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It can be exploited at once.
    Critical,
    /// It can probably be exploited, or gives a secret away.
    High,
    /// It can be exploited under conditions; a person should look.
    Medium,
    /// It is worth knowing.
    Low,
}

impl Severity {
    /// Whether a project with such a finding fails.
    pub fn fails(self) -> bool {
        matches!(self, Self::Critical | Self::High)
    }
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Finding {
    /// The rule, as `secret-aws-key` or `dangerous-eval`.
    pub rule: &'static str,
    /// How grave it is.
    pub severity: Severity,
    /// The file, relative to the project's folder.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// What was found, secrets masked, and what to do about it.
    pub message: String,
    /// The advisory, of a vulnerable dependency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advisory: Option<String>,
}

/// The line of a byte offset, from 1.
pub fn line_at(text: &str, offset: usize) -> u32 {
    let before = text.as_bytes().get(..offset).unwrap_or_default();
    let count = before.iter().filter(|byte| **byte == b'\n').count();
    u32::try_from(count).unwrap_or(u32::MAX - 1) + 1
}
