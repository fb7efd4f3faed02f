//! From a stored triage to what a plan is written from.

use std::collections::BTreeMap;
use std::time::Duration;

use contracts::v1::Reason;
use triage::{Issue, Severity, Triage};

use super::check;
use crate::plans::{self, Body};
use crate::recovery::plan::{self, Assigned, By, Draft, Planned};
use crate::service::Context;
use crate::service::auth::Principal;
use crate::service::status::{Refusal, cut};
use crate::triages::{self, Stored};

/// The plan of a triage.
///
/// # Errors
/// When there is no such triage, or nothing in it that an agent takes.
pub(super) async fn body(
    context: &Context,
    who: &Principal,
    id: &str,
    rollback_all: bool,
) -> Result<Body, Refusal> {
    let found = match id.is_empty() || id.contains('\0') {
        true => None,
        false => triages::get(&**context.runs.store(), &who.tenant, id).await?,
    };
    let Some((_, stored)) = found else {
        let message = format!("there is no triage `{}`", cut(id, 200));
        return Err(Refusal::missing(Reason::TriageNotFound, "triage", id, message));
    };
    let draft = draft(context, id, &stored, rollback_all);
    let written = plan::write(&draft).map_err(|error| match error {
        plan::Error::TooLarge { .. } => Refusal::limit("plan", error.to_string()),
        error => Refusal::field("triage_id", error.to_string()),
    })?;
    let categories: BTreeMap<&str, &str> = stored
        .decided
        .assignments
        .iter()
        .map(|assigned| (assigned.issue_id.as_str(), assigned.category.as_str()))
        .collect();
    let issues = draft.issues.iter().zip(written.steps).map(|(planned, step)| {
        let (agent, estimate_ms) = match &planned.by {
            By::Agent(by) => (by.agent.clone(), u64::try_from(by.estimate.as_millis()).ok()),
            By::Person { .. } => (String::new(), None),
        };
        let category = categories.get(planned.issue.as_str()).copied().unwrap_or_default();
        plans::Issue {
            id: planned.issue.clone(),
            title: planned.title.clone(),
            step,
            estimate_ms,
            category: category.to_owned(),
            agent,
        }
    });
    let issues = issues.collect();
    Ok(Body { triage: id.to_owned(), text: written.text, issues, ..Body::default() })
}

fn draft(context: &Context, id: &str, stored: &Stored, rollback_all: bool) -> Draft {
    let Stored { issues, decided: result, .. } = stored;
    let first_of: BTreeMap<&str, &str> =
        result.duplicates.iter().map(|it| (it.issue_id.as_str(), it.of.as_str())).collect();
    let stages = result
        .stages
        .iter()
        .zip(1..)
        .flat_map(|(stage, number)| stage.iter().map(move |issue| (issue.as_str(), number)));
    let stages: BTreeMap<&str, usize> = stages.collect();
    let mut planned: Vec<(Planned, f64)> = issues
        .iter()
        .filter(|issue| !first_of.contains_key(issue.id.as_str()))
        .map(|issue| {
            let (by, priority) = by(context, issue, result);
            let on = |on: &String| {
                let on = first_of.get(on.as_str()).copied().unwrap_or(on);
                (*on != *issue.id).then(|| on.to_owned())
            };
            let planned = Planned {
                issue: issue.id.clone(),
                title: issue.title.clone(),
                severity: severity(issue.severity).to_owned(),
                priority: urgency(issue.severity),
                depends_on: issue.depends_on.iter().filter_map(on).collect(),
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
