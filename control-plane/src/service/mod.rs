//! The services that clients and agents call. Shims: they convert, call and convert back.

pub mod admission;
pub mod agent;
pub mod audit;
pub mod auth;
pub mod checkpoint;
pub mod context;
pub mod convert;
pub mod dead_letter;
pub mod definition;
pub mod deployment;
pub mod diagnose;
pub mod escalation;
mod follow;
pub mod lending;
mod look;
pub mod orchestrator;
pub mod page;
pub mod peer;
pub mod plan;
pub mod recovery;
pub mod replica;
pub mod request;
pub mod rollback;
pub mod rollback_list;
pub mod run;
pub mod start_runs;
pub mod status;
pub mod triage;
pub mod triage_convert;
pub mod watch;
pub mod workflow;

pub use context::Context;
