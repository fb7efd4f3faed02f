//! The agent `project-builder`: makes projects from templates and takes them away again. Only
//! the wiring is here; it decides nothing.

pub mod error;
pub mod ledger;
pub mod naming;
pub mod removal;
pub mod scaffold;
pub mod template;
pub mod workspace;

use agent_sdk::{Action, Agent, Context, Failure, Undo, UndoInput};
use serde_json::Value;

use crate::removal::Removed;
use crate::scaffold::{Builder, Project, Scaffold};
use crate::workspace::Workspace;

/// How many projects are made at once.
const SLOTS: u32 = 4;

/// The agent, with the workspace that the environment names.
pub fn agent() -> Agent {
    agent_in(Workspace::from_env())
}

/// The agent, with this workspace.
pub fn agent_in(workspace: Workspace) -> Agent {
    let undoing = workspace.clone();
    Agent::new("project-builder", env!("CARGO_PKG_VERSION"))
        .describe("Makes runnable projects from templates.")
        .alias("agent6")
        .slots(SLOTS)
        .action(
            Action::new(
                "scaffold_project",
                "Makes a new project from a template.",
                move |context: Context, input: Scaffold| {
                    scaffold(workspace.clone(), context, input)
                },
            )
            .undo(Undo::action("remove_project")),
        )
        .action(
            Action::new(
                "remove_project",
                "Undoes scaffold_project: removes the files that it made and nobody changed.",
                move |context: Context, input: UndoInput<Value, Value>| {
                    remove(undoing.clone(), context, input)
                },
            )
            .undo(Undo::NotUndoable),
        )
}

async fn scaffold(
    workspace: Workspace,
    context: Context,
    input: Scaffold,
) -> Result<Project, Failure> {
    let (key, run) = (context.idempotency_key().to_owned(), context.run_id().to_owned());
    let work = move || Builder::new(&workspace)?.scaffold(&key, &run, &input);
    Ok(context.blocking(work).await??)
}

async fn remove(
    workspace: Workspace,
    context: Context,
    input: UndoInput<Value, Value>,
) -> Result<Removed, Failure> {
    let key = context.idempotency_key().to_owned();
    let was_done = input.output.is_some();
    let work = move || Builder::new(&workspace)?.remove(&key, was_done);
    Ok(context.blocking(work).await??)
}
