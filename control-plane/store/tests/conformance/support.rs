//! A store on a new database, and short ways to make what goes into it.

use std::sync::Arc;

use engine::{ContentHash, Instant, RunId};
use store::testing::TestDatabase;
use store::{
    AuditRow, Commit, Cursor, DeadLetterRow, DocumentRow, JournalRow, Outcome, OwnerId, RequestRow,
    RunRow, Store,
};
use uuid::Uuid;

/// The time that most things happen at.
pub(crate) const NOW: i64 = 1_800_000_000_000_000;
pub(crate) const SECOND: i64 = 1_000_000;

/// Closed before its database goes, by dropping in this order.
pub(crate) struct World {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) database: TestDatabase,
}

impl World {
    pub(crate) async fn new(database: TestDatabase) -> Self {
        let store = store::open(database.url()).await.unwrap();
        Self { store, database }
    }

    /// On tables in memory; the database beside them is not used.
    pub(crate) fn in_memory() -> Self {
        let store = store::testing::memory::Memory::new().open();
        Self { store, database: store::testing::sqlite() }
    }

    /// Commits one transition that wins.
    pub(crate) async fn win(&self, commit: Commit) -> Commit {
        let outcomes = self.store.commit(std::slice::from_ref(&commit)).await.unwrap();
        assert_eq!(outcomes, [Outcome::Committed]);
        commit
    }

    /// Commits one transition.
    pub(crate) async fn commit(&self, commit: Commit) -> Outcome {
        self.store.commit(&[commit]).await.unwrap().remove(0)
    }
}

/// The same number, the same run; ids rise with numbers.
pub(crate) fn run(number: u64) -> RunId {
    let origin = RunId::at_instant(Instant(NOW + number as i64 * 1000), "run");
    RunId(Uuid::from_u128(origin.0.as_u128()))
}

pub(crate) fn owner(number: u128) -> OwnerId {
    OwnerId(Uuid::from_u128(number))
}

pub(crate) fn event(seq: i64) -> JournalRow {
    let body = format!("{{\"seq\":{seq}}}").into_bytes();
    JournalRow { seq, at: NOW + seq, kind: 3, schema: 1, body: body.into() }
}

/// A start with `events` events.
pub(crate) fn start(number: u64, events: i64) -> Commit {
    let row = RunRow {
        run_id: run(number),
        tenant: "default".to_owned(),
        workflow: "build".to_owned(),
        version_name: "1.0.0".to_owned(),
        definition_hash: ContentHash::of(b"name: build"),
        status: 1,
        version: events,
        owner: Some(owner(1)),
        created_at: NOW + number as i64,
        ended_at: None,
        parent: None,
        priority: 0,
        labels: b"{}".to_vec(),
        summary: b"{}".to_vec(),
        wake_at: None,
    };
    Commit {
        run: row.run_id,
        expected_version: 0,
        events: (1..=events).map(event).collect(),
        row,
        request: None,
        dead_letters: Vec::new(),
        remove_dead_letters: Vec::new(),
        blobs: Vec::new(),
        documents: Vec::new(),
        audit: Vec::new(),
    }
}

/// What follows `commit`, with `events` more events.
pub(crate) fn next(commit: &Commit, events: i64) -> Commit {
    let expected = commit.row.version;
    let mut next = start(0, 0);
    next.run = commit.run;
    next.expected_version = expected;
    next.row = RunRow { version: expected + events, status: 2, ..commit.row.clone() };
    next.events = (expected + 1..=expected + events).map(event).collect();
    next
}

/// The same with its end.
pub(crate) fn ended(mut commit: Commit, at: i64) -> Commit {
    commit.row.ended_at = Some(at);
    commit
}

pub(crate) fn with_body(mut commit: Commit, body: Vec<u8>) -> Commit {
    commit.events.last_mut().unwrap().body = body.into();
    commit
}

pub(crate) fn with_request(mut commit: Commit, id: &str) -> Commit {
    commit.request = Some(request(id));
    commit
}

pub(crate) fn request(id: &str) -> RequestRow {
    RequestRow {
        tenant: "default".to_owned(),
        request_id: id.to_owned(),
        run_id: None,
        body_hash: ContentHash::of(id.as_bytes()),
        at: NOW,
        response: None,
    }
}

pub(crate) fn dead_letter(commit: &Commit, id: &str, at: i64) -> DeadLetterRow {
    DeadLetterRow {
        id: id.to_owned(),
        tenant: "default".to_owned(),
        run_id: commit.run,
        workflow: commit.row.workflow.clone(),
        step: "build[3].deploy".to_owned(),
        at,
        body: b"{\"error\":\"lost\"}".to_vec(),
    }
}

/// The first version of a document.
pub(crate) fn document(kind: i16, id: &str, created_at: i64) -> DocumentRow {
    DocumentRow {
        kind,
        id: id.to_owned(),
        tenant: "default".to_owned(),
        parent: None,
        status: 1,
        created_at,
        updated_at: created_at,
        due_at: None,
        version: 1,
        body: b"{}".to_vec(),
    }
}

/// An entry of the audit log, which follows that of the number before.
pub(crate) fn audit(resource: &str, number: i64) -> AuditRow {
    let hash = |number: i64| match number {
        0 => ContentHash([0; 32]),
        _ => ContentHash::of(format!("{resource} {number}").as_bytes()),
    };
    AuditRow {
        resource: resource.to_owned(),
        number,
        at: NOW + number,
        actor: "ann".to_owned(),
        action: "run.cancel".to_owned(),
        body: b"{\"reason\":\"late\"}".to_vec(),
        previous: hash(number - 1),
        hash: hash(number),
    }
}

/// Removes what ended before `before`; gives how many.
pub(crate) async fn delete_finished(world: &World, before: i64) -> u64 {
    let before = Cursor { at: before, id: RunId(Uuid::nil()) };
    world.store.delete_finished(before, None, 100).await.unwrap().runs
}

/// Content that no row holds, another for each number.
pub(crate) fn long(number: u8) -> Vec<u8> {
    let size = store::limits::JOURNAL_BODY_BYTES_MAX + 1;
    (0..size).map(|place| number ^ (place % 251) as u8).collect()
}

pub(crate) fn is_refused(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Refused { .. })
}

/// Something done behind the store's back.
pub(crate) async fn execute(url: &str, sql: &'static str) {
    use sqlx::Connection as _;
    if url.starts_with("sqlite") {
        let mut connection = sqlx::SqliteConnection::connect(url).await.unwrap();
        sqlx::query(sql).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    } else {
        let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
        sqlx::query(sql).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }
}
