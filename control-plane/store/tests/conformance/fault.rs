//! What one who commits does about faults, and that the faults are what they say.

use store::faulty::{Fault, Faulty};
use store::{Error, Outcome, Store as _};

use crate::support::{NOW, World, next, owner, run, start};

/// Whether the lost commit was written or not: adopt, commit the adoption, fold.
pub(crate) async fn after_an_unknown_outcome_adoption_sees_the_truth(world: World) {
    let faulty = Faulty::new(world.store.clone());
    for (number, fault) in [(1, Fault::UnknownWritten), (2, Fault::UnknownLost)] {
        let first = world.win(start(number, 1)).await;
        let second = next(&first, 2);
        faulty.inject(fault);
        let lost = faulty.commit(std::slice::from_ref(&second)).await.unwrap_err();
        assert!(matches!(lost, Error::Unknown(_)), "{lost}");
        let row = faulty.adopt(run(number), owner(1), NOW).await.unwrap().unwrap();
        let mut adoption = next(&second, 1);
        let truth = if fault == Fault::UnknownWritten { 3 } else { 1 };
        assert_eq!(row.version, truth);
        adoption.expected_version = truth;
        adoption.row.version = truth + 1;
        adoption.events[0].seq = truth + 1;
        assert_eq!(faulty.commit(&[adoption]).await.unwrap(), [Outcome::Committed]);
        // The lost one comes too late, should it still be on its way.
        assert_eq!(faulty.commit(&[second]).await.unwrap(), [Outcome::Conflict]);
        let (row, events) = faulty.fold(run(number)).await.unwrap().unwrap();
        assert_eq!((row.version, events.len() as i64), (truth + 1, truth + 1));
    }
}

pub(crate) async fn faults_are_met_in_order_and_once(world: World) {
    let faulty = Faulty::new(world.store.clone());
    let first = world.win(start(1, 1)).await;
    faulty.inject(Fault::Unavailable);
    faulty.inject(Fault::Full);
    faulty.inject(Fault::Conflict);
    let batch = [next(&first, 1), start(2, 1)];
    let unavailable = faulty.commit(&batch).await.unwrap_err();
    assert!(matches!(unavailable, Error::Unavailable(_)), "{unavailable}");
    let full = faulty.commit(&batch).await.unwrap_err();
    assert!(matches!(full, Error::Full(_)), "{full}");
    assert_eq!(faulty.run(run(2)).await.unwrap(), None);
    let outcomes = faulty.commit(&batch).await.unwrap();
    assert_eq!(outcomes, [Outcome::Conflict, Outcome::Committed]);
    assert_eq!(faulty.pending(), 0);
    assert_eq!(faulty.commit(&batch[..1]).await.unwrap(), [Outcome::Committed]);
}

pub(crate) async fn an_unavailable_store_answers_nothing(world: World) {
    let faulty = Faulty::new(world.store.clone());
    faulty.health().await.unwrap();
    faulty.set_unavailable(true);
    assert!(matches!(faulty.health().await, Err(Error::Unavailable(_))));
    assert!(matches!(faulty.commit(&[start(1, 1)]).await, Err(Error::Unavailable(_))));
    assert!(matches!(faulty.fold(run(1)).await, Err(Error::Unavailable(_))));
    faulty.set_unavailable(false);
    assert_eq!(faulty.run(run(1)).await.unwrap(), None);
}
