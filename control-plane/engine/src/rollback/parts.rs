//! Which steps a rollback undoes, and of which parts the undo of one step consists.

use std::sync::Arc;

use crate::event::{RollbackTo, UndoOrder};
use crate::graph::{FailureScope, NodeKind};
use crate::id::{InstanceId, RunId};
use crate::instance::{ScopeId, Status};
use crate::rejection::Rejection;
use crate::state::State;
use crate::task::{AgentRef, DeclaredUndo, Touch};

/// One part of the undo of a step instance.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Part {
    /// A task for an agent.
    Task {
        agent: Option<AgentRef>,
        /// `None`: the agent that gets it knows.
        undo: Option<DeclaredUndo>,
    },
    /// What the workflow says.
    Compensate,
    /// A child run.
    Child(RunId),
}

/// What a rollback does with a step instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// It changed nothing.
    Nothing,
    /// It is undone.
    Undo,
    /// It changed something, perhaps, that cannot be undone.
    NotUndoable,
}

impl State {
    /// The steps to undo, the last ended first, and those that would be but cannot: of what ended
    /// behind `target`. Under `failed_branches` only what belongs to those.
    pub(crate) fn to_undo(
        &self,
        target: u32,
        failed_branches: bool,
    ) -> (Vec<InstanceId>, Vec<InstanceId>) {
        let (mut steps, mut not_undoable) = (Vec::new(), Vec::new());
        for index in 0..self.instances.len() {
            let n = InstanceId(u32::try_from(index).unwrap_or(u32::MAX));
            let is_behind = self.instances[index].ended > target;
            if !is_behind || self.root_scope(n) != ScopeId(0) {
                continue;
            }
            if failed_branches && !self.is_in_failed_branch(n) {
                continue;
            }
            match self.reach(n) {
                Reach::Nothing => {}
                Reach::Undo => steps.push(n),
                Reach::NotUndoable => not_undoable.push(n),
            }
        }
        let rank = |n: &InstanceId| std::cmp::Reverse((self.undo_rank(*n), n.0));
        steps.sort_by_key(rank);
        not_undoable.sort_by_key(rank);
        (steps, not_undoable)
    }

    /// Under `scope: branch` only the failed branches are undone.
    fn is_in_failed_branch(&self, n: InstanceId) -> bool {
        let top = self.root_instance(n);
        self.graph.scope == FailureScope::Run
            || self.cancel.is_some()
            || (self.instances[top.index()].status != Status::Success
                && !self.node(top).continue_on_error)
    }

    pub(crate) fn reach(&self, n: InstanceId) -> Reach {
        let instance = &self.instances[n.index()];
        if !instance.status.is_settled() || instance.detail().is_some_and(|d| d.undone) {
            return Reach::Nothing;
        }
        let parts = self.undo_parts(n);
        let undoable = |part: &Part| match part {
            Part::Task { undo, .. } => *undo != Some(DeclaredUndo::NotUndoable),
            Part::Compensate | Part::Child(_) => true,
        };
        if parts.is_empty() {
            Reach::Nothing
        } else if parts.iter().any(undoable) {
            Reach::Undo
        } else {
            Reach::NotUndoable
        }
    }

    /// Who may have changed something for a step instance, the last first.
    pub(crate) fn undo_parts(&self, n: InstanceId) -> Vec<Part> {
        let instance = &self.instances[n.index()];
        let detail = instance.detail();
        if let NodeKind::Workflow(_) = self.node(n).kind {
            let Some(detail) = detail else { return Vec::new() };
            let last = match &detail.waiting_for {
                Some(crate::event::WaitingFor::Child(child)) => Some(child.run),
                _ => None,
            };
            let former = detail.former_children.iter().rev().copied();
            return last.into_iter().chain(former).map(Part::Child).collect();
        }
        let NodeKind::Action(action) = &self.node(n).kind else { return Vec::new() };
        let succeeded = instance.status == Status::Success;
        let touched = detail.map_or(&[][..], |detail| &detail.touched);
        if action.compensate.is_some() {
            return self.compensation(n, succeeded || !touched.is_empty());
        }
        // An action that succeeded without a declared undo had nothing to undo.
        let mut parts = Vec::new();
        if let (true, Some(undo)) = (succeeded, &instance.undo) {
            parts.push(Part::Task { agent: instance.by.clone(), undo: Some(undo.clone()) });
        }
        let done_by = instance.by.as_ref().filter(|_| succeeded).map(|by| &by.agent_type);
        let name = |touch: &Touch| touch.agent.as_ref().map(|agent| Arc::clone(&agent.agent_type));
        for touch in touched.iter().rev() {
            // One undo by an agent type is enough; of an unknown agent its type is known.
            let of = name(touch).or_else(|| action.agent.clone());
            let others = touched.iter().filter_map(name).filter(|_| touch.agent.is_none());
            let same = of.is_some() && of.as_ref() == done_by
                || others.into_iter().any(|other| Some(other) == of);
            if !same && touch.undo != Some(DeclaredUndo::Nothing) {
                parts.push(Part::Task { agent: touch.agent.clone(), undo: touch.undo.clone() });
            }
        }
        parts
    }

    fn compensation(&self, n: InstanceId, touched: bool) -> Vec<Part> {
        match &self.node(n).kind {
            NodeKind::Action(action) if touched && action.compensate.is_some() => {
                vec![Part::Compensate]
            }
            _ => Vec::new(),
        }
    }

    /// When a step ended, for the order of undos: one that was stopped in the middle, or failed
    /// and had nothing follow it, is undone first.
    pub(crate) fn undo_rank(&self, n: InstanceId) -> u32 {
        let instance = &self.instances[n.index()];
        let held = self.node(n).continue_on_error;
        match instance.status {
            Status::Success => instance.ended,
            Status::Failure if held => instance.ended,
            _ => u32::MAX,
        }
    }

    /// The sequence behind which everything is undone.
    pub(crate) fn rollback_target(&self, to: &RollbackTo) -> Result<u32, Rejection> {
        match to {
            RollbackTo::Start => Ok(self.forked_at),
            RollbackTo::Checkpoint(name) => {
                let by_number =
                    |sequence: u32| self.checkpoints.iter().find(|mark| mark.sequence == sequence);
                let by_name = self.checkpoints.iter().rev().find(|mark| *mark.name == **name);
                let found = by_name.or_else(|| name.parse().ok().and_then(by_number));
                let is_start = matches!(name.as_str(), "start" | "1");
                match found {
                    Some(mark) => Ok(mark.sequence),
                    None if is_start => Ok(self.forked_at),
                    None => Err(Rejection::CheckpointNotFound(name.clone())),
                }
            }
            RollbackTo::Before(path) => {
                let begun = (0..self.instances.len())
                    .rev()
                    .map(|index| InstanceId(u32::try_from(index).unwrap_or(u32::MAX)))
                    .filter(|n| !self.scopes[self.instances[n.index()].scope.index()].dead)
                    .find(|&n| self.instances[n.index()].begun > 0 && &*self.path(n) == path)
                    .map(|n| self.instances[n.index()].begun);
                let begun = begun.filter(|begun| *begun > self.forked_at);
                begun.map(|begun| begun - 1).ok_or_else(|| Rejection::StepNotFound(path.clone()))
            }
        }
    }

    /// The order for one part of a step's undo; its input is put in by who decides.
    pub(crate) fn undo_order_of(
        &self,
        n: InstanceId,
        agent: Option<AgentRef>,
        undo: Option<&DeclaredUndo>,
        input: crate::task::Json,
    ) -> UndoOrder {
        let of_step = match &self.node(n).kind {
            NodeKind::Action(action) => (action.agent.clone(), Arc::clone(&action.action)),
            _ => (None, Arc::from("")),
        };
        let (action, undo_of) = match undo {
            Some(DeclaredUndo::Action(name) | DeclaredUndo::ActionWithOutput(name)) => {
                (Arc::from(name.as_str()), false)
            }
            _ => (of_step.1, true),
        };
        UndoOrder {
            agent: agent.as_ref().map(|agent| Arc::clone(&agent.agent_type)).or(of_step.0),
            instance: agent.map(|agent| agent.instance),
            action,
            input,
            undo_of,
        }
    }
}
