//! Declared rules: an issue that names a component, category or label that an agent declares is
//! placed there without asking what its words are like.

use std::collections::BTreeSet;

use crate::declaration::{AgentDeclaration, Class};
use crate::issue::Issue;

/// What a rule found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The class, as index.
    pub class: usize,
    /// The rule, for people.
    pub rule: String,
}

/// The class of an issue by declared rules: by component, else category, else labels. Labels that
/// point to several classes say nothing.
pub fn find(issue: &Issue, agents: &[AgentDeclaration], classes: &[Class]) -> Option<Hit> {
    let named = |value: &str| {
        let value = value.trim().to_lowercase();
        if value.is_empty() {
            return None;
        }
        classes.binary_search_by(|class| class.name.as_str().cmp(&value)).ok()
    };
    for (kind, value) in [("component", &issue.component), ("category", &issue.category)] {
        if let Some(class) = named(value) {
            return Some(Hit { class, rule: rule(kind, value, agents, &classes[class]) });
        }
    }
    let mut found: BTreeSet<usize> = BTreeSet::new();
    let mut label_found = None;
    for label in &issue.labels {
        let by_label = classes_of_label(label, agents, classes);
        let all: Vec<usize> = named(label).into_iter().chain(by_label).collect();
        if !all.is_empty() && label_found.is_none() {
            label_found = Some(label);
        }
        found.extend(all);
    }
    match (found.len(), label_found) {
        (1, Some(label)) => {
            let class = *found.first()?;
            Some(Hit { class, rule: rule("label", label, agents, &classes[class]) })
        }
        _ => None,
    }
}

/// How many rules of one action an issue meets: chooses between actions of one class.
pub fn count(issue: &Issue, action: &crate::declaration::Action) -> usize {
    let has = |list: &[String], value: &str| {
        !value.is_empty() && list.iter().any(|entry| entry.eq_ignore_ascii_case(value))
    };
    let handles = &action.handles;
    usize::from(has(&handles.components, &issue.component))
        + usize::from(has(&handles.categories, &issue.category))
        + issue.labels.iter().filter(|label| has(&handles.labels, label)).count()
        + issue.labels.iter().filter(|label| has(&handles.categories, label)).count()
}

fn classes_of_label(label: &str, agents: &[AgentDeclaration], classes: &[Class]) -> Vec<usize> {
    let declares = |at: &(usize, usize)| {
        let labels = &agents[at.0].actions[at.1].handles.labels;
        labels.iter().any(|declared| declared.eq_ignore_ascii_case(label))
    };
    (0..classes.len()).filter(|class| classes[*class].handlers.iter().any(declares)).collect()
}

fn rule(kind: &str, value: &str, agents: &[AgentDeclaration], class: &Class) -> String {
    let mut names: Vec<&str> =
        class.handlers.iter().map(|(at, _)| agents[*at].agent_type.as_str()).collect();
    names.dedup();
    format!("rule: {kind} `{value}` is declared by {}", names.join(", "))
}
