//! What only a database with many sessions can do: lose one of them, and let one wait for another.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection, Row as _};
use store::{Error, Outcome};

use crate::support::{NOW, World, next, owner, run, start};

const DEADLINE: Duration = Duration::from_secs(20);

/// The session that waits for a lock, once there is one. A transaction would look at the same
/// snapshot of activities again and again: hence a session of its own.
async fn waiting_session(world: &World) -> i32 {
    let mut connection = PgConnection::connect(world.database.url()).await.unwrap();
    let find = async {
        loop {
            let row = sqlx::query(
                "SELECT pid FROM pg_stat_activity \
                 WHERE datname = current_database() AND wait_event_type = 'Lock'",
            )
            .fetch_optional(&mut connection)
            .await
            .unwrap();
            if let Some(row) = row {
                return row.get(0);
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, find).await.expect("a session waits for a lock")
}

async fn world() -> World {
    World::new(store::testing::postgres().await).await
}

#[tokio::test]
async fn a_session_that_is_ended_in_a_commit_leaves_the_outcome_unknown() {
    let world = world().await;
    let first = world.win(start(1, 1)).await;
    let mut other = PgConnection::connect(world.database.url()).await.unwrap();
    let mut locking = other.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM runs FOR UPDATE").execute(&mut *locking).await.unwrap();
    let (store, batch) = (world.store.clone(), [next(&first, 1)]);
    let committing = tokio::spawn(async move { store.commit(&batch).await });
    let session = waiting_session(&world).await;
    let end = sqlx::query("SELECT pg_terminate_backend($1)").bind(session);
    end.execute(&mut *locking).await.unwrap();
    let lost = committing.await.unwrap().unwrap_err();
    assert!(matches!(lost, Error::Unknown(_)), "{lost}");
    locking.rollback().await.unwrap();
    let row = world.store.adopt(run(1), owner(1), NOW).await.unwrap().unwrap();
    assert_eq!(row, first.row);
    assert_eq!(world.commit(next(&first, 1)).await, Outcome::Committed);
}

#[tokio::test]
async fn adoption_waits_for_an_insert_in_flight() {
    let world = world().await;
    let mut other = PgConnection::connect(world.database.url()).await.unwrap();
    for (number, written) in [(1, true), (2, false)] {
        let mut inserting = other.begin().await.unwrap();
        sqlx::query(
            "INSERT INTO runs (run_id, tenant, workflow, version_name, definition_hash, status, \
             version, created_at, priority, labels, summary) \
             VALUES ($1, '', '', '', decode(repeat('00', 32), 'hex'), 0, 1, 0, 0, '', '')",
        )
        .bind(run(number).0)
        .execute(&mut *inserting)
        .await
        .unwrap();
        let store = world.store.clone();
        let adopting =
            tokio::spawn(async move { store.adopt(run(number), owner(2), NOW).await.unwrap() });
        waiting_session(&world).await;
        if written {
            inserting.commit().await.unwrap();
        } else {
            inserting.rollback().await.unwrap();
        }
        let adopted = adopting.await.unwrap();
        assert_eq!(adopted.is_some(), written);
        assert!(adopted.is_none_or(|row| row.owner == Some(owner(2))));
    }
}

/// However small the tables were when the statement was planned.
#[tokio::test]
async fn the_commit_looks_runs_up_by_their_key() {
    let world = world().await;
    let starts: Vec<_> = (1..=500).map(|number| start(number, 1)).collect();
    let mut batch = starts.clone();
    world.store.commit(&starts).await.unwrap();
    for _ in 0..20 {
        batch = batch.iter().map(|commit| next(commit, 1)).collect();
        assert_eq!(world.store.commit(&batch).await.unwrap(), vec![Outcome::Committed; 500]);
    }
    // Sessions hand their statistics in when they end.
    world.store.close().await;
    let mut other = PgConnection::connect(world.database.url()).await.unwrap();
    let row = sqlx::query(
        "SELECT seq_scan, seq_tup_read FROM pg_stat_user_tables WHERE relname = 'runs'",
    )
    .fetch_one(&mut other)
    .await
    .unwrap();
    let read: i64 = row.get(1);
    assert!(read < 500, "{read} rows of runs were read by scans");
}
