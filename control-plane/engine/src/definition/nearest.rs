//! What somebody probably meant who wrote a name that does not exist.

pub(super) use crate::nearest::{hint, nearest};

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

/// The field that was meant by an unknown one: the nearest, or what another language calls so.
pub(super) fn field(word: &str, known: &[&'static str]) -> Option<&'static str> {
    let foreign = |&&(from, to): &&(&str, &'static str)| from == word && known.contains(&to);
    let translated = FOREIGN.iter().find(foreign).map(|&(_, to)| to);
    translated.or_else(|| nearest(word, known.iter().copied()))
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
