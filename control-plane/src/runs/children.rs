//! The child runs that runs of this process wait for. A child tells its parent of its end, and
//! with its process that word may be lost; so all awaited ones are asked for from time to time,
//! in one query.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use engine::RunId;
use engine::event::Parent;
use tokio_util::sync::CancellationToken;

use super::effects::{ended_before, report_end};
use super::{Runs, lock};
use crate::limits;

/// Who is waited for, and by whom. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Children(Arc<Mutex<BTreeMap<RunId, Parent>>>);

impl Children {
    /// A child was started, or was there before, and has not ended as far as is known.
    pub(super) fn wait_for(&self, child: RunId, parent: Parent) {
        lock(&self.0).insert(child, parent);
    }

    /// Its parent knows how it ended.
    pub(super) fn told(&self, child: RunId) {
        lock(&self.0).remove(&child);
    }

    /// The parents are other replicas' runs now.
    pub(super) fn forget_all(&self) {
        lock(&self.0).clear();
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
        let awaited: Vec<RunId> = lock(&self.0).keys().copied().collect();
        if awaited.is_empty() {
            return Ok(());
        }
        for standing in runs.store().standings(&awaited).await? {
            let child = standing.run_id;
            let parent = lock(&self.0).get(&child).copied();
            if let (true, Some(parent)) = (standing.ended, parent)
                && let Ok(Some((status, outputs, error))) = ended_before(runs, child).await
            {
                report_end(runs, parent, child, status, outputs, error).await;
                self.told(child);
            }
        }
        Ok(())
    }
}
