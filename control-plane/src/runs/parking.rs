//! Runs that only wait cost nothing but their rows: after a while they are left to nobody, and
//! taken up again when their time comes or somebody asks something of them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine::{Instant, RunId};
use store::{OwnerId, Parking, Store};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::keys::Keys;
use super::slot::{Phase, Slot};
use super::write_path::WritePath;
use super::{Runs, lock};
use crate::clock::until;
use crate::limits;

/// When the first parked run wakes, as far as this process knows.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    next: Mutex<Option<Instant>>,
    sooner: Notify,
}

impl Wake {
    /// Some run wakes then.
    pub(crate) fn at(&self, at: Instant) {
        let mut next = lock(&self.next);
        if next.is_none_or(|next| at < next) {
            *next = Some(at);
            self.sooner.notify_one();
        }
    }
}

/// Runs that were to be parked.
pub(super) struct Parked {
    asked: Vec<Parking>,
    /// Those that were.
    done: HashSet<RunId>,
    /// Those that are not this process's any more.
    gone: HashSet<RunId>,
}

/// When to look for runs that only wait.
pub(super) struct Parker {
    after: Option<Duration>,
    /// With more runs in memory than these, those that only wait are not to stay for long.
    soon_beyond: usize,
    looks: Option<Interval>,
    parked: mpsc::Sender<Parked>,
    /// The next look comes soon.
    hurries: bool,
}

impl Parker {
    pub(super) fn new(
        after: Option<Duration>,
        soon_beyond: usize,
        parked: mpsc::Sender<Parked>,
    ) -> Self {
        let looks = after.map(|after| {
            let every = after.clamp(limits::PARK_LOOK_MIN, limits::PARK_LOOK_MAX);
            let mut looks = tokio::time::interval(every);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            looks
        });
        Self { after, soon_beyond, looks, parked, hurries: false }
    }

    /// There are so many runs in memory.
    pub(super) fn note(&mut self, runs: usize) {
        if runs > self.soon_beyond
            && !self.hurries
            && let Some(looks) = &mut self.looks
        {
            looks.reset_after(limits::PARK_SOON_LOOK);
            self.hurries = true;
        }
    }

    /// How long a run has to have waited, and to have to wait, to be parked.
    fn spans(&self, runs: usize) -> Option<(Duration, Duration)> {
        let after = self.after?;
        if runs <= self.soon_beyond {
            return Some((after, after));
        }
        Some((after.min(limits::PARK_SOON_AFTER), after.min(limits::PARK_SOON_AHEAD)))
    }

    /// Returns when it is time to look.
    pub(super) async fn due(&mut self) {
        match &mut self.looks {
            Some(looks) => drop(looks.tick().await),
            None => std::future::pending().await,
        }
    }
}

impl WritePath {
    /// Begins to park runs that have only waited for long enough.
    pub(super) fn park(&mut self) {
        self.parking.hurries = false;
        self.parking.note(self.slots.len());
        let Some(spans) = self.parking.spans(self.slots.len()) else { return };
        let Ok(room) = self.parking.parked.clone().try_reserve_owned() else { return };
        let now = self.shared.clock.now();
        let (mut asked, mut children) = (Vec::new(), limits::PARK_CHILDREN_AT_ONCE);
        for (run, slot) in &mut self.slots {
            if asked.len() >= limits::PARK_AT_ONCE {
                break;
            }
            if let Some(parking) = parking(*run, slot, now, spans, &self.shared.keys)
                && let Some(left) = children.checked_sub(parking.children.len())
            {
                children = left;
                asked.push(parking);
                let phase = std::mem::replace(&mut slot.phase, Phase::Loading);
                slot.phase = match phase {
                    Phase::Idle(state) => Phase::Parking(state),
                    other => other,
                };
            }
        }
        if asked.is_empty() {
            return;
        }
        asked.sort_unstable_by_key(|parking| parking.run);
        if asked.len() >= limits::PARK_AT_ONCE
            && let Some(looks) = &mut self.parking.looks
        {
            looks.reset_immediately();
        }
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let parked = park(&*shared.store, shared.owner(), asked).await;
            room.send(parked);
        });
    }

    /// Lets go of those that are parked; the others go on.
    pub(super) fn parked(&mut self, Parked { asked, done, gone }: Parked) {
        if asked.len() >= limits::PARK_AT_ONCE
            && let Some(looks) = &mut self.parking.looks
        {
            looks.reset_immediately();
        }
        for Parking { run, wake_at, children, .. } in asked {
            let Some(slot) = self.slots.get_mut(&run) else { continue };
            if !matches!(slot.phase, Phase::Parking(_)) {
                continue;
            }
            let parked = done.contains(&run);
            if let (true, Some(at)) = (parked, wake_at) {
                self.shared.wake.at(Instant(at));
            }
            if parked {
                // Their ends wake it.
                self.effects.forget_children_of(&children);
            }
            if parked && slot.queue.is_empty() {
                self.remove_slot(run);
                self.shared.dispatcher.forget_run(run);
                continue;
            }
            let phase = std::mem::replace(&mut slot.phase, Phase::Loading);
            if parked || gone.contains(&run) {
                // Something came meanwhile, and it is taken up again at once; or another has it.
                self.load(run);
            } else if let Phase::Parking(state) = phase {
                slot.phase = Phase::Idle(state);
                self.pump(run);
            }
        }
    }
}

/// Parks runs. What became of those that the store did not say it parked is read: an earlier try,
/// or this one, may have been written though nobody heard of it, and others may have them since.
async fn park(store: &dyn Store, owner: OwnerId, asked: Vec<Parking>) -> Parked {
    let done = store.park(owner, &asked).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "runs that only wait cannot be parked just now");
        Vec::new()
    });
    let mut done: HashSet<RunId> = done.into_iter().collect();
    let mut gone = HashSet::new();
    let left: Vec<&Parking> = asked.iter().filter(|it| !done.contains(&it.run)).collect();
    let runs: Vec<RunId> = left.iter().map(|parking| parking.run).collect();
    // What cannot be read is asked again with the next look.
    if !runs.is_empty()
        && let Ok(standings) = store.standings(&runs).await
    {
        let standings: HashMap<_, _> = standings.iter().map(|it| (it.run_id, it)).collect();
        for Parking { run, version, .. } in left {
            let standing = standings.get(run).filter(|it| it.version == *version && !it.ended);
            match standing.map(|standing| standing.owner) {
                Some(None) => drop(done.insert(*run)),
                Some(Some(has)) if has == owner => {}
                _ => drop(gone.insert(*run)),
            }
        }
    }
    Parked { asked, done, gone }
}

/// How a run is parked, if it is to be: it has only waited for the first time, and has to for the
/// second. Of a child run nobody knows when it ends, nor of a key when it is granted: what waits
/// for one waits as long as the longer of the two, lest it is read again for each of many that
/// come soon. Only a concurrency key keeps places: whom a rate limit lets through it forgets.
fn parking(
    run: RunId,
    slot: &Slot,
    now: Instant,
    (past, ahead): (Duration, Duration),
    keys: &Keys,
) -> Option<Parking> {
    let Phase::Idle(state) = &slot.phase else { return None };
    let wake_at = state.next_wakeup().map(|at| at.before(slot.ahead));
    let last_at = state.last_at().before(slot.ahead);
    let far = wake_at.is_none_or(|at| at > now.after(ahead));
    let waited = now.since(last_at);
    if !slot.queue.is_empty() || waited < past || !far || !state.only_waits() {
        return None;
    }
    let children = state.awaited_children();
    let mut awaited = state.wanted_keys();
    awaited.retain(|acquire| !acquire.held);
    let is_told = !children.is_empty() || !awaited.is_empty();
    if is_told && waited < past.max(ahead) || !keys.keep_places(run, &awaited) {
        return None;
    }
    // Whatever becomes of a row, places are asked for again.
    let again = (!awaited.is_empty()).then(|| now.after(limits::PARKED_ASKS_AGAIN));
    let wake_at = [wake_at, again].into_iter().flatten().min().map(|at| at.0);
    Some(Parking { run, version: state.version(), wake_at, children })
}

impl Runs {
    /// Somebody says that a parked run wakes then.
    pub fn wakes_at(&self, at: Instant) {
        self.shared.wake.at(at);
    }

    /// Takes up parked runs when their time comes, until `shutdown`.
    pub async fn wake_parked(&self, shutdown: CancellationToken) {
        let wake = &self.shared.wake;
        let mut look = true;
        loop {
            if look {
                match self.wake_due().await {
                    Ok(next) => *lock(&wake.next) = next,
                    Err(error) => {
                        tracing::warn!(%error, "parked runs cannot be taken up just now");
                        let soon = self.shared.clock.now().after(limits::STORE_RETRY_MAX);
                        *lock(&wake.next) = Some(soon);
                    }
                }
            }
            let next = *lock(&wake.next);
            let pause = next.map(|at| until(&*self.shared.clock, at));
            look = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = wake.sooner.notified() => false,
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => true,
            };
        }
    }

    /// Takes up those that are due, and says when the next one is.
    async fn wake_due(&self) -> Result<Option<Instant>, store::Error> {
        let shared = &self.shared;
        loop {
            let now = shared.clock.now().0;
            let due = shared.store.wake_due(shared.owner(), now, limits::ADOPTION_PAGE).await;
            let due = due.inspect_err(|_| self.look_for_own())?;
            if due.is_empty() {
                return Ok(shared.store.next_wake().await?.map(Instant));
            }
            self.take_in(due, None).await?;
        }
    }
}
