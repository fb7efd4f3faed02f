//! Replicas: epochs, leases, fences.

use store::{NewReplica, OwnerId, ReplicaStatus};

use crate::support::{NOW, SECOND, World, owner, start};

fn replica(id: OwnerId) -> NewReplica {
    NewReplica { id, address: "http://a:1".to_owned(), version: "1.2.3".to_owned(), kinds: 29 }
}

pub(crate) async fn epochs_rise_with_every_replica(world: World) {
    let first = world.store.join(&replica(owner(1)), NOW).await.unwrap();
    assert_eq!((first.epoch, first.status), (NOW, ReplicaStatus::Serving));
    assert_eq!((first.started_at, first.seen_at, first.kinds), (NOW, NOW, 29));
    // The clock of the second is behind.
    let second = world.store.join(&replica(owner(2)), NOW - SECOND).await.unwrap();
    assert_eq!(second.epoch, NOW + 1);
    for id in [owner(1), owner(2)] {
        assert!(world.store.fence(id, None).await.unwrap());
        assert!(world.store.remove_replica(id).await.unwrap());
    }
    let third = world.store.join(&replica(owner(3)), NOW).await.unwrap();
    assert_eq!(third.epoch, NOW + 2, "also over those that are gone");
    let ahead = world.store.join(&replica(owner(4)), NOW + SECOND).await.unwrap();
    assert_eq!(ahead.epoch, NOW + SECOND);
    assert_eq!(world.store.replicas().await.unwrap(), [third, ahead]);
}

pub(crate) async fn a_heartbeat_tells_how_all_stand(world: World) {
    let store = &world.store;
    let first = store.join(&replica(owner(1)), NOW).await.unwrap();
    store.join(&replica(owner(2)), NOW).await.unwrap();
    let status = ReplicaStatus::Draining;
    let beat = store.heartbeat(owner(1), status, NOW + SECOND).await.unwrap();
    assert!(beat.alive);
    assert_eq!((beat.replicas.len(), beat.next_wake), (2, None));
    let rows = store.replicas().await.unwrap();
    let row = rows.iter().find(|row| row.id == owner(1)).unwrap();
    assert_eq!((row.lease, row.status), (first.lease + 1, status));
    assert_eq!((row.seen_at, row.started_at), (NOW + SECOND, NOW));
    let stranger = store.heartbeat(owner(9), ReplicaStatus::Serving, NOW).await.unwrap();
    assert!(!stranger.alive, "who never joined is not alive");
    assert_eq!(stranger.replicas.len(), 2);
}

pub(crate) async fn a_replica_is_fenced_by_the_counter_that_was_seen(world: World) {
    let store = &world.store;
    let seen = store.join(&replica(owner(1)), NOW).await.unwrap().lease;
    let serving = ReplicaStatus::Serving;
    assert!(store.heartbeat(owner(1), serving, NOW).await.unwrap().alive);
    assert!(!store.fence(owner(1), Some(seen)).await.unwrap(), "it was heard of since");
    let seen = store.replicas().await.unwrap()[0].lease;
    assert!(store.fence(owner(1), Some(seen)).await.unwrap());
    assert!(store.fence(owner(1), Some(seen)).await.unwrap(), "it is fenced already");
    let beat = store.heartbeat(owner(1), serving, NOW).await.unwrap();
    assert!(!beat.alive, "a fence is for good");
    assert_eq!(beat.replicas[0].status, ReplicaStatus::Fenced);
    assert!(store.fence(owner(7), Some(1)).await.unwrap(), "who is gone owns nothing");
}

pub(crate) async fn a_fenced_replica_goes_once_it_owns_nothing(world: World) {
    let store = &world.store;
    store.join(&replica(owner(1)), NOW).await.unwrap();
    world.win(start(1, 1)).await;
    assert!(!store.remove_replica(owner(1)).await.unwrap(), "it lives");
    assert!(store.fence(owner(1), None).await.unwrap());
    assert!(!store.remove_replica(owner(1)).await.unwrap(), "it owns a run");
    assert_eq!(store.adopt_from(owner(1), owner(2), NOW, 10).await.unwrap().len(), 1);
    assert!(store.remove_replica(owner(1)).await.unwrap());
    assert!(!store.remove_replica(owner(1)).await.unwrap(), "it is gone");
}
