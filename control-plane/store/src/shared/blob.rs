//! Content under its hash.

use engine::ContentHash;
use sqlx::{QueryBuilder, Row as _};

use super::{Connection, Db, hash, page};
use crate::{Collected, Cursor, Micros};

/// A later touch is never undone by an earlier one.
pub(in super::super) async fn put(
    connection: &mut Connection,
    hash: ContentHash,
    bytes: &[u8],
    at: Micros,
) -> sqlx::Result<()> {
    sqlx::query::<Db>(
        "INSERT INTO blobs (hash, touched_at, content) VALUES ($1, $2, $3) \
         ON CONFLICT (hash) DO UPDATE SET touched_at = \
         CASE WHEN blobs.touched_at < excluded.touched_at \
              THEN excluded.touched_at ELSE blobs.touched_at END",
    )
    .bind(hash.0.as_slice())
    .bind(at)
    .bind(bytes)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn find(
    connection: &mut Connection,
    hash: ContentHash,
) -> sqlx::Result<Option<Vec<u8>>> {
    let row = sqlx::query::<Db>("SELECT content FROM blobs WHERE hash = $1")
        .bind(hash.0.as_slice())
        .fetch_optional(connection)
        .await?;
    row.map(|row| row.try_get(0)).transpose()
}

/// Looks first, so that blobs that are needed are passed over once and not each time. The
/// conditions of the removal stand for themselves: what a commit touches or refers to meanwhile
/// makes them fail when they are looked at again.
pub(super) async fn collect(
    connection: &mut Connection,
    before: Micros,
    after: Option<Cursor<ContentHash>>,
    limit: u32,
) -> sqlx::Result<Collected> {
    let limit = page(limit);
    let after = after.unwrap_or(Cursor { at: i64::MIN, id: ContentHash([0; 32]) });
    let rows = sqlx::query::<Db>(
        "SELECT b.touched_at, b.hash, EXISTS (SELECT 1 FROM run_blobs r WHERE r.hash = b.hash) \
         FROM blobs b WHERE b.touched_at < $1 AND (b.touched_at, b.hash) > ($2, $3) \
         ORDER BY b.touched_at, b.hash LIMIT $4",
    )
    .bind(before)
    .bind(after.at)
    .bind(after.id.0.as_slice())
    .bind(limit)
    .fetch_all(&mut *connection)
    .await?;
    let (mut unneeded, mut last) = (Vec::new(), None);
    for row in &rows {
        let found = hash(row, 1)?;
        if !row.try_get::<bool, _>(2)? {
            unneeded.push(found);
        }
        last = Some(Cursor { at: row.try_get(0)?, id: found });
    }
    let next = last.filter(|_| i64::try_from(rows.len()) == Ok(limit));
    if unneeded.is_empty() {
        return Ok(Collected { blobs: 0, next });
    }
    let mut query = QueryBuilder::<Db>::new("DELETE FROM blobs WHERE touched_at < ");
    query.push_bind(before).push(" AND hash IN (");
    let mut hashes = query.separated(", ");
    for hash in &unneeded {
        hashes.push_bind(hash.0.to_vec());
    }
    query.push(") AND NOT EXISTS (SELECT 1 FROM run_blobs r WHERE r.hash = blobs.hash)");
    let done = query.build().persistent(false).execute(connection).await?;
    Ok(Collected { blobs: done.rows_affected(), next })
}
