//! Documents and the audit log.

use std::collections::{BTreeMap, BTreeSet};

use engine::RunId;

use super::tables::{Tables, page};
use crate::{
    AuditCursor, AuditFilter, AuditHead, AuditRow, Change, Changed, Cursor, DocumentFilter,
    DocumentRow, DocumentWrite, Micros,
};

/// The tables of this.
#[derive(Debug, Default)]
pub(super) struct Documents {
    documents: BTreeMap<(i16, String), DocumentRow>,
    audit: BTreeMap<(String, i64), AuditRow>,
    unsealed: BTreeSet<(String, i64)>,
}

fn key(row: &AuditRow) -> (String, i64) {
    (row.resource.clone(), row.number)
}

fn head(row: &AuditRow) -> AuditHead {
    AuditHead { resource: row.resource.clone(), number: row.number, hash: row.hash }
}

impl Documents {
    /// Whether one of these numbers is taken.
    pub(super) fn has_any(&self, rows: &[AuditRow]) -> bool {
        rows.iter().any(|row| self.audit.contains_key(&key(row)))
    }

    pub(super) fn append(&mut self, rows: &[AuditRow]) {
        for row in rows {
            self.audit.insert(key(row), row.clone());
            self.unsealed.insert(key(row));
        }
    }

    /// Writes what follows from a run, unless it is older than what is there.
    pub(super) fn project(&mut self, rows: &[DocumentRow]) {
        for row in rows {
            let stored = self.documents.get(&(row.kind, row.id.clone()));
            if stored.is_none_or(|stored| stored.version < row.version) {
                self.put(row);
            }
        }
    }

    fn put(&mut self, row: &DocumentRow) {
        let key = (row.kind, row.id.clone());
        let row = match self.documents.get(&key) {
            Some(stored) => DocumentRow {
                tenant: stored.tenant.clone(),
                created_at: stored.created_at,
                ..row.clone()
            },
            None => row.clone(),
        };
        self.documents.insert(key, row);
    }

    pub(super) fn forget(&mut self, runs: &[RunId]) {
        let gone: BTreeSet<String> = runs.iter().map(ToString::to_string).collect();
        let stays = |row: &DocumentRow| row.parent.as_ref().is_none_or(|run| !gone.contains(run));
        self.documents.retain(|_, row| stays(row));
    }

    fn stands(&self, write: &DocumentWrite) -> bool {
        let stored = self.documents.get(&(write.row.kind, write.row.id.clone()));
        stored.map_or(0, |stored| stored.version) == write.expected_version
    }
}

impl Tables {
    pub(super) fn change(&mut self, change: &Change) -> Changed {
        let request = change.request.as_ref();
        let key = request.map(|row| (row.tenant.clone(), row.request_id.clone()));
        if let Some(stored) = key.as_ref().and_then(|key| self.requests.get(key)) {
            return Changed::DuplicateRequest(Box::new(stored.clone()));
        }
        let stands = change.documents.iter().all(|write| self.documents.stands(write));
        let numbers: BTreeSet<_> =
            change.audit.iter().map(|row| (&row.resource, row.number)).collect();
        let repeated = numbers.len() != change.audit.len();
        if !stands || repeated || self.documents.has_any(&change.audit) {
            return Changed::Conflict;
        }
        change.documents.iter().for_each(|write| self.documents.put(&write.row));
        self.documents.append(&change.audit);
        if let (Some(key), Some(row)) = (key, request) {
            self.requests.insert(key, row.clone());
        }
        Changed::Done
    }

    pub(super) fn document(&self, kind: i16, id: &str) -> Option<DocumentRow> {
        self.documents.documents.get(&(kind, id.to_owned())).cloned()
    }

    pub(super) fn documents(
        &self,
        filter: &DocumentFilter,
        after: Option<&Cursor<String>>,
        ascending: bool,
        limit: u32,
    ) -> Vec<DocumentRow> {
        let fits = |row: &&DocumentRow| {
            row.kind == filter.kind
                && filter.tenant.as_ref().is_none_or(|tenant| row.tenant == *tenant)
                && filter.parent.as_ref().is_none_or(|parent| row.parent.as_ref() == Some(parent))
                && filter.status.is_none_or(|status| row.status == status)
        };
        let mut rows: Vec<&DocumentRow> = self.documents.documents.values().filter(fits).collect();
        rows.sort_by_key(|row| (row.created_at, &row.id));
        if !ascending {
            rows.reverse();
        }
        let beyond = |row: &&DocumentRow| match (after, (row.created_at, &row.id)) {
            (None, _) => true,
            (Some(after), place) if ascending => place > (after.at, &after.id),
            (Some(after), place) => place < (after.at, &after.id),
        };
        page(rows.into_iter().filter(beyond).cloned(), limit)
    }

    pub(super) fn due_documents(&self, kind: i16, until: Micros, limit: u32) -> Vec<DocumentRow> {
        let fits =
            |row: &&DocumentRow| row.kind == kind && row.due_at.is_some_and(|at| at <= until);
        let mut rows: Vec<&DocumentRow> = self.documents.documents.values().filter(fits).collect();
        rows.sort_by_key(|row| (row.due_at, &row.id));
        page(rows.into_iter().cloned(), limit)
    }

    pub(super) fn audit_chain(&self, resource: &str, after: i64, limit: u32) -> Vec<AuditRow> {
        let rows = self.documents.audit.values();
        page(rows.filter(|row| row.resource == resource && row.number > after).cloned(), limit)
    }

    pub(super) fn audit_entries(
        &self,
        filter: &AuditFilter,
        after: Option<&AuditCursor>,
        limit: u32,
    ) -> Vec<AuditRow> {
        let same = |wanted: &Option<String>, found: &String| {
            wanted.as_ref().is_none_or(|wanted| wanted == found)
        };
        let fits = |row: &&AuditRow| {
            same(&filter.resource, &row.resource)
                && same(&filter.actor, &row.actor)
                && same(&filter.action, &row.action)
                && filter.since.is_none_or(|since| row.at >= since)
                && filter.until.is_none_or(|until| row.at < until)
                && after.is_none_or(|after| {
                    (row.at, &row.resource, row.number) < (after.at, &after.resource, after.number)
                })
        };
        let mut rows: Vec<&AuditRow> = self.documents.audit.values().filter(fits).collect();
        rows.sort_by_key(|row| (row.at, &row.resource, row.number));
        page(rows.into_iter().rev().cloned(), limit)
    }

    pub(super) fn audit_head(&self, resource: &str) -> Option<AuditHead> {
        let first = (resource.to_owned(), i64::MIN);
        let chain = first..=(resource.to_owned(), i64::MAX);
        self.documents.audit.range(chain).next_back().map(|(_, row)| head(row))
    }

    pub(super) fn audit_heads(&self, after: Option<&str>, limit: u32) -> Vec<AuditHead> {
        let chains: BTreeSet<&str> =
            self.documents.audit.keys().map(|(resource, _)| resource.as_str()).collect();
        let beyond = chains.into_iter().filter(|chain| after.is_none_or(|after| *chain > after));
        page(beyond.filter_map(|chain| self.audit_head(chain)), limit)
    }

    pub(super) fn unsealed_heads(&self, limit: u32) -> Vec<AuditHead> {
        let Documents { audit, unsealed, .. } = &self.documents;
        let mut last: BTreeMap<&str, i64> = BTreeMap::new();
        last.extend(unsealed.iter().map(|(resource, number)| (resource.as_str(), *number)));
        let rows = last
            .into_iter()
            .filter_map(|(chain, number)| audit.get(&(chain.to_owned(), number)).map(head));
        page(rows, limit)
    }

    pub(super) fn seal(&mut self, seal: &AuditRow, heads: &[AuditHead]) -> bool {
        let Documents { audit, unsealed, .. } = &mut self.documents;
        if audit.contains_key(&key(seal)) {
            return false;
        }
        audit.insert(key(seal), seal.clone());
        let covered = |(resource, number): &(String, i64)| {
            heads.iter().any(|head| head.resource == *resource && *number <= head.number)
        };
        unsealed.retain(|row| !covered(row));
        true
    }
}
