//! Runs and their journals, as they are read; and adoption, the one write of them that is no
//! commit.

use std::collections::HashMap;
use std::sync::Arc;

use engine::RunId;
use futures::TryStreamExt as _;
use sqlx::query::Query;
use sqlx::{Database, QueryBuilder, Row as _};

use super::{
    Connection, Db, Row, hash, optional_owner, optional_run_id, page, push_among, run_id,
    settle_insert,
};
use crate::limits::FOLDED_BYTES_MAX;
use crate::pack::unpack;
use crate::{Cursor, JournalRow, Micros, OwnerId, RunFilter, RunRow};

macro_rules! run_columns {
    () => {
        "run_id, tenant, workflow, version_name, definition_hash, status, version, owner, \
         created_at, ended_at, parent, priority, labels, summary, wake_at"
    };
}
pub(super) use run_columns;

pub(super) fn run_row(row: &Row) -> sqlx::Result<RunRow> {
    Ok(RunRow {
        run_id: run_id(row, 0)?,
        tenant: row.try_get(1)?,
        workflow: row.try_get(2)?,
        version_name: row.try_get(3)?,
        definition_hash: hash(row, 4)?,
        status: row.try_get(5)?,
        version: row.try_get(6)?,
        owner: optional_owner(row, 7)?,
        created_at: row.try_get(8)?,
        ended_at: row.try_get(9)?,
        parent: optional_run_id(row, 10)?,
        priority: row.try_get(11)?,
        labels: row.try_get(12)?,
        summary: row.try_get(13)?,
        wake_at: row.try_get(14)?,
    })
}

/// A run that is not there may be in an insert that has not ended, which an update does not wait
/// for: it is settled first, then looked for again.
pub(super) async fn adopt(
    connection: &mut Connection,
    run: RunId,
    owner: OwnerId,
    at: Micros,
) -> sqlx::Result<Option<RunRow>> {
    if let Some(row) = take(connection, run, owner, at).await? {
        return Ok(Some(row));
    }
    settle_insert(connection, run).await?;
    take(connection, run, owner, at).await
}

async fn take(
    connection: &mut Connection,
    run: RunId,
    owner: OwnerId,
    at: Micros,
) -> sqlx::Result<Option<RunRow>> {
    let row = sqlx::query::<Db>(concat!(
        "UPDATE runs SET owner = $2, adopted_at = $3 WHERE run_id = $1 RETURNING ",
        run_columns!()
    ))
    .bind(run.0)
    .bind(owner.0)
    .bind(at)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(run_row).transpose()
}

pub(super) async fn find(connection: &mut Connection, run: RunId) -> sqlx::Result<Option<RunRow>> {
    let row = sqlx::query::<Db>(concat!("SELECT ", run_columns!(), " FROM runs WHERE run_id = $1"))
        .bind(run.0)
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(run_row).transpose()
}

pub(super) async fn unfinished(
    connection: &mut Connection,
    after: Option<RunId>,
    limit: u32,
) -> sqlx::Result<Vec<RunRow>> {
    let rows = sqlx::query::<Db>(concat!(
        "SELECT ",
        run_columns!(),
        " FROM runs WHERE ended_at IS NULL AND run_id > $1 ORDER BY run_id LIMIT $2"
    ))
    .bind(after.map_or(uuid::Uuid::nil(), |run| run.0))
    .bind(page(limit))
    .fetch_all(connection)
    .await?;
    rows.iter().map(run_row).collect()
}

pub(super) async fn list(
    connection: &mut Connection,
    filter: &RunFilter,
    after: Option<Cursor<RunId>>,
    ascending: bool,
    limit: u32,
) -> sqlx::Result<Vec<RunRow>> {
    let start = concat!("SELECT ", run_columns!(), " FROM runs WHERE 1 = 1");
    let mut query = QueryBuilder::<Db>::new(start);
    if let Some(tenant) = &filter.tenant {
        query.push(" AND tenant = ").push_bind(tenant.clone());
    }
    if let Some(workflow) = &filter.workflow {
        query.push(" AND workflow = ").push_bind(workflow.clone());
    }
    if let Some(status) = filter.status {
        query.push(" AND status = ").push_bind(status);
    }
    if let Some(parent) = filter.parent {
        query.push(" AND parent = ").push_bind(parent.0);
    }
    let (beyond, order) = if ascending { (">", "") } else { ("<", " DESC") };
    if let Some(after) = after {
        query.push(format!(" AND (created_at, run_id) {beyond} ("));
        query.push_bind(after.at).push(", ").push_bind(after.id.0).push(")");
    }
    query.push(format!(" ORDER BY created_at{order}, run_id{order} LIMIT "));
    query.push_bind(page(limit));
    let rows = query.build().fetch_all(connection).await?;
    rows.iter().map(run_row).collect()
}

/// The row first, then the journal up to its version: what is appended between is left out.
/// A journal with gaps is an error, unless retention has removed the run in between.
pub(super) async fn fold(
    connection: &mut Connection,
    run: RunId,
) -> sqlx::Result<Option<(RunRow, Vec<JournalRow>)>> {
    let Some(row) = find(&mut *connection, run).await? else {
        return Ok(None);
    };
    let events = journal_between(&mut *connection, run, 0, row.version, i64::MAX).await?;
    let whole = events.iter().zip(1..).all(|(event, seq)| event.seq == seq)
        && i64::try_from(events.len()) == Ok(row.version);
    if whole {
        return Ok(Some((row, events)));
    }
    if find(connection, run).await?.is_none() {
        return Ok(None);
    }
    let found = events.len();
    let text = format!("run {run} has version {}, its journal {found} events", row.version);
    Err(sqlx::Error::Decode(text.into()))
}

/// The rows first, then the journals up to their versions, as [`fold`] does with one.
pub(super) async fn fold_many(
    connection: &mut Connection,
    runs: &[RunId],
) -> sqlx::Result<Vec<(RunRow, Vec<JournalRow>)>> {
    let start = concat!("SELECT ", run_columns!(), " FROM runs WHERE run_id");
    let mut query = QueryBuilder::<Db>::new(start);
    push_among(&mut query, runs);
    let rows = query.build().fetch_all(&mut *connection).await?;
    let mut folded = HashMap::with_capacity(rows.len());
    for row in &rows {
        let row = run_row(row)?;
        folded.insert(row.run_id, (row, Vec::new()));
    }
    let mut room = FOLDED_BYTES_MAX;
    let mut query = QueryBuilder::<Db>::new(
        "SELECT j.seq, j.at, j.kind, j.schema, COALESCE(j.body, b.content), j.run_id \
         FROM journal j LEFT JOIN blobs b ON b.hash = j.blob WHERE j.run_id",
    );
    push_among(&mut query, runs);
    let mut rows = query.build().fetch(connection);
    while let Some(row) = rows.try_next().await? {
        let run = run_id(&row, 5)?;
        if let Some((found, events)) = folded.get_mut(&run) {
            let event = journal_row(run, &row)?;
            if event.seq > found.version {
                continue;
            }
            if let Some(left) = room.checked_sub(event.body.len()) {
                room = left;
                events.push(event);
            } else {
                // Without it there is room for what it held.
                room += events.iter().map(|event| event.body.len()).sum::<usize>();
                folded.remove(&run);
            }
        }
    }
    drop(rows);
    let whole = folded.into_values().filter_map(|(row, packed)| whole(row, packed).transpose());
    whole.collect()
}

/// A run's events out of its rows, unless some are missing.
fn whole(
    row: RunRow,
    mut packed: Vec<JournalRow>,
) -> sqlx::Result<Option<(RunRow, Vec<JournalRow>)>> {
    packed.sort_unstable_by_key(|event| event.seq);
    let mut events = Vec::with_capacity(packed.len());
    for event in packed {
        let unpacked = unpack(event, &mut events);
        let run = row.run_id;
        unpacked.map_err(|why| sqlx::Error::Decode(format!("run {run}: {why}").into()))?;
    }
    let complete = events.iter().zip(1..).all(|(event, seq)| event.seq == seq)
        && i64::try_from(events.len()) == Ok(row.version);
    Ok(complete.then_some((row, events)))
}

pub(super) async fn journal(
    connection: &mut Connection,
    run: RunId,
    after_seq: i64,
    limit: u32,
) -> sqlx::Result<Vec<JournalRow>> {
    let limit = page(limit);
    let mut events = journal_between(connection, run, after_seq, i64::MAX, limit).await?;
    events.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(events)
}

/// At least `limit` events, if there are so many. A row stands under its last event, and is never
/// of two transitions. Rows may be left of a run that was removed: they are nobody's.
async fn journal_between(
    connection: &mut Connection,
    run: RunId,
    after_seq: i64,
    last_seq: i64,
    limit: i64,
) -> sqlx::Result<Vec<JournalRow>> {
    let rows = select_events(run, after_seq, last_seq, limit).fetch_all(connection).await?;
    let mut events = Vec::with_capacity(rows.len());
    for row in &rows {
        let unpacked = unpack(journal_row(run, row)?, &mut events);
        unpacked.map_err(|why| sqlx::Error::Decode(format!("run {run}: {why}").into()))?;
    }
    // The first row may begin before what is asked for.
    let before = events.iter().take_while(|event| event.seq <= after_seq).count();
    events.drain(..before);
    Ok(events)
}

fn select_events<'q>(
    run: RunId,
    after_seq: i64,
    last_seq: i64,
    limit: i64,
) -> Query<'q, Db, <Db as Database>::Arguments> {
    sqlx::query::<Db>(
        "SELECT j.seq, j.at, j.kind, j.schema, COALESCE(j.body, b.content) \
         FROM journal j LEFT JOIN blobs b ON b.hash = j.blob \
         WHERE j.run_id = $1 AND j.seq > $2 AND j.seq <= $3 \
         AND EXISTS (SELECT 1 FROM runs r WHERE r.run_id = $1) ORDER BY j.seq LIMIT $4",
    )
    .bind(run.0)
    .bind(after_seq)
    .bind(last_seq)
    .bind(limit)
}

/// Row by row, as the database gives them.
pub(super) async fn replay(
    connection: &mut Connection,
    row: &RunRow,
    each: &mut (dyn FnMut(JournalRow) + Send),
) -> sqlx::Result<bool> {
    let run = row.run_id;
    let (mut found, mut events) = (0, Vec::new());
    let mut rows = select_events(run, 0, row.version, i64::MAX).fetch(&mut *connection);
    'whole: while let Some(next) = rows.try_next().await? {
        let unpacked = unpack(journal_row(run, &next)?, &mut events);
        unpacked.map_err(|why| sqlx::Error::Decode(format!("run {run}: {why}").into()))?;
        for event in events.drain(..) {
            if event.seq != found + 1 {
                break 'whole;
            }
            found = event.seq;
            each(event);
        }
    }
    drop(rows);
    if found == row.version {
        return Ok(true);
    }
    if find(connection, run).await?.is_none() {
        return Ok(false);
    }
    let text = format!("the journal of run {run}, version {}, breaks off at {found}", row.version);
    Err(sqlx::Error::Decode(text.into()))
}

fn journal_row(run: RunId, row: &Row) -> sqlx::Result<JournalRow> {
    let seq = row.try_get(0)?;
    let body: Option<Vec<u8>> = row.try_get(4)?;
    let lost = || sqlx::Error::Decode(format!("event {seq} of run {run} lacks its blob").into());
    Ok(JournalRow {
        seq,
        at: row.try_get(1)?,
        kind: row.try_get(2)?,
        schema: row.try_get(3)?,
        body: Arc::from(body.ok_or_else(lost)?),
    })
}
