//! One process's way to the tables: through its gate, and back. No table is touched while anything
//! is awaited.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use engine::{ContentHash, RunId};

use super::tables::Tables;
use super::{Access, Gate, Memory};
use crate::document::{check_change, check_seal};
use crate::limits::{PAGE_ROWS_MAX, RUNS_AT_ONCE_MAX};
use crate::{
    Adoption, AuditCursor, AuditFilter, AuditHead, AuditRow, Change, Changed, Collected, Commit,
    Cursor, DeadLetterFilter, DeadLetterRow, Deleted, Discarded, DocumentFilter, DocumentRow,
    Error, Facts, Heartbeat, JournalRow, KeyChange, KeyRow, Micros, NewReplica, Outcome, OwnerId,
    Parking, Registration, ReplicaRow, ReplicaStatus, RequestRow, RunFilter, RunRow, ScheduleId,
    ScheduleRow, Standing, Store, Tended, WorkflowRow,
};

pub(super) struct Session {
    memory: Memory,
    gate: Arc<dyn Gate>,
    closed: AtomicBool,
}

impl Session {
    pub(super) fn new(memory: Memory, gate: Arc<dyn Gate>) -> Self {
        Self { memory, gate, closed: AtomicBool::new(false) }
    }

    async fn through<T>(
        &self,
        access: Access,
        act: impl FnOnce(&mut Tables) -> Result<T, Error>,
    ) -> Result<T, Error> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Unavailable("the store is closed".to_owned()));
        }
        self.gate.before(access).await?;
        let answer = act(&mut self.memory.tables());
        self.gate.after(access).await?;
        answer
    }

    async fn read<T>(&self, look: impl FnOnce(&Tables) -> T) -> Result<T, Error> {
        self.through(Access::Read, |tables| Ok(look(tables))).await
    }

    async fn write<T>(&self, act: impl FnOnce(&mut Tables) -> T) -> Result<T, Error> {
        self.through(Access::Write, |tables| Ok(act(tables))).await
    }
}

#[async_trait]
impl Store for Session {
    async fn commit(&self, batch: &[Commit]) -> Result<Vec<Outcome>, Error> {
        self.through(Access::Commit, |tables| tables.commit(batch)).await
    }

    async fn adopt(&self, run: RunId, owner: OwnerId, at: Micros) -> Result<Option<RunRow>, Error> {
        let _ = at;
        self.write(|tables| tables.adopt(run, owner)).await
    }

    async fn take_over(
        &self,
        run: RunId,
        from: Option<OwnerId>,
        to: OwnerId,
        at: Micros,
    ) -> Result<Adoption, Error> {
        let _ = at;
        self.write(|tables| tables.take_over(run, from, to)).await
    }

    async fn adopt_from(
        &self,
        from: OwnerId,
        to: OwnerId,
        at: Micros,
        limit: u32,
    ) -> Result<Vec<RunRow>, Error> {
        let _ = at;
        self.through(Access::TakeOver, |tables| Ok(tables.adopt_from(from, to, limit))).await
    }

    async fn adopt_orphans(
        &self,
        to: OwnerId,
        at: Micros,
        limit: u32,
    ) -> Result<Vec<RunRow>, Error> {
        let _ = at;
        self.through(Access::TakeOver, |tables| Ok(tables.adopt_orphans(to, limit))).await
    }

    async fn adopt_unowned(
        &self,
        to: OwnerId,
        at: Micros,
        limit: u32,
    ) -> Result<Vec<RunRow>, Error> {
        let _ = at;
        self.through(Access::TakeOver, |tables| Ok(tables.adopt_unowned(to, limit))).await
    }

    async fn fold_many(&self, runs: &[RunId]) -> Result<Vec<(RunRow, Vec<JournalRow>)>, Error> {
        if runs.len() > RUNS_AT_ONCE_MAX {
            return Err(Error::Invalid("too many runs are asked for".to_owned()));
        }
        self.read(|tables| tables.fold_many(runs)).await
    }

    async fn park(&self, owner: OwnerId, parkings: &[Parking]) -> Result<Vec<RunId>, Error> {
        self.write(|tables| tables.park(owner, parkings)).await
    }

    async fn wake_due(&self, to: OwnerId, now: Micros, limit: u32) -> Result<Vec<RunRow>, Error> {
        self.through(Access::TakeOver, |tables| Ok(tables.wake_due(to, now, limit))).await
    }

    async fn next_wake(&self) -> Result<Option<Micros>, Error> {
        self.read(|tables| tables.next_wake()).await
    }

    async fn standings(&self, runs: &[RunId]) -> Result<Vec<Standing>, Error> {
        self.read(|tables| tables.standings(runs)).await
    }

    async fn count_owned(&self) -> Result<Vec<(Option<OwnerId>, u64)>, Error> {
        self.read(|tables| tables.count_owned()).await
    }

    async fn join(&self, replica: &NewReplica, at: Micros) -> Result<ReplicaRow, Error> {
        self.write(|tables| tables.join(replica, at)).await
    }

    async fn heartbeat(
        &self,
        id: OwnerId,
        status: ReplicaStatus,
        at: Micros,
    ) -> Result<Heartbeat, Error> {
        self.write(|tables| tables.heartbeat(id, status, at)).await
    }

    async fn fence(&self, id: OwnerId, seen_lease: Option<i64>) -> Result<bool, Error> {
        self.write(|tables| tables.fence(id, seen_lease)).await
    }

    async fn replicas(&self) -> Result<Vec<ReplicaRow>, Error> {
        self.read(|tables| tables.replicas()).await
    }

    async fn remove_replica(&self, id: OwnerId) -> Result<bool, Error> {
        self.write(|tables| tables.remove_replica(id)).await
    }

    async fn keys(&self, kind: i16, keys: &[&str]) -> Result<Vec<KeyRow>, Error> {
        self.read(|tables| tables.keys(kind, keys)).await
    }

    async fn list_keys(
        &self,
        after: Option<(i16, &str)>,
        limit: u32,
    ) -> Result<Vec<KeyRow>, Error> {
        self.read(|tables| tables.list_keys(after, limit)).await
    }

    async fn put_keys(&self, changes: &[KeyChange]) -> Result<Vec<bool>, Error> {
        self.write(|tables| tables.put_keys(changes)).await
    }

    async fn fold(&self, run: RunId) -> Result<Option<(RunRow, Vec<JournalRow>)>, Error> {
        self.read(|tables| tables.fold(run)).await
    }

    async fn replay(
        &self,
        row: &RunRow,
        each: &mut (dyn FnMut(JournalRow) + Send),
    ) -> Result<bool, Error> {
        let Some((_, events)) = self.read(|tables| tables.fold(row.run_id)).await? else {
            return Ok(false);
        };
        events.into_iter().filter(|event| event.seq <= row.version).for_each(each);
        Ok(true)
    }

    async fn unfinished(&self, after: Option<RunId>, limit: u32) -> Result<Vec<RunRow>, Error> {
        self.read(|tables| tables.unfinished(after, limit)).await
    }

    async fn journal(
        &self,
        run: RunId,
        after_seq: i64,
        limit: u32,
    ) -> Result<Vec<JournalRow>, Error> {
        self.read(|tables| tables.journal(run, after_seq, limit)).await
    }

    async fn run(&self, run: RunId) -> Result<Option<RunRow>, Error> {
        self.read(|tables| tables.run(run)).await
    }

    async fn runs(
        &self,
        filter: &RunFilter,
        after: Option<Cursor<RunId>>,
        ascending: bool,
        limit: u32,
    ) -> Result<Vec<RunRow>, Error> {
        self.read(|tables| tables.runs(filter, after, ascending, limit)).await
    }

    async fn put_definition(&self, hash: ContentHash, yaml: &str) -> Result<(), Error> {
        self.through(Access::Write, |tables| tables.put_definition(hash, yaml)).await
    }

    async fn definition(&self, hash: ContentHash) -> Result<Option<String>, Error> {
        self.read(|tables| tables.definition(hash)).await
    }

    async fn register_workflow(
        &self,
        row: &WorkflowRow,
        replace: bool,
        etag: Option<&str>,
        audit: &[AuditRow],
    ) -> Result<Registration, Error> {
        self.write(|tables| tables.register_workflow(row, replace, etag, audit)).await
    }

    async fn workflow(
        &self,
        tenant: &str,
        name: &str,
        version: Option<&str>,
    ) -> Result<Option<WorkflowRow>, Error> {
        self.read(|tables| tables.workflow(tenant, name, version)).await
    }

    async fn workflows(
        &self,
        tenant: &str,
        name: Option<&str>,
        after: Option<(&str, &str)>,
        limit: u32,
    ) -> Result<Vec<WorkflowRow>, Error> {
        self.read(|tables| tables.workflows(tenant, name, after, limit)).await
    }

    async fn put_schedule(&self, id: &ScheduleId, spec: &[u8]) -> Result<ScheduleRow, Error> {
        self.write(|tables| tables.put_schedule(id, spec)).await
    }

    async fn schedules(
        &self,
        after: Option<&ScheduleId>,
        limit: u32,
    ) -> Result<Vec<ScheduleRow>, Error> {
        self.read(|tables| tables.schedules(after, limit)).await
    }

    async fn advance_schedule(
        &self,
        id: &ScheduleId,
        expected_version: i64,
        instant: Micros,
        owner: OwnerId,
    ) -> Result<bool, Error> {
        self.write(|tables| tables.advance_schedule(id, expected_version, instant, owner)).await
    }

    async fn delete_schedule(&self, id: &ScheduleId) -> Result<bool, Error> {
        self.write(|tables| tables.delete_schedule(id)).await
    }

    async fn request(&self, tenant: &str, request_id: &str) -> Result<Option<RequestRow>, Error> {
        self.read(|tables| tables.request(tenant, request_id)).await
    }

    async fn put_request(&self, row: &RequestRow) -> Result<Option<RequestRow>, Error> {
        self.write(|tables| tables.put_request(row)).await
    }

    async fn expire_requests(&self, before: Micros, limit: u32) -> Result<u64, Error> {
        self.write(|tables| tables.expire_requests(before, limit)).await
    }

    async fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
        after: Option<Cursor<String>>,
        limit: u32,
    ) -> Result<Vec<DeadLetterRow>, Error> {
        self.read(|tables| tables.dead_letters(filter, after.as_ref(), limit)).await
    }

    async fn dead_letter(&self, id: &str) -> Result<Option<DeadLetterRow>, Error> {
        self.read(|tables| tables.dead_letter(id)).await
    }

    async fn delete_dead_letter(&self, id: &str, audit: &[AuditRow]) -> Result<Discarded, Error> {
        self.write(|tables| tables.delete_dead_letter(id, audit)).await
    }

    async fn put_blob(&self, bytes: &[u8], at: Micros) -> Result<ContentHash, Error> {
        self.write(|tables| tables.put_blob(bytes, at)).await
    }

    async fn blob(&self, hash: ContentHash) -> Result<Option<Vec<u8>>, Error> {
        self.read(|tables| tables.blob(hash)).await
    }

    async fn collect_blobs(
        &self,
        before: Micros,
        after: Option<Cursor<ContentHash>>,
        limit: u32,
    ) -> Result<Collected, Error> {
        self.write(|tables| tables.collect_blobs(before, after, limit)).await
    }

    async fn oldest_kept(&self, keep_newest: u64) -> Result<Option<Cursor<RunId>>, Error> {
        self.read(|tables| tables.oldest_kept(keep_newest)).await
    }

    async fn delete_finished(
        &self,
        before: Cursor<RunId>,
        after: Option<Cursor<RunId>>,
        limit: u32,
    ) -> Result<Deleted, Error> {
        self.write(|tables| tables.delete_finished(before, after, limit)).await
    }

    async fn tend_journal(&self, _now: Micros, _passed: Micros) -> Result<Tended, Error> {
        self.read(|_| Tended::default()).await
    }

    async fn change(&self, change: &Change) -> Result<Changed, Error> {
        check_change(change)?;
        self.write(|tables| tables.change(change)).await
    }

    async fn document(&self, kind: i16, id: &str) -> Result<Option<DocumentRow>, Error> {
        self.read(|tables| tables.document(kind, id)).await
    }

    async fn documents_of(&self, kind: i16, ids: &[String]) -> Result<Vec<DocumentRow>, Error> {
        let found = |tables: &Tables| {
            let ids = ids.iter().take(PAGE_ROWS_MAX as usize);
            ids.filter_map(|id| tables.document(kind, id)).collect()
        };
        self.read(found).await
    }

    async fn documents(
        &self,
        filter: &DocumentFilter,
        after: Option<Cursor<String>>,
        ascending: bool,
        limit: u32,
    ) -> Result<Vec<DocumentRow>, Error> {
        self.read(|tables| tables.documents(filter, after.as_ref(), ascending, limit)).await
    }

    async fn due_documents(
        &self,
        kind: i16,
        until: Micros,
        limit: u32,
    ) -> Result<Vec<DocumentRow>, Error> {
        self.read(|tables| tables.due_documents(kind, until, limit)).await
    }

    async fn audit_chain(
        &self,
        resource: &str,
        after: i64,
        limit: u32,
    ) -> Result<Vec<AuditRow>, Error> {
        self.read(|tables| tables.audit_chain(resource, after, limit)).await
    }

    async fn audit_entries(
        &self,
        filter: &AuditFilter,
        after: Option<AuditCursor>,
        limit: u32,
    ) -> Result<Vec<AuditRow>, Error> {
        self.read(|tables| tables.audit_entries(filter, after.as_ref(), limit)).await
    }

    async fn audit_head(&self, resource: &str) -> Result<Option<AuditHead>, Error> {
        self.read(|tables| tables.audit_head(resource)).await
    }

    async fn audit_heads(&self, after: Option<&str>, limit: u32) -> Result<Vec<AuditHead>, Error> {
        self.read(|tables| tables.audit_heads(after, limit)).await
    }

    async fn unsealed_heads(&self, limit: u32) -> Result<Vec<AuditHead>, Error> {
        self.read(|tables| tables.unsealed_heads(limit)).await
    }

    async fn seal(&self, seal: &AuditRow, heads: &[AuditHead]) -> Result<bool, Error> {
        check_seal(seal, heads)?;
        self.write(|tables| tables.seal(seal, heads)).await
    }

    async fn facts(&self) -> Result<Facts, Error> {
        let version = "model".to_owned();
        self.read(|_| Facts { now: None, schema: crate::SCHEMA_KNOWN, version, bytes: 0 }).await
    }

    async fn health(&self) -> Result<(), Error> {
        self.read(|_| ()).await
    }

    fn kind(&self) -> &'static str {
        "memory"
    }

    async fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }
}
