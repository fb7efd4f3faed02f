//! Rows of keys that span runs. What is in them is the caller's.

use sqlx::{Connection as _, QueryBuilder, Row as _};

use super::{Connection, Db, Row, page, push_among_texts};
use crate::{KeyChange, KeyRow};

fn key_row(row: &Row) -> sqlx::Result<KeyRow> {
    Ok(KeyRow {
        kind: row.try_get(0)?,
        key: row.try_get(1)?,
        version: row.try_get(2)?,
        body: row.try_get(3)?,
    })
}

pub(super) async fn find(
    connection: &mut Connection,
    kind: i16,
    keys: &[&str],
) -> sqlx::Result<Vec<KeyRow>> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let mut query =
        QueryBuilder::<Db>::new("SELECT kind, key, version, body FROM keys WHERE kind = ");
    query.push_bind(kind).push(" AND key");
    push_among_texts(&mut query, keys);
    let rows = query.build().fetch_all(connection).await?;
    rows.iter().map(key_row).collect()
}

pub(super) async fn list(
    connection: &mut Connection,
    after: Option<(i16, &str)>,
    limit: u32,
) -> sqlx::Result<Vec<KeyRow>> {
    let (kind, key) = after.unwrap_or((i16::MIN, ""));
    let rows = sqlx::query::<Db>(
        "SELECT kind, key, version, body FROM keys WHERE (kind, key) > ($1, $2) \
         ORDER BY kind, key LIMIT $3",
    )
    .bind(kind)
    .bind(key)
    .bind(page(limit))
    .fetch_all(connection)
    .await?;
    rows.iter().map(key_row).collect()
}

/// In one order for all, so that two replicas never wait for one another.
pub(super) async fn put(
    connection: &mut Connection,
    changes: &[KeyChange],
) -> sqlx::Result<Vec<bool>> {
    let mut order: Vec<usize> = (0..changes.len()).collect();
    order.sort_by_key(|&place| (changes[place].kind, &changes[place].key));
    let mut won = vec![false; changes.len()];
    let mut transaction = connection.begin().await?;
    for place in order {
        won[place] = change(&mut transaction, &changes[place]).await?;
    }
    transaction.commit().await?;
    Ok(won)
}

async fn change(connection: &mut Connection, change: &KeyChange) -> sqlx::Result<bool> {
    let KeyChange { kind, key, expected_version, version, body } = change;
    let query = match (body, expected_version) {
        (Some(body), 0) => sqlx::query::<Db>(
            "INSERT INTO keys (kind, key, version, body) VALUES ($1, $2, $3, $4) \
             ON CONFLICT DO NOTHING",
        )
        .bind(kind)
        .bind(key.as_str())
        .bind(version)
        .bind(body.as_slice()),
        (Some(body), _) => sqlx::query::<Db>(
            "UPDATE keys SET version = $5, body = $4 \
             WHERE kind = $1 AND key = $2 AND version = $3",
        )
        .bind(kind)
        .bind(key.as_str())
        .bind(expected_version)
        .bind(body.as_slice())
        .bind(version),
        // What is not there need not be removed.
        (None, 0) => return Ok(true),
        (None, _) => {
            sqlx::query::<Db>("DELETE FROM keys WHERE kind = $1 AND key = $2 AND version = $3")
                .bind(kind)
                .bind(key.as_str())
                .bind(expected_version)
        }
    };
    Ok(query.execute(connection).await?.rows_affected() == 1)
}
