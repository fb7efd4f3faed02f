//! The journal's partitions on PostgreSQL: how they come and go, while runs are written and read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::{Connection as _, PgConnection};
use store::{NewReplica, Outcome, Tended};

use crate::retention::delete;
use crate::support::{NOW, SECOND, World, ended, execute, next, owner, run, start};

const HOUR: i64 = 3600 * SECOND;
/// So many numbers of runs are an hour.
const AN_HOUR: u64 = 3_600_000;

async fn ask(world: &World, sql: &'static str) -> i64 {
    let mut connection = PgConnection::connect(world.database.url()).await.unwrap();
    let number = sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    number
}

/// How many partitions there are, the default one aside.
async fn partitions(world: &World) -> i64 {
    ask(world, "SELECT count(*) - 1 FROM pg_inherits WHERE inhparent = 'journal'::regclass").await
}

async fn kept_rows(world: &World) -> i64 {
    ask(world, "SELECT count(*) FROM journal_kept").await
}

/// With partitions for what begins from [`NOW`] on.
async fn world() -> World {
    let world = World::new(store::testing::postgres().await).await;
    let replica =
        NewReplica { id: owner(1), address: String::new(), version: "1".to_owned(), kinds: 1 };
    world.store.join(&replica, NOW).await.unwrap();
    world
}

#[tokio::test]
async fn partitions_are_made_ahead_and_runs_lie_in_them() {
    let world = world().await;
    assert_eq!(partitions(&world).await, 1, "until midnight, 16 hours ahead");
    world.win(start(1, 3)).await;
    assert_eq!(kept_rows(&world).await, 0);
    assert_eq!(world.store.tend_journal(NOW, NOW).await.unwrap(), Tended::default());
    let made = world.store.tend_journal(NOW + 11 * HOUR, NOW).await.unwrap();
    assert_eq!(made, Tended { made: 1, ..Tended::default() });
    world.win(start(20 * AN_HOUR, 1)).await;
    assert_eq!(kept_rows(&world).await, 0);
    // A time that nobody thought of.
    world.win(start(1000 * AN_HOUR, 2)).await;
    assert_eq!(kept_rows(&world).await, 2);
    let (_, events) = world.store.fold(run(1000 * AN_HOUR)).await.unwrap().unwrap();
    assert_eq!(events.len(), 2);
}

#[tokio::test]
async fn a_partition_goes_with_its_last_run() {
    let world = world().await;
    for number in 1..=3 {
        world.win(ended(start(number, 2), NOW + number as i64)).await;
    }
    let later = NOW + 40 * HOUR;
    assert_eq!(delete(&world, NOW + 3).await, 2);
    assert_eq!(world.store.journal(run(1), 0, 9).await.unwrap(), []);
    let tended = world.store.tend_journal(later, NOW).await.unwrap();
    assert_eq!((tended.dropped, tended.moved), (0, 0), "one run is left, its time has not passed");
    assert_eq!(delete(&world, NOW + 4).await, 1);
    assert_eq!(ask(&world, "SELECT count(*) FROM journal").await, 6, "it goes as a whole");
    let tended = world.store.tend_journal(later, NOW).await.unwrap();
    assert_eq!((tended.dropped, tended.moved), (1, 0));
    assert_eq!(ask(&world, "SELECT count(*) FROM journal").await, 0);
}

#[tokio::test]
async fn a_straggler_is_moved_and_goes_on() {
    let world = world().await;
    let first = world.win(start(1, 2)).await;
    world.win(ended(start(2, 2), NOW)).await;
    assert_eq!(delete(&world, NOW + 1).await, 1);
    let later = NOW + 40 * HOUR;
    let tended = world.store.tend_journal(later, later - HOUR).await.unwrap();
    assert_eq!((tended.dropped, tended.moved), (1, 1));
    assert_eq!(kept_rows(&world).await, 2);
    assert_eq!(world.store.fold(run(1)).await.unwrap().unwrap().1, first.events);
    let second = world.win(next(&first, 1)).await;
    world.win(ended(next(&second, 1), later)).await;
    assert_eq!(world.store.journal(run(1), 0, 9).await.unwrap().len(), 4);
    assert_eq!(delete(&world, later + 1).await, 1);
    assert_eq!(kept_rows(&world).await, 0, "out of no partition it goes by itself");
}

#[tokio::test]
async fn a_partition_with_many_runs_stays() {
    let world = world().await;
    for hundred in 0..11 {
        let batch: Vec<_> = (1..=100).map(|n| start(hundred * 100 + n, 1)).collect();
        world.store.commit(&batch).await.unwrap();
    }
    let later = NOW + 40 * HOUR;
    let tended = world.store.tend_journal(later, later).await.unwrap();
    assert_eq!((tended.dropped, tended.moved), (0, 0));
    let ends: Vec<_> = (1..=100).map(|n| ended(next(&start(n, 1), 1), NOW)).collect();
    assert_eq!(world.store.commit(&ends).await.unwrap(), vec![Outcome::Committed; 100]);
    assert_eq!(delete(&world, NOW + 1).await, 100);
    let tended = world.store.tend_journal(later, later).await.unwrap();
    assert_eq!((tended.dropped, tended.moved), (1, 1000));
    assert_eq!(world.store.fold(run(1100)).await.unwrap().unwrap().1.len(), 1);
}

/// So that no run's journal is split between two of them.
#[tokio::test]
async fn no_partition_is_made_over_what_was_written_without() {
    let world = World::new(store::testing::postgres().await).await;
    let first = world.win(start(1, 1)).await;
    assert_eq!(kept_rows(&world).await, 1);
    let tended = world.store.tend_journal(NOW, NOW).await.unwrap();
    assert_eq!(tended.made, 1);
    world.win(next(&first, 1)).await;
    assert_eq!(kept_rows(&world).await, 2);
    world.win(start(AN_HOUR - 1, 1)).await;
    assert_eq!(kept_rows(&world).await, 3, "the hour that has begun has none");
    world.win(start(AN_HOUR, 1)).await;
    assert_eq!(kept_rows(&world).await, 3);
    assert_eq!(world.store.fold(run(1)).await.unwrap().unwrap().1.len(), 2);
}

#[tokio::test]
async fn a_long_look_at_the_journal_keeps_nobody_waiting() {
    let world = world().await;
    let mut other = PgConnection::connect(world.database.url()).await.unwrap();
    let mut looking = other.begin().await.unwrap();
    sqlx::query("LOCK TABLE journal IN ACCESS SHARE MODE").execute(&mut *looking).await.unwrap();
    let later = NOW + 40 * HOUR;
    assert!(world.store.tend_journal(later, later).await.is_err());
    world.win(start(1, 1)).await;
    looking.rollback().await.unwrap();
    let tended = world.store.tend_journal(later, later).await.unwrap();
    assert_eq!((tended.dropped, tended.moved), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_are_written_while_partitions_come_and_go() {
    let world = world().await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (store, stop) = (world.store.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            // Some of each of 40 hours.
            let number = |n: u64| (n % 40) * AN_HOUR + n;
            let mut commits: Vec<_> = (1..=200).map(|n| start(number(n), 1)).collect();
            while !stop.load(Ordering::SeqCst) {
                let outcomes = store.commit(&commits).await.unwrap();
                assert_eq!(outcomes, vec![Outcome::Committed; 200]);
                commits = commits.iter().map(|commit| next(commit, 1)).collect();
            }
            commits
        })
    };
    let mut dropped = 0;
    for hour in 0..60 {
        let now = NOW + hour * HOUR;
        // A lock that cannot be had in time is no failure.
        let tended = world.store.tend_journal(now, now - HOUR).await.unwrap_or_default();
        dropped += tended.dropped;
    }
    stop.store(true, Ordering::SeqCst);
    for commit in writer.await.unwrap() {
        let (row, events) = world.store.fold(commit.run).await.unwrap().unwrap();
        assert_eq!((row.version, events.len() as i64), (commit.expected_version, row.version));
    }
    assert!(dropped > 0);
}

/// Two who start at once make the same partitions once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_who_make_partitions_at_once_make_them_once() {
    let world = World::new(store::testing::postgres().await).await;
    let tend = || {
        let store = world.store.clone();
        tokio::spawn(async move { store.tend_journal(NOW, NOW).await.unwrap().made })
    };
    let both = [tend(), tend()];
    let mut made = 0;
    for one in both {
        made += one.await.unwrap();
    }
    assert_eq!((made, partitions(&world).await), (1, 1));
}

#[tokio::test]
async fn a_restored_journal_is_a_partition_of_its_own() {
    let world = world().await;
    world.win(start(1, 2)).await;
    world.win(ended(start(2, 2), NOW)).await;
    assert_eq!(delete(&world, NOW + 1).await, 1);
    let mut bytes = Vec::new();
    let made = store::backup::backup(world.database.url(), &mut bytes).await.unwrap();
    assert_eq!(made.rows_of("journal"), 2, "what is nobody's is left out");
    let to = store::testing::postgres().await;
    store::backup::restore(to.url(), &*bytes).await.unwrap();
    let restored = World::new(to).await;
    assert_eq!((partitions(&restored).await, kept_rows(&restored).await), (1, 0));
    assert_eq!(restored.store.tend_journal(NOW, NOW).await.unwrap().made, 1);
    let there = restored.store.fold(run(1)).await.unwrap().unwrap();
    assert_eq!(there, world.store.fold(run(1)).await.unwrap().unwrap());
}

#[tokio::test]
async fn what_was_there_before_partitions_is_one_of_them() {
    let database = store::testing::postgres().await;
    let before = store::testing::open_as(database.url(), 2).await.unwrap();
    let first = start(1, 2);
    before.commit(std::slice::from_ref(&first)).await.unwrap();
    before.commit(&[ended(start(2, 2), NOW)]).await.unwrap();
    // The release before goes on while the new one begins.
    let world = World::new(database).await;
    assert_eq!((partitions(&world).await, kept_rows(&world).await), (1, 0));
    let second = next(&first, 1);
    let outcomes = before.commit(std::slice::from_ref(&second)).await.unwrap();
    assert_eq!(outcomes, [Outcome::Committed]);
    before.close().await;
    let third = world.win(next(&second, 1)).await;
    let (_, events) = world.store.fold(run(1)).await.unwrap().unwrap();
    assert_eq!(events, [first.events, second.events, third.events.clone()].concat());
    world.win(start(3, 1)).await;
    world.win(ended(next(&third, 1), NOW)).await;
    assert_eq!(delete(&world, NOW + 1).await, 2);
    let later = NOW + 40 * HOUR;
    let tended = world.store.tend_journal(later, later).await.unwrap();
    assert_eq!(tended, Tended { made: 1, dropped: 1, moved: 0 });
    assert_eq!(world.store.fold(run(3)).await.unwrap().unwrap().1.len(), 1);
}

/// The text that commits were made with before there were partitions.
#[tokio::test]
async fn statements_of_the_release_before_work_on_partitions() {
    let world = world().await;
    execute(world.database.url(), include_str!("../released/0002_commit.sql")).await;
    let run = "0187c0de-0000-7000-8000-000000000001".parse().unwrap();
    let (row, events) = world.store.fold(run).await.unwrap().unwrap();
    assert_eq!((row.version, events.len()), (2, 2));
}
