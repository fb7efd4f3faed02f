//! The remediator on real files, processes and databases.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support; // a sandbox with a service in it

mod changes; // each action does what it says, and refuses what it must
mod health; // what is wrong is told as issues
mod issues; // which issues are for which action
mod undo; // the undo contract, for every action
