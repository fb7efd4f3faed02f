//! The deployment manager on real files.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support; // a workspace with a project

mod crashes; // broken off anywhere, the target has a whole release, and the next attempt ends well
mod releases; // copied as a whole, switched in one step, pruned, one at a time
mod steps; // through the agent: inherited fields, refusals
mod undo;
mod ways_back; // rollback and undo, once per key // the undo contract
