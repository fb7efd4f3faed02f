//! Spans of time as people write them: `1h30m`, or a number of seconds.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

/// A span of time: text such as `1h30m` (units `ms`, `s`, `m`, `h`, `d`), or seconds.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected text such as `1h30m`, or a number of seconds")]
pub enum Span {
    /// Seconds.
    Seconds(f64),
    /// Numbers with units.
    Text(String),
}

impl Span {
    /// How long it is, and that is not nothing; the error says what would be right.
    pub fn duration(&self) -> Result<Duration, String> {
        let duration = self.read().filter(|duration| !duration.is_zero());
        duration.ok_or_else(|| self.refusal("positive span"))
    }

    /// The same, but it may be nothing.
    pub fn duration_or_zero(&self) -> Result<Duration, String> {
        self.read().ok_or_else(|| self.refusal("span"))
    }

    fn read(&self) -> Option<Duration> {
        match self {
            Self::Seconds(seconds) => Duration::try_from_secs_f64(*seconds).ok(),
            Self::Text(text) => parse(text.trim()),
        }
    }

    fn refusal(&self, wanted: &str) -> String {
        let given = match self {
            Self::Seconds(seconds) => seconds.to_string(),
            Self::Text(text) => format!("`{text}`"),
        };
        format!("{given} is no {wanted} of time such as `5m` or `1h30m`")
    }
}

fn parse(text: &str) -> Option<Duration> {
    if text.is_empty() {
        return None;
    }
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|letter: char| letter.is_ascii_digit()).unwrap_or(rest.len());
        let milliseconds = match &rest[..end] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        let part = Duration::from_millis(number.checked_mul(milliseconds)?);
        sum = sum.checked_add(part)?;
        rest = &rest[end..];
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_or_refused() {
        let of = |text: &str| Span::Text(text.to_owned()).duration().ok();
        assert_eq!(of("1h30m"), Some(Duration::from_secs(5_400)));
        assert_eq!(of("1s500ms"), Some(Duration::from_millis(1_500)));
        assert_eq!(of("1d"), Some(Duration::from_secs(86_400)));
        for wrong in ["", "5", "m", "5 m", "-1s", "0s", "1y", "99999999999999999999d"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
        assert_eq!(Span::Seconds(2.5).duration().ok(), Some(Duration::from_millis(2_500)));
        assert!(Span::Seconds(-1.0).duration().is_err());
        assert_eq!(Span::Seconds(0.0).duration_or_zero(), Ok(Duration::ZERO));
        assert_eq!(Span::Text("0s".to_owned()).duration_or_zero(), Ok(Duration::ZERO));
        assert!(Span::Text(String::new()).duration_or_zero().is_err());
        assert!(Span::Seconds(f64::NAN).duration().is_err());
    }
}
