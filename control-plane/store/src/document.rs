//! Rows beside the journals: documents, which are resources changed by compare-and-swap, and the
//! audit log, which is only ever added to. Plain data and what can be stored of it; no SQL.

use engine::ContentHash;

use crate::batch::check_text;
use crate::limits::{
    AUDIT_BODY_BYTES_MAX, CHANGE_ROWS_MAX, DOCUMENT_BYTES_MAX, SEAL_HEADS_MAX, TEXT_BYTES_MAX,
};
use crate::{Error, Micros, RequestRow};

/// A resource that is no journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentRow {
    /// What it is, as the caller numbers them.
    pub kind: i16,
    /// Its id, unique within its kind.
    pub id: String,
    /// Whose it is. Stays as it was first written.
    pub tenant: String,
    /// What it belongs to: a run's id, with which it goes, or that of another document.
    pub parent: Option<String>,
    /// Its status, as the caller numbers them.
    pub status: i16,
    /// When it was made. Stays as it was first written.
    pub created_at: Micros,
    /// When it was last changed.
    pub updated_at: Micros,
    /// When something is to be done about it.
    pub due_at: Option<Micros>,
    /// Rises with every change; from 1.
    pub version: i64,
    /// JSON of the caller's.
    pub body: Vec<u8>,
}

/// A document that is to be written by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentWrite {
    /// The row as it is afterwards.
    pub row: DocumentRow,
    /// The version that it has; 0: it is not there.
    pub expected_version: i64,
}

/// Which documents; what is not given does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DocumentFilter {
    /// Of this kind. Always given.
    pub kind: i16,
    /// Of this tenant.
    pub tenant: Option<String>,
    /// That belong to this.
    pub parent: Option<String>,
    /// In this status.
    pub status: Option<i16>,
}

/// One entry of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// What it is about, such as `run/ID`: the chain that it belongs to.
    pub resource: String,
    /// Its place in that chain, from 1, without gaps.
    pub number: i64,
    /// When it happened.
    pub at: Micros,
    /// Who did it.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// JSON of the caller's.
    pub body: Vec<u8>,
    /// The hash of the entry before; zeros for the first.
    pub previous: ContentHash,
    /// A hash over everything above, which the caller makes.
    pub hash: ContentHash,
}

/// The last entry of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditHead {
    /// The chain.
    pub resource: String,
    /// The number of its last entry.
    pub number: i64,
    /// The hash of that.
    pub hash: ContentHash,
}

/// Which entries of the audit log; what is not given does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Of this chain.
    pub resource: Option<String>,
    /// By whom.
    pub actor: Option<String>,
    /// What was done.
    pub action: Option<String>,
    /// Not before this.
    pub since: Option<Micros>,
    /// Before this.
    pub until: Option<Micros>,
}

/// A place in the audit log as it is ordered by time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditCursor {
    /// The time of the last entry seen.
    pub at: Micros,
    /// Its chain.
    pub resource: String,
    /// Its number.
    pub number: i64,
}

/// What is written together or not at all, beside the runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Documents, each at most once.
    pub documents: Vec<DocumentWrite>,
    /// Entries of the audit log.
    pub audit: Vec<AuditRow>,
    /// The request behind it; one that is known already makes the change lose.
    pub request: Option<RequestRow>,
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It is written.
    Done,
    /// A document has another version, or an entry of the audit log with one of the numbers is
    /// there: read again, decide again.
    Conflict,
    /// The request is known: what it led to.
    DuplicateRequest(Box<RequestRow>),
}

/// Whether `row` can be stored.
pub(crate) fn check_document(row: &DocumentRow) -> Result<(), String> {
    check_text("tenant of the document", &row.tenant, TEXT_BYTES_MAX)?;
    check_text("document's id", &row.id, TEXT_BYTES_MAX)?;
    check_text("document's parent", row.parent.as_deref().unwrap_or_default(), TEXT_BYTES_MAX)?;
    check_size("document", row.body.len(), DOCUMENT_BYTES_MAX)?;
    if row.version < 1 {
        return Err(format!("document `{}` has version {}, the first is 1", row.id, row.version));
    }
    Ok(())
}

/// Whether `row` can be stored.
pub(crate) fn check_audit(row: &AuditRow) -> Result<(), String> {
    check_text("resource of the audit entry", &row.resource, TEXT_BYTES_MAX)?;
    check_text("actor of the audit entry", &row.actor, TEXT_BYTES_MAX)?;
    check_text("action of the audit entry", &row.action, TEXT_BYTES_MAX)?;
    check_size("audit entry", row.body.len(), AUDIT_BODY_BYTES_MAX)?;
    if row.number < 1 {
        let AuditRow { resource, number, .. } = row;
        return Err(format!("an audit entry of `{resource}` has number {number}, the first is 1"));
    }
    Ok(())
}

fn check_size(what: &str, found: usize, allowed: usize) -> Result<(), String> {
    if found > allowed {
        return Err(format!("the {what} has {found} bytes, allowed are {allowed}"));
    }
    Ok(())
}

/// Whether no document is written twice.
pub(crate) fn check_once<'a>(
    documents: impl Iterator<Item = &'a DocumentRow>,
) -> Result<(), String> {
    let mut keys: Vec<(i16, &str)> = documents.map(|row| (row.kind, &*row.id)).collect();
    keys.sort_unstable();
    match keys.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(format!("document `{}` is written twice", pair[0].1)),
        None => Ok(()),
    }
}

/// Whether `change` can be written.
pub(crate) fn check_change(change: &Change) -> Result<(), Error> {
    let rows = change.documents.len() + change.audit.len();
    if rows > CHANGE_ROWS_MAX {
        let text = format!("a change may have {CHANGE_ROWS_MAX} rows, this one has {rows}");
        return Err(Error::Invalid(text));
    }
    let check = || {
        check_once(change.documents.iter().map(|write| &write.row))?;
        for DocumentWrite { row, expected_version } in &change.documents {
            check_document(row)?;
            if row.version <= *expected_version {
                let version = row.version;
                return Err(format!("version {version} does not follow {expected_version}"));
            }
        }
        change.audit.iter().try_for_each(check_audit)?;
        let Some(request) = &change.request else { return Ok(()) };
        check_text("tenant of the request", &request.tenant, TEXT_BYTES_MAX)?;
        check_text("request id", &request.request_id, TEXT_BYTES_MAX)
    };
    check().map_err(Error::Invalid)
}

/// Whether a seal can be written.
pub(crate) fn check_seal(seal: &AuditRow, heads: &[AuditHead]) -> Result<(), Error> {
    if heads.len() > SEAL_HEADS_MAX {
        let found = heads.len();
        let text = format!("a seal covers {SEAL_HEADS_MAX} heads at most, this one {found}");
        return Err(Error::Invalid(text));
    }
    check_audit(seal).map_err(Error::Invalid)
}
