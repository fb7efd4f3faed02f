//! Whether the audit log is as it was written: every entry's hash is computed again, every link
//! followed, and every seal held against the chains that it covers.

use std::collections::HashMap;

use engine::ContentHash;
use serde::Deserialize;
use store::{AuditRow, Store};

use super::seals::CHAIN;
use super::{Head, hash};

/// How many entries are read at once.
const PAGE: u32 = 500;

/// The first place where the log is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The chain.
    pub resource: String,
    /// The number of the entry, or of the one that is missing.
    pub number: i64,
    /// What is wrong, in a sentence.
    pub problem: String,
}

/// What was looked at, and what was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Chains, without that of the seals.
    pub chains: u64,
    /// Their entries.
    pub entries: u64,
    /// Seals.
    pub seals: u64,
    /// The first broken place; none: all is as it was written.
    pub broken: Option<Broken>,
}

/// What a seal says.
#[derive(Deserialize)]
struct Seal {
    heads: Vec<SealedHead>,
}

#[derive(Deserialize)]
struct SealedHead {
    resource: String,
    number: i64,
    hash: String,
}

/// What seals say of chains: entry and hash, and which seal says so; by chain.
type Sealed = HashMap<String, Vec<(i64, String, i64)>>;

/// Verifies one chain, or all of them, and the seals.
///
/// # Errors
/// When the store cannot be read.
pub async fn verify(store: &dyn Store, resource: Option<&str>) -> Result<Verified, store::Error> {
    let mut verified = Verified::default();
    let sealed = match seals(store, resource, &mut verified).await? {
        Ok(sealed) => sealed,
        Err(broken) => return Ok(Verified { broken: Some(broken), ..verified }),
    };
    let mut after: Option<String> = None;
    let mut seen = 0;
    loop {
        let resources: Vec<String> = match (resource, &after) {
            (Some(resource), None) => vec![resource.to_owned()],
            (Some(_), Some(_)) => Vec::new(),
            (None, after) => {
                let heads = store.audit_heads(after.as_deref(), PAGE).await?;
                heads.into_iter().map(|head| head.resource).collect()
            }
        };
        let Some(last) = resources.last().cloned() else { break };
        after = Some(last);
        for resource in resources.iter().filter(|resource| *resource != CHAIN) {
            let known = sealed.get(resource).map_or(&[][..], Vec::as_slice);
            seen += usize::from(!known.is_empty());
            verified.chains += 1;
            let found = chain(store, resource, known, &mut verified.entries).await?;
            if let Err(broken) = found {
                return Ok(Verified { broken: Some(broken), ..verified });
            }
        }
    }
    verified.broken = if seen == sealed.len() { None } else { gone(store, &sealed).await? };
    Ok(verified)
}

/// Reads the seals: what they say of `resource`, or of all.
async fn seals(
    store: &dyn Store,
    resource: Option<&str>,
    verified: &mut Verified,
) -> Result<Result<Sealed, Broken>, store::Error> {
    let mut sealed = Sealed::new();
    let mut walk = Walk::new(CHAIN);
    loop {
        let rows = store.audit_chain(CHAIN, walk.last(), PAGE).await?;
        if rows.is_empty() {
            return Ok(Ok(sealed));
        }
        for row in &rows {
            if let Err(broken) = walk.step(row) {
                return Ok(Err(broken));
            }
            verified.seals += 1;
            let Ok(seal) = serde_json::from_slice::<Seal>(&row.body) else {
                return Ok(Err(walk.broken(row, "it is no seal")));
            };
            for head in seal.heads {
                if resource.is_none_or(|resource| resource == head.resource) {
                    let known = sealed.entry(head.resource).or_default();
                    known.push((head.number, head.hash, row.number));
                }
            }
        }
    }
}

/// Walks one chain, and holds it against what seals say of it.
async fn chain(
    store: &dyn Store,
    resource: &str,
    sealed: &[(i64, String, i64)],
    entries: &mut u64,
) -> Result<Result<(), Broken>, store::Error> {
    let mut sealed = sealed.to_vec();
    sealed.sort_unstable();
    let mut sealed = sealed.into_iter().peekable();
    let mut walk = Walk::new(resource);
    loop {
        let rows = store.audit_chain(resource, walk.last(), PAGE).await?;
        if rows.is_empty() {
            break;
        }
        for row in &rows {
            if let Err(broken) = walk.step(row) {
                return Ok(Err(broken));
            }
            *entries += 1;
            while let Some((_, hash, seal)) = sealed.next_if(|(number, ..)| *number == row.number) {
                if hash != row.hash.to_string() {
                    return Ok(Err(walk.broken(row, &format!("seal {seal} has another hash"))));
                }
            }
        }
    }
    Ok(match sealed.next() {
        Some((number, _, seal)) => {
            let problem = format!("it is gone; seal {seal} covers it");
            Err(Broken { resource: resource.to_owned(), number, problem })
        }
        None => Ok(()),
    })
}

/// The first chain that seals cover and that is gone as a whole.
async fn gone(store: &dyn Store, sealed: &Sealed) -> Result<Option<Broken>, store::Error> {
    let mut names: Vec<&String> = sealed.keys().collect();
    names.sort_unstable();
    for resource in names {
        if store.audit_head(resource).await?.is_none() {
            let (number, _, seal) = sealed[resource][0];
            let problem = format!("the whole chain is gone; seal {seal} covers it");
            return Ok(Some(Broken { resource: resource.clone(), number, problem }));
        }
    }
    Ok(None)
}

/// A way along a chain.
struct Walk<'a> {
    resource: &'a str,
    head: Head,
}

impl<'a> Walk<'a> {
    fn new(resource: &'a str) -> Self {
        Self { resource, head: Head::default() }
    }

    fn last(&self) -> i64 {
        self.head.number
    }

    fn step(&mut self, row: &AuditRow) -> Result<(), Broken> {
        let next = self.head.number + 1;
        if row.number != next {
            let problem = format!("it is missing; the next one is number {}", row.number);
            return Err(Broken { resource: self.resource.to_owned(), number: next, problem });
        }
        if row.previous != self.head.hash {
            return Err(self.broken(row, "it does not follow the entry before it"));
        }
        let computed: ContentHash = hash(row);
        if row.hash != computed {
            return Err(self.broken(row, "its hash is not that of what it says"));
        }
        self.head = Head { number: row.number, hash: row.hash };
        Ok(())
    }

    fn broken(&self, row: &AuditRow, problem: &str) -> Broken {
        let (resource, problem) = (self.resource.to_owned(), problem.to_owned());
        Broken { resource, number: row.number, problem }
    }
}

#[cfg(test)]
mod tests {
    use engine::Instant;
    use serde_json::json;
    use store::testing::memory::Memory;
    use store::{AuditHead, Change};

    use super::*;
    use crate::audit::{Entry, append, seals};

    fn entry(resource: &str, word: &str) -> Entry {
        let body = json!({ "word": word });
        Entry { resource: resource.to_owned(), actor: "ann".to_owned(), action: "x.do", body }
    }

    async fn filled() -> std::sync::Arc<dyn Store> {
        let store = Memory::new().open();
        for (at, resource) in ["run/a", "run/b", "run/a"].into_iter().enumerate() {
            append(&*store, &[entry(resource, "word")], Instant(at as i64)).await.unwrap();
        }
        store
    }

    #[tokio::test]
    async fn what_is_as_it_was_written_is_found_so() {
        let store = filled().await;
        assert_eq!(seals::seal(&*store, Instant(9)).await.unwrap(), 2);
        assert_eq!(seals::seal(&*store, Instant(9)).await.unwrap(), 0, "nothing grew");
        append(&*store, &[entry("run/b", "more")], Instant(10)).await.unwrap();
        assert_eq!(seals::seal(&*store, Instant(9)).await.unwrap(), 1);
        let all = Verified { chains: 2, entries: 4, seals: 2, broken: None };
        assert_eq!(verify(&*store, None).await.unwrap(), all);
        let one = Verified { chains: 1, entries: 2, ..all };
        assert_eq!(verify(&*store, Some("run/a")).await.unwrap(), one);
    }

    /// A chain that was written anew with right hashes is told by its seal alone.
    #[tokio::test]
    async fn a_chain_that_was_written_anew_is_told_by_its_seal() {
        let store = filled().await;
        let mut forged = Head::default();
        let rows = vec![
            forged.add(entry("run/c", "word"), Instant(1)),
            forged.add(entry("run/c", "another"), Instant(2)),
        ];
        let change = Change { audit: rows, ..Change::default() };
        store.change(&change).await.unwrap();
        let told = AuditHead {
            resource: "run/c".to_owned(),
            number: 1,
            hash: ContentHash::of(b"what it was"),
        };
        let seal = Head::default().add(seals::entry(&[told]), Instant(9));
        assert!(store.seal(&seal, &[]).await.unwrap());
        let broken = verify(&*store, None).await.unwrap().broken.unwrap();
        assert_eq!((broken.resource.as_str(), broken.number), ("run/c", 1));
        assert!(broken.problem.contains("seal 1"), "{broken:?}");
    }

    #[tokio::test]
    async fn a_chain_that_is_gone_is_told_by_its_seal() {
        let store = Memory::new().open();
        let told =
            AuditHead { resource: "run/z".to_owned(), number: 3, hash: ContentHash::of(b"z") };
        let seal = Head::default().add(seals::entry(&[told]), Instant(1));
        assert!(store.seal(&seal, &[]).await.unwrap());
        for resource in [None, Some("run/z")] {
            let broken = verify(&*store, resource).await.unwrap().broken.unwrap();
            assert_eq!((broken.resource.as_str(), broken.number), ("run/z", 3));
        }
    }

    #[tokio::test]
    async fn a_changed_entry_and_a_missing_one_are_found() {
        let store = Memory::new().open();
        let mut head = Head::default();
        let mut changed = head.add(entry("run/a", "word"), Instant(1));
        changed.actor = "mallory".to_owned();
        let missing = head.add(entry("run/b", "word"), Instant(1));
        let change = Change { audit: vec![changed, missing], ..Change::default() };
        store.change(&change).await.unwrap();
        let broken = verify(&*store, Some("run/a")).await.unwrap().broken.unwrap();
        assert!(broken.problem.contains("its hash"), "{broken:?}");
        let broken = verify(&*store, Some("run/b")).await.unwrap().broken.unwrap();
        assert_eq!(broken.number, 1);
        assert!(broken.problem.contains("missing"), "{broken:?}");
    }
}
