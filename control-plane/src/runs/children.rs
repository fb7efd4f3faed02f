//! The child runs that runs of this process wait for. A child tells its parent of its end, and
//! with its process that word may be lost; so all awaited ones are asked for from time to time,
//! in one query.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use engine::RunId;
use engine::event::Parent;
use tokio_util::sync::CancellationToken;

use super::effects::{ended_before, report_end, roll_back_child, tell_undone};
use super::{Runs, lock};
use crate::limits;

/// Who is waited for, and by whom. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Children {
    /// Whose end is awaited.
    running: Arc<Mutex<BTreeMap<RunId, Parent>>>,
    /// Whose rollback is awaited.
    undoing: Arc<Mutex<BTreeMap<RunId, Parent>>>,
}

impl Children {
    /// A child was started, or was there before, and has not ended as far as is known.
    pub(super) fn wait_for(&self, child: RunId, parent: Parent) {
        lock(&self.running).insert(child, parent);
    }

    /// Its parent knows how it ended.
    pub(super) fn told(&self, child: RunId) {
        lock(&self.running).remove(&child);
    }

    /// A child was asked to undo all that it has done.
    pub(super) fn undoes(&self, child: RunId, parent: Parent) {
        lock(&self.undoing).insert(child, parent);
    }

    /// The parents are other replicas' runs now.
    pub(super) fn forget_all(&self) {
        lock(&self.running).clear();
        lock(&self.undoing).clear();
    }

    /// Looks from time to time which have ended, and tells their parents, until `shutdown`.
    pub(super) async fn look(self, runs: Runs, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(limits::CHILDREN_LOOK_EVERY) => {}
            }
            if let Err(error) = self.look_once(&runs).await {
                tracing::warn!(%error, "child runs cannot be looked for just now");
            }
        }
    }

    pub(super) async fn look_once(&self, runs: &Runs) -> Result<(), store::Error> {
        self.look_for_undone(runs).await;
        let awaited: Vec<RunId> = lock(&self.running).keys().copied().collect();
        if awaited.is_empty() {
            return Ok(());
        }
        for standing in runs.store().standings(&awaited).await? {
            let child = standing.run_id;
            let parent = lock(&self.running).get(&child).copied();
            if let (true, Some(parent)) = (standing.ended, parent)
                && let Ok(Some((status, outputs, error))) = ended_before(runs, child).await
            {
                report_end(runs, parent, child, status, outputs, error).await;
                self.told(child);
            }
        }
        Ok(())
    }

    /// A child that was rolled back may have died before it told its parent.
    async fn look_for_undone(&self, runs: &Runs) {
        let awaited: Vec<(RunId, Parent)> =
            lock(&self.undoing).iter().map(|(child, parent)| (*child, *parent)).collect();
        for (child, parent) in awaited {
            match runs.read(child).await {
                Ok((_, state)) => match state.rolled_back_for(parent.run) {
                    Some(complete) => {
                        tell_undone(runs, parent, child, complete).await;
                        lock(&self.undoing).remove(&child);
                    }
                    None if state.phase() == engine::Phase::Ended => {
                        roll_back_child(runs, parent, child).await;
                    }
                    None => {}
                },
                Err(super::Error::NotFound(_)) => {
                    tell_undone(runs, parent, child, true).await;
                    lock(&self.undoing).remove(&child);
                }
                Err(error) => tracing::warn!(%error, "a child run cannot be read just now"),
            }
        }
    }
}
