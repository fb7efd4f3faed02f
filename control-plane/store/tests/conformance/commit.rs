//! Compare-and-swap, fences, and what may be in a row.

use engine::RunId;
use store::{Error, Outcome, RunRow, limits};

use crate::support::{NOW, World, ended, event, is_refused, next, owner, run, start, with_body};

pub(crate) async fn a_run_is_inserted_and_read_back(world: World) {
    let commit = world.win(start(1, 2)).await;
    assert_eq!(world.store.run(run(1)).await.unwrap(), Some(commit.row.clone()));
    let folded = world.store.fold(run(1)).await.unwrap();
    assert_eq!(folded, Some((commit.row, commit.events)));
}

pub(crate) async fn a_run_is_inserted_once(world: World) {
    let commit = world.win(start(1, 2)).await;
    let mut other = start(1, 1);
    other.row.workflow = "other".to_owned();
    assert_eq!(world.commit(other).await, Outcome::Conflict);
    let folded = world.store.fold(run(1)).await.unwrap();
    assert_eq!(folded, Some((commit.row, commit.events)));
}

pub(crate) async fn a_transition_wins_on_the_version_it_was_decided_on(world: World) {
    let first = world.win(start(1, 1)).await;
    let second = world.win(next(&first, 2)).await;
    assert_eq!(world.commit(next(&first, 2)).await, Outcome::Conflict);
    let mut ahead = next(&second, 1);
    ahead.expected_version += 1;
    ahead.row.version += 1;
    ahead.events[0].seq += 1;
    assert_eq!(world.commit(ahead).await, Outcome::Conflict);
    let (row, events) = world.store.fold(run(1)).await.unwrap().unwrap();
    assert_eq!(row, second.row);
    assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 2, 3]);
}

pub(crate) async fn a_loser_loses_alone(world: World) {
    let first = world.win(start(1, 1)).await;
    let second = world.win(start(2, 1)).await;
    let third = world.win(start(3, 1)).await;
    world.win(next(&second, 1)).await;
    let batch = [next(&third, 1), next(&second, 1), start(4, 1), next(&first, 1), start(3, 1)];
    let outcomes = world.store.commit(&batch[..4]).await.unwrap();
    let (won, lost) = (Outcome::Committed, Outcome::Conflict);
    assert_eq!(outcomes, [won.clone(), lost.clone(), won.clone(), won.clone()]);
    let batch = [start(4, 1), start(5, 1), next(&start(6, 1), 1)];
    let outcomes = world.store.commit(&batch).await.unwrap();
    assert_eq!(outcomes, [lost.clone(), won, lost]);
    assert_eq!(world.store.run(run(2)).await.unwrap().unwrap().version, 2);
    assert_eq!(world.store.run(run(6)).await.unwrap(), None);
}

pub(crate) async fn a_former_owner_loses(world: World) {
    let first = world.win(start(1, 1)).await;
    let adopted = world.store.adopt(run(1), owner(2), NOW).await.unwrap().unwrap();
    assert_eq!(adopted, RunRow { owner: Some(owner(2)), ..first.row.clone() });
    assert_eq!(world.commit(next(&first, 1)).await, Outcome::Conflict);
    let mut nobody = next(&first, 1);
    nobody.row.owner = None;
    assert_eq!(world.commit(nobody).await, Outcome::Conflict);
    let mut heir = next(&first, 1);
    heir.row.owner = Some(owner(2));
    world.win(heir).await;
    assert_eq!(world.store.adopt(run(2), owner(2), NOW).await.unwrap(), None);
    assert_eq!(world.store.run(run(2)).await.unwrap(), None);
}

pub(crate) async fn a_commit_changes_no_owner_and_no_origin(world: World) {
    let mut first = start(1, 1);
    first.row.owner = None;
    let first = world.win(first).await;
    let mut second = next(&first, 1);
    second.row.tenant = "other".to_owned();
    second.row.workflow = "other".to_owned();
    second.row.version_name = "2".to_owned();
    second.row.created_at += 1;
    second.row.parent = Some(run(9));
    let second = world.win(second).await;
    let stored = world.store.run(run(1)).await.unwrap().unwrap();
    let RunRow { status, version, .. } = second.row;
    assert_eq!(stored, RunRow { status, version, ..first.row });
}

pub(crate) async fn every_field_keeps_its_extremes(world: World) {
    for (number, extreme) in [(1, i64::MIN), (2, i64::MAX), (3, -1), (4, 0)] {
        let mut commit = start(number, 1);
        commit.row.created_at = extreme;
        commit.row.ended_at = Some(extreme);
        commit.row.wake_at = Some(extreme);
        commit.row.status = if extreme < 0 { i16::MIN } else { i16::MAX };
        commit.row.priority = commit.row.status;
        commit.row.parent = Some(RunId(uuid::Uuid::max()));
        commit.row.workflow = "wörk\u{1F980}'\"\\flow".to_owned();
        commit.row.version_name = String::new();
        commit.row.labels = Vec::new();
        commit.row.summary = vec![0, 255, 0];
        commit.events[0].at = extreme;
        commit.events[0].kind = commit.row.status;
        commit.events[0].schema = commit.row.status;
        let commit = world.win(commit).await;
        let folded = world.store.fold(run(number)).await.unwrap().unwrap();
        assert_eq!(folded, (commit.row.clone(), commit.events.clone()));
        let changed = world.win(next(&commit, 1)).await;
        assert_eq!(world.store.run(run(number)).await.unwrap().unwrap(), changed.row);
    }
}

pub(crate) async fn bodies_keep_every_byte(world: World) {
    let bodies = [
        Vec::new(),
        b"{\"text\":\"a\\u0000b\",\"number\":9223372036854775807}".to_vec(),
        b"a\0b".to_vec(),
        (0..=255).collect(),
        vec![b'x'; limits::JOURNAL_BODY_BYTES_MAX],
    ];
    for (body, number) in bodies.into_iter().zip(1..) {
        let commit = world.win(with_body(start(number, 1), body)).await;
        let (_, events) = world.store.fold(run(number)).await.unwrap().unwrap();
        assert_eq!(events, commit.events);
    }
}

pub(crate) async fn names_with_a_nul_are_refused_alone(world: World) {
    let mut broken = start(2, 1);
    broken.row.workflow = "a\0b".to_owned();
    let outcomes = world.store.commit(&[start(1, 1), broken, start(3, 1)]).await.unwrap();
    assert_eq!(outcomes[0], Outcome::Committed);
    let Outcome::Refused { reason } = &outcomes[1] else {
        panic!("{outcomes:?}");
    };
    assert!(reason.contains("workflow has a NUL character at byte 1"), "{reason}");
    assert_eq!(outcomes[2], Outcome::Committed);
}

pub(crate) async fn broken_transitions_are_refused_alone(world: World) {
    let first = world.win(start(1, 1)).await;
    let twice = next(&first, 1);
    let mut gap = start(2, 2);
    gap.events[1].seq = 3;
    let mut behind = start(3, 2);
    behind.row.version = 1;
    let empty = start(4, 0);
    let mut other = start(5, 1);
    other.row.run_id = run(6);
    let mut long_name = start(6, 1);
    long_name.row.workflow = "x".repeat(limits::TEXT_BYTES_MAX + 1);
    let mut nil = start(7, 1);
    nil.row.owner = Some(owner(0));
    let mut no_kind = start(8, 1);
    no_kind.events[0].kind = 0;
    let broken = [twice, gap, behind, empty, other, long_name, nil, no_kind];
    let batch = [&[next(&first, 1)][..], &broken, &[start(9, 1)]].concat();
    let outcomes = world.store.commit(&batch).await.unwrap();
    assert_eq!(outcomes[0], Outcome::Committed);
    assert!(outcomes[1..9].iter().all(is_refused), "{outcomes:?}");
    assert_eq!(outcomes[9], Outcome::Committed);
    for number in 2..=8 {
        assert_eq!(world.store.run(run(number)).await.unwrap(), None);
    }
}

pub(crate) async fn a_batch_over_the_limit_is_refused(world: World) {
    let count = limits::BATCH_TRANSITIONS_MAX as u64 + 1;
    let batch: Vec<_> = (1..=count).map(|number| start(number, 1)).collect();
    let refused = world.store.commit(&batch).await.unwrap_err();
    assert!(matches!(refused, Error::Invalid(_)), "{refused}");
    assert_eq!(world.store.unfinished(None, 10).await.unwrap(), []);
}

pub(crate) async fn an_empty_batch_is_nothing(world: World) {
    assert_eq!(world.store.commit(&[]).await.unwrap(), []);
}

pub(crate) async fn five_hundred_runs_go_in_one_batch(world: World) {
    let starts: Vec<_> = (1..=500).rev().map(|number| start(number, 2)).collect();
    let outcomes = world.store.commit(&starts).await.unwrap();
    assert_eq!(outcomes, vec![Outcome::Committed; 500]);
    let batch: Vec<_> = starts.iter().map(|start| ended(next(start, 3), NOW)).collect();
    let outcomes = world.store.commit(&batch).await.unwrap();
    assert_eq!(outcomes, vec![Outcome::Committed; 500]);
    for (start, next) in starts.iter().zip(&batch) {
        let (row, events) = world.store.fold(start.run).await.unwrap().unwrap();
        assert_eq!(row, next.row);
        assert_eq!(events, [&start.events[..], &next.events[..]].concat());
    }
    let outcomes = world.store.commit(&batch).await.unwrap();
    assert_eq!(outcomes, vec![Outcome::Conflict; 500]);
}

/// The journal's key stands even where a version would let an event be written twice: here the
/// version was set back behind the store's back.
pub(crate) async fn a_journal_that_contradicts_its_run_is_refused_alone(world: World) {
    let first = world.win(start(1, 1)).await;
    world.win(next(&first, 1)).await;
    let sql = "UPDATE runs SET version = 1";
    crate::support::execute(world.database.url(), sql).await;
    let outcomes = world.store.commit(&[next(&first, 1), start(2, 1)]).await.unwrap();
    assert!(is_refused(&outcomes[0]), "{outcomes:?}");
    assert_eq!(outcomes[1], Outcome::Committed);
    assert_eq!(world.store.journal(run(1), 0, 10).await.unwrap(), [event(1), event(2)]);
    let damaged =
        crate::support::execute(world.database.url(), "DELETE FROM journal WHERE seq = 1");
    damaged.await;
    let folded = world.store.fold(run(1)).await.unwrap_err();
    assert!(matches!(folded, Error::Corrupt(_)), "{folded}");
    let mut seen = 0;
    let row = world.store.run(run(1)).await.unwrap().unwrap();
    let replayed = world.store.replay(&row, &mut |_| seen += 1).await.unwrap_err();
    assert!(matches!(replayed, Error::Corrupt(_)), "{replayed}");
    assert_eq!(seen, 0, "nothing behind a gap");
}
