//! The agent `deployment-manager`: puts releases in place, and goes back. Only wiring is here.

pub mod deploy;
pub mod files;
pub mod input;
pub mod rollback;
pub mod target;
pub mod workspace;

use agent_sdk::{Action, Agent, Context, Failure, Undo, UndoInput};
use serde_json::Value;

use crate::deploy::{Deploy, Deployed, Undeployed};
use crate::rollback::{Rollback, RolledBack};
use crate::workspace::Workspace;

/// What an undo gets. Records say what was done, so that neither part has to fit a type.
type Undoing = UndoInput<Value, Value>;

/// How many deployments run at once; those to one target wait for each other.
const SLOTS: u32 = 4;

/// The agent, with the workspace that the environment names.
pub fn agent() -> Agent {
    agent_in(Workspace::from_env())
}

/// The agent, with this workspace.
pub fn agent_in(workspace: Workspace) -> Agent {
    let [deploying, undoing, going_back, returning] = [(); 4].map(|()| workspace.clone());
    Agent::new("deployment-manager", env!("CARGO_PKG_VERSION"))
        .describe("Puts releases of projects in place and goes back to earlier ones.")
        .alias("agent19")
        .slots(SLOTS)
        .action(
            Action::new(
                "deploy",
                "Copies a project into a new release and makes it current in one step.",
                move |context, input| deploy(deploying.clone(), context, input),
            )
            .inherits(["project_dir", "name"])
            .undo(Undo::action("undo_deploy")),
        )
        .action(
            Action::new(
                "undo_deploy",
                "Undoes deploy: makes current what was current before, and removes the release.",
                move |context, input| undo(undoing.clone(), context, input, deploy::undo),
            )
            .undo(Undo::NotUndoable),
        )
        .action(
            Action::new(
                "rollback",
                "Makes the release before the current one current again.",
                move |context, input| rollback(going_back.clone(), context, input),
            )
            .inherits(["target"])
            .undo(Undo::action("undo_rollback")),
        )
        .action(
            Action::new(
                "undo_rollback",
                "Undoes rollback: makes current what was current before it.",
                move |context, input| undo(returning.clone(), context, input, rollback::undo),
            )
            .undo(Undo::NotUndoable),
        )
}

async fn deploy(
    workspace: Workspace,
    context: Context,
    input: Deploy,
) -> Result<Deployed, Failure> {
    let (key, inner) = (context.idempotency_key().to_owned(), context.clone());
    let work = move || deploy::deploy(&workspace, &key, &input, &|| inner.is_cancelled());
    context.blocking(work).await?
}

async fn rollback(
    workspace: Workspace,
    context: Context,
    input: Rollback,
) -> Result<RolledBack, Failure> {
    let key = context.idempotency_key().to_owned();
    context.blocking(move || rollback::rollback(&workspace, &key, &input)).await?
}

async fn undo(
    workspace: Workspace,
    context: Context,
    input: Undoing,
    undo: fn(&Workspace, &str, bool) -> Result<Undeployed, Failure>,
) -> Result<Undeployed, Failure> {
    let key = context.idempotency_key().to_owned();
    let was_done = input.output.is_some();
    context.blocking(move || undo(&workspace, &key, was_done)).await?
}
