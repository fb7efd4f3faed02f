//! The services that clients and agents call. Shims: they convert, call and convert back.

pub mod auth;
pub mod context;
pub mod orchestrator;
pub mod workflow;
pub mod definition;
pub mod run;
pub mod watch;
pub mod diagnose;
pub mod dead_letter;
pub mod agent;
pub mod request;
pub mod page;
pub mod convert;
pub mod status;

pub use context::Context;
