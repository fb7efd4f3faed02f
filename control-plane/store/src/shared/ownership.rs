//! Who holds which run: taking over, parking and waking. Each changes the owner column, which a
//! commit compares; so whoever held a run before loses its next write.

use std::collections::HashSet;

use engine::RunId;
use sqlx::{AssertSqlSafe, Connection as _, QueryBuilder, Row as _};

use super::run::{find, run_columns, run_row};
use super::{Connection, Db, SKIP_LOCKED, optional_owner, page, push_among, run_id, settle_insert};
use crate::{Adoption, Micros, OwnerId, Parking, RunRow, Standing};

/// A run that is not there may be in an insert that has not ended, see [`super::run::adopt`].
pub(super) async fn take_over(
    connection: &mut Connection,
    run: RunId,
    from: Option<OwnerId>,
    to: OwnerId,
    at: Micros,
) -> sqlx::Result<Adoption> {
    for settled in [false, true] {
        let row = sqlx::query::<Db>(concat!(
            "UPDATE runs SET owner = $3, adopted_at = $4 \
             WHERE run_id = $1 AND owner IS NOT DISTINCT FROM $2 RETURNING ",
            run_columns!()
        ))
        .bind(run.0)
        .bind(from.map(|from| from.0))
        .bind(to.0)
        .bind(at)
        .fetch_optional(&mut *connection)
        .await?;
        if let Some(row) = row {
            unpark(connection, run).await?;
            return Ok(Adoption::Adopted(Box::new(run_row(&row)?)));
        }
        if let Some(row) = find(&mut *connection, run).await? {
            return Ok(Adoption::OwnedBy(row.owner));
        }
        if !settled {
            settle_insert(&mut *connection, run).await?;
        }
    }
    Ok(Adoption::NotFound)
}

async fn unpark(connection: &mut Connection, run: RunId) -> sqlx::Result<()> {
    sqlx::query::<Db>("DELETE FROM parked WHERE run_id = $1")
        .bind(run.0)
        .execute(connection)
        .await?;
    Ok(())
}

/// Takes the unfinished runs that `chosen` names; `$1` is the new owner, `$2` the time, `$3` the
/// limit.
async fn take(
    connection: &mut Connection,
    chosen: &str,
    from: Option<OwnerId>,
    to: OwnerId,
    at: Micros,
    limit: u32,
) -> sqlx::Result<Vec<RunRow>> {
    let text = format!(
        "UPDATE runs SET owner = $1, adopted_at = $2 WHERE run_id IN (SELECT run_id FROM runs \
         WHERE ended_at IS NULL AND {chosen} ORDER BY run_id LIMIT $3{SKIP_LOCKED}) RETURNING {}",
        run_columns!()
    );
    let mut query = sqlx::query::<Db>(AssertSqlSafe(text)).bind(to.0).bind(at).bind(page(limit));
    if let Some(from) = from {
        query = query.bind(from.0);
    }
    let rows = query.fetch_all(connection).await?;
    rows.iter().map(run_row).collect()
}

pub(super) async fn adopt_from(
    connection: &mut Connection,
    from: OwnerId,
    to: OwnerId,
    at: Micros,
    limit: u32,
) -> sqlx::Result<Vec<RunRow>> {
    take(connection, "owner = $4", Some(from), to, at, limit).await
}

/// By going from owner to owner along their index: what each has, and how many wait for nobody,
/// costs nothing.
pub(super) async fn adopt_orphans(
    connection: &mut Connection,
    to: OwnerId,
    at: Micros,
    limit: u32,
) -> sqlx::Result<Vec<RunRow>> {
    let gone = sqlx::query::<Db>(
        "WITH RECURSIVE owners (owner) AS (\
         SELECT (SELECT r.owner FROM runs r WHERE r.ended_at IS NULL AND r.owner IS NOT NULL \
         ORDER BY r.owner LIMIT 1) UNION ALL \
         SELECT (SELECT r.owner FROM runs r WHERE r.ended_at IS NULL AND r.owner > o.owner \
         ORDER BY r.owner LIMIT 1) FROM owners o WHERE o.owner IS NOT NULL) \
         SELECT o.owner FROM owners o WHERE o.owner <> $1 \
         AND NOT EXISTS (SELECT 1 FROM replicas r WHERE r.id = o.owner)",
    )
    .bind(to.0)
    .fetch_all(&mut *connection)
    .await?;
    for row in &gone {
        let Some(from) = optional_owner(row, 0)? else { continue };
        let taken = adopt_from(&mut *connection, from, to, at, limit).await?;
        if !taken.is_empty() {
            return Ok(taken);
        }
    }
    Ok(Vec::new())
}

/// Looks at all runs that are parked, and so is nothing to do often.
pub(super) async fn adopt_unowned(
    connection: &mut Connection,
    to: OwnerId,
    at: Micros,
    limit: u32,
) -> sqlx::Result<Vec<RunRow>> {
    let nobody =
        "owner IS NULL AND NOT EXISTS (SELECT 1 FROM parked p WHERE p.run_id = runs.run_id)";
    take(connection, nobody, None, to, at, limit).await
}

pub(super) async fn park(
    connection: &mut Connection,
    owner: OwnerId,
    parkings: &[Parking],
) -> sqlx::Result<Vec<RunId>> {
    let mut parkings: Vec<&Parking> = parkings.iter().collect();
    // In the same order everywhere, so that two replicas never wait for one another.
    parkings.sort_by_key(|parking| parking.run);
    let mut transaction = connection.begin().await?;
    drop_unsure(&mut transaction, &mut parkings).await?;
    let mut parked = Vec::with_capacity(parkings.len());
    for some in parkings.chunks(PART) {
        let mut query = QueryBuilder::<Db>::new("UPDATE runs SET owner = NULL FROM (");
        query.push_values(some, |mut row, parking| {
            row.push_bind(parking.run.0).push_bind(parking.version);
        });
        query.push(") AS p WHERE runs.run_id = p.column1 AND runs.version = p.column2");
        query.push(" AND runs.ended_at IS NULL AND runs.owner = ").push_bind(owner.0);
        query.push(" RETURNING runs.run_id");
        let rows = query.build().persistent(false).fetch_all(&mut *transaction).await?;
        let done = rows.iter().map(|row| run_id(row, 0)).collect::<sqlx::Result<HashSet<_>>>()?;
        let left: Vec<&Parking> =
            some.iter().copied().filter(|parking| done.contains(&parking.run)).collect();
        if left.is_empty() {
            continue;
        }
        let mut query = QueryBuilder::<Db>::new("INSERT INTO parked (run_id, wake_at) ");
        query.push_values(&left, |mut row, parking| {
            row.push_bind(parking.run.0).push_bind(parking.wake_at);
        });
        query.push(" ON CONFLICT (run_id) DO UPDATE SET wake_at = excluded.wake_at");
        query.build().persistent(false).execute(&mut *transaction).await?;
        parked.extend(left.iter().map(|parking| parking.run));
    }
    transaction.commit().await?;
    Ok(parked)
}

/// Takes those out that wait for a child run which has ended, is missing, or is being written. The
/// others' children end after this transaction: a commit of their ends waits for it, and finds
/// the rows of `parked`.
async fn drop_unsure(
    connection: &mut Connection,
    parkings: &mut Vec<&Parking>,
) -> sqlx::Result<()> {
    let mut children: Vec<RunId> =
        parkings.iter().flat_map(|parking| parking.children.iter().copied()).collect();
    children.sort_unstable();
    let mut alive = HashSet::with_capacity(children.len());
    for some in children.chunks(PART) {
        let mut query =
            QueryBuilder::<Db>::new("SELECT run_id FROM runs WHERE ended_at IS NULL AND run_id");
        push_among(&mut query, some);
        query.push(SKIP_LOCKED);
        let rows = query.build().persistent(false).fetch_all(&mut *connection).await?;
        for row in &rows {
            alive.insert(run_id(row, 0)?);
        }
    }
    parkings.retain(|parking| parking.children.iter().all(|child| alive.contains(child)));
    Ok(())
}

/// A row of `parked` whose run has an owner again is a remnant, and goes.
pub(super) async fn wake_due(
    connection: &mut Connection,
    to: OwnerId,
    now: Micros,
    limit: u32,
) -> sqlx::Result<Vec<RunRow>> {
    let mut transaction = connection.begin().await?;
    let text = format!(
        "DELETE FROM parked WHERE run_id IN (SELECT run_id FROM parked WHERE wake_at <= $1 \
         ORDER BY wake_at LIMIT $2{SKIP_LOCKED}) RETURNING run_id"
    );
    let due = sqlx::query::<Db>(AssertSqlSafe(text))
        .bind(now)
        .bind(page(limit))
        .fetch_all(&mut *transaction)
        .await?;
    let mut due = due.iter().map(|row| run_id(row, 0)).collect::<sqlx::Result<Vec<RunId>>>()?;
    due.sort();
    let mut woken = Vec::with_capacity(due.len());
    for some in due.chunks(PART) {
        let mut query = QueryBuilder::<Db>::new("UPDATE runs SET owner = ");
        query.push_bind(to.0).push(", adopted_at = ").push_bind(now);
        query.push(" WHERE owner IS NULL AND run_id");
        push_among(&mut query, some);
        query.push(concat!(" RETURNING ", run_columns!()));
        let rows = query.build().fetch_all(&mut *transaction).await?;
        for row in &rows {
            woken.push(run_row(row)?);
        }
    }
    transaction.commit().await?;
    Ok(woken)
}

/// How many ids stand in one statement.
const PART: usize = 500;

pub(super) async fn next_wake(connection: &mut Connection) -> sqlx::Result<Option<Micros>> {
    sqlx::query_scalar::<Db, Option<i64>>(
        "SELECT min(wake_at) FROM parked WHERE wake_at IS NOT NULL",
    )
    .fetch_one(connection)
    .await
}

pub(super) async fn count_owned(
    connection: &mut Connection,
) -> sqlx::Result<Vec<(Option<OwnerId>, u64)>> {
    let rows =
        sqlx::query::<Db>("SELECT owner, count(*) FROM runs WHERE ended_at IS NULL GROUP BY owner")
            .fetch_all(connection)
            .await?;
    let owned = rows.iter().map(|row| {
        let count: i64 = row.try_get(1)?;
        Ok((optional_owner(row, 0)?, count.unsigned_abs()))
    });
    owned.collect()
}

pub(super) async fn standings(
    connection: &mut Connection,
    runs: &[RunId],
) -> sqlx::Result<Vec<Standing>> {
    let mut standings = Vec::with_capacity(runs.len());
    for some in runs.chunks(PART) {
        let mut query = QueryBuilder::<Db>::new(
            "SELECT run_id, owner, version, ended_at IS NOT NULL FROM runs WHERE run_id",
        );
        push_among(&mut query, some);
        let rows = query.build().fetch_all(&mut *connection).await?;
        for row in &rows {
            standings.push(Standing {
                run_id: run_id(row, 0)?,
                owner: optional_owner(row, 1)?,
                version: row.try_get(2)?,
                ended: row.try_get(3)?,
            });
        }
    }
    Ok(standings)
}
