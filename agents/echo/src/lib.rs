//! The echo agent, the first to read: what an agent looks like, and one for tests and trials.
//!
//! `talk` has what answers, waits and fails; `append` has what changes something and can undo
//! it. Here is only the wiring.

pub mod append;
pub mod talk;

use std::sync::Arc;
use std::time::Duration;

use agent_sdk::{Action, Agent, Context, Undo, UndoInput};

use append::{Append, Appended, Appender};

/// How many tasks it does at once: they wait more than they work.
const SLOTS: u32 = 64;

/// The agent.
pub fn agent() -> Agent {
    let appender = Arc::new(Appender::default());
    let remover = Arc::clone(&appender);
    Agent::new("echo", env!("CARGO_PKG_VERSION"))
        .describe("Answers, waits, fails and writes lines as it is told, for tests and trials.")
        .slots(SLOTS)
        .action(
            Action::new("echo", "Returns its params as they are.", talk::echo)
                .undo(Undo::Nothing)
                .expected_duration(Duration::from_millis(1)),
        )
        .action(
            Action::new("sleep", "Waits, unless it is cancelled.", talk::sleep).undo(Undo::Nothing),
        )
        .action(
            Action::new("fail", "Fails as it is told, for a number of attempts.", talk::fail)
                .undo(Undo::Nothing),
        )
        .action(
            Action::new(
                "append",
                "Appends a line to a file, once for an idempotency key.",
                move |context: Context, input: Append| {
                    let appender = Arc::clone(&appender);
                    async move { appender.append(context, input).await }
                },
            )
            .undo(Undo::action("remove_line")),
        )
        .action(Action::new(
            "remove_line",
            "Removes the line that `append` wrote under the same idempotency key.",
            move |context: Context, input: UndoInput<Append, Appended>| {
                let remover = Arc::clone(&remover);
                async move { remover.remove_line(context, input.params).await }
            },
        ))
}
