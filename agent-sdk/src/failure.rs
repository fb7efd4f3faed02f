//! How a handler says that it did not succeed. The kinds are those of the protocol; nothing
//! here decides about retries.

use std::path::Path;
use std::time::Duration;
use std::{error, fmt, io};

/// Why a task did not succeed.
///
/// `?` works on `std::io::Error` and `anyhow::Error`: both become retryable failures, except
/// that a `Failure` inside an `anyhow::Error` comes out as it went in.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    pub(crate) kind: Kind,
    pub(crate) message: String,
    pub(crate) code: String,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) no_effect: bool,
}

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Another attempt may succeed.
    Retryable,
    /// No attempt will succeed.
    Permanent,
    /// The agent will not do it: the input or the moment is wrong.
    Rejected,
    /// A person must decide.
    NeedsPerson,
    /// It stopped because it was cancelled.
    Cancelled,
}

impl Failure {
    /// Another attempt may succeed.
    pub fn retryable(message: impl Into<String>) -> Self {
        Self::new(Kind::Retryable, message)
    }

    /// No attempt will succeed.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self::new(Kind::Permanent, message)
    }

    /// The input or the moment is wrong. Name the field and say what would be right.
    pub fn rejected(message: impl Into<String>) -> Self {
        Self::new(Kind::Rejected, message)
    }

    /// A person must answer this question first.
    pub fn needs_person(question: impl Into<String>) -> Self {
        Self::new(Kind::NeedsPerson, question)
    }

    /// It stopped because [`Context::cancelled`](crate::Context::cancelled) fired. The message
    /// says what it leaves behind; it may be empty.
    pub fn cancelled(message: impl Into<String>) -> Self {
        Self::new(Kind::Cancelled, message)
    }

    /// Turns an I/O error into a retryable failure with the code `io`, which says what was to be
    /// done, and with which file.
    pub fn io<'a>(deed: &'a str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |error| {
            Self::retryable(format!("cannot {deed} {}: {error}", path.display())).code("io")
        }
    }

    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            code: String::new(),
            retry_after: None,
            no_effect: false,
        }
    }

    /// How long to wait before the next attempt, in place of the retry policy's delay.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// A code that `retry_on` and `no_retry_on` of a definition can name.
    #[must_use]
    pub fn code(mut self, code: impl Into<String>) -> Self {
        self.code = code.into();
        self
    }

    /// Says that the attempt certainly changed nothing, so that it need not be undone.
    #[must_use]
    pub fn no_effect(mut self) -> Self {
        self.no_effect = true;
        self
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The message, or the question for a person.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The code; empty when there is none. (The setter is [`Failure::code`].)
    pub fn code_text(&self) -> &str {
        &self.code
    }

    /// The delay asked for before the next attempt.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Whether the attempt certainly changed nothing.
    pub fn had_no_effect(&self) -> bool {
        self.no_effect
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Retryable => "retryable",
            Kind::Permanent => "permanent",
            Kind::Rejected => "rejected",
            Kind::NeedsPerson => "needs a person",
            Kind::Cancelled => "cancelled",
        };
        write!(formatter, "{kind}: {}", self.message)
    }
}

impl error::Error for Failure {}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(failure) => failure,
            Err(error) => Self::retryable(format!("{error:#}")),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::retryable(error.to_string())
    }
}
