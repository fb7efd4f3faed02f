//! Whether the audit log is as it was written: every entry's hash is computed again, every link
//! followed, and every seal held against the chains that it covers.

use engine::ContentHash;
use serde::Deserialize;
use store::{AuditRow, Store};

use super::seals::CHAIN;
use super::{Head, hash};

/// How many entries are read at once.
const PAGE: u32 = 500;
/// How many seals are, each of which covers many chains.
const SEALS_PAGE: u32 = 8;
/// How many steps a part has where nobody says.
const STEPS: u64 = 10_000;

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

impl Verified {
    fn add(&mut self, part: Self) {
        self.chains += part.chains;
        self.entries += part.entries;
        self.seals += part.seals;
        self.broken = part.broken;
    }
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

/// Where a look at the log has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The chain that is being walked; that of the seals comes first.
    pub resource: String,
    /// The number of the last entry of it that was looked at; 0: none.
    pub number: i64,
    /// The hash of that.
    pub hash: ContentHash,
}

impl Default for Place {
    /// The beginning.
    fn default() -> Self {
        Self::before(CHAIN)
    }
}

impl Place {
    fn before(resource: &str) -> Self {
        let hash = Head::default().hash;
        Self { resource: resource.to_owned(), number: 0, hash }
    }
}

/// Verifies one chain, or all of them, and the seals.
///
/// # Errors
/// When the store cannot be read.
pub async fn verify(store: &dyn Store, resource: Option<&str>) -> Result<Verified, store::Error> {
    let mut whole = Verified::default();
    let mut from = Place::default();
    loop {
        let (part, next) = verify_some(store, resource, from, STEPS).await?;
        whole.add(part);
        match next {
            Some(next) => from = next,
            None => return Ok(whole),
        }
    }
}

/// Verifies a part, of `steps` entries and sealed heads or a few more, and gives where to go on;
/// nothing behind the end, or behind what is broken.
///
/// # Errors
/// When the store cannot be read.
pub async fn verify_some(
    store: &dyn Store,
    resource: Option<&str>,
    from: Place,
    steps: u64,
) -> Result<(Verified, Option<Place>), store::Error> {
    let mut part = Part { store, resource, verified: Verified::default(), left: steps };
    let mut next = Some(from);
    while let Some(place) = next.take() {
        if part.left == 0 {
            return Ok((part.verified, Some(place)));
        }
        let walked = match place.resource.as_str() {
            CHAIN => part.seals(place).await?,
            _ => part.chain(place).await?,
        };
        match walked {
            Ok(place) => next = place,
            Err(broken) => part.verified.broken = Some(broken),
        }
    }
    Ok((part.verified, None))
}

/// One part of the work.
struct Part<'a> {
    store: &'a dyn Store,
    resource: Option<&'a str>,
    verified: Verified,
    /// How many entries and sealed heads may be looked at yet.
    left: u64,
}

/// Where to go on, or what is broken.
type Walked = Result<Option<Place>, Broken>;

impl Part<'_> {
    /// Walks the seals, and looks up each head that they cover.
    async fn seals(&mut self, place: Place) -> Result<Walked, store::Error> {
        let mut walk = Walk::from(place);
        let rows = self.store.audit_chain(CHAIN, walk.head.number, SEALS_PAGE).await?;
        if rows.is_empty() {
            return self.first().await.map(Ok);
        }
        for row in &rows {
            if self.left == 0 {
                break;
            }
            if let Err(broken) = walk.step(row) {
                return Ok(Err(broken));
            }
            self.verified.seals += 1;
            self.left = self.left.saturating_sub(1);
            let Ok(seal) = serde_json::from_slice::<Seal>(&row.body) else {
                return Ok(Err(walk.broken(row, "it is no seal")));
            };
            for head in seal.heads {
                if self.resource.is_none_or(|resource| resource == head.resource)
                    && let Err(broken) = self.sealed(head, row.number).await?
                {
                    return Ok(Err(broken));
                }
            }
        }
        Ok(Ok(Some(walk.place())))
    }

    /// Whether what a seal covers is there as it was.
    async fn sealed(
        &mut self,
        SealedHead { resource, number, hash }: SealedHead,
        seal: i64,
    ) -> Result<Result<(), Broken>, store::Error> {
        self.left = self.left.saturating_sub(1);
        let rows = self.store.audit_chain(&resource, number.saturating_sub(1), 1).await?;
        let problem = match rows.first().filter(|row| row.number == number) {
            Some(row) if row.hash.to_string() == hash => return Ok(Ok(())),
            Some(_) => format!("seal {seal} has another hash"),
            None if self.store.audit_head(&resource).await?.is_none() => {
                format!("the whole chain is gone; seal {seal} covers it")
            }
            None => format!("it is gone; seal {seal} covers it"),
        };
        Ok(Err(Broken { resource, number, problem }))
    }

    /// Walks a page of one chain.
    async fn chain(&mut self, place: Place) -> Result<Walked, store::Error> {
        let mut walk = Walk::from(place);
        let limit = u32::try_from(self.left).unwrap_or(PAGE).min(PAGE);
        let rows = self.store.audit_chain(&walk.resource, walk.head.number, limit).await?;
        if rows.is_empty() {
            let is_last = self.resource.is_some();
            let next = if is_last { None } else { self.behind(Some(&walk.resource)).await? };
            return Ok(Ok(next));
        }
        for row in &rows {
            if let Err(broken) = walk.step(row) {
                return Ok(Err(broken));
            }
            self.verified.entries += 1;
            self.left = self.left.saturating_sub(1);
        }
        Ok(Ok(Some(walk.place())))
    }

    /// Where the chains begin.
    async fn first(&mut self) -> Result<Option<Place>, store::Error> {
        match self.resource {
            None => self.behind(None).await,
            Some(CHAIN) => Ok(None),
            Some(resource) => {
                self.verified.chains += 1;
                Ok(Some(Place::before(resource)))
            }
        }
    }

    /// The next chain in the order of names.
    async fn behind(&mut self, after: Option<&str>) -> Result<Option<Place>, store::Error> {
        // One of the two is not that of the seals.
        let heads = self.store.audit_heads(after, 2).await?;
        let next = heads.iter().find(|head| head.resource != CHAIN);
        self.verified.chains += u64::from(next.is_some());
        Ok(next.map(|head| Place::before(&head.resource)))
    }
}

/// A way along a chain.
struct Walk {
    resource: String,
    head: Head,
}

impl From<Place> for Walk {
    fn from(Place { resource, number, hash }: Place) -> Self {
        Self { resource, head: Head { number, hash } }
    }
}

impl Walk {
    fn place(self) -> Place {
        let Head { number, hash } = self.head;
        Place { resource: self.resource, number, hash }
    }

    fn step(&mut self, row: &AuditRow) -> Result<(), Broken> {
        let next = self.head.number + 1;
        if row.number != next {
            let problem = format!("it is missing; the next one is number {}", row.number);
            return Err(Broken { resource: self.resource.clone(), number: next, problem });
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
        let (resource, problem) = (self.resource.clone(), problem.to_owned());
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

    /// However small the parts are, they come to the same.
    #[tokio::test]
    async fn a_look_in_parts_sees_what_a_look_at_once_does() {
        let store = filled().await;
        seals::seal(&*store, Instant(9)).await.unwrap();
        for steps in 1..5 {
            for resource in [None, Some("run/a"), Some(CHAIN), Some("run/none")] {
                let whole = verify(&*store, resource).await.unwrap();
                let (mut parts, mut count) = (Verified::default(), 0);
                let mut next = Some(Place::default());
                while let Some(from) = next {
                    let (part, place) = verify_some(&*store, resource, from, steps).await.unwrap();
                    // A seal is looked at whole.
                    assert!(part.entries + part.seals <= steps.max(1));
                    parts.add(part);
                    next = place;
                    count += 1;
                }
                assert_eq!(parts, whole, "{resource:?} by {steps}");
                assert!(count > 1 || whole.entries < steps, "{count} parts");
            }
        }
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
