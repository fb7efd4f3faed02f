//! The token under which an agent holds a task. It fences: what comes with another token than
//! the one given out last changes nothing.

use std::fmt;
use std::str::FromStr;

use engine::ShortText;

/// The owner's epoch of the run, the attempt, and a counter that is never used twice under the
/// same epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseToken {
    /// The epoch under which the run was owned.
    pub epoch: u64,
    /// The attempt that the token was given out for.
    pub attempt: u32,
    /// Counts tokens.
    pub counter: u64,
}

impl fmt::Display for LeaseToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = ShortText::new().number(self.epoch).text(".").number(self.attempt.into());
        f.pad(text.text(".").number(self.counter).as_str())
    }
}

impl FromStr for LeaseToken {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("`{text}` is not a lease token");
        let mut parts = text.split('.');
        let (Some(epoch), Some(attempt), Some(counter), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(wrong());
        };
        Ok(Self {
            epoch: epoch.parse().map_err(|_| wrong())?,
            attempt: attempt.parse().map_err(|_| wrong())?,
            counter: counter.parse().map_err(|_| wrong())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_as_it_was_written() {
        let token = LeaseToken { epoch: 7, attempt: 2, counter: u64::MAX };
        assert_eq!(token.to_string().parse::<LeaseToken>().unwrap(), token);
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for text in ["", "1", "1.2", "1.2.3.4", "a.b.c", "-1.0.0"] {
            assert!(text.parse::<LeaseToken>().is_err(), "{text}");
        }
    }
}
