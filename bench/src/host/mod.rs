//! What the figures are taken on: processes of our own, their CPU time and memory, the databases,
//! and the machine.

pub(crate) mod agents;
pub(crate) mod database;
pub(crate) mod machine;
pub(crate) mod metrics;
pub(crate) mod process;
pub(crate) mod server;
pub(crate) mod usage;
