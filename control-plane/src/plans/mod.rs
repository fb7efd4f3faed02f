//! Recovery plans as they are stored, and what happens once their runs have ended: `closing`
//! writes down how each issue ended and how its agents did, `keeper` sees to it that this happens.
//!
//! Nothing here knows gRPC; `service::plan` makes, edits and executes plans.

pub mod closing;
pub mod keeper;
pub mod outcome;

use std::collections::{BTreeMap, BTreeSet};

use engine::{Instant, RunId};
use serde::{Deserialize, Serialize};
use store::{DocumentFilter, DocumentRow, Store};

use crate::documents::Kind;
use crate::limits;
use crate::recovery::ended::{How, IssueEnd};
use crate::recovery::progress::PlanIssue;

/// The label of a plan's run that names the plan.
pub const PLAN_LABEL: &str = "plan";
/// The label of a plan's run that names the triage.
pub const TRIAGE_LABEL: &str = "triage";

/// What is stored of a plan. Fields are added with defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Body {
    /// The triage's id; empty without one.
    pub triage: String,
    /// The workflow.
    pub text: String,
    /// The issues, in the order of the plan.
    pub issues: Vec<Issue>,
    /// Changes that cannot be undone may be made.
    pub allow_not_undoable: bool,
    /// The longest chain of the steps, in milliseconds.
    pub estimate_ms: u64,
    /// The run that carries it out.
    pub run: Option<RunId>,
    /// Labels of the run, beside its own.
    pub labels: BTreeMap<String, String>,
    /// Who approved it.
    pub approved_by: String,
    /// What was said to that.
    pub comment: String,
    /// How its run ended, once it did.
    pub ended: Option<Ended>,
}

/// An issue of a plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Issue {
    /// Its id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// The step that mends it.
    pub step: Option<String>,
    /// How long that is expected to take.
    pub estimate_ms: Option<u64>,
    /// What kind of issue it is, as the triage says.
    pub category: String,
    /// The agent type that is to mend it.
    pub agent: String,
    /// The action.
    pub action: String,
    /// The issue's severity, a word; empty where there is none.
    pub severity: String,
}

/// How a plan's run ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ended {
    /// When.
    pub at: Instant,
    /// The run's status, as its row has it.
    pub status: i16,
    /// The sequence of the journal up to which it was looked at.
    pub sequence: i64,
    /// How each issue ended, in the order of the plan.
    pub issues: Vec<IssueEnd>,
}

impl Body {
    /// From the body of its document.
    ///
    /// # Errors
    /// When the body is not one of a plan.
    pub fn read(row: &DocumentRow) -> Result<Self, store::Error> {
        crate::triages::body(row)
    }

    /// The issues as progress wants them.
    #[must_use]
    pub fn outline(&self) -> Vec<PlanIssue> {
        let issue = |issue: &Issue| PlanIssue {
            issue: issue.id.as_str().into(),
            step: issue.step.as_deref().map(Into::into),
            estimate: issue.estimate_ms.map(std::time::Duration::from_millis),
        };
        self.issues.iter().map(issue).collect()
    }
}

/// The issues of a triage that its plans have mended: of those in several plans, what the last one
/// that ended made of it counts. Of very many plans the newest are looked at.
///
/// # Errors
/// When the store does not answer, or has what is no plan.
pub async fn mended(
    store: &dyn Store,
    tenant: &str,
    triage: &str,
) -> Result<BTreeSet<String>, store::Error> {
    let filter = DocumentFilter {
        kind: Kind::Plan.number(),
        tenant: Some(tenant.to_owned()),
        parent: Some(triage.to_owned()),
        status: None,
    };
    let rows = store.documents(&filter, None, false, limits::PLANS_OF_TRIAGE_READ).await?;
    let mut last: BTreeMap<String, (Instant, bool)> = BTreeMap::new();
    for row in &rows {
        let body = Body::read(row)?;
        let Some(ended) = body.ended else { continue };
        for (issue, end) in body.issues.into_iter().zip(&ended.issues) {
            if end.how == How::ByHand {
                continue;
            }
            let is_later = last.get(&issue.id).is_none_or(|(at, _)| *at < ended.at);
            if is_later {
                last.insert(issue.id, (ended.at, end.how == How::Resolved));
            }
        }
    }
    Ok(last.into_iter().filter(|(_, (_, mended))| *mended).map(|(issue, _)| issue).collect())
}

/// The chain of the audit log that is about a plan.
#[must_use]
pub fn resource(id: &str) -> String {
    format!("plan/{id}")
}

/// When it is looked whether the run of a plan that begins now has ended, should nobody say so.
#[must_use]
pub fn look_after(now: Instant) -> Instant {
    now.after(limits::PLANS_LOOK_EVERY)
}

/// The run `run` has ended and may go on by what somebody is about to ask. If it is a plan's, it
/// will be looked at again, even if this process dies.
///
/// # Errors
/// When the store does not answer.
pub async fn expect_another_end(
    store: &dyn Store,
    run: RunId,
    now: Instant,
) -> Result<(), store::Error> {
    let Some(run_row) = store.run(run).await? else { return Ok(()) };
    let labels: BTreeMap<String, String> = match serde_json::from_slice(&run_row.labels) {
        Ok(labels) if run_row.parent.is_none() => labels,
        _ => return Ok(()),
    };
    let Some(plan) = labels.get(PLAN_LABEL) else { return Ok(()) };
    for _ in 0..limits::PLAN_CLOSE_ATTEMPTS {
        let row = store.document(Kind::Plan.number(), plan).await?;
        let Some(row) = row.filter(|row| row.tenant == run_row.tenant) else { return Ok(()) };
        if row.due_at.is_some() || Body::read(&row)?.run != Some(run) {
            return Ok(());
        }
        if closing::put_off(store, row, look_after(now)).await? {
            return Ok(());
        }
    }
    Err(store::Error::Unavailable("others change the run's plan; try again".to_owned()))
}
