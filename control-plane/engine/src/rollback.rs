//! What was done is undone, in reverse order of completion; then the steps of `on_failure`.

use std::sync::Arc;

use serde_json::value::RawValue;

use crate::decide::{Decider, task_error};
use crate::effect::Effect;
use crate::event::{Ending, Event, UndoOrder};
use crate::failure::undo_retry_at;
use crate::graph::{FailureScope, NodeKind, Rollback};
use crate::id::InstanceId;
use crate::instance::{ScopeId, Status};
use crate::limits;
use crate::rejection::Rejection;
use crate::state::{Phase, State, Work};
use crate::task::{DeclaredUndo, FailureKind, Json, TaskError, TaskOutcome, TaskReport};

impl Decider<'_> {
    /// All steps have settled and one has failed.
    pub(crate) fn begin_rollback(&mut self) {
        if self.state.graph.rollback == Rollback::None {
            return self.begin_handler();
        }
        let (steps, not_undoable) = self.state.to_undo();
        self.emit(Event::RollbackStarted { steps, not_undoable });
        self.next_undo();
    }

    /// Orders the next undo, or ends the rollback.
    pub(crate) fn next_undo(&mut self) {
        let Some(rollback) = &self.state.rollback else { return };
        if self.state.phase != Phase::RollingBack || rollback.current.is_some() {
            return;
        }
        let next = rollback.steps.get(rollback.done).copied();
        let Some(n) = next.filter(|_| !rollback.stuck) else {
            let complete = rollback.complete;
            self.emit(Event::RollbackEnded { complete });
            return self.begin_handler();
        };
        let step = self.state.path(n);
        match self.undo_order(n) {
            Ok(order) => {
                self.emit(Event::UndoQueued { n, step, order });
                self.dispatch_undo();
            }
            Err(error) => {
                self.emit(Event::UndoFailed { n, step, attempt: 1, error, retry_at: None });
                self.next_undo();
            }
        }
    }

    fn undo_order(&self, n: InstanceId) -> Result<UndoOrder, TaskError> {
        let instance = &self.state.instances[n.index()];
        let NodeKind::Action(action) = &self.state.node(n).kind else {
            return Err(task_error(FailureKind::Permanent, "", "only actions are undone"));
        };
        let detail = instance.detail();
        let by = detail.and_then(|detail| detail.by.clone());
        let declared = match detail.and_then(|detail| detail.undo.as_ref()) {
            Some(DeclaredUndo::Action(name)) => Arc::<str>::from(name.as_str()),
            _ => Arc::from(""),
        };
        let input = match action.compensate.as_ref().and_then(|undo| undo.params.as_ref()) {
            Some(params) => self.template(n, params)?.to_string().into(),
            None => self.state.undo_input(n)?,
        };
        let Some(compensate) = &action.compensate else {
            return Ok(UndoOrder {
                agent: by.as_ref().map(|by| Arc::clone(&by.agent_type)),
                instance: by.map(|by| by.instance),
                action: declared,
                input,
            });
        };
        let own = compensate.agent.is_none();
        let by_type = by.as_ref().map(|by| Arc::clone(&by.agent_type));
        Ok(UndoOrder {
            agent: compensate.agent.clone().or(by_type).or_else(|| action.agent.clone()),
            instance: by.filter(|_| own).map(|by| by.instance),
            action: Arc::clone(&compensate.action),
            input,
        })
    }

    fn dispatch_undo(&mut self) {
        if let Some(order) = self.state.current_undo() {
            self.effect(Effect::Dispatch(Box::new(order)));
        }
    }

    pub(crate) fn undo_report(&mut self, report: TaskReport) -> Result<(), Rejection> {
        let n = report.key.instance;
        let rollback = self.state.rollback.as_ref().ok_or(Rejection::TaskNotOut)?;
        let (_, attempt, ..) = rollback.current.as_ref().ok_or(Rejection::TaskNotOut)?;
        let attempt = *attempt;
        let current = rollback.steps.get(rollback.done);
        if current != Some(&n) || attempt != report.attempt {
            return Err(Rejection::TaskNotOut);
        }
        let step = self.state.path(n);
        let error = match report.outcome {
            TaskOutcome::Started => return Ok(()),
            TaskOutcome::Succeeded { .. } => {
                self.emit(Event::UndoSucceeded { n, step });
                self.next_undo();
                return Ok(());
            }
            TaskOutcome::Failed(error) => error,
            TaskOutcome::Cancelled | TaskOutcome::LostAtMostOnce => {
                task_error(FailureKind::Retryable, "lost", "the undo was lost")
            }
        };
        let again = error.kind == FailureKind::Retryable && attempt < limits::UNDO_ATTEMPTS_MAX;
        let retry_at = again.then(|| undo_retry_at(self.now, attempt));
        self.emit(Event::UndoFailed { n, step, attempt, error, retry_at });
        if again {
            self.dispatch_undo();
        } else {
            self.next_undo();
        }
        Ok(())
    }

    fn begin_handler(&mut self) {
        if self.state.graph.on_failure.is_none() {
            return self.end_failed();
        }
        self.emit(Event::OnFailureStarted {});
        if let Some(handler) = self.state.handler {
            let first = self.state.scopes[handler.index()].first;
            let end = u32::try_from(self.state.instances.len()).unwrap_or(u32::MAX);
            for n in (first..end).map(InstanceId) {
                self.state.work.push_back(Work::Ready(n));
            }
        }
    }

    /// Everything behind a failure is over.
    pub(crate) fn end_failed(&mut self) {
        let state = &*self.state;
        let undone = state.rollback.as_ref().is_some_and(|rollback| rollback.complete);
        // A step past its own deadline is a failure like any other; that of the run stops the run,
        // and names no step where none had failed before.
        let is_late = |error: &TaskError| error.code == "deadline";
        let stopped = state.cancel.as_ref().and_then(|(_, error)| error.as_ref());
        let late = stopped.is_some_and(is_late)
            || state.failure.as_ref().is_some_and(|f| f.step.is_empty() && is_late(&f.error));
        let whole = state.graph.scope == FailureScope::Run && !late;
        self.end(if undone && whole { Ending::RolledBack } else { Ending::Failure }, None);
    }
}

impl State {
    /// The steps to undo, the last completed first, and those that would be but cannot.
    fn to_undo(&self) -> (Vec<InstanceId>, Vec<InstanceId>) {
        let from = match self.graph.rollback {
            Rollback::ToCheckpoint => self.checkpointed,
            Rollback::ToStart | Rollback::None => 0,
        };
        let (mut steps, mut not_undoable) = (Vec::new(), Vec::new());
        for &n in self.completions.iter().skip(from).rev() {
            if self.root_scope(n) != ScopeId(0) || !self.is_to_undo(n) {
                continue;
            }
            let NodeKind::Action(action) = &self.node(n).kind else { continue };
            let declared = self.instances[n.index()].detail().and_then(|d| d.undo.as_ref());
            match (&action.compensate, declared) {
                (Some(_), _) | (None, Some(DeclaredUndo::Action(_))) => steps.push(n),
                (None, Some(DeclaredUndo::NotUndoable)) => not_undoable.push(n),
                (None, Some(DeclaredUndo::Nothing) | None) => {}
            }
        }
        (steps, not_undoable)
    }

    /// Under `scope: branch` only the failed branches are undone.
    fn is_to_undo(&self, n: InstanceId) -> bool {
        let instance = &self.instances[n.index()];
        let undone = instance.detail().is_some_and(|detail| detail.undone);
        if undone || instance.status != Status::Success {
            return false;
        }
        let top = self.root_instance(n);
        self.graph.scope == FailureScope::Run
            || self.cancel.is_some()
            || (self.instances[top.index()].status != Status::Success
                && !self.node(top).continue_on_error)
    }

    /// `{params, output}` of a step.
    fn undo_input(&self, n: InstanceId) -> Result<Json, TaskError> {
        let order = self.order(n);
        let output = self.output(n).unwrap_or_else(|| "null".into());
        let raw = |text: &Json| {
            RawValue::from_string(text.to_string())
                .map_err(|error| task_error(FailureKind::Permanent, "undo", &error.to_string()))
        };
        #[derive(serde::Serialize)]
        struct Input {
            params: Box<RawValue>,
            output: Box<RawValue>,
        }
        let input = Input { params: raw(&order.input)?, output: raw(&output)? };
        serde_json::to_string(&input)
            .map(Into::into)
            .map_err(|error| task_error(FailureKind::Permanent, "undo", &error.to_string()))
    }
}
