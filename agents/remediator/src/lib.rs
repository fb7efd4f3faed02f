//! The agent `remediator`: mends services in a sandbox folder and their databases, and undoes
//! each change. Only the wiring is here (`actions` has the cards); it decides nothing.

mod actions;
pub mod config;
pub mod files;
pub mod health;
pub mod limits;
pub mod migration;
pub mod process;
pub mod quarantine;
pub mod rotation;
pub mod sandbox;
pub mod service;
pub mod settings;
pub mod tools;

use std::time::{Duration, SystemTime};

use agent_sdk::{Agent, Context, Failure};

use crate::tools::Tools;

/// The agent, with the sandbox that the environment names.
pub fn agent() -> Agent {
    agent_with(&Tools::from_env())
}

/// The agent, with this sandbox and these records.
pub fn agent_with(tools: &Tools) -> Agent {
    let agent = Agent::new("remediator", env!("CARGO_PKG_VERSION"))
        .describe(
            "Mends services: edits configuration files, applies database migrations, clears full \
             disks and folders, starts and restarts dead processes and workers, rotates expired \
             keys and certificates. Every change can be undone.",
        )
        .slots(limits::SLOTS);
    actions::all(tools).into_iter().fold(agent, Agent::action)
}

/// Work that blocks, with the tools and the task's key.
async fn blocking<Output: Send + 'static>(
    tools: Tools,
    context: Context,
    work: impl FnOnce(&Tools, &str) -> Result<Output, Failure> + Send + 'static,
) -> Result<Output, Failure> {
    let key = context.idempotency_key().to_owned();
    if key.is_empty() {
        return Err(sandbox::rejected(
            "the task has no idempotency key: it could not be done just once",
        ));
    }
    context.blocking(move || work(&tools, &key)).await?
}

#[expect(clippy::disallowed_methods, reason = "the wiring hands the time in")]
fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[expect(clippy::disallowed_methods, reason = "the wiring hands the randomness in")]
fn random(bytes: &mut [u8]) {
    rand::Rng::fill_bytes(&mut rand::rng(), bytes);
}
