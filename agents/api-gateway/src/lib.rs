//! The agent `api-gateway`: adds resources with routes and their OpenAPI description to a
//! project, and takes them out again. Only the wiring is here; it decides nothing.

pub mod api;
pub mod files;
pub mod openapi;
pub mod project;
pub mod registry;
pub mod resource;

use std::path::PathBuf;

use agent_sdk::effect_log::Plans;
use agent_sdk::{Action, Agent, Context, Failure, Undo, UndoInput};
use project_files::workspace;
use serde_json::Value;

use crate::api::{Api, CreateApi, RemovedApi};

/// How many APIs are made at once.
const SLOTS: u32 = 4;

/// The agent, with its records in the workspace that the environment names.
pub fn agent() -> Agent {
    agent_at(workspace::records_of(&workspace::from_env(), "api-gateway"))
}

/// The agent, with its records in this folder.
pub fn agent_at(records: PathBuf) -> Agent {
    let records = Plans::at(records, workspace::VARIABLE);
    let undoing = records.clone();
    Agent::new("api-gateway", env!("CARGO_PKG_VERSION"))
        .describe("Adds APIs with routes and an OpenAPI description to projects.")
        .alias("agent1")
        .slots(SLOTS)
        .action(
            Action::new(
                "create_api",
                "Adds a resource to a project: routes that work, and its OpenAPI description.",
                move |context: Context, input: CreateApi| create(records.clone(), context, input),
            )
            .inherits(["project_dir"])
            .undo(Undo::action("remove_api")),
        )
        .action(
            Action::new(
                "remove_api",
                "Undoes create_api: takes the resource out, as if it had never been there.",
                move |context: Context, input: UndoInput<Value, Value>| {
                    remove(undoing.clone(), context, input)
                },
            )
            .undo(Undo::NotUndoable),
        )
}

async fn create(records: Plans, context: Context, input: CreateApi) -> Result<Api, Failure> {
    let key = context.idempotency_key().to_owned();
    context.blocking(move || api::create(&records, &key, &input)).await?
}

async fn remove(
    records: Plans,
    context: Context,
    input: UndoInput<Value, Value>,
) -> Result<RemovedApi, Failure> {
    let key = context.idempotency_key().to_owned();
    let was_done = input.output.is_some();
    context.blocking(move || api::remove(&records, &key, was_done)).await?
}
