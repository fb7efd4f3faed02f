//! The counters for Prometheus: recorded through the `metrics` facade, rendered here.

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

/// One recorder for the process, whoever counts.
static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
/// How often what histograms have gathered is put into their buckets.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);
/// Bounds of the buckets of all histograms, in seconds.
const BUCKETS: [f64; 16] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];
const TOTAL: &str = "orchestrator_workflows_total";
const RATE: &str = "orchestrator_success_rate";

/// Installs the recorder, once; whoever holds counters must be made after it.
pub fn install() {
    let _handle = RECORDER.get_or_init(|| {
        let builder = PrometheusBuilder::new().set_buckets(&BUCKETS).ok()?;
        match builder.install_recorder() {
            Ok(handle) => {
                describe();
                Some(handle)
            }
            Err(error) => {
                tracing::warn!(%error, "there are no metrics");
                None
            }
        }
    });
}

/// The text of `/metrics`.
pub(super) fn render() -> String {
    let handle = RECORDER.get().and_then(Option::as_ref);
    let mut text = handle.map(PrometheusHandle::render).unwrap_or_default();
    let rate = success_rate(&text);
    text.push_str(&format!(
        "# HELP {RATE} Share of the workflows that ended well, of all that ended.\n\
         # TYPE {RATE} gauge\n{RATE} {rate}\n\n"
    ));
    text
}

/// Keeps histograms from gathering without bound while nobody asks for them.
pub(super) async fn upkeep(stopping: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(UPKEEP_EVERY) => {}
            () = stopping.cancelled() => return,
        }
        if let Some(Some(handle)) = RECORDER.get() {
            handle.run_upkeep();
        }
    }
}

fn describe() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_counter!(TOTAL, "Workflows that ended, by status.");
    describe_gauge!(
        "orchestrator_triage_first_assignment_correct_ratio",
        "Of all confirmed outcomes of triaged issues, the share whose first assignment was right."
    );
    describe_gauge!("orchestrator_workflows_active", "Workflows under way.");
    describe_histogram!("orchestrator_workflow_duration_seconds", "From start to end.");
    describe_counter!("orchestrator_agent_executions_total", "Tasks that ended.");
    describe_counter!("orchestrator_agent_errors_total", "Tasks that failed.");
    describe_histogram!("orchestrator_agent_latency_seconds", "From assignment to result.");
    describe_counter!("orchestrator_starts_refused_total", "Starts that were refused, by bound.");
    describe_gauge!("orchestrator_admission_used", "How many there are of what a bound counts.");
    describe_gauge!("orchestrator_admission_max", "With how many of them starts are refused.");
    describe_gauge!("orchestrator_tasks_queued", "Tasks that wait for an agent.");
    describe_gauge!("orchestrator_tasks_running", "Tasks that are out.");
    describe_gauge!("orchestrator_agents_connected", "Agents that are connected.");
}

/// The share of the ended workflows that ended well; 1 when none has ended.
fn success_rate(text: &str) -> f64 {
    let (mut all, mut well) = (0.0, 0.0);
    for line in text.lines() {
        let Some(rest) = line.strip_prefix(TOTAL) else { continue };
        let Some((labels, count)) = rest.rsplit_once(' ') else { continue };
        let count: f64 = count.parse().unwrap_or(0.0);
        all += count;
        if labels.contains("status=\"success\"") {
            well += count;
        }
    }
    if all > 0.0 { well / all } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_success_rate_is_that_of_the_counters() {
        let text = "# TYPE orchestrator_workflows_total counter\n\
            orchestrator_workflows_total{status=\"success\"} 3\n\
            orchestrator_workflows_total{status=\"failure\"} 1\n";
        assert!((success_rate(text) - 0.75).abs() < f64::EPSILON);
        assert!((success_rate("") - 1.0).abs() < f64::EPSILON);
    }
}
