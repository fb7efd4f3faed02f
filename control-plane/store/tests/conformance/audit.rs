//! The audit log and its seals.

use store::{AuditCursor, AuditFilter, AuditHead, AuditRow, Change, Changed, Error};

use crate::support::{NOW, World, audit};

async fn add(world: &World, rows: Vec<AuditRow>) {
    let change = Change { audit: rows, ..Change::default() };
    assert_eq!(world.store.change(&change).await.unwrap(), Changed::Done);
}

fn head(row: &AuditRow) -> AuditHead {
    AuditHead { resource: row.resource.clone(), number: row.number, hash: row.hash }
}

pub(crate) async fn chains_are_read_in_order_and_by_pages(world: World) {
    let store = &world.store;
    let rows: Vec<_> = (1..=12).map(|number| audit("run/a", number)).collect();
    add(&world, rows.clone()).await;
    add(&world, vec![audit("run/b", 1), audit("plan/a", 1)]).await;
    assert_eq!(store.audit_chain("run/a", 0, 100).await.unwrap(), rows);
    assert_eq!(store.audit_chain("run/a", 9, 2).await.unwrap(), rows[9..11]);
    assert_eq!(store.audit_chain("run/", 0, 9).await.unwrap(), []);
    assert_eq!(store.audit_head("run/a").await.unwrap(), Some(head(&rows[11])));
    assert_eq!(store.audit_head("run/c").await.unwrap(), None);
    let names = |heads: Vec<AuditHead>| {
        heads.into_iter().map(|head| (head.resource, head.number)).collect::<Vec<_>>()
    };
    let all = [("plan/a", 1), ("run/a", 12), ("run/b", 1)].map(|(n, at)| (n.to_owned(), at));
    assert_eq!(names(store.audit_heads(None, 9).await.unwrap()), all);
    assert_eq!(names(store.audit_heads(Some("plan/a"), 1).await.unwrap()), all[1..2]);
}

pub(crate) async fn the_log_is_listed_by_time_and_filtered(world: World) {
    let mut rows = vec![audit("run/a", 1), audit("run/a", 2), audit("run/b", 1)];
    rows[1].actor = "mallory".to_owned();
    rows[2].action = "run.pause".to_owned();
    rows[2].at = NOW + 1;
    add(&world, rows).await;
    let list = async |filter: AuditFilter, after: Option<AuditCursor>, limit| {
        let rows = world.store.audit_entries(&filter, after, limit).await.unwrap();
        rows.into_iter().map(|row| format!("{}:{}", row.resource, row.number)).collect::<Vec<_>>()
    };
    let all = AuditFilter::default();
    assert_eq!(list(all.clone(), None, 9).await, ["run/a:2", "run/b:1", "run/a:1"]);
    let after = AuditCursor { at: NOW + 1, resource: "run/b".to_owned(), number: 1 };
    assert_eq!(list(all.clone(), Some(after), 9).await, ["run/a:1"]);
    let text = |text: &str| Some(text.to_owned());
    let by = AuditFilter { actor: text("mallory"), ..all.clone() };
    assert_eq!(list(by, None, 9).await, ["run/a:2"]);
    let done = AuditFilter { action: text("run.pause"), ..all.clone() };
    assert_eq!(list(done, None, 9).await, ["run/b:1"]);
    let of = AuditFilter { resource: text("run/a"), since: Some(NOW + 2), ..all.clone() };
    assert_eq!(list(of, None, 9).await, ["run/a:2"]);
    let until = AuditFilter { until: Some(NOW + 2), ..all };
    assert_eq!(list(until, None, 1).await, ["run/b:1"]);
}

pub(crate) async fn a_seal_covers_the_heads_it_names_and_nothing_later(world: World) {
    let store = &world.store;
    let rows = vec![audit("run/a", 1), audit("run/a", 2), audit("run/b", 1)];
    add(&world, rows.clone()).await;
    let heads = store.unsealed_heads(9).await.unwrap();
    assert_eq!(heads, [head(&rows[1]), head(&rows[2])]);
    assert_eq!(store.unsealed_heads(1).await.unwrap(), heads[..1]);
    add(&world, vec![audit("run/a", 3)]).await;
    assert!(store.seal(&audit("seal", 1), &heads).await.unwrap());
    let later = store.unsealed_heads(9).await.unwrap();
    assert_eq!(later, [head(&audit("run/a", 3))]);
    assert!(!store.seal(&audit("seal", 1), &later).await.unwrap(), "the number is taken");
    assert_eq!(store.unsealed_heads(9).await.unwrap(), later, "and nothing was done");
    assert!(store.seal(&audit("seal", 2), &later).await.unwrap());
    assert_eq!(store.unsealed_heads(9).await.unwrap(), []);
    assert_eq!(store.audit_chain("seal", 0, 9).await.unwrap().len(), 2);
    let many = vec![head(&audit("run/a", 1)); store::limits::SEAL_HEADS_MAX + 1];
    let refused = store.seal(&audit("seal", 3), &many).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
}

pub(crate) async fn one_of_many_takes_a_number(world: World) {
    let adding = (0..8).map(|number| {
        let store = std::sync::Arc::clone(&world.store);
        let mut row = audit("run/a", 1);
        row.actor = format!("actor {number}");
        let change = Change { audit: vec![row], ..Change::default() };
        tokio::spawn(async move { store.change(&change).await.unwrap() })
    });
    let mut done = 0;
    for added in adding.collect::<Vec<_>>() {
        match added.await.unwrap() {
            Changed::Done => done += 1,
            other => assert_eq!(other, Changed::Conflict),
        }
    }
    assert_eq!(done, 1);
}
