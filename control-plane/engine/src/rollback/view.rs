//! What people read of rollbacks and checkpoints.

use std::sync::Arc;

use super::content::CheckpointMark;
use super::parts::{Part, Reach};
use super::progress::UnitState;
use super::summary::UndoCounts;
use crate::asked::Notes;
use crate::event::{RollbackTo, UndoDecision};
use crate::graph::NodeKind;
use crate::id::{ContentHash, InstanceId, Instant, RunId};
use crate::instance::Status;
use crate::rejection::Rejection;
use crate::state::{Phase, State};
use crate::task::{AgentRef, DeclaredUndo, Json, TaskError};

/// Where a rollback stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RollbackStatus {
    /// It waits to be executed, or to be approved before.
    Planned,
    /// It was approved and waits to be executed.
    Approved,
    /// Undos are made.
    Running,
    /// A person is needed for at least one undo.
    Stuck,
    /// Everything was undone.
    Succeeded,
    /// It is over, and something is left as it was.
    Incomplete,
    /// It was given up, or rejected, before it began.
    Abandoned,
}

/// A rollback of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct RollbackView {
    /// Its number within the run, from 1.
    pub number: u32,
    /// How far it goes.
    pub to: RollbackTo,
    /// What ended behind this sequence of the journal is undone.
    pub target: u32,
    /// Where it stands.
    pub status: RollbackStatus,
    /// It was asked for, not begun by a failure.
    pub asked: bool,
    /// It is executed only once it is approved.
    pub needs_approval: bool,
    /// Who asked for it.
    pub actor: String,
    /// Who approved it.
    pub approved_by: Option<String>,
    /// When it was planned or begun.
    pub at: Instant,
    /// When it ended.
    pub ended_at: Option<Instant>,
    /// What became of the undos.
    pub counts: UndoCounts,
    /// What is undone, in the order in which it is begun.
    pub undos: Vec<UndoView>,
    /// Steps that changed something, perhaps, and cannot be undone.
    pub not_undoable: Vec<Arc<str>>,
}

/// The undo of one step.
#[derive(Clone, Debug, PartialEq)]
pub struct UndoView {
    /// The step's path.
    pub path: Arc<str>,
    /// `pending`, `running`, `stuck`, `undone`, `by_hand` or `skipped`.
    pub status: &'static str,
    /// By which action; empty where the agent says so when it gets it.
    pub action: Arc<str>,
    /// The agent type.
    pub agent: Option<Arc<str>>,
    /// The child run that is undone.
    pub child: Option<RunId>,
    /// The step was stopped in the middle, or failed: nobody knows how much it did.
    pub possibly_done: bool,
    /// How many attempts were made.
    pub attempts: u32,
    /// Why the last attempt failed.
    pub error: Option<TaskError>,
    /// What a person decided, who, and why.
    pub decided: Option<(UndoDecision, String, String)>,
}

/// A consistent point of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckpointView {
    /// Its name.
    pub name: Arc<str>,
    /// The sequence of the event it stands behind.
    pub sequence: u32,
    /// When.
    pub at: Instant,
    /// The step that it follows.
    pub step: Arc<str>,
    /// How many steps had settled.
    pub settled: u32,
    /// A hash over the run, the sequence, the params, and each step that settled with its output.
    pub content: ContentHash,
}

impl State {
    /// All rollbacks that are known: the one under way or over last, and the one planned.
    #[must_use]
    pub fn rollbacks(&self) -> Vec<RollbackView> {
        let mut found = Vec::new();
        if let Some(rollback) = &self.rollback {
            found.push(RollbackView {
                number: rollback.number,
                to: rollback.to.clone(),
                target: rollback.target,
                status: rollback.status(),
                asked: rollback.prior.is_some(),
                needs_approval: rollback.approved_by.is_some(),
                actor: rollback.origin.actor.clone(),
                approved_by: rollback.approved_by.clone(),
                at: rollback.started_at,
                ended_at: rollback.ended_at,
                counts: rollback.counts,
                undos: rollback.units.iter().map(|unit| self.undo_view(unit.n)).collect(),
                not_undoable: rollback.not_undoable.iter().map(|&n| self.path(n)).collect(),
            });
        }
        if let Some(planned) = &self.planned {
            let (steps, not_undoable) = self.to_undo(planned.target, false);
            let approved = planned.approved_by.is_some();
            found.push(RollbackView {
                number: planned.number,
                to: planned.to.clone(),
                target: planned.target,
                status: if approved { RollbackStatus::Approved } else { RollbackStatus::Planned },
                asked: true,
                needs_approval: planned.needs_approval,
                actor: planned.origin.actor.clone(),
                approved_by: planned.approved_by.clone(),
                at: planned.at,
                ended_at: None,
                counts: UndoCounts::of(steps.len(), not_undoable.len()),
                undos: steps.into_iter().map(|n| self.undo_view(n)).collect(),
                not_undoable: not_undoable.into_iter().map(|n| self.path(n)).collect(),
            });
        }
        found
    }

    /// What a rollback would undo, in order, and what it could not.
    ///
    /// # Errors
    /// When there is no such checkpoint or step.
    pub fn would_undo(&self, to: &RollbackTo) -> Result<(Vec<UndoView>, Vec<Arc<str>>), Rejection> {
        let (steps, not_undoable) = self.to_undo(self.rollback_target(to)?, false);
        let steps = steps.into_iter().map(|n| self.undo_view(n)).collect();
        Ok((steps, not_undoable.into_iter().map(|n| self.path(n)).collect()))
    }

    fn undo_view(&self, n: InstanceId) -> UndoView {
        let unit = self.rollback.as_ref().and_then(|rollback| rollback.unit(n));
        let state = unit.map(|unit| &unit.state);
        let part = unit.map_or(0, |unit| unit.part);
        let parts = self.undo_parts(n);
        let (agent, action, child) = match parts.get(part).or(parts.last()) {
            Some(Part::Child(run)) => (None, Arc::from(""), Some(*run)),
            Some(Part::Compensate) => self.compensation_names(n),
            Some(Part::Task { agent, undo }) => self.undo_names(n, agent.as_ref(), undo.as_ref()),
            None => (None, Arc::from(""), None),
        };
        UndoView {
            path: self.path(n),
            status: match state {
                None | Some(UnitState::Owed) => "pending",
                Some(UnitState::Out { .. } | UnitState::Child(_)) => "running",
                Some(UnitState::Stuck) => "stuck",
                Some(UnitState::Undone) => "undone",
                Some(UnitState::ByHand) => "by_hand",
                Some(UnitState::Skipped) => "skipped",
            },
            action,
            agent,
            child,
            possibly_done: self.instances[n.index()].status != Status::Success,
            attempts: unit.map_or(0, |unit| unit.attempts),
            error: unit.and_then(|unit| unit.error.clone()),
            decided: unit.and_then(|unit| unit.decided.clone()),
        }
    }

    fn compensation_names(&self, n: InstanceId) -> (Option<Arc<str>>, Arc<str>, Option<RunId>) {
        match &self.node(n).kind {
            NodeKind::Action(action) => {
                let undo = action.compensate.as_ref();
                let agent = undo.and_then(|undo| undo.agent.clone());
                let name = undo.map_or_else(|| Arc::from(""), |undo| Arc::clone(&undo.action));
                (agent.or_else(|| action.agent.clone()), name, None)
            }
            _ => (None, Arc::from(""), None),
        }
    }

    fn undo_names(
        &self,
        n: InstanceId,
        agent: Option<&AgentRef>,
        undo: Option<&DeclaredUndo>,
    ) -> (Option<Arc<str>>, Arc<str>, Option<RunId>) {
        let name = match undo {
            Some(DeclaredUndo::Action(name) | DeclaredUndo::ActionWithOutput(name)) => name,
            _ => "",
        };
        let of_step = match &self.node(n).kind {
            NodeKind::Action(action) => action.agent.clone(),
            _ => None,
        };
        (agent.map(|agent| Arc::clone(&agent.agent_type)).or(of_step), Arc::from(name), None)
    }

    /// Whether a rollback waits for a person and nothing else of it goes on.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.phase == Phase::RollingBack
            && self.rollback.as_ref().is_some_and(|rollback| rollback.stuck > 0)
    }

    /// The steps that changed something, perhaps, and would not be undone by anybody.
    #[must_use]
    pub fn not_undoable(&self) -> Vec<Arc<str>> {
        (0..self.instances.len())
            .map(|index| InstanceId(u32::try_from(index).unwrap_or(u32::MAX)))
            .filter(|&n| self.reach(n) == Reach::NotUndoable)
            .map(|n| self.path(n))
            .collect()
    }

    /// All checkpoints with a name, the oldest first.
    pub fn checkpoints(&self) -> impl DoubleEndedIterator<Item = CheckpointView> {
        self.checkpoints.iter().map(|mark| self.checkpoint_view(mark))
    }

    /// Those behind a sequence of the journal; costs nothing for those before.
    pub fn checkpoints_behind(&self, sequence: u32) -> impl Iterator<Item = CheckpointView> {
        let first = self.checkpoints.partition_point(|mark| mark.sequence <= sequence);
        self.checkpoints.range(first..).map(|mark| self.checkpoint_view(mark))
    }

    /// Those that are none any more: as they were, and by which event.
    pub fn checkpoints_gone<'a>(
        &'a self,
        notes: &'a Notes,
    ) -> impl Iterator<Item = (CheckpointView, u32, Instant)> {
        let gone = notes.checkpoints.iter();
        gone.map(|(mark, sequence, at)| (self.checkpoint_view(mark), *sequence, *at))
    }

    fn checkpoint_view(&self, mark: &CheckpointMark) -> CheckpointView {
        CheckpointView {
            name: Arc::clone(&mark.name),
            sequence: mark.sequence,
            at: mark.at,
            step: self.path(mark.step),
            settled: mark.settled,
            content: mark.content,
        }
    }

    /// The steps that have settled: path, status and output, in order of the definition.
    #[must_use]
    pub fn settled_steps(&self) -> Vec<(Arc<str>, &'static str, Option<Json>)> {
        let mut settled = Vec::new();
        for index in 0..self.instances.len() {
            let instance = &self.instances[index];
            if instance.status.is_settled() && !self.scopes[instance.scope.index()].dead {
                let n = InstanceId(u32::try_from(index).unwrap_or(u32::MAX));
                let status = crate::lookup::status_word(instance.status);
                settled.push((self.path(n), status, self.output(n)));
            }
        }
        settled
    }
}
