//! Backups: from either database into either, while it is written to, and never by half.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::{ContentHash, Instant, RunId};
use store::backup::{Summary, backup, restore, verify};
use store::testing::TestDatabase;
use store::{
    AuditRow, Change, Changed, Commit, DeadLetterRow, DocumentRow, DocumentWrite, Error,
    JournalRow, KeyChange, Outcome, OwnerId, Parking, RequestRow, RunRow, ScheduleId, Store,
};
use uuid::Uuid;

const NOW: i64 = 1_800_000_000_000_000;

fn run(number: u64) -> RunId {
    RunId::at_instant(Instant(NOW + 1000 * number as i64), "run")
}

fn owner() -> OwnerId {
    OwnerId(Uuid::from_u128(1))
}

/// The first transition, or one that follows it.
fn transition(number: u64, expected: i64, body: Vec<u8>) -> Commit {
    let row = RunRow {
        run_id: run(number),
        tenant: "default".to_owned(),
        workflow: "build".to_owned(),
        version_name: "1.0.0".to_owned(),
        definition_hash: ContentHash::of(b"name: build"),
        status: 1,
        version: expected + 2,
        owner: Some(owner()),
        created_at: NOW,
        ended_at: None,
        parent: (number > 1).then(|| run(1)),
        priority: 5,
        labels: b"{}".to_vec(),
        summary: b"{\"a\":1}".to_vec(),
        wake_at: Some(NOW),
    };
    let event = |seq| JournalRow { seq, at: NOW, kind: 3, schema: 1, body: body.clone().into() };
    Commit {
        run: row.run_id,
        expected_version: expected,
        events: (expected + 1..=expected + 2).map(event).collect(),
        row,
        request: None,
        dead_letters: Vec::new(),
        remove_dead_letters: Vec::new(),
        blobs: Vec::new(),
        documents: Vec::new(),
        audit: Vec::new(),
    }
}

/// Something in every table.
async fn fill(store: &Arc<dyn Store>) {
    let mut first = transition(1, 0, b"{\"x\":\"\\u00e4\"}".to_vec());
    first.request = Some(RequestRow {
        tenant: "default".to_owned(),
        request_id: "r1".to_owned(),
        run_id: None,
        body_hash: ContentHash::of(b"r1"),
        at: NOW,
        response: Some(b"answer".to_vec()),
    });
    first.dead_letters = vec![DeadLetterRow {
        id: "d1".to_owned(),
        tenant: "default".to_owned(),
        run_id: run(1),
        workflow: "build".to_owned(),
        step: "deploy".to_owned(),
        at: NOW,
        body: b"{}".to_vec(),
    }];
    // Beyond what a row holds.
    let long = transition(2, 0, vec![b'y'; 100_000]);
    let parked = transition(3, 0, b"{}".to_vec());
    let outcomes = store.commit(&[first, long, parked]).await.unwrap();
    assert_eq!(outcomes, vec![Outcome::Committed; 3]);
    store.put_definition(ContentHash::of(b"name: build"), "name: build").await.unwrap();
    let parking = Parking { run: run(3), version: 2, wake_at: Some(NOW + 5), children: Vec::new() };
    assert_eq!(store.park(owner(), &[parking]).await.unwrap(), [run(3)]);
    let id = |text: &str| text.to_owned();
    let schedule =
        ScheduleId { tenant: id("default"), workflow: id("build"), schedule: id("* * * * *") };
    store.put_schedule(&schedule, b"{}").await.unwrap();
    let change = KeyChange {
        kind: 1,
        key: "k".to_owned(),
        expected_version: 0,
        version: 9,
        body: Some(b"{}".to_vec()),
    };
    store.put_keys(&[change]).await.unwrap();
    assert_eq!(store.change(&decision()).await.unwrap(), Changed::Done);
}

/// A document and what the audit log says of it.
fn decision() -> Change {
    let row = DocumentRow {
        kind: 6,
        id: "e1".to_owned(),
        tenant: "default".to_owned(),
        parent: Some(run(1).to_string()),
        status: 2,
        created_at: NOW,
        updated_at: NOW + 1,
        due_at: Some(NOW + 2),
        version: 3,
        body: b"{}".to_vec(),
    };
    let audit = AuditRow {
        resource: "escalation/e1".to_owned(),
        number: 1,
        at: NOW,
        actor: "ann".to_owned(),
        action: "escalation.decide".to_owned(),
        body: b"{}".to_vec(),
        previous: ContentHash([0; 32]),
        hash: ContentHash::of(b"e1"),
    };
    let documents = vec![DocumentWrite { row, expected_version: 0 }];
    Change { documents, audit: vec![audit], request: None }
}

async fn save(url: &str) -> (Vec<u8>, Summary) {
    let mut bytes = Vec::new();
    let summary = backup(url, &mut bytes).await.unwrap();
    (bytes, summary)
}

async fn moves(from: &TestDatabase, to: &TestDatabase) {
    let before = store::open(from.url()).await.unwrap();
    fill(&before).await;
    let (bytes, made) = save(from.url()).await;
    assert_eq!(verify(&*bytes).unwrap(), made);
    let restored = restore(to.url(), &*bytes).await.unwrap();
    assert_eq!(restored, made);
    assert_eq!((made.rows_of("runs"), made.rows_of("parked")), (3, 1));
    let after = store::open(to.url()).await.unwrap();
    for number in 1..=3 {
        let (was, is) = (before.fold(run(number)).await, after.fold(run(number)).await);
        assert_eq!(was.unwrap().unwrap(), is.unwrap().unwrap());
    }
    let request = after.request("default", "r1").await.unwrap().unwrap();
    assert_eq!(request, before.request("default", "r1").await.unwrap().unwrap());
    assert_eq!(after.dead_letter("d1").await.unwrap(), before.dead_letter("d1").await.unwrap());
    assert_eq!(after.next_wake().await.unwrap(), Some(NOW + 5));
    assert_eq!(after.keys(1, &["k"]).await.unwrap()[0].version, 9);
    assert_eq!(after.schedules(None, 9).await.unwrap().len(), 1);
    assert_eq!(after.document(6, "e1").await.unwrap().unwrap(), decision().documents[0].row);
    assert_eq!(after.audit_chain("escalation/e1", 0, 9).await.unwrap(), decision().audit);
    assert_eq!(after.unsealed_heads(9).await.unwrap(), before.unsealed_heads(9).await.unwrap());
    // It goes on, owned by whoever takes it.
    let next = transition(1, 2, b"{}".to_vec());
    assert_eq!(after.commit(&[next]).await.unwrap(), [Outcome::Committed]);
    // What is there already is not written over.
    let again = restore(to.url(), &*bytes).await.unwrap_err();
    assert!(again.to_string().contains("not empty"), "{again}");
    let (second, _) = save(to.url()).await;
    assert_eq!(verify(&*second).unwrap().rows_of("journal"), made.rows_of("journal") + 1);
    before.close().await;
    after.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_is_restored_into_sqlite() {
    moves(&store::testing::sqlite(), &store::testing::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_moves_to_postgresql() {
    moves(&store::testing::sqlite(), &store::testing::postgres().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_moves_to_sqlite() {
    moves(&store::testing::postgres().await, &store::testing::sqlite()).await;
}

/// Runs go on while backups are taken; in each, every run's journal fits its row.
async fn stays_whole(from: TestDatabase) {
    let store = store::open(from.url()).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (store, stop) = (Arc::clone(&store), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut version = 0;
            while !stop.load(Ordering::SeqCst) {
                let batch: Vec<_> =
                    (1..=20).map(|number| transition(number, version, b"{}".to_vec())).collect();
                store.commit(&batch).await.unwrap();
                version += 2;
            }
        })
    };
    while store.run(run(20)).await.unwrap().is_none_or(|row| row.version < 10) {
        tokio::task::yield_now().await;
    }
    for _ in 0..3 {
        let (bytes, _) = save(from.url()).await;
        let to = store::testing::sqlite();
        restore(to.url(), &*bytes).await.unwrap();
        let restored = store::open(to.url()).await.unwrap();
        for number in 1..=20 {
            // A journal with a gap is an error of its own.
            let (row, journal) = restored.fold(run(number)).await.unwrap().unwrap();
            assert_eq!(row.version, journal.len() as i64);
        }
        restored.close().await;
    }
    stop.store(true, Ordering::SeqCst);
    writer.await.unwrap();
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_is_one_moment_of_sqlite() {
    stays_whole(store::testing::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_is_one_moment_of_postgresql() {
    stays_whole(store::testing::postgres().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_damaged_restores_nothing() {
    let from = store::testing::sqlite();
    let store = store::open(from.url()).await.unwrap();
    fill(&store).await;
    let (bytes, _) = save(from.url()).await;
    store.close().await;
    let to = store::testing::sqlite();
    let cut = &bytes[..bytes.len() - 9];
    let mut turned = bytes.clone();
    let middle = turned.len() / 2;
    turned[middle] ^= 0x40;
    for (what, bytes) in [("cut", cut), ("turned", &turned), ("text", b"name: build"), ("", b"")] {
        assert!(matches!(verify(bytes), Err(Error::Invalid(_))), "{what}");
        let refused = restore(to.url(), bytes).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{what}: {refused:?}");
    }
    let empty = store::open(to.url()).await.unwrap();
    assert_eq!(empty.run(run(1)).await.unwrap(), None);
    assert_eq!(empty.definition(ContentHash::of(b"name: build")).await.unwrap(), None);
    empty.close().await;
    restore(to.url(), &*bytes).await.unwrap();
}

#[tokio::test]
async fn what_is_not_there_is_not_made_by_a_backup() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.db");
    let missing = backup(&format!("sqlite:{}", path.display()), Vec::new()).await;
    assert!(matches!(missing, Err(Error::Unavailable(_))), "{missing:?}");
    assert!(!path.exists());
}
