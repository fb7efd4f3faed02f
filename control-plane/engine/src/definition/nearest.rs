//! What somebody probably meant who wrote a name that does not exist.

use super::limit::CANDIDATES_MAX;

/// Longer words are not compared: nobody mistypes them, and the cost is quadratic.
const WORD_CHARS_MAX: usize = 64;

/// Words of other workflow languages, and what they are called here.
const FOREIGN: &[(&str, &str)] = &[
    ("if", "condition"),
    ("when", "condition"),
    ("needs", "depends_on"),
    ("dependencies", "depends_on"),
    ("after", "depends_on"),
    ("requires_steps", "depends_on"),
    ("with", "params"),
    ("inputs", "params"),
    ("input", "params"),
    ("args", "params"),
    ("arguments", "params"),
    ("parameters", "params"),
    ("uses", "action"),
    ("task", "action"),
    ("do", "steps"),
    ("jobs", "steps"),
    ("stages", "steps"),
    ("tasks", "steps"),
    ("cron", "schedule"),
    ("on", "schedule"),
    ("triggers", "schedule"),
    ("loop", "foreach"),
    ("for_each", "foreach"),
    ("forEach", "foreach"),
    ("for", "foreach"),
    ("with_items", "foreach"),
    ("items", "foreach"),
    ("until", "while"),
    ("retries", "retry"),
    ("attempts", "max_attempts"),
    ("limit", "max_attempts"),
    ("sleep", "wait"),
    ("delay", "wait"),
    ("signal", "wait_for"),
    ("approval", "approve"),
    ("undo", "compensate"),
    ("rollback_action", "compensate"),
    ("continue-on-error", "continue_on_error"),
    ("ignore_errors", "continue_on_error"),
    ("timeout_seconds", "timeout"),
    ("timeout-minutes", "timeout"),
    ("on_error", "on_failure"),
    ("onExit", "on_failure"),
    ("on_failure", "error_handling"),
    ("retry", "error_handling"),
    ("tz", "timezone"),
    ("period", "per"),
    ("max", "limit"),
    ("group", "key"),
    ("labels", "requires"),
];

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

/// The field that was meant by an unknown one: the nearest, or what another language calls so.
pub(super) fn field(word: &str, known: &[&'static str]) -> Option<&'static str> {
    let foreign = |&&(from, to): &&(&str, &'static str)| from == word && known.contains(&to);
    let translated = FOREIGN.iter().find(foreign).map(|&(_, to)| to);
    translated.or_else(|| nearest(word, known.iter().copied()))
}

/// `, did you mean `x`?`, or nothing.
pub(super) fn hint(candidate: Option<&str>) -> String {
    candidate.map_or_else(String::new, |candidate| format!(", did you mean `{candidate}`?"))
}

/// Names as a person lists them: `a`, `b` and `c`.
pub(super) fn listed(names: &[&str], last: &str) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((only, [])) => only.clone(),
        Some((end, rest)) => format!("{} {last} {end}", rest.join(", ")),
    }
}
