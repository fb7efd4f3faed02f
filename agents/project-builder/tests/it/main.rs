//! The project builder on real files and with the real tools.
#![expect(clippy::unwrap_used, reason = "tests")]

mod programs; // each template's project runs and its own tests pass
mod records; // once per key, never over what is there, undone as it was done
mod steps; // through the agent: what a step gives on, refusals
mod undo; // the undo contract
