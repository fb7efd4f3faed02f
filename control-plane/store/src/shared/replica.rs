//! Who shares the database: replicas, their epochs and their leases. A lease is a counter; no two
//! clocks are compared.

use sqlx::{Connection as _, Row as _};

use super::{BEAT, Connection, Db, Row};
use crate::{Heartbeat, Micros, NewReplica, OwnerId, ReplicaRow, ReplicaStatus};

macro_rules! replica_columns {
    () => {
        "id, epoch, address, version, kinds, lease, status, started_at, seen_at"
    };
}

fn replica_row(row: &Row) -> sqlx::Result<ReplicaRow> {
    let status: i16 = row.try_get(6)?;
    let wrong = || sqlx::Error::Decode(format!("{status} is no status of a replica").into());
    Ok(ReplicaRow {
        id: OwnerId(row.try_get(0)?),
        epoch: row.try_get(1)?,
        address: row.try_get(2)?,
        version: row.try_get(3)?,
        kinds: row.try_get(4)?,
        lease: row.try_get(5)?,
        status: ReplicaStatus::from_number(status).ok_or_else(wrong)?,
        started_at: row.try_get(7)?,
        seen_at: row.try_get(8)?,
    })
}

pub(super) async fn join(
    connection: &mut Connection,
    replica: &NewReplica,
    at: Micros,
) -> sqlx::Result<ReplicaRow> {
    let mut transaction = connection.begin().await?;
    let epoch: i64 = sqlx::query_scalar::<Db, _>(
        "UPDATE epochs SET last = CASE WHEN last >= $1 THEN last + 1 ELSE $1 END \
         WHERE one = 1 RETURNING last",
    )
    .bind(at)
    .fetch_one(&mut *transaction)
    .await?;
    let row = sqlx::query::<Db>(concat!(
        "INSERT INTO replicas (",
        replica_columns!(),
        ") VALUES ($1, $2, $3, $4, $5, 1, 1, $6, $6) RETURNING ",
        replica_columns!()
    ))
    .bind(replica.id.0)
    .bind(epoch)
    .bind(replica.address.as_str())
    .bind(replica.version.as_str())
    .bind(replica.kinds)
    .bind(at)
    .fetch_one(&mut *transaction)
    .await?;
    let joined = replica_row(&row)?;
    transaction.commit().await?;
    Ok(joined)
}

/// Where the database can, in one round trip: an idle replica asks little else.
pub(super) async fn heartbeat(
    connection: &mut Connection,
    id: OwnerId,
    status: ReplicaStatus,
    at: Micros,
) -> sqlx::Result<Heartbeat> {
    const SELECT: &str = concat!(
        "SELECT ",
        replica_columns!(),
        ", (SELECT min(wake_at) FROM parked WHERE wake_at IS NOT NULL) FROM replicas"
    );
    const UPDATE: &str = "UPDATE replicas SET lease = lease + 1, status = $2, seen_at = $3 \
         WHERE id = $1 AND status <> 3 RETURNING id";
    let (alive, rows) = if BEAT {
        let text = concat!(
            "WITH beat AS (UPDATE replicas SET lease = lease + 1, status = $2, seen_at = $3 \
             WHERE id = $1 AND status <> 3 RETURNING id) SELECT ",
            replica_columns!(),
            ", (SELECT min(wake_at) FROM parked WHERE wake_at IS NOT NULL), \
             (SELECT count(*) FROM beat) FROM replicas"
        );
        let rows = sqlx::query::<Db>(text)
            .bind(id.0)
            .bind(status.number())
            .bind(at)
            .fetch_all(connection)
            .await?;
        let beat = rows.first().map(|row| row.try_get::<i64, _>(10)).transpose()?;
        (beat == Some(1), rows)
    } else {
        let beat = sqlx::query::<Db>(UPDATE).bind(id.0).bind(status.number()).bind(at);
        let beat = beat.fetch_optional(&mut *connection).await?;
        (beat.is_some(), sqlx::query::<Db>(SELECT).fetch_all(connection).await?)
    };
    let next_wake = rows.first().map(|row| row.try_get(9)).transpose()?.flatten();
    let replicas = rows.iter().map(replica_row).collect::<sqlx::Result<_>>()?;
    Ok(Heartbeat { alive, replicas, next_wake })
}

pub(super) async fn fence(
    connection: &mut Connection,
    id: OwnerId,
    seen_lease: Option<i64>,
) -> sqlx::Result<bool> {
    let update = sqlx::query::<Db>(
        "UPDATE replicas SET status = 3 \
         WHERE id = $1 AND status <> 3 AND lease = COALESCE($2, lease)",
    );
    let done = update.bind(id.0).bind(seen_lease).execute(&mut *connection).await?;
    if done.rows_affected() == 1 {
        return Ok(true);
    }
    let live = sqlx::query::<Db>("SELECT 1 FROM replicas WHERE id = $1 AND status <> 3");
    Ok(live.bind(id.0).fetch_optional(connection).await?.is_none())
}

pub(super) async fn list(connection: &mut Connection) -> sqlx::Result<Vec<ReplicaRow>> {
    let rows =
        sqlx::query::<Db>(concat!("SELECT ", replica_columns!(), " FROM replicas ORDER BY epoch"))
            .fetch_all(connection)
            .await?;
    rows.iter().map(replica_row).collect()
}

pub(super) async fn remove(connection: &mut Connection, id: OwnerId) -> sqlx::Result<bool> {
    let done = sqlx::query::<Db>(
        "DELETE FROM replicas WHERE id = $1 AND status = 3 \
         AND NOT EXISTS (SELECT 1 FROM runs WHERE owner = $1 AND ended_at IS NULL)",
    )
    .bind(id.0)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}
