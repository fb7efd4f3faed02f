//! The trait, put together: checks what comes in, gets a connection, calls the words for it, and
//! says what an error means. Reads go to `reader`, writes to `writer`.

use async_trait::async_trait;
use engine::{ContentHash, RunId};

use super::{Database, Db, KIND, blob, dead_letter, request, retention, run, schedule, workflow};
use crate::batch::check_text;
use crate::limits::{BLOB_BYTES_MAX, DEFINITION_BYTES_MAX, TEXT_BYTES_MAX};
use crate::{
    Commit, Cursor, DeadLetterFilter, DeadLetterRow, Error, JournalRow, Micros, Outcome, OwnerId,
    Registration, RequestRow, RunFilter, RunRow, ScheduleId, ScheduleRow, Store, WorkflowRow,
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

    async fn fold(&self, run: RunId) -> Result<Option<(RunRow, Vec<JournalRow>)>, Error> {
        let mut connection = self.reader().await?;
        run::fold(&mut connection, run).await.map_err(Error::read)
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
    ) -> Result<Registration, Error> {
        check(&[
            ("tenant", &row.tenant),
            ("workflow's name", &row.name),
            ("workflow's version", &row.version),
            ("etag", &row.etag),
        ])?;
        let mut connection = self.writer().await?;
        workflow::register(&mut connection, row, replace, etag).await.map_err(Error::write)
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

    async fn delete_dead_letter(&self, id: &str) -> Result<bool, Error> {
        if !is_storable(&[id]) {
            return Ok(false);
        }
        let mut connection = self.writer().await?;
        dead_letter::delete(&mut connection, id).await.map_err(Error::write)
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

    async fn collect_blobs(&self, before: Micros, limit: u32) -> Result<u64, Error> {
        let mut connection = self.writer().await?;
        blob::collect(&mut connection, before, limit).await.map_err(Error::write)
    }

    async fn delete_finished(
        &self,
        before: Micros,
        keep_newest: u64,
        limit: u32,
    ) -> Result<u64, Error> {
        let mut connection = self.writer().await?;
        let done = retention::delete_finished(&mut connection, before, keep_newest, limit).await;
        done.map_err(Error::write)
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
