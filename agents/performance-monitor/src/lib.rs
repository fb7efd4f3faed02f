//! The agent `performance-monitor` (alias `agent8`): measures a project's server, and how this
//! machine is. This file only wires the actions; the work is in the modules.

pub mod command;
pub mod latency;
pub mod limits;
pub mod load;
pub mod metrics;
pub mod performance;
pub mod process;
pub mod server;
pub mod target;

use std::time::Duration;

use agent_sdk::{Action, Agent, Context, Failure, JsonSchema, Undo};
use chrono::{SecondsFormat, Utc};
use serde::Deserialize;

use crate::metrics::Metrics;
use crate::performance::{Error, Input, Report};

/// What `collect_metrics` takes: nothing.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CollectMetrics {}

/// The agent.
pub fn agent() -> Agent {
    Agent::new("performance-monitor", env!("CARGO_PKG_VERSION"))
        .describe("Measures a project's server under load, and how this machine is.")
        .alias("agent8")
        // Measurements side by side measure each other.
        .slots(2)
        .action(
            Action::new(
                "performance_test",
                "Starts a project's server, or asks one that runs, and measures its answers.",
                performance_test,
            )
            .undo(Undo::Nothing)
            .inherits(["project_dir"])
            .expected_duration(Duration::from_secs(3)),
        )
        .action(
            Action::new(
                "collect_metrics",
                "Tells how busy this machine is: processors, load, memory, disk.",
                collect_metrics,
            )
            .undo(Undo::Nothing)
            .expected_duration(limits::CPU_SAMPLE),
        )
}

async fn performance_test(context: Context, input: Input) -> Result<Report, Failure> {
    tokio::select! {
        // Dropping the test kills what it has started.
        () = context.cancelled().cancelled() => Err(Failure::cancelled("")),
        report = performance::test(&input) => report.map_err(failure),
    }
}

async fn collect_metrics(context: Context, _: CollectMetrics) -> Result<Metrics, Failure> {
    let now = now();
    tokio::select! {
        () = context.cancelled().cancelled() => Err(Failure::cancelled("")),
        metrics = metrics::collect(now) => metrics.map_err(|error| {
            let message = format!("the figures of this machine cannot be had: {error}");
            Failure::permanent(message).code("no_metrics").no_effect()
        }),
    }
}

#[expect(clippy::disallowed_methods, reason = "the wiring hands the time in")]
fn now() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn failure(error: Error) -> Failure {
    match error {
        Error::Input(message) => Failure::rejected(message).code("invalid_input"),
        Error::Start(message) => Failure::permanent(message).code("start_failed"),
        Error::NotReady(message) => Failure::retryable(message).code("not_ready"),
        Error::Io(error) => Failure::from(error).code("io"),
    }
    .no_effect()
}
