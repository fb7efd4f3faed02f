//! How far each schedule has come.

use sqlx::{QueryBuilder, Row as _};

use super::{Connection, Db, Row, optional_owner, page};
use crate::{Micros, OwnerId, ScheduleId, ScheduleRow};

macro_rules! schedule_columns {
    () => {
        "tenant, workflow, schedule, spec, version, last_instant, owner"
    };
}

fn schedule_row(row: &Row) -> sqlx::Result<ScheduleRow> {
    Ok(ScheduleRow {
        id: ScheduleId {
            tenant: row.try_get(0)?,
            workflow: row.try_get(1)?,
            schedule: row.try_get(2)?,
        },
        spec: row.try_get(3)?,
        version: row.try_get(4)?,
        last_instant: row.try_get(5)?,
        owner: optional_owner(row, 6)?,
    })
}

pub(super) async fn put(
    connection: &mut Connection,
    id: &ScheduleId,
    spec: &[u8],
) -> sqlx::Result<ScheduleRow> {
    let row = sqlx::query::<Db>(concat!(
        "INSERT INTO schedules (tenant, workflow, schedule, spec, version) \
         VALUES ($1, $2, $3, $4, 1) \
         ON CONFLICT (tenant, workflow, schedule) DO UPDATE SET spec = excluded.spec, \
         version = schedules.version \
             + CASE WHEN schedules.spec = excluded.spec THEN 0 ELSE 1 END \
         RETURNING ",
        schedule_columns!()
    ))
    .bind(id.tenant.as_str())
    .bind(id.workflow.as_str())
    .bind(id.schedule.as_str())
    .bind(spec)
    .fetch_one(connection)
    .await?;
    schedule_row(&row)
}

pub(super) async fn list(
    connection: &mut Connection,
    after: Option<&ScheduleId>,
    limit: u32,
) -> sqlx::Result<Vec<ScheduleRow>> {
    let start = concat!("SELECT ", schedule_columns!(), " FROM schedules");
    let mut query = QueryBuilder::<Db>::new(start);
    if let Some(after) = after {
        query.push(" WHERE (tenant, workflow, schedule) > (");
        query.push_bind(after.tenant.clone()).push(", ");
        query.push_bind(after.workflow.clone()).push(", ");
        query.push_bind(after.schedule.clone()).push(")");
    }
    query.push(" ORDER BY tenant, workflow, schedule LIMIT ").push_bind(page(limit));
    let rows = query.build().fetch_all(connection).await?;
    rows.iter().map(schedule_row).collect()
}

pub(super) async fn advance(
    connection: &mut Connection,
    id: &ScheduleId,
    expected_version: i64,
    instant: Micros,
    owner: OwnerId,
) -> sqlx::Result<bool> {
    let done = sqlx::query::<Db>(
        "UPDATE schedules SET version = version + 1, last_instant = $5, owner = $6 \
         WHERE tenant = $1 AND workflow = $2 AND schedule = $3 AND version = $4",
    )
    .bind(id.tenant.as_str())
    .bind(id.workflow.as_str())
    .bind(id.schedule.as_str())
    .bind(expected_version)
    .bind(instant)
    .bind(owner.0)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn delete(connection: &mut Connection, id: &ScheduleId) -> sqlx::Result<bool> {
    let done = sqlx::query::<Db>(
        "DELETE FROM schedules WHERE tenant = $1 AND workflow = $2 AND schedule = $3",
    )
    .bind(id.tenant.as_str())
    .bind(id.workflow.as_str())
    .bind(id.schedule.as_str())
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}
