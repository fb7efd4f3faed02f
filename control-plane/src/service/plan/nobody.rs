//! What is said of issues that nobody takes: why, and what people can do about it.

use std::collections::BTreeMap;

use contracts::v1::Reason;
use engine::definition::{Complaint, Severity};
use store::Store;
use triage::Escalated;

use crate::documents::Kind;
use crate::escalations::{Escalation, Status, issues};
use crate::limits;
use crate::recovery::plan::{By, Draft};
use crate::service::status::{Refusal, cut};
use crate::triages::Stored;

/// Issues that a sentence names one by one.
const NAMED_MAX: usize = 3;
/// Characters of a reason that a sentence repeats.
const REASON_CHARS_MAX: usize = 200;

/// An issue that nobody takes.
struct Unplaced {
    issue: String,
    reason: String,
    /// The open question about it; `None`: nobody is asked.
    escalation: Option<String>,
}

impl Unplaced {
    fn why(&self) -> String {
        let Self { issue, reason, .. } = self;
        let reason = if reason.is_empty() { "nobody is known for it" } else { reason };
        format!("nobody takes `{issue}`: {}", cut(reason, REASON_CHARS_MAX))
    }

    fn remedy(&self) -> String {
        match &self.escalation {
            Some(id) => format!("`orchestrator escalations decide {id} reroute --agent TYPE`"),
            None => "connect an agent that takes it and triage it again".to_owned(),
        }
    }
}

/// The issues of a draft that nobody takes, at most `max`.
async fn of(
    store: &dyn Store,
    id: &str,
    stored: &Stored,
    draft: &Draft,
    max: usize,
) -> Result<Vec<Unplaced>, store::Error> {
    let places = issues::places(stored);
    let escalated: BTreeMap<&str, &Escalated> =
        stored.decided.escalated.iter().map(|it| (it.issue_id.as_str(), it)).collect();
    let mut unplaced = Vec::new();
    let people = draft.issues.iter().filter(|it| matches!(it.by, By::Person { .. }));
    for issue in people.take(max).map(|planned| &planned.issue) {
        let place = places.get(issue.as_str()).copied().unwrap_or_default();
        let question = crate::escalations::id_of_issue(id, place);
        let row = store.document(Kind::Escalation.number(), &question).await?;
        let question_of = |row| Escalation::read(&row).map(|it| it.status() == Status::Open);
        let is_open = row.map(question_of).transpose()?.unwrap_or(false);
        let reason = escalated.get(issue.as_str()).map(|it| it.reason.clone());
        unplaced.push(Unplaced {
            issue: issue.clone(),
            reason: reason.unwrap_or_default(),
            escalation: is_open.then_some(question),
        });
    }
    Ok(unplaced)
}

/// There is no plan, because nobody takes any of the issues that are to be in it.
///
/// # Errors
/// When the store does not answer.
pub(super) async fn refusal(
    store: &dyn Store,
    id: &str,
    stored: &Stored,
    draft: &Draft,
) -> Result<Refusal, store::Error> {
    let unplaced = of(store, id, stored, draft, NAMED_MAX).await?;
    let mut message = "there is nothing to plan: ".to_owned();
    message.push_str(&unplaced.iter().map(Unplaced::why).collect::<Vec<_>>().join("; "));
    let more = draft.issues.len().saturating_sub(unplaced.len());
    if more > 0 {
        message.push_str(&format!("; and {more} more"));
    }
    match unplaced.as_slice() {
        [one] => message.push_str(&format!("; say who does: {}", one.remedy())),
        _ => message.push_str(&format!(
            "; say who takes them: `orchestrator escalations list --triage {id}` has the questions, \
             `orchestrator escalations decide ESCALATION reroute --agent TYPE` answers one"
        )),
    }
    let mut refusal = Refusal::new(Reason::InvalidField, message);
    for one in &unplaced {
        let wrong = format!("{}; {}", one.why(), one.remedy());
        refusal = refusal.violation("issue_ids", wrong);
        if let Some(escalation) = &one.escalation {
            refusal = refusal.metadata(&format!("escalation_id {}", one.issue), escalation);
        }
    }
    Ok(refusal)
}

/// What is to be thought about of issues that were asked for by name and that nobody takes.
///
/// # Errors
/// When the store does not answer.
pub(super) async fn notes(
    store: &dyn Store,
    id: &str,
    stored: &Stored,
    draft: &Draft,
) -> Result<Vec<Complaint>, store::Error> {
    let unplaced = of(store, id, stored, draft, limits::WARNINGS_MAX).await?;
    let note = |one: Unplaced| Complaint {
        file: String::new(),
        line: 0,
        column: 0,
        message: format!("{}; people have it", one.why()),
        suggestion: one.remedy(),
        severity: Severity::Warning,
    };
    Ok(unplaced.into_iter().map(note).collect())
}
