//! The agent `security-scanner` (alias `agent10`): looks for secrets, dangerous calls and
//! vulnerable dependencies in a project. This file only wires the action; the work is in the
//! modules.

pub mod advisory;
pub mod danger;
pub mod dependency;
pub mod entropy;
pub mod finding;
pub mod limits;
pub mod mask;
pub mod scan;
pub mod secret;
pub mod version;

pub use finding::{Finding, Severity};
pub use scan::{Counts, Error, Input, Report, scan};

use std::time::Duration;

use agent_sdk::{Action, Agent, Context, Failure, Undo};

/// The agent.
pub fn agent() -> Agent {
    Agent::new("security-scanner", env!("CARGO_PKG_VERSION"))
        .describe("Looks for secrets, dangerous calls and vulnerable dependencies in a project.")
        .alias("agent10")
        .slots(2)
        .action(
            Action::new(
                "security_scan",
                "Scans a project's files; passes when nothing of high severity is found.",
                security_scan,
            )
            .undo(Undo::Nothing)
            .inherits(["project_dir"])
            .expected_duration(Duration::from_secs(2)),
        )
}

async fn security_scan(context: Context, input: Input) -> Result<Report, Failure> {
    let token = context.cancelled().clone();
    let report = context.blocking(move || scan(&input, &|| token.is_cancelled())).await?;
    report.map_err(|error| match error {
        Error::Input(message) => Failure::rejected(message).code("invalid_input").no_effect(),
        Error::Cancelled => Failure::cancelled(""),
    })
}
