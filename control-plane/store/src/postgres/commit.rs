//! Group commit: one statement a batch. What the database refuses as a whole, because of one
//! transition in it, is tried again one by one, so that this one loses alone.

use std::collections::HashSet;

use engine::{ContentHash, RunId};
use sqlx::{Connection as _, Row as _};
use uuid::Uuid;

use super::shared::{hash, optional_run_id, put_blob};
use super::statement::prepare;
use super::{Connection, Database, Db};
use crate::batch::{Batch, Transition};
use crate::{Commit, Error, Outcome};

impl Database {
    /// No future of this is ever to be given up half-way by a time-out of ours: the statement goes
    /// on in the database.
    pub(super) async fn commit_batch(&self, commits: &[Commit]) -> Result<Vec<Outcome>, Error> {
        let mut batch = Batch::new(commits)?;
        if batch.transitions.is_empty() {
            return Ok(batch.into_outcomes());
        }
        let mut connection = self.committers.acquire().await.map_err(Error::before_write)?;
        match write(&mut connection, &mut batch).await {
            Ok(()) => Ok(batch.into_outcomes()),
            Err(Failure::Refused(refusal)) if batch.transitions.len() == 1 => {
                let place = batch.transitions[0].place;
                batch.settle(place, refusal.outcome()?);
                Ok(batch.into_outcomes())
            }
            Err(Failure::Refused(refusal)) => {
                tracing::debug!(code = refusal.code, "a batch is committed one by one");
                write_each(&mut connection, batch).await
            }
            Err(Failure::Error(error)) => Err(error),
        }
    }
}

enum Failure {
    /// The database took the statement back, because of what is in it or of who else wrote.
    Refused(Refusal),
    Error(Error),
}

struct Refusal {
    code: String,
    error: sqlx::Error,
}

impl Refusal {
    /// Whether it is a row's that `constraint` has already.
    fn is_of(&self, constraint: &str) -> bool {
        let error = self.error.as_database_error();
        error.and_then(|error| error.constraint()) == Some(constraint)
    }

    /// What it means when there was one transition alone.
    fn outcome(self) -> Result<Outcome, Error> {
        match self.code.as_str() {
            // The division by zero that stands for a new request of a run that lost.
            "22012" => Ok(Outcome::Conflict),
            // A number of the audit log is taken.
            "23505" if self.is_of("audit_pkey") => Ok(Outcome::Conflict),
            code if code.starts_with("40") => Err(Error::write(self.error)),
            _ => Ok(Outcome::Refused { reason: Error::write(self.error).to_string() }),
        }
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|error| error.code());
        let code = code.unwrap_or_default().into_owned();
        // A document written by two of the batch, data exception, constraint, transaction rolled
        // back.
        if ["21", "22", "23", "40"].iter().any(|class| code.starts_with(class)) {
            return Self::Refused(Refusal { code, error });
        }
        Self::Error(Error::write(error))
    }
}

/// Each by itself. Once one of them is written, an error leaves the batch's outcome unknown.
async fn write_each(
    connection: &mut Connection,
    mut batch: Batch<'_>,
) -> Result<Vec<Outcome>, Error> {
    let transitions = std::mem::take(&mut batch.transitions);
    let mut written = false;
    for transition in transitions {
        let mut single = Batch::new(std::slice::from_ref(transition.commit))?;
        let outcome = match write(connection, &mut single).await {
            Ok(()) => Ok(single.into_outcomes().remove(0)),
            Err(Failure::Refused(refusal)) => refusal.outcome(),
            Err(Failure::Error(error)) => Err(error),
        };
        let outcome = outcome.map_err(|error| match error {
            error if written => Error::Unknown(error.to_string()),
            error => error,
        })?;
        written |= outcome == Outcome::Committed;
        batch.settle(transition.place, outcome);
    }
    Ok(batch.into_outcomes())
}

/// Writes the batch. Blobs come first and within the same transaction, so that whoever collects
/// blobs sees them touched or waits.
async fn write(connection: &mut Connection, batch: &mut Batch<'_>) -> Result<(), Failure> {
    let has_blobs = batch.transitions.iter().any(|t| t.blobs().next().is_some());
    let ends_children = batch.transitions.iter().any(|t| t.parent_to_wake().is_some());
    let won = if has_blobs || ends_children {
        let mut transaction = connection.begin().await.map_err(before_write)?;
        let missing = touch_blobs(&mut transaction, batch).await?;
        if !missing.is_empty() {
            batch.refuse_missing(&missing);
        }
        let won = run_statement(&mut transaction, batch).await?;
        wake_parents(&mut transaction, batch, &won).await?;
        transaction.commit().await?;
        won
    } else {
        run_statement(connection, batch).await?
    };
    settle(connection, batch, &won).await.map_err(|error| {
        // The batch is written, only its losers' reasons are missing.
        Failure::Error(Error::Unknown(Error::read(error).to_string()))
    })
}

fn before_write(error: sqlx::Error) -> Failure {
    Failure::Error(Error::before_write(error))
}

async fn run_statement(
    connection: &mut Connection,
    batch: &Batch<'_>,
) -> Result<HashSet<RunId>, Failure> {
    if batch.transitions.is_empty() {
        return Ok(HashSet::new());
    }
    let prepared = prepare(&batch.transitions);
    let (text, arguments) = prepared.map_err(|error| before_write(sqlx::Error::Encode(error)))?;
    let row = sqlx::query_with::<Db, _>(text, arguments).fetch_one(connection).await?;
    let won: Option<Vec<Uuid>> = row.try_get(0)?;
    Ok(won.unwrap_or_default().into_iter().map(RunId).collect())
}

/// Has parked runs wake whose children have ended. A statement of its own: the one before may have
/// waited for whoever parked them, and sees no more than was there when it began. Locked in one
/// order by all, so that two batches never wait for one another.
async fn wake_parents(
    connection: &mut Connection,
    batch: &Batch<'_>,
    won: &HashSet<RunId>,
) -> Result<(), sqlx::Error> {
    let ended = batch.transitions.iter().filter(|t| won.contains(&t.commit.run));
    let (parents, times): (Vec<Uuid>, Vec<i64>) =
        ended.filter_map(Transition::parent_to_wake).map(|(run, at)| (run.0, at)).unzip();
    if parents.is_empty() {
        return Ok(());
    }
    sqlx::query::<Db>(
        "WITH due AS (SELECT run_id, min(wake_at) AS wake_at \
         FROM unnest($1::uuid[], $2::int8[]) AS u(run_id, wake_at) GROUP BY run_id), \
         held AS MATERIALIZED (SELECT run_id FROM parked WHERE run_id = ANY($1) \
         ORDER BY run_id FOR UPDATE) \
         UPDATE parked p SET wake_at = least(p.wake_at, due.wake_at) \
         FROM held JOIN due USING (run_id) WHERE p.run_id = held.run_id",
    )
    .bind(parents)
    .bind(times)
    .execute(connection)
    .await?;
    Ok(())
}

/// Stores the long bodies, touches what is referred to, and gives what of that is not there.
async fn touch_blobs(
    connection: &mut Connection,
    batch: &Batch<'_>,
) -> Result<HashSet<ContentHash>, sqlx::Error> {
    for (hash, (at, content)) in batch.contents() {
        put_blob(&mut *connection, hash, content, at).await?;
    }
    let mut missing = HashSet::new();
    for (hash, at) in batch.references() {
        let touched = sqlx::query::<Db>(
            "UPDATE blobs SET touched_at = GREATEST(touched_at, $2) WHERE hash = $1",
        )
        .bind(hash.0.as_slice())
        .bind(at)
        .execute(&mut *connection)
        .await?;
        if touched.rows_affected() == 0 {
            missing.insert(hash);
        }
    }
    Ok(missing)
}

/// Those in `won` are committed. A loser whose request is known lost to that.
async fn settle(
    connection: &mut Connection,
    batch: &mut Batch<'_>,
    won: &HashSet<RunId>,
) -> sqlx::Result<()> {
    for transition in std::mem::take(&mut batch.transitions) {
        if won.contains(&transition.commit.run) {
            batch.settle(transition.place, Outcome::Committed);
            continue;
        }
        let Some(request) = transition.request() else {
            continue;
        };
        let known = sqlx::query::<Db>(
            "SELECT run_id, body_hash FROM requests WHERE tenant = $1 AND request_id = $2",
        )
        .bind(request.tenant.as_str())
        .bind(request.request_id.as_str())
        .fetch_optional(&mut *connection)
        .await?;
        if let Some(row) = known {
            let outcome = Outcome::DuplicateRequest {
                run_id: optional_run_id(&row, 0)?,
                body_hash: hash(&row, 1)?,
            };
            batch.settle(transition.place, outcome);
        }
    }
    Ok(())
}
