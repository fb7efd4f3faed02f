//! What can go wrong, and which kind of failure each is. Nothing here retries.

use std::path::Path;
use std::{error, fmt, io};

use agent_sdk::Failure;
use agent_sdk::effect_log::UNDONE_CODE;

/// Why the work was not done.
#[derive(Debug)]
pub enum Error {
    /// The input is wrong; nothing was changed.
    Rejected(String),
    /// It cannot be done, now or later; nothing was changed.
    Permanent(String),
    /// A file operation failed; another attempt may go further.
    Io(String, io::Error),
    /// It was undone; it is not done after its undoing.
    Undone,
}

impl Error {
    /// Turns an I/O error into one that names what was to be done, and with which file.
    pub fn io<'a>(deed: &'a str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |error| Self::Io(format!("cannot {deed} {}", path.display()), error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undone => {
                formatter.write_str("this step was undone; it is not done after its undoing")
            }
            Self::Rejected(message) | Self::Permanent(message) => formatter.write_str(message),
            Self::Io(message, error) => write!(formatter, "{message}: {error}"),
        }
    }
}

impl error::Error for Error {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Rejected(message) => Self::rejected(message).code("invalid_input").no_effect(),
            Error::Permanent(message) => Self::permanent(message).no_effect(),
            Error::Undone => Self::permanent(error.to_string()).code(UNDONE_CODE).no_effect(),
            Error::Io(..) => Self::retryable(error.to_string()).code("io"),
        }
    }
}
