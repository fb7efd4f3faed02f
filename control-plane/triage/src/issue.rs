//! What comes in: issues, and the check that they make sense together.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::limits;

/// How bad an issue is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Severity {
    /// It can wait.
    Low,
    /// The usual; also where nothing is said.
    #[default]
    Medium,
    /// Soon.
    High,
    /// At once.
    Critical,
}

/// Something that is wrong.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Issue {
    /// Unique within its triage.
    pub id: String,
    /// What is wrong, in a line.
    pub title: String,
    /// The same at length.
    pub description: String,
    /// What it concerns, as `database`; empty when unknown.
    pub component: String,
    /// What kind of thing it is, as `configuration`; empty when unknown.
    pub category: String,
    /// How bad it is.
    pub severity: Severity,
    /// Who or what found it.
    pub source: String,
    /// Labels of whoever filed it.
    pub labels: Vec<String>,
    /// Lines of logs, measurements.
    pub evidence: Vec<String>,
    /// Ids of issues that must be mended before.
    pub depends_on: Vec<String>,
    /// Ids of issues, or names of components, that suffer from it.
    pub affects: Vec<String>,
    /// When it was found, in milliseconds since 1970.
    pub detected_at_ms: Option<i64>,
    /// What the action is to be given: a JSON object, or nothing.
    pub params: Option<serde_json::Map<String, serde_json::Value>>,
}

/// Why issues cannot be triaged. Names the place.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Problem {
    /// No issues at all.
    #[error("there are no issues; hand in at least one")]
    Empty,
    /// Too many of them.
    #[error("{0} issues: one triage takes {max} at most", max = limits::ISSUES_MAX)]
    TooMany(usize),
    /// A field is missing or too long.
    #[error("issues[{index}].{field}: {what}")]
    Field {
        /// Which issue, from 0.
        index: usize,
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// Two issues have one id.
    #[error("issues[{index}].id: `{id}` is the id of an issue before it; ids are unique")]
    DuplicateId {
        /// The later of the two.
        index: usize,
        /// The id.
        id: String,
    },
    /// An issue waits for one that is not there.
    #[error("issues[{index}].depends_on: there is no issue `{missing}` in this triage")]
    Unknown {
        /// Which issue.
        index: usize,
        /// What it names.
        missing: String,
    },
    /// Issues wait for one another in a circle.
    #[error("depends_on runs in a circle: {}", .0.join(" -> "))]
    Cycle(Vec<String>),
}

/// Checks issues one by one and against one another.
///
/// # Errors
/// The first problem, with its place.
pub fn check(issues: &[Issue]) -> Result<(), Problem> {
    if issues.is_empty() {
        return Err(Problem::Empty);
    }
    if issues.len() > limits::ISSUES_MAX {
        return Err(Problem::TooMany(issues.len()));
    }
    let mut index_of = BTreeMap::new();
    for (index, issue) in issues.iter().enumerate() {
        check_fields(index, issue)?;
        if index_of.insert(issue.id.as_str(), index).is_some() {
            return Err(Problem::DuplicateId { index, id: issue.id.clone() });
        }
    }
    for (index, issue) in issues.iter().enumerate() {
        for missing in &issue.depends_on {
            if !index_of.contains_key(missing.as_str()) {
                return Err(Problem::Unknown { index, missing: missing.clone() });
            }
        }
    }
    let edges: Vec<Vec<usize>> = issues
        .iter()
        .map(|issue| issue.depends_on.iter().map(|id| index_of[id.as_str()]).collect())
        .collect();
    match cycle(&edges) {
        Some(circle) => {
            Err(Problem::Cycle(circle.into_iter().map(|at| issues[at].id.clone()).collect()))
        }
        None => Ok(()),
    }
}

fn check_fields(index: usize, issue: &Issue) -> Result<(), Problem> {
    let wrong = |field, what: String| Err(Problem::Field { index, field, what });
    if issue.id.is_empty() {
        return wrong("id", "is missing".to_owned());
    }
    if issue.id.chars().count() > limits::ID_CHARS_MAX {
        return wrong("id", format!("is longer than {} characters", limits::ID_CHARS_MAX));
    }
    if issue.title.trim().is_empty() {
        return wrong("title", "is missing".to_owned());
    }
    let texts = [
        ("title", &issue.title, limits::TITLE_BYTES_MAX),
        ("description", &issue.description, limits::DESCRIPTION_BYTES_MAX),
        ("component", &issue.component, limits::TITLE_BYTES_MAX),
        ("category", &issue.category, limits::TITLE_BYTES_MAX),
        ("source", &issue.source, limits::TITLE_BYTES_MAX),
    ];
    for (field, text, max) in texts {
        if text.len() > max {
            return wrong(field, format!("has {} bytes; {max} are allowed", text.len()));
        }
    }
    let lists = [
        ("labels", &issue.labels),
        ("evidence", &issue.evidence),
        ("depends_on", &issue.depends_on),
        ("affects", &issue.affects),
    ];
    for (field, list) in lists {
        if list.len() > limits::LIST_MAX {
            let what = format!("has {} entries; {} are allowed", list.len(), limits::LIST_MAX);
            return wrong(field, what);
        }
        if list.iter().any(|entry| entry.len() > limits::ENTRY_BYTES_MAX) {
            let what = format!("an entry is longer than {} bytes", limits::ENTRY_BYTES_MAX);
            return wrong(field, what);
        }
    }
    Ok(())
}

/// The first circle in a graph, its first member again at the end.
pub(crate) fn cycle(edges: &[Vec<usize>]) -> Option<Vec<usize>> {
    // 0: not seen, 1: on the path, 2: done. No recursion: chains may be as long as the triage.
    let mut seen = vec![0_u8; edges.len()];
    for start in 0..edges.len() {
        if seen[start] != 0 {
            continue;
        }
        let mut path = vec![(start, 0_usize)];
        seen[start] = 1;
        while let Some((at, next)) = path.last_mut() {
            let Some(&to) = edges[*at].get(*next) else {
                seen[*at] = 2;
                path.pop();
                continue;
            };
            *next += 1;
            match seen[to] {
                0 => {
                    seen[to] = 1;
                    path.push((to, 0));
                }
                1 => {
                    let from = path.iter().position(|(node, _)| *node == to).unwrap_or(0);
                    let mut circle: Vec<usize> =
                        path[from..].iter().map(|(node, _)| *node).collect();
                    circle.push(to);
                    return Some(circle);
                }
                _ => {}
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issue(id: &str, depends_on: &[&str]) -> Issue {
        Issue {
            id: id.into(),
            title: "broken".into(),
            depends_on: depends_on.iter().map(|id| (*id).to_owned()).collect(),
            ..Issue::default()
        }
    }

    #[test]
    fn a_circle_is_named_from_its_first_member_round_to_it() {
        let issues = [issue("a", &["b"]), issue("b", &["c"]), issue("c", &["b"])];
        let names = ["b", "c", "b"].map(ToOwned::to_owned).to_vec();
        assert_eq!(check(&issues), Err(Problem::Cycle(names)));
    }

    #[test]
    fn an_issue_that_waits_for_itself_is_a_circle() {
        let names = ["a", "a"].map(ToOwned::to_owned).to_vec();
        assert_eq!(check(&[issue("a", &["a"])]), Err(Problem::Cycle(names)));
    }

    #[test]
    fn wrong_issues_are_refused_with_their_place() {
        let unknown = check(&[issue("a", &[]), issue("b", &["z"])]);
        assert_eq!(unknown, Err(Problem::Unknown { index: 1, missing: "z".into() }));
        let twice = check(&[issue("a", &[]), issue("a", &[])]);
        assert_eq!(twice, Err(Problem::DuplicateId { index: 1, id: "a".into() }));
        assert!(check(&[issue("", &[])]).unwrap_err().to_string().starts_with("issues[0].id"));
        assert_eq!(check(&[]), Err(Problem::Empty));
        let diamond =
            [issue("a", &[]), issue("b", &["a"]), issue("c", &["a"]), issue("d", &["b", "c"])];
        assert_eq!(check(&diamond), Ok(()));
    }
}
