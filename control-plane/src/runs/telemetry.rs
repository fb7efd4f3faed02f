//! What Prometheus is told of runs. The handles are made once, after the recorder was installed:
//! looking one up for each transition costs more than counting it.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

pub(super) struct Telemetry {
    pub(super) active: Gauge,
    pub(super) success: Counter,
    pub(super) failure: Counter,
    pub(super) cancelled: Counter,
    pub(super) rolled_back: Counter,
    /// Seconds.
    pub(super) duration: Histogram,
}

/// What Prometheus is told of commits: how large batches are is the one by the other.
#[derive(Clone)]
pub(super) struct Committing {
    pub(super) commits: Counter,
    pub(super) transitions: Counter,
}

impl Committing {
    pub(super) fn new() -> Self {
        Self {
            commits: counter!("orchestrator_commits_total"),
            transitions: counter!("orchestrator_transitions_total"),
        }
    }
}

impl Telemetry {
    pub(super) fn new() -> Self {
        let ended = |status| counter!("orchestrator_workflows_total", "status" => status);
        Self {
            active: gauge!("orchestrator_workflows_active"),
            success: ended("success"),
            failure: ended("failure"),
            cancelled: ended("cancelled"),
            rolled_back: ended("rolled_back"),
            duration: histogram!("orchestrator_workflow_duration_seconds"),
        }
    }
}
