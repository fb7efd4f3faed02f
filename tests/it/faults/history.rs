//! Judges what happened: the journals of runs beside what clients were told and what agents did
//! outside. It knows nothing of how the orchestrator works, only what it promises.

use std::collections::BTreeMap;

use contracts::v1::{EventKind, JournalEvent, RunStatus};

/// What is known of one run.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// The run.
    pub(crate) run: String,
    /// How it ended, by its own word; `None` when it is not there.
    pub(crate) status: Option<RunStatus>,
    /// Its journal.
    pub(crate) journal: Vec<JournalEvent>,
    /// The steps that it has, each behind the one before.
    pub(crate) chain: Vec<String>,
    /// What the outside counted: executions in their order, by step.
    pub(crate) outside: Vec<String>,
}

/// Everything that is wrong with a run that was acknowledged and is over.
pub(crate) fn violations(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    if history.status.is_none() {
        return vec![format!("run {} was acknowledged and is lost", history.run)];
    }
    if history.status != Some(RunStatus::Success) {
        found.push(format!("run {} ended as {:?}", history.run, history.status));
    }
    sequence(history, &mut found);
    steps(history, &mut found);
    outside(history, &mut found);
    found
}

fn sequence(history: &History, found: &mut Vec<String>) {
    let run = &history.run;
    for (event, expected) in history.journal.iter().zip(1_i64..) {
        if event.sequence != expected {
            found.push(format!("run {run}: event {} stands at {expected}", event.sequence));
            break;
        }
    }
    let kind = |event: &JournalEvent| event.kind();
    if history.journal.first().map(kind) != Some(EventKind::RunStarted) {
        found.push(format!("run {run}: the journal does not begin with the start"));
    }
    let ends = history.journal.iter().filter(|event| event.kind() == EventKind::RunEnded).count();
    if ends != 1 || history.journal.last().map(kind) != Some(EventKind::RunEnded) {
        found.push(format!("run {run}: {ends} ends, or something behind the end"));
    }
}

/// Each step's result counts once, and in the order of the chain.
fn steps(history: &History, found: &mut Vec<String>) {
    let run = &history.run;
    let succeeded = history.journal.iter().filter(|e| e.kind() == EventKind::StepSucceeded);
    let succeeded: Vec<&str> = succeeded.map(|event| &*event.step).collect();
    let chain: Vec<&str> = history.chain.iter().map(|step| &**step).collect();
    if succeeded != chain {
        found.push(format!("run {run}: steps succeeded as {succeeded:?}, asked was {chain:?}"));
    }
}

/// Each acknowledged step took effect once outside, behind the steps that it depends on.
fn outside(history: &History, found: &mut Vec<String>) {
    let run = &history.run;
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for step in &history.outside {
        *counts.entry(step).or_default() += 1;
    }
    for step in &history.chain {
        match counts.get(&**step) {
            Some(1) => {}
            Some(count) => found.push(format!("run {run}: step {step} took effect {count} times")),
            None => found.push(format!("run {run}: step {step} is done and nothing was done")),
        }
    }
    let mut order = history.outside.clone();
    order.dedup();
    let in_order = history.chain.iter().filter(|step| order.contains(step));
    if !in_order.eq(order.iter()) {
        found.push(format!("run {run}: the outside saw {order:?}"));
    }
}

mod tests {
    use super::*;

    fn event(sequence: i64, kind: EventKind, step: &str) -> JournalEvent {
        let step = step.to_owned();
        JournalEvent { sequence, kind: kind.into(), step, ..Default::default() }
    }

    fn good() -> History {
        let steps = ["a".to_owned(), "b".to_owned()];
        History {
            run: "r".to_owned(),
            status: Some(RunStatus::Success),
            journal: vec![
                event(1, EventKind::RunStarted, ""),
                event(2, EventKind::StepSucceeded, "a"),
                event(3, EventKind::StepSucceeded, "b"),
                event(4, EventKind::RunEnded, ""),
            ],
            chain: steps.to_vec(),
            outside: steps.to_vec(),
        }
    }

    fn says(change: impl FnOnce(&mut History), what: &str) {
        let mut history = good();
        change(&mut history);
        let found = violations(&history);
        assert!(found.iter().any(|text| text.contains(what)), "{what}: {found:?}");
    }

    #[test]
    fn a_good_history_is_found_good() {
        assert_eq!(violations(&good()), Vec::<String>::new());
    }

    #[test]
    fn each_violation_is_found() {
        says(|h| h.status = None, "is lost");
        says(|h| h.status = Some(RunStatus::Failure), "ended as");
        says(|h| drop(h.journal.remove(1)), "stands at 2");
        says(|h| h.journal[2].sequence = 2, "stands at 3");
        says(|h| drop(h.journal.remove(0)), "does not begin");
        says(|h| drop(h.journal.pop()), "0 ends");
        says(|h| h.journal.push(event(5, EventKind::RunEnded, "")), "2 ends");
        says(|h| h.journal.push(event(5, EventKind::StepSucceeded, "b")), "behind the end");
        says(|h| h.journal[2] = event(3, EventKind::StepSucceeded, "a"), "steps succeeded as");
        says(|h| h.journal.swap(1, 2), "steps succeeded as");
        says(|h| h.outside.push("b".to_owned()), "took effect 2 times");
        says(|h| drop(h.outside.pop()), "nothing was done");
        says(|h| h.outside.swap(0, 1), "the outside saw");
    }
}
