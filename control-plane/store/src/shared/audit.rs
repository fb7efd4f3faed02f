//! The audit log: added to, read, never changed. What no seal covers yet is noted beside it.

use sqlx::{Connection as _, QueryBuilder, Row as _};

use super::{BEGIN, Connection, Db, Row, hash, page};
use crate::{AuditCursor, AuditFilter, AuditHead, AuditRow};

const START: &str =
    "SELECT resource, number, at, actor, action, body, previous, hash FROM audit WHERE 1 = 1";

fn audit_row(row: &Row) -> sqlx::Result<AuditRow> {
    Ok(AuditRow {
        resource: row.try_get(0)?,
        number: row.try_get(1)?,
        at: row.try_get(2)?,
        actor: row.try_get(3)?,
        action: row.try_get(4)?,
        body: row.try_get(5)?,
        previous: hash(row, 6)?,
        hash: hash(row, 7)?,
    })
}

fn audit_head(row: &Row) -> sqlx::Result<AuditHead> {
    Ok(AuditHead { resource: row.try_get(0)?, number: row.try_get(1)?, hash: hash(row, 2)? })
}

/// Adds entries in one order for all. Gives false when a number is taken: the caller rolls back.
pub(super) async fn append(connection: &mut Connection, rows: &[AuditRow]) -> sqlx::Result<bool> {
    let mut rows: Vec<&AuditRow> = rows.iter().collect();
    rows.sort_by_key(|row| (&row.resource, row.number));
    for row in rows {
        if !insert(&mut *connection, row).await? {
            return Ok(false);
        }
        sqlx::query::<Db>(
            "INSERT INTO audit_unsealed (resource, number) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        )
        .bind(row.resource.as_str())
        .bind(row.number)
        .execute(&mut *connection)
        .await?;
    }
    Ok(true)
}

async fn insert(connection: &mut Connection, row: &AuditRow) -> sqlx::Result<bool> {
    let done = sqlx::query::<Db>(
        "INSERT INTO audit (resource, number, at, actor, action, body, previous, hash) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
    )
    .bind(row.resource.as_str())
    .bind(row.number)
    .bind(row.at)
    .bind(row.actor.as_str())
    .bind(row.action.as_str())
    .bind(row.body.as_slice())
    .bind(row.previous.0.as_slice())
    .bind(row.hash.0.as_slice())
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn chain(
    connection: &mut Connection,
    resource: &str,
    after: i64,
    limit: u32,
) -> sqlx::Result<Vec<AuditRow>> {
    let mut query = QueryBuilder::<Db>::new(START);
    query.push(" AND resource = ").push_bind(resource.to_owned());
    query.push(" AND number > ").push_bind(after);
    query.push(" ORDER BY number LIMIT ").push_bind(page(limit));
    let rows = query.build().fetch_all(connection).await?;
    rows.iter().map(audit_row).collect()
}

pub(super) async fn list(
    connection: &mut Connection,
    filter: &AuditFilter,
    after: Option<AuditCursor>,
    limit: u32,
) -> sqlx::Result<Vec<AuditRow>> {
    let mut query = QueryBuilder::<Db>::new(START);
    let texts = [
        (" AND resource = ", &filter.resource),
        (" AND actor = ", &filter.actor),
        (" AND action = ", &filter.action),
    ];
    for (condition, text) in texts {
        if let Some(text) = text {
            query.push(condition).push_bind(text.clone());
        }
    }
    if let Some(since) = filter.since {
        query.push(" AND at >= ").push_bind(since);
    }
    if let Some(until) = filter.until {
        query.push(" AND at < ").push_bind(until);
    }
    if let Some(after) = after {
        query.push(" AND (at, resource, number) < (").push_bind(after.at);
        query.push(", ").push_bind(after.resource).push(", ").push_bind(after.number).push(")");
    }
    query.push(" ORDER BY at DESC, resource DESC, number DESC LIMIT ").push_bind(page(limit));
    let rows = query.build().fetch_all(connection).await?;
    rows.iter().map(audit_row).collect()
}

pub(super) async fn head(
    connection: &mut Connection,
    resource: &str,
) -> sqlx::Result<Option<AuditHead>> {
    let row = sqlx::query::<Db>(
        "SELECT resource, number, hash FROM audit WHERE resource = $1 \
         ORDER BY number DESC LIMIT 1",
    )
    .bind(resource)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(audit_head).transpose()
}

pub(super) async fn heads(
    connection: &mut Connection,
    after: Option<&str>,
    limit: u32,
) -> sqlx::Result<Vec<AuditHead>> {
    let mut query = QueryBuilder::<Db>::new(
        "SELECT a.resource, a.number, a.hash FROM \
         (SELECT resource, MAX(number) AS number FROM audit",
    );
    if let Some(after) = after {
        query.push(" WHERE resource > ").push_bind(after.to_owned());
    }
    query.push(" GROUP BY resource ORDER BY resource LIMIT ").push_bind(page(limit));
    query.push(
        ") AS last JOIN audit AS a ON a.resource = last.resource AND a.number = last.number \
         ORDER BY a.resource",
    );
    let rows = query.build().fetch_all(connection).await?;
    rows.iter().map(audit_head).collect()
}

pub(super) async fn unsealed(
    connection: &mut Connection,
    limit: u32,
) -> sqlx::Result<Vec<AuditHead>> {
    let rows = sqlx::query::<Db>(
        "SELECT a.resource, a.number, a.hash FROM \
         (SELECT resource, MAX(number) AS number FROM audit_unsealed \
         GROUP BY resource ORDER BY resource LIMIT $1) AS last \
         JOIN audit AS a ON a.resource = last.resource AND a.number = last.number \
         ORDER BY a.resource",
    )
    .bind(page(limit))
    .fetch_all(connection)
    .await?;
    rows.iter().map(audit_head).collect()
}

/// The seal's own chain is covered by itself: nothing is noted of it.
pub(super) async fn seal(
    connection: &mut Connection,
    row: &AuditRow,
    heads: &[AuditHead],
) -> sqlx::Result<bool> {
    let mut transaction = connection.begin_with(BEGIN).await?;
    if !insert(&mut transaction, row).await? {
        return Ok(false);
    }
    for head in heads {
        sqlx::query::<Db>("DELETE FROM audit_unsealed WHERE resource = $1 AND number <= $2")
            .bind(head.resource.as_str())
            .bind(head.number)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(true)
}
