//! Several processes that share one database: who there is, who lives, and who has which runs.

pub mod peers;

pub use peers::{Connect, Peer, Peers, Tcp};
