//! From a triage to the text of a workflow: one step for each issue that somebody takes, in an
//! order that respects what depends on what, each with its undo and a checkpoint behind it.
//!
//! The text is what people read, edit and approve; the run is started from it and from nothing
//! else. This module must not know who is connected, what was stored or what time it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Map, Value};

use super::yaml;

/// Issues in one plan: each has a step, and a workflow has at most so many.
pub const ISSUES_MAX: usize = engine::limits::DEFINITION_STEPS_MAX;
/// How often a step of a plan is tried by each of its agents.
const ATTEMPTS: u32 = 3;
/// By how much a step may take longer than it is expected to.
const TIMEOUT_FACTOR: u32 = 4;
/// The shortest and the longest time-out of a step.
const TIMEOUT_MIN: Duration = engine::limits::ACTION_TIMEOUT_DEFAULT;
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);
/// Characters of a step's id, room for a number among them.
const ID_CHARS_MAX: usize = 60;

/// What a plan is made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Draft {
    /// The triage's id.
    pub triage: String,
    /// The issues, in the order in which they should begin.
    pub issues: Vec<Planned>,
    /// A failure undoes the whole recovery, not only what depends on what failed.
    pub rollback_all: bool,
}

/// One issue and what is to be done about it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Planned {
    /// The issue's id.
    pub issue: String,
    /// Its title.
    pub title: String,
    /// Its severity, a word for people.
    pub severity: String,
    /// How urgent it is: the priority of its step, 0 to 9.
    pub priority: u8,
    /// The issues that must be mended before.
    pub depends_on: Vec<String>,
    /// The stage of the triage that it stands in, from 1; for people.
    pub stage: usize,
    /// Who does it.
    pub by: By,
}

/// Who mends an issue.
#[derive(Clone, Debug, PartialEq)]
pub enum By {
    /// An agent.
    Agent(Box<Assigned>),
    /// A person: nobody else could be found.
    Person {
        /// Why.
        reason: String,
    },
}

impl Default for By {
    fn default() -> Self {
        Self::Person { reason: String::new() }
    }
}

/// What an agent is to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Assigned {
    /// The agent type.
    pub agent: String,
    /// The action.
    pub action: String,
    /// Its params.
    pub params: Map<String, Value>,
    /// Why this agent and this action.
    pub reason: String,
    /// How sure that is, 0 to 1.
    pub confidence: f64,
    /// Agent types that offer the same action, tried in this order when this one fails.
    pub fallback: Vec<String>,
    /// How the action is undone.
    pub undo: Undo,
    /// How long it is expected to take.
    pub estimate: Duration,
}

/// How an action is undone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Undo {
    /// By this action, whoever of the step's agents did it: the text says so.
    Action(String),
    /// By what the agent that did it declares then.
    #[default]
    Declared,
    /// Not at all.
    Impossible,
    /// It changes nothing.
    Nothing,
}

/// A plan's text, and which step is for which issue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The workflow.
    pub text: String,
    /// The ids of steps by the issues' places in the draft; `None`: a person has it, and nothing
    /// in the plan waits for that.
    pub steps: Vec<Option<String>>,
}

/// Why there can be no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing could be done by an agent.
    #[error("no agent takes any issue of the triage; there is nothing to plan")]
    Nothing,
    /// Two issues have one id.
    #[error("the issue `{0}` is there twice")]
    Twice(String),
    /// An issue depends on one that is not there.
    #[error("the issue `{issue}` depends on `{on}`, which the triage does not have")]
    Unknown {
        /// The issue.
        issue: String,
        /// What is not there.
        on: String,
    },
    /// Issues wait for each other in a circle.
    #[error("the issues {} wait for each other in a circle", .0.join(" → "))]
    Cycle(Vec<String>),
    /// The text is longer than a workflow may be.
    #[error(
        "the plan would have {found} {what}, a workflow has at most {max}; triage fewer issues at \
         once"
    )]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much.
        found: usize,
        /// How much is allowed.
        max: usize,
    },
}

/// Writes the workflow of a draft.
///
/// # Errors
/// When the issues contradict each other, when nothing is left to do, or too much.
pub fn write(draft: &Draft) -> Result<Written, Error> {
    let places = check(draft)?;
    let steps = ids(draft, &places);
    let mut text = head(draft);
    let mut stage = 0;
    for (at, issue) in draft.issues.iter().enumerate() {
        let Some(id) = &steps[at] else { continue };
        if issue.stage != stage {
            stage = issue.stage;
            line(&mut text, &format!("  # Stage {stage}"));
        }
        let on: BTreeSet<usize> = issue.depends_on.iter().map(|on| places[on.as_str()]).collect();
        let on: Vec<&str> = on.into_iter().filter_map(|on| steps[on].as_deref()).collect();
        step(&mut text, issue, id, &on);
    }
    let max = engine::limits::DEFINITION_BYTES_MAX;
    if text.len() > max {
        return Err(Error::TooLarge { what: "bytes", found: text.len(), max });
    }
    Ok(Written { text, steps })
}

/// The places of the issues by their ids, once they are certain to be in order.
fn check(draft: &Draft) -> Result<BTreeMap<&str, usize>, Error> {
    let (found, max) = (draft.issues.len(), ISSUES_MAX);
    if found > max {
        return Err(Error::TooLarge { what: "steps", found, max });
    }
    if !draft.issues.iter().any(|issue| matches!(issue.by, By::Agent(_))) {
        return Err(Error::Nothing);
    }
    let mut places = BTreeMap::new();
    for (at, planned) in draft.issues.iter().enumerate() {
        if places.insert(planned.issue.as_str(), at).is_some() {
            return Err(Error::Twice(planned.issue.clone()));
        }
    }
    for Planned { issue, depends_on, .. } in &draft.issues {
        if let Some(on) = depends_on.iter().find(|on| !places.contains_key(on.as_str())) {
            return Err(Error::Unknown { issue: issue.clone(), on: on.clone() });
        }
    }
    match cycle(draft, &places) {
        Some(cycle) => Err(Error::Cycle(cycle)),
        None => Ok(places),
    }
}

/// A circle among the issues, its first one at both ends.
fn cycle(draft: &Draft, places: &BTreeMap<&str, usize>) -> Option<Vec<String>> {
    let issues = &draft.issues;
    let mut waits_for: Vec<usize> = issues.iter().map(|issue| issue.depends_on.len()).collect();
    let mut dependents = vec![Vec::new(); issues.len()];
    for (at, issue) in issues.iter().enumerate() {
        for on in &issue.depends_on {
            dependents[places[on.as_str()]].push(at);
        }
    }
    let mut free: Vec<usize> = (0..issues.len()).filter(|&at| waits_for[at] == 0).collect();
    while let Some(at) = free.pop() {
        for &dependent in &dependents[at] {
            waits_for[dependent] -= 1;
            if waits_for[dependent] == 0 {
                free.push(dependent);
            }
        }
    }
    // What is left waits for something that is left; going back along it ends in a circle.
    let mut at = waits_for.iter().position(|&count| count > 0)?;
    let mut path: Vec<usize> = Vec::new();
    loop {
        if let Some(begin) = path.iter().position(|&seen| seen == at) {
            let mut circle: Vec<String> =
                path[begin..].iter().map(|&at| issues[at].issue.clone()).collect();
            circle.reverse();
            circle.push(circle[0].clone());
            return Some(circle);
        }
        path.push(at);
        let places = issues[at].depends_on.iter().map(|on| places[on.as_str()]);
        at = places.into_iter().find(|&on| waits_for[on] > 0)?;
    }
}

/// The step of each issue that has one: all that agents have, and what these wait for.
fn ids(draft: &Draft, places: &BTreeMap<&str, usize>) -> Vec<Option<String>> {
    let mut wanted: Vec<bool> =
        draft.issues.iter().map(|issue| matches!(issue.by, By::Agent(_))).collect();
    let mut open: Vec<usize> = (0..wanted.len()).filter(|&at| wanted[at]).collect();
    while let Some(at) = open.pop() {
        for on in &draft.issues[at].depends_on {
            let on = places[on.as_str()];
            if !std::mem::replace(&mut wanted[on], true) {
                open.push(on);
            }
        }
    }
    let mut taken = BTreeSet::new();
    let issues = draft.issues.iter().zip(wanted);
    issues.map(|(issue, wanted)| wanted.then(|| free_id(&issue.issue, &mut taken))).collect()
}

/// An id for a step that nobody has yet, as like to the issue's as the language allows.
fn free_id(issue: &str, taken: &mut BTreeSet<String>) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let mut id = String::new();
    for c in issue.chars() {
        if is_word(c) {
            id.push(c);
        } else if !id.is_empty() && !id.ends_with('-') {
            id.push('-');
        }
        if id.len() == ID_CHARS_MAX {
            break;
        }
    }
    let id = id.trim_matches('-');
    // Expressions read ids as names; the words of the language would hide them.
    let id = if id.starts_with(|c: char| c.is_ascii_alphabetic()) {
        id.to_owned()
    } else {
        format!("issue-{id}").trim_end_matches('-').to_owned()
    };
    let mut free = id.clone();
    let mut number = 2_u32;
    while !taken.insert(free.clone()) {
        free = format!("{id}-{number}");
        number += 1;
    }
    free
}

fn head(draft: &Draft) -> String {
    let mut text = String::new();
    let triage = yaml::comment(&draft.triage);
    line(&mut text, &format!("# Recovery plan of triage {triage}. It may be edited; what stands"));
    line(&mut text, "# here is what is done.");
    line(&mut text, &format!("name: {}", yaml::text(format!("Recovery {triage}").trim_end())));
    line(&mut text, "error_handling:");
    if draft.rollback_all {
        line(&mut text, "  # A failure undoes the whole recovery.");
        line(&mut text, "  scope: run");
    } else {
        line(
            &mut text,
            "  # A failure undoes what failed and what waits for it; the rest goes on.",
        );
        line(&mut text, "  scope: branch");
    }
    line(&mut text, "  rollback: to_start");
    line(&mut text, &format!("  retry: {{max_attempts: {ATTEMPTS}}}"));
    line(&mut text, "steps:");
    text
}

fn step(text: &mut String, issue: &Planned, id: &str, on: &[&str]) {
    let Planned { title, severity, .. } = issue;
    let shown = yaml::comment(&format!("{severity} {}: {title}", issue.issue));
    line(text, &format!("  # {}", shown.trim_start()));
    match &issue.by {
        By::Agent(assigned) => assigned_step(text, issue, assigned, id, on),
        By::Person { reason } => {
            line(text, &format!("  # No agent takes it: {}", yaml::comment(reason)));
            line(text, &format!("  - id: {id}"));
            let ask = format!("Is `{}` mended? {title}", issue.issue);
            let message = yaml::below(&Value::String(ask), 6);
            text.push_str(&format!("    approve:\n      message:{message}"));
            line(text, &format!("    depends_on: [{}]", on.join(", ")));
        }
    }
}

fn assigned_step(text: &mut String, issue: &Planned, by: &Assigned, id: &str, on: &[&str]) {
    let reason = yaml::comment(&format!("{:.2} sure. {}", by.confidence, by.reason));
    line(text, &format!("  # {reason}"));
    line(text, &format!("  - id: {id}"));
    line(text, &format!("    agent: {}", yaml::text(&by.agent)));
    line(text, &format!("    action: {}", yaml::text(&by.action)));
    if !by.params.is_empty() {
        let params = yaml::below(&Value::Object(by.params.clone()), 4);
        text.push_str(&format!("    params:{params}"));
    }
    line(text, &format!("    depends_on: [{}]", on.join(", ")));
    line(text, &format!("    priority: {}", issue.priority.min(engine::limits::PRIORITY_MAX)));
    line(text, &format!("    timeout: {}s", timeout(by.estimate).as_secs()));
    if !by.fallback.is_empty() {
        let fallback: Vec<String> = by.fallback.iter().map(|agent| yaml::text(agent)).collect();
        line(text, &format!("    fallback: [{}]", fallback.join(", ")));
    }
    match &by.undo {
        Undo::Action(action) => line(text, &format!("    compensate: {}", yaml::text(action))),
        Undo::Declared => line(text, "    # Undone as the agent that does it declares."),
        Undo::Impossible => line(text, "    # Cannot be undone."),
        Undo::Nothing => line(text, "    # Changes nothing."),
    }
    if by.undo != Undo::Nothing {
        line(text, &format!("    checkpoint: after-{id}"));
    }
}

fn timeout(estimate: Duration) -> Duration {
    let timeout = estimate.saturating_mul(TIMEOUT_FACTOR).clamp(TIMEOUT_MIN, TIMEOUT_MAX);
    Duration::from_secs(timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0))
}

fn line(text: &mut String, content: &str) {
    // Writing into a text cannot fail.
    let _ = writeln!(text, "{content}");
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
