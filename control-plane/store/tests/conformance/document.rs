//! Documents, by themselves and in the commits of runs.

use store::{Change, Changed, Cursor, DocumentFilter, DocumentRow, DocumentWrite, Error, Outcome};

use crate::support::{
    NOW, World, audit, delete_finished, document, ended, is_refused, next, request, run, start,
};

fn write(row: DocumentRow, expected_version: i64) -> Change {
    Change { documents: vec![DocumentWrite { row, expected_version }], ..Change::default() }
}

/// What follows it.
fn newer(row: &DocumentRow) -> DocumentRow {
    DocumentRow {
        status: 2,
        parent: None,
        updated_at: NOW + 9,
        due_at: Some(NOW + 20),
        version: row.version + 1,
        body: b"{\"newer\":true}".to_vec(),
        ..row.clone()
    }
}

pub(crate) async fn documents_change_by_compare_and_swap(world: World) {
    let store = &world.store;
    let first = document(3, "a", NOW);
    assert_eq!(store.change(&write(first.clone(), 0)).await.unwrap(), Changed::Done);
    assert_eq!(store.document(3, "a").await.unwrap(), Some(first.clone()));
    assert_eq!(store.document(4, "a").await.unwrap(), None, "another kind");
    assert_eq!(store.document(3, "nul\0").await.unwrap(), None);
    assert_eq!(store.change(&write(first.clone(), 0)).await.unwrap(), Changed::Conflict);
    let second = newer(&first);
    assert_eq!(store.change(&write(second.clone(), 1)).await.unwrap(), Changed::Done);
    assert_eq!(store.document(3, "a").await.unwrap(), Some(second.clone()));
    assert_eq!(store.change(&write(newer(&first), 1)).await.unwrap(), Changed::Conflict);
    let absent = DocumentRow { version: 8, ..document(3, "b", NOW) };
    assert_eq!(store.change(&write(absent, 7)).await.unwrap(), Changed::Conflict);
    // Whose it is and since when are not to be changed.
    let mut third = DocumentRow { tenant: "other".to_owned(), created_at: 5, ..newer(&second) };
    assert_eq!(store.change(&write(third.clone(), 2)).await.unwrap(), Changed::Done);
    third.tenant.clone_from(&first.tenant);
    third.created_at = first.created_at;
    assert_eq!(store.document(3, "a").await.unwrap(), Some(third));
}

pub(crate) async fn a_change_is_done_as_a_whole_or_not_at_all(world: World) {
    let store = &world.store;
    let row = |id: &str| DocumentWrite { row: document(1, id, NOW), expected_version: 0 };
    let change = Change {
        documents: vec![row("b"), row("a")],
        audit: vec![audit("triage/a", 1), audit("triage/a", 2)],
        request: Some(request("r1")),
    };
    assert_eq!(store.change(&change).await.unwrap(), Changed::Done);
    assert_eq!(store.audit_chain("triage/a", 0, 9).await.unwrap(), change.audit);
    let repeated = store.change(&change).await.unwrap();
    assert_eq!(repeated, Changed::DuplicateRequest(Box::new(request("r1"))));
    let cases = [
        ("a document is there", vec![row("c"), row("a")], vec![audit("triage/a", 3)]),
        ("a number is taken", vec![row("c")], vec![audit("triage/a", 3), audit("triage/a", 2)]),
        ("a number comes twice", vec![row("c")], vec![audit("triage/a", 3), audit("triage/a", 3)]),
    ];
    for (what, documents, audit) in cases {
        let change = Change { documents, audit, request: Some(request("r2")) };
        assert_eq!(store.change(&change).await.unwrap(), Changed::Conflict, "{what}");
    }
    assert_eq!(store.document(1, "c").await.unwrap(), None);
    assert_eq!(store.audit_head("triage/a").await.unwrap().unwrap().number, 2);
    assert_eq!(store.request("default", "r2").await.unwrap(), None);
}

pub(crate) async fn many_documents_are_written_at_once_or_none(world: World) {
    let store = &world.store;
    let row = |number: i64| {
        let mut row = document(6, &format!("e{number:05}"), NOW);
        row.due_at = (number % 2 == 0).then_some(NOW);
        row.parent = (number % 3 == 0).then(|| "t".to_owned());
        row
    };
    let new = |number: i64| DocumentWrite { row: row(number), expected_version: 0 };
    let all = Change { documents: (0..1_203).map(new).collect(), ..Change::default() };
    assert_eq!(store.change(&all).await.unwrap(), Changed::Done);
    for number in [0, 499, 500, 1_202] {
        let stored = store.document(6, &format!("e{number:05}")).await.unwrap();
        assert_eq!(stored, Some(row(number)));
    }
    // One that is there already spoils all; what is changed stands among what is new.
    let mut documents: Vec<DocumentWrite> = (1_203..2_000).map(new).collect();
    documents.push(DocumentWrite { row: newer(&row(600)), expected_version: 1 });
    let mut spoilt = documents.clone();
    spoilt.push(new(700));
    let spoilt = Change { documents: spoilt, ..Change::default() };
    assert_eq!(store.change(&spoilt).await.unwrap(), Changed::Conflict);
    assert_eq!(store.document(6, "e01203").await.unwrap(), None);
    let change = Change { documents, ..Change::default() };
    assert_eq!(store.change(&change).await.unwrap(), Changed::Done);
    assert_eq!(store.document(6, "e00600").await.unwrap().unwrap().version, 2);
}

pub(crate) async fn a_change_over_a_limit_is_refused(world: World) {
    let twice = DocumentWrite { row: document(1, "a", NOW), expected_version: 0 };
    let mut changes = vec![Change { documents: vec![twice.clone(), twice], ..Change::default() }];
    changes.push(write(DocumentRow { version: 0, ..document(1, "a", NOW) }, 0));
    changes.push(write(document(1, "a", NOW), 1));
    changes.push(write(document(1, "a\0", NOW), 0));
    changes.push(write(document(1, &"a".repeat(600), NOW), 0));
    let mut entry = audit("run/1", 1);
    entry.body = vec![b' '; store::limits::AUDIT_BODY_BYTES_MAX + 1];
    changes.push(Change { audit: vec![entry], ..Change::default() });
    changes.push(Change { audit: vec![audit("run/1", 0)], ..Change::default() });
    let max = i64::try_from(store::limits::CHANGE_ROWS_MAX).unwrap();
    let many = (1..=max + 1).map(|number| audit("run/1", number)).collect();
    changes.push(Change { audit: many, ..Change::default() });
    for change in changes {
        let refused = world.store.change(&change).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    }
    assert_eq!(world.store.change(&Change::default()).await.unwrap(), Changed::Done);
}

pub(crate) async fn documents_are_listed_and_filtered(world: World) {
    for number in 0..6 {
        let mut row = document(6, &format!("e{number}"), NOW + number / 2);
        row.status = (number % 2) as i16;
        row.parent = (number > 3).then(|| "run-1".to_owned());
        row.due_at = (number % 3 == 0).then_some(NOW - number);
        world.store.change(&write(row, 0)).await.unwrap();
    }
    world.store.change(&write(document(7, "f", NOW), 0)).await.unwrap();
    let list = async |filter: DocumentFilter, after: Option<(i64, &str)>, ascending, limit| {
        let after = after.map(|(at, id)| Cursor { at, id: id.to_owned() });
        let rows = world.store.documents(&filter, after, ascending, limit).await.unwrap();
        rows.into_iter().map(|row| row.id).collect::<Vec<_>>()
    };
    let all = DocumentFilter { kind: 6, ..DocumentFilter::default() };
    assert_eq!(list(all.clone(), None, true, 4).await, ["e0", "e1", "e2", "e3"]);
    assert_eq!(list(all.clone(), Some((NOW + 1, "e2")), true, 9).await, ["e3", "e4", "e5"]);
    assert_eq!(list(all.clone(), None, false, 2).await, ["e5", "e4"]);
    assert_eq!(list(all.clone(), Some((NOW + 1, "e3")), false, 2).await, ["e2", "e1"]);
    let odd = DocumentFilter { status: Some(1), ..all.clone() };
    assert_eq!(list(odd, None, true, 9).await, ["e1", "e3", "e5"]);
    let of_run = DocumentFilter { parent: Some("run-1".to_owned()), ..all.clone() };
    assert_eq!(list(of_run, None, true, 9).await, ["e4", "e5"]);
    let tenant = |tenant: &str| DocumentFilter { tenant: Some(tenant.to_owned()), ..all.clone() };
    assert_eq!(list(tenant("default"), None, true, 9).await.len(), 6);
    assert_eq!(list(tenant("other"), None, true, 9).await.len(), 0);
    let wanted = ["e5", "e9", "f", "e1", "nul\0"].map(str::to_owned);
    let mut some = world.store.documents_of(6, &wanted).await.unwrap();
    some.sort_by(|one, other| one.id.cmp(&other.id));
    assert_eq!(some.iter().map(|row| &*row.id).collect::<Vec<_>>(), ["e1", "e5"]);
    assert_eq!(world.store.documents_of(6, &[]).await.unwrap(), []);
    let due = async |until, limit| {
        let rows = world.store.due_documents(6, until, limit).await.unwrap();
        rows.into_iter().map(|row| row.id).collect::<Vec<_>>()
    };
    assert_eq!(due(NOW, 9).await, ["e3", "e0"]);
    assert_eq!(due(NOW, 1).await, ["e3"]);
    assert_eq!(due(NOW - 1, 9).await, ["e3"]);
}

pub(crate) async fn documents_come_with_a_run_and_go_with_it(world: World) {
    let store = &world.store;
    let mut first = start(1, 1);
    let row = DocumentRow { parent: Some(run(1).to_string()), ..document(4, "c1", NOW) };
    first.documents = vec![row.clone(), document(4, "c2", NOW)];
    first.audit = vec![audit("run/1", 1)];
    let others: Vec<_> = (2..=5).map(|number| start(number, 1)).collect();
    let batch = [&others[..2], std::slice::from_ref(&first), &others[2..]].concat();
    assert_eq!(store.commit(&batch).await.unwrap(), vec![Outcome::Committed; 5]);
    assert_eq!(store.document(4, "c1").await.unwrap(), Some(row.clone()));
    assert_eq!(store.audit_chain("run/1", 0, 9).await.unwrap(), first.audit);
    // What is not newer changes nothing; whose it is stays.
    let mut second = next(&first, 1);
    let stale = DocumentRow { status: 9, ..row.clone() };
    let other = DocumentRow { tenant: "other".to_owned(), ..newer(&document(4, "c2", NOW)) };
    second.documents = vec![stale, other];
    let second = world.win(second).await;
    assert_eq!(store.document(4, "c1").await.unwrap(), Some(row));
    let kept = newer(&document(4, "c2", NOW));
    assert_eq!(store.document(4, "c2").await.unwrap(), Some(kept));
    world.win(ended(next(&second, 1), NOW + 50)).await;
    assert_eq!(delete_finished(&world, NOW + 60).await, 1);
    assert_eq!(store.document(4, "c1").await.unwrap(), None);
    assert!(store.document(4, "c2").await.unwrap().is_some(), "it belongs to no run");
    assert_eq!(store.audit_chain("run/1", 0, 9).await.unwrap().len(), 1, "the log stays");
}

pub(crate) async fn a_loser_leaves_no_document_and_no_entry(world: World) {
    let store = &world.store;
    let first = world.win(start(1, 1)).await;
    world.win(next(&first, 1)).await;
    let mut late = next(&first, 1);
    late.documents = vec![document(4, "late", NOW)];
    late.audit = vec![audit("run/1", 1)];
    let mut other = start(2, 1);
    other.audit = vec![audit("run/2", 1)];
    other.documents = vec![document(4, "other", NOW)];
    // The number is another's already, who comes first in the batch.
    let mut third = start(3, 1);
    third.audit = vec![audit("run/2", 1)];
    third.documents = vec![document(4, "third", NOW)];
    let mut broken = start(4, 1);
    broken.documents = vec![document(4, "twice", NOW), document(4, "twice", NOW)];
    let batch = [late, other, third.clone(), broken, start(5, 1)];
    let outcomes = store.commit(&batch).await.unwrap();
    assert_eq!(outcomes[..3], [Outcome::Conflict, Outcome::Committed, Outcome::Conflict]);
    assert!(is_refused(&outcomes[3]), "{outcomes:?}");
    assert_eq!(outcomes[4], Outcome::Committed);
    for id in ["late", "third", "twice"] {
        assert_eq!(store.document(4, id).await.unwrap(), None, "{id}");
    }
    assert_eq!(store.audit_head("run/1").await.unwrap(), None);
    assert_eq!(store.run(run(3)).await.unwrap(), None);
    // And when it was there before.
    assert_eq!(world.commit(third).await, Outcome::Conflict);
    assert_eq!(store.run(run(3)).await.unwrap(), None);
}

/// Two runs that write one document are told apart, whoever comes first.
pub(crate) async fn a_document_of_two_runs_is_written_by_both(world: World) {
    let (mut one, mut two) = (start(1, 1), start(2, 1));
    one.documents = vec![document(4, "same", NOW)];
    two.documents = vec![newer(&document(4, "same", NOW))];
    let outcomes = world.store.commit(&[one, two]).await.unwrap();
    assert_eq!(outcomes, [Outcome::Committed, Outcome::Committed]);
    assert_eq!(world.store.document(4, "same").await.unwrap().unwrap().version, 2);
}
