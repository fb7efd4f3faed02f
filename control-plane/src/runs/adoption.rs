//! Takes in runs that this process became the owner of, many at once: read together, each then
//! appends its adoption and goes on.

use std::sync::Arc;

use engine::{RunId, State};
use store::{JournalRow, OwnerId, Parking, RunRow};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::slot::{Ask, Envelope, Reply};
use super::{Runs, fold};
use crate::limits;

/// Who this process is to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The owner of its runs.
    pub owner: OwnerId,
    /// The epoch of its leases.
    pub epoch: u64,
}

/// What the write path is told about itself.
#[derive(Debug)]
pub(super) enum Control {
    /// All runs are another's: they are forgotten, and so is what was asked of them. Answered
    /// once nothing of them is in the commit.
    LoseAll(oneshot::Sender<()>),
}

impl Runs {
    /// Takes over all unfinished runs that nobody who lives has. It looks at all that are parked:
    /// something for a start.
    ///
    /// # Errors
    /// When the store cannot list or read them.
    pub async fn adopt_all(&self) -> Result<usize, store::Error> {
        let mut count = self.adopt_orphans().await?;
        loop {
            let (to, at) = (self.shared.owner(), self.shared.clock.now().0);
            let page = self.shared.store.adopt_unowned(to, at, limits::ADOPTION_PAGE).await;
            let page = page.inspect_err(|_| self.look_for_own())?;
            if page.is_empty() {
                return Ok(count);
            }
            count += self.take_in(page, None).await?;
        }
    }

    /// Takes over the unfinished runs of owners that are no replicas.
    ///
    /// # Errors
    /// When the store cannot list or read them.
    pub async fn adopt_orphans(&self) -> Result<usize, store::Error> {
        let (store, mut count) = (&self.shared.store, 0);
        loop {
            let at = self.shared.clock.now().0;
            let page = store.adopt_orphans(self.shared.owner(), at, limits::ADOPTION_PAGE).await;
            let page = page.inspect_err(|_| self.look_for_own())?;
            if page.is_empty() {
                return Ok(count);
            }
            count += self.take_in(page, None).await?;
        }
    }

    /// Takes over the unfinished runs of an owner that is fenced; gives how many. Those that a
    /// commit is about to change are left to another call.
    ///
    /// # Errors
    /// When the store cannot be reached; what was taken over before is taken in.
    pub async fn adopt_from(&self, from: OwnerId) -> Result<usize, store::Error> {
        let shared = &self.shared;
        let (mut count, mut reading) = (0, JoinSet::new());
        let done = loop {
            let (to, at) = (shared.owner(), shared.clock.now().0);
            match shared.store.adopt_from(from, to, at, limits::ADOPTION_PAGE).await {
                Ok(rows) if rows.is_empty() => break Ok(()),
                Ok(rows) => {
                    if reading.len() >= limits::FOLDINGS_MAX {
                        reading.join_next().await;
                    }
                    count += rows.len();
                    let runs = self.clone();
                    reading.spawn(async move { runs.take_in(rows, None).await });
                }
                Err(error) => {
                    self.look_for_own();
                    break Err(error);
                }
            }
        };
        while reading.join_next().await.is_some() {}
        done.map(|()| count)
    }

    /// Takes in runs whose rows already name this process as their owner; gives how many.
    /// Those with events that this program does not know are left to `from`.
    ///
    /// # Errors
    /// When the store cannot be read; who asks again loses nothing.
    pub async fn take_in(
        &self,
        rows: Vec<RunRow>,
        from: Option<OwnerId>,
    ) -> Result<usize, store::Error> {
        let (mut taken, mut rest) = (0, rows.as_slice());
        while !rest.is_empty() {
            let count = at_once(rest);
            let (some, others) = rest.split_at(count);
            rest = others;
            taken += self.take_in_some(some, from).await?;
        }
        Ok(taken)
    }

    async fn take_in_some(
        &self,
        rows: &[RunRow],
        from: Option<OwnerId>,
    ) -> Result<usize, store::Error> {
        let ids: Vec<RunId> = rows.iter().map(|row| row.run_id).collect();
        if let [long] = rows
            && long.version > limits::TAKE_IN_EVENTS
        {
            // By itself it is read event by event.
            self.put(long.run_id, Ask::Adopt).await;
            return Ok(1);
        }
        // Those that cannot be read together are read one by one, for as long as it takes.
        let folded = self.shared.store.fold_many(&ids).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "runs that were taken over cannot be read together");
            Vec::new()
        });
        let (mut taken, mut missing) = (0, ids);
        for (row, journal) in folded {
            missing.retain(|run| *run != row.run_id);
            if let Some(kind) = unknown(&journal) {
                if let Err(error) = self.leave(&row, kind, from).await {
                    tracing::warn!(%error, "the run cannot be left alone just now");
                }
                continue;
            }
            let ask = match self.state(&row, &journal).await {
                Some(state) => Ask::TakeIn(Box::new(state)),
                // Alone it is told what is wrong with it.
                None => Ask::Adopt,
            };
            taken += 1;
            self.put(row.run_id, ask).await;
        }
        for run in missing {
            self.put(run, Ask::Adopt).await;
            taken += 1;
        }
        Ok(taken)
    }

    /// Takes in runs that are this process's in the store and in nobody's memory: the answer to
    /// a take-over may be lost. Those that are in memory are passed over.
    ///
    /// # Errors
    /// When the store cannot list them; who asks again loses nothing.
    pub async fn take_in_own(&self) -> Result<(), store::Error> {
        let mut after = None;
        loop {
            let page = self.shared.store.unfinished(after, limits::ADOPTION_PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.run_id);
            let me = self.shared.owner();
            let own = page.into_iter().filter(|row| row.owner == Some(me)).collect();
            self.take_in(own, None).await?;
        }
    }

    /// The same in time, for as long as the store needs to list them.
    pub(super) fn look_for_own(&self) {
        let runs = self.clone();
        if runs.shared.looking.swap(true, std::sync::atomic::Ordering::SeqCst) {
            return;
        }
        tokio::spawn(async move {
            let mut pause = limits::STORE_RETRY_MIN;
            loop {
                tokio::time::sleep(pause).await;
                // From here on another lost answer has its own look.
                runs.shared.looking.store(false, std::sync::atomic::Ordering::SeqCst);
                match runs.take_in_own().await {
                    Ok(()) => return,
                    Err(error) => tracing::warn!(%error, "own runs cannot be listed just now"),
                }
                pause = (pause * 2).min(limits::STORE_RETRY_MAX);
            }
        });
    }

    async fn state(&self, row: &RunRow, journal: &[JournalRow]) -> Option<State> {
        let graph = self.shared.definitions.graph(row.definition_hash).await.ok()?;
        fold(row.run_id, Arc::clone(&graph), journal).ok()
    }

    async fn put(&self, run: RunId, ask: Ask) {
        // With the mailbox closed the process is about to end.
        self.inbox.send(Envelope { run, ask, reply: Reply::Nobody }).await;
    }

    /// Leaves a run to replicas that know its events.
    async fn leave(
        &self,
        row: &RunRow,
        kind: i16,
        from: Option<OwnerId>,
    ) -> Result<(), store::Error> {
        let (run, store) = (row.run_id, &self.shared.store);
        tracing::warn!(%run, kind, "the run has events of a newer version and is left alone");
        let me = self.shared.owner();
        match from {
            Some(from) => {
                let at = self.shared.clock.now().0;
                store.take_over(run, Some(me), from, at).await?;
            }
            None => {
                let children = Vec::new();
                let parking = Parking { run, version: row.version, wake_at: None, children };
                store.park(me, &[parking]).await?;
            }
        }
        Ok(())
    }

    /// Who this process is to the store.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.shared.identity()
    }

    /// Forgets all runs: they are another's. Returns once nothing of them is in the commit; the
    /// runs to come are owned as `next`.
    pub async fn lose_all(&self) {
        let (done, lost) = oneshot::channel();
        if self.controls.send(Control::LoseAll(done)).await.is_ok() {
            // With the write path gone there is nothing to lose.
            drop(lost.await);
        }
    }

    /// From now on this process is another owner.
    pub fn become_owner(&self, identity: Identity) {
        *super::lock(&self.shared.identity) = identity;
    }
}

/// How many of these runs are read at once: as many as have not too many events together.
fn at_once(rows: &[RunRow]) -> usize {
    let mut events = 0_i64;
    let fitting = rows.iter().take(limits::TAKE_IN_RUNS).take_while(|row| {
        events = events.saturating_add(row.version);
        events <= limits::TAKE_IN_EVENTS
    });
    fitting.count().max(1)
}

/// A kind of event that this program does not know.
fn unknown(journal: &[JournalRow]) -> Option<i16> {
    journal
        .iter()
        .map(|row| row.kind)
        .find(|kind| !engine::Event::KINDS.iter().any(|(known, _)| known == kind))
}
