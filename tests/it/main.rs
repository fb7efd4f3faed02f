//! Whether it holds together: everything from outside.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

mod audit; // what people decided, and that nobody changes it unseen
mod backup;
mod cli; // the command line from outside
mod contracts; // nothing of the contracts is removed or renumbered
mod examples; // the three example files as they stand
mod faults; // what is leant on fails, and nothing is lost or done twice
mod lifecycle; // runs from start to end on both databases
mod raw_agent; // an agent written from the .proto alone
mod recovery; // processes are killed, nothing is lost or done twice
mod recovery_example; // examples/recovery, both endings
mod surface; // what the port shows, how the process starts and stops
mod tidy; // the repository's rules
mod triage; // issues, outcomes and what is learned from them
