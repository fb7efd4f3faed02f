//! Removal of runs that ended long ago, in bounded batches, with all that is theirs.

use engine::RunId;
use sqlx::{Connection as _, QueryBuilder, Row as _};

use super::{BEGIN, Connection, Db, bounded, run_id};
use crate::Micros;

/// Runs removed by one set of statements.
const CHUNK_RUNS_MAX: usize = 100;

pub(super) async fn delete_finished(
    connection: &mut Connection,
    before: Micros,
    keep_newest: u64,
    limit: u32,
) -> sqlx::Result<u64> {
    let runs = candidates(&mut *connection, before, keep_newest, limit).await?;
    let mut deleted = 0;
    for chunk in runs.chunks(CHUNK_RUNS_MAX) {
        let mut transaction = connection.begin_with(BEGIN).await?;
        deleted += delete(&mut transaction, chunk).await?;
        transaction.commit().await?;
    }
    Ok(deleted)
}

/// The runs that ended first: as many as are over the number to keep, and those before `before`.
async fn candidates(
    connection: &mut Connection,
    before: Micros,
    keep_newest: u64,
    limit: u32,
) -> sqlx::Result<Vec<RunId>> {
    let finished: i64 = sqlx::query::<Db>("SELECT COUNT(*) FROM runs WHERE ended_at IS NOT NULL")
        .fetch_one(&mut *connection)
        .await?
        .try_get(0)?;
    let over = u64::try_from(finished).unwrap_or(0).saturating_sub(keep_newest);
    let rows = sqlx::query::<Db>(
        "SELECT run_id, ended_at FROM runs WHERE ended_at IS NOT NULL \
         ORDER BY ended_at, run_id LIMIT $1",
    )
    .bind(bounded(limit))
    .fetch_all(connection)
    .await?;
    let mut runs = Vec::new();
    for (row, place) in rows.iter().zip(0_u64..) {
        let ended_at: Micros = row.try_get(1)?;
        if place < over || ended_at < before {
            runs.push(run_id(row, 0)?);
        }
    }
    // In the order in which commits lock them.
    runs.sort_unstable();
    Ok(runs)
}

/// The rows of `runs` go first: their locks keep commits out, and a run that has gone on since it
/// was chosen stays.
async fn delete(connection: &mut Connection, runs: &[RunId]) -> sqlx::Result<u64> {
    let mut query =
        QueryBuilder::<Db>::new("DELETE FROM runs WHERE ended_at IS NOT NULL AND run_id IN (");
    push_ids(&mut query, runs);
    query.push(" RETURNING run_id");
    let rows = query.build().fetch_all(&mut *connection).await?;
    let gone = rows.iter().map(|row| run_id(row, 0)).collect::<sqlx::Result<Vec<_>>>()?;
    if gone.is_empty() {
        return Ok(0);
    }
    for start in [
        "DELETE FROM journal WHERE run_id IN (",
        "DELETE FROM run_blobs WHERE run_id IN (",
        "DELETE FROM dead_letters WHERE run_id IN (",
    ] {
        let mut query = QueryBuilder::<Db>::new(start);
        push_ids(&mut query, &gone);
        query.build().execute(&mut *connection).await?;
    }
    Ok(rows.len() as u64)
}

fn push_ids(query: &mut QueryBuilder<Db>, runs: &[RunId]) {
    let mut ids = query.separated(", ");
    for run in runs {
        ids.push_bind(run.0);
    }
    query.push(")");
}
