//! What is written once a plan's run has ended: on the plan how each issue ended, beside it how
//! the agents did, questions about what is not mended, and an entry in the audit log; in one
//! change, by compare-and-swap, so that it is written once however many look. A run that goes on
//! and ends again is looked at again.

use std::sync::Arc;
use std::time::Duration;

use engine::{Event, Instant};
use serde_json::json;
use store::{Changed, DocumentRow, DocumentWrite, RunRow};

use super::{Body, Ended, outcome, resource};
use crate::audit::{self, Entry};
use crate::documents::Kind;
use crate::escalations::issues;
use crate::limits;
use crate::recovery::ended::{Ends, How, IssueEnd};
use crate::recovery::progress::Outline;
use crate::runs::Runs;

/// Who closes plans.
const ACTOR: &str = "orchestrator";

/// What became of a look at a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Looked {
    /// Its run has ended, and that was written down.
    Closed {
        /// Whose plan it is.
        tenant: String,
    },
    /// Its run goes on, or there is none.
    Open,
    /// There is nothing to do.
    Settled,
}

/// Looks whether the run of a plan has ended, and writes down how.
///
/// # Errors
/// When the store does not answer, or what it has cannot be read.
pub async fn look(runs: &Runs, plan: &str) -> Result<Looked, store::Error> {
    let store = &**runs.store();
    for _ in 0..limits::PLAN_CLOSE_ATTEMPTS {
        let Some(row) = store.document(Kind::Plan.number(), plan).await? else {
            return Ok(Looked::Settled);
        };
        let body = Body::read(&row)?;
        let Some(run) = body.run else { return Ok(Looked::Settled) };
        let now = runs.clock().now();
        let run = store.run(run).await?.filter(|run| run.ended_at.is_some());
        let Some(run) = run else {
            let due = Instant(row.due_at.unwrap_or(i64::MAX));
            let next = now.after(pause(Instant(row.updated_at), now));
            if due > now || put_off(store, row, next).await? {
                return Ok(Looked::Open);
            }
            continue;
        };
        if body.ended.as_ref().is_some_and(|ended| ended.sequence == run.version) {
            if row.due_at.is_none_or(|due| due > now.0) || settle(store, row).await? {
                return Ok(Looked::Settled);
            }
            continue;
        }
        let tenant = row.tenant.clone();
        if close(runs, row, body, &run).await? == Changed::Done {
            return Ok(Looked::Closed { tenant });
        }
    }
    // Whoever was faster all the time has written it.
    Ok(Looked::Settled)
}

/// How long to wait until a run is looked at again that has not ended: the longer it goes on, the
/// longer.
fn pause(since: Instant, now: Instant) -> Duration {
    (now.since(since) / 4).clamp(limits::PLANS_LOOK_EVERY, limits::PLANS_LOOK_PAUSE_MAX)
}

/// Has a plan be looked at then; false when it has changed meanwhile.
pub(super) async fn put_off(
    store: &dyn store::Store,
    row: DocumentRow,
    due: Instant,
) -> Result<bool, store::Error> {
    write_due(store, DocumentRow { due_at: Some(due.0), ..row }).await
}

async fn settle(store: &dyn store::Store, row: DocumentRow) -> Result<bool, store::Error> {
    write_due(store, DocumentRow { due_at: None, ..row }).await
}

/// The time of its last change stays: nothing of the plan itself is another.
async fn write_due(store: &dyn store::Store, row: DocumentRow) -> Result<bool, store::Error> {
    let expected_version = row.version;
    let row = DocumentRow { version: expected_version + 1, ..row };
    let documents = vec![DocumentWrite { row, expected_version }];
    let change = store::Change { documents, ..store::Change::default() };
    Ok(store.change(&change).await? == Changed::Done)
}

async fn close(
    runs: &Runs,
    row: DocumentRow,
    mut body: Body,
    run: &RunRow,
) -> Result<Changed, store::Error> {
    let store = &**runs.store();
    let now = runs.clock().now();
    let ended = ended(runs, &body, run).await?;
    let entry = entry(&row.id, &body, &ended, run);
    body.ended = Some(ended);
    let mut documents = issues::open_for_plan(store, &row, &body, now).await?;
    let asks = !documents.is_empty();
    if let Some(outcome) = outcome::of(&body) {
        let known = store.document(Kind::PlanOutcome.number(), &row.id).await?;
        documents.push(outcome::write(&row, &outcome, known.as_ref(), now)?);
    }
    let expected_version = row.version;
    let row = DocumentRow {
        updated_at: now.0,
        due_at: None,
        version: expected_version + 1,
        body: serde_json::to_vec(&body)
            .map_err(|error| store::Error::Invalid(error.to_string()))?,
        ..row
    };
    documents.push(DocumentWrite { row, expected_version });
    let changed = audit::change(store, documents, &[entry], None, now).await?;
    if asks && changed == Changed::Done {
        runs.asked().notify_one();
    }
    Ok(changed)
}

/// Reads the journal of a plan's run.
async fn ended(runs: &Runs, body: &Body, run: &RunRow) -> Result<Ended, store::Error> {
    let id = run.run_id;
    let graph = runs.definitions().graph(run.definition_hash).await;
    let graph = graph.map_err(|error| store::Error::Corrupt(format!("run {id}: {error}")))?;
    let mut ends = Ends::new(Arc::new(Outline::new(&graph, &body.outline())));
    while ends.sequence() < run.version {
        let rows = runs.store().journal(id, ends.sequence(), store::limits::PAGE_ROWS_MAX).await?;
        if rows.is_empty() {
            break;
        }
        for row in rows.into_iter().filter(|row| row.seq <= run.version) {
            let event = Event::decode(row.kind, &row.body)
                .map_err(|error| store::Error::Corrupt(format!("run {id}: {error}")))?;
            ends.apply(row.seq, Instant(row.at), &event);
        }
    }
    let mut issues = ends.issues();
    let issue = |issue: &super::Issue| issues.remove(issue.id.as_str()).unwrap_or_default();
    Ok(Ended {
        at: Instant(run.ended_at.unwrap_or_default()),
        status: run.status,
        sequence: run.version,
        issues: body.issues.iter().map(issue).collect(),
    })
}

fn entry(id: &str, body: &Body, ended: &Ended, run: &RunRow) -> Entry {
    let count = |how: How| ended.issues.iter().filter(|issue| issue.how == how).count();
    let not_mended = |(issue, end): (&super::Issue, &IssueEnd)| {
        (end.how != How::Resolved).then(|| json!([issue.id, end.how]))
    };
    let left = body.issues.iter().zip(&ended.issues).filter_map(not_mended);
    let left: Vec<_> = left.take(limits::OUTCOMES_AUDITED).collect();
    Entry {
        resource: resource(id),
        actor: ACTOR.to_owned(),
        action: "plan.end",
        body: json!({
            "run": run.run_id,
            "sequence": run.version,
            "resolved": count(How::Resolved),
            "failed": count(How::Failed),
            "skipped": count(How::Skipped),
            "undone": count(How::Undone),
            "stuck": count(How::Stuck),
            "by_hand": count(How::ByHand),
            "not_mended": left,
        }),
    }
}
