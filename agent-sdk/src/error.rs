//! Why an agent could not be run, or had to stop.

/// Why an agent could not be run, or had to stop. Lost connections are not among them: the
/// runner connects again for ever.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The agent was put together wrongly.
    #[error("the agent is wrong: {0}")]
    Agent(String),
    /// An address is wrong.
    #[error("`{address}` is no address of a control plane: {reason}; http://127.0.0.1:8000 is one")]
    Address {
        /// The address.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An argument on the command line is wrong.
    #[error("{0}")]
    Argument(String),
    /// The control plane refuses what the agent says of itself.
    #[error("the control plane refuses the registration: {0}")]
    Refused(String),
    /// Draining took longer than it may.
    #[error("draining took longer than it may: {tasks} tasks have no acknowledged result")]
    Drain {
        /// How many tasks were left.
        tasks: usize,
    },
    /// The signal handlers could not be set up.
    #[error("signals cannot be waited for")]
    Signals(#[source] std::io::Error),
}
