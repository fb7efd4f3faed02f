//! How agents did with the issues of a plan: what triage's history and durations learn from.
//!
//! One document for each plan that was made of a triage, written when its run has ended. What a
//! person confirmed about an issue counts in its place.

use std::collections::BTreeSet;

use engine::{Instant, RunId};
use serde::{Deserialize, Serialize};
use store::{Cursor, DocumentFilter, DocumentRow, DocumentWrite, Store};

use super::Body;
use crate::documents::Kind;
use crate::limits;
use crate::recovery::ended::Try;
use crate::triages;

const OUTCOMES_READ_AT_ONCE: u32 = 200;

/// How the agents of a plan did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlanOutcome {
    /// The triage.
    pub triage: String,
    /// The run.
    pub run: Option<RunId>,
    /// When it ended, in milliseconds since 1970.
    pub at_ms: i64,
    /// The issues that somebody tried to mend.
    pub issues: Vec<IssueOutcome>,
}

/// How agents did with one issue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IssueOutcome {
    /// The issue.
    pub issue: String,
    /// For what kind of issue the triage took it.
    pub category: String,
    /// Who tried, and whether they mended it.
    pub tries: Vec<Try>,
}

/// The outcome of a plan that has ended; `None` where there is nothing to learn from.
#[must_use]
pub(super) fn of(body: &Body) -> Option<PlanOutcome> {
    let ended = body.ended.as_ref().filter(|_| !body.triage.is_empty())?;
    let issues = body.issues.iter().zip(&ended.issues);
    let issues: Vec<IssueOutcome> = issues
        .filter(|(issue, end)| !issue.category.is_empty() && !end.tries.is_empty())
        .map(|(issue, end)| IssueOutcome {
            issue: issue.id.clone(),
            category: issue.category.clone(),
            tries: end.tries.clone(),
        })
        .collect();
    (!issues.is_empty()).then(|| PlanOutcome {
        triage: body.triage.clone(),
        run: body.run,
        at_ms: ended.at.0.div_euclid(1_000),
        issues,
    })
}

/// Its document; `known` is what stands there.
pub(super) fn write(
    plan: &DocumentRow,
    outcome: &PlanOutcome,
    known: Option<&DocumentRow>,
    now: Instant,
) -> Result<DocumentWrite, store::Error> {
    let version = known.map_or(0, |row| row.version);
    let row = DocumentRow {
        kind: Kind::PlanOutcome.number(),
        id: plan.id.clone(),
        tenant: plan.tenant.clone(),
        parent: Some(outcome.triage.clone()),
        status: 1,
        created_at: known.map_or(now.0, |row| row.created_at),
        updated_at: now.0,
        due_at: None,
        version: version + 1,
        body: serde_json::to_vec(outcome)
            .map_err(|error| store::Error::Invalid(error.to_string()))?,
    };
    Ok(DocumentWrite { row, expected_version: version })
}

/// The newest outcomes of a tenant's plans, the oldest first, each with its row.
///
/// # Errors
/// When the store does not answer, or has what is no outcome.
pub async fn read(
    store: &dyn Store,
    tenant: &str,
) -> Result<Vec<(DocumentRow, PlanOutcome)>, store::Error> {
    let filter = DocumentFilter {
        kind: Kind::PlanOutcome.number(),
        tenant: Some(tenant.to_owned()),
        ..DocumentFilter::default()
    };
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let page = store.documents(&filter, after, false, OUTCOMES_READ_AT_ONCE).await?;
        let is_last = page.len() < OUTCOMES_READ_AT_ONCE as usize;
        after = page.last().map(|last| Cursor { at: last.created_at, id: last.id.clone() });
        for mut row in page {
            let outcome = triages::body(&row)?;
            row.body = Vec::new();
            all.push((row, outcome));
        }
        if is_last || all.len() >= limits::PLANS_LEARNED_MAX {
            break;
        }
    }
    all.truncate(limits::PLANS_LEARNED_MAX);
    all.reverse();
    Ok(all)
}

/// Has a history learn from these, issues aside whose outcome somebody confirmed.
pub fn learn(
    history: &mut ::triage::History,
    tenant: &str,
    outcomes: &[PlanOutcome],
    confirmed: &BTreeSet<String>,
) {
    for outcome in outcomes {
        for issue in &outcome.issues {
            let id = triages::outcome::id_of(tenant, &outcome.triage, &issue.issue);
            if confirmed.contains(&id) {
                continue;
            }
            for Try { agent, mended, took_ms } in &issue.tries {
                // How long a failure took says nothing of how long it takes to mend it.
                let took_ms = took_ms.filter(|_| *mended);
                history.record(agent, &issue.category, *mended, took_ms, outcome.at_ms);
            }
        }
    }
}
