//! Runs that are removed in the end.

use engine::RunId;
use store::{Cursor, Deleted, RunFilter};
use uuid::Uuid;

use crate::support::{NOW, World, dead_letter, ended, next, run, start};

async fn kept(world: &World) -> Vec<u64> {
    let rows = world.store.runs(&RunFilter::default(), None, true, 1000).await.unwrap();
    (1..=500).filter(|n| rows.iter().any(|row| row.run_id == run(*n))).collect()
}

/// The place before everything that ended then.
pub(crate) fn at(at: i64) -> Cursor<RunId> {
    Cursor { at, id: RunId(Uuid::nil()) }
}

/// Removes what ended before `before`.
pub(crate) async fn delete(world: &World, before: i64) -> u64 {
    world.store.delete_finished(at(before), None, 1000).await.unwrap().runs
}

pub(crate) async fn runs_that_ended_long_ago_are_deleted(world: World) {
    for number in 1..=4 {
        let mut commit = ended(start(number, 3), NOW + number as i64);
        commit.dead_letters = vec![dead_letter(&commit, &number.to_string(), NOW)];
        world.win(commit).await;
    }
    world.win(start(5, 1)).await;
    // A run that goes on after its end is not finished any more.
    let mut resumed = next(&start(1, 3), 1);
    resumed.row.ended_at = None;
    world.win(resumed).await;
    assert_eq!(delete(&world, NOW + 4).await, 2);
    assert_eq!(kept(&world).await, [1, 4, 5]);
    assert_eq!(world.store.journal(run(2), 0, 10).await.unwrap(), []);
    assert_eq!(world.store.dead_letter("2").await.unwrap(), None);
    assert!(world.store.dead_letter("4").await.unwrap().is_some());
    assert_eq!(world.store.journal(run(4), 0, 10).await.unwrap().len(), 3);
    assert_eq!(delete(&world, NOW + 4).await, 0);
    assert_eq!(world.commit(next(&start(2, 3), 1)).await, store::Outcome::Conflict);
}

pub(crate) async fn the_newest_are_kept_in_bounded_batches(world: World) {
    let batch: Vec<_> = (1..=300).map(|n| ended(start(n, 1), NOW + n as i64)).collect();
    world.store.commit(&batch).await.unwrap();
    world.win(start(301, 1)).await;
    assert_eq!(world.store.oldest_kept(301).await.unwrap(), None);
    let first = world.store.oldest_kept(300).await.unwrap();
    assert_eq!(first, Some(Cursor { at: NOW + 1, id: run(1) }));
    let oldest = world.store.oldest_kept(10).await.unwrap().unwrap();
    assert_eq!(oldest, Cursor { at: NOW + 291, id: run(291) });
    let some = world.store.delete_finished(oldest, None, 7).await.unwrap();
    assert_eq!(some, Deleted { runs: 7, next: Some(Cursor { at: NOW + 7, id: run(7) }) });
    assert_eq!(kept(&world).await[0], 8);
    let rest = world.store.delete_finished(oldest, some.next, 1000).await.unwrap();
    assert_eq!(rest, Deleted { runs: 283, next: None });
    assert_eq!(kept(&world).await, (291..=301).collect::<Vec<_>>());
    assert_eq!(world.store.oldest_kept(10).await.unwrap(), Some(oldest));
    let none = world.store.oldest_kept(0).await.unwrap().unwrap();
    assert_eq!(world.store.delete_finished(none, None, 1000).await.unwrap().runs, 10);
    assert_eq!(kept(&world).await, [301]);
}

pub(crate) async fn a_child_stays_as_long_as_its_parent(world: World) {
    let root = world.win(start(1, 1)).await;
    for (child, parent) in [(2, 1), (3, 2)] {
        let mut commit = ended(start(child, 1), NOW + child as i64);
        commit.row.parent = Some(run(parent));
        world.win(commit).await;
    }
    world.win(ended(start(4, 1), NOW + 4)).await;
    // What stays keeps nothing from what is behind it.
    let first = world.store.delete_finished(at(NOW + 99), None, 2).await.unwrap();
    assert_eq!(first, Deleted { runs: 0, next: Some(Cursor { at: NOW + 3, id: run(3) }) });
    let rest = world.store.delete_finished(at(NOW + 99), first.next, 2).await.unwrap();
    assert_eq!(rest, Deleted { runs: 1, next: None });
    assert_eq!(kept(&world).await, [1, 2, 3]);
    world.win(ended(next(&root, 1), NOW + 5)).await;
    for left in [&[2, 3][..], &[3], &[]] {
        assert_eq!(delete(&world, NOW + 99).await, 1);
        assert_eq!(kept(&world).await, left);
    }
}
