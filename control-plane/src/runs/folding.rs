//! A journal folded event by event, so that a long one is never in memory as a whole. A panic in
//! the engine is that run's alone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use engine::graph::Graph;
use engine::{Event, Instant, RunId, State};
use store::JournalRow;

/// A run as it comes to be again.
pub(super) struct Folding {
    run: RunId,
    graph: Arc<Graph>,
    /// What the events led to so far, or what is wrong with them.
    state: Result<Option<State>, String>,
}

impl Folding {
    pub(super) fn new(run: RunId, graph: Arc<Graph>) -> Self {
        Self { run, graph, state: Ok(None) }
    }

    /// What happened next. Behind something that is wrong nothing counts.
    pub(super) fn push(&mut self, row: &JournalRow) {
        let Ok(state) = &mut self.state else { return };
        let (run, graph) = (self.run, &self.graph);
        let pushed = catch_unwind(AssertUnwindSafe(|| push(run, graph, state, row).map(drop)));
        if let Err(why) = pushed.unwrap_or_else(|_| Err(PANICKED.to_owned())) {
            self.state = Err(why);
        }
    }

    /// The run as it is.
    pub(super) fn finish(self) -> Result<State, String> {
        let mut state = self.state?.ok_or("its journal is empty")?;
        catch_unwind(AssertUnwindSafe(move || {
            state.settle_fold();
            state
        }))
        .map_err(|_| PANICKED.to_owned())
    }
}

const PANICKED: &str = "its journal cannot be folded";

/// Takes an event in and gives it, unless it is the start.
pub(super) fn push(
    run: RunId,
    graph: &Arc<Graph>,
    state: &mut Option<State>,
    row: &JournalRow,
) -> Result<Option<Event>, String> {
    let event = Event::decode(row.kind, &row.body).map_err(|error| error.to_string())?;
    match (state.as_mut(), event) {
        (Some(state), event) => {
            state.apply(&event, Instant(row.at));
            return Ok(Some(event));
        }
        (None, Event::RunStarted(started)) => {
            let new = State::new(run, Arc::clone(graph), *started, Instant(row.at));
            *state = Some(new.map_err(|error| error.to_string())?);
        }
        (None, _) => return Err("its journal does not begin with its start".to_owned()),
    }
    Ok(None)
}
