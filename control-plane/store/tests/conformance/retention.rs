//! Runs that are removed in the end.

use store::RunFilter;

use crate::support::{NOW, World, dead_letter, ended, next, run, start};

async fn kept(world: &World) -> Vec<u64> {
    let rows = world.store.runs(&RunFilter::default(), None, true, 1000).await.unwrap();
    (1..=500).filter(|n| rows.iter().any(|row| row.run_id == run(*n))).collect()
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
    assert_eq!(world.store.delete_finished(NOW + 4, 1000, 100).await.unwrap(), 2);
    assert_eq!(kept(&world).await, [1, 4, 5]);
    assert_eq!(world.store.journal(run(2), 0, 10).await.unwrap(), []);
    assert_eq!(world.store.dead_letter("2").await.unwrap(), None);
    assert!(world.store.dead_letter("4").await.unwrap().is_some());
    assert_eq!(world.store.journal(run(4), 0, 10).await.unwrap().len(), 3);
    assert_eq!(world.store.delete_finished(NOW + 4, 1000, 100).await.unwrap(), 0);
    assert_eq!(world.commit(next(&start(2, 3), 1)).await, store::Outcome::Conflict);
}

pub(crate) async fn the_newest_are_kept_in_bounded_batches(world: World) {
    let batch: Vec<_> = (1..=300).map(|n| ended(start(n, 1), NOW + n as i64)).collect();
    world.store.commit(&batch).await.unwrap();
    world.win(start(301, 1)).await;
    assert_eq!(world.store.delete_finished(0, 10, 7).await.unwrap(), 7);
    assert_eq!(kept(&world).await[0], 8);
    assert_eq!(world.store.delete_finished(0, 10, 1000).await.unwrap(), 283);
    assert_eq!(kept(&world).await, (291..=301).collect::<Vec<_>>());
    assert_eq!(world.store.delete_finished(0, 10, 1000).await.unwrap(), 0);
}
