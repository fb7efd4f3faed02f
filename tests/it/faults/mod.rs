//! Faults of everything that a control plane leans on, while runs are under way. What is believed
//! is what stands outside: files that agents append to, and what clients were told.

mod agents;
mod database;
mod disk;
mod history;
mod load;
mod promises;
mod proxy;
mod replicas;
