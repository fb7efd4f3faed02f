//! What the process exits with.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The run succeeded, or the command did what it was asked: 0.
    Success,
    /// The run failed, was rolled back, or was cancelled: 1.
    RunFailed,
    /// `doctor` found something that does not work: 1.
    Unwell,
    /// The request or the file was wrong: 2, as for arguments that do not parse.
    BadRequest,
    /// The server could not be reached or could not answer: 3.
    Unavailable,
}

impl Exit {
    /// The number that the process exits with.
    pub fn code(self) -> u8 {
        match self {
            Exit::Success => 0,
            Exit::RunFailed | Exit::Unwell => 1,
            Exit::BadRequest => 2,
            Exit::Unavailable => 3,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}
