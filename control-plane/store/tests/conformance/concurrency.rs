//! Many at once.

use futures::future::join_all;
use store::{Commit, Outcome, Registration, WorkflowRow};

use crate::support::{NOW, World, next, owner, start, with_request};

pub(crate) async fn concurrent_committers_win_once_each(world: World) {
    let mut commits: Vec<_> = (1..=20).map(|number| start(number, 1)).collect();
    world.store.commit(&commits).await.unwrap();
    for round in 0..10 {
        let batch: Vec<_> = commits.iter().map(|commit| next(commit, 2)).collect();
        let attempts = (0..4).map(|_| {
            let (store, batch) = (world.store.clone(), batch.clone());
            tokio::spawn(async move { store.commit(&batch).await.unwrap() })
        });
        let outcomes: Vec<_> = join_all(attempts).await.into_iter().map(Result::unwrap).collect();
        for place in 0..batch.len() {
            let won = outcomes.iter().filter(|all| all[place] == Outcome::Committed).count();
            assert_eq!(won, 1, "round {round}, run {place}");
        }
        commits = batch;
    }
    for commit in commits {
        let (row, events) = world.store.fold(commit.run).await.unwrap().unwrap();
        assert_eq!((row.version, events.len()), (21, 21));
    }
}

pub(crate) async fn concurrent_starts_of_one_request_make_one_run(world: World) {
    let attempts = (1..=16).map(|number| {
        let store = world.store.clone();
        let batch =
            [with_request(start(number, 1), "b"), with_request(start(100 + number, 1), "a")];
        // In both orders.
        let batch = if number % 2 == 0 {
            batch
        } else {
            let [b, a] = batch;
            [a, b]
        };
        tokio::spawn(async move { store.commit(&batch).await.unwrap() })
    });
    let outcomes: Vec<_> = join_all(attempts).await.into_iter().flat_map(Result::unwrap).collect();
    let won = outcomes.iter().filter(|outcome| **outcome == Outcome::Committed).count();
    assert_eq!(won, 2);
    assert!(outcomes.iter().all(|outcome| *outcome != Outcome::Conflict));
    assert_eq!(world.store.unfinished(None, 100).await.unwrap().len(), 2);
}

pub(crate) async fn concurrent_batches_of_the_same_runs_do_not_deadlock(world: World) {
    let starts: Vec<_> = (1..=100).map(|number| start(number, 1)).collect();
    world.store.commit(&starts).await.unwrap();
    let attempts = (0..8).map(|committer| {
        let (store, mut batch) = (world.store.clone(), starts.clone());
        tokio::spawn(async move {
            for _ in 0..10 {
                for commit in &mut batch {
                    let row = store.run(commit.run).await.unwrap().unwrap();
                    commit.row.version = row.version;
                    *commit = next(commit, 1);
                }
                if committer % 2 == 0 {
                    batch.reverse();
                }
                store.commit(&batch).await.unwrap();
            }
        })
    });
    join_all(attempts).await.into_iter().for_each(Result::unwrap);
    for commit in starts {
        let (row, events) = world.store.fold(commit.run).await.unwrap().unwrap();
        assert_eq!(row.version as usize, events.len());
    }
}

pub(crate) async fn a_commit_given_up_half_way_harms_no_other(world: World) {
    let mut commit = world.win(start(1, 1)).await;
    for patience in 0..50 {
        let following = next(&commit, 1);
        let others: Vec<_> = (2..=40).map(|number| start(number + patience * 100, 1)).collect();
        let batch = [std::slice::from_ref(&following), &others].concat();
        {
            // Polled a few times, then dropped: somewhere on its way.
            let committing = world.store.commit(&batch);
            futures::pin_mut!(committing);
            for _ in 0..patience {
                if futures::poll!(&mut committing).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        let other = world.commit(start(patience * 100 + 1_000_000, 1)).await;
        assert_eq!(other, Outcome::Committed);
        commit = settle(&world, &commit).await;
        for other in others {
            if let Some((row, events)) = world.store.fold(other.run).await.unwrap() {
                assert_eq!((row, events), (other.row, other.events));
            }
        }
    }
}

/// Adopts the run anew, until that wins over what may still be on its way.
async fn settle(world: &World, commit: &Commit) -> Commit {
    loop {
        let row = world.store.adopt(commit.run, owner(1), NOW).await.unwrap().unwrap();
        let mut found = commit.clone();
        found.row.version = row.version;
        let adoption = next(&found, 1);
        if world.commit(adoption.clone()).await == Outcome::Committed {
            let (row, events) = world.store.fold(commit.run).await.unwrap().unwrap();
            assert_eq!((row.version, events.len() as i64), (adoption.row.version, row.version));
            return adoption;
        }
    }
}

pub(crate) async fn concurrent_registrations_have_an_order(world: World) {
    let attempts = (0..8).map(|number| {
        let store = world.store.clone();
        tokio::spawn(async move {
            let row = WorkflowRow {
                tenant: "default".to_owned(),
                name: "a".to_owned(),
                version: (number % 4).to_string(),
                definition_hash: engine::ContentHash::of(b""),
                etag: number.to_string(),
                registered_at: NOW,
                summary: Vec::new(),
            };
            store.register_workflow(&row, false, None, &[]).await.unwrap()
        })
    });
    let done: Vec<_> = join_all(attempts).await.into_iter().map(Result::unwrap).collect();
    let registered = done.iter().filter(|done| **done == Registration::Registered).count();
    assert_eq!(registered, 4);
}
