//! The SDK with which one writes an agent.
//!
//! ```no_run
//! use agent_sdk::{Action, Agent, Context, Failure, JsonSchema, Undo};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize, JsonSchema)]
//! struct Greet { name: String }
//! #[derive(Serialize, JsonSchema)]
//! struct Greeting { text: String }
//!
//! async fn greet(_: Context, input: Greet) -> Result<Greeting, Failure> {
//!     Ok(Greeting { text: format!("Hello, {}!", input.name) })
//! }
//!
//! # async fn main_() -> anyhow::Result<()> {
//! Agent::new("greeter", "1.0.0")
//!     .action(Action::new("greet", "Greets someone.", greet).undo(Undo::Nothing))
//!     .run_from_env()
//!     .await
//! # }
//! ```
//!
//! Read on in [`Agent`] and [`Action`] (what an agent is), [`Context`] and [`Failure`] (what a
//! handler has), [`EffectLog`] (effects that happen once and can be undone) and [`testing`].
//! Inside, a task goes through `session` (the stream), `board` (who is at work), `outbox` (what
//! waits to be sent) and back. The crate depends on the contracts alone.

#![warn(missing_docs)]

mod action;
mod agent;
mod backoff;
mod board;
mod capacity;
pub mod client;
mod config;
mod connect;
mod context;
pub mod effect_log;
mod error;
mod failure;
mod handler;
mod input;
mod json;
pub mod limits;
mod outbox;
mod outcome;
mod payload;
mod runner;
mod session;
pub mod testing;
mod work;

pub use action::{Action, Handles, Undo, UndoInput};
pub use agent::Agent;
pub use capacity::Capacity;
pub use config::{RunConfig, URL_VARIABLE};
pub use context::{Context, Level, Usage};
pub use effect_log::EffectLog;
pub use error::Error;
pub use failure::{Failure, Kind};
pub use handler::Handler;
pub use json::Json;
pub use schemars::JsonSchema;
pub use tokio_util::sync::CancellationToken;
