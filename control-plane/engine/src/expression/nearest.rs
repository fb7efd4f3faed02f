//! The nearest known word to a mistyped one.

/// Words longer than this are not compared: nobody mistypes them, and the cost is quadratic.
const WORD_CHARS_MAX: usize = 64;
/// How many candidates are looked at.
const CANDIDATES_MAX: usize = 256;

/// The candidate nearest to `word`, if one is near enough to be meant.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let length = word.chars().count();
    if length == 0 || length > WORD_CHARS_MAX {
        return None;
    }
    let distance_max = (length / 3).max(1);
    candidates
        .into_iter()
        .take(CANDIDATES_MAX)
        .filter(|candidate| candidate.len() <= 4 * WORD_CHARS_MAX)
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= distance_max && *candidate != word)
        // A stable minimum: of equally near ones the first.
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `, did you mean `x`?`, or nothing.
pub(super) fn hint(candidate: Option<&str>) -> String {
    candidate.map_or_else(String::new, |candidate| format!(", did you mean `{candidate}`?"))
}
