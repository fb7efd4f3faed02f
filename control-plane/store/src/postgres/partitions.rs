//! The journal's partitions: ranges of run ids, which begin with the time at which a run, or its
//! root, was made. They are made ahead; one goes as a whole once no run is left that lies in it.
//!
//! No commit waits for this longer than [`LOCK_WAIT`]: what cannot be had at once is left to the
//! next time. Nothing is lost by that, since a default partition takes what has none of its own.

use sqlx::{AssertSqlSafe, Connection as _, Row as _};
use uuid::Uuid;

use super::{Connection, Db};
use crate::{Micros, Tended};

const HOUR: i64 = 3_600_000;
/// How far ahead there are partitions: longer than a long backup keeps them from being made.
const AHEAD: i64 = 6 * HOUR;
/// How long a partition may last.
const WIDTHS: [i64; 3] = [24 * HOUR, 6 * HOUR, HOUR];
/// What a partition should hold at most, by what the last one came to.
const PARTITION_BYTES: i64 = 4 * 1024 * 1024 * 1024;
/// With so many partitions new ones last long, whatever comes to be in them.
const PARTITIONS_MAX: usize = 200;
/// How many partitions are looked at in one go for whether they may go.
const DROPS_MAX: usize = 20;
/// With no more runs than these left in a partition, they are moved out and it goes.
const STRAGGLERS_MAX: i64 = 1_000;
/// How many rows of the journal these may have together.
const STRAGGLER_ROWS_MAX: i64 = 10_000;
/// How long a lock is waited for, and others behind it.
const LOCK_WAIT: &str = "SET LOCAL lock_timeout = '500ms'";
/// Held by whoever makes partitions; two would make the same ones.
const MAKERS: i64 = 0x6a6f_7572_6e61_6c70;

/// A range of ids, by milliseconds since the Unix epoch: from the first to before the second.
struct Partition {
    name: String,
    from: Option<i64>,
    to: Option<i64>,
    bytes: i64,
}

/// The time that an id begins with.
fn millis(id: Uuid) -> i64 {
    let [a, b, c, d, e, f, ..] = *id.as_bytes();
    i64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

/// The least id that begins with a time.
fn least(millis: i64) -> Uuid {
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
    Uuid::from_bytes(bytes)
}

/// The partitions by time; the default one is not among them.
async fn list(connection: &mut Connection) -> sqlx::Result<Vec<Partition>> {
    let rows = sqlx::query::<Db>(
        r"SELECT p.name, substring(p.bound from 'FROM \(''([0-9a-f-]+)''\)')::uuid,
             substring(p.bound from 'TO \(''([0-9a-f-]+)''\)')::uuid, p.bytes
          FROM (SELECT c.oid::regclass::text AS name, pg_total_relation_size(c.oid) AS bytes,
                    pg_get_expr(c.relpartbound, c.oid) AS bound
                FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                WHERE i.inhparent = 'journal'::regclass) p
          WHERE p.bound <> 'DEFAULT'",
    )
    .fetch_all(connection)
    .await?;
    let partition = |row: &sqlx::postgres::PgRow| {
        let bound = |column| Ok::<_, sqlx::Error>(row.try_get::<Option<_>, _>(column)?.map(millis));
        let (from, to) = (bound(1)?, bound(2)?);
        Ok(Partition { name: row.try_get(0)?, from, to, bytes: row.try_get(3)? })
    };
    let mut partitions = rows.iter().map(partition).collect::<sqlx::Result<Vec<_>>>()?;
    partitions.sort_by_key(|partition| partition.to.unwrap_or(i64::MAX));
    Ok(partitions)
}

/// How long the next partition lasts: as long as it is likely to hold no more than it should.
fn width(partitions: &[Partition], now: i64) -> i64 {
    let longest = WIDTHS[0];
    if partitions.len() >= PARTITIONS_MAX {
        return longest;
    }
    let mut begun = partitions.iter().filter_map(|p| p.from.map(|from| (from, p)));
    let Some((from, last)) = begun.rfind(|(from, _)| now - from >= HOUR / 4) else {
        return longest;
    };
    let lasted = last.to.map_or(now, |to| to.min(now)) - from;
    let bytes_an_hour = (last.bytes / (lasted / 60_000).max(1)).saturating_mul(60);
    let fits = |width: &i64| bytes_an_hour.saturating_mul(width / HOUR) <= PARTITION_BYTES;
    WIDTHS.into_iter().find(fits).unwrap_or(HOUR)
}

/// Sees to it that there are partitions for what comes; gives how many it made.
pub(super) async fn prepare(connection: &mut Connection, at: Micros) -> sqlx::Result<u64> {
    let now = at / 1000;
    let end = |partitions: &[Partition]| partitions.iter().filter_map(|p| p.to).max().unwrap_or(0);
    if end(&list(&mut *connection).await?) >= now + AHEAD {
        return Ok(0);
    }
    let mut transaction = connection.begin().await?;
    sqlx::query::<Db>(LOCK_WAIT).execute(&mut *transaction).await?;
    sqlx::query::<Db>("SELECT pg_advisory_xact_lock($1)")
        .bind(MAKERS)
        .execute(&mut *transaction)
        .await?;
    // What another has made meanwhile is there now.
    let partitions = list(&mut transaction).await?;
    let width = width(&partitions, now);
    let mut from = end(&partitions).max(now - now.rem_euclid(HOUR));
    let mut made = 0;
    while from < now + AHEAD {
        let to = from - from.rem_euclid(width) + width;
        if let Some(taken) = last_kept(&mut transaction, from, to).await? {
            // Its ids are in the default partition, and more of this time may come.
            let free = taken.max(now);
            from = free - free.rem_euclid(HOUR) + HOUR;
            continue;
        }
        make(&mut transaction, from, to).await?;
        (from, made) = (to, made + 1);
    }
    transaction.commit().await?;
    Ok(made)
}

/// The time of the last id of a range that is in the default partition.
async fn last_kept(connection: &mut Connection, from: i64, to: i64) -> sqlx::Result<Option<i64>> {
    let last = sqlx::query_scalar::<Db, Uuid>(
        "SELECT run_id FROM journal_kept WHERE run_id >= $1 AND run_id < $2 \
         ORDER BY run_id DESC LIMIT 1",
    )
    .bind(least(from))
    .bind(least(to))
    .fetch_optional(connection)
    .await?;
    Ok(last.map(millis))
}

/// By attaching, which commits and reads go on beside; named by what its ids begin with.
async fn make(connection: &mut Connection, from: i64, to: i64) -> sqlx::Result<()> {
    let name = format!("journal_{from:012x}");
    let (first, behind) = (least(from), least(to));
    for text in [
        format!("CREATE TABLE {name} (LIKE journal)"),
        format!(
            "ALTER TABLE journal ATTACH PARTITION {name} FOR VALUES FROM ('{first}') TO ('{behind}')"
        ),
    ] {
        sqlx::query::<Db>(AssertSqlSafe(text)).persistent(false).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Makes partitions ahead, and drops those that no run lies in any more. A few runs that outlive
/// those of their time are moved out of partitions that end before `passed`.
pub(super) async fn tend(
    connection: &mut Connection,
    now: Micros,
    passed: Micros,
) -> sqlx::Result<Tended> {
    let mut tended = Tended { made: prepare(&mut *connection, now).await?, ..Tended::default() };
    let ended = |partition: &&Partition| partition.to.is_some_and(|to| to <= now / 1000 - HOUR);
    let partitions = list(&mut *connection).await?;
    for partition in partitions.iter().filter(ended).take(DROPS_MAX) {
        let is_passed = partition.to.is_some_and(|to| to <= passed / 1000);
        let movable = if is_passed { STRAGGLERS_MAX } else { 0 };
        if !may_go(&mut *connection, partition, movable).await? {
            continue;
        }
        let mut transaction = connection.begin().await?;
        if let Some(moved) = let_go(&mut transaction, partition, movable).await? {
            transaction.commit().await?;
            tended.dropped += 1;
            tended.moved += moved;
        }
    }
    Ok(tended)
}

/// Whether no more than `movable` runs lie in a partition, with few rows.
async fn may_go(
    connection: &mut Connection,
    partition: &Partition,
    movable: i64,
) -> sqlx::Result<bool> {
    let left = runs_in(&mut *connection, partition, movable).await?;
    if left == 0 || left > movable {
        return Ok(left == 0);
    }
    let rows: i64 = sqlx::query_scalar::<Db, _>(AssertSqlSafe(format!(
        "SELECT count(*) FROM (SELECT 1 FROM {} WHERE run_id IN \
         (SELECT run_id FROM runs WHERE run_id >= $1 AND run_id < $2) LIMIT $3) AS found",
        partition.name
    )))
    .bind(partition.first())
    .bind(partition.behind())
    .bind(STRAGGLER_ROWS_MAX + 1)
    .persistent(false)
    .fetch_one(connection)
    .await?;
    Ok(rows <= STRAGGLER_ROWS_MAX)
}

/// How many runs lie in a partition; more than one above `enough` are not counted.
async fn runs_in(
    connection: &mut Connection,
    partition: &Partition,
    enough: i64,
) -> sqlx::Result<i64> {
    sqlx::query_scalar::<Db, _>(
        "SELECT count(*) FROM \
         (SELECT 1 FROM runs WHERE run_id >= $1 AND run_id < $2 LIMIT $3) AS found",
    )
    .bind(partition.first())
    .bind(partition.behind())
    .bind(enough + 1)
    .fetch_one(connection)
    .await
}

/// Takes the partition away under a lock that nobody writes beside, so that no run comes to lie
/// in it meanwhile; gives how many runs it moved, or nothing when there are more by now.
async fn let_go(
    connection: &mut Connection,
    partition: &Partition,
    movable: i64,
) -> sqlx::Result<Option<u64>> {
    sqlx::query::<Db>(LOCK_WAIT).execute(&mut *connection).await?;
    sqlx::query::<Db>("LOCK TABLE journal IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *connection)
        .await?;
    let left = runs_in(&mut *connection, partition, movable).await?;
    if left > movable {
        return Ok(None);
    }
    let name = &partition.name;
    let texts = [
        format!("ALTER TABLE journal DETACH PARTITION {name}"),
        format!(
            "INSERT INTO journal SELECT run_id, seq, at, kind, schema, body, blob FROM {name} \
             WHERE run_id IN (SELECT run_id FROM runs WHERE run_id >= '{}' AND run_id < '{}')",
            partition.first(),
            partition.behind()
        ),
        format!("DROP TABLE {name}"),
    ];
    for text in texts {
        sqlx::query::<Db>(AssertSqlSafe(text)).persistent(false).execute(&mut *connection).await?;
    }
    Ok(Some(left.unsigned_abs()))
}

impl Partition {
    fn first(&self) -> Uuid {
        self.from.map_or(Uuid::nil(), least)
    }

    fn behind(&self) -> Uuid {
        self.to.map_or(Uuid::max(), least)
    }
}

/// Makes one partition of all that a restored backup has put into the default one, which is to
/// hold little. Where there are others already, it stays there.
pub(super) async fn settle_restored(connection: &mut Connection) -> sqlx::Result<()> {
    let newest = sqlx::query_scalar::<Db, Uuid>(
        "SELECT run_id FROM journal_kept ORDER BY run_id DESC LIMIT 1",
    )
    .fetch_optional(&mut *connection)
    .await?;
    let Some(newest) = newest else { return Ok(()) };
    if !list(&mut *connection).await?.is_empty() {
        return Ok(());
    }
    let behind = least(millis(newest) + 1);
    for text in [
        "ALTER TABLE journal DETACH PARTITION journal_kept",
        "ALTER TABLE journal_kept RENAME TO journal_past",
        "ALTER INDEX journal_kept_pkey RENAME TO journal_past_pkey",
        "CREATE TABLE journal_kept PARTITION OF journal DEFAULT",
        &format!(
            "ALTER TABLE journal ATTACH PARTITION journal_past \
             FOR VALUES FROM (MINVALUE) TO ('{behind}')"
        ),
    ] {
        sqlx::query::<Db>(AssertSqlSafe(text.to_owned()))
            .persistent(false)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: i64 = 1024 * 1024 * 1024;

    fn partition(from: i64, to: i64, bytes: i64) -> Partition {
        Partition { name: String::new(), from: Some(from), to: Some(to), bytes }
    }

    #[test]
    fn ids_and_times_go_over_into_one_another() {
        let id = least(1_800_000_000_123);
        assert_eq!(millis(id), 1_800_000_000_123);
        assert!(least(1_800_000_000_122) < id && id < least(1_800_000_000_124));
        let run = engine::RunId::at_instant(engine::Instant(1_800_000_000_123_000), "x");
        assert!(id <= run.0 && run.0 < least(1_800_000_000_124));
    }

    #[test]
    fn the_more_comes_the_shorter_partitions_last() {
        let day = 24 * HOUR;
        assert_eq!(width(&[], day), day);
        assert_eq!(width(&[partition(0, day, GIB)], day), day);
        assert_eq!(width(&[partition(0, day, 10 * GIB)], day), 6 * HOUR);
        assert_eq!(width(&[partition(0, day, 90 * GIB)], day), HOUR);
        // By the one that is being filled, not by those made ahead.
        let now = day + 2 * HOUR;
        let filled = [partition(0, day, GIB), partition(day, 2 * day, 2 * GIB)];
        assert_eq!(width(&filled, now), HOUR);
        let ahead = [partition(0, day, 90 * GIB), partition(day, 2 * day, 0)];
        assert_eq!(width(&ahead, day + 60_000), HOUR);
        let many: Vec<_> = (0..PARTITIONS_MAX).map(|_| partition(0, day, 90 * GIB)).collect();
        assert_eq!(width(&many, day), day);
    }
}
