//! Actions that change nothing: they answer, wait or fail.

use std::time::Duration;

use agent_sdk::{Context, Failure, Json, JsonSchema};
use serde::{Deserialize, Serialize};

/// The longest wait.
pub const SLEEP_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Returns its params as they are: all digits, and objects in their order.
pub async fn echo(_: Context, params: Json) -> Result<Json, Failure> {
    Ok(params)
}

/// Params of `sleep`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sleep {
    /// How long: `1s500ms`, `2m`, `1h30m`, or a number of seconds.
    pub duration: Length,
}

/// A length of time.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected text as `1s500ms`, or a number of seconds")]
pub enum Length {
    /// A number of seconds.
    Seconds(f64),
    /// Numbers with units: `d`, `h`, `m`, `s`, `ms`.
    Text(String),
}

/// Output of `sleep`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Slept {
    /// How long it was, in seconds.
    pub slept: f64,
}

/// Waits; stops at once when it is cancelled.
pub async fn sleep(context: Context, input: Sleep) -> Result<Slept, Failure> {
    let duration = input.duration.read().map_err(|reason| {
        Failure::rejected(format!("`duration` is wrong: {reason}"))
            .code("invalid_input")
            .no_effect()
    })?;
    tokio::select! {
        () = tokio::time::sleep(duration) => Ok(Slept { slept: duration.as_secs_f64() }),
        () = context.cancelled().cancelled() => Err(Failure::cancelled("woken early").no_effect()),
    }
}

impl Length {
    /// The duration, or why it is none.
    pub fn read(&self) -> Result<Duration, String> {
        let duration = match self {
            Self::Seconds(seconds) => Duration::try_from_secs_f64(*seconds)
                .map_err(|_| format!("{seconds} is no number of seconds that one can wait"))?,
            Self::Text(text) => parse(text)?,
        };
        if duration > SLEEP_MAX {
            return Err(format!("it is longer than {} days", SLEEP_MAX.as_secs() / 86_400));
        }
        Ok(duration)
    }
}

fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration; write it as `1s500ms`, `2m` or `1h30m`");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut whole = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u32 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit = match &rest[..letters] {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            "d" => Duration::from_secs(86_400),
            _ => return Err(wrong()),
        };
        rest = &rest[letters..];
        whole =
            unit.checked_mul(number).and_then(|part| whole.checked_add(part)).ok_or_else(wrong)?;
    }
    Ok(whole)
}

/// Params of `fail`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fail {
    /// What it says.
    #[serde(default = "message")]
    pub message: String,
    /// How it fails.
    #[serde(default)]
    pub kind: FailKind,
    /// A code for `retry_on` and `no_retry_on`.
    #[serde(default)]
    pub code: String,
    /// The number of the first attempt that succeeds; none does when it is left out.
    pub succeed_after: Option<u32>,
}

/// A kind of failure.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailKind {
    /// Another attempt may succeed.
    #[default]
    Retryable,
    /// No attempt will succeed.
    Permanent,
    /// The input is refused.
    Rejected,
    /// The message is a question for a person.
    NeedsPerson,
}

/// Output of `fail` when it succeeds after all.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Recovered {
    /// The attempt that succeeded.
    pub attempt: u32,
}

fn message() -> String {
    "failed as told".to_owned()
}

/// Fails as it is told.
pub async fn fail(context: Context, input: Fail) -> Result<Recovered, Failure> {
    let attempt = context.attempt();
    if input.succeed_after.is_some_and(|first| attempt >= first) {
        return Ok(Recovered { attempt });
    }
    let failure = match input.kind {
        FailKind::Retryable => Failure::retryable(input.message),
        FailKind::Permanent => Failure::permanent(input.message),
        FailKind::Rejected => Failure::rejected(input.message),
        FailKind::NeedsPerson => Failure::needs_person(input.message),
    };
    Err(failure.code(input.code).no_effect())
}
