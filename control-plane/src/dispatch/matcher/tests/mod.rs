//! What the matcher promises, rule by rule. Time is handed in, frames and reports are data.
#![expect(clippy::unwrap_used, reason = "tests")]

mod cancel;
mod choice;
mod claims;
mod leases;
mod polls;
mod properties;
mod reports;
mod waiting;
pub(super) mod world;
