//! From a stored triage to what a plan is written from.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use contracts::v1::Reason;
use engine::definition::{self as complaint, Complaint};
use triage::{Issue, Severity, Triage};

use super::{check, nobody};
use crate::limits;
use crate::plans::{self, Body};
use crate::recovery::plan::{self, Assigned, By, Draft, Planned};
use crate::service::Context;
use crate::service::auth::Principal;
use crate::service::status::{Refusal, cut};
use crate::triages::{self, Stored};

/// What is wanted of a plan.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// Only these issues; empty: all that are not mended yet.
    pub(super) only: &'a [String],
    /// A failure undoes everything.
    pub(super) rollback_all: bool,
}

/// The plan of a triage, and what to think about.
///
/// # Errors
/// When there is no such triage, or nothing in it that an agent takes.
pub(super) async fn body(
    context: &Context,
    who: &Principal,
    id: &str,
    wanted: Wanted<'_>,
) -> Result<(Body, Vec<Complaint>), Refusal> {
    let store = &**context.runs.store();
    let found = match id.is_empty() || id.contains('\0') {
        true => None,
        false => triages::get(store, &who.tenant, id).await?,
    };
    let Some((_, stored)) = found else {
        let message = format!("there is no triage `{}`", cut(id, 200));
        return Err(Refusal::missing(Reason::TriageNotFound, "triage", id, message));
    };
    let mended = plans::mended(store, &who.tenant, id).await?;
    let chosen = Chosen::of(&stored, wanted.only, mended)?;
    let draft = draft(context, id, &stored, &chosen, wanted.rollback_all);
    let written = match plan::write(&draft) {
        Ok(written) => written,
        Err(plan::Error::Nothing) => {
            return Err(nobody::refusal(store, id, &stored, &draft).await?);
        }
        Err(error @ plan::Error::TooLarge { .. }) => {
            return Err(Refusal::limit("plan", error.to_string()));
        }
        Err(error) => return Err(Refusal::field("triage_id", error.to_string())),
    };
    let mut notes = chosen.notes(&stored, &draft);
    if !wanted.only.is_empty() {
        notes.extend(nobody::notes(store, id, &stored, &draft).await?);
    }
    let categories: BTreeMap<&str, &str> = stored
        .decided
        .assignments
        .iter()
        .map(|assigned| (assigned.issue_id.as_str(), assigned.category.as_str()))
        .collect();
    let issues = draft.issues.iter().zip(written.steps).map(|(planned, step)| {
        let by = match &planned.by {
            By::Agent(by) => Some(by),
            By::Person { .. } => None,
        };
        let category = categories.get(planned.issue.as_str()).copied().unwrap_or_default();
        plans::Issue {
            id: planned.issue.clone(),
            title: planned.title.clone(),
            step,
            estimate_ms: by.and_then(|by| u64::try_from(by.estimate.as_millis()).ok()),
            category: category.to_owned(),
            agent: by.map(|by| by.agent.clone()).unwrap_or_default(),
            action: by.map(|by| by.action.clone()).unwrap_or_default(),
            severity: planned.severity.clone(),
        }
    });
    let issues = issues.collect();
    Ok((Body { triage: id.to_owned(), text: written.text, issues, ..Body::default() }, notes))
}

/// Which issues of a triage a plan is for.
struct Chosen {
    /// Issues and the ones that they are duplicates of.
    first_of: BTreeMap<String, String>,
    /// The issues.
    chosen: BTreeSet<String>,
    /// Those that plans, or people, have mended, or that are left as they are.
    through: BTreeSet<String>,
}

impl Chosen {
    fn of(stored: &Stored, only: &[String], mended: BTreeSet<String>) -> Result<Self, Refusal> {
        let Stored { issues, decided, handled, .. } = stored;
        let first_of: BTreeMap<String, String> =
            decided.duplicates.iter().map(|it| (it.issue_id.clone(), it.of.clone())).collect();
        let firsts = issues.iter().filter(|issue| !first_of.contains_key(&issue.id));
        let all: BTreeSet<String> = firsts.map(|issue| issue.id.clone()).collect();
        let mut through = mended;
        through.extend(handled.keys().cloned());
        let mut chosen = BTreeSet::new();
        for (at, id) in only.iter().enumerate() {
            let first = first_of.get(id).unwrap_or(id);
            let field = format!("issue_ids[{at}]");
            if !all.contains(first) {
                let shown = cut(id, 200);
                return Err(Refusal::field(&field, format!("`{shown}` is no issue of the triage")));
            }
            if let Some(handled) = handled.get(first) {
                let how = if handled.mended { "mended by hand" } else { "to be left as it is" };
                let wrong = format!("`{first}` is {how}, as `{}` said", handled.by);
                return Err(Refusal::field(&field, wrong));
            }
            chosen.insert(first.clone());
        }
        if only.is_empty() {
            chosen = all.difference(&through).cloned().collect();
        }
        if chosen.is_empty() {
            let wrong = "all its issues are mended, or left as they are; name those that are to \
                         be mended again by `issue_ids`";
            return Err(Refusal::field("triage_id", wrong));
        }
        Ok(Self { first_of, chosen, through })
    }

    /// What an issue of the plan waits for within it.
    fn depends_on(&self, issue: &Issue) -> Vec<String> {
        self.needs(issue).filter(|on| self.chosen.contains(*on)).cloned().collect()
    }

    fn needs<'a>(&'a self, issue: &'a Issue) -> impl Iterator<Item = &'a String> {
        let first = |on: &'a String| self.first_of.get(on).unwrap_or(on);
        issue.depends_on.iter().map(first).filter(|on| **on != issue.id)
    }

    /// Says what issues of the plan need that is not mended, and stands in no step of it.
    fn notes(&self, stored: &Stored, draft: &Draft) -> Vec<Complaint> {
        let planned: BTreeSet<&str> = draft.issues.iter().map(|it| it.issue.as_str()).collect();
        let issues = stored.issues.iter().filter(|issue| planned.contains(issue.id.as_str()));
        let left = issues.flat_map(|issue| {
            let is_left = |on: &&String| !self.chosen.contains(*on) && !self.through.contains(*on);
            self.needs(issue).filter(is_left).map(|on| (&issue.id, on))
        });
        left.take(limits::WARNINGS_MAX)
            .map(|(issue, on)| Complaint {
                file: String::new(),
                line: 0,
                column: 0,
                message: format!(
                    "the issue `{issue}` depends on `{on}`, which is not mended and not in the plan"
                ),
                suggestion: String::new(),
                severity: complaint::Severity::Warning,
            })
            .collect()
    }
}

fn draft(
    context: &Context,
    id: &str,
    stored: &Stored,
    chosen: &Chosen,
    rollback_all: bool,
) -> Draft {
    let Stored { issues, decided: result, .. } = stored;
    let stages = result
        .stages
        .iter()
        .zip(1..)
        .flat_map(|(stage, number)| stage.iter().map(move |issue| (issue.as_str(), number)));
    let stages: BTreeMap<&str, usize> = stages.collect();
    let mut planned: Vec<(Planned, f64)> = issues
        .iter()
        .filter(|issue| chosen.chosen.contains(&issue.id))
        .map(|issue| {
            let (by, priority) = by(context, issue, result);
            let planned = Planned {
                issue: issue.id.clone(),
                title: issue.title.clone(),
                severity: severity(issue.severity).to_owned(),
                priority: urgency(issue.severity),
                depends_on: chosen.depends_on(issue),
                stage: stages.get(issue.id.as_str()).copied().unwrap_or(usize::MAX),
                by,
            };
            (planned, priority)
        })
        .collect();
    planned.sort_by(|(a, a_priority), (b, b_priority)| {
        a.stage.cmp(&b.stage).then(b_priority.total_cmp(a_priority))
    });
    let last = stages.values().max().copied().unwrap_or(0) + 1;
    let issues = planned.into_iter().map(|(mut planned, _)| {
        planned.stage = planned.stage.min(last);
        planned
    });
    Draft { triage: id.to_owned(), issues: issues.collect(), rollback_all }
}

fn by(context: &Context, issue: &Issue, result: &Triage) -> (By, f64) {
    let assigned = result.assignments.iter().find(|it| it.issue_id == issue.id);
    let Some(assigned) = assigned else {
        let escalated = result.escalated.iter().find(|it| it.issue_id == issue.id);
        let reason = escalated.map(|it| it.reason.clone()).unwrap_or_default();
        return (By::Person { reason }, escalated.map_or(0.0, |it| it.priority));
    };
    // Another agent type can go on with a step only by the same action.
    let mut fallback: Vec<String> = Vec::new();
    for other in assigned.runners_up.iter().filter(|it| it.action == assigned.action) {
        if other.agent_type != assigned.agent_type && !fallback.contains(&other.agent_type) {
            fallback.push(other.agent_type.clone());
        }
    }
    let undo = check::planned_undo(context, &assigned.agent_type, &fallback, &assigned.action);
    let by = By::Agent(Box::new(Assigned {
        agent: assigned.agent_type.clone(),
        action: assigned.action.clone(),
        params: assigned.params.clone(),
        reason: assigned.reason.clone(),
        confidence: assigned.confidence,
        fallback,
        undo,
        estimate: Duration::from_millis(assigned.duration_ms),
    }));
    (by, assigned.priority)
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "CRITICAL",
        Severity::High => "HIGH",
        Severity::Medium => "MEDIUM",
        Severity::Low => "LOW",
    }
}

/// The priority of a step.
fn urgency(severity: Severity) -> u8 {
    match severity {
        Severity::Critical => 9,
        Severity::High => 7,
        Severity::Medium => 5,
        Severity::Low => 3,
    }
}
