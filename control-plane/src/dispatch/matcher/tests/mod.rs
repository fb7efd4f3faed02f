//! What the matcher promises, rule by rule. Time is handed in, frames and reports are data.

mod cancel;
mod choice;
mod claims;
mod leases;
mod polls;
mod properties;
mod reports;
mod waiting;
pub(in crate::dispatch) mod world;
