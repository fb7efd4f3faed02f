//! The API gateway on scaffolded projects, with servers that run.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support; // scaffolded projects, running servers

mod records; // once per key, undone to the byte, in any order, after any crash
mod serving; // the routes of each template do what the OpenAPI document says
mod steps; // through the agent: inherited fields, refusals
mod undo; // the undo contract
