//! Who remembers: the runs, their journals and everything else that must outlive a process.
//!
//! One trait in domain words, [`Store`], with SQLite and PostgreSQL behind it; both pass the same
//! conformance suite. SQL stands in this crate alone. The store reads no clock (times are handed
//! in) and knows nothing of what the bytes in a journal row mean.

pub mod backup;
mod batch;
mod document;
mod error;
#[cfg(feature = "testing")]
pub mod faulty;
mod migration;
mod pack;
mod postgres;
mod rows;
mod sqlite;
#[cfg(feature = "testing")]
pub mod testing;

use std::sync::Arc;

use async_trait::async_trait;
use engine::{ContentHash, RunId};

pub use document::{
    AuditCursor, AuditFilter, AuditHead, AuditRow, Change, Changed, DocumentFilter, DocumentRow,
    DocumentWrite,
};
pub use error::Error;
pub use rows::{
    Adoption, Collected, Commit, Cursor, DeadLetterFilter, DeadLetterRow, Deleted, Discarded,
    Facts, Heartbeat, JournalRow, KeyChange, KeyRow, Micros, NewReplica, Outcome, OwnerId, Parking,
    Registration, ReplicaRow, ReplicaStatus, RequestRow, RunFilter, RunRow, ScheduleId,
    ScheduleRow, Standing, Tended, WorkflowRow,
};

/// The newest schema that this release knows.
pub const SCHEMA_KNOWN: i64 = migration::KNOWN;

/// Bounds of the store, all in one place.
pub mod limits {
    /// Transitions in one batch of [`commit`](crate::Store::commit).
    pub const BATCH_TRANSITIONS_MAX: usize = 500;
    /// Events in one batch.
    pub const BATCH_EVENTS_MAX: usize = 100_000;
    /// Bytes of one batch: bodies, summaries and the like.
    pub const BATCH_BYTES_MAX: usize = 256 * 1024 * 1024;
    /// Rows of one page; a greater limit is cut to it.
    pub const PAGE_ROWS_MAX: u32 = 1000;
    /// A journal body longer than this is kept as a content-addressed blob.
    pub const JOURNAL_BODY_BYTES_MAX: usize = 16 * 1024;
    /// Events of one transition share a row of the journal up to this size. Small enough that
    /// PostgreSQL keeps the row in its table as it is.
    pub const PACKED_BYTES_MAX: usize = 1800;
    /// A blob.
    pub const BLOB_BYTES_MAX: usize = 64 * 1024 * 1024;
    /// A name, id or other short text that stands in a column of its own.
    pub const TEXT_BYTES_MAX: usize = 512;
    /// The path of a step.
    pub const STEP_BYTES_MAX: usize = 4096;
    /// How long after the end of a child run its parked parent wakes by itself, in microseconds:
    /// as a rule it was told by then.
    pub const PARENT_WAKES_AFTER: i64 = 2_000_000;
    /// How many runs are folded, or keys changed, at once.
    pub const RUNS_AT_ONCE_MAX: usize = 1000;
    /// Bytes of bodies of the runs that are folded at once.
    pub const FOLDED_BYTES_MAX: usize = 64 * 1024 * 1024;
    /// A definition.
    pub const DEFINITION_BYTES_MAX: usize = 1024 * 1024;
    /// A document.
    pub const DOCUMENT_BYTES_MAX: usize = 32 * 1024 * 1024;
    /// What an entry of the audit log says.
    pub const AUDIT_BODY_BYTES_MAX: usize = 256 * 1024;
    /// Documents and entries of the audit log in one change.
    pub const CHANGE_ROWS_MAX: usize = 11_000;
    /// Chains that one seal covers.
    pub const SEAL_HEADS_MAX: usize = 250;
}

/// Opens the database at `url` and brings its schema up to date.
///
/// `sqlite:/path/file.db` (made when it is not there) or `postgres://user@host/database`.
///
/// # Errors
/// [`Error::Url`] when the address is not one of these, [`Error::NewerSchema`] when a newer
/// release has been at work on it that this one cannot work beside, [`Error::Unavailable`] when
/// it cannot be reached.
pub async fn open(url: &str) -> Result<Arc<dyn Store>, Error> {
    open_as(url, migration::KNOWN).await
}

/// The same as a release whose newest schema is `known`.
async fn open_as(url: &str, known: i64) -> Result<Arc<dyn Store>, Error> {
    match url.split_once(':').map_or("", |(scheme, _)| scheme) {
        "sqlite" => Ok(Arc::new(sqlite::open(url, known).await?)),
        "postgres" | "postgresql" => Ok(Arc::new(postgres::open(url, known).await?)),
        // The address itself is not repeated: it may hold a password.
        _ => Err(Error::Url(
            "write sqlite:/path/file.db or postgres://user@host/database".to_owned(),
        )),
    }
}

/// The memory of the control plane.
///
/// Limits of pages are cut to [`limits::PAGE_ROWS_MAX`]. Every `at` and `before` is a time that
/// the caller read from its clock.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Commits transitions of many runs in one transaction, a run at most once in a batch.
    ///
    /// Gives an [`Outcome`] for each, in order; one that loses, loses alone. A transition wins when
    /// the stored version is `expected_version` and the stored owner is `row.owner`: a commit never
    /// changes the owner, only [`adopt`](Self::adopt) does. Bodies over
    /// [`limits::JOURNAL_BODY_BYTES_MAX`] are kept as blobs and come back whole. With the end of a
    /// run, its parent, if that is parked, wakes [`limits::PARENT_WAKES_AFTER`] later at the
    /// latest, whether or not anybody lives to tell it.
    ///
    /// # Errors
    /// [`Error::Unknown`] when it cannot be told whether the batch was written: adopt each of its
    /// runs again, commit the adoption, and fold. After every other error nothing was written.
    async fn commit(&self, batch: &[Commit]) -> Result<Vec<Outcome>, Error>;

    /// Makes `owner` the owner of a run, finished or not, and gives the row as it then is.
    ///
    /// Waits for a commit of that run in flight. It raises no version and writes no journal: the
    /// adoption's event comes by [`commit`](Self::commit) with the version found here. From then on
    /// commits of every other owner lose. `None` when there is no such run.
    async fn adopt(&self, run: RunId, owner: OwnerId, at: Micros) -> Result<Option<RunRow>, Error>;

    /// Makes `to` the owner of a run that `from` owns; `None`: that nobody owns. Otherwise as
    /// [`adopt`](Self::adopt).
    async fn take_over(
        &self,
        run: RunId,
        from: Option<OwnerId>,
        to: OwnerId,
        at: Micros,
    ) -> Result<Adoption, Error>;

    /// Makes `to` the owner of at most `limit` unfinished runs of `from`, and gives their rows.
    /// Those that a commit is about to change are passed over; ask again.
    async fn adopt_from(
        &self,
        from: OwnerId,
        to: OwnerId,
        at: Micros,
        limit: u32,
    ) -> Result<Vec<RunRow>, Error>;

    /// The same with unfinished runs whose owner is no replica. It may be asked often: it costs
    /// nothing for each run that waits.
    async fn adopt_orphans(
        &self,
        to: OwnerId,
        at: Micros,
        limit: u32,
    ) -> Result<Vec<RunRow>, Error>;

    /// The same with unfinished runs that have no owner and are not parked, which nothing leaves
    /// behind that this store did. It looks at all that are parked.
    async fn adopt_unowned(
        &self,
        to: OwnerId,
        at: Micros,
        limit: u32,
    ) -> Result<Vec<RunRow>, Error>;

    /// Many runs at once as [`fold`](Self::fold) gives one; those that are not there, are being
    /// changed this moment, or do not fit into [`limits::FOLDED_BYTES_MAX`] beside others are left
    /// out.
    ///
    /// # Errors
    /// [`Error::Invalid`] for more than [`limits::RUNS_AT_ONCE_MAX`].
    async fn fold_many(&self, runs: &[RunId]) -> Result<Vec<(RunRow, Vec<JournalRow>)>, Error>;

    /// Leaves runs to nobody, as far as they still have the version named and belong to `owner`,
    /// and no child run that they wait for has ended or is missing; gives which. One whose child
    /// is being written just now may be left out.
    async fn park(&self, owner: OwnerId, parkings: &[Parking]) -> Result<Vec<RunId>, Error>;

    /// Makes `to` the owner of at most `limit` parked runs whose time has come.
    async fn wake_due(&self, to: OwnerId, now: Micros, limit: u32) -> Result<Vec<RunRow>, Error>;

    /// When the first parked run wakes.
    async fn next_wake(&self) -> Result<Option<Micros>, Error>;

    /// Who has these runs; those that are not there are left out.
    async fn standings(&self, runs: &[RunId]) -> Result<Vec<Standing>, Error>;

    /// How many unfinished runs each owner has; those of `None` are parked.
    async fn count_owned(&self) -> Result<Vec<(Option<OwnerId>, u64)>, Error>;

    /// Adds a replica. Its epoch is greater than every one before, and not less than `at`. The
    /// journal then has room for what comes, as after [`tend_journal`](Self::tend_journal).
    async fn join(&self, replica: &NewReplica, at: Micros) -> Result<ReplicaRow, Error>;

    /// Raises a replica's counter, unless it is fenced or gone, and tells how all stand.
    async fn heartbeat(
        &self,
        id: OwnerId,
        status: ReplicaStatus,
        at: Micros,
    ) -> Result<Heartbeat, Error>;

    /// Fences a replica whose counter is still `seen_lease`, or whatever it is. Gives whether it
    /// is now fenced or gone.
    async fn fence(&self, id: OwnerId, seen_lease: Option<i64>) -> Result<bool, Error>;

    /// All replicas by epoch.
    async fn replicas(&self) -> Result<Vec<ReplicaRow>, Error>;

    /// Removes a fenced replica that owns no unfinished run; gives whether it did.
    async fn remove_replica(&self, id: OwnerId) -> Result<bool, Error>;

    /// The rows of these keys; those that are not there are left out.
    async fn keys(&self, kind: i16, keys: &[&str]) -> Result<Vec<KeyRow>, Error>;

    /// Rows of keys by (kind, key), past `after`.
    async fn list_keys(&self, after: Option<(i16, &str)>, limit: u32)
    -> Result<Vec<KeyRow>, Error>;

    /// Changes rows of keys in one transaction, a key at most once; gives for each whether its
    /// version was the expected one. Those for which it was not change nothing.
    async fn put_keys(&self, changes: &[KeyChange]) -> Result<Vec<bool>, Error>;

    /// A run and its whole journal in order, bodies resolved.
    async fn fold(&self, run: RunId) -> Result<Option<(RunRow, Vec<JournalRow>)>, Error>;

    /// Gives `each` the events of a journal up to the version of `row`, in order, bodies resolved,
    /// as they are read: however long a journal is, it is never in memory as a whole. `false`, be
    /// it after some events, when the run has been removed meanwhile.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when events are missing; what `each` was given is of no use then.
    async fn replay(
        &self,
        row: &RunRow,
        each: &mut (dyn FnMut(JournalRow) + Send),
    ) -> Result<bool, Error>;

    /// Runs that have not ended, by id, past `after`.
    async fn unfinished(&self, after: Option<RunId>, limit: u32) -> Result<Vec<RunRow>, Error>;

    /// A run's journal past `after_seq`, in order, bodies resolved.
    async fn journal(
        &self,
        run: RunId,
        after_seq: i64,
        limit: u32,
    ) -> Result<Vec<JournalRow>, Error>;

    /// One run.
    async fn run(&self, run: RunId) -> Result<Option<RunRow>, Error>;

    /// A page of runs by (creation time, id), past `after` in the direction asked for.
    async fn runs(
        &self,
        filter: &RunFilter,
        after: Option<Cursor<RunId>>,
        ascending: bool,
        limit: u32,
    ) -> Result<Vec<RunRow>, Error>;

    /// Keeps a definition under the hash of its text; keeping it twice is keeping it once.
    async fn put_definition(&self, hash: ContentHash, yaml: &str) -> Result<(), Error>;

    /// The text of a definition.
    async fn definition(&self, hash: ContentHash) -> Result<Option<String>, Error>;

    /// Registers a version of a workflow.
    ///
    /// A version that is there is replaced only when `replace`, and then only when `etag`, if
    /// given, is the stored one. An `etag` given for a version that is not there is a mismatch.
    /// `audit` is written with it or not at all.
    async fn register_workflow(
        &self,
        row: &WorkflowRow,
        replace: bool,
        etag: Option<&str>,
        audit: &[AuditRow],
    ) -> Result<Registration, Error>;

    /// A version of a workflow; without `version` the one first registered last.
    async fn workflow(
        &self,
        tenant: &str,
        name: &str,
        version: Option<&str>,
    ) -> Result<Option<WorkflowRow>, Error>;

    /// Versions of workflows by (name, version), past `after`; of one workflow when `name` is
    /// given.
    async fn workflows(
        &self,
        tenant: &str,
        name: Option<&str>,
        after: Option<(&str, &str)>,
        limit: u32,
    ) -> Result<Vec<WorkflowRow>, Error>;

    /// Adds a schedule, or gives one that is there a new `spec`; gives the row as it then is.
    ///
    /// Version, last instant and owner of a row that is there stay, save that another `spec` raises
    /// the version.
    async fn put_schedule(&self, id: &ScheduleId, spec: &[u8]) -> Result<ScheduleRow, Error>;

    /// All schedules, by id, past `after`.
    async fn schedules(
        &self,
        after: Option<&ScheduleId>,
        limit: u32,
    ) -> Result<Vec<ScheduleRow>, Error>;

    /// Notes that `owner` took `instant` of a schedule whose version is still `expected_version`,
    /// and raises the version. Gives whether it was.
    async fn advance_schedule(
        &self,
        id: &ScheduleId,
        expected_version: i64,
        instant: Micros,
        owner: OwnerId,
    ) -> Result<bool, Error>;

    /// Removes a schedule; gives whether it was there.
    async fn delete_schedule(&self, id: &ScheduleId) -> Result<bool, Error>;

    /// What was answered to a request, if it is known.
    async fn request(&self, tenant: &str, request_id: &str) -> Result<Option<RequestRow>, Error>;

    /// Notes a request that belongs to no commit; gives the row that is there already instead.
    async fn put_request(&self, row: &RequestRow) -> Result<Option<RequestRow>, Error>;

    /// Forgets at most `limit` requests from before `before`; gives how many.
    async fn expire_requests(&self, before: Micros, limit: u32) -> Result<u64, Error>;

    /// A page of dead letters by (time, id), the newest first, past `after`.
    async fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
        after: Option<Cursor<String>>,
        limit: u32,
    ) -> Result<Vec<DeadLetterRow>, Error>;

    /// One dead letter.
    async fn dead_letter(&self, id: &str) -> Result<Option<DeadLetterRow>, Error>;

    /// Removes a dead letter, and writes `audit` with that or not at all.
    async fn delete_dead_letter(&self, id: &str, audit: &[AuditRow]) -> Result<Discarded, Error>;

    /// Keeps `bytes` under their hash, and touches them if they are there already.
    async fn put_blob(&self, bytes: &[u8], at: Micros) -> Result<ContentHash, Error>;

    /// The bytes of that hash.
    async fn blob(&self, hash: ContentHash) -> Result<Option<Vec<u8>>, Error>;

    /// Looks at the next `limit` blobs that nothing touched since `before`, by (touch, hash), past
    /// `after`, and removes those that no run refers to.
    async fn collect_blobs(
        &self,
        before: Micros,
        after: Option<Cursor<ContentHash>>,
        limit: u32,
    ) -> Result<Collected, Error>;

    /// The place of the oldest run among the `keep_newest` that ended last, by (end, id); `None`
    /// when fewer have ended. What is before it is more than is to be kept.
    async fn oldest_kept(&self, keep_newest: u64) -> Result<Option<Cursor<RunId>>, Error>;

    /// Looks at the next `limit` runs that ended, by (end, id), past `after` and before `before`,
    /// and removes those that may go with all that is theirs. A run stays as long as its parent.
    async fn delete_finished(
        &self,
        before: Cursor<RunId>,
        after: Option<Cursor<RunId>>,
        limit: u32,
    ) -> Result<Deleted, Error>;

    /// Makes room in the journal for what comes, and gives room back that no run needs any more.
    ///
    /// Few runs that began before `passed` and are still there may be moved for that; what began
    /// before should be gone by and large. Where a lock is not to be had soon, nothing is done.
    async fn tend_journal(&self, now: Micros, passed: Micros) -> Result<Tended, Error>;

    /// Writes documents, entries of the audit log and the request behind them: all or nothing.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what breaks a limit or writes a document twice. After
    /// [`Error::Unknown`] ask again with the same request: it tells whether the change was written.
    async fn change(&self, change: &Change) -> Result<Changed, Error>;

    /// One document.
    async fn document(&self, kind: i16, id: &str) -> Result<Option<DocumentRow>, Error>;

    /// Those documents of one kind that are there of these ids, in any order. Of more ids than a
    /// page has rows, the first ones.
    async fn documents_of(&self, kind: i16, ids: &[String]) -> Result<Vec<DocumentRow>, Error>;

    /// A page of documents of one kind by (creation time, id), past `after` in the direction asked
    /// for.
    async fn documents(
        &self,
        filter: &DocumentFilter,
        after: Option<Cursor<String>>,
        ascending: bool,
        limit: u32,
    ) -> Result<Vec<DocumentRow>, Error>;

    /// Documents of one kind that are due at `until`, by (due time, id).
    async fn due_documents(
        &self,
        kind: i16,
        until: Micros,
        limit: u32,
    ) -> Result<Vec<DocumentRow>, Error>;

    /// One chain of the audit log past number `after`, in order.
    async fn audit_chain(
        &self,
        resource: &str,
        after: i64,
        limit: u32,
    ) -> Result<Vec<AuditRow>, Error>;

    /// A page of the audit log by (time, chain, number), the newest first, past `after`.
    async fn audit_entries(
        &self,
        filter: &AuditFilter,
        after: Option<AuditCursor>,
        limit: u32,
    ) -> Result<Vec<AuditRow>, Error>;

    /// The last entry of a chain.
    async fn audit_head(&self, resource: &str) -> Result<Option<AuditHead>, Error>;

    /// The last entries of all chains by their names, past `after`.
    async fn audit_heads(&self, after: Option<&str>, limit: u32) -> Result<Vec<AuditHead>, Error>;

    /// The last entries of chains that [`seal`](Self::seal) did not cover since they were added
    /// to.
    async fn unsealed_heads(&self, limit: u32) -> Result<Vec<AuditHead>, Error>;

    /// Adds a seal to its chain, and notes that it covers `heads`; gives false, and does nothing,
    /// when an entry of its number is there.
    async fn seal(&self, seal: &AuditRow, heads: &[AuditHead]) -> Result<bool, Error>;

    /// What the database says of itself.
    async fn facts(&self) -> Result<Facts, Error>;

    /// Whether the database answers.
    async fn health(&self) -> Result<(), Error>;

    /// `sqlite` or `postgres`.
    fn kind(&self) -> &'static str;

    /// Closes all connections once what is under way has ended; later calls are unavailable.
    async fn close(&self);
}
