//! Removes what need not be kept any longer: finished runs by age and count, request ids, blobs
//! that nothing refers to. In bounded batches, so that nobody waits long for the store.

use std::sync::Arc;
use std::time::Duration;

use store::{Micros, Store};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::limits;

/// How long finished runs are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Not longer than this behind their end.
    pub age: Duration,
    /// Not more than these, the newest.
    pub count: u64,
}

/// Removes from time to time what need not be kept, until `shutdown`.
pub async fn run(
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    keep: Keep,
    shutdown: CancellationToken,
) {
    loop {
        let looked = tokio::select! {
            looked = look(&*store, &*clock, keep) => looked,
            () = shutdown.cancelled() => return,
        };
        match looked {
            Ok(removed) if removed == Removed::default() => {}
            Ok(Removed { runs, requests, blobs }) => {
                tracing::info!(runs, requests, blobs, "removed what was kept long enough");
            }
            Err(error) => tracing::warn!(%error, "what is old could not be removed"),
        }
        tokio::select! {
            () = tokio::time::sleep(limits::RETENTION_EVERY) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// How much was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Finished runs.
    pub runs: u64,
    /// Request ids.
    pub requests: u64,
    /// Blobs.
    pub blobs: u64,
}

/// Removes what need not be kept now.
///
/// # Errors
/// When the store does not do it.
pub async fn look(
    store: &dyn Store,
    clock: &dyn Clock,
    keep: Keep,
) -> Result<Removed, store::Error> {
    let batch = limits::RETENTION_BATCH;
    let now = clock.now().0;
    let mut removed = Removed::default();
    for _ in 0..limits::RETENTION_BATCHES {
        let count = store.delete_finished(before(now, keep.age), keep.count, batch).await?;
        removed.runs += count;
        if count < u64::from(batch) {
            break;
        }
        // Whoever waits for the store gets a turn between two batches.
        tokio::task::yield_now().await;
    }
    for _ in 0..limits::RETENTION_BATCHES {
        let count = store.expire_requests(before(now, limits::REQUESTS_KEPT), batch).await?;
        removed.requests += count;
        if count < u64::from(batch) {
            break;
        }
        tokio::task::yield_now().await;
    }
    for _ in 0..limits::RETENTION_BATCHES {
        let count = store.collect_blobs(before(now, limits::BLOBS_KEPT), batch).await?;
        removed.blobs += count;
        if count < u64::from(batch) {
            break;
        }
        tokio::task::yield_now().await;
    }
    Ok(removed)
}

fn before(now: Micros, age: Duration) -> Micros {
    now.saturating_sub(i64::try_from(age.as_micros()).unwrap_or(i64::MAX))
}
