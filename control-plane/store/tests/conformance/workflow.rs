//! Definitions, and versions of workflows.

use engine::ContentHash;
use store::{Error, Registration, WorkflowRow, limits};

use crate::support::{NOW, World};

fn row(name: &str, version: &str, content: &str) -> WorkflowRow {
    WorkflowRow {
        tenant: "default".to_owned(),
        name: name.to_owned(),
        version: version.to_owned(),
        definition_hash: ContentHash::of(content.as_bytes()),
        etag: format!("etag of {content}"),
        registered_at: NOW,
        summary: content.as_bytes().to_vec(),
    }
}

pub(crate) async fn definitions_are_kept_by_hash(world: World) {
    let text = "name: a\n# wörk\0flow";
    let hash = ContentHash::of(text.as_bytes());
    assert_eq!(world.store.definition(hash).await.unwrap(), None);
    for _ in 0..2 {
        world.store.put_definition(hash, text).await.unwrap();
        assert_eq!(world.store.definition(hash).await.unwrap().as_deref(), Some(text));
    }
    let long = "x".repeat(limits::DEFINITION_BYTES_MAX + 1);
    let refused = world.store.put_definition(hash, &long).await.unwrap_err();
    assert!(matches!(refused, Error::Invalid(_)), "{refused}");
}

pub(crate) async fn a_version_is_replaced_only_on_request(world: World) {
    let (first, second) = (row("a", "1", "first"), row("a", "1", "second"));
    let register =
        async |row, replace| world.store.register_workflow(row, replace, None, &[]).await.unwrap();
    assert_eq!(register(&first, false).await, Registration::Registered);
    assert_eq!(register(&second, false).await, Registration::Exists(first.clone()));
    let stored = world.store.workflow("default", "a", Some("1")).await.unwrap();
    assert_eq!(stored, Some(first.clone()));
    assert_eq!(register(&second, true).await, Registration::Registered);
    let stored = world.store.workflow("default", "a", Some("1")).await.unwrap();
    assert_eq!(stored, Some(second.clone()));
    assert_eq!(register(&row("b", "1", "new"), true).await, Registration::Registered);
    let entry = |number| [super::support::audit("workflow/c", number)];
    let audited = async |row, number| {
        world.store.register_workflow(row, false, None, &entry(number)).await.unwrap()
    };
    let (one, two) = (row("c", "1", "one"), row("c", "2", "two"));
    assert_eq!(audited(&one, 1).await, Registration::Registered);
    assert_eq!(audited(&two, 1).await, Registration::AuditTaken);
    assert_eq!(world.store.workflow("default", "c", Some("2")).await.unwrap(), None);
    assert_eq!(audited(&one, 2).await, Registration::Exists(one.clone()));
    let chain = world.store.audit_chain("workflow/c", 0, 9).await.unwrap();
    assert_eq!(chain, entry(1), "with the registration alone");
}

pub(crate) async fn an_etag_guards_a_replacement(world: World) {
    let (first, second) = (row("a", "1", "first"), row("a", "1", "second"));
    let register =
        async |row, etag| world.store.register_workflow(row, true, Some(etag), &[]).await.unwrap();
    let missing = Registration::EtagMismatch { stored: None };
    assert_eq!(register(&first, "etag of first").await, missing);
    world.store.register_workflow(&first, false, None, &[]).await.unwrap();
    let other = Registration::EtagMismatch { stored: Some("etag of first".to_owned()) };
    assert_eq!(register(&second, "etag of second").await, other);
    assert_eq!(register(&second, "etag of first").await, Registration::Registered);
}

pub(crate) async fn the_latest_version_is_the_one_registered_last(world: World) {
    for version in ["2", "10", "1"] {
        world.store.register_workflow(&row("a", version, version), false, None, &[]).await.unwrap();
    }
    let latest = async || world.store.workflow("default", "a", None).await.unwrap().unwrap();
    assert_eq!(latest().await.version, "1");
    world.store.register_workflow(&row("a", "2", "changed"), true, None, &[]).await.unwrap();
    assert_eq!(latest().await.version, "1", "a replacement is no new version");
    assert_eq!(world.store.workflow("other", "a", None).await.unwrap(), None);
    assert_eq!(world.store.workflow("default", "a", Some("3")).await.unwrap(), None);
}

pub(crate) async fn workflows_are_listed_by_pages(world: World) {
    for name in ["b", "a", "B", "ä"] {
        for version in ["2", "1"] {
            world
                .store
                .register_workflow(&row(name, version, name), false, None, &[])
                .await
                .unwrap();
        }
    }
    let (mut seen, mut after) = (Vec::new(), None::<(String, String)>);
    loop {
        let cursor = after.as_ref().map(|(name, version)| (&**name, &**version));
        let page = world.store.workflows("default", None, cursor, 3).await.unwrap();
        after = page.last().map(|row| (row.name.clone(), row.version.clone()));
        if page.is_empty() {
            break;
        }
        seen.extend(page.into_iter().map(|row| row.name + &row.version));
    }
    assert_eq!(seen, ["B1", "B2", "a1", "a2", "b1", "b2", "ä1", "ä2"]);
    let page = world.store.workflows("default", Some("b"), Some(("b", "1")), 10).await.unwrap();
    assert_eq!(page.len(), 1);
    assert_eq!(world.store.workflows("other", None, None, 10).await.unwrap(), []);
}
