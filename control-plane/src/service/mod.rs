//! The services that clients and agents call. Shims: they convert, call and convert back.

pub mod agent;
pub mod page;
pub mod status;
