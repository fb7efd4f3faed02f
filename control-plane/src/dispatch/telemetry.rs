//! The counters of dispatch for Prometheus, by the `metrics` facade. Handles are made once per
//! agent type and action, after the recorder was installed.

use std::sync::{Arc, Mutex, PoisonError};

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::matcher::{Counts, Executed};
use crate::hash::QuickMap;
use crate::limits;

pub(super) struct Telemetry {
    queued: Gauge,
    running: Gauge,
    agents: Gauge,
    series: Mutex<QuickMap<Name, Series>>,
}

/// The agent type and the action.
type Name = (Arc<str>, Arc<str>);

#[derive(Clone)]
struct Series {
    executions: Counter,
    errors: Counter,
    latency: Histogram,
}

impl Telemetry {
    pub(super) fn new() -> Self {
        Self {
            queued: gauge!("orchestrator_tasks_queued"),
            running: gauge!("orchestrator_tasks_running"),
            agents: gauge!("orchestrator_agents_connected"),
            series: Mutex::default(),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; counts are far below")]
    pub(super) fn counts(&self, counts: Counts) {
        self.queued.set(counts.queued as f64);
        self.running.set(counts.running as f64);
        self.agents.set(counts.agents as f64);
    }

    pub(super) fn executed(&self, executed: Vec<Executed>) {
        for one in executed {
            let Some(series) = self.series(&one) else { continue };
            series.executions.increment(1);
            if one.failed {
                series.errors.increment(1);
            }
            series.latency.record(one.latency.as_secs_f64());
        }
    }

    fn series(&self, one: &Executed) -> Option<Series> {
        let mut all = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (one.agent_type.clone(), one.action.clone());
        if let Some(series) = all.get(&key) {
            return Some(series.clone());
        }
        if all.len() >= limits::FIGURES_SERIES_MAX {
            return None;
        }
        let (agent, action) = (one.agent_type.to_string(), one.action.to_string());
        let series = Series {
            executions: counter!(
                "orchestrator_agent_executions_total",
                "agent" => agent.clone(), "action" => action.clone()
            ),
            errors: counter!(
                "orchestrator_agent_errors_total",
                "agent" => agent.clone(), "action" => action
            ),
            latency: histogram!("orchestrator_agent_latency_seconds", "agent" => agent),
        };
        all.insert(key, series.clone());
        Some(series)
    }
}

impl std::fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}
