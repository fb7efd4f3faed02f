//! Documents: read by key, by lists and by the time they are due; changed by compare-and-swap
//! together with the audit log and the request behind it.

use sqlx::{Connection as _, QueryBuilder, Row as _};

use super::{BEGIN, Connection, Db, Row, audit, page, request};
use crate::{Change, Changed, Cursor, DocumentFilter, DocumentRow, DocumentWrite, Micros};

/// Rows of one statement; each has ten values, and a statement takes few ten thousands.
const INSERTED_AT_ONCE: usize = 500;

const START: &str = "SELECT kind, id, tenant, parent, status, created_at, updated_at, due_at, \
     version, body FROM documents WHERE kind = ";

fn document_row(row: &Row) -> sqlx::Result<DocumentRow> {
    Ok(DocumentRow {
        kind: row.try_get(0)?,
        id: row.try_get(1)?,
        tenant: row.try_get(2)?,
        parent: row.try_get(3)?,
        status: row.try_get(4)?,
        created_at: row.try_get(5)?,
        updated_at: row.try_get(6)?,
        due_at: row.try_get(7)?,
        version: row.try_get(8)?,
        body: row.try_get(9)?,
    })
}

pub(super) async fn find(
    connection: &mut Connection,
    kind: i16,
    id: &str,
) -> sqlx::Result<Option<DocumentRow>> {
    let mut query = QueryBuilder::<Db>::new(START);
    query.push_bind(kind).push(" AND id = ").push_bind(id.to_owned());
    let row = query.build().fetch_optional(connection).await?;
    row.as_ref().map(document_row).transpose()
}

pub(super) async fn find_all(
    connection: &mut Connection,
    kind: i16,
    ids: &[&String],
) -> sqlx::Result<Vec<DocumentRow>> {
    let mut query = QueryBuilder::<Db>::new(START);
    query.push_bind(kind).push(" AND id IN (");
    let mut wanted = query.separated(", ");
    for id in ids {
        wanted.push_bind((*id).clone());
    }
    query.push(")");
    let rows = query.build().fetch_all(connection).await?;
    rows.iter().map(document_row).collect()
}

pub(super) async fn list(
    connection: &mut Connection,
    filter: &DocumentFilter,
    after: Option<Cursor<String>>,
    ascending: bool,
    limit: u32,
) -> sqlx::Result<Vec<DocumentRow>> {
    let mut query = QueryBuilder::<Db>::new(START);
    query.push_bind(filter.kind);
    if let Some(tenant) = &filter.tenant {
        query.push(" AND tenant = ").push_bind(tenant.clone());
    }
    if let Some(parent) = &filter.parent {
        query.push(" AND parent = ").push_bind(parent.clone());
    }
    if let Some(status) = filter.status {
        query.push(" AND status = ").push_bind(status);
    }
    let (beyond, order) = if ascending { (">", "ASC") } else { ("<", "DESC") };
    if let Some(after) = after {
        query.push(format!(" AND (created_at, id) {beyond} (")).push_bind(after.at);
        query.push(", ").push_bind(after.id).push(")");
    }
    query.push(format!(" ORDER BY created_at {order}, id {order} LIMIT ")).push_bind(page(limit));
    let rows = query.build().fetch_all(connection).await?;
    rows.iter().map(document_row).collect()
}

pub(super) async fn due(
    connection: &mut Connection,
    kind: i16,
    until: Micros,
    limit: u32,
) -> sqlx::Result<Vec<DocumentRow>> {
    let mut query = QueryBuilder::<Db>::new(START);
    query.push_bind(kind).push(" AND due_at <= ").push_bind(until);
    query.push(" ORDER BY due_at, id LIMIT ").push_bind(page(limit));
    let rows = query.build().fetch_all(connection).await?;
    rows.iter().map(document_row).collect()
}

/// All or nothing: what has lost is rolled back when the transaction is dropped. Rows are taken
/// in one order by all, so that two never wait for one another.
pub(super) async fn change(connection: &mut Connection, change: &Change) -> sqlx::Result<Changed> {
    let mut transaction = connection.begin_with(BEGIN).await?;
    if let Some(row) = &change.request
        && let Some(stored) = request::put(&mut transaction, row).await?
    {
        return Ok(Changed::DuplicateRequest(Box::new(stored)));
    }
    let mut writes: Vec<&DocumentWrite> = change.documents.iter().collect();
    writes.sort_by_key(|write| (write.row.kind, &write.row.id));
    // Those that are new stand next to each other as far as possible, and go many at once.
    let are_new = |one: &&DocumentWrite, other: &&DocumentWrite| {
        one.expected_version == 0 && other.expected_version == 0
    };
    for writes in writes.chunk_by(are_new).flat_map(|new| new.chunks(INSERTED_AT_ONCE)) {
        let wins = match writes {
            [DocumentWrite { row, expected_version }] if *expected_version > 0 => {
                update(&mut transaction, row, *expected_version).await?
            }
            [DocumentWrite { row, .. }] => insert(&mut transaction, row).await?,
            new => insert_all(&mut transaction, new).await?,
        };
        if !wins {
            return Ok(Changed::Conflict);
        }
    }
    if !audit::append(&mut transaction, &change.audit).await? {
        return Ok(Changed::Conflict);
    }
    transaction.commit().await?;
    Ok(Changed::Done)
}

/// All of them, or it is no win.
async fn insert_all(connection: &mut Connection, new: &[&DocumentWrite]) -> sqlx::Result<bool> {
    let mut query = QueryBuilder::<Db>::new(
        "INSERT INTO documents (kind, id, tenant, parent, status, created_at, updated_at, \
         due_at, version, body) ",
    );
    query.push_values(new, |mut values, DocumentWrite { row, .. }| {
        values.push_bind(row.kind).push_bind(row.id.clone()).push_bind(row.tenant.clone());
        values.push_bind(row.parent.clone()).push_bind(row.status).push_bind(row.created_at);
        values.push_bind(row.updated_at).push_bind(row.due_at).push_bind(row.version);
        values.push_bind(row.body.clone());
    });
    query.push(" ON CONFLICT DO NOTHING");
    // Statements of many lengths would only push others from the connection's memory.
    let done = query.build().persistent(false).execute(connection).await?;
    Ok(usize::try_from(done.rows_affected()).is_ok_and(|rows| rows == new.len()))
}

async fn insert(connection: &mut Connection, row: &DocumentRow) -> sqlx::Result<bool> {
    let done = sqlx::query::<Db>(
        "INSERT INTO documents (kind, id, tenant, parent, status, created_at, updated_at, \
         due_at, version, body) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
         ON CONFLICT DO NOTHING",
    )
    .bind(row.kind)
    .bind(row.id.as_str())
    .bind(row.tenant.as_str())
    .bind(row.parent.as_deref())
    .bind(row.status)
    .bind(row.created_at)
    .bind(row.updated_at)
    .bind(row.due_at)
    .bind(row.version)
    .bind(row.body.as_slice())
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

async fn update(
    connection: &mut Connection,
    row: &DocumentRow,
    expected: i64,
) -> sqlx::Result<bool> {
    let done = sqlx::query::<Db>(
        "UPDATE documents SET parent = $4, status = $5, updated_at = $6, due_at = $7, \
         version = $8, body = $9 WHERE kind = $1 AND id = $2 AND version = $3",
    )
    .bind(row.kind)
    .bind(row.id.as_str())
    .bind(expected)
    .bind(row.parent.as_deref())
    .bind(row.status)
    .bind(row.updated_at)
    .bind(row.due_at)
    .bind(row.version)
    .bind(row.body.as_slice())
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}
