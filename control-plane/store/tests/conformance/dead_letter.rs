//! Tasks that were given up.

use store::{Cursor, DeadLetterFilter, Discarded, Outcome};

use crate::support::{NOW, World, dead_letter, is_refused, next, run, start};

pub(crate) async fn dead_letters_come_and_go_with_commits(world: World) {
    let first = world.win(start(1, 1)).await;
    let mut failed = next(&first, 1);
    failed.dead_letters = vec![dead_letter(&first, "a", NOW), dead_letter(&first, "b", NOW)];
    let failed = world.win(failed).await;
    let stored = world.store.dead_letter("a").await.unwrap();
    assert_eq!(stored, Some(failed.dead_letters[0].clone()));
    let mut both = next(&failed, 1);
    both.dead_letters = vec![dead_letter(&first, "a", NOW)];
    both.remove_dead_letters = vec!["a".to_owned()];
    assert!(is_refused(&world.commit(both).await));
    let mut replayed = next(&failed, 1);
    replayed.remove_dead_letters = vec!["a".to_owned(), "unknown".to_owned()];
    let replayed = world.win(replayed).await;
    assert_eq!(world.store.dead_letter("a").await.unwrap(), None);
    assert!(world.store.dead_letter("b").await.unwrap().is_some());
    let mut again = next(&replayed, 1);
    again.dead_letters = vec![dead_letter(&first, "a", NOW + 1)];
    world.win(again).await;
    assert_eq!(world.store.dead_letter("a").await.unwrap().unwrap().at, NOW + 1);
    // Another run's is not its to remove.
    let mut stranger = start(2, 1);
    stranger.remove_dead_letters = vec!["a".to_owned()];
    world.win(stranger).await;
    assert!(world.store.dead_letter("a").await.unwrap().is_some());
}

pub(crate) async fn a_loser_leaves_no_dead_letter(world: World) {
    let first = world.win(start(1, 1)).await;
    let mut failed = next(&first, 1);
    failed.dead_letters = vec![dead_letter(&first, "a", NOW)];
    world.win(failed.clone()).await;
    let mut late = next(&first, 1);
    late.dead_letters = vec![dead_letter(&first, "b", NOW)];
    late.remove_dead_letters = vec!["a".to_owned()];
    let outcomes = world.store.commit(&[late, start(2, 1)]).await.unwrap();
    assert_eq!(outcomes, [Outcome::Conflict, Outcome::Committed]);
    assert!(world.store.dead_letter("a").await.unwrap().is_some());
    assert_eq!(world.store.dead_letter("b").await.unwrap(), None);
}

pub(crate) async fn dead_letters_are_listed_and_deleted(world: World) {
    for number in 1..=3 {
        let mut commit = start(number, 1);
        if number == 3 {
            commit.row.workflow = "deploy".to_owned();
        }
        commit.dead_letters = (0..2)
            .map(|place| dead_letter(&commit, &format!("{number}{place}"), NOW + place))
            .collect();
        world.win(commit).await;
    }
    let list = async |filter: &DeadLetterFilter, after: Option<Cursor<String>>| {
        let rows = world.store.dead_letters(filter, after, 4).await.unwrap();
        rows.into_iter().map(|row| row.id).collect::<Vec<_>>()
    };
    let all = DeadLetterFilter::default();
    assert_eq!(list(&all, None).await, ["31", "21", "11", "30"]);
    let after = Some(Cursor { at: NOW, id: "30".to_owned() });
    assert_eq!(list(&all, after).await, ["20", "10"]);
    let of_run = DeadLetterFilter { run_id: Some(run(2)), ..all.clone() };
    assert_eq!(list(&of_run, None).await, ["21", "20"]);
    let of_workflow = DeadLetterFilter {
        workflow: Some("deploy".to_owned()),
        tenant: Some("default".to_owned()),
        run_id: None,
    };
    assert_eq!(list(&of_workflow, None).await, ["31", "30"]);
    let entry = |number| [super::support::audit("dead_letter/2", number)];
    let delete = async |number| world.store.delete_dead_letter("20", &entry(number)).await.unwrap();
    assert_eq!(delete(1).await, Discarded::Done);
    assert_eq!(delete(2).await, Discarded::NotThere);
    let chain = world.store.audit_chain("dead_letter/2", 0, 9).await.unwrap();
    assert_eq!(chain, entry(1), "with the removal alone");
    let other = world.store.delete_dead_letter("21", &entry(1)).await.unwrap();
    assert_eq!(other, Discarded::AuditTaken);
    assert!(world.store.dead_letter("21").await.unwrap().is_some(), "all or nothing");
    assert_eq!(list(&of_run, None).await, ["21"]);
}
