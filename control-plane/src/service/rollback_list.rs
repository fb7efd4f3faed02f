//! Rollbacks of all runs, as they were written by the runs' own commits.

use contracts::v1;
use engine::{Instant, RunId, UndoCounts};
use store::{Cursor, DocumentFilter, DocumentRow};

use super::auth::Principal;
use super::status::Refusal;
use super::{Context, convert, page, rollback};
use crate::documents::Kind;
use crate::runs::projected::{StoredRollback, rollback_id};

/// The words of statuses in filters, and their numbers.
const STATUSES: [(&str, v1::RollbackStatus); 7] = [
    ("planned", v1::RollbackStatus::Planned),
    ("approved", v1::RollbackStatus::Approved),
    ("running", v1::RollbackStatus::Running),
    ("stuck", v1::RollbackStatus::Stuck),
    ("succeeded", v1::RollbackStatus::Succeeded),
    ("incomplete", v1::RollbackStatus::Incomplete),
    ("abandoned", v1::RollbackStatus::Abandoned),
];

/// `ListRollbacks`.
pub async fn list(
    context: &Context,
    who: &Principal,
    request: v1::ListRollbacksRequest,
) -> Result<v1::ListRollbacksResponse, Refusal> {
    let size = page::size(request.page_size)?;
    let filter = filter(who, &request.filter)?;
    let scope = format!("ListRollbacks {}", request.filter.trim());
    let after = match page::place::<2>(&scope, &request.page_token)? {
        Some([at, id]) => Some(Cursor { at: page::part(&at)?, id }),
        None => None,
    };
    let limit = u32::try_from(size).unwrap_or(u32::MAX);
    let rows = context.runs.store().documents(&filter, after, false, limit).await?;
    let next_page_token = match rows.last() {
        Some(last) if rows.len() == size => {
            page::token(&scope, &[&last.created_at.to_string(), &last.id])
        }
        _ => String::new(),
    };
    let rollbacks: Result<_, Refusal> = rows.iter().map(stored).collect();
    Ok(v1::ListRollbacksResponse { rollbacks: rollbacks?, next_page_token })
}

fn filter(who: &Principal, text: &str) -> Result<DocumentFilter, Refusal> {
    let mut filter = DocumentFilter {
        kind: Kind::Rollback.number(),
        tenant: Some(who.tenant.clone()),
        ..DocumentFilter::default()
    };
    for (field, value) in page::terms(text)? {
        match field {
            "run_id" => filter.parent = Some(value.to_owned()),
            "status" => {
                let found = STATUSES.iter().find(|(word, _)| *word == value);
                let (_, status) = found.ok_or_else(|| {
                    let words = STATUSES.map(|(word, _)| word).join(", ");
                    page::wrong_filter(format!("`status` is one of {words}"))
                })?;
                filter.status = i16::try_from(*status as i32).ok();
            }
            _ => return Err(page::no_field(field, "status and run_id")),
        }
    }
    Ok(filter)
}

/// What is stored of a run's rollback.
pub(super) async fn row(
    context: &Context,
    run: RunId,
    number: u32,
) -> Result<Option<DocumentRow>, Refusal> {
    let id = rollback_id(run, number);
    Ok(context.runs.store().document(Kind::Rollback.number(), &id).await?)
}

pub(super) fn is_abandoned(row: &DocumentRow) -> bool {
    i32::from(row.status) == v1::RollbackStatus::Abandoned as i32
}

/// A rollback as it is stored: without its undos.
pub(super) fn stored(row: &DocumentRow) -> Result<v1::Rollback, Refusal> {
    let stored: StoredRollback = crate::triages::body(row)?;
    Ok(v1::Rollback {
        run_id: row.parent.clone().unwrap_or_default(),
        number: i32::try_from(stored.number).unwrap_or(i32::MAX),
        target: Some(rollback::target(&stored.to)),
        status: i32::from(row.status),
        requested: stored.asked,
        needs_approval: stored.needs_approval,
        create_time: Some(convert::timestamp(Instant(row.created_at))),
        end_time: stored.ended_at.map(|at| convert::timestamp(Instant(at))),
        counts: Some(counts(&stored.counts())),
        actor: stored.actor,
        approved_by: stored.approved_by,
        ..v1::Rollback::default()
    })
}

pub(super) fn counts(counts: &UndoCounts) -> v1::UndoCounts {
    let number = |count| i32::try_from(count).unwrap_or(i32::MAX);
    v1::UndoCounts {
        total: number(counts.total),
        undone: number(counts.undone),
        by_hand: number(counts.by_hand),
        skipped: number(counts.skipped),
        stuck: number(counts.stuck),
        not_undoable: number(counts.not_undoable),
    }
}
