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

/// What the rows say of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It is not there, or has ended.
    Over,
    /// This process holds it in memory.
    Ours,
    /// Another does.
    Elsewhere,
    /// Nobody does: it only waits, and knows what it holds.
    Parked,
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
        let mut wants: Vec<Want> = lock(&self.runs.shared.keys.registry)
            .untold()
            .into_iter()
            .map(|(holder, acquire)| {
                let name = (acquire.which, Arc::clone(&acquire.key));
                Want { name, holder: Some(holder), ask: Ask::Acquire(acquire) }
            })
            .collect();
        let mut suspects = Suspects::new();
        let mut after: Option<(i16, String)> = None;
        loop {
            let from = after.as_ref().map(|(kind, key)| (*kind, key.as_str()));
            let page = self.runs.store().list_keys(from, limits::KEYS_PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some((last.kind, last.key.clone()));
            self.look_at(&page, &mut wants, &mut suspects).await?;
        }
        self.suspects = suspects;
        Ok(wants)
    }

    async fn look_at(
        &mut self,
        page: &[KeyRow],
        wants: &mut Vec<Want>,
        suspects: &mut Suspects,
    ) -> Result<(), store::Error> {
        let mut strangers: BTreeMap<RunId, Vec<(Name, Holder, bool)>> = BTreeMap::new();
        for row in page {
            let (Some(kind), Ok(entry)) = (kind_of(row.kind), read(row)) else { continue };
            let name: Name = (kind, Arc::from(&*row.key));
            self.follow(&name, &entry);
            self.runs.shared.keys.see(&name, &entry);
            let registry = lock(&self.runs.shared.keys.registry);
            for holder in entry.everybody() {
                let displaced = is_displaced(&entry, holder);
                if registry.wish(holder, &name).is_none() {
                    let strange = (name.clone(), holder, displaced);
                    strangers.entry(holder.run).or_default().push(strange);
                } else if displaced {
                    wants.push(Want { name: name.clone(), holder: Some(holder), ask: Ask::Remind });
                }
            }
        }
        let standings = self.standings(strangers.keys().copied().collect()).await?;
        for (run, entries) in strangers {
            let standing = standings.get(&run).copied().unwrap_or(Standing::Over);
            for (name, holder, displaced) in entries {
                let suspect = (name, holder);
                let over = match standing {
                    Standing::Over => true,
                    Standing::Elsewhere => false,
                    Standing::Parked if displaced => {
                        // Nobody else tells it to stop.
                        let (name, holder) = suspect.clone();
                        wants.push(Want { name, holder: Some(holder), ask: Ask::Remind });
                        false
                    }
                    Standing::Parked => false,
                    // It may be on its way into memory; the next look tells.
                    Standing::Ours => self.suspects.contains(&suspect),
                };
                if over {
                    let (name, holder) = suspect;
                    wants.push(Want { name, holder: Some(holder), ask: Ask::Release });
                } else if standing == Standing::Ours {
                    suspects.insert(suspect);
                }
            }
        }
        Ok(())
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
                    Standing::Parked
                } else {
                    Standing::Elsewhere
                };
                standings.insert(run, told);
            }
        }
        Ok(standings)
    }
}

fn is_displaced(entry: &Entry, holder: Holder) -> bool {
    match entry {
        Entry::Concurrency(entry) => entry.displaced.contains(&holder),
        Entry::Rate(_) => false,
    }
}
