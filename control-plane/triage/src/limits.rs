//! Every bound of triage.

/// Issues in one triage.
pub const ISSUES_MAX: usize = 10_000;
/// Characters of an issue's id.
pub const ID_CHARS_MAX: usize = 200;
/// Bytes of an issue's title.
pub const TITLE_BYTES_MAX: usize = 1_000;
/// Bytes of an issue's description.
pub const DESCRIPTION_BYTES_MAX: usize = 64 * 1024;
/// Entries of any list of an issue: labels, evidence, `depends_on`, `affects`.
pub const LIST_MAX: usize = 1_000;
/// Bytes of an entry of such a list.
pub const ENTRY_BYTES_MAX: usize = 16 * 1024;
/// Bytes of an issue's text that are read for words; what stands behind changes nothing.
pub const TEXT_BYTES_READ: usize = 4 * 1024;
/// Confirmed outcomes that a model keeps, the newest.
pub const EXAMPLES_MAX: usize = 4_000;
/// Confirmed outcomes from which on a model places; before, declarations alone do.
pub const EXAMPLES_MIN: usize = 30;
/// Confirmed outcomes, the newest, that are weighed one by one: the work grows with their cube.
pub const RIDGE_EXAMPLES_MAX: usize = 1_000;
/// Runners-up kept with an assignment.
pub const RUNNERS_UP_MAX: usize = 3;
/// Words named in a reason.
pub const WORDS_NAMED_MAX: usize = 5;
/// Words of a keyword; longer phrases are not looked for.
pub const PHRASE_WORDS_MAX: usize = 5;
/// Steps of the solver that fits a model's weights.
pub const FIT_STEPS_MAX: usize = 50;
