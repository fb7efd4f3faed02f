//! What spans runs: concurrency keys and rate limits.
//!
//! Each key is a row of the store that every replica changes by compare-and-swap, so that none
//! needs to own it. One task of this process carries out what its runs ask, many keys in one
//! write; what it could not tell somebody, or what a process left behind that died between two
//! writes, is found by a look at all rows from time to time. What is asked is idempotent.

mod entry;
mod registry;
mod sweep;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use engine::effect::Acquire;
use engine::event::KeyKind;
use engine::{InstanceId, Instant, RunId};
use store::{KeyChange, KeyRow};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::entry::{Ask, Entry};
pub(crate) use self::entry::{Holder, Verdict};
use self::registry::Registry;
use super::{Runs, lock};
use crate::limits;

/// A key and its kind.
type Name = (KeyKind, Arc<str>);

/// Who holds a key and who waits for it, for people: as this process saw it last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The first runs that hold it.
    pub holders: Vec<RunId>,
    /// How many wait.
    pub waiting: usize,
}

/// The way to the keys: notes what the runs of this process want and passes it on.
#[derive(Debug)]
pub(crate) struct Keys {
    registry: Mutex<Registry>,
    wants: mpsc::Sender<Want>,
    receiver: Mutex<Option<mpsc::Receiver<Want>>>,
    /// How concurrency keys stand, for people.
    seen: Mutex<HashMap<Arc<str>, Holding>>,
}

/// Something asked of a key.
#[derive(Clone, Debug)]
struct Want {
    name: Name,
    holder: Option<Holder>,
    ask: Ask,
}

impl Keys {
    pub(crate) fn new() -> Self {
        let (wants, receiver) = mpsc::channel(limits::KEY_WANTS_QUEUED_MAX);
        Self {
            registry: Mutex::default(),
            wants,
            receiver: Mutex::new(Some(receiver)),
            seen: Mutex::default(),
        }
    }

    /// Asks for a key.
    pub(crate) fn acquire(&self, holder: Holder, acquire: &Acquire) {
        let acquire = Arc::new(acquire.clone());
        lock(&self.registry).want(holder, Arc::clone(&acquire));
        let name = (acquire.which, Arc::clone(&acquire.key));
        self.ask(Want { name, holder: Some(holder), ask: Ask::Acquire(acquire) });
    }

    /// Gives back all that a holder has or waits for.
    pub(crate) fn release(&self, holder: Holder) {
        let released = lock(&self.registry).release(holder);
        for name in released {
            self.ask(Want { name, holder: Some(holder), ask: Ask::Release });
        }
    }

    /// Gives back all that a run and its steps have or wait for, but for what these have.
    pub(crate) fn keep(&self, run: RunId, wanted: &[Option<InstanceId>]) {
        let mut over = lock(&self.registry).holders_of(run);
        over.retain(|holder| !wanted.contains(&holder.instance));
        over.into_iter().for_each(|holder| self.release(holder));
    }

    /// Gives back all that a run and its steps have or wait for.
    pub(crate) fn release_run(&self, run: RunId) {
        self.keep(run, &[]);
    }

    /// A run was read, with these keys: what of them it gives back from here on is given back in
    /// the rows too.
    pub(crate) fn recall(&self, run: RunId, wanted: Vec<Acquire>) {
        let mut registry = lock(&self.registry);
        for acquire in wanted {
            registry.recall(Holder { run, instance: acquire.instance }, Arc::new(acquire));
        }
    }

    /// Whether the rows keep the places of a run that waits for these, so that whoever grants them
    /// finds it though it is in nobody's memory.
    pub(crate) fn keep_places(&self, run: RunId, awaited: &[Acquire]) -> bool {
        let registry = lock(&self.registry);
        awaited.iter().all(|acquire| {
            let name = (acquire.which, Arc::clone(&acquire.key));
            registry.is_queued(Holder { run, instance: acquire.instance }, &name)
        })
    }

    /// The run is held in memory no longer; what it has stays its own.
    pub(crate) fn forget_run(&self, run: RunId) {
        lock(&self.registry).forget(run);
    }

    /// Who holds a concurrency key.
    pub(crate) fn holding(&self, key: &str) -> Option<Holding> {
        lock(&self.seen).get(key).cloned()
    }

    fn see(&self, name: &Name, entry: &Entry) {
        let Entry::Concurrency(entry) = entry else { return };
        let mut seen = lock(&self.seen);
        if entry.holders.is_empty() && entry.waiting.is_empty() {
            seen.remove(&name.1);
            return;
        }
        if seen.len() >= limits::KEYS_KNOWN_MAX {
            seen.clear();
        }
        let holders = entry.holders.iter().take(limits::KEY_HOLDERS_SHOWN);
        let holders = holders.map(|holder| holder.run).collect();
        let holding = Holding { holders, waiting: entry.waiting.len() };
        seen.insert(Arc::clone(&name.1), holding);
    }

    /// A holder knows what became of its wish.
    pub(crate) fn told(&self, holder: Holder, which: Option<KeyKind>) {
        lock(&self.registry).told(holder, which);
    }

    /// With the queue full, the next look at all rows finds what is left to be asked.
    fn ask(&self, want: Want) {
        if self.wants.try_send(want).is_err() {
            tracing::warn!("too much is asked of concurrency keys; it is asked again shortly");
        }
    }
}

/// A row as it was read or written last.
struct Known {
    version: i64,
    entry: Entry,
    /// It was read for this very change.
    fresh: bool,
}

/// The task that changes the rows.
pub(super) struct Keeper {
    runs: Runs,
    known: HashMap<Name, Known>,
    /// When rate limits let somebody through next.
    ticks: BTreeMap<Name, Instant>,
    /// Who has something without wanting it, as the last look found.
    suspects: sweep::Suspects,
    /// Parked runs that know what they have, as the last look found.
    aware: sweep::Aware,
}

/// Starts the task that changes the rows. Only the first call counts.
pub(super) fn spawn(runs: &Runs, shutdown: CancellationToken) {
    let Some(wants) = lock(&runs.shared.keys.receiver).take() else { return };
    let keeper = Keeper {
        runs: runs.clone(),
        known: HashMap::new(),
        ticks: BTreeMap::new(),
        suspects: sweep::Suspects::default(),
        aware: sweep::Aware::default(),
    };
    tokio::spawn(keeper.run(wants, shutdown));
}

impl Keeper {
    async fn run(mut self, mut wants: mpsc::Receiver<Want>, shutdown: CancellationToken) {
        let mut looks = tokio::time::interval(limits::KEYS_LOOK_EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut batch = Vec::new();
        loop {
            let clock = &self.runs.shared.clock;
            let next = self.ticks.values().min().map(|at| crate::clock::until(&**clock, *at));
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                count = wants.recv_many(&mut batch, limits::KEY_WANTS_AT_ONCE) => {
                    if count == 0 {
                        return;
                    }
                }
                () = tokio::time::sleep(next.unwrap_or_default()), if next.is_some() => {}
                _ = looks.tick() => batch.extend(self.look().await),
            }
            batch.extend(self.due());
            let carried = self.carry_out(std::mem::take(&mut batch));
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = carried => {}
            }
        }
    }

    /// The rate limits whose time has come.
    fn due(&mut self) -> Vec<Want> {
        let now = self.runs.shared.clock.now();
        let due = self.ticks.iter().filter(|(_, at)| **at <= now);
        due.map(|(name, _)| Want { name: name.clone(), holder: None, ask: Ask::Tick }).collect()
    }

    /// Does what is asked, for as long as it takes.
    async fn carry_out(&mut self, wants: Vec<Want>) {
        let mut asked: BTreeMap<Name, Vec<Want>> = BTreeMap::new();
        for want in wants {
            asked.entry(want.name.clone()).or_default().push(want);
        }
        let mut pause = limits::STORE_RETRY_MIN;
        while !asked.is_empty() {
            let names: Vec<Name> =
                asked.keys().take(limits::KEY_CHANGES_AT_ONCE).cloned().collect();
            match self.change(&names, &asked).await {
                Ok(settled) => {
                    pause = limits::STORE_RETRY_MIN;
                    settled.iter().for_each(|name| drop(asked.remove(name)));
                }
                Err(error) => {
                    tracing::warn!(%error, "concurrency keys cannot be changed just now");
                    names.iter().for_each(|name| drop(self.known.remove(name)));
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(limits::STORE_RETRY_MAX);
                }
            }
        }
        if self.known.len() > limits::KEYS_KNOWN_MAX {
            self.known.clear();
        }
    }

    /// Tries to change these keys as asked; gives those that are settled. The others were
    /// changed by somebody else meanwhile.
    async fn change(
        &mut self,
        names: &[Name],
        asked: &BTreeMap<Name, Vec<Want>>,
    ) -> Result<Vec<Name>, store::Error> {
        self.read_unknown(names).await?;
        let now = self.runs.shared.clock.now();
        let (mut settled, mut writes, mut after) = (Vec::new(), Vec::new(), Vec::new());
        for name in names {
            let Some(known) = self.known.get(name) else { continue };
            let mut entry = known.entry.clone();
            let mut verdicts = Vec::new();
            for want in asked.get(name).into_iter().flatten() {
                verdicts.extend(entry.apply(&name.1, want.holder, &want.ask, now));
            }
            if entry == known.entry {
                // Another may have changed the row: what is asked again is not answered unread,
                // nor is it taken for done.
                let mut wants = asked.get(name).into_iter().flatten();
                let asks_nothing = wants.all(|want| matches!(want.ask, Ask::Tick));
                if known.fresh || asks_nothing && verdicts.is_empty() {
                    self.note_places(&entry, asked.get(name));
                    self.runs.tell(verdicts);
                    self.ticks_from(name);
                    settled.push(name.clone());
                } else {
                    self.known.remove(name);
                }
                continue;
            }
            let body = (!entry.is_idle(now)).then(|| text(&entry));
            // A row that comes back after it was removed has another version than it ever had.
            let version = (known.version + 1).max(now.0);
            let left = if body.is_some() { version } else { 0 };
            writes.push(KeyChange {
                kind: number(name.0),
                key: name.1.to_string(),
                expected_version: known.version,
                version,
                body,
            });
            after.push((name.clone(), left, entry, verdicts));
        }
        // A key that is not there and is not wanted needs no write.
        let written = self.runs.store().put_keys(&writes).await?;
        for (won, (name, version, entry, verdicts)) in written.into_iter().zip(after) {
            if !won {
                self.known.remove(&name);
                continue;
            }
            self.runs.shared.keys.see(&name, &entry);
            self.note_places(&entry, asked.get(&name));
            self.known.insert(name.clone(), Known { version, entry, fresh: false });
            self.ticks_from(&name);
            self.runs.tell(verdicts);
            settled.push(name);
        }
        Ok(settled)
    }

    /// The row that is written says so: these stand in line.
    fn note_places(&self, entry: &Entry, asked: Option<&Vec<Want>>) {
        let mut registry = lock(&self.runs.shared.keys.registry);
        for want in asked.into_iter().flatten() {
            if let (Some(holder), Ask::Acquire(acquire)) = (want.holder, &want.ask)
                && entry.keeps_place(holder)
            {
                registry.queued(holder, acquire);
            }
        }
    }

    async fn read_unknown(&mut self, names: &[Name]) -> Result<(), store::Error> {
        for kind in [KeyKind::Concurrency, KeyKind::Rate] {
            let unknown = names.iter().filter(|name| name.0 == kind);
            let unknown: Vec<&Name> =
                unknown.filter(|name| !self.known.contains_key(*name)).collect();
            if unknown.is_empty() {
                continue;
            }
            let keys: Vec<&str> = unknown.iter().map(|name| &*name.1).collect();
            let rows = self.runs.store().keys(number(kind), &keys).await?;
            let rows: HashMap<&str, &KeyRow> = rows.iter().map(|row| (&*row.key, row)).collect();
            for name in unknown {
                let (version, entry) = match rows.get(&*name.1) {
                    None => (0, Entry::new(kind)),
                    Some(row) => (row.version, read_or_new(row, kind)),
                };
                self.known.insert(name.clone(), Known { version, entry, fresh: true });
            }
        }
        Ok(())
    }

    /// Notes when a rate limit lets the next one through.
    fn ticks_from(&mut self, name: &Name) {
        match self.known.get(name).and_then(|known| known.entry.next_token()) {
            Some(at) => drop(self.ticks.insert(name.clone(), at)),
            None => drop(self.ticks.remove(name)),
        }
        if let Some(known) = self.known.get_mut(name) {
            known.fresh = false;
        }
    }
}

fn number(kind: KeyKind) -> i16 {
    match kind {
        KeyKind::Concurrency => 1,
        KeyKind::Rate => 2,
    }
}

fn kind_of(number: i16) -> Option<KeyKind> {
    [KeyKind::Concurrency, KeyKind::Rate].into_iter().find(|kind| self::number(*kind) == number)
}

fn text(entry: &Entry) -> Vec<u8> {
    serde_json::to_vec(entry).expect("ids and finite numbers can be written")
}

fn read(row: &KeyRow) -> Result<Entry, String> {
    serde_json::from_slice(&row.body).map_err(|error| error.to_string())
}

/// A row that cannot be read begins anew: its holders ask again for what they have.
fn read_or_new(row: &KeyRow, kind: KeyKind) -> Entry {
    read(row).unwrap_or_else(|error| {
        tracing::error!(key = %row.key, %error, "the row of a concurrency key cannot be read");
        Entry::new(kind)
    })
}

#[cfg(test)]
mod tests;
