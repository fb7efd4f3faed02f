//! Requests that must not be carried out twice.

use sqlx::Row as _;

use super::{Connection, Db, Row, bounded, hash, optional_run_id};
use crate::{Micros, RequestRow};

fn request_row(row: &Row) -> sqlx::Result<RequestRow> {
    Ok(RequestRow {
        tenant: row.try_get(0)?,
        request_id: row.try_get(1)?,
        run_id: optional_run_id(row, 2)?,
        body_hash: hash(row, 3)?,
        at: row.try_get(4)?,
        response: row.try_get(5)?,
    })
}

pub(super) async fn find(
    connection: &mut Connection,
    tenant: &str,
    request_id: &str,
) -> sqlx::Result<Option<RequestRow>> {
    let row = sqlx::query::<Db>(
        "SELECT tenant, request_id, run_id, body_hash, at, response FROM requests \
         WHERE tenant = $1 AND request_id = $2",
    )
    .bind(tenant)
    .bind(request_id)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(request_row).transpose()
}

/// Gives the row that is there already. One that expires between the two statements counts as
/// not there, so that the insert is tried once more.
pub(super) async fn put(
    connection: &mut Connection,
    row: &RequestRow,
) -> sqlx::Result<Option<RequestRow>> {
    loop {
        let done = sqlx::query::<Db>(
            "INSERT INTO requests (tenant, request_id, run_id, body_hash, at, response) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
        )
        .bind(row.tenant.as_str())
        .bind(row.request_id.as_str())
        .bind(row.run_id.map(|run| run.0))
        .bind(row.body_hash.0.as_slice())
        .bind(row.at)
        .bind(row.response.as_deref())
        .execute(&mut *connection)
        .await?;
        if done.rows_affected() == 1 {
            return Ok(None);
        }
        let stored = find(&mut *connection, &row.tenant, &row.request_id).await?;
        if stored.is_some() {
            return Ok(stored);
        }
    }
}

pub(super) async fn expire(
    connection: &mut Connection,
    before: Micros,
    limit: u32,
) -> sqlx::Result<u64> {
    let done = sqlx::query::<Db>(
        "DELETE FROM requests WHERE (tenant, request_id) IN \
         (SELECT tenant, request_id FROM requests WHERE at < $1 ORDER BY at LIMIT $2)",
    )
    .bind(before)
    .bind(bounded(limit))
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
