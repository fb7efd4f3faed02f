//! Who holds which run.

use std::collections::BTreeSet;
use std::sync::Arc;

use store::{Adoption, Commit, NewReplica, Outcome, Parking, RunRow, Standing};

use crate::support::{NOW, SECOND, World, ended, next, owner, run, start, with_body};

fn ids(rows: &[RunRow]) -> Vec<engine::RunId> {
    let mut ids: Vec<_> = rows.iter().map(|row| row.run_id).collect();
    ids.sort();
    ids
}

fn parking(number: u64, version: i64) -> Parking {
    Parking { run: run(number), version, wake_at: None, children: Vec::new() }
}

pub(crate) async fn a_run_is_taken_over_from_its_owner_alone(world: World) {
    let store = &world.store;
    let first = world.win(start(1, 1)).await;
    let wrong = store.take_over(run(1), Some(owner(3)), owner(2), NOW).await.unwrap();
    assert_eq!(wrong, Adoption::OwnedBy(Some(owner(1))));
    let wrong = store.take_over(run(1), None, owner(2), NOW).await.unwrap();
    assert_eq!(wrong, Adoption::OwnedBy(Some(owner(1))));
    let taken = store.take_over(run(1), Some(owner(1)), owner(2), NOW).await.unwrap();
    let row = RunRow { owner: Some(owner(2)), ..first.row.clone() };
    assert_eq!(taken, Adoption::Adopted(Box::new(row)));
    assert_eq!(world.commit(next(&first, 1)).await, Outcome::Conflict, "it was its own before");
    let missing = store.take_over(run(2), None, owner(2), NOW).await.unwrap();
    assert_eq!(missing, Adoption::NotFound);
    let standing = Standing { run_id: run(1), owner: Some(owner(2)), version: 1, ended: false };
    assert_eq!(store.standings(&[run(1), run(2)]).await.unwrap(), [standing]);
}

pub(crate) async fn the_unfinished_runs_of_one_owner_are_adopted_in_batches(world: World) {
    let store = &world.store;
    for number in 1..=5 {
        world.win(start(number, 1)).await;
    }
    let over = world.win(start(6, 1)).await;
    world.win(ended(next(&over, 1), NOW)).await;
    let first = store.adopt_from(owner(1), owner(2), NOW, 3).await.unwrap();
    assert_eq!(ids(&first), [run(1), run(2), run(3)]);
    assert!(first.iter().all(|row| row.owner == Some(owner(2))));
    let rest = store.adopt_from(owner(1), owner(2), NOW, 3).await.unwrap();
    assert_eq!(ids(&rest), [run(4), run(5)]);
    assert_eq!(store.adopt_from(owner(1), owner(2), NOW, 3).await.unwrap(), []);
    assert_eq!(store.count_owned().await.unwrap(), [(Some(owner(2)), 5)]);
}

pub(crate) async fn runs_of_nobody_are_adopted_unless_they_are_parked(world: World) {
    let store = &world.store;
    let address = String::new();
    let replica = NewReplica { id: owner(1), address, version: "1".to_owned(), kinds: 1 };
    store.join(&replica, NOW).await.unwrap();
    world.win(start(1, 1)).await;
    let mut lost = start(2, 1);
    lost.row.owner = Some(owner(5));
    world.win(lost).await;
    let parked = world.win(start(3, 1)).await;
    let parking = parking(3, parked.row.version);
    assert_eq!(store.park(owner(1), &[parking]).await.unwrap(), [run(3)]);
    let mut unowned = start(5, 1);
    unowned.row.owner = None;
    world.win(unowned).await;
    let mut ended_before = ended(start(6, 1), NOW);
    ended_before.row.owner = Some(owner(9));
    world.win(ended_before).await;
    let orphans = store.adopt_orphans(owner(1), NOW, 10).await.unwrap();
    assert_eq!(ids(&orphans), [run(2)]);
    let orphans = store.adopt_unowned(owner(1), NOW, 10).await.unwrap();
    assert_eq!(ids(&orphans), [run(5)]);
    assert_eq!(store.adopt_unowned(owner(1), NOW, 10).await.unwrap(), []);
    assert_eq!(store.adopt_orphans(owner(1), NOW, 10).await.unwrap(), []);
    // Who has not joined is not one's own orphan.
    assert_eq!(ids(&store.adopt_orphans(owner(8), NOW, 10).await.unwrap()), []);
    let mut more = start(4, 1);
    more.row.owner = Some(owner(5));
    world.win(more).await;
    let mut others = start(7, 1);
    others.row.owner = Some(owner(0x6f));
    world.win(others).await;
    let mut orphans = store.adopt_orphans(owner(8), NOW, 10).await.unwrap();
    orphans.extend(store.adopt_orphans(owner(8), NOW, 10).await.unwrap());
    assert_eq!(ids(&orphans), [run(4), run(7)], "of one owner after the other");
    assert_eq!(ids(&store.adopt_orphans(owner(8), NOW, 10).await.unwrap()), []);
}

pub(crate) async fn a_parked_run_belongs_to_nobody_until_it_wakes(world: World) {
    let store = &world.store;
    let mut parkings = Vec::new();
    for (number, wake_at) in [(1, Some(NOW + SECOND)), (2, Some(NOW + 2 * SECOND)), (3, None)] {
        let version = world.win(start(number, 1)).await.row.version;
        parkings.push(Parking { wake_at, ..parking(number, version) });
    }
    assert_eq!(store.park(owner(1), &parkings).await.unwrap(), [run(1), run(2), run(3)]);
    assert_eq!(store.run(run(1)).await.unwrap().unwrap().owner, None);
    assert_eq!(store.next_wake().await.unwrap(), Some(NOW + SECOND));
    assert_eq!(store.wake_due(owner(2), NOW, 10).await.unwrap(), []);
    let due = store.wake_due(owner(2), NOW + SECOND, 10).await.unwrap();
    assert_eq!(ids(&due), [run(1)]);
    assert_eq!(due[0].owner, Some(owner(2)));
    assert_eq!(store.next_wake().await.unwrap(), Some(NOW + 2 * SECOND));
    // One that is asked something is taken before its time, and wakes no more.
    let taken = store.take_over(run(2), None, owner(3), NOW).await.unwrap();
    assert!(matches!(taken, Adoption::Adopted(_)));
    assert_eq!(store.next_wake().await.unwrap(), None);
    assert_eq!(store.wake_due(owner(2), NOW + 9 * SECOND, 10).await.unwrap(), []);
    assert_eq!(store.count_owned().await.unwrap().len(), 3);
}

pub(crate) async fn a_run_is_parked_only_as_it_was_seen(world: World) {
    let store = &world.store;
    let first = world.win(start(1, 1)).await;
    world.win(next(&first, 1)).await;
    let old = parking(1, 1);
    assert_eq!(store.park(owner(1), &[old]).await.unwrap(), [], "it went on");
    let now = parking(1, 2);
    assert_eq!(
        store.park(owner(2), std::slice::from_ref(&now)).await.unwrap(),
        [],
        "it is another's"
    );
    let over = world.win(start(2, 1)).await;
    let over = world.win(ended(next(&over, 1), NOW)).await;
    let gone = parking(2, over.row.version);
    assert_eq!(store.park(owner(1), &[gone]).await.unwrap(), [], "it has ended");
    assert_eq!(store.park(owner(1), &[now]).await.unwrap(), [run(1)]);
}

/// A run whose parent is another.
fn child(number: u64, parent: u64) -> Commit {
    let mut child = start(number, 1);
    child.row.parent = Some(run(parent));
    child
}

pub(crate) async fn a_run_that_waits_for_children_is_parked_while_all_of_them_live(world: World) {
    let store = &world.store;
    let version = world.win(start(1, 1)).await.row.version;
    let first = world.win(child(2, 1)).await;
    let waiting = Parking { children: vec![run(2), run(3)], ..parking(1, version) };
    let park = async || store.park(owner(1), std::slice::from_ref(&waiting)).await.unwrap();
    assert_eq!(park().await, [], "one of them was not started");
    let second = world.win(child(3, 1)).await;
    assert_eq!(park().await, [run(1)]);
    store.take_over(run(1), None, owner(1), NOW).await.unwrap();
    world.win(ended(next(&first, 1), NOW)).await;
    assert_eq!(park().await, [], "one of them has ended");
    assert_eq!(store.run(run(1)).await.unwrap().unwrap().owner, Some(owner(1)));
    world.win(ended(next(&second, 1), NOW)).await;
}

pub(crate) async fn the_end_of_a_child_wakes_its_parked_parent(world: World) {
    const WAKES: i64 = NOW + store::limits::PARENT_WAKES_AFTER;
    let store = &world.store;
    let mut parkings = Vec::new();
    let mut children = Vec::new();
    for (number, wake_at) in [(1, None), (2, Some(NOW + 60 * SECOND)), (3, Some(NOW + 1))] {
        let version = world.win(start(number, 1)).await.row.version;
        let awaited = [world.win(child(10 + number, number)).await.run];
        children.push(next(&child(10 + number, number), 1));
        parkings.push(Parking { wake_at, children: awaited.into(), ..parking(number, version) });
    }
    assert_eq!(store.park(owner(1), &parkings).await.unwrap(), [run(1), run(2), run(3)]);
    // What does not end, and what loses, wakes nobody.
    world.win(children[0].clone()).await;
    let mut lost = ended(next(&children[1], 1), NOW);
    lost.row.owner = Some(owner(7));
    assert_eq!(world.commit(lost).await, Outcome::Conflict);
    assert_eq!(ids(&store.wake_due(owner(2), NOW + 1, 9).await.unwrap()), [run(3)]);
    assert_eq!(store.next_wake().await.unwrap(), Some(NOW + 60 * SECOND));
    let ends = [
        ended(next(&children[0], 1), NOW),
        ended(children[1].clone(), NOW + 5),
        ended(children[2].clone(), NOW),
        // It starts and ends at once.
        ended(child(20, 2), NOW + 3),
        start(21, 1),
    ];
    assert_eq!(store.commit(&ends).await.unwrap(), [const { Outcome::Committed }; 5]);
    assert_eq!(store.next_wake().await.unwrap(), Some(WAKES));
    assert_eq!(ids(&store.wake_due(owner(2), WAKES, 9).await.unwrap()), [run(1)]);
    assert_eq!(ids(&store.wake_due(owner(2), WAKES + 3, 9).await.unwrap()), [run(2)]);
    assert_eq!(store.next_wake().await.unwrap(), None);
}

/// Whoever comes first, the parent is not parked or it wakes.
pub(crate) async fn no_end_of_a_child_is_lost_to_a_parking_at_the_same_time(world: World) {
    let mut asleep = Vec::new();
    for number in 0..40 {
        let (parent, below) = (1 + 2 * number, 2 + 2 * number);
        let version = world.win(start(parent, 1)).await.row.version;
        let begun = world.win(child(below, parent)).await;
        let waiting = Parking { children: vec![run(below)], ..parking(parent, version) };
        let (one, other) = (Arc::clone(&world.store), Arc::clone(&world.store));
        let parks = tokio::spawn(async move { one.park(owner(1), &[waiting]).await });
        let end = ended(next(&begun, 1), NOW);
        let ends = tokio::spawn(async move { other.commit(&[end]).await });
        let parked = parks.await.unwrap().unwrap();
        assert_eq!(ends.await.unwrap().unwrap(), [Outcome::Committed]);
        asleep.extend(parked);
    }
    let wakes = NOW + store::limits::PARENT_WAKES_AFTER;
    let woken = world.store.wake_due(owner(2), wakes, 100).await.unwrap();
    assert_eq!(ids(&woken), asleep);
}

pub(crate) async fn many_runs_are_folded_at_once(world: World) {
    let mut long = start(1, 3);
    long.events[1].body = vec![b'x'; 40_000].into();
    let long = world.win(long).await;
    world.win(next(&long, 4)).await;
    world.win(start(2, 1)).await;
    let mut folded = world.store.fold_many(&[run(2), run(9), run(1)]).await.unwrap();
    folded.sort_by_key(|(row, _)| row.run_id);
    assert_eq!(folded.len(), 2);
    for found in folded {
        let one = world.store.fold(found.0.run_id).await.unwrap().unwrap();
        assert_eq!(found, one);
    }
    assert_eq!(world.store.fold_many(&[]).await.unwrap(), []);
    let many = vec![run(1); store::limits::RUNS_AT_ONCE_MAX + 1];
    assert!(matches!(world.store.fold_many(&many).await, Err(store::Error::Invalid(_))));
}

/// Whoever takes over many runs must not hold all of what they have at once.
pub(crate) async fn runs_that_hold_too_much_together_are_left_out(world: World) {
    let body = |number: u8| vec![number; 12 * 1024 * 1024];
    for number in 1..=6 {
        world.win(with_body(start(number, 2), body(number as u8))).await;
    }
    let runs: Vec<_> = (1..=6).map(run).collect();
    let folded = world.store.fold_many(&runs).await.unwrap();
    assert_eq!(folded.len(), 5, "64 MiB hold five of 12");
    assert!(folded.iter().all(|(row, events)| row.version == 2 && events.len() == 2));
}

pub(crate) async fn two_who_adopt_at_once_share_the_runs(world: World) {
    let commits: Vec<_> = (1..=200).map(|number| start(number, 1)).collect();
    world.store.commit(&commits).await.unwrap();
    let adopt = |to| {
        let store = std::sync::Arc::clone(&world.store);
        tokio::spawn(async move {
            let mut mine = Vec::new();
            while store.count_owned().await.unwrap().iter().any(|(from, _)| *from == Some(owner(1)))
            {
                mine.extend(ids(&store.adopt_from(owner(1), to, NOW, 7).await.unwrap()));
            }
            mine
        })
    };
    let (one, two) = (adopt(owner(2)), adopt(owner(3)));
    let (one, two) = (one.await.unwrap(), two.await.unwrap());
    assert_eq!(one.len() + two.len(), 200);
    let all: BTreeSet<_> = one.into_iter().chain(two).collect();
    assert_eq!(all.len(), 200, "none twice");
}
