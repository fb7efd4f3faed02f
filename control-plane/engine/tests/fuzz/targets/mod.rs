//! What fuzzers run: bytes in, a panic out when something is wrong. Shared by the stable runner
//! beside and by the package in `fuzz/`; knows neither of them.

#![expect(clippy::unwrap_used, reason = "tests")]

mod decide;
mod definition;
mod drive;
mod expression;
mod grammar;

pub(crate) use decide::decide;
pub(crate) use definition::definition;
pub(crate) use expression::expression;
