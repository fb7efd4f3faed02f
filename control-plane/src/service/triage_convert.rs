//! Triages between the contracts and the crate `triage`. Nothing is decided here.

use std::collections::BTreeMap;
use std::time::Duration;

use ::triage::decide::{Basis, Duplicate, Escalated};
use ::triage::priority::System;
use ::triage::scoring::Score;
use ::triage::{Assignment, Constraints, Issue, Severity};
use contracts::v1;
use engine::Instant;
use prost::Message as _;
use serde_json::Value;
use store::DocumentRow;

use super::convert;
use super::status::Refusal;
use crate::escalations::{self, issues};
use crate::limits;
use crate::triages::learning::Standing;
use crate::triages::{Handled, Stored};

/// Room in a message for what stands around a triage.
const ENVELOPE_BYTES: usize = 64 * 1024;

/// An issue as it was handed in. `field` is where it stood.
///
/// # Errors
/// When its params are no JSON object, or its time is none.
pub fn issue(issue: v1::Issue, field: &str) -> Result<Issue, Refusal> {
    let severity = match issue.severity() {
        v1::IssueSeverity::Low => Severity::Low,
        v1::IssueSeverity::Medium | v1::IssueSeverity::Unspecified => Severity::Medium,
        v1::IssueSeverity::High => Severity::High,
        v1::IssueSeverity::Critical => Severity::Critical,
    };
    let place = format!("{field}.params");
    let params = match convert::value(issue.params, &place)? {
        None => None,
        Some(Value::Object(params)) => Some(params),
        Some(_) => return Err(Refusal::field(&place, "must be a JSON object")),
    };
    let detected_at_ms = match issue.detect_time {
        None => None,
        Some(time) => Some(
            time.seconds
                .checked_mul(1_000)
                .and_then(|ms| ms.checked_add(i64::from(time.nanos / 1_000_000)))
                .ok_or_else(|| {
                    Refusal::field(&format!("{field}.detect_time"), "is out of range")
                })?,
        ),
    };
    Ok(Issue {
        id: issue.issue_id,
        title: issue.title,
        description: issue.description,
        component: issue.component,
        category: issue.category,
        severity,
        source: issue.source,
        labels: issue.labels,
        evidence: issue.evidence,
        depends_on: issue.depends_on,
        affects: issue.affects,
        detected_at_ms,
        params,
    })
}

/// The system that is broken.
#[must_use]
pub fn system(system: Option<v1::SystemContext>) -> System {
    let system = system.unwrap_or_default();
    let mut components: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for component in system.components {
        components.entry(component.name).or_default().extend(component.needs);
    }
    System { name: system.name, components }
}

/// What limits the choice.
///
/// # Errors
/// When a number is out of range.
pub fn constraints(constraints: Option<v1::TriageConstraints>) -> Result<Constraints, Refusal> {
    let constraints = constraints.unwrap_or_default();
    let parallel_max = u32::try_from(constraints.max_parallel).map_err(|_| {
        Refusal::field("constraints.max_parallel", "must not be negative; 0 is no limit")
    })?;
    if !(constraints.max_cost >= 0.0 && constraints.max_cost.is_finite()) {
        return Err(Refusal::field("constraints.max_cost", "must not be negative; 0 is no limit"));
    }
    if !(0.0..=1.0).contains(&constraints.min_confidence) {
        return Err(Refusal::field("constraints.min_confidence", "must be from 0 to 1"));
    }
    Ok(Constraints {
        agent_types: constraints.agent_types,
        excluded_agent_types: constraints.excluded_agent_types,
        parallel_max,
        cost_max: constraints.max_cost,
        confidence_min: constraints.min_confidence,
    })
}

/// What was learned.
#[must_use]
pub fn model(standing: &Standing) -> v1::TriageModel {
    let Standing { model, learned_at, is_current, agent_types } = standing;
    let (version, basis) = match model.is_enough() {
        true => (model.version, v1::TriageBasis::Learned),
        false => (0, v1::TriageBasis::Declaration),
    };
    v1::TriageModel {
        version: i64::try_from(version).unwrap_or(i64::MAX),
        outcomes: i32::try_from(model.examples.len()).unwrap_or(i32::MAX),
        current: *is_current,
        basis: basis.into(),
        min_confidence: model.confidence(),
        learn_time: learned_at.map(convert::timestamp),
        agent_types: i32::try_from(*agent_types).unwrap_or(i32::MAX),
    }
}

/// How much of a triage is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Its figures.
    Summary,
    /// All but its issues.
    Decisions,
    /// All of it.
    Whole,
}

/// A triage; what would not fit into a message is left out, the least needed first.
#[must_use]
pub fn triage(id: &str, at: Instant, stored: &Stored, view: View) -> v1::Triage {
    let mut out = summary(id, at, stored);
    if view == View::Summary {
        return out;
    }
    let decided = &stored.decided;
    out.assignments = decided.assignments.iter().map(assignment).collect();
    out.escalated = decided.escalated.iter().map(escalated).collect();
    out.handled = stored.handled.iter().map(handled).collect();
    if !id.is_empty() {
        let places = issues::places(stored);
        for escalated in &mut out.escalated {
            if let Some(place) = places.get(escalated.issue_id.as_str()) {
                escalated.escalation_id = escalations::id_of_issue(id, *place);
            }
        }
    }
    out.duplicates = decided.duplicates.iter().map(duplicate).collect();
    let stages = decided.stages.iter().zip(&decided.estimate.stages_ms);
    out.execution_order = stages
        .map(|(stage, ms)| v1::TriageStage {
            issue_ids: stage.clone(),
            estimated_duration: duration(*ms),
        })
        .collect();
    if view == View::Whole {
        out.issues = stored.issues.iter().map(issue_back).collect();
    }
    let is_too_large =
        |out: &v1::Triage| out.encoded_len() + ENVELOPE_BYTES > limits::MESSAGE_BYTES_MAX;
    if is_too_large(&out) {
        for assignment in &mut out.assignments {
            assignment.words.clear();
            assignment.runners_up.clear();
        }
    }
    if is_too_large(&out) {
        out.issues.clear();
    }
    out
}

/// A triage as its document has it.
#[must_use]
pub fn of_row(row: &DocumentRow, stored: &Stored, view: View) -> v1::Triage {
    triage(&row.id, Instant(row.created_at), stored, view)
}

fn summary(id: &str, at: Instant, stored: &Stored) -> v1::Triage {
    let decided = &stored.decided;
    let needs = decided.estimate.needs.iter();
    v1::Triage {
        triage_id: id.to_owned(),
        create_time: Some(convert::timestamp(at)),
        creator: stored.creator.clone(),
        system: Some(v1::SystemContext {
            name: stored.system.name.clone(),
            components: stored
                .system
                .components
                .iter()
                .map(|(name, needs)| v1::SystemComponent {
                    name: name.clone(),
                    needs: needs.clone(),
                })
                .collect(),
        }),
        constraints: Some(v1::TriageConstraints {
            agent_types: stored.constraints.agent_types.clone(),
            excluded_agent_types: stored.constraints.excluded_agent_types.clone(),
            max_parallel: number(stored.constraints.parallel_max),
            max_cost: stored.constraints.cost_max,
            min_confidence: stored.constraints.confidence_min,
        }),
        estimated_duration: duration(decided.estimate.whole_ms),
        resource_requirements: needs
            .map(|need| v1::ResourceRequirement {
                agent_type: need.agent_type.clone(),
                tasks: number(need.tasks),
                useful_slots: number(need.slots_useful),
                present_slots: number(need.slots_present),
                busy_duration: duration(need.busy_ms),
                estimated_cost: need.cost,
            })
            .collect(),
        model_version: i64::try_from(decided.model_version).unwrap_or(i64::MAX),
        counts: Some(v1::TriageCounts {
            issues: number(stored.issues.len()),
            assigned: number(decided.assignments.len()),
            escalated: number(decided.escalated.len()),
            duplicates: number(decided.duplicates.len()),
        }),
        ..v1::Triage::default()
    }
}

fn assignment(assignment: &Assignment) -> v1::Assignment {
    let basis = match assignment.basis {
        Basis::Rule => v1::TriageBasis::Rule,
        Basis::Declaration => v1::TriageBasis::Declaration,
        Basis::Learned => v1::TriageBasis::Learned,
        Basis::Person => v1::TriageBasis::Person,
    };
    v1::Assignment {
        issue_id: assignment.issue_id.clone(),
        agent_type: assignment.agent_type.clone(),
        action: assignment.action.clone(),
        params: Some(convert::payload(Value::Object(assignment.params.clone()).to_string())),
        category: assignment.category.clone(),
        score: Some(score(&assignment.score)),
        confidence: assignment.confidence,
        basis: basis.into(),
        reason: assignment.reason.clone(),
        words: assignment
            .words
            .iter()
            .map(|(word, weight)| v1::WeighedWord { word: word.clone(), weight: *weight })
            .collect(),
        runners_up: assignment
            .runners_up
            .iter()
            .map(|other| v1::RunnerUp {
                agent_type: other.agent_type.clone(),
                action: other.action.clone(),
                score: Some(score(&other.score)),
            })
            .collect(),
        priority: assignment.priority,
        estimated_duration: duration(assignment.duration_ms),
        estimated_cost: assignment.cost,
        count: number(assignment.count),
        blocked_by: assignment.blocked_by.clone(),
        instead_of: assignment.instead_of.clone(),
    }
}

fn score(score: &Score) -> v1::Score {
    v1::Score {
        total: score.total,
        capability: score.capability,
        history: score.history,
        cost: score.cost,
        availability: score.availability,
    }
}

fn escalated(escalated: &Escalated) -> v1::EscalatedIssue {
    v1::EscalatedIssue {
        issue_id: escalated.issue_id.clone(),
        reason: escalated.reason.clone(),
        category: escalated.category.clone(),
        confidence: escalated.confidence,
        priority: escalated.priority,
        count: number(escalated.count),
        escalation_id: String::new(),
    }
}

fn handled((issue_id, handled): (&String, &Handled)) -> v1::HandledIssue {
    v1::HandledIssue {
        issue_id: issue_id.clone(),
        mended: handled.mended,
        by: handled.by.clone(),
        comment: handled.comment.clone(),
        time: Some(convert::timestamp(handled.at)),
    }
}

fn duplicate(duplicate: &Duplicate) -> v1::DuplicateIssue {
    v1::DuplicateIssue {
        issue_id: duplicate.issue_id.clone(),
        first_issue_id: duplicate.of.clone(),
    }
}

fn issue_back(issue: &Issue) -> v1::Issue {
    let severity = match issue.severity {
        Severity::Low => v1::IssueSeverity::Low,
        Severity::Medium => v1::IssueSeverity::Medium,
        Severity::High => v1::IssueSeverity::High,
        Severity::Critical => v1::IssueSeverity::Critical,
    };
    let at = |ms: i64| convert::timestamp(Instant(ms.saturating_mul(1_000)));
    v1::Issue {
        issue_id: issue.id.clone(),
        title: issue.title.clone(),
        description: issue.description.clone(),
        component: issue.component.clone(),
        category: issue.category.clone(),
        severity: severity.into(),
        source: issue.source.clone(),
        labels: issue.labels.clone(),
        evidence: issue.evidence.clone(),
        depends_on: issue.depends_on.clone(),
        affects: issue.affects.clone(),
        detect_time: issue.detected_at_ms.map(at),
        params: issue
            .params
            .as_ref()
            .map(|params| convert::payload(Value::Object(params.clone()).to_string())),
    }
}

fn duration(ms: u64) -> Option<prost_types::Duration> {
    Some(convert::duration(Duration::from_millis(ms)))
}

fn number(number: impl TryInto<i32>) -> i32 {
    number.try_into().unwrap_or(i32::MAX)
}
