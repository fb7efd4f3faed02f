//! Whether it holds together: everything from outside.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

mod contracts; // nothing of the contracts is removed or renumbered
mod recovery; // processes are killed, nothing is lost or done twice
mod tidy; // the repository's rules
