//! Content under its hash, and how long it stays.

use engine::ContentHash;
use store::{Collected, Cursor, Outcome};

use crate::retention::delete;
use crate::support::{NOW, SECOND, World, ended, is_refused, long, next, run, start, with_body};

const LATER: i64 = NOW + 3600 * SECOND;

async fn collect(world: &World, before: i64) -> u64 {
    world.store.collect_blobs(before, None, 10).await.unwrap().blobs
}

pub(crate) async fn a_long_body_comes_back_whole(world: World) {
    let first = world.win(with_body(start(1, 3), long(1))).await;
    let second = world.win(with_body(next(&first, 1), vec![b'x'; 5 * 1024 * 1024])).await;
    let (_, events) = world.store.fold(run(1)).await.unwrap().unwrap();
    assert_eq!(events, [&first.events[..], &second.events[..]].concat());
    assert_eq!(world.store.journal(run(1), 2, 1).await.unwrap(), first.events[2..]);
}

pub(crate) async fn equal_content_is_stored_once(world: World) {
    let batch: Vec<_> = (1..=4).map(|number| with_body(start(number, 1), long(7))).collect();
    let outcomes = world.store.commit(&batch).await.unwrap();
    assert_eq!(outcomes, vec![Outcome::Committed; 4]);
    let hash = world.store.put_blob(&long(7), NOW).await.unwrap();
    assert_eq!(hash, ContentHash::of(&long(7)));
    for commit in batch {
        let (_, events) = world.store.fold(commit.run).await.unwrap().unwrap();
        assert_eq!(events, commit.events);
        world.win(ended(next(&commit, 1), NOW)).await;
    }
    assert_eq!(delete(&world, LATER).await, 4);
    assert_eq!(collect(&world, LATER).await, 1, "stored once");
    assert_eq!(world.store.blob(hash).await.unwrap(), None);
}

pub(crate) async fn blobs_are_collected_when_unreferenced_and_old(world: World) {
    let mut hashes = Vec::new();
    for number in 0..4 {
        let at = NOW + i64::from(number);
        hashes.push(world.store.put_blob(&[number], at).await.unwrap());
    }
    let mut commit = start(1, 1);
    commit.blobs = vec![hashes[0]];
    commit.events[0].at = NOW;
    world.win(commit).await;
    // What is needed is passed over.
    let first = world.store.collect_blobs(NOW + 3, None, 1).await.unwrap();
    assert_eq!(first, Collected { blobs: 0, next: Some(Cursor { at: NOW, id: hashes[0] }) });
    let second = world.store.collect_blobs(NOW + 3, first.next, 1).await.unwrap();
    assert_eq!(second, Collected { blobs: 1, next: Some(Cursor { at: NOW + 1, id: hashes[1] }) });
    let third = world.store.collect_blobs(NOW + 3, second.next, 10).await.unwrap();
    assert_eq!(third, Collected { blobs: 1, next: None });
    let mut kept = Vec::new();
    for hash in &hashes {
        kept.push(world.store.blob(*hash).await.unwrap().is_some());
    }
    assert_eq!(kept, [true, false, false, true], "referenced, old, old, young");
    assert_eq!(collect(&world, LATER).await, 1);
    assert_eq!(world.store.blob(hashes[0]).await.unwrap(), Some(vec![0]));
}

pub(crate) async fn a_commit_touches_what_it_refers_to(world: World) {
    let body = world.store.put_blob(&long(1), NOW - SECOND).await.unwrap();
    let payload = world.store.put_blob(b"payload", NOW - SECOND).await.unwrap();
    let mut commit = with_body(start(1, 1), long(1));
    commit.blobs = vec![payload, payload];
    commit.events[0].at = NOW;
    let commit = world.win(ended(commit, NOW)).await;
    // An earlier touch takes nothing back.
    world.store.put_blob(b"payload", NOW - 2 * SECOND).await.unwrap();
    assert_eq!(delete(&world, LATER).await, 1);
    assert_eq!(world.store.run(commit.run).await.unwrap(), None);
    assert_eq!(collect(&world, NOW).await, 0);
    assert!(world.store.blob(body).await.unwrap().is_some());
    assert_eq!(collect(&world, NOW + 1).await, 2);
}

pub(crate) async fn a_reference_to_a_missing_blob_is_refused_alone(world: World) {
    let first = world.win(start(1, 1)).await;
    let mut broken = start(2, 1);
    broken.blobs = vec![ContentHash::of(b"nowhere")];
    let outcomes = world.store.commit(&[broken, next(&first, 1)]).await.unwrap();
    assert!(is_refused(&outcomes[0]), "{outcomes:?}");
    assert_eq!(outcomes[1], Outcome::Committed);
    assert_eq!(world.store.run(run(2)).await.unwrap(), None);
}

pub(crate) async fn blobs_go_after_their_run(world: World) {
    let commit = world.win(with_body(ended(start(1, 1), NOW), long(1))).await;
    let other = world.win(with_body(start(2, 1), long(1))).await;
    assert_eq!(delete(&world, LATER).await, 1);
    assert_eq!(collect(&world, LATER).await, 0);
    let (_, events) = world.store.fold(other.run).await.unwrap().unwrap();
    assert_eq!(events, commit.events);
}
