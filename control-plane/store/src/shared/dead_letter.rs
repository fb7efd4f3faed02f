//! Tasks that were given up, as they are read and removed; they come to be in commits.

use sqlx::{Connection as _, QueryBuilder, Row as _};

use super::{BEGIN, Connection, Db, Row, audit, page, run_id};
use crate::{AuditRow, Cursor, DeadLetterFilter, DeadLetterRow, Discarded};

const START: &str =
    "SELECT id, tenant, run_id, workflow, step, at, body FROM dead_letters WHERE 1 = 1";

fn dead_letter_row(row: &Row) -> sqlx::Result<DeadLetterRow> {
    Ok(DeadLetterRow {
        id: row.try_get(0)?,
        tenant: row.try_get(1)?,
        run_id: run_id(row, 2)?,
        workflow: row.try_get(3)?,
        step: row.try_get(4)?,
        at: row.try_get(5)?,
        body: row.try_get(6)?,
    })
}

pub(super) async fn list(
    connection: &mut Connection,
    filter: &DeadLetterFilter,
    after: Option<Cursor<String>>,
    limit: u32,
) -> sqlx::Result<Vec<DeadLetterRow>> {
    let mut query = QueryBuilder::<Db>::new(START);
    if let Some(tenant) = &filter.tenant {
        query.push(" AND tenant = ").push_bind(tenant.clone());
    }
    if let Some(workflow) = &filter.workflow {
        query.push(" AND workflow = ").push_bind(workflow.clone());
    }
    if let Some(run) = filter.run_id {
        query.push(" AND run_id = ").push_bind(run.0);
    }
    if let Some(after) = after {
        query.push(" AND (at, id) < (").push_bind(after.at);
        query.push(", ").push_bind(after.id).push(")");
    }
    query.push(" ORDER BY at DESC, id DESC LIMIT ").push_bind(page(limit));
    let rows = query.build().fetch_all(connection).await?;
    rows.iter().map(dead_letter_row).collect()
}

pub(super) async fn find(
    connection: &mut Connection,
    id: &str,
) -> sqlx::Result<Option<DeadLetterRow>> {
    let mut query = QueryBuilder::<Db>::new(START);
    query.push(" AND id = ").push_bind(id.to_owned());
    let row = query.build().fetch_optional(connection).await?;
    row.as_ref().map(dead_letter_row).transpose()
}

/// What has lost is rolled back when the transaction is dropped.
pub(super) async fn delete(
    connection: &mut Connection,
    id: &str,
    entries: &[AuditRow],
) -> sqlx::Result<Discarded> {
    let mut transaction = connection.begin_with(BEGIN).await?;
    let done = sqlx::query::<Db>("DELETE FROM dead_letters WHERE id = $1")
        .bind(id)
        .execute(&mut *transaction)
        .await?;
    if done.rows_affected() == 0 {
        return Ok(Discarded::NotThere);
    }
    if !audit::append(&mut transaction, entries).await? {
        return Ok(Discarded::AuditTaken);
    }
    transaction.commit().await?;
    Ok(Discarded::Done)
}
