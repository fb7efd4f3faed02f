//! Who waits for the ends of runs: told by the write path as soon as an end is durable, without a
//! look into the store. A run that this process lets go before its end is told as lost, and
//! whoever waits looks for it in the store from then on.

use std::sync::Mutex;

use engine::task::Json;
use engine::{Counts, Instant, RunId, RunStatus, State};
use tokio::sync::mpsc;

use super::{Runs, lock};
use crate::hash::QuickMap;
use crate::plans::PLAN_LABEL;

/// How a run ended.
#[derive(Clone, Debug)]
pub struct End {
    /// Which run.
    pub run: RunId,
    /// How.
    pub status: RunStatus,
    /// When it was started.
    pub started_at: Instant,
    /// When it ended.
    pub ended_at: Instant,
    /// The sequence of its last event.
    pub version: i64,
    /// Its outputs.
    pub outputs: Option<Json>,
    /// The step that failed first, and why the run failed.
    pub failure: (Option<String>, Option<String>),
    /// The counts over its steps.
    pub counts: Counts,
}

/// What whoever waits is told of a run, once.
#[derive(Clone, Debug)]
pub enum Final {
    /// It ended.
    Ended(Box<End>),
    /// This process does not have it any more; the store knows how it goes on.
    Lost(RunId),
}

impl Final {
    /// Which run.
    #[must_use]
    pub fn run(&self) -> RunId {
        match self {
            Self::Ended(end) => end.run,
            Self::Lost(run) => *run,
        }
    }
}

/// Who waits for which run.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    waiting: Mutex<QuickMap<RunId, Vec<mpsc::Sender<Final>>>>,
    /// Who is told which plans' runs ended.
    plans: Mutex<Option<mpsc::Sender<String>>>,
}

impl Ends {
    /// The end of a run is durable.
    pub(crate) fn ended(&self, state: &State) {
        self.tell_plan(state);
        let Some(senders) = lock(&self.waiting).remove(&state.id()) else { return };
        let (step, error) = state.failure();
        let end = End {
            run: state.id(),
            status: state.status(),
            started_at: state.started_at(),
            ended_at: state.ended_at().unwrap_or_else(|| state.last_at()),
            version: state.version(),
            outputs: state.outputs().cloned(),
            failure: (step.map(str::to_owned), error.map(str::to_owned)),
            counts: state.counts(),
        };
        tell(senders, &Final::Ended(Box::new(end)));
    }

    /// Of one that is not told for want of room it is found out by a look into the store.
    fn tell_plan(&self, state: &State) {
        let started = state.started();
        let Some(plan) = started.labels.get(PLAN_LABEL) else { return };
        if started.parent.is_none()
            && let Some(sender) = &*lock(&self.plans)
        {
            drop(sender.try_send(plan.clone()));
        }
    }

    /// This process has the run no more.
    pub(crate) fn lost(&self, run: RunId) {
        let Some(senders) = lock(&self.waiting).remove(&run) else { return };
        tell(senders, &Final::Lost(run));
    }
}

/// Those who wait have room for one word on each of their runs, so a full channel is one that is
/// not read any more.
fn tell(senders: Vec<mpsc::Sender<Final>>, word: &Final) {
    for sender in senders {
        drop(sender.try_send(word.clone()));
    }
}

impl Runs {
    /// Has `sender` told once how a run of this process ended, or that it was let go. The channel
    /// must have room for one word on each run that it is given for.
    pub fn tell_end(&self, run: RunId, sender: mpsc::Sender<Final>) {
        lock(&self.shared.ends.waiting).entry(run).or_default().push(sender);
    }

    /// Has `sender` told the plan, as the run's label names it, whenever a plan's run has ended.
    pub fn tell_plan_ends(&self, sender: mpsc::Sender<String>) {
        *lock(&self.shared.ends.plans) = Some(sender);
    }

    /// Nobody who uses that channel waits for the run any more.
    pub fn forget_end(&self, run: RunId, sender: &mpsc::Sender<Final>) {
        let mut waiting = lock(&self.shared.ends.waiting);
        let Some(senders) = waiting.get_mut(&run) else { return };
        senders.retain(|other| !other.same_channel(sender));
        if senders.is_empty() {
            waiting.remove(&run);
        }
    }
}
