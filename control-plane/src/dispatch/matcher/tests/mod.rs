//! What the matcher promises, rule by rule. Time is handed in, frames and reports are data.

mod cancel;
mod choice;
mod claims;
mod leases;
mod lending;
mod lending_properties;
mod polls;
mod properties;
mod reports;
mod waiting;
mod web;
pub(in crate::dispatch) mod world;
