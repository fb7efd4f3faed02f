//! The agent `code-quality` (alias `agent7`): judges how readable a project's code is. This
//! file only wires the action; the work is in the modules.

pub mod check;
pub mod duplication;
pub mod finding;
pub mod formatting;
pub mod language;
pub mod limits;
pub mod marks;
pub mod structure;

pub use check::{Error, Input, Report, check};
pub use finding::{Finding, Severity};

use std::time::Duration;

use agent_sdk::{Action, Agent, Context, Failure, Undo};

/// The agent.
pub fn agent() -> Agent {
    Agent::new("code-quality", env!("CARGO_PKG_VERSION"))
        .describe("Judges how readable a project's code is, by syntax tree and by look.")
        .alias("agent7")
        .slots(2)
        .action(
            Action::new(
                "code_quality_check",
                "Measures a project's sources and gives a score, and findings with their places.",
                code_quality_check,
            )
            .undo(Undo::Nothing)
            .inherits(["project_dir"])
            .expected_duration(Duration::from_secs(2)),
        )
}

async fn code_quality_check(context: Context, input: Input) -> Result<Report, Failure> {
    let token = context.cancelled().clone();
    let report = context.blocking(move || check(&input, &|| token.is_cancelled())).await?;
    report.map_err(|error| match error {
        Error::Input(message) => Failure::rejected(message).code("invalid_input").no_effect(),
        Error::Cancelled => Failure::cancelled(""),
    })
}
