//! Definitions by their hash, and the versions of workflows that point to them.

use engine::ContentHash;
use sqlx::{Connection as _, QueryBuilder, Row as _};

use super::{BEGIN, Connection, Db, LOCK_WORKFLOWS, Row, audit, hash, page};
use crate::{AuditRow, Registration, WorkflowRow};

macro_rules! workflow_columns {
    () => {
        "tenant, name, version, definition_hash, etag, registered_at, summary"
    };
}

fn workflow_row(row: &Row) -> sqlx::Result<WorkflowRow> {
    Ok(WorkflowRow {
        tenant: row.try_get(0)?,
        name: row.try_get(1)?,
        version: row.try_get(2)?,
        definition_hash: hash(row, 3)?,
        etag: row.try_get(4)?,
        registered_at: row.try_get(5)?,
        summary: row.try_get(6)?,
    })
}

pub(super) async fn put_definition(
    connection: &mut Connection,
    hash: ContentHash,
    yaml: &str,
) -> sqlx::Result<()> {
    sqlx::query::<Db>(
        "INSERT INTO definitions (hash, content) VALUES ($1, $2) ON CONFLICT DO NOTHING",
    )
    .bind(hash.0.as_slice())
    .bind(yaml.as_bytes())
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn definition(
    connection: &mut Connection,
    hash: ContentHash,
) -> sqlx::Result<Option<String>> {
    let row = sqlx::query::<Db>("SELECT content FROM definitions WHERE hash = $1")
        .bind(hash.0.as_slice())
        .fetch_optional(connection)
        .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let text = String::from_utf8(row.try_get(0)?);
    text.map(Some).map_err(|error| sqlx::Error::Decode(error.into()))
}

pub(super) async fn register(
    connection: &mut Connection,
    row: &WorkflowRow,
    replace: bool,
    etag: Option<&str>,
    entries: &[AuditRow],
) -> sqlx::Result<Registration> {
    let mut transaction = connection.begin_with(BEGIN).await?;
    sqlx::query::<Db>(LOCK_WORKFLOWS).execute(&mut *transaction).await?;
    let stored = find(&mut transaction, &row.tenant, &row.name, Some(&row.version)).await?;
    match stored {
        Some(stored) if !replace => return Ok(Registration::Exists(stored)),
        Some(stored) if etag.is_some_and(|etag| etag != stored.etag) => {
            return Ok(Registration::EtagMismatch { stored: Some(stored.etag) });
        }
        None if etag.is_some() => return Ok(Registration::EtagMismatch { stored: None }),
        Some(_) => update(&mut transaction, row).await?,
        None => insert(&mut transaction, row).await?,
    }
    if !audit::append(&mut transaction, entries).await? {
        return Ok(Registration::AuditTaken);
    }
    transaction.commit().await?;
    Ok(Registration::Registered)
}

async fn update(connection: &mut Connection, row: &WorkflowRow) -> sqlx::Result<()> {
    sqlx::query::<Db>(
        "UPDATE workflows SET definition_hash = $4, etag = $5, registered_at = $6, summary = $7 \
         WHERE tenant = $1 AND name = $2 AND version = $3",
    )
    .bind(row.tenant.as_str())
    .bind(row.name.as_str())
    .bind(row.version.as_str())
    .bind(row.definition_hash.0.as_slice())
    .bind(row.etag.as_str())
    .bind(row.registered_at)
    .bind(row.summary.as_slice())
    .execute(connection)
    .await?;
    Ok(())
}

async fn insert(connection: &mut Connection, row: &WorkflowRow) -> sqlx::Result<()> {
    sqlx::query::<Db>(concat!(
        "INSERT INTO workflows (",
        workflow_columns!(),
        ", ordinal) SELECT $1, $2, $3, $4, $5, $6, $7, \
         (SELECT COALESCE(MAX(ordinal), 0) + 1 FROM workflows WHERE tenant = $1 AND name = $2)"
    ))
    .bind(row.tenant.as_str())
    .bind(row.name.as_str())
    .bind(row.version.as_str())
    .bind(row.definition_hash.0.as_slice())
    .bind(row.etag.as_str())
    .bind(row.registered_at)
    .bind(row.summary.as_slice())
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn find(
    connection: &mut Connection,
    tenant: &str,
    name: &str,
    version: Option<&str>,
) -> sqlx::Result<Option<WorkflowRow>> {
    let start = concat!("SELECT ", workflow_columns!(), " FROM workflows WHERE tenant = ");
    let mut query = QueryBuilder::<Db>::new(start);
    query.push_bind(tenant.to_owned()).push(" AND name = ").push_bind(name.to_owned());
    if let Some(version) = version {
        query.push(" AND version = ").push_bind(version.to_owned());
    }
    query.push(" ORDER BY ordinal DESC LIMIT 1");
    let row = query.build().fetch_optional(connection).await?;
    row.as_ref().map(workflow_row).transpose()
}

pub(super) async fn list(
    connection: &mut Connection,
    tenant: &str,
    name: Option<&str>,
    after: Option<(&str, &str)>,
    limit: u32,
) -> sqlx::Result<Vec<WorkflowRow>> {
    let start = concat!("SELECT ", workflow_columns!(), " FROM workflows WHERE tenant = ");
    let mut query = QueryBuilder::<Db>::new(start);
    query.push_bind(tenant.to_owned());
    if let Some(name) = name {
        query.push(" AND name = ").push_bind(name.to_owned());
    }
    if let Some((name, version)) = after {
        query.push(" AND (name, version) > (").push_bind(name.to_owned());
        query.push(", ").push_bind(version.to_owned()).push(")");
    }
    query.push(" ORDER BY name, version LIMIT ").push_bind(page(limit));
    let rows = query.build().fetch_all(connection).await?;
    rows.iter().map(workflow_row).collect()
}
