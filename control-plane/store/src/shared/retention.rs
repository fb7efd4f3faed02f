//! Removal of runs that ended long ago, in bounded batches, with all that is theirs.
//!
//! Journals go row by row only where that is the way: what lies in a partition goes with it.

use engine::RunId;
use sqlx::{AssertSqlSafe, Connection as _, QueryBuilder, Row as _};

use super::{BEGIN, Connection, Db, JOURNAL_BY_ROW, page, push_among_texts, run_id};
use crate::{Cursor, Deleted};

/// Runs removed by one set of statements.
const CHUNK_RUNS_MAX: usize = 100;

/// When a run that ended stays nevertheless: as long as its parent, which stays as long as its
/// own. Whatever else may still ask for the journal of a run that ended belongs here.
const STAYS: &str = "parent IS NOT NULL \
     AND EXISTS (SELECT 1 FROM runs above WHERE above.run_id = runs.parent)";

/// A walk along the index, newest first: as long as the number to keep, whatever there is beside.
pub(super) async fn oldest_kept(
    connection: &mut Connection,
    keep_newest: u64,
) -> sqlx::Result<Option<Cursor<RunId>>> {
    let Some(before) = keep_newest.checked_sub(1) else {
        return Ok(Some(Cursor { at: i64::MAX, id: RunId(uuid::Uuid::max()) }));
    };
    let row = sqlx::query::<Db>(
        "SELECT ended_at, run_id FROM runs WHERE ended_at IS NOT NULL \
         ORDER BY ended_at DESC, run_id DESC LIMIT 1 OFFSET $1",
    )
    .bind(i64::try_from(before).unwrap_or(i64::MAX))
    .fetch_optional(connection)
    .await?;
    row.map(|row| Ok(Cursor { at: row.try_get(0)?, id: run_id(&row, 1)? })).transpose()
}

pub(super) async fn delete_finished(
    connection: &mut Connection,
    before: Cursor<RunId>,
    after: Option<Cursor<RunId>>,
    limit: u32,
) -> sqlx::Result<Deleted> {
    let limit = page(limit);
    let (runs, next) = candidates(&mut *connection, before, after, limit).await?;
    let mut deleted = 0;
    for chunk in runs.chunks(CHUNK_RUNS_MAX) {
        let mut transaction = connection.begin_with(BEGIN).await?;
        deleted += delete(&mut transaction, chunk).await?;
        transaction.commit().await?;
    }
    Ok(Deleted { runs: deleted, next })
}

/// Those that may go among the next `limit` runs that ended, and where to go on.
async fn candidates(
    connection: &mut Connection,
    before: Cursor<RunId>,
    after: Option<Cursor<RunId>>,
    limit: i64,
) -> sqlx::Result<(Vec<RunId>, Option<Cursor<RunId>>)> {
    let after = after.unwrap_or(Cursor { at: i64::MIN, id: RunId(uuid::Uuid::nil()) });
    let text = format!(
        "SELECT run_id, ended_at, {STAYS} FROM runs WHERE ended_at IS NOT NULL \
         AND (ended_at, run_id) > ($1, $2) AND (ended_at, run_id) < ($3, $4) \
         ORDER BY ended_at, run_id LIMIT $5"
    );
    let rows = sqlx::query::<Db>(AssertSqlSafe(text))
        .bind(after.at)
        .bind(after.id.0)
        .bind(before.at)
        .bind(before.id.0)
        .bind(limit)
        .fetch_all(connection)
        .await?;
    let mut runs = Vec::new();
    let mut last = None;
    for row in &rows {
        let run = run_id(row, 0)?;
        if !row.try_get::<bool, _>(2)? {
            runs.push(run);
        }
        last = Some(Cursor { at: row.try_get(1)?, id: run });
    }
    // In the order in which commits lock them.
    runs.sort_unstable();
    let is_full = i64::try_from(rows.len()) == Ok(limit);
    Ok((runs, last.filter(|_| is_full)))
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
    for table in [JOURNAL_BY_ROW, "run_blobs", "dead_letters"] {
        let mut query = QueryBuilder::<Db>::new(format!("DELETE FROM {table} WHERE run_id IN ("));
        push_ids(&mut query, &gone);
        query.build().execute(&mut *connection).await?;
    }
    let mut query = QueryBuilder::<Db>::new("DELETE FROM documents WHERE parent");
    let gone: Vec<String> = gone.iter().map(ToString::to_string).collect();
    push_among_texts(&mut query, &gone.iter().map(String::as_str).collect::<Vec<_>>());
    query.build().execute(&mut *connection).await?;
    Ok(rows.len() as u64)
}

fn push_ids(query: &mut QueryBuilder<Db>, runs: &[RunId]) {
    let mut ids = query.separated(", ");
    for run in runs {
        ids.push_bind(run.0);
    }
    query.push(")");
}
