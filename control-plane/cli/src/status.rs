//! The words, marks and colours of statuses.

use contracts::v1::{AgentHealth, RunStatus, StepStatus};

use crate::exit::Exit;
use crate::output::Paint;

/// The word for a run's status, as results have it.
pub(crate) fn run_word(status: RunStatus) -> &'static str {
    match status {
        RunStatus::Unspecified => "unknown",
        RunStatus::Running => "running",
        RunStatus::Waiting => "waiting",
        RunStatus::Paused => "paused",
        RunStatus::Success => "success",
        RunStatus::Failure => "failure",
        RunStatus::Cancelled => "cancelled",
        RunStatus::RolledBack => "rolled_back",
        RunStatus::Stuck => "stuck",
    }
}

/// All statuses that a run can have.
pub(crate) const RUN_STATUSES: [RunStatus; 8] = [
    RunStatus::Running,
    RunStatus::Waiting,
    RunStatus::Paused,
    RunStatus::Success,
    RunStatus::Failure,
    RunStatus::Cancelled,
    RunStatus::RolledBack,
    RunStatus::Stuck,
];

/// What a process exits with when a run stands so at the end.
pub(crate) fn exit(status: RunStatus) -> Exit {
    if status == RunStatus::Success { Exit::Success } else { Exit::RunFailed }
}

/// Whether a run has ended for good.
pub(crate) fn has_ended(status: RunStatus) -> bool {
    matches!(
        status,
        RunStatus::Success | RunStatus::Failure | RunStatus::Cancelled | RunStatus::RolledBack
    )
}

/// The word for a step's status, as results have it.
pub(crate) fn step_word(status: StepStatus) -> &'static str {
    match status {
        StepStatus::Unspecified => "unknown",
        StepStatus::Pending => "pending",
        StepStatus::Queued => "queued",
        StepStatus::Running => "running",
        StepStatus::Waiting => "waiting",
        StepStatus::Success => "success",
        StepStatus::Failure => "failure",
        StepStatus::Skipped => "skipped",
        StepStatus::Cancelled => "cancelled",
    }
}

/// Whether a step has settled.
pub(crate) fn is_settled(status: StepStatus) -> bool {
    matches!(
        status,
        StepStatus::Success | StepStatus::Failure | StepStatus::Skipped | StepStatus::Cancelled
    )
}

/// Whether a step is among those that results count: the steps of `on_failure` are not.
pub(crate) fn is_counted(path: &str) -> bool {
    !path.starts_with("on_failure.")
}

/// The word for an agent's health.
pub(crate) fn health_word(health: AgentHealth) -> &'static str {
    match health {
        AgentHealth::Unspecified => "unknown",
        AgentHealth::Healthy => "healthy",
        AgentHealth::Degraded => "degraded",
        AgentHealth::Unreachable => "unreachable",
        AgentHealth::Draining => "draining",
    }
}

/// The mark before a step with this status word.
pub(crate) fn mark(word: &str) -> &'static str {
    match word {
        "success" => "✓",
        "failure" | "stuck" => "✗",
        "rolled_back" => "↺",
        "skipped" => "-",
        "cancelled" => "⊘",
        "running" => "●",
        "waiting" => "◔",
        "queued" => "○",
        _ => "·",
    }
}

/// Text in the colour of the status that `word` names.
pub(crate) fn painted(word: &str, text: &str, paint: Paint) -> String {
    match word {
        "success" | "healthy" => paint.green(text),
        "failure" | "stuck" | "unreachable" => paint.red(text),
        "cancelled" | "rolled_back" | "waiting" | "paused" | "degraded" | "draining" => {
            paint.yellow(text)
        }
        "running" => paint.cyan(text),
        _ => paint.dim(text),
    }
}
