//! The known word nearest to a mistyped one. It must not know what the words are for.

use crate::definition::limit::CANDIDATES_MAX;

/// Longer words are not compared: nobody mistypes them, and the cost is quadratic.
const WORD_CHARS_MAX: usize = 64;

/// The candidate nearest to `word`, if one is near enough to be meant.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let length = word.chars().count();
    if length == 0 || length > WORD_CHARS_MAX {
        return None;
    }
    let distance_max = (length / 3).max(1);
    let lower = word.to_lowercase();
    candidates
        .into_iter()
        .take(CANDIDATES_MAX)
        .filter(|candidate| {
            *candidate != word
                && candidate.len() <= 4 * WORD_CHARS_MAX
                && candidate.chars().count().abs_diff(length) <= distance_max
        })
        .filter_map(|candidate| {
            let distance = if candidate.to_lowercase() == lower {
                0
            } else {
                strsim::damerau_levenshtein(word, candidate)
            };
            (distance <= distance_max).then_some((distance, candidate))
        })
        // A stable minimum: of equally near ones the first.
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `, did you mean `x`?`, or nothing.
pub(crate) fn hint(candidate: Option<&str>) -> String {
    candidate.map_or_else(String::new, |candidate| format!(", did you mean `{candidate}`?"))
}
