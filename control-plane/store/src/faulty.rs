//! A store that fails on demand, for tests of what is built on it. It changes nothing else: what
//! gets through is what the store within does.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use engine::{ContentHash, RunId};

use crate::{
    Adoption, AuditCursor, AuditFilter, AuditHead, AuditRow, Change, Changed, Collected, Commit,
    Cursor, DeadLetterFilter, DeadLetterRow, Deleted, Discarded, DocumentFilter, DocumentRow,
    Error, Facts, Heartbeat, JournalRow, KeyChange, KeyRow, Micros, NewReplica, Outcome, OwnerId,
    Parking, Registration, ReplicaRow, ReplicaStatus, RequestRow, RunFilter, RunRow, ScheduleId,
    ScheduleRow, Standing, Store, Tended, WorkflowRow,
};

/// What happens to a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is written, but the answer is lost.
    UnknownWritten,
    /// It is not written, and that cannot be told.
    UnknownLost,
    /// It is not written, and that is certain.
    Unavailable,
    /// There is no room to write it.
    Full,
    /// Its first transition loses; the others go on.
    Conflict,
}

/// See [`Fault`].
pub struct Faulty {
    inner: Arc<dyn Store>,
    faults: Mutex<VecDeque<Fault>>,
    unavailable: AtomicBool,
    /// How many look-ups of workflows are still to fail.
    lookups: AtomicUsize,
}

impl Faulty {
    /// Faults before `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>) -> Arc<Self> {
        let (faults, unavailable, lookups) = Default::default();
        Arc::new(Self { inner, faults, unavailable, lookups })
    }

    /// Lets a commit to come meet `fault`, after those that were injected before.
    pub fn inject(&self, fault: Fault) {
        self.faults().push_back(fault);
    }

    /// How many faults are still to be met.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.faults().len()
    }

    /// Makes everything unavailable, or available again.
    pub fn set_unavailable(&self, unavailable: bool) {
        self.unavailable.store(unavailable, Ordering::SeqCst);
    }

    /// Lets so many look-ups of a workflow to come fail.
    pub fn fail_lookups(&self, count: usize) {
        self.lookups.store(count, Ordering::SeqCst);
    }

    /// What is behind the faults.
    #[must_use]
    pub fn inner(&self) -> &Arc<dyn Store> {
        &self.inner
    }

    /// The queue is whole whatever panicked while it was held.
    fn faults(&self) -> MutexGuard<'_, VecDeque<Fault>> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reach(&self) -> Result<&dyn Store, Error> {
        if self.unavailable.load(Ordering::SeqCst) {
            return Err(Error::Unavailable("injected".to_owned()));
        }
        Ok(&*self.inner)
    }
}

#[async_trait]
impl Store for Faulty {
    async fn commit(&self, batch: &[Commit]) -> Result<Vec<Outcome>, Error> {
        let store = self.reach()?;
        let fault = self.faults().pop_front();
        match fault {
            None => store.commit(batch).await,
            Some(Fault::UnknownWritten) => {
                store.commit(batch).await?;
                Err(Error::Unknown("injected".to_owned()))
            }
            Some(Fault::UnknownLost) => Err(Error::Unknown("injected".to_owned())),
            Some(Fault::Unavailable) => Err(Error::Unavailable("injected".to_owned())),
            Some(Fault::Full) => Err(Error::Full("injected".to_owned())),
            Some(Fault::Conflict) => {
                let Some((_, others)) = batch.split_first() else {
                    return store.commit(batch).await;
                };
                let mut outcomes = store.commit(others).await?;
                outcomes.insert(0, Outcome::Conflict);
                Ok(outcomes)
            }
        }
    }

    async fn adopt(&self, run: RunId, owner: OwnerId, at: Micros) -> Result<Option<RunRow>, Error> {
        self.reach()?.adopt(run, owner, at).await
    }

    async fn take_over(
        &self,
        run: RunId,
        from: Option<OwnerId>,
        to: OwnerId,
        at: Micros,
    ) -> Result<Adoption, Error> {
        self.reach()?.take_over(run, from, to, at).await
    }

    async fn adopt_from(
        &self,
        from: OwnerId,
        to: OwnerId,
        at: Micros,
        limit: u32,
    ) -> Result<Vec<RunRow>, Error> {
        self.reach()?.adopt_from(from, to, at, limit).await
    }

    async fn adopt_orphans(
        &self,
        to: OwnerId,
        at: Micros,
        limit: u32,
    ) -> Result<Vec<RunRow>, Error> {
        self.reach()?.adopt_orphans(to, at, limit).await
    }

    async fn adopt_unowned(
        &self,
        to: OwnerId,
        at: Micros,
        limit: u32,
    ) -> Result<Vec<RunRow>, Error> {
        self.reach()?.adopt_unowned(to, at, limit).await
    }

    async fn fold_many(&self, runs: &[RunId]) -> Result<Vec<(RunRow, Vec<JournalRow>)>, Error> {
        self.reach()?.fold_many(runs).await
    }

    async fn park(&self, owner: OwnerId, parkings: &[Parking]) -> Result<Vec<RunId>, Error> {
        self.reach()?.park(owner, parkings).await
    }

    async fn wake_due(&self, to: OwnerId, now: Micros, limit: u32) -> Result<Vec<RunRow>, Error> {
        self.reach()?.wake_due(to, now, limit).await
    }

    async fn next_wake(&self) -> Result<Option<Micros>, Error> {
        self.reach()?.next_wake().await
    }

    async fn standings(&self, runs: &[RunId]) -> Result<Vec<Standing>, Error> {
        self.reach()?.standings(runs).await
    }

    async fn count_owned(&self) -> Result<Vec<(Option<OwnerId>, u64)>, Error> {
        self.reach()?.count_owned().await
    }

    async fn join(&self, replica: &NewReplica, at: Micros) -> Result<ReplicaRow, Error> {
        self.reach()?.join(replica, at).await
    }

    async fn heartbeat(
        &self,
        id: OwnerId,
        status: ReplicaStatus,
        at: Micros,
    ) -> Result<Heartbeat, Error> {
        self.reach()?.heartbeat(id, status, at).await
    }

    async fn fence(&self, id: OwnerId, seen_lease: Option<i64>) -> Result<bool, Error> {
        self.reach()?.fence(id, seen_lease).await
    }

    async fn replicas(&self) -> Result<Vec<ReplicaRow>, Error> {
        self.reach()?.replicas().await
    }

    async fn remove_replica(&self, id: OwnerId) -> Result<bool, Error> {
        self.reach()?.remove_replica(id).await
    }

    async fn keys(&self, kind: i16, keys: &[&str]) -> Result<Vec<KeyRow>, Error> {
        self.reach()?.keys(kind, keys).await
    }

    async fn list_keys(
        &self,
        after: Option<(i16, &str)>,
        limit: u32,
    ) -> Result<Vec<KeyRow>, Error> {
        self.reach()?.list_keys(after, limit).await
    }

    async fn put_keys(&self, changes: &[KeyChange]) -> Result<Vec<bool>, Error> {
        self.reach()?.put_keys(changes).await
    }

    async fn fold(&self, run: RunId) -> Result<Option<(RunRow, Vec<JournalRow>)>, Error> {
        self.reach()?.fold(run).await
    }

    async fn replay(
        &self,
        row: &RunRow,
        each: &mut (dyn FnMut(JournalRow) + Send),
    ) -> Result<bool, Error> {
        self.reach()?.replay(row, each).await
    }

    async fn unfinished(&self, after: Option<RunId>, limit: u32) -> Result<Vec<RunRow>, Error> {
        self.reach()?.unfinished(after, limit).await
    }

    async fn journal(
        &self,
        run: RunId,
        after_seq: i64,
        limit: u32,
    ) -> Result<Vec<JournalRow>, Error> {
        self.reach()?.journal(run, after_seq, limit).await
    }

    async fn run(&self, run: RunId) -> Result<Option<RunRow>, Error> {
        self.reach()?.run(run).await
    }

    async fn runs(
        &self,
        filter: &RunFilter,
        after: Option<Cursor<RunId>>,
        ascending: bool,
        limit: u32,
    ) -> Result<Vec<RunRow>, Error> {
        self.reach()?.runs(filter, after, ascending, limit).await
    }

    async fn put_definition(&self, hash: ContentHash, yaml: &str) -> Result<(), Error> {
        self.reach()?.put_definition(hash, yaml).await
    }

    async fn definition(&self, hash: ContentHash) -> Result<Option<String>, Error> {
        self.reach()?.definition(hash).await
    }

    async fn register_workflow(
        &self,
        row: &WorkflowRow,
        replace: bool,
        etag: Option<&str>,
        audit: &[AuditRow],
    ) -> Result<Registration, Error> {
        self.reach()?.register_workflow(row, replace, etag, audit).await
    }

    async fn workflow(
        &self,
        tenant: &str,
        name: &str,
        version: Option<&str>,
    ) -> Result<Option<WorkflowRow>, Error> {
        let fewer = |count: usize| count.checked_sub(1);
        if self.lookups.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer).is_ok() {
            return Err(Error::Unavailable("injected".to_owned()));
        }
        self.reach()?.workflow(tenant, name, version).await
    }

    async fn workflows(
        &self,
        tenant: &str,
        name: Option<&str>,
        after: Option<(&str, &str)>,
        limit: u32,
    ) -> Result<Vec<WorkflowRow>, Error> {
        self.reach()?.workflows(tenant, name, after, limit).await
    }

    async fn put_schedule(&self, id: &ScheduleId, spec: &[u8]) -> Result<ScheduleRow, Error> {
        self.reach()?.put_schedule(id, spec).await
    }

    async fn schedules(
        &self,
        after: Option<&ScheduleId>,
        limit: u32,
    ) -> Result<Vec<ScheduleRow>, Error> {
        self.reach()?.schedules(after, limit).await
    }

    async fn advance_schedule(
        &self,
        id: &ScheduleId,
        expected_version: i64,
        instant: Micros,
        owner: OwnerId,
    ) -> Result<bool, Error> {
        self.reach()?.advance_schedule(id, expected_version, instant, owner).await
    }

    async fn delete_schedule(&self, id: &ScheduleId) -> Result<bool, Error> {
        self.reach()?.delete_schedule(id).await
    }

    async fn request(&self, tenant: &str, request_id: &str) -> Result<Option<RequestRow>, Error> {
        self.reach()?.request(tenant, request_id).await
    }

    async fn put_request(&self, row: &RequestRow) -> Result<Option<RequestRow>, Error> {
        self.reach()?.put_request(row).await
    }

    async fn expire_requests(&self, before: Micros, limit: u32) -> Result<u64, Error> {
        self.reach()?.expire_requests(before, limit).await
    }

    async fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
        after: Option<Cursor<String>>,
        limit: u32,
    ) -> Result<Vec<DeadLetterRow>, Error> {
        self.reach()?.dead_letters(filter, after, limit).await
    }

    async fn dead_letter(&self, id: &str) -> Result<Option<DeadLetterRow>, Error> {
        self.reach()?.dead_letter(id).await
    }

    async fn delete_dead_letter(&self, id: &str, audit: &[AuditRow]) -> Result<Discarded, Error> {
        self.reach()?.delete_dead_letter(id, audit).await
    }

    async fn put_blob(&self, bytes: &[u8], at: Micros) -> Result<ContentHash, Error> {
        self.reach()?.put_blob(bytes, at).await
    }

    async fn blob(&self, hash: ContentHash) -> Result<Option<Vec<u8>>, Error> {
        self.reach()?.blob(hash).await
    }

    async fn collect_blobs(
        &self,
        before: Micros,
        after: Option<Cursor<ContentHash>>,
        limit: u32,
    ) -> Result<Collected, Error> {
        self.reach()?.collect_blobs(before, after, limit).await
    }

    async fn oldest_kept(&self, keep_newest: u64) -> Result<Option<Cursor<RunId>>, Error> {
        self.reach()?.oldest_kept(keep_newest).await
    }

    async fn delete_finished(
        &self,
        before: Cursor<RunId>,
        after: Option<Cursor<RunId>>,
        limit: u32,
    ) -> Result<Deleted, Error> {
        self.reach()?.delete_finished(before, after, limit).await
    }

    async fn tend_journal(&self, now: Micros, passed: Micros) -> Result<Tended, Error> {
        self.reach()?.tend_journal(now, passed).await
    }

    async fn change(&self, change: &Change) -> Result<Changed, Error> {
        self.reach()?.change(change).await
    }

    async fn document(&self, kind: i16, id: &str) -> Result<Option<DocumentRow>, Error> {
        self.reach()?.document(kind, id).await
    }

    async fn documents_of(&self, kind: i16, ids: &[String]) -> Result<Vec<DocumentRow>, Error> {
        self.reach()?.documents_of(kind, ids).await
    }

    async fn documents(
        &self,
        filter: &DocumentFilter,
        after: Option<Cursor<String>>,
        ascending: bool,
        limit: u32,
    ) -> Result<Vec<DocumentRow>, Error> {
        self.reach()?.documents(filter, after, ascending, limit).await
    }

    async fn due_documents(
        &self,
        kind: i16,
        until: Micros,
        limit: u32,
    ) -> Result<Vec<DocumentRow>, Error> {
        self.reach()?.due_documents(kind, until, limit).await
    }

    async fn audit_chain(
        &self,
        resource: &str,
        after: i64,
        limit: u32,
    ) -> Result<Vec<AuditRow>, Error> {
        self.reach()?.audit_chain(resource, after, limit).await
    }

    async fn audit_entries(
        &self,
        filter: &AuditFilter,
        after: Option<AuditCursor>,
        limit: u32,
    ) -> Result<Vec<AuditRow>, Error> {
        self.reach()?.audit_entries(filter, after, limit).await
    }

    async fn audit_head(&self, resource: &str) -> Result<Option<AuditHead>, Error> {
        self.reach()?.audit_head(resource).await
    }

    async fn audit_heads(&self, after: Option<&str>, limit: u32) -> Result<Vec<AuditHead>, Error> {
        self.reach()?.audit_heads(after, limit).await
    }

    async fn unsealed_heads(&self, limit: u32) -> Result<Vec<AuditHead>, Error> {
        self.reach()?.unsealed_heads(limit).await
    }

    async fn seal(&self, seal: &AuditRow, heads: &[AuditHead]) -> Result<bool, Error> {
        self.reach()?.seal(seal, heads).await
    }

    async fn facts(&self) -> Result<Facts, Error> {
        self.reach()?.facts().await
    }

    async fn health(&self) -> Result<(), Error> {
        self.reach()?.health().await
    }

    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
