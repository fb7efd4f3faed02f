//! The audit log: who decided what, in chains of entries that are each hashed over the one before.
//!
//! A chain is about one resource: a run, a triage, an escalation. Entries about a run are written
//! in the run's own commit (`runs::audited`), all others in one change with what they are about.
//! Nothing here changes or removes an entry.

pub mod seals;
pub mod verify;

use engine::{ContentHash, Instant};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use store::{AuditHead, AuditRow, Change, Changed, DocumentWrite, RequestRow, Store};

use crate::limits;

/// What a hash begins with, so that it is never one of something else.
const DOMAIN: &[u8] = b"orchestrator.v1.audit";
/// What stands before the first entry of a chain.
const NOTHING: ContentHash = ContentHash([0; 32]);

/// What is said where a chain is never free for long enough.
pub const BUSY: &str = "others write to the same audit log; try again";

/// What is to be written down.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// What it is about, such as `run/ID`: the chain that it belongs to.
    pub resource: String,
    /// Who did it.
    pub actor: String,
    /// What was done, such as `run.cancel`.
    pub action: &'static str,
    /// More about it: a JSON object. No secrets.
    pub body: Value,
}

/// Where a chain has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    number: i64,
    hash: ContentHash,
}

impl Default for Head {
    /// That of a chain without entries.
    fn default() -> Self {
        Self { number: 0, hash: NOTHING }
    }
}

impl From<Option<AuditHead>> for Head {
    fn from(head: Option<AuditHead>) -> Self {
        head.map_or_else(Self::default, |head| Self { number: head.number, hash: head.hash })
    }
}

impl Head {
    /// The row of an entry that follows; the head is then that entry.
    pub fn add(&mut self, entry: Entry, at: Instant) -> AuditRow {
        let mut row = AuditRow {
            resource: entry.resource,
            number: self.number + 1,
            at: at.0,
            actor: text(&entry.actor, store::limits::TEXT_BYTES_MAX),
            action: entry.action.to_owned(),
            body: entry.body.to_string().into_bytes(),
            previous: self.hash,
            hash: NOTHING,
        };
        row.hash = hash(&row);
        *self = Self { number: row.number, hash: row.hash };
        row
    }
}

/// The hash of an entry: SHA-256 over [`DOMAIN`] and all columns but the hash itself, each behind
/// its length in bytes as a 64-bit big-endian number, and numbers as 64-bit big-endian ones.
#[must_use]
pub fn hash(row: &AuditRow) -> ContentHash {
    let mut digest = Sha256::new();
    let mut add = |part: &[u8]| {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    };
    add(DOMAIN);
    add(row.resource.as_bytes());
    add(&row.number.to_be_bytes());
    add(&row.at.to_be_bytes());
    add(row.actor.as_bytes());
    add(row.action.as_bytes());
    add(&row.body);
    add(&row.previous.0);
    ContentHash(digest.finalize().into())
}

/// A text as an entry takes it: cut where it is too long, without characters that no column takes.
#[must_use]
pub fn text(text: &str, bytes_max: usize) -> String {
    let clean = text.replace('\0', "\u{fffd}");
    let mut end = bytes_max.min(clean.len());
    while !clean.is_char_boundary(end) {
        end -= 1;
    }
    clean[..end].to_owned()
}

/// What a person wrote, as an entry takes it.
#[must_use]
pub fn said(words: &str) -> String {
    text(words, limits::AUDIT_TEXT_BYTES_MAX)
}

/// Writes documents and what the audit log says of them, all or nothing. Where others add to the
/// same chains meanwhile it tries again; a [`Changed::Conflict`] is one of the documents.
///
/// # Errors
/// When the store does not do it, or a chain is never free for long enough.
pub async fn change(
    store: &dyn Store,
    documents: Vec<DocumentWrite>,
    entries: &[Entry],
    request: Option<RequestRow>,
    at: Instant,
) -> Result<Changed, store::Error> {
    let mut change = Change { documents, audit: Vec::new(), request };
    let mut before = Vec::new();
    for _ in 0..limits::AUDIT_ATTEMPTS {
        let heads = heads(store, entries).await?;
        if heads == before && !before.is_empty() {
            return Ok(Changed::Conflict);
        }
        change.audit = rows(entries, &heads, at);
        match store.change(&change).await? {
            Changed::Conflict if entries.is_empty() => return Ok(Changed::Conflict),
            Changed::Conflict => before = heads,
            done => return Ok(done),
        }
    }
    Err(store::Error::Unavailable(BUSY.to_owned()))
}

/// The row of an entry as it follows just now in its chain. Whoever writes it has to look again
/// where its number is taken.
///
/// # Errors
/// When the store cannot say where the chain has come to.
pub async fn next(store: &dyn Store, entry: Entry, at: Instant) -> Result<AuditRow, store::Error> {
    let mut head = Head::from(store.audit_head(&entry.resource).await?);
    Ok(head.add(entry, at))
}

/// Writes entries down that belong to no document.
///
/// # Errors
/// As [`change`].
pub async fn append(
    store: &dyn Store,
    entries: &[Entry],
    at: Instant,
) -> Result<Changed, store::Error> {
    change(store, Vec::new(), entries, None, at).await
}

/// The chains of these entries, each once, and where they have come to.
async fn heads(store: &dyn Store, entries: &[Entry]) -> Result<Vec<(String, Head)>, store::Error> {
    let mut heads: Vec<(String, Head)> = Vec::new();
    for Entry { resource, .. } in entries {
        if heads.iter().all(|(known, _)| known != resource) {
            let head = store.audit_head(resource).await?;
            heads.push((resource.clone(), head.into()));
        }
    }
    Ok(heads)
}

fn rows(entries: &[Entry], heads: &[(String, Head)], at: Instant) -> Vec<AuditRow> {
    let mut heads = heads.to_vec();
    let row = |entry: &Entry| {
        let head = heads.iter_mut().find(|(resource, _)| *resource == entry.resource);
        head.map(|(_, head)| head.add(entry.clone(), at))
    };
    entries.iter().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use store::testing::memory::Memory;

    use super::*;

    fn entry(resource: &str, actor: &str) -> Entry {
        let body = json!({"reason": "late"});
        Entry { resource: resource.to_owned(), actor: actor.to_owned(), action: "x.do", body }
    }

    #[test]
    fn every_column_counts_in_the_hash() {
        let mut head = Head::default();
        head.add(entry("run/1", "ann"), Instant(6));
        let row = head.add(entry("run/1", "ann"), Instant(7));
        assert_eq!((row.number, row.hash), (2, hash(&row)));
        let changed = [
            AuditRow { resource: "run/2".to_owned(), ..row.clone() },
            AuditRow { number: 3, ..row.clone() },
            AuditRow { at: 8, ..row.clone() },
            AuditRow { actor: "annx".to_owned(), action: ".do".to_owned(), ..row.clone() },
            AuditRow { action: "y.do".to_owned(), ..row.clone() },
            AuditRow { body: b"{}".to_vec(), ..row.clone() },
            AuditRow { previous: NOTHING, ..row.clone() },
        ];
        for other in changed {
            assert_ne!(hash(&other), row.hash, "{other:?}");
        }
    }

    /// Programs of others compute this too: it stays as it is.
    #[test]
    fn the_hash_is_the_documented_one() {
        let row = Head::default().add(entry("run/1", "ann"), Instant(7));
        let digest = "cbe72de1";
        assert_eq!(row.hash.to_string()[..8], *digest, "{}", row.hash);
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(text("häß", 2), "h");
        assert_eq!(text("a\0b", 9), "a\u{fffd}b");
    }

    #[tokio::test]
    async fn those_who_write_to_one_chain_at_once_all_get_their_turn() {
        let store = Memory::new().open();
        let adding = (0..3).map(|number| {
            let (store, entry) = (store.clone(), entry("run/1", &number.to_string()));
            tokio::spawn(async move { append(&*store, &[entry], Instant(7)).await.unwrap() })
        });
        for added in adding.collect::<Vec<_>>() {
            assert_eq!(added.await.unwrap(), Changed::Done);
        }
        let chain = store.audit_chain("run/1", 0, 10).await.unwrap();
        assert_eq!(chain.len(), 3);
        assert!(chain.windows(2).all(|pair| pair[1].previous == pair[0].hash));
    }

    #[tokio::test]
    async fn a_document_that_changed_is_a_conflict_and_leaves_no_entry() {
        let store = Memory::new().open();
        let row = store::DocumentRow {
            kind: 6,
            id: "e".to_owned(),
            tenant: "default".to_owned(),
            parent: None,
            status: 1,
            created_at: 1,
            updated_at: 1,
            due_at: None,
            version: 2,
            body: b"{}".to_vec(),
        };
        let write = DocumentWrite { row, expected_version: 1 };
        let entries = [entry("escalation/e", "ann"), entry("escalation/e", "bob")];
        let changed = change(&*store, vec![write], &entries, None, Instant(7)).await.unwrap();
        assert_eq!(changed, Changed::Conflict);
        assert_eq!(store.audit_head("escalation/e").await.unwrap(), None);
        assert_eq!(append(&*store, &entries, Instant(7)).await.unwrap(), Changed::Done);
        assert_eq!(store.audit_head("escalation/e").await.unwrap().unwrap().number, 2);
    }
}
