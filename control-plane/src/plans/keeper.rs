//! Sees to it that plans are closed: told by the write path when a plan's run ends here, and by a
//! look at the plans that are due, for ends of which nobody told because a process died. That look
//! is one replica's, once a minute; each replica has one at its start and when others come or go.

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::closing::{self, Looked};
use crate::documents::Kind;
use crate::limits;
use crate::replicas::Replicas;
use crate::runs::Runs;
use crate::triages::Learning;

/// Closes plans until `shutdown`.
pub async fn run(runs: Runs, replicas: Replicas, learning: Learning, shutdown: CancellationToken) {
    let (sender, ends) = mpsc::channel(limits::PLAN_ENDS_WAITING);
    runs.tell_plan_ends(sender);
    let keeper = Keeper { runs, replicas, learning };
    tokio::select! {
        () = keeper.keep(ends) => {}
        () = shutdown.cancelled() => {}
    }
}

struct Keeper {
    runs: Runs,
    replicas: Replicas,
    learning: Learning,
}

impl Keeper {
    async fn keep(&self, mut ends: mpsc::Receiver<String>) {
        let mut live = self.replicas.peers().live();
        self.sweep(true).await;
        let mut next = tokio::time::Instant::now() + limits::PLANS_LOOK_EVERY;
        loop {
            tokio::select! {
                plan = ends.recv() => match plan {
                    Some(plan) => self.look(&plan).await,
                    None => return,
                },
                () = tokio::time::sleep_until(next) => {
                    next = tokio::time::Instant::now() + limits::PLANS_LOOK_EVERY;
                    if self.is_ours() {
                        self.sweep(false).await;
                    }
                }
                // Without others the channel never changes.
                Ok(()) = live.changed() => self.sweep(true).await,
            }
        }
    }

    /// One of those that live looks: that of the least id. Should two think so for a while, what
    /// is to be written is written by one of them.
    fn is_ours(&self) -> bool {
        let live = self.replicas.peers().live();
        let least = live.borrow().iter().map(|peer| peer.id).min();
        least.is_none_or(|least| self.replicas.own().owner <= least)
    }

    /// Looks at the plans that are due, or at `all` of those that have not ended.
    async fn sweep(&self, all: bool) {
        let now = self.runs.clock().now();
        let until = if all { i64::MAX } else { now.0 };
        let due = self.runs.store().due_documents(
            Kind::Plan.number(),
            until,
            limits::PLANS_LOOKED_AT_ONCE,
        );
        match due.await {
            Ok(rows) => {
                for row in rows {
                    self.look(&row.id).await;
                }
            }
            Err(error) => tracing::warn!(%error, "ended recoveries could not be looked for"),
        }
    }

    async fn look(&self, plan: &str) {
        match closing::look(&self.runs, plan).await {
            Ok(Looked::Closed { tenant }) => {
                tracing::info!(plan, "a recovery has ended");
                self.learning.confirmed(&tenant).await;
            }
            Ok(Looked::Open | Looked::Settled) => {}
            // It stays due.
            Err(error) => tracing::warn!(plan, %error, "a recovery's end could not be written"),
        }
    }
}
