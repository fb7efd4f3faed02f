//! The tables and what can be done with them, each in one go: the meaning of `Store` without a
//! database. Only the rules of a batch are the databases' own.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use engine::{ContentHash, RunId};

use super::documents::Documents;
use super::shared::Shared;
use crate::batch::{Batch, Transition};
use crate::limits::{DEFINITION_BYTES_MAX, PAGE_ROWS_MAX};
use crate::{
    AuditRow, Collected, Commit, Cursor, DeadLetterFilter, DeadLetterRow, Deleted, Discarded,
    Error, JournalRow, Micros, Outcome, OwnerId, Registration, RequestRow, RunFilter, RunRow,
    ScheduleId, ScheduleRow, WorkflowRow,
};

#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) runs: BTreeMap<RunId, RunRow>,
    pub(super) shared: Shared,
    journal: BTreeMap<RunId, Vec<JournalRow>>,
    pub(super) documents: Documents,
    pub(super) requests: BTreeMap<(String, String), RequestRow>,
    dead_letters: BTreeMap<String, DeadLetterRow>,
    definitions: BTreeMap<[u8; 32], String>,
    /// In the order in which they were first registered.
    workflows: Vec<WorkflowRow>,
    schedules: BTreeMap<ScheduleId, ScheduleRow>,
    blobs: BTreeMap<[u8; 32], Blob>,
    run_blobs: BTreeMap<RunId, BTreeSet<[u8; 32]>>,
}

#[derive(Debug)]
struct Blob {
    content: Vec<u8>,
    touched_at: Micros,
}

/// The rows of one page.
pub(super) fn page<T>(rows: impl Iterator<Item = T>, limit: u32) -> Vec<T> {
    rows.take(limit.min(PAGE_ROWS_MAX) as usize).collect()
}

fn count(found: usize) -> u64 {
    u64::try_from(found).unwrap_or(u64::MAX)
}

impl Tables {
    pub(super) fn commit(&mut self, commits: &[Commit]) -> Result<Vec<Outcome>, Error> {
        let mut batch = Batch::new(commits)?;
        let mut known = BTreeMap::new();
        batch.drop(|transition| self.loses(transition, &mut known));
        for (hash, (at, content)) in batch.contents() {
            self.touch(hash, at, Some(content));
        }
        let mut missing = HashSet::new();
        for (hash, at) in batch.references() {
            if !self.touch(hash, at, None) {
                missing.insert(hash);
            }
        }
        batch.refuse_missing(&missing);
        for transition in std::mem::take(&mut batch.transitions) {
            // Another of the batch may have been the first to take a number.
            if self.documents.has_any(&transition.commit.audit) {
                continue;
            }
            self.write(&transition);
            batch.settle(transition.place, Outcome::Committed);
        }
        Ok(batch.into_outcomes())
    }

    /// A request that is known weighs more than a conflict, for it says what became of it.
    fn loses(
        &self,
        transition: &Transition<'_>,
        known: &mut BTreeMap<(String, String), (RunId, ContentHash)>,
    ) -> Option<Outcome> {
        let commit = transition.commit;
        let key = |row: &RequestRow| (row.tenant.clone(), row.request_id.clone());
        if let Some(request) = transition.request()
            && let Some(stored) = self.requests.get(&key(request))
        {
            let (run_id, body_hash) = (stored.run_id, stored.body_hash);
            return Some(Outcome::DuplicateRequest { run_id, body_hash });
        }
        let stands = match self.runs.get(&commit.run) {
            None => transition.is_insert(),
            Some(stored) => {
                !transition.is_insert()
                    && stored.version == commit.expected_version
                    && stored.owner == commit.row.owner
            }
        };
        if !stands || self.documents.has_any(&commit.audit) {
            return Some(Outcome::Conflict);
        }
        let request = transition.request()?;
        if let Some((run, body_hash)) = known.get(&key(request)) {
            let (run_id, body_hash) = (Some(*run), *body_hash);
            return Some(Outcome::DuplicateRequest { run_id, body_hash });
        }
        known.insert(key(request), (commit.run, request.body_hash));
        None
    }

    fn write(&mut self, transition: &Transition<'_>) {
        let commit = transition.commit;
        let run = commit.run;
        let mut row = RunRow { run_id: run, ..commit.row.clone() };
        if let Some(stored) = self.runs.remove(&run) {
            row = RunRow {
                tenant: stored.tenant,
                workflow: stored.workflow,
                version_name: stored.version_name,
                definition_hash: stored.definition_hash,
                created_at: stored.created_at,
                parent: stored.parent,
                owner: stored.owner,
                ..row
            };
        }
        self.runs.insert(run, row);
        self.journal.entry(run).or_default().extend(commit.events.iter().cloned());
        if let Some(request) = transition.request() {
            let row = RequestRow { run_id: Some(run), ..request.clone() };
            self.requests.insert((row.tenant.clone(), row.request_id.clone()), row);
        }
        for id in &commit.remove_dead_letters {
            if self.dead_letters.get(id).is_some_and(|letter| letter.run_id == run) {
                self.dead_letters.remove(id);
            }
        }
        for letter in &commit.dead_letters {
            let row = DeadLetterRow { run_id: run, ..letter.clone() };
            self.dead_letters.entry(row.id.clone()).or_insert(row);
        }
        self.documents.project(&commit.documents);
        self.documents.append(&commit.audit);
        if let Some((parent, at)) = transition.parent_to_wake() {
            self.wake_by(parent, at);
        }
        let blobs = self.run_blobs.entry(run).or_default();
        blobs.extend(transition.blobs().map(|hash| hash.0));
    }

    /// A later touch is never undone by an earlier one. Gives whether the blob is there.
    fn touch(&mut self, hash: ContentHash, at: Micros, content: Option<&[u8]>) -> bool {
        if let Some(blob) = self.blobs.get_mut(&hash.0) {
            blob.touched_at = blob.touched_at.max(at);
            return true;
        }
        let Some(content) = content else { return false };
        self.blobs.insert(hash.0, Blob { content: content.to_vec(), touched_at: at });
        true
    }

    pub(super) fn adopt(&mut self, run: RunId, owner: OwnerId) -> Option<RunRow> {
        let row = self.runs.get_mut(&run)?;
        row.owner = Some(owner);
        Some(row.clone())
    }

    pub(super) fn fold(&self, run: RunId) -> Option<(RunRow, Vec<JournalRow>)> {
        let journal = self.journal.get(&run).cloned().unwrap_or_default();
        self.run(run).map(|row| (row, journal))
    }

    pub(super) fn unfinished(&self, after: Option<RunId>, limit: u32) -> Vec<RunRow> {
        let open = self.runs.values().filter(|row| row.ended_at.is_none());
        page(open.filter(|row| after.is_none_or(|after| row.run_id > after)).cloned(), limit)
    }

    pub(super) fn journal(&self, run: RunId, after_seq: i64, limit: u32) -> Vec<JournalRow> {
        let rows = self.journal.get(&run).into_iter().flatten();
        page(rows.filter(|row| row.seq > after_seq).cloned(), limit)
    }

    pub(super) fn run(&self, run: RunId) -> Option<RunRow> {
        self.runs.get(&run).cloned()
    }

    pub(super) fn runs(
        &self,
        filter: &RunFilter,
        after: Option<Cursor<RunId>>,
        ascending: bool,
        limit: u32,
    ) -> Vec<RunRow> {
        let same = |wanted: &Option<String>, found: &String| {
            wanted.as_ref().is_none_or(|wanted| wanted == found)
        };
        let fits = |row: &&RunRow| {
            same(&filter.tenant, &row.tenant)
                && same(&filter.workflow, &row.workflow)
                && filter.status.is_none_or(|status| status == row.status)
                && filter.parent.is_none_or(|parent| row.parent == Some(parent))
        };
        let mut rows: Vec<&RunRow> = self.runs.values().filter(fits).collect();
        rows.sort_by_key(|row| (row.created_at, row.run_id));
        if !ascending {
            rows.reverse();
        }
        let after = after.map(|after| (after.at, after.id));
        let beyond = |row: &&RunRow| match (after, (row.created_at, row.run_id)) {
            (None, _) => true,
            (Some(after), place) => (place > after) == ascending && place != after,
        };
        page(rows.into_iter().filter(beyond).cloned(), limit)
    }

    pub(super) fn put_definition(&mut self, hash: ContentHash, yaml: &str) -> Result<(), Error> {
        if yaml.len() > DEFINITION_BYTES_MAX {
            let text = format!("a definition has {DEFINITION_BYTES_MAX} bytes at most");
            return Err(Error::Invalid(text));
        }
        self.definitions.entry(hash.0).or_insert_with(|| yaml.to_owned());
        Ok(())
    }

    pub(super) fn definition(&self, hash: ContentHash) -> Option<String> {
        self.definitions.get(&hash.0).cloned()
    }

    pub(super) fn register_workflow(
        &mut self,
        row: &WorkflowRow,
        replace: bool,
        etag: Option<&str>,
        audit: &[AuditRow],
    ) -> Registration {
        let taken = self.documents.has_any(audit);
        let same = |other: &&mut WorkflowRow| {
            (&other.tenant, &other.name, &other.version) == (&row.tenant, &row.name, &row.version)
        };
        match self.workflows.iter_mut().find(same) {
            Some(stored) if !replace => Registration::Exists(stored.clone()),
            Some(stored) if etag.is_some_and(|etag| etag != stored.etag) => {
                Registration::EtagMismatch { stored: Some(stored.etag.clone()) }
            }
            None if etag.is_some() => Registration::EtagMismatch { stored: None },
            _ if taken => Registration::AuditTaken,
            Some(stored) => {
                *stored = row.clone();
                self.documents.append(audit);
                Registration::Registered
            }
            None => {
                self.workflows.push(row.clone());
                self.documents.append(audit);
                Registration::Registered
            }
        }
    }

    pub(super) fn workflow(
        &self,
        tenant: &str,
        name: &str,
        version: Option<&str>,
    ) -> Option<WorkflowRow> {
        let fits = |row: &&WorkflowRow| {
            row.tenant == tenant
                && row.name == name
                && version.is_none_or(|version| row.version == version)
        };
        self.workflows.iter().rev().find(fits).cloned()
    }

    pub(super) fn workflows(
        &self,
        tenant: &str,
        name: Option<&str>,
        after: Option<(&str, &str)>,
        limit: u32,
    ) -> Vec<WorkflowRow> {
        let fits = |row: &&WorkflowRow| {
            row.tenant == tenant
                && name.is_none_or(|name| row.name == name)
                && after.is_none_or(|after| (row.name.as_str(), row.version.as_str()) > after)
        };
        let mut rows: Vec<&WorkflowRow> = self.workflows.iter().filter(fits).collect();
        rows.sort_by_key(|row| (&row.name, &row.version));
        page(rows.into_iter().cloned(), limit)
    }

    pub(super) fn put_schedule(&mut self, id: &ScheduleId, spec: &[u8]) -> ScheduleRow {
        let row = self.schedules.entry(id.clone()).or_insert_with(|| ScheduleRow {
            id: id.clone(),
            spec: spec.to_vec(),
            version: 1,
            last_instant: None,
            owner: None,
        });
        if row.spec != spec {
            row.spec = spec.to_vec();
            row.version += 1;
        }
        row.clone()
    }

    pub(super) fn schedules(&self, after: Option<&ScheduleId>, limit: u32) -> Vec<ScheduleRow> {
        let rows = self.schedules.values();
        page(rows.filter(|row| after.is_none_or(|after| row.id > *after)).cloned(), limit)
    }

    pub(super) fn advance_schedule(
        &mut self,
        id: &ScheduleId,
        expected_version: i64,
        instant: Micros,
        owner: OwnerId,
    ) -> bool {
        let row = self.schedules.get_mut(id).filter(|row| row.version == expected_version);
        let Some(row) = row else { return false };
        row.version += 1;
        row.last_instant = Some(instant);
        row.owner = Some(owner);
        true
    }

    pub(super) fn delete_schedule(&mut self, id: &ScheduleId) -> bool {
        self.schedules.remove(id).is_some()
    }

    pub(super) fn request(&self, tenant: &str, request_id: &str) -> Option<RequestRow> {
        self.requests.get(&(tenant.to_owned(), request_id.to_owned())).cloned()
    }

    pub(super) fn put_request(&mut self, row: &RequestRow) -> Option<RequestRow> {
        let key = (row.tenant.clone(), row.request_id.clone());
        let stored = self.requests.get(&key).cloned();
        self.requests.entry(key).or_insert_with(|| row.clone());
        stored
    }

    pub(super) fn expire_requests(&mut self, before: Micros, limit: u32) -> u64 {
        let old = self.requests.iter().filter(|(_, row)| row.at < before);
        let mut old: Vec<_> = old.map(|(key, row)| (row.at, key.clone())).collect();
        old.sort();
        old.truncate(limit as usize);
        old.iter().for_each(|(_, key)| drop(self.requests.remove(key)));
        count(old.len())
    }

    pub(super) fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
        after: Option<&Cursor<String>>,
        limit: u32,
    ) -> Vec<DeadLetterRow> {
        let same = |wanted: &Option<String>, found: &String| {
            wanted.as_ref().is_none_or(|wanted| wanted == found)
        };
        let fits = |row: &&DeadLetterRow| {
            same(&filter.tenant, &row.tenant)
                && same(&filter.workflow, &row.workflow)
                && filter.run_id.is_none_or(|run| row.run_id == run)
                && after.is_none_or(|after| (row.at, &row.id) < (after.at, &after.id))
        };
        let mut rows: Vec<&DeadLetterRow> = self.dead_letters.values().filter(fits).collect();
        rows.sort_by(|one, other| (other.at, &other.id).cmp(&(one.at, &one.id)));
        page(rows.into_iter().cloned(), limit)
    }

    pub(super) fn dead_letter(&self, id: &str) -> Option<DeadLetterRow> {
        self.dead_letters.get(id).cloned()
    }

    pub(super) fn delete_dead_letter(&mut self, id: &str, audit: &[AuditRow]) -> Discarded {
        if !self.dead_letters.contains_key(id) {
            return Discarded::NotThere;
        }
        if self.documents.has_any(audit) {
            return Discarded::AuditTaken;
        }
        self.dead_letters.remove(id);
        self.documents.append(audit);
        Discarded::Done
    }

    pub(super) fn put_blob(&mut self, bytes: &[u8], at: Micros) -> ContentHash {
        let hash = ContentHash::of(bytes);
        self.touch(hash, at, Some(bytes));
        hash
    }

    pub(super) fn blob(&self, hash: ContentHash) -> Option<Vec<u8>> {
        self.blobs.get(&hash.0).map(|blob| blob.content.clone())
    }

    pub(super) fn collect_blobs(
        &mut self,
        before: Micros,
        after: Option<Cursor<ContentHash>>,
        limit: u32,
    ) -> Collected {
        let mut old: Vec<(Micros, [u8; 32])> =
            self.blobs.iter().map(|(hash, blob)| (blob.touched_at, *hash)).collect();
        old.retain(|blob| {
            blob.0 < before && after.is_none_or(|after| *blob > (after.at, after.id.0))
        });
        old.sort_unstable();
        old.truncate(limit as usize);
        let last = old.last().filter(|_| old.len() == limit as usize);
        let next = last.map(|(at, hash)| Cursor { at: *at, id: ContentHash(*hash) });
        let needed: BTreeSet<&[u8; 32]> = self.run_blobs.values().flatten().collect();
        old.retain(|(_, hash)| !needed.contains(hash));
        old.iter().for_each(|(_, hash)| drop(self.blobs.remove(hash)));
        Collected { blobs: count(old.len()), next }
    }

    /// Runs that ended, by end and id.
    fn ended(&self) -> Vec<(Micros, RunId)> {
        let ended = self.runs.values().filter_map(|row| row.ended_at.map(|at| (at, row.run_id)));
        let mut ended: Vec<(Micros, RunId)> = ended.collect();
        ended.sort_unstable();
        ended
    }

    pub(super) fn oldest_kept(&self, keep_newest: u64) -> Option<Cursor<RunId>> {
        let Some(before) = keep_newest.checked_sub(1) else {
            return Some(Cursor { at: Micros::MAX, id: RunId(uuid::Uuid::max()) });
        };
        let before = usize::try_from(before).unwrap_or(usize::MAX);
        let oldest = self.ended().into_iter().rev().nth(before);
        oldest.map(|(at, id)| Cursor { at, id })
    }

    pub(super) fn delete_finished(
        &mut self,
        before: Cursor<RunId>,
        after: Option<Cursor<RunId>>,
        limit: u32,
    ) -> Deleted {
        let ended = self.ended().into_iter();
        let past = ended.filter(|run| after.is_none_or(|after| *run > (after.at, after.id)));
        let wanted = past.filter(|run| *run < (before.at, before.id));
        let seen: Vec<(Micros, RunId)> = wanted.take(limit as usize).collect();
        let stays = |run: &RunId| {
            let parent = self.runs.get(run).and_then(|row| row.parent);
            parent.is_some_and(|parent| self.runs.contains_key(&parent))
        };
        let gone: Vec<RunId> = seen.iter().map(|(_, run)| *run).filter(|r| !stays(r)).collect();
        for run in &gone {
            self.runs.remove(run);
            self.journal.remove(run);
            self.run_blobs.remove(run);
        }
        self.dead_letters.retain(|_, letter| !gone.contains(&letter.run_id));
        self.documents.forget(&gone);
        let last = seen.last().filter(|_| seen.len() == limit as usize);
        Deleted { runs: count(gone.len()), next: last.map(|(at, id)| Cursor { at: *at, id: *id }) }
    }
}
