//! Every bound: of the work, and of what passes without a finding.

use std::time::Duration;

/// How long the parsing of one file may take.
pub const PARSE_TIME_MAX: Duration = Duration::from_secs(2);
/// How many tokens of all files together are compared for duplicates.
pub const TOKEN_COUNT_MAX: usize = 4_000_000;
/// How many syntax errors of one file are told.
pub const SYNTAX_ERRORS_PER_FILE_MAX: usize = 5;
/// How many findings are kept before the rest is only counted as cut off.
pub const FINDINGS_KEPT_MAX: usize = 20_000;
/// How many findings the output has unless the input says otherwise.
pub const FINDINGS_SHOWN: usize = 200;
/// How many findings the output may have.
pub const FINDINGS_SHOWN_MAX: usize = 2_000;
/// The score to reach unless the input says otherwise.
pub const SCORE_MIN: f64 = 70.0;

/// More lines than this make a file too long.
pub const FILE_LINES_MAX: u32 = 800;
/// More lines than this make a function too long.
pub const FUNCTION_LINES_MAX: u32 = 70;
/// A function of more lines than this is an error.
pub const FUNCTION_LINES_ERROR: u32 = 250;
/// More ways through a function than this are a warning.
pub const COMPLEXITY_MAX: u32 = 15;
/// More ways through a function than this are an error.
pub const COMPLEXITY_ERROR: u32 = 30;
/// More levels of control structures than this are a warning.
pub const NESTING_MAX: u32 = 4;
/// A line of more characters than this is long.
pub const LINE_CHARS_MAX: usize = 120;
/// A repeated run of fewer tokens than this is no duplicate.
pub const DUPLICATE_TOKENS_MIN: usize = 60;
/// A repeated run on fewer lines than this is no duplicate.
pub const DUPLICATE_LINES_MIN: u32 = 6;
