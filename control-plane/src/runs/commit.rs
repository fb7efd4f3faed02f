//! Group commit: transitions of many runs in one write.
//!
//! As many committers as the store can use side by side; each takes what waits, up to a bound,
//! and never waits to fill a batch. A run has at most one transition here at a time.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;
use store::{Commit, Outcome};
use tokio::sync::{Mutex, mpsc};

use super::telemetry::Committing;
use super::{Shared, lanes};
use crate::limits;

/// What became of the transitions of one batch.
pub(crate) type Committed = Vec<(engine::RunId, Result<Outcome, Fault>)>;

/// Why a batch was not, or perhaps not, written.
#[derive(Clone, Debug)]
pub(crate) struct Fault(pub(crate) String);

/// Starts the committers. They end when `queue` is closed and empty.
pub(crate) fn spawn(
    shared: &Arc<Shared>,
    queue: lanes::Receiver<Box<Commit>>,
    done: &mpsc::Sender<Committed>,
) {
    let committers = if shared.store.kind() == "sqlite" { 1 } else { 2 };
    let queue = Arc::new(Mutex::new(queue));
    let telemetry = Committing::new();
    for _ in 0..committers {
        tokio::spawn(run(Arc::clone(shared), Arc::clone(&queue), done.clone(), telemetry.clone()));
    }
}

async fn run(
    shared: Arc<Shared>,
    queue: Arc<Mutex<lanes::Receiver<Box<Commit>>>>,
    done: mpsc::Sender<Committed>,
    telemetry: Committing,
) {
    loop {
        let batch = next_batch(&mut *queue.lock().await).await;
        if batch.is_empty() {
            return;
        }
        let runs: Vec<_> = batch.iter().map(|commit| commit.run).collect();
        let outcomes = match commit(&shared, &batch).await {
            Ok(outcomes) => {
                telemetry.commits.increment(1);
                telemetry.transitions.increment(batch.len() as u64);
                runs.into_iter().zip(outcomes.into_iter().map(Ok)).collect()
            }
            Err(fault) => {
                tracing::warn!(error = %fault.0, transitions = batch.len(), "a commit failed");
                runs.into_iter().map(|run| (run, Err(fault.clone()))).collect()
            }
        };
        if done.send(outcomes).await.is_err() {
            return;
        }
    }
}

/// Writes a batch, while the lease holds. A panic costs the batch and not the committer: its runs
/// are read again, like those of every commit that gave no answer.
async fn commit(shared: &Shared, batch: &[Commit]) -> Result<Vec<Outcome>, Fault> {
    if !shared.lease.holds(shared.clock.now()) {
        return Err(Fault("the lease has run out".to_owned()));
    }
    match AssertUnwindSafe(shared.store.commit(batch)).catch_unwind().await {
        Ok(outcomes) => outcomes.map_err(|error| Fault(error.to_string())),
        Err(_) => Err(Fault("the store panicked".to_owned())),
    }
}

async fn next_batch(queue: &mut lanes::Receiver<Box<Commit>>) -> Vec<Commit> {
    let Some(first) = queue.recv().await else { return Vec::new() };
    let (mut bytes, mut events) = (size(&first), first.events.len());
    let mut batch = vec![*first];
    while batch.len() < limits::BATCH_TRANSITIONS_MAX
        && bytes < limits::BATCH_BYTES_MAX
        && events < limits::BATCH_EVENTS_MAX
    {
        let Some(next) = queue.try_recv() else { break };
        bytes += size(&next);
        events += next.events.len();
        batch.push(*next);
    }
    batch
}

fn size(commit: &Commit) -> usize {
    let events: usize = commit.events.iter().map(|event| event.body.len()).sum();
    events + commit.documents.iter().map(|row| row.body.len()).sum::<usize>()
}
