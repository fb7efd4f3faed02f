//! Removes what need not be kept any longer: finished runs by age and count, request ids, blobs
//! that nothing refers to. In bounded batches, so that nobody waits long for the store.

use std::sync::Arc;
use std::time::Duration;

use engine::{ContentHash, RunId};
use store::{Cursor, Micros, Store, Tended};
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

/// Where the search came to: what stays although it is old must not keep it from what comes
/// behind.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    runs: Option<Cursor<RunId>>,
    blobs: Option<Cursor<ContentHash>>,
}

/// Removes from time to time what need not be kept, until `shutdown`.
pub async fn run(
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    keep: Keep,
    shutdown: CancellationToken,
) {
    let mut place = Place::default();
    loop {
        let looked = tokio::select! {
            looked = look(&*store, &*clock, keep, &mut place) => looked,
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

/// Removes what need not be kept now, and gives back the room of what went.
///
/// # Errors
/// When the store does not do it.
pub async fn look(
    store: &dyn Store,
    clock: &dyn Clock,
    keep: Keep,
    place: &mut Place,
) -> Result<Removed, store::Error> {
    let batch = limits::RETENTION_BATCH;
    let now = clock.now().0;
    let before = first_kept(store, now, keep).await?;
    let mut removed = Removed { runs: remove_runs(store, before, place).await?, ..<_>::default() };
    for _ in 0..limits::RETENTION_BATCHES {
        let count = store.expire_requests(ago(now, limits::REQUESTS_KEPT), batch).await?;
        removed.requests += count;
        if count < u64::from(batch) {
            break;
        }
        tokio::task::yield_now().await;
    }
    for _ in 0..limits::RETENTION_BATCHES {
        let old = ago(now, limits::BLOBS_KEPT);
        let found = store.collect_blobs(old, place.blobs, batch).await?;
        removed.blobs += found.blobs;
        place.blobs = found.next;
        if found.next.is_none() {
            break;
        }
        tokio::task::yield_now().await;
    }
    // Last: where a lock is not to be had, the next look does it.
    match store.tend_journal(now, before.at).await {
        Ok(Tended { dropped: 0, .. }) => {}
        Ok(Tended { dropped, moved, .. }) => {
            tracing::info!(dropped, moved, "partitions of the journal went");
        }
        Err(error) => tracing::warn!(%error, "the journal's partitions stay as they are for now"),
    }
    Ok(removed)
}

/// What ended before this place goes, be it too old or too much.
async fn first_kept(
    store: &dyn Store,
    now: Micros,
    keep: Keep,
) -> Result<Cursor<RunId>, store::Error> {
    let by_age = Cursor { at: ago(now, keep.age), id: RunId(uuid::Uuid::nil()) };
    let by_count = store.oldest_kept(keep.count).await?;
    let later = by_count.filter(|place| (place.at, place.id) > (by_age.at, by_age.id));
    Ok(later.unwrap_or(by_age))
}

/// A run's children stay as long as it does, so they go in another pass.
async fn remove_runs(
    store: &dyn Store,
    before: Cursor<RunId>,
    place: &mut Place,
) -> Result<u64, store::Error> {
    let (mut removed, mut in_this_pass) = (0, 0);
    for _ in 0..limits::RETENTION_BATCHES {
        let found = store.delete_finished(before, place.runs, limits::RETENTION_BATCH).await?;
        removed += found.runs;
        in_this_pass += found.runs;
        place.runs = found.next;
        if found.next.is_none() && std::mem::take(&mut in_this_pass) == 0 {
            break;
        }
        // Whoever waits for the store gets a turn between two batches.
        tokio::task::yield_now().await;
    }
    Ok(removed)
}

fn ago(now: Micros, age: Duration) -> Micros {
    now.saturating_sub(i64::try_from(age.as_micros()).unwrap_or(i64::MAX))
}
