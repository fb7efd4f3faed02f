//! Whether it holds together: everything from outside.

#![expect(clippy::unwrap_used, reason = "tests")]

mod contracts; // nothing of the contracts is removed or renumbered
mod tidy; // the repository's rules
