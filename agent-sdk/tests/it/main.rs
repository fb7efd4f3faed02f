//! Tests of the SDK as an agent's author meets it.
#![expect(clippy::unwrap_used, reason = "tests")]

// The shortest agent: its length, and that it works.
mod hello;
// Handlers called in process: inputs, inheritance, panics, undo.
mod harness;
// Streams: registration, results, cancel, drain, at most once.
mod session;
// Streams that break, and frames that get lost, late, twice or out of order.
mod faults;
// Effects that happen once and can be undone.
mod effect_log;
// Plans that are carried out once and can be taken back.
mod plans;
