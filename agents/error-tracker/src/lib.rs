//! The agent `error-tracker` (alias `agent9`): logs errors, recognises which are the same, and
//! tells their rate. This file only wires the actions; the work is in the modules.

pub mod fingerprint;
pub mod folder;
pub mod limits;
pub mod log;
pub mod tracker;

use std::path::PathBuf;
use std::sync::Arc;

use agent_sdk::{Action, Agent, Context, Failure, Undo, UndoInput};
use chrono::{DateTime, Utc};

use crate::tracker::{Error, LogError, Logged, Removed, TrackErrors, Tracked, Tracker};

/// The agent, with its log where the environment says.
pub fn agent() -> Agent {
    agent_at(folder::from_env())
}

/// The agent, with its log in this folder.
pub fn agent_at(folder: PathBuf) -> Agent {
    let tracker = Arc::new(Tracker::new(folder));
    Agent::new("error-tracker", env!("CARGO_PKG_VERSION"))
        .describe("Logs errors, recognises which are the same, and tells their rate.")
        .alias("agent9")
        .action(log_error(Arc::clone(&tracker)))
        .action(remove_error(Arc::clone(&tracker)))
        .action(track_errors(tracker))
}

fn log_error(tracker: Arc<Tracker>) -> Action {
    let handler = move |context: Context, input: LogError| {
        let tracker = Arc::clone(&tracker);
        async move {
            let task = context.clone();
            let work = move || -> Result<Logged, Error> {
                tracker.log_error(&input, task.idempotency_key(), task.run_id(), now())
            };
            context.blocking(work).await?.map_err(failure)
        }
    };
    Action::new("log_error", "Adds an error to the log, once per task.", handler)
        .undo(Undo::action("remove_error"))
        .inherits(["failure", "error", "step"])
}

fn remove_error(tracker: Arc<Tracker>) -> Action {
    let handler = move |context: Context, _: UndoInput<LogError, Logged>| {
        let tracker = Arc::clone(&tracker);
        async move {
            let task = context.clone();
            let work = move || -> Result<Removed, Error> {
                tracker.remove_error(task.idempotency_key(), now())
            };
            context.blocking(work).await?.map_err(failure)
        }
    };
    Action::new("remove_error", "Takes back what `log_error` logged.", handler)
        .undo(Undo::NotUndoable)
}

fn track_errors(tracker: Arc<Tracker>) -> Action {
    let handler = move |context: Context, input: TrackErrors| {
        let tracker = Arc::clone(&tracker);
        async move {
            let work = move || -> Result<Tracked, Error> { tracker.track_errors(&input, now()) };
            context.blocking(work).await?.map_err(failure)
        }
    };
    let description = "Tells which errors were logged of late, and the rate of failed tries.";
    Action::new("track_errors", description, handler).undo(Undo::Nothing)
}

#[expect(clippy::disallowed_methods, reason = "the wiring hands the time in")]
fn now() -> DateTime<Utc> {
    Utc::now()
}

fn failure(error: Error) -> Failure {
    match error {
        Error::Input(message) => Failure::rejected(message).code("invalid_input").no_effect(),
        Error::Undone => Failure::rejected("this task was undone before; nothing is logged")
            .code("undone")
            .no_effect(),
        Error::Log(error) => Failure::retryable(format!("the error log: {error}")).code("io"),
    }
}
