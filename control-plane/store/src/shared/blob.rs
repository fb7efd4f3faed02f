//! Content under its hash.

use engine::ContentHash;
use sqlx::Row as _;

use super::{Connection, Db, bounded};
use crate::Micros;

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

/// The outer conditions stand for themselves: a commit that touches the blob while this statement
/// waits for it makes the first of them fail when it is looked at again.
pub(super) async fn collect(
    connection: &mut Connection,
    before: Micros,
    limit: u32,
) -> sqlx::Result<u64> {
    let done = sqlx::query::<Db>(
        "DELETE FROM blobs WHERE touched_at < $1 AND hash IN \
         (SELECT b.hash FROM blobs b WHERE b.touched_at < $1 \
          AND NOT EXISTS (SELECT 1 FROM run_blobs r WHERE r.hash = b.hash) \
          ORDER BY b.touched_at LIMIT $2)",
    )
    .bind(before)
    .bind(bounded(limit))
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
