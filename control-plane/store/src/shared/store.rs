//! The trait, put together: checks what comes in, gets a connection, calls the words for it, and
//! says what an error means. Reads go to `reader`, writes to `writer`.

use async_trait::async_trait;
use engine::{ContentHash, RunId};
use sqlx::Row as _;

use super::{
    Database, Db, FACTS, KIND, Row, audit, blob, dead_letter, document, key, ownership,
    prepare_journal, replica, request, retention, run, schedule, tend_journal, workflow,
};
use crate::batch::check_text;
use crate::document::{check_audit, check_change, check_seal};
use crate::limits::{
    BLOB_BYTES_MAX, DEFINITION_BYTES_MAX, PAGE_ROWS_MAX, RUNS_AT_ONCE_MAX, TEXT_BYTES_MAX,
};
use crate::{
    Adoption, AuditCursor, AuditFilter, AuditHead, AuditRow, Change, Changed, Collected, Commit,
    Cursor, DeadLetterFilter, DeadLetterRow, Deleted, Discarded, DocumentFilter, DocumentRow,
    Error, Facts, Heartbeat, JournalRow, KeyChange, KeyRow, Micros, NewReplica, Outcome, OwnerId,
    Parking, Registration, ReplicaRow, ReplicaStatus, RequestRow, RunFilter, RunRow, ScheduleId,
    ScheduleRow, Standing, Store, Tended, WorkflowRow,
};

fn check(texts: &[(&str, &str)]) -> Result<(), Error> {
    let mut checked = texts.iter().map(|(what, text)| check_text(what, text, TEXT_BYTES_MAX));
    checked.try_for_each(|result| result.map_err(Error::Invalid))
}

fn check_bytes(what: &str, found: usize, allowed: usize) -> Result<(), Error> {
    if found > allowed {
        let text = format!("the {what} has {found} bytes, allowed are {allowed}");
        return Err(Error::Invalid(text));
    }
    Ok(())
}

/// What holds no text that can be stored is not there.
fn is_storable(texts: &[&str]) -> bool {
    texts.iter().all(|text| !text.contains('\0'))
}

fn check_schedule(id: &ScheduleId) -> Result<(), Error> {
    check(&[("tenant", &id.tenant), ("workflow's name", &id.workflow), ("schedule", &id.schedule)])
}

#[async_trait]
impl Store for Database {
    async fn commit(&self, batch: &[Commit]) -> Result<Vec<Outcome>, Error> {
        self.commit_batch(batch).await
    }

    async fn adopt(&self, run: RunId, owner: OwnerId, at: Micros) -> Result<Option<RunRow>, Error> {
        let mut connection = self.writer().await?;
        run::adopt(&mut connection, run, owner, at).await.map_err(Error::write)
    }

    async fn take_over(
        &self,
        run: RunId,
        from: Option<OwnerId>,
        to: OwnerId,
        at: Micros,
    ) -> Result<Adoption, Error> {
        let mut connection = self.writer().await?;
        ownership::take_over(&mut connection, run, from, to, at).await.map_err(Error::write)
    }

    async fn adopt_from(
        &self,
        from: OwnerId,
        to: OwnerId,
        at: Micros,
        limit: u32,
    ) -> Result<Vec<RunRow>, Error> {
        let mut connection = self.writer().await?;
        ownership::adopt_from(&mut connection, from, to, at, limit).await.map_err(Error::write)
    }

    async fn adopt_orphans(
        &self,
        to: OwnerId,
        at: Micros,
        limit: u32,
    ) -> Result<Vec<RunRow>, Error> {
        let mut connection = self.writer().await?;
        ownership::adopt_orphans(&mut connection, to, at, limit).await.map_err(Error::write)
    }

    async fn adopt_unowned(
        &self,
        to: OwnerId,
        at: Micros,
        limit: u32,
    ) -> Result<Vec<RunRow>, Error> {
        let mut connection = self.writer().await?;
        ownership::adopt_unowned(&mut connection, to, at, limit).await.map_err(Error::write)
    }

    async fn fold_many(&self, runs: &[RunId]) -> Result<Vec<(RunRow, Vec<JournalRow>)>, Error> {
        if runs.len() > RUNS_AT_ONCE_MAX {
            let found = runs.len();
            let text = format!("{found} runs are asked for, allowed are {RUNS_AT_ONCE_MAX}");
            return Err(Error::Invalid(text));
        }
        let mut connection = self.reader().await?;
        run::fold_many(&mut connection, runs).await.map_err(Error::read)
    }

    async fn park(&self, owner: OwnerId, parkings: &[Parking]) -> Result<Vec<RunId>, Error> {
        let mut connection = self.writer().await?;
        ownership::park(&mut connection, owner, parkings).await.map_err(Error::write)
    }

    async fn wake_due(&self, to: OwnerId, now: Micros, limit: u32) -> Result<Vec<RunRow>, Error> {
        let mut connection = self.writer().await?;
        ownership::wake_due(&mut connection, to, now, limit).await.map_err(Error::write)
    }

    async fn next_wake(&self) -> Result<Option<Micros>, Error> {
        let mut connection = self.reader().await?;
        ownership::next_wake(&mut connection).await.map_err(Error::read)
    }

    async fn standings(&self, runs: &[RunId]) -> Result<Vec<Standing>, Error> {
        let mut connection = self.reader().await?;
        ownership::standings(&mut connection, runs).await.map_err(Error::read)
    }

    async fn count_owned(&self) -> Result<Vec<(Option<OwnerId>, u64)>, Error> {
        let mut connection = self.reader().await?;
        ownership::count_owned(&mut connection).await.map_err(Error::read)
    }

    async fn join(&self, replica: &NewReplica, at: Micros) -> Result<ReplicaRow, Error> {
        check(&[("address", &replica.address), ("version", &replica.version)])?;
        let mut connection = self.writer().await?;
        let joined = replica::join(&mut connection, replica, at).await.map_err(Error::write)?;
        prepare_journal(&mut connection, at).await;
        Ok(joined)
    }

    async fn heartbeat(
        &self,
        id: OwnerId,
        status: ReplicaStatus,
        at: Micros,
    ) -> Result<Heartbeat, Error> {
        let mut connection = self.keeper().await?;
        replica::heartbeat(&mut connection, id, status, at).await.map_err(Error::write)
    }

    async fn fence(&self, id: OwnerId, seen_lease: Option<i64>) -> Result<bool, Error> {
        let mut connection = self.writer().await?;
        replica::fence(&mut connection, id, seen_lease).await.map_err(Error::write)
    }

    async fn replicas(&self) -> Result<Vec<ReplicaRow>, Error> {
        let mut connection = self.reader().await?;
        replica::list(&mut connection).await.map_err(Error::read)
    }

    async fn remove_replica(&self, id: OwnerId) -> Result<bool, Error> {
        let mut connection = self.writer().await?;
        replica::remove(&mut connection, id).await.map_err(Error::write)
    }

    async fn keys(&self, kind: i16, keys: &[&str]) -> Result<Vec<KeyRow>, Error> {
        let keys: Vec<&str> = keys.iter().copied().filter(|key| is_storable(&[key])).collect();
        let mut connection = self.reader().await?;
        key::find(&mut connection, kind, &keys).await.map_err(Error::read)
    }

    async fn list_keys(
        &self,
        after: Option<(i16, &str)>,
        limit: u32,
    ) -> Result<Vec<KeyRow>, Error> {
        check(&[("cursor's key", after.map_or("", |(_, key)| key))])?;
        let mut connection = self.reader().await?;
        key::list(&mut connection, after, limit).await.map_err(Error::read)
    }

    async fn put_keys(&self, changes: &[KeyChange]) -> Result<Vec<bool>, Error> {
        changes.iter().try_for_each(|change| check(&[("key", &change.key)]))?;
        let mut connection = self.writer().await?;
        key::put(&mut connection, changes).await.map_err(Error::write)
    }

    async fn fold(&self, run: RunId) -> Result<Option<(RunRow, Vec<JournalRow>)>, Error> {
        let mut connection = self.reader().await?;
        run::fold(&mut connection, run).await.map_err(Error::read)
    }

    async fn replay(
        &self,
        row: &RunRow,
        each: &mut (dyn FnMut(JournalRow) + Send),
    ) -> Result<bool, Error> {
        let mut connection = self.reader().await?;
        run::replay(&mut connection, row, each).await.map_err(Error::read)
    }

    async fn unfinished(&self, after: Option<RunId>, limit: u32) -> Result<Vec<RunRow>, Error> {
        let mut connection = self.reader().await?;
        run::unfinished(&mut connection, after, limit).await.map_err(Error::read)
    }

    async fn journal(
        &self,
        run: RunId,
        after_seq: i64,
        limit: u32,
    ) -> Result<Vec<JournalRow>, Error> {
        let mut connection = self.reader().await?;
        run::journal(&mut connection, run, after_seq, limit).await.map_err(Error::read)
    }

    async fn run(&self, run: RunId) -> Result<Option<RunRow>, Error> {
        let mut connection = self.reader().await?;
        run::find(&mut connection, run).await.map_err(Error::read)
    }

    async fn runs(
        &self,
        filter: &RunFilter,
        after: Option<Cursor<RunId>>,
        ascending: bool,
        limit: u32,
    ) -> Result<Vec<RunRow>, Error> {
        let texts = [filter.tenant.as_deref(), filter.workflow.as_deref()];
        if !is_storable(&texts.map(Option::unwrap_or_default)) {
            return Ok(Vec::new());
        }
        let mut connection = self.reader().await?;
        run::list(&mut connection, filter, after, ascending, limit).await.map_err(Error::read)
    }

    async fn put_definition(&self, hash: ContentHash, yaml: &str) -> Result<(), Error> {
        check_bytes("definition", yaml.len(), DEFINITION_BYTES_MAX)?;
        let mut connection = self.writer().await?;
        workflow::put_definition(&mut connection, hash, yaml).await.map_err(Error::write)
    }

    async fn definition(&self, hash: ContentHash) -> Result<Option<String>, Error> {
        let mut connection = self.reader().await?;
        workflow::definition(&mut connection, hash).await.map_err(Error::read)
    }

    async fn register_workflow(
        &self,
        row: &WorkflowRow,
        replace: bool,
        etag: Option<&str>,
        audit: &[AuditRow],
    ) -> Result<Registration, Error> {
        audit.iter().try_for_each(check_audit).map_err(Error::Invalid)?;
        check(&[
            ("tenant", &row.tenant),
            ("workflow's name", &row.name),
            ("workflow's version", &row.version),
            ("etag", &row.etag),
        ])?;
        let mut connection = self.writer().await?;
        let done = workflow::register(&mut connection, row, replace, etag, audit).await;
        done.map_err(Error::write)
    }

    async fn workflow(
        &self,
        tenant: &str,
        name: &str,
        version: Option<&str>,
    ) -> Result<Option<WorkflowRow>, Error> {
        if !is_storable(&[tenant, name, version.unwrap_or_default()]) {
            return Ok(None);
        }
        let mut connection = self.reader().await?;
        workflow::find(&mut connection, tenant, name, version).await.map_err(Error::read)
    }

    async fn workflows(
        &self,
        tenant: &str,
        name: Option<&str>,
        after: Option<(&str, &str)>,
        limit: u32,
    ) -> Result<Vec<WorkflowRow>, Error> {
        if !is_storable(&[tenant, name.unwrap_or_default()]) {
            return Ok(Vec::new());
        }
        let (last_name, last_version) = after.unwrap_or_default();
        check(&[("cursor's name", last_name), ("cursor's version", last_version)])?;
        let mut connection = self.reader().await?;
        workflow::list(&mut connection, tenant, name, after, limit).await.map_err(Error::read)
    }

    async fn put_schedule(&self, id: &ScheduleId, spec: &[u8]) -> Result<ScheduleRow, Error> {
        check_schedule(id)?;
        let mut connection = self.writer().await?;
        schedule::put(&mut connection, id, spec).await.map_err(Error::write)
    }

    async fn schedules(
        &self,
        after: Option<&ScheduleId>,
        limit: u32,
    ) -> Result<Vec<ScheduleRow>, Error> {
        after.map_or(Ok(()), check_schedule)?;
        let mut connection = self.reader().await?;
        schedule::list(&mut connection, after, limit).await.map_err(Error::read)
    }

    async fn advance_schedule(
        &self,
        id: &ScheduleId,
        expected_version: i64,
        instant: Micros,
        owner: OwnerId,
    ) -> Result<bool, Error> {
        check_schedule(id)?;
        let mut connection = self.writer().await?;
        let done = schedule::advance(&mut connection, id, expected_version, instant, owner).await;
        done.map_err(Error::write)
    }

    async fn delete_schedule(&self, id: &ScheduleId) -> Result<bool, Error> {
        check_schedule(id)?;
        let mut connection = self.writer().await?;
        schedule::delete(&mut connection, id).await.map_err(Error::write)
    }

    async fn request(&self, tenant: &str, request_id: &str) -> Result<Option<RequestRow>, Error> {
        if !is_storable(&[tenant, request_id]) {
            return Ok(None);
        }
        let mut connection = self.reader().await?;
        request::find(&mut connection, tenant, request_id).await.map_err(Error::read)
    }

    async fn put_request(&self, row: &RequestRow) -> Result<Option<RequestRow>, Error> {
        check(&[("tenant", &row.tenant), ("request id", &row.request_id)])?;
        let mut connection = self.writer().await?;
        request::put(&mut connection, row).await.map_err(Error::write)
    }

    async fn expire_requests(&self, before: Micros, limit: u32) -> Result<u64, Error> {
        let mut connection = self.writer().await?;
        request::expire(&mut connection, before, limit).await.map_err(Error::write)
    }

    async fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
        after: Option<Cursor<String>>,
        limit: u32,
    ) -> Result<Vec<DeadLetterRow>, Error> {
        let texts = [filter.tenant.as_deref(), filter.workflow.as_deref()];
        if !is_storable(&texts.map(Option::unwrap_or_default)) {
            return Ok(Vec::new());
        }
        check(&[("cursor's id", after.as_ref().map_or("", |after| &after.id))])?;
        let mut connection = self.reader().await?;
        dead_letter::list(&mut connection, filter, after, limit).await.map_err(Error::read)
    }

    async fn dead_letter(&self, id: &str) -> Result<Option<DeadLetterRow>, Error> {
        if !is_storable(&[id]) {
            return Ok(None);
        }
        let mut connection = self.reader().await?;
        dead_letter::find(&mut connection, id).await.map_err(Error::read)
    }

    async fn delete_dead_letter(&self, id: &str, audit: &[AuditRow]) -> Result<Discarded, Error> {
        audit.iter().try_for_each(check_audit).map_err(Error::Invalid)?;
        if !is_storable(&[id]) {
            return Ok(Discarded::NotThere);
        }
        let mut connection = self.writer().await?;
        dead_letter::delete(&mut connection, id, audit).await.map_err(Error::write)
    }

    async fn put_blob(&self, bytes: &[u8], at: Micros) -> Result<ContentHash, Error> {
        check_bytes("blob", bytes.len(), BLOB_BYTES_MAX)?;
        let hash = ContentHash::of(bytes);
        let mut connection = self.writer().await?;
        blob::put(&mut connection, hash, bytes, at).await.map_err(Error::write)?;
        Ok(hash)
    }

    async fn blob(&self, hash: ContentHash) -> Result<Option<Vec<u8>>, Error> {
        let mut connection = self.reader().await?;
        blob::find(&mut connection, hash).await.map_err(Error::read)
    }

    async fn collect_blobs(
        &self,
        before: Micros,
        after: Option<Cursor<ContentHash>>,
        limit: u32,
    ) -> Result<Collected, Error> {
        let mut connection = self.writer().await?;
        blob::collect(&mut connection, before, after, limit).await.map_err(Error::write)
    }

    async fn oldest_kept(&self, keep_newest: u64) -> Result<Option<Cursor<RunId>>, Error> {
        let mut connection = self.reader().await?;
        retention::oldest_kept(&mut connection, keep_newest).await.map_err(Error::read)
    }

    async fn delete_finished(
        &self,
        before: Cursor<RunId>,
        after: Option<Cursor<RunId>>,
        limit: u32,
    ) -> Result<Deleted, Error> {
        let mut connection = self.writer().await?;
        let done = retention::delete_finished(&mut connection, before, after, limit).await;
        done.map_err(Error::write)
    }

    async fn tend_journal(&self, now: Micros, passed: Micros) -> Result<Tended, Error> {
        let mut connection = self.writer().await?;
        tend_journal(&mut connection, now, passed).await.map_err(Error::write)
    }

    async fn change(&self, change: &Change) -> Result<Changed, Error> {
        check_change(change)?;
        let mut connection = self.writer().await?;
        document::change(&mut connection, change).await.map_err(Error::write)
    }

    async fn document(&self, kind: i16, id: &str) -> Result<Option<DocumentRow>, Error> {
        if !is_storable(&[id]) {
            return Ok(None);
        }
        let mut connection = self.reader().await?;
        document::find(&mut connection, kind, id).await.map_err(Error::read)
    }

    async fn documents_of(&self, kind: i16, ids: &[String]) -> Result<Vec<DocumentRow>, Error> {
        let storable = |id: &&String| is_storable(&[id.as_str()]);
        let ids: Vec<&String> = ids.iter().filter(storable).take(PAGE_ROWS_MAX as usize).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = self.reader().await?;
        document::find_all(&mut connection, kind, &ids).await.map_err(Error::read)
    }

    async fn documents(
        &self,
        filter: &DocumentFilter,
        after: Option<Cursor<String>>,
        ascending: bool,
        limit: u32,
    ) -> Result<Vec<DocumentRow>, Error> {
        let texts = [filter.tenant.as_deref(), filter.parent.as_deref()];
        if !is_storable(&texts.map(Option::unwrap_or_default)) {
            return Ok(Vec::new());
        }
        check(&[("cursor's id", after.as_ref().map_or("", |after| &after.id))])?;
        let mut connection = self.reader().await?;
        let found = document::list(&mut connection, filter, after, ascending, limit).await;
        found.map_err(Error::read)
    }

    async fn due_documents(
        &self,
        kind: i16,
        until: Micros,
        limit: u32,
    ) -> Result<Vec<DocumentRow>, Error> {
        let mut connection = self.reader().await?;
        document::due(&mut connection, kind, until, limit).await.map_err(Error::read)
    }

    async fn audit_chain(
        &self,
        resource: &str,
        after: i64,
        limit: u32,
    ) -> Result<Vec<AuditRow>, Error> {
        if !is_storable(&[resource]) {
            return Ok(Vec::new());
        }
        let mut connection = self.reader().await?;
        audit::chain(&mut connection, resource, after, limit).await.map_err(Error::read)
    }

    async fn audit_entries(
        &self,
        filter: &AuditFilter,
        after: Option<AuditCursor>,
        limit: u32,
    ) -> Result<Vec<AuditRow>, Error> {
        let texts = [&filter.resource, &filter.actor, &filter.action];
        if !is_storable(&texts.map(|text| text.as_deref().unwrap_or_default())) {
            return Ok(Vec::new());
        }
        check(&[("cursor's chain", after.as_ref().map_or("", |after| &after.resource))])?;
        let mut connection = self.reader().await?;
        audit::list(&mut connection, filter, after, limit).await.map_err(Error::read)
    }

    async fn audit_head(&self, resource: &str) -> Result<Option<AuditHead>, Error> {
        if !is_storable(&[resource]) {
            return Ok(None);
        }
        let mut connection = self.reader().await?;
        audit::head(&mut connection, resource).await.map_err(Error::read)
    }

    async fn audit_heads(&self, after: Option<&str>, limit: u32) -> Result<Vec<AuditHead>, Error> {
        check(&[("cursor's chain", after.unwrap_or_default())])?;
        let mut connection = self.reader().await?;
        audit::heads(&mut connection, after, limit).await.map_err(Error::read)
    }

    async fn unsealed_heads(&self, limit: u32) -> Result<Vec<AuditHead>, Error> {
        let mut connection = self.reader().await?;
        audit::unsealed(&mut connection, limit).await.map_err(Error::read)
    }

    async fn seal(&self, seal: &AuditRow, heads: &[AuditHead]) -> Result<bool, Error> {
        check_seal(seal, heads)?;
        let mut connection = self.writer().await?;
        audit::seal(&mut connection, seal, heads).await.map_err(Error::write)
    }

    async fn facts(&self) -> Result<Facts, Error> {
        let mut connection = self.reader().await?;
        let row = sqlx::query::<Db>(FACTS).fetch_one(&mut *connection).await;
        let read = |row: Row| {
            Ok(Facts {
                now: Some(row.try_get(0)?),
                schema: row.try_get(1)?,
                version: row.try_get(2)?,
                bytes: row.try_get(3)?,
            })
        };
        row.and_then(read).map_err(Error::read)
    }

    async fn health(&self) -> Result<(), Error> {
        let mut connection = self.reader().await?;
        let answer = sqlx::query::<Db>("SELECT 1").execute(&mut *connection).await;
        answer.map(|_| ()).map_err(Error::read)
    }

    fn kind(&self) -> &'static str {
        KIND
    }

    async fn close(&self) {
        self.close_all().await;
    }
}
