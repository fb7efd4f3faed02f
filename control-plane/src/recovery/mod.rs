//! Recovery: from a triage to a plan that people can read, and from a run to how far it is.
//!
//! - `plan` writes the workflow of a triage, with `yaml` for its scalars;
//! - `progress` folds a run's journal to how far a recovery is, `undos` to how far its rollback is,
//!   `utilisation` to how well its agents were used, `overhead` to what the orchestrator added to
//!   their work, `ended` to how each issue ended and who mended it;
//! - `resources` advises which agents to add, drain or move.
//!
//! All of it is pure: no store, no clock, no agents. `service::plan` puts it to use.

pub mod ended;
pub mod overhead;
pub mod plan;
pub mod progress;
pub mod resources;
pub mod undos;
pub mod utilisation;
#[cfg(test)]
mod world;
mod yaml;
