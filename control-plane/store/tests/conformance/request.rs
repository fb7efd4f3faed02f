//! A request is carried out once.

use store::{Outcome, RequestRow};

use crate::support::{NOW, World, next, request, run, start, with_request};

fn duplicate(number: u64, id: &str) -> Outcome {
    Outcome::DuplicateRequest { run_id: Some(run(number)), body_hash: request(id).body_hash }
}

pub(crate) async fn a_repeated_start_loses_alone_and_learns_its_run(world: World) {
    let first = world.win(with_request(start(1, 1), "one")).await;
    let stored = world.store.request("default", "one").await.unwrap();
    assert_eq!(stored, Some(RequestRow { run_id: Some(run(1)), ..request("one") }));
    let mut other_tenant = with_request(start(5, 1), "one");
    other_tenant.request.as_mut().unwrap().tenant = "other".to_owned();
    let batch = [
        with_request(start(3, 1), "three"),
        with_request(start(2, 1), "one"),
        next(&first, 1),
        start(4, 1),
        other_tenant,
        // The same commit again, whose answer was lost.
        with_request(start(1, 1), "one"),
    ];
    let outcomes = world.store.commit(&batch[..5]).await.unwrap();
    let won = Outcome::Committed;
    assert_eq!(outcomes, [won.clone(), duplicate(1, "one"), won.clone(), won.clone(), won]);
    assert_eq!(world.store.run(run(2)).await.unwrap(), None);
    assert_eq!(world.commit(batch[5].clone()).await, duplicate(1, "one"));
}

pub(crate) async fn a_start_repeated_in_one_batch_goes_once(world: World) {
    let batch = [with_request(start(1, 1), "one"), with_request(start(2, 1), "one"), start(3, 1)];
    let outcomes = world.store.commit(&batch).await.unwrap();
    assert_eq!(outcomes[2], Outcome::Committed);
    let stored = world.store.request("default", "one").await.unwrap().unwrap();
    let (winner, loser) = if stored.run_id == Some(run(1)) { (1, 2) } else { (2, 1) };
    assert_eq!(outcomes[winner - 1], Outcome::Committed);
    assert_eq!(outcomes[loser - 1], duplicate(winner as u64, "one"));
    assert_eq!(world.store.run(run(loser as u64)).await.unwrap(), None);
}

pub(crate) async fn a_request_of_a_losing_transition_is_not_kept(world: World) {
    let first = world.win(start(1, 1)).await;
    world.win(next(&first, 1)).await;
    let batch =
        [with_request(next(&first, 1), "late"), with_request(start(2, 1), "two"), start(3, 1)];
    let outcomes = world.store.commit(&batch).await.unwrap();
    assert_eq!(outcomes, [Outcome::Conflict, Outcome::Committed, Outcome::Committed]);
    let batch = [with_request(start(1, 1), "again"), with_request(next(&first, 1), "late")];
    assert_eq!(world.commit(batch[1].clone()).await, Outcome::Conflict);
    assert_eq!(world.store.request("default", "late").await.unwrap(), None);
    assert_eq!(world.store.request("default", "again").await.unwrap(), None);
    assert!(world.store.request("default", "two").await.unwrap().is_some());
    assert_eq!(world.commit(batch[1].clone()).await, Outcome::Conflict);
    assert_eq!(world.store.request("default", "late").await.unwrap(), None);
}

pub(crate) async fn a_request_may_come_with_a_later_transition(world: World) {
    let first = world.win(start(1, 1)).await;
    let mut signal = with_request(next(&first, 1), "signal");
    signal.request.as_mut().unwrap().response = Some(b"{}".to_vec());
    let signal = world.win(signal).await;
    let repeated = with_request(next(&signal, 1), "signal");
    assert_eq!(world.commit(repeated).await, duplicate(1, "signal"));
    assert_eq!(world.store.run(run(1)).await.unwrap().unwrap().version, 2);
    let stored = world.store.request("default", "signal").await.unwrap().unwrap();
    assert_eq!(stored.response.as_deref(), Some(&b"{}"[..]));
}

pub(crate) async fn a_request_without_a_run_is_put_once(world: World) {
    let row = RequestRow { response: Some(b"answer".to_vec()), ..request("one") };
    assert_eq!(world.store.put_request(&row).await.unwrap(), None);
    let other = RequestRow { response: None, at: NOW + 5, ..row.clone() };
    assert_eq!(world.store.put_request(&other).await.unwrap(), Some(row.clone()));
    let outcome = world.commit(with_request(start(1, 1), "one")).await;
    let known = Outcome::DuplicateRequest { run_id: None, body_hash: row.body_hash };
    assert_eq!(outcome, known);
}

pub(crate) async fn old_requests_expire(world: World) {
    for number in 0..5 {
        let row = RequestRow { at: NOW + number, ..request(&number.to_string()) };
        world.store.put_request(&row).await.unwrap();
    }
    assert_eq!(world.store.expire_requests(NOW + 3, 2).await.unwrap(), 2);
    assert!(world.store.request("default", "2").await.unwrap().is_some());
    assert_eq!(world.store.expire_requests(NOW + 3, 10).await.unwrap(), 1);
    assert!(world.store.request("default", "2").await.unwrap().is_none());
    assert!(world.store.request("default", "3").await.unwrap().is_some());
}
