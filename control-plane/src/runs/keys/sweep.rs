//! The look at all rows: asks again what was perhaps not heard, and gives back what belongs to
//! runs that have ended or want it no longer.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use engine::RunId;
use store::KeyRow;

use super::entry::{Ask, Entry};
use super::{Holder, Keeper, Name, Want, kind_of, lock, read};
use crate::limits;

/// Who was found to have something without wanting it.
pub(super) type Suspects = HashSet<(Name, Holder)>;

/// Which parked runs know that they have a key, at which version.
pub(super) type Aware = HashMap<(Name, Holder), i64>;

/// Somebody in a row of whom this process knows nothing.
struct Stranger {
    name: Name,
    holder: Holder,
    /// It has the key, and does not only wait for it.
    has: bool,
    displaced: bool,
}

/// What a look has found so far.
#[derive(Default)]
struct Found {
    wants: Vec<Want>,
    suspects: Suspects,
    aware: Aware,
    /// Parked runs that may not know that they have a key, or want it no longer.
    unsure: Vec<(Name, Holder, i64)>,
}

/// What the rows say of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It is not there, or has ended.
    Over,
    /// This process holds it in memory.
    Ours,
    /// Another does.
    Elsewhere,
    /// Nobody does; its journal has so many events.
    Parked(i64),
}

impl Keeper {
    /// Looks at all rows; gives what is to be asked because of what they say.
    pub(super) async fn look(&mut self) -> Vec<Want> {
        match self.look_once().await {
            Ok(wants) => wants,
            Err(error) => {
                tracing::warn!(%error, "concurrency keys cannot be looked at just now");
                Vec::new()
            }
        }
    }

    async fn look_once(&mut self) -> Result<Vec<Want>, store::Error> {
        let untold = lock(&self.runs.shared.keys.registry).untold();
        let mut found = Found::default();
        found.wants.extend(untold.into_iter().map(|(holder, acquire)| {
            let name = (acquire.which, Arc::clone(&acquire.key));
            Want { name, holder: Some(holder), ask: Ask::Acquire(acquire) }
        }));
        let mut after: Option<(i16, String)> = None;
        loop {
            let from = after.as_ref().map(|(kind, key)| (*kind, key.as_str()));
            let page = self.runs.store().list_keys(from, limits::KEYS_PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some((last.kind, last.key.clone()));
            self.look_at(&page, &mut found).await?;
        }
        self.tell_unaware(&mut found).await;
        (self.suspects, self.aware) = (found.suspects, found.aware);
        Ok(found.wants)
    }

    async fn look_at(&mut self, page: &[KeyRow], found: &mut Found) -> Result<(), store::Error> {
        let mut strangers: BTreeMap<RunId, Vec<Stranger>> = BTreeMap::new();
        for row in page {
            let (Some(kind), Ok(entry)) = (kind_of(row.kind), read(row)) else { continue };
            let name: Name = (kind, Arc::from(&*row.key));
            self.follow(&name, &entry);
            self.runs.shared.keys.see(&name, &entry);
            let registry = lock(&self.runs.shared.keys.registry);
            for holder in entry.everybody() {
                let displaced = is_displaced(&entry, holder);
                if registry.wish(holder, &name).is_none() {
                    let (name, has) = (name.clone(), entry.has(holder));
                    let stranger = Stranger { name, holder, has, displaced };
                    strangers.entry(holder.run).or_default().push(stranger);
                } else if displaced {
                    found.wants.push(remind(name.clone(), holder));
                }
            }
        }
        let standings = self.standings(strangers.keys().copied().collect()).await?;
        for (run, entries) in strangers {
            let standing = standings.get(&run).copied().unwrap_or(Standing::Over);
            entries.into_iter().for_each(|stranger| self.judge(stranger, standing, found));
        }
        Ok(())
    }

    /// What is to be done about somebody of whom this process knows nothing.
    fn judge(&self, stranger: Stranger, standing: Standing, found: &mut Found) {
        let Stranger { name, holder, has, displaced } = stranger;
        let over = match standing {
            Standing::Over => true,
            Standing::Elsewhere => false,
            Standing::Parked(_) if displaced => {
                // Nobody else tells it to stop.
                found.wants.push(remind(name, holder));
                return;
            }
            Standing::Parked(version) => {
                let suspect = (name, holder);
                if has && self.aware.get(&suspect) == Some(&version) {
                    found.aware.insert(suspect, version);
                } else if has {
                    found.unsure.push((suspect.0, holder, version));
                }
                return;
            }
            // It may be on its way into memory; the next look tells.
            Standing::Ours => self.suspects.contains(&(name.clone(), holder)),
        };
        if over {
            found.wants.push(Want { name, holder: Some(holder), ask: Ask::Release });
        } else if standing == Standing::Ours {
            found.suspects.insert((name, holder));
        }
    }

    /// A parked run has nobody who asks again when a word is lost: that it has a key it waits for,
    /// or that it gave one back. Of those that have a key it is read whether they know, and want
    /// it; one that was found to does so for as long as its journal stays as it is.
    async fn tell_unaware(&self, found: &mut Found) {
        let unsure = std::mem::take(&mut found.unsure);
        for (name, holder, version) in unsure.into_iter().take(limits::KEYS_LOOK_READS) {
            let state = match self.runs.read(holder.run).await {
                Ok((_, state)) => state,
                Err(error) => {
                    tracing::debug!(%error, "whether a run knows of its key cannot be read");
                    continue;
                }
            };
            let mut keys = state.wanted_keys().into_iter();
            let wish = keys.find(|acquire| {
                (acquire.instance, acquire.which, &acquire.key)
                    == (holder.instance, name.0, &name.1)
            });
            let ask = match wish {
                // It was taken up meanwhile.
                _ if state.version() != version => continue,
                Some(acquire) if acquire.held => {
                    found.aware.insert((name, holder), version);
                    continue;
                }
                Some(acquire) => Ask::Acquire(Arc::new(acquire)),
                None => Ask::Release,
            };
            found.wants.push(Want { name, holder: Some(holder), ask });
        }
    }

    /// Whoever waits for a rate limit is let through by any replica whose time comes.
    fn follow(&mut self, name: &Name, entry: &Entry) {
        if let Some(at) = entry.next_token() {
            self.ticks.entry(name.clone()).or_insert(at);
        }
    }

    async fn standings(&self, runs: Vec<RunId>) -> Result<HashMap<RunId, Standing>, store::Error> {
        let mut standings = HashMap::with_capacity(runs.len());
        for some in runs.chunks(limits::KEYS_PAGE as usize) {
            for standing in self.runs.store().standings(some).await? {
                let (run, owner) = (standing.run_id, standing.owner);
                let told = if standing.ended {
                    Standing::Over
                } else if owner == Some(self.runs.shared.owner())
                    && !lock(&self.runs.shared.stuck).contains_key(&run)
                {
                    Standing::Ours
                } else if owner.is_none() {
                    Standing::Parked(standing.version)
                } else {
                    Standing::Elsewhere
                };
                standings.insert(run, told);
            }
        }
        Ok(standings)
    }
}

/// A holder that was told to stop is told again.
fn remind(name: Name, holder: Holder) -> Want {
    Want { name, holder: Some(holder), ask: Ask::Remind }
}

fn is_displaced(entry: &Entry, holder: Holder) -> bool {
    match entry {
        Entry::Concurrency(entry) => entry.displaced.contains(&holder),
        Entry::Rate(_) => false,
    }
}
