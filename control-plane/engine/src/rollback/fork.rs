//! A new run that begins from a checkpoint of another one: it takes over the events up to there.

use std::sync::Arc;

use crate::decide::{Transition, begin_fork};
use crate::event::{Event, RollbackTo, RunStarted};
use crate::graph::Graph;
use crate::id::{Instant, RunId};
use crate::rejection::Rejection;
use crate::state::State;
use crate::task::Json;

/// Decides the beginning of run `id`, which takes over what `of` had done at the checkpoint `from`.
/// `journal` is the journal of `of`, with the times of its events, from the first on.
///
/// # Errors
/// When there is no such checkpoint or the params are not JSON.
pub fn fork(
    id: RunId,
    of: &State,
    journal: &[(Event, Instant)],
    from: &RollbackTo,
    started: RunStarted,
    now: Instant,
) -> Result<(State, Transition), Rejection> {
    let target = of.rollback_target(from)?;
    let mut events: Vec<Event> = Vec::new();
    for (event, _) in journal.iter().skip(1).take((target as usize).saturating_sub(1)) {
        events.push(taken_over(event));
    }
    let graph: Arc<Graph> = Arc::clone(&of.graph);
    let params: Json = Arc::clone(&started.params);
    let sequence = target.max(1);
    let forked = Event::RunForked { run: of.id, sequence, params: Some(params) };
    begin_fork(id, graph, started, events, forked, now)
}

/// The event as the new run has it. Each keeps its place, so that sequences mean the same.
fn taken_over(event: &Event) -> Event {
    match event {
        // Whose it was, and what was asked of it, is not the new run's; its place stays.
        Event::RunAdopted { .. } => Event::RunAdopted { epoch: 0 },
        Event::SignalReceived { signal, payload, .. } => Event::SignalReceived {
            signal: signal.clone(),
            payload: Arc::clone(payload),
            origin: crate::event::Origin::default(),
        },
        other => other.clone(),
    }
}
