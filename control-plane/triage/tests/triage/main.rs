//! Triage as a whole: rules of the decision, and accuracy on real labelled issues.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests, which name their figures")]

mod decisions;
mod labelled;
