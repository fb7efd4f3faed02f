//! From what a handler gave to what the control plane is told.

use contracts::v1::{self, task_result::Outcome};

use crate::context::Figures;
use crate::failure::{Failure, Kind};
use crate::limits::MESSAGE_TEXT_MAX;
use crate::payload;

/// Why a task was told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The control plane cancelled it.
    Cancelled,
    /// Its time is over, and the control plane has not said so.
    TimedOut,
    /// The agent stops and will not wait longer.
    Stopping,
}

/// The result to report.
pub(crate) fn result(
    result: Result<String, Failure>,
    stop: Option<Stop>,
    figures: Figures,
    payload_bytes_max: usize,
) -> v1::TaskResult {
    let result = result.and_then(|output| fitting(output, payload_bytes_max));
    let outcome = match result {
        Ok(output) => Outcome::Success(v1::TaskSuccess {
            output: Some(payload::json(output)),
            confidence: figures.confidence,
        }),
        Err(failure) => failed(failure, stop),
    };
    v1::TaskResult {
        task: None,
        outcome: Some(outcome),
        usage: figures.usage.map(|usage| v1::Usage {
            input_tokens: usage.input_tokens,
            output_tokens: usage.output_tokens,
            cost: usage.cost,
        }),
    }
}

/// The result of a task whose handler did not stop within its grace.
pub(crate) fn aborted(stop: Stop) -> v1::TaskResult {
    let failure = Failure::cancelled("the handler did not stop in time and was aborted");
    v1::TaskResult { task: None, outcome: Some(failed(failure, Some(stop))), usage: None }
}

fn fitting(output: String, bytes_max: usize) -> Result<String, Failure> {
    if output.len() <= bytes_max {
        return Ok(output);
    }
    Err(Failure::permanent(format!(
        "the output has {} bytes; at most {bytes_max} are allowed",
        output.len()
    ))
    .code("output_too_large"))
}

fn failed(failure: Failure, stop: Option<Stop>) -> Outcome {
    let message = clipped(&failure.message);
    let kind = match (failure.kind, stop) {
        (_, Some(Stop::Cancelled)) => {
            return Outcome::Cancelled(v1::TaskCancelled { message });
        }
        (Kind::Rejected, _) => {
            return Outcome::Rejected(v1::TaskRejected { message, code: failure.code });
        }
        (Kind::NeedsPerson, _) => {
            return Outcome::NeedsPerson(v1::TaskNeedsPerson { question: message });
        }
        (Kind::Cancelled, Some(Stop::TimedOut)) => {
            return retryable("timeout", joined("the task ran out of time", &message));
        }
        (Kind::Cancelled, Some(Stop::Stopping)) => {
            return retryable("agent_stopping", joined("the agent is stopping", &message));
        }
        (Kind::Cancelled, None) => {
            return retryable("stopped", joined("the handler stopped unasked", &message));
        }
        (Kind::Retryable, _) => v1::FailureKind::Retryable,
        (Kind::Permanent, _) => v1::FailureKind::Permanent,
    };
    Outcome::Failure(v1::TaskFailure {
        kind: kind.into(),
        code: failure.code,
        message,
        retry_after: failure.retry_after.map(payload::duration),
        no_effect: failure.no_effect,
    })
}

fn retryable(code: &str, message: String) -> Outcome {
    Outcome::Failure(v1::TaskFailure {
        kind: v1::FailureKind::Retryable.into(),
        code: code.to_owned(),
        message,
        retry_after: None,
        no_effect: false,
    })
}

fn joined(what: &str, message: &str) -> String {
    if message.is_empty() { what.to_owned() } else { format!("{what}: {message}") }
}

/// A message, cut where it is longer than may be sent.
pub(crate) fn clipped(message: &str) -> String {
    if message.len() <= MESSAGE_TEXT_MAX {
        return message.to_owned();
    }
    let end = (0..=MESSAGE_TEXT_MAX).rev().find(|at| message.is_char_boundary(*at));
    format!("{}…", &message[..end.unwrap_or_default()])
}
