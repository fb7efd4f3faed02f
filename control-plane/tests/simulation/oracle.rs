//! What must hold when all is over: the journals against each other and against what the outside
//! saw.

use std::collections::{BTreeMap, BTreeSet};

use control_plane::documents::Kind;
use control_plane::runs::projected::rebuilt;
use engine::graph::Graph;
use engine::task::{Purpose, TaskKey};
use engine::{Event, InstanceId, Phase, RunId, State};
use store::{DocumentFilter, DocumentRow, JournalRow, RunFilter, RunRow, Store};

use crate::history::Seen;
use crate::reference;
use crate::workload::Definition;
use crate::world::World;

type Check = Result<(), String>;

/// One run, as the store has it.
struct Told {
    row: RunRow,
    rows: Vec<JournalRow>,
    events: Vec<Event>,
    state: State,
}

/// Checks everything; gives how many runs ended how.
pub(crate) async fn check(world: &World) -> Result<BTreeMap<&'static str, u64>, String> {
    let store = world.memory.open();
    let rows = store.runs(&RunFilter::default(), None, true, 1000).await;
    let mut ends = BTreeMap::new();
    let mut all = BTreeMap::new();
    for row in rows.map_err(|error| error.to_string())? {
        let run = row.run_id;
        let found = store.fold(run).await.map_err(|error| error.to_string())?;
        let (row, rows) = found.ok_or_else(|| format!("run {run} is lost"))?;
        let decode = |row: &JournalRow| Event::decode(row.kind, &row.body);
        let events: Result<Vec<Event>, _> = rows.iter().map(decode).collect();
        let events = events.map_err(|error| error.to_string())?;
        let state = world.fold(run).await?;
        let told = Told { row, rows, events, state };
        one(&told, world.plan.several.is_none()).map_err(|what| describe(&what, &told))?;
        projected(&*store, &told).await.map_err(|what| describe(&what, &told))?;
        let is_its = |it: &&Definition| it.hash == told.row.definition_hash;
        if let Some(of) = world.definitions.iter().find(is_its)
            && let Some(reference) = &of.reference
        {
            let same = reference::check(reference, &told.state, &told.events);
            same.map_err(|what| describe(&what, &told))?;
        }
        *ends.entry(told.state.status().word()).or_insert(0) += 1;
        all.insert(run, told);
    }
    for replica in world.replicas() {
        if let Some(why) = all.keys().find_map(|run| replica.runs.why_stuck(*run)) {
            return Err(format!("a run is stuck: {why}"));
        }
    }
    let mut seen = world.history.seen();
    for told in all.values() {
        let bodies = told.rows.iter().map(|row| (row.seq, row.at, row.kind, &row.body));
        let bodies: Vec<_> = bodies.collect();
        seen.mix(&(told.row.run_id, bodies));
    }
    starts(&seen, &all)?;
    requests(&seen, &all)?;
    acknowledgements(&seen, &all)?;
    executions(&seen, &all)?;
    children(&all)?;
    Ok(ends)
}

/// What follows from a run was written as it follows from its journal.
async fn projected(store: &dyn Store, told: &Told) -> Check {
    let run = told.row.run_id;
    let mut expected = rebuilt(run, told.state.graph(), &told.rows)?;
    let mut written = Vec::new();
    for kind in [Kind::Checkpoint, Kind::Rollback, Kind::Escalation] {
        let (kind, parent) = (kind.number(), Some(run.to_string()));
        let filter = DocumentFilter { kind, parent, ..DocumentFilter::default() };
        let found = store.documents(&filter, None, true, 1000).await;
        written.extend(found.map_err(|error| error.to_string())?);
    }
    expected.sort_by(|one, other| (one.kind, &one.id).cmp(&(other.kind, &other.id)));
    written.sort_by(|one, other| (one.kind, &one.id).cmp(&(other.kind, &other.id)));
    let texts = |rows: &[DocumentRow]| -> Vec<String> {
        let body = |row: &DocumentRow| String::from_utf8_lossy(&row.body).into_owned();
        rows.iter().map(|row| format!("\n  {row:?}\n    {}", body(row))).collect()
    };
    ensure(expected == written, || {
        let (expected, written) = (texts(&expected), texts(&written));
        format!("from its journal follows {expected:?}, and there is {written:?}")
    })?;
    let open = |row: &&DocumentRow| row.kind == Kind::Escalation.number() && row.status == 1;
    ensure(!written.iter().any(|row| open(&row)), || "it ended and still asks".to_owned())
}

fn describe(what: &str, told: &Told) -> String {
    let mut text = format!("run {} of {}: {what}\n", told.row.run_id, told.row.workflow);
    for (row, event) in told.rows.iter().zip(&told.events) {
        let line: String = format!("{event:?}").chars().take(220).collect();
        text.push_str(&format!("  {} {} {line}\n", row.seq, row.at));
    }
    text
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(what()) }
}

/// What must hold of each run by itself.
fn one(told: &Told, by_one_after_another: bool) -> Check {
    let Told { row, rows, events, state } = told;
    let gapless = rows.iter().zip(1..).all(|(row, seq)| row.seq == seq);
    ensure(gapless, || "its journal has gaps".to_owned())?;
    ensure(rows.len() as i64 == row.version, || "its version is not its journal's".to_owned())?;
    let ordered = rows.windows(2).all(|pair| pair[0].at <= pair[1].at);
    ensure(ordered, || "its time runs back".to_owned())?;
    ensure(state.phase() == Phase::Ended, || "it has not ended".to_owned())?;
    ensure(row.ended_at.is_some(), || "its row does not say that it ended".to_owned())?;
    ensure(state.pending_effects().is_empty(), || "it still owes something".to_owned())?;
    let mut open = true;
    let mut settled: BTreeMap<(InstanceId, Purpose), i64> = BTreeMap::new();
    let mut epoch = 0;
    for (row, event) in rows.iter().zip(events) {
        match event {
            Event::RunRetried { .. } => {
                ensure(!open, || "it was retried before it ended".to_owned())?;
                open = true;
                settled.clear();
            }
            // A child that has ended is rolled back with the run above, and then ends again.
            Event::RollbackStarted { .. } if !open => open = true,
            // A step that several agents may have begun is undone at each of them, and one that
            // was retried with each of its child runs.
            Event::UndoQueued { n, .. } | Event::ChildUndoRequested { n, .. } => {
                settled.remove(&(*n, Purpose::Undo));
            }
            Event::RunEnded { .. } => {
                ensure(open, || "it ended twice".to_owned())?;
                open = false;
            }
            Event::RunAdopted { epoch: next } => {
                // Of several that live, an older one may take over from a younger.
                let rises = *next >= epoch || !by_one_after_another;
                ensure(rises, || format!("epoch {next} comes behind {epoch}"))?;
                epoch = *next;
            }
            _ => {}
        }
        let key = match event {
            Event::StepSucceeded { n, .. } => Some((*n, Purpose::Do)),
            Event::StepFailed { n, .. } => Some((*n, Purpose::Do)),
            Event::StepCancelled { n, .. } | Event::StepSkipped { n, .. } => {
                Some((*n, Purpose::Do))
            }
            Event::UndoSucceeded { n, .. } => Some((*n, Purpose::Undo)),
            _ => None,
        };
        if let Some(key) = key
            && let Some(before) = settled.insert(key, row.seq)
        {
            return Err(format!("{key:?} settles at {before} and again at {}", row.seq));
        }
    }
    order(state.graph(), events)
}

/// A step begins when all that it waits for have settled.
fn order(graph: &Graph, events: &[Event]) -> Check {
    let mut settled: BTreeSet<String> = BTreeSet::new();
    for event in events {
        match event {
            Event::StepSucceeded { step, .. }
            | Event::StepSkipped { step, .. }
            | Event::StepCancelled { step, .. }
            | Event::StepFailed { step, .. } => {
                settled.insert(step.to_string());
            }
            Event::StepQueued { step, .. }
            | Event::BlockOpened { step, .. }
            | Event::StepWaiting { step, .. } => {
                for before in waited_for(graph, step) {
                    ensure(settled.contains(&before), || {
                        format!("{step} begins before {before} has settled")
                    })?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The paths of what a step waits for.
fn waited_for(graph: &Graph, path: &str) -> Vec<String> {
    let (above, id) = path.rsplit_once('.').map_or(("", path), |(above, id)| (above, id));
    let Some(node) = graph.nodes.iter().find(|node| *node.id == *id) else { return Vec::new() };
    let list = graph.list(node.list);
    let of = |at: &u32| {
        let id = &graph.node(list.nodes[*at as usize]).id;
        if above.is_empty() { id.to_string() } else { format!("{above}.{id}") }
    };
    node.depends_on.iter().map(of).collect()
}

/// Every acknowledged start is there, and each request started one run.
fn starts(seen: &Seen, all: &BTreeMap<RunId, Told>) -> Check {
    let mut by_request: BTreeMap<&str, Vec<RunId>> = BTreeMap::new();
    for (run, told) in all {
        if let Some(request) = &told.state.started().origin.request {
            by_request.entry(&request.id).or_default().push(*run);
        }
    }
    for (request, run) in &seen.started {
        let runs = by_request.get(request.as_str());
        let same = runs.is_some_and(|runs| runs == &[*run]);
        ensure(same, || format!("{request} was acknowledged as {run}, the store has {runs:?}"))?;
    }
    let twice = by_request.iter().find(|(_, runs)| runs.len() > 1);
    twice.map_or(Ok(()), |twice| Err(format!("a request started several runs: {twice:?}")))
}

/// Every acknowledged command is in its run's journal once, every refused one is not.
fn requests(seen: &Seen, all: &BTreeMap<RunId, Told>) -> Check {
    for (request, asked) in &seen.asked {
        let told = all.get(&asked.run).ok_or_else(|| format!("run {} is lost", asked.run))?;
        let is_its = |event: &&Event| {
            let origin = match event {
                Event::SignalReceived { origin, .. }
                | Event::RunPaused { origin, .. }
                | Event::RunResumed { origin }
                | Event::RunCancelRequested { origin, .. }
                | Event::RunRetried { origin }
                | Event::DecisionMade { origin, .. } => origin,
                _ => return false,
            };
            origin.request.as_ref().is_some_and(|mark| mark.id == *request)
        };
        let count = told.events.iter().filter(is_its).count();
        let by_person = request.starts_with("person");
        let right = by_person || if asked.acknowledged { count == 1 } else { count == 0 };
        ensure(right || (!asked.acknowledged && !asked.refused && count <= 1), || {
            describe(&format!("{request} stands {count} times in it: {asked:?}"), told)
        })?;
    }
    Ok(())
}

fn key_of(id: &str) -> Result<TaskKey, String> {
    id.parse()
}

/// What an agent was told to be durable is in the journal.
fn acknowledgements(seen: &Seen, all: &BTreeMap<RunId, Told>) -> Check {
    for (id, acknowledged) in &seen.acknowledged {
        let key = key_of(id)?;
        let told = all.get(&key.run).ok_or_else(|| format!("run {} is lost", key.run))?;
        for ack in acknowledged {
            let attempt = u32::try_from(ack.attempt).map_err(|error| error.to_string())?;
            let stands = told.events.iter().any(|event| match (event, key.purpose) {
                (Event::StepSucceeded { n, .. }, Purpose::Do)
                | (Event::UndoSucceeded { n, .. }, Purpose::Undo) => {
                    *n == key.instance && (ack.success || ack.duplicate)
                }
                (Event::StepFailed { n, .. } | Event::StepCancelled { n, .. }, Purpose::Do) => {
                    *n == key.instance && (!ack.success || ack.duplicate)
                }
                (Event::AttemptFailed { n, attempt: failed, .. }, Purpose::Do)
                | (Event::UndoFailed { n, attempt: failed, .. }, Purpose::Undo) => {
                    *n == key.instance && (!ack.success || ack.duplicate) && *failed == attempt
                }
                _ => false,
            });
            // A step that was asked to stop counts as stopped, whatever its agent made of it.
            let stopped = told.events.iter().any(
                |event| matches!(event, Event::StepCancelRequested { n, .. } if *n == key.instance),
            );
            ensure(stands || stopped, || {
                describe(&format!("{id} was acknowledged and is not there: {ack:?}"), told)
            })?;
        }
    }
    Ok(())
}

/// What must run at most once did, and what succeeded was done.
fn executions(seen: &Seen, all: &BTreeMap<RunId, Told>) -> Check {
    let mut done: BTreeSet<&str> = BTreeSet::new();
    for ((id, attempt), executions) in &seen.executions {
        if executions.at_most_once && executions.begun > 1 {
            let told = all.get(&key_of(id)?.run).ok_or("lost")?;
            let what = format!("{id} attempt {attempt} began {} times", executions.begun);
            let recent = seen.recent(id).join("\n");
            return Err(format!("{}{recent}", describe(&what, told)));
        }
        if executions.succeeded > 0 {
            done.insert(id);
        }
    }
    for told in all.values() {
        for event in &told.events {
            let (n, purpose) = match event {
                Event::StepSucceeded { n, by: Some(_), .. } => (*n, Purpose::Do),
                Event::UndoSucceeded { n, .. } if told.state.action_of(*n).is_some() => {
                    (*n, Purpose::Undo)
                }
                Event::UndoSucceeded { n, .. } => {
                    undone_below(told, *n, all)?;
                    continue;
                }
                _ => continue,
            };
            // Where only the agent knew that there was nothing to undo, nobody had to do it.
            let resolved = told.events.iter().any(|event| {
                matches!(event, Event::UndoQueued { n: undone, order, .. }
                    if *undone == n && order.undo_of)
            });
            if resolved && purpose == Purpose::Undo {
                continue;
            }
            let id = told.state.task_key(n, purpose).to_string();
            ensure(done.contains(id.as_str()), || {
                describe(&format!("{id} succeeded though nobody did it"), told)
            })?;
        }
    }
    Ok(())
}

/// Nothing is left of what the children of a step did that counts as undone.
fn undone_below(told: &Told, n: InstanceId, all: &BTreeMap<RunId, Told>) -> Check {
    for event in &told.events {
        let Event::ChildUndoRequested { n: step, child, .. } = event else { continue };
        let Some(below) = all.get(child).filter(|_| *step == n) else { continue };
        let undone = below.state.rolled_back_for(told.row.run_id) == Some(true);
        ensure(undone, || describe("it counts as undone and is not", below))?;
    }
    Ok(())
}

/// A child's parent is there, and knows of it.
fn children(all: &BTreeMap<RunId, Told>) -> Check {
    for (run, told) in all {
        let Some(parent) = told.state.started().parent else { continue };
        let above = all.get(&parent.run).ok_or_else(|| format!("the parent of {run} is lost"))?;
        let knows = above.events.iter().any(|event| match event {
            Event::StepWaiting {
                n, waiting_for: engine::event::WaitingFor::Child(child), ..
            } => *n == parent.instance && child.run == *run,
            _ => false,
        });
        ensure(knows, || describe(&format!("its child {run} is unknown to it"), above))?;
    }
    Ok(())
}
