//! Resources that follow from a run: its questions to people, its checkpoints and its rollbacks,
//! as documents that are written in the run's own commit.
//!
//! They say nothing that the journal does not say, and can be made again from it (`rebuilt`). A
//! document's version goes by the sequence of the event by which it is what it is, so that whoever
//! writes it late, or a second time, changes nothing. Transitions that concern none of these cost
//! one look at each event.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::event::{RollbackTo, UndoDecision, WaitingFor};
use engine::graph::Graph;
use engine::{
    Asks, CheckpointView, Event, InstanceId, Notes, Question, RollbackStatus, RollbackSummary,
    RunId, Settled, State, UndoCounts, Verdict,
};
use serde::{Deserialize, Serialize};
use store::{DocumentRow, JournalRow};

use super::folding::push;
use crate::documents::Kind;
use crate::escalations::{self, Choice, Escalation};

/// Where a checkpoint stands. The numbers are in the database: they are never changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointStatus {
    /// The run can be rolled back to it.
    Stands = 1,
    /// The run went on from before it, or has too many.
    Gone = 2,
}

impl CheckpointStatus {
    /// The number in the store.
    #[must_use]
    pub fn number(self) -> i16 {
        self as i16
    }
}

/// A checkpoint, as it is stored. Fields are added with defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoredCheckpoint {
    /// Its name.
    pub name: String,
    /// The sequence of the event that it stands behind.
    pub sequence: u32,
    /// The step that it follows.
    pub step: String,
    /// How many steps had settled.
    pub settled: u32,
    /// The hash over all that is said of it, hexadecimal.
    pub content_hash: String,
}

/// A rollback, as it is stored. Fields are added with defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredRollback {
    /// Its number within the run.
    pub number: u32,
    /// How far it goes.
    pub to: RollbackTo,
    /// It was asked for, not begun by a failure.
    #[serde(default)]
    pub asked: bool,
    /// It is executed only once it is approved.
    #[serde(default)]
    pub needs_approval: bool,
    /// Who asked for it.
    #[serde(default)]
    pub actor: String,
    /// Who approved it.
    #[serde(default)]
    pub approved_by: String,
    /// When it ended or was given up, in microseconds since the Unix epoch.
    #[serde(default)]
    pub ended_at: Option<i64>,
    /// How many steps are to be undone.
    #[serde(default)]
    pub total: u32,
    /// How many are undone.
    #[serde(default)]
    pub undone: u32,
    /// How many a person undid.
    #[serde(default)]
    pub by_hand: u32,
    /// How many a person left as they are.
    #[serde(default)]
    pub skipped: u32,
    /// How many wait for a person.
    #[serde(default)]
    pub stuck: u32,
    /// How many cannot be undone.
    #[serde(default)]
    pub not_undoable: u32,
}

impl StoredRollback {
    /// What became of its undos.
    #[must_use]
    pub fn counts(&self) -> UndoCounts {
        let Self { total, undone, by_hand, skipped, stuck, not_undoable, .. } = *self;
        UndoCounts { total, undone, by_hand, skipped, stuck, not_undoable }
    }
}

/// The number of a rollback's status in the store: that of `contracts::v1::RollbackStatus`.
#[must_use]
pub fn rollback_status(status: RollbackStatus) -> i16 {
    use contracts::v1::RollbackStatus as Wire;
    let wire = match status {
        RollbackStatus::Planned => Wire::Planned,
        RollbackStatus::Approved => Wire::Approved,
        RollbackStatus::Running => Wire::Running,
        RollbackStatus::Stuck => Wire::Stuck,
        RollbackStatus::Succeeded => Wire::Succeeded,
        RollbackStatus::Incomplete => Wire::Incomplete,
        RollbackStatus::Abandoned => Wire::Abandoned,
    };
    i16::try_from(wire as i32).unwrap_or(0)
}

/// The id of a checkpoint's document: those of a run are in order.
#[must_use]
pub fn checkpoint_id(run: RunId, sequence: u32) -> String {
    format!("{run}-{sequence:010}")
}

/// The id of a rollback's document.
#[must_use]
pub fn rollback_id(run: RunId, number: u32) -> String {
    format!("{run}-{number:010}")
}

/// Whether an event may change one of these.
fn concerns(event: &Event) -> bool {
    match event {
        Event::StepWaiting { waiting_for: WaitingFor::Decision(_), .. }
        | Event::StepSucceeded { checkpoint: Some(_), .. } => true,
        other => other.is_of_rollback(),
    }
}

/// Whether one of these asks something of people.
pub(super) fn asks_people(rows: &[DocumentRow]) -> bool {
    let (kind, open) = (Kind::Escalation.number(), escalations::Status::Open.number());
    rows.iter().any(|row| row.kind == kind && row.status == open)
}

/// The documents that change by a transition whose first event follows `before`.
///
/// # Errors
/// With what cannot be written as JSON.
pub(super) fn documents(
    state: &mut State,
    before: i64,
    events: &[Event],
) -> Result<Vec<DocumentRow>, serde_json::Error> {
    let notes = state.take_notes();
    if notes.is_empty() && !events.iter().any(concerns) {
        return Ok(Vec::new());
    }
    Projection { state, before: u32::try_from(before).unwrap_or(u32::MAX) }.all(events, &notes)
}

/// What of a run is written down.
struct Projection<'a> {
    state: &'a State,
    before: u32,
}

impl Projection<'_> {
    fn all(&self, events: &[Event], notes: &Notes) -> Result<Vec<DocumentRow>, serde_json::Error> {
        let mut rows = Vec::new();
        for settled in &notes.settled {
            rows.push(self.question(&settled.question, Some(settled))?);
        }
        for n in events.iter().filter_map(asks) {
            // One that was settled at once is among those above.
            if let Some(question) = self.state.question(n).filter(|it| it.sequence > self.before) {
                rows.push(self.question(question, None)?);
            }
        }
        for view in self.state.checkpoints_behind(self.before) {
            let changed = (view.sequence, view.at);
            rows.push(self.checkpoint(&view, CheckpointStatus::Stands, changed)?);
        }
        for (view, sequence, at) in self.state.checkpoints_gone(notes) {
            rows.push(self.checkpoint(&view, CheckpointStatus::Gone, (sequence, at))?);
        }
        let rollbacks = self.state.rollback_summaries().chain(notes.rollbacks.iter().cloned());
        for summary in rollbacks.filter(|summary| summary.sequence > self.before) {
            rows.push(self.rollback(&summary)?);
        }
        Ok(rows)
    }

    fn tenant(&self) -> String {
        self.state.started().tenant.clone()
    }

    fn question(
        &self,
        question: &Question,
        settled: Option<&Settled>,
    ) -> Result<DocumentRow, serde_json::Error> {
        let Question { asks, step, text, until, sequence, at } = question;
        let run = self.state.id();
        let escalation = match asks {
            Asks::Decision => Escalation::of_step(run, step, text, *until),
            Asks::Undo => Escalation::of_undo(run, step, text),
        };
        let version = settled.map_or(*sequence, |settled| settled.sequence);
        let escalation = Escalation { settled: settled.map(how), ..escalation };
        let id = escalations::id_of_run(run, i64::from(*sequence));
        escalation.row(id, self.tenant(), *at, escalations::version_of_run(version))
    }

    fn checkpoint(
        &self,
        view: &CheckpointView,
        status: CheckpointStatus,
        (version, at): (u32, engine::Instant),
    ) -> Result<DocumentRow, serde_json::Error> {
        let stored = StoredCheckpoint {
            name: view.name.to_string(),
            sequence: view.sequence,
            step: view.step.to_string(),
            settled: view.settled,
            content_hash: view.content.to_string(),
        };
        let run = self.state.id();
        Ok(DocumentRow {
            kind: Kind::Checkpoint.number(),
            id: checkpoint_id(run, view.sequence),
            tenant: self.tenant(),
            parent: Some(run.to_string()),
            status: status.number(),
            created_at: view.at.0,
            updated_at: at.0,
            due_at: None,
            version: i64::from(version),
            body: serde_json::to_vec(&stored)?,
        })
    }

    fn rollback(&self, summary: &RollbackSummary) -> Result<DocumentRow, serde_json::Error> {
        let UndoCounts { total, undone, by_hand, skipped, stuck, not_undoable } = summary.counts;
        let stored = StoredRollback {
            number: summary.number,
            to: summary.to.clone(),
            asked: summary.asked,
            needs_approval: summary.needs_approval,
            actor: summary.actor.clone(),
            approved_by: summary.approved_by.clone().unwrap_or_default(),
            ended_at: summary.ended_at.map(|at| at.0),
            total,
            undone,
            by_hand,
            skipped,
            stuck,
            not_undoable,
        };
        let run = self.state.id();
        Ok(DocumentRow {
            kind: Kind::Rollback.number(),
            id: rollback_id(run, summary.number),
            tenant: self.tenant(),
            parent: Some(run.to_string()),
            status: rollback_status(summary.status),
            created_at: summary.at.0,
            updated_at: summary.changed_at.0,
            due_at: None,
            version: i64::from(summary.sequence),
            body: serde_json::to_vec(&stored)?,
        })
    }
}

/// The step whose event asks, or may ask, something.
fn asks(event: &Event) -> Option<InstanceId> {
    match event {
        Event::StepWaiting { n, waiting_for: WaitingFor::Decision(_), .. }
        | Event::UndoFailed { n, retry_at: None, .. } => Some(*n),
        _ => None,
    }
}

fn how(settled: &Settled) -> escalations::Settled {
    let choice = settled.verdict.map(|verdict| match verdict {
        Verdict::Step { approved: false, .. } => Choice::Reject,
        Verdict::Step { amended: true, .. } => Choice::Amend,
        Verdict::Step { .. } => Choice::Approve,
        Verdict::Undo(UndoDecision::Retry) => Choice::Retry,
        Verdict::Undo(UndoDecision::Done) => Choice::Done,
        Verdict::Undo(UndoDecision::Skip) => Choice::Skip,
    });
    escalations::Settled {
        at: settled.at,
        choice,
        by: settled.by.clone(),
        comment: settled.comment.clone(),
        outcome: None,
        request: settled.request.clone(),
    }
}

/// All documents that follow from a journal, in the order of their kinds and ids.
///
/// # Errors
/// With what is wrong with the journal.
pub fn rebuilt(
    run: RunId,
    graph: &Arc<Graph>,
    journal: &[JournalRow],
) -> Result<Vec<DocumentRow>, String> {
    let mut state = None;
    let mut rows: BTreeMap<(i16, String), DocumentRow> = BTreeMap::new();
    for row in journal {
        let event = push(run, graph, &mut state, row)?;
        let Some(state) = state.as_mut() else { continue };
        if matches!(event, Some(Event::RunForked { .. })) {
            // What it took over is told of the other run.
            rows.clear();
        }
        let changed = documents(state, row.seq - 1, event.as_slice());
        for changed in changed.map_err(|error| error.to_string())? {
            let key = (changed.kind, changed.id.clone());
            let created_at = rows.get(&key).map_or(changed.created_at, |row| row.created_at);
            rows.insert(key, DocumentRow { created_at, ..changed });
        }
    }
    Ok(rows.into_values().collect())
}
