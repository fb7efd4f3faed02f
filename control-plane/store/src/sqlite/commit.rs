//! Group commit: within one transaction, one call finds the losers, another writes the rest and
//! commits. There is one writer, so what the first has found still holds in the second.

use std::collections::{HashMap, HashSet};

use engine::{ContentHash, RunId};
use sqlx::{AssertSqlSafe, Row as _};

use super::shared::{hash, optional_run_id, put_blob};
use super::writer::Writer;
use super::{Connection, Database, Db, Row, statement};
use crate::batch::{Batch, Transition};
use crate::{Commit, Error, Outcome};

impl Database {
    /// Dropped half-way, it leaves a transaction open, which the next writer rolls back.
    pub(super) async fn commit_batch(&self, commits: &[Commit]) -> Result<Vec<Outcome>, Error> {
        let mut batch = Batch::new(commits)?;
        if batch.transitions.is_empty() {
            return Ok(batch.into_outcomes());
        }
        let mut writer = self.writer().await?;
        match write(&mut writer, &mut batch).await {
            Ok(()) => Ok(batch.into_outcomes()),
            Err(error) if is_refusal(&error) => {
                tracing::debug!(%error, "a batch is committed one by one");
                write_each(&mut writer, commits).await
            }
            Err(error) => Err(Error::write(error)),
        }
    }
}

/// Whether the database refuses what is in the batch: CONSTRAINT, TOOBIG.
fn is_refusal(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    let code = code.and_then(|code| code.parse::<i32>().ok()).unwrap_or(0);
    matches!(code & 0xff, 19 | 18)
}

/// Whether a number of the audit log is there already.
fn is_taken_number(error: &sqlx::Error) -> bool {
    let error = error.as_database_error();
    error.is_some_and(|error| {
        error.is_unique_violation() && error.message().contains("audit.number")
    })
}

/// Each by itself. Once one of them is written, an error leaves the batch's outcome unknown.
async fn write_each(writer: &mut Writer<'_>, commits: &[Commit]) -> Result<Vec<Outcome>, Error> {
    let whole = Batch::new(commits)?;
    let places: Vec<usize> = whole.transitions.iter().map(|t| t.place).collect();
    let mut outcomes = whole.into_outcomes();
    let mut written = false;
    for place in places {
        let mut single = Batch::new(std::slice::from_ref(&commits[place]))?;
        outcomes[place] = match write(writer, &mut single).await {
            Ok(()) => single.into_outcomes().remove(0),
            Err(error) if is_taken_number(&error) => Outcome::Conflict,
            Err(error) if is_refusal(&error) => {
                Outcome::Refused { reason: Error::write(error).to_string() }
            }
            Err(error) if written => return Err(Error::Unknown(error.to_string())),
            Err(error) => return Err(Error::write(error)),
        };
        written |= outcomes[place] == Outcome::Committed;
    }
    Ok(outcomes)
}

async fn write(writer: &mut Writer<'_>, batch: &mut Batch<'_>) -> sqlx::Result<()> {
    writer.begun();
    match write_all(writer, batch).await {
        Ok(()) => {
            writer.ended();
            Ok(())
        }
        Err(error) => {
            if let Err(error) = writer.roll_back().await {
                tracing::warn!(%error, "a transaction could not be rolled back");
            }
            Err(error)
        }
    }
}

/// In one go as a rule: each call wakes the writer's thread and waits for it.
async fn write_all(connection: &mut Writer<'_>, batch: &mut Batch<'_>) -> sqlx::Result<()> {
    if is_plain(batch) {
        match write_whole(connection, batch).await {
            Ok(()) => return Ok(()),
            // Which of them lose is to be found out.
            Err(error) if is_loss(&error) => {
                sqlx::query("ROLLBACK").execute(&mut **connection).await?;
            }
            Err(error) => return Err(error),
        }
    }
    write_winners(connection, batch).await
}

/// Whether nothing but runs and what hangs on them is written.
fn is_plain(batch: &Batch<'_>) -> bool {
    let plain = |transition: &Transition<'_>| {
        transition.request().is_none() && transition.blobs().next().is_none()
    };
    batch.transitions.iter().all(plain)
}

/// Whether this is the failure that stands for a transition which loses.
fn is_loss(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.message().contains("integer overflow"))
}

async fn write_whole(connection: &mut Connection, batch: &mut Batch<'_>) -> sqlx::Result<()> {
    let (text, arguments) = statement::whole(&batch.transitions).map_err(sqlx::Error::Encode)?;
    sqlx::query_with::<Db, _>(AssertSqlSafe(text), arguments).execute(connection).await?;
    settle_all(batch);
    Ok(())
}

fn settle_all(batch: &mut Batch<'_>) {
    for transition in std::mem::take(&mut batch.transitions) {
        batch.settle(transition.place, Outcome::Committed);
    }
}

async fn write_winners(connection: &mut Connection, batch: &mut Batch<'_>) -> sqlx::Result<()> {
    let (text, arguments) = statement::losers(&batch.transitions).map_err(sqlx::Error::Encode)?;
    let rows = sqlx::query_with::<Db, _>(AssertSqlSafe(text), arguments)
        .fetch_all(&mut *connection)
        .await?;
    drop_losers(batch, &rows)?;
    drop_repeated_requests(batch);
    store_blobs(&mut *connection, batch).await?;
    // Blobs that are stored although their run lost are collected in time.
    let written = if batch.transitions.is_empty() {
        sqlx::query("COMMIT").execute(connection).await
    } else {
        let prepared = statement::write(&batch.transitions);
        let (text, arguments) = prepared.map_err(sqlx::Error::Encode)?;
        sqlx::query_with::<Db, _>(AssertSqlSafe(text), arguments).execute(connection).await
    };
    written?;
    settle_all(batch);
    Ok(())
}

/// A request that is known weighs more than a conflict, for it says what became of it.
fn drop_losers(batch: &mut Batch<'_>, rows: &[Row]) -> sqlx::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut losers = HashMap::new();
    for row in rows {
        let place: i64 = row.try_get(0)?;
        if row.len() == 1 {
            losers.entry(place).or_insert(Outcome::Conflict);
            continue;
        }
        let outcome = Outcome::DuplicateRequest {
            run_id: optional_run_id(row, 1)?,
            body_hash: hash(row, 2)?,
        };
        losers.insert(place, outcome);
    }
    batch.drop(|transition| losers.remove(&(transition.place as i64)));
    Ok(())
}

/// Of two transitions in the batch with the same request the first goes on.
fn drop_repeated_requests(batch: &mut Batch<'_>) {
    let mut known: HashMap<(String, String), (RunId, ContentHash)> = HashMap::new();
    batch.drop(|transition| {
        let request = transition.request()?;
        let key = (request.tenant.clone(), request.request_id.clone());
        if let Some((run, body_hash)) = known.get(&key) {
            let (run_id, body_hash) = (Some(*run), *body_hash);
            return Some(Outcome::DuplicateRequest { run_id, body_hash });
        }
        known.insert(key, (transition.commit.run, request.body_hash));
        None
    });
}

/// Stores the long bodies and touches what is referred to; what is not there is refused.
async fn store_blobs(connection: &mut Connection, batch: &mut Batch<'_>) -> sqlx::Result<()> {
    for (hash, (at, content)) in batch.contents() {
        put_blob(&mut *connection, hash, content, at).await?;
    }
    let mut missing = HashSet::new();
    for (hash, at) in batch.references() {
        let touched =
            sqlx::query("UPDATE blobs SET touched_at = max(touched_at, $2) WHERE hash = $1")
                .bind(hash.0.as_slice())
                .bind(at)
                .execute(&mut *connection)
                .await?;
        if touched.rows_affected() == 0 {
            missing.insert(hash);
        }
    }
    if !missing.is_empty() {
        batch.refuse_missing(&missing);
    }
    Ok(())
}
