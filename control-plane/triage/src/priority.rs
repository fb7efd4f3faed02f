//! What comes first: severity × impact + age + the priority of what waits for it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::issue::{Issue, Severity};

/// What one hour of age adds. There is no upper bound: whatever waits long enough comes first.
const PER_HOUR: f64 = 0.1;
/// What something that suffers only through others counts of one that suffers itself.
const INDIRECT: f64 = 0.5;
const HOUR_MS: i64 = 60 * 60 * 1000;

/// What is known of the system that is broken.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct System {
    /// Its name.
    pub name: String,
    /// Components, each with those that it needs.
    pub components: BTreeMap<String, Vec<String>>,
}

/// The priority of each issue; the higher, the sooner. Issues must have passed
/// [`crate::issue::check`].
pub fn priorities(issues: &[Issue], system: &System, now_ms: i64) -> Vec<f64> {
    let harm = harm(issues, system);
    let own: Vec<f64> = issues
        .iter()
        .map(|issue| {
            let severity = match issue.severity {
                Severity::Critical => 8.0,
                Severity::High => 4.0,
                Severity::Medium => 2.0,
                Severity::Low => 1.0,
            };
            let hours = issue.detected_at_ms.map_or(0, |at| (now_ms - at).max(0) / HOUR_MS);
            severity * (1.0 + impact(issue, &harm).ln_1p()) + hours as f64 * PER_HOUR
        })
        .collect();
    with_waiting(issues, own)
}

/// Who suffers from what: issues and components, by name, each with those that suffer from it.
fn harm<'a>(issues: &'a [Issue], system: &'a System) -> BTreeMap<&'a str, Vec<&'a str>> {
    let mut harm: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for issue in issues {
        harm.entry(&issue.id).or_default().extend(issue.affects.iter().map(String::as_str));
        if !issue.component.is_empty() {
            harm.entry(&issue.id).or_default().push(&issue.component);
        }
    }
    for (component, needs) in &system.components {
        for need in needs {
            harm.entry(need).or_default().push(component);
        }
    }
    harm
}

/// How many suffer: those that the issue names, and through them others. Its own component is no
/// sufferer, but a way to them.
fn impact(issue: &Issue, harm: &BTreeMap<&str, Vec<&str>>) -> f64 {
    let direct: BTreeSet<&str> = issue.affects.iter().map(String::as_str).collect();
    let mut seen: BTreeSet<&str> = direct.clone();
    seen.insert(&issue.id);
    let mut open: Vec<&str> = direct.iter().copied().collect();
    if !issue.component.is_empty() && seen.insert(&issue.component) {
        open.push(&issue.component);
    }
    let mut indirect = 0_usize;
    // Far more than a person could name; a bound on the work for one issue.
    while let Some(name) = open.pop().filter(|_| seen.len() < 1_000) {
        for next in harm.get(name).into_iter().flatten() {
            if seen.insert(next) {
                indirect += 1;
                open.push(next);
            }
        }
    }
    direct.len() as f64 + INDIRECT * indirect as f64
}

/// Adds to each issue the highest priority of those that wait for it, from the last ones back.
fn with_waiting(issues: &[Issue], own: Vec<f64>) -> Vec<f64> {
    let index: BTreeMap<&str, usize> =
        issues.iter().enumerate().map(|(at, issue)| (issue.id.as_str(), at)).collect();
    let needs = |at: usize| issues[at].depends_on.iter().filter_map(|id| index.get(id.as_str()));
    let mut waiting = vec![0_usize; issues.len()];
    for at in 0..issues.len() {
        for need in needs(at) {
            waiting[*need] += 1;
        }
    }
    let mut priority = own;
    let mut most = vec![0.0_f64; issues.len()];
    let mut open: Vec<usize> = (0..issues.len()).filter(|at| waiting[*at] == 0).collect();
    while let Some(at) = open.pop() {
        priority[at] = ((priority[at] + most[at]) * 100.0).round() / 100.0;
        for need in needs(at) {
            most[*need] = most[*need].max(priority[at]);
            waiting[*need] -= 1;
            if waiting[*need] == 0 {
                open.push(*need);
            }
        }
    }
    priority
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issue(id: &str, severity: Severity) -> Issue {
        Issue { id: id.into(), title: id.into(), severity, ..Issue::default() }
    }

    #[test]
    fn what_harms_more_or_blocks_comes_before_what_is_only_as_bad() {
        let mut issues = vec![
            issue("plain", Severity::High),
            issue("harms", Severity::High),
            issue("far", Severity::High),
            issue("blocks", Severity::Low),
            issue("blocked", Severity::Critical),
        ];
        issues[1].affects = vec!["shop".into()];
        issues[2].component = "database".into();
        issues[4].depends_on = vec!["blocks".into()];
        let components = [("api", "database"), ("shop", "api")];
        let components = components.map(|(name, need)| (name.to_owned(), vec![need.to_owned()]));
        let system = System { name: "x".into(), components: components.into() };
        let found = priorities(&issues, &system, 0);
        assert!(found[1] > found[0], "direct harm: {found:?}");
        assert!(found[2] > found[0], "harm through the component: {found:?}");
        assert!(found[3] > found[4], "a blocker before what it blocks: {found:?}");
    }

    #[test]
    fn nothing_starves() {
        let mut old = issue("old", Severity::Low);
        old.detected_at_ms = Some(0);
        let now = 30 * 24 * HOUR_MS;
        let mut new = issue("new", Severity::Critical);
        new.detected_at_ms = Some(now);
        let found = priorities(&[old, new], &System::default(), now);
        assert!(found[0] > found[1], "{found:?}");
    }
}
