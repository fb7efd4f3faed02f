//! Actions that change nothing: they answer, wait or fail.

use std::time::Duration;

use agent_sdk::{Context, Failure, Json, JsonSchema};
use project_files::Span;
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
    pub duration: Span,
}

/// Output of `sleep`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Slept {
    /// How long it was, in seconds.
    pub slept: f64,
}

/// Waits; stops at once when it is cancelled.
pub async fn sleep(context: Context, input: Sleep) -> Result<Slept, Failure> {
    let duration = length(&input.duration).map_err(|reason| {
        Failure::rejected(format!("`duration` is wrong: {reason}"))
            .code("invalid_input")
            .no_effect()
    })?;
    tokio::select! {
        () = tokio::time::sleep(duration) => Ok(Slept { slept: duration.as_secs_f64() }),
        () = context.cancelled().cancelled() => Err(Failure::cancelled("woken early").no_effect()),
    }
}

fn length(span: &Span) -> Result<Duration, String> {
    let duration = span.duration_or_zero()?;
    if duration > SLEEP_MAX {
        return Err(format!("it is longer than {} days", SLEEP_MAX.as_secs() / 86_400));
    }
    Ok(duration)
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
