//! How far the rollback of a recovery is, folded from its journal. Pure.

use std::collections::BTreeMap;

use engine::InstanceId;
use engine::event::{Event, UndoDecision};

/// How many undos there are, and what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UndosDone {
    /// How many steps are to be undone.
    pub all: u32,
    /// How many of them are undone, or were decided about by people.
    pub done: u32,
    /// How many wait for a person.
    pub stuck: u32,
}

/// The undos of one rollback.
#[derive(Clone, Debug)]
pub(super) struct Undos {
    steps: BTreeMap<InstanceId, Undo>,
    counts: UndosDone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Undo {
    Owed,
    Done,
    Stuck,
}

impl Undos {
    /// Nothing is undone yet.
    pub(super) fn new(steps: &[InstanceId]) -> Self {
        let steps: BTreeMap<InstanceId, Undo> = steps.iter().map(|n| (*n, Undo::Owed)).collect();
        let all = u32::try_from(steps.len()).unwrap_or(u32::MAX);
        Self { steps, counts: UndosDone { all, ..UndosDone::default() } }
    }

    /// Takes the next event of the journal in.
    pub(super) fn apply(&mut self, event: &Event) {
        let undo = match event {
            // A step that several agents had is undone by each of them, one after another.
            Event::UndoQueued { .. }
            | Event::ChildUndoRequested { .. }
            | Event::UndoDecided { decision: UndoDecision::Retry, .. } => Undo::Owed,
            Event::UndoSucceeded { .. }
            | Event::UndoDecided { decision: UndoDecision::Done | UndoDecision::Skip, .. } => {
                Undo::Done
            }
            Event::UndoFailed { retry_at: None, .. } => Undo::Stuck,
            _ => return,
        };
        let step = event.instance().and_then(|n| self.steps.get_mut(&n));
        let Some(step) = step else { return };
        let was = std::mem::replace(step, undo);
        for (which, more) in [(was, false), (undo, true)] {
            let count = match which {
                Undo::Owed => continue,
                Undo::Done => &mut self.counts.done,
                Undo::Stuck => &mut self.counts.stuck,
            };
            *count = if more { *count + 1 } else { *count - 1 };
        }
    }

    /// All of them, with whether they are done.
    pub(super) fn all(&self) -> impl Iterator<Item = (InstanceId, bool)> {
        self.steps.iter().map(|(n, undo)| (*n, *undo == Undo::Done))
    }

    /// How many there are, and what became of them.
    pub(super) fn done(&self) -> UndosDone {
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use engine::event::Origin;
    use engine::task::{FailureKind, TaskError};

    use super::*;

    fn decided(n: u32, decision: UndoDecision) -> Event {
        let (step, comment) = ("s".into(), String::new());
        Event::UndoDecided { n: InstanceId(n), step, decision, comment, origin: Origin::default() }
    }

    fn failed(n: u32) -> Event {
        let error = TaskError {
            kind: FailureKind::Permanent,
            code: "gone".to_owned(),
            message: "the host is gone".to_owned(),
            retry_after_ms: None,
            no_effect: false,
        };
        let step = "s".into();
        Event::UndoFailed { n: InstanceId(n), step, attempt: 1, error, retry_at: None }
    }

    #[test]
    fn what_people_decide_is_done_and_what_they_are_asked_is_stuck() {
        let mut undos = Undos::new(&[InstanceId(0), InstanceId(1), InstanceId(2)]);
        let mut after = |event: Event| {
            undos.apply(&event);
            (undos.done().done, undos.done().stuck)
        };
        assert_eq!(after(Event::UndoSucceeded { n: InstanceId(0), step: "s".into() }), (1, 0));
        assert_eq!(after(failed(1)), (1, 1));
        assert_eq!(after(failed(2)), (1, 2));
        assert_eq!(after(decided(1, UndoDecision::Retry)), (1, 1));
        assert_eq!(after(decided(2, UndoDecision::Skip)), (2, 0));
        assert_eq!(after(failed(1)), (2, 1));
        assert_eq!(after(decided(1, UndoDecision::Done)), (3, 0));
        assert_eq!(after(failed(7)), (3, 0), "no step of this rollback");
        assert!(undos.all().all(|(_, is_done)| is_done));
    }
}
