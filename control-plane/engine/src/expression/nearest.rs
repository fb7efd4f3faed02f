//! The nearest known name to a mistyped one, looked for among few: expressions fail at run time.

pub(super) use crate::nearest::hint;

/// How many candidates are looked at.
const CANDIDATES_MAX: usize = 256;

/// The candidate nearest to `word`, if one is near enough to be meant.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    crate::nearest::nearest(word, candidates.into_iter().take(CANDIDATES_MAX))
}
