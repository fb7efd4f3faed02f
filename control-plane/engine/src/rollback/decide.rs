//! Rollbacks as they are decided: planned, approved, begun, carried out undo by undo, ended.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::parts::Part;
use super::progress::UnitState;
use crate::decide::{Decider, task_error};
use crate::effect::Effect;
use crate::event::{Ending, Event, Origin, RollbackTo, UndoDecision, UndoOrder};
use crate::failure::undo_retry_at;
use crate::graph::{FailureScope, NodeKind, Rollback};
use crate::id::{InstanceId, RunId};
use crate::limits;
use crate::rejection::Rejection;
use crate::state::{Phase, State, Work};
use crate::task::{
    DeclaredUndo, FailureKind, Json, Purpose, TaskError, TaskKey, TaskOutcome, TaskReport,
};

impl Decider<'_> {
    /// All steps have settled and one has failed.
    pub(crate) fn begin_rollback(&mut self) {
        let target = match self.state.graph.rollback {
            Rollback::None => return self.begin_handler(),
            Rollback::ToStart => self.state.forked_at,
            Rollback::ToCheckpoint => {
                let last = self.state.checkpoints.back();
                last.map_or(self.state.forked_at, |mark| mark.sequence)
            }
        };
        let (steps, not_undoable) = self.state.to_undo(target, true);
        let number = self.state.rollbacks + 1;
        let (target, origin) = (Some(target), Origin::default());
        self.emit(Event::RollbackStarted { steps, not_undoable, number, target, origin });
        self.pump_rollback();
    }

    /// Gives out the undos that may be made now, or ends the rollback.
    pub(crate) fn pump_rollback(&mut self) {
        if self.state.phase != Phase::RollingBack {
            return;
        }
        loop {
            let Some(rollback) = &self.state.rollback else { return };
            if rollback.is_over() {
                let complete = rollback.complete;
                self.emit(Event::RollbackEnded { complete });
                return self.rollback_over(complete);
            }
            let Some(n) = rollback.eligible() else { return };
            if self.transition.events.len() >= limits::EVENTS_PER_DECISION_MAX {
                return self.state.work.push_back(Work::Run);
            }
            self.begin_undo(n);
        }
    }

    fn begin_undo(&mut self, n: InstanceId) {
        let step = self.state.path(n);
        let part = self.state.rollback.as_ref().and_then(|r| r.unit(n)).map_or(0, |u| u.part);
        let found = self.state.undo_parts(n).into_iter().nth(part);
        let order = match found {
            Some(Part::Child(child)) => {
                self.emit(Event::ChildUndoRequested { n, step, child });
                return self.effect(Effect::RollBackChild { instance: n, run: child });
            }
            Some(Part::Compensate) => self.compensation_order(n),
            Some(Part::Task { agent, undo }) => self.declared_order(n, agent, undo.as_ref()),
            None => Err(task_error(FailureKind::Permanent, "undo", "there is nothing to undo it")),
        };
        match order {
            Ok(order) => {
                self.emit(Event::UndoQueued { n, step, order });
                self.dispatch_undo(n);
            }
            Err(error) => {
                let attempt = self.state.undo_attempt(n);
                self.emit(Event::UndoFailed { n, step, attempt, error, retry_at: None });
            }
        }
    }

    fn declared_order(
        &self,
        n: InstanceId,
        agent: Option<crate::task::AgentRef>,
        undo: Option<&DeclaredUndo>,
    ) -> Result<UndoOrder, TaskError> {
        if undo == Some(&DeclaredUndo::NotUndoable) {
            let message = "the agent says that the action cannot be undone";
            return Err(task_error(FailureKind::Permanent, "not_undoable", message));
        }
        let needs_output = matches!(undo, Some(DeclaredUndo::ActionWithOutput(_)));
        if needs_output && self.state.output(n).is_none() {
            let message = "the undo needs the step's output, and the step gave none";
            return Err(task_error(FailureKind::Permanent, "undo_needs_output", message));
        }
        let input = self.state.undo_input(n)?;
        Ok(self.state.undo_order_of(n, agent, undo, input))
    }

    fn compensation_order(&self, n: InstanceId) -> Result<UndoOrder, TaskError> {
        let NodeKind::Action(action) = &self.state.node(n).kind else {
            return Err(task_error(FailureKind::Permanent, "", "only actions are undone"));
        };
        let Some(compensate) = &action.compensate else {
            return Err(task_error(FailureKind::Permanent, "", "nothing says how to undo it"));
        };
        let instance = &self.state.instances[n.index()];
        let touched = instance.detail().and_then(|detail| detail.touched.last());
        let by = instance.by.clone().or_else(|| touched.and_then(|touch| touch.agent.clone()));
        let input = match compensate.params.as_ref() {
            Some(params) => self.template(n, params)?.to_string().into(),
            None => self.state.undo_input(n)?,
        };
        let own = compensate.agent.is_none();
        let by_type = by.as_ref().map(|by| Arc::clone(&by.agent_type));
        Ok(UndoOrder {
            agent: compensate.agent.clone().or(by_type).or_else(|| action.agent.clone()),
            instance: by.filter(|_| own).map(|by| by.instance),
            action: Arc::clone(&compensate.action),
            input,
            undo_of: false,
        })
    }

    fn dispatch_undo(&mut self, n: InstanceId) {
        if let Some(order) = self.state.undo_task(n) {
            self.effect(Effect::Dispatch(Box::new(order)));
        }
    }

    pub(crate) fn undo_report(&mut self, report: TaskReport) -> Result<(), Rejection> {
        let n = report.key.instance;
        let rollback = self.state.rollback.as_ref().ok_or(Rejection::TaskNotOut)?;
        let unit = rollback.unit(n).ok_or(Rejection::TaskNotOut)?;
        let is_out = matches!(unit.state, UnitState::Out { .. });
        let (attempt, tried) = (unit.attempts, unit.attempts - unit.attempts_before);
        if !is_out || attempt != report.attempt || self.state.phase != Phase::RollingBack {
            return Err(Rejection::TaskNotOut);
        }
        let step = self.state.path(n);
        let error = match report.outcome {
            TaskOutcome::Started => return Ok(()),
            TaskOutcome::Succeeded { .. } => {
                self.emit(Event::UndoSucceeded { n, step });
                self.pump_rollback();
                return Ok(());
            }
            TaskOutcome::Failed(error) => error,
            TaskOutcome::Cancelled | TaskOutcome::LostAtMostOnce => {
                task_error(FailureKind::Retryable, "lost", "the undo was lost")
            }
        };
        // Nobody was there to make it: a person may know why.
        let waited = error.code == "queue_timeout";
        let again = error.kind == FailureKind::Retryable && !waited;
        let again = again && tried < limits::UNDO_ATTEMPTS_MAX;
        let retry_at = again.then(|| undo_retry_at(self.now, tried));
        self.emit(Event::UndoFailed { n, step, attempt, error, retry_at });
        if again {
            self.dispatch_undo(n);
        } else {
            self.pump_rollback();
        }
        Ok(())
    }

    pub(crate) fn child_rolled_back(
        &mut self,
        n: InstanceId,
        child: RunId,
        complete: bool,
    ) -> Result<(), Rejection> {
        let unit = self.state.rollback.as_ref().and_then(|rollback| rollback.unit(n));
        let waits = unit.is_some_and(
            |unit| matches!(unit.state, UnitState::Child(awaited) if awaited == child),
        );
        if !waits || self.state.phase != Phase::RollingBack {
            return Err(Rejection::TaskNotOut);
        }
        let attempt = self.state.undo_attempt(n);
        let step = self.state.path(n);
        if complete {
            self.emit(Event::UndoSucceeded { n, step });
        } else {
            let message = "a part of what the sub-workflow did was not undone";
            let error = task_error(FailureKind::Permanent, "sub_workflow", message);
            self.emit(Event::UndoFailed { n, step, attempt, error, retry_at: None });
        }
        self.pump_rollback();
        Ok(())
    }

    pub(crate) fn decide_undo(
        &mut self,
        path: &str,
        decision: UndoDecision,
        comment: String,
        origin: Origin,
    ) -> Result<(), Rejection> {
        let not_open = || Rejection::UndoNotOpen(path.to_owned());
        let rollback = self.state.rollback.as_ref().ok_or_else(not_open)?;
        if self.state.phase != Phase::RollingBack {
            return Err(not_open());
        }
        let open = rollback.units.iter().filter(|unit| !unit.state.is_settled());
        let unit = open.into_iter().find(|unit| &*self.state.path(unit.n) == path);
        let unit = unit.ok_or_else(not_open)?;
        let n = unit.n;
        let was_out = matches!(unit.state, UnitState::Out { .. });
        match (&unit.state, decision) {
            (UnitState::Stuck, _) => {}
            (UnitState::Out { .. }, UndoDecision::Done | UndoDecision::Skip)
                if unit.error.is_some() => {}
            (UnitState::Out { .. }, UndoDecision::Done | UndoDecision::Skip) => {
                // An agent may be at it; what it does is awaited, unless none has come.
                if self.now < self.state.undo_queued_at(n).after(limits::UNDO_TIMEOUT) {
                    return Err(not_open());
                }
            }
            _ => return Err(not_open()),
        }
        let step = self.state.path(n);
        self.emit(Event::UndoDecided { n, step, decision, comment, origin });
        if was_out {
            self.effect(Effect::CancelTask {
                key: TaskKey { run: self.state.id, instance: n, purpose: Purpose::Undo },
                reason: "a person has decided about the undo".to_owned(),
                grace: limits::CANCEL_GRACE,
            });
        }
        self.pump_rollback();
        Ok(())
    }

    pub(crate) fn plan_rollback(
        &mut self,
        to: RollbackTo,
        needs_approval: bool,
        origin: Origin,
    ) -> Result<(), Rejection> {
        if let Some(planned) = &self.state.planned {
            return Err(Rejection::RollbackOpen(planned.number));
        }
        if let (Phase::RollingBack, Some(rollback)) = (self.state.phase, &self.state.rollback) {
            return Err(Rejection::RollbackOpen(rollback.number));
        }
        if self.state.phase != Phase::Ended {
            return Err(Rejection::NotEnded);
        }
        let target = self.state.rollback_target(&to)?;
        let number = self.state.rollbacks + 1;
        let needs_approval = needs_approval || self.state.graph.rollback_approval;
        self.emit(Event::RollbackPlanned { number, to, target, needs_approval, origin });
        Ok(())
    }

    pub(crate) fn approve_rollback(
        &mut self,
        number: u32,
        approve: bool,
        comment: String,
        origin: Origin,
    ) -> Result<(), Rejection> {
        let planned = self.state.planned.as_ref().filter(|planned| planned.number == number);
        let planned = planned.ok_or(Rejection::RollbackNotFound(number))?;
        if approve && planned.approved_by.is_some() {
            return Err(Rejection::State(format!("rollback {number} is approved already")));
        }
        self.emit(if approve {
            Event::RollbackApproved { number, comment, origin }
        } else {
            Event::RollbackAbandoned { number, reason: comment, origin }
        });
        Ok(())
    }

    pub(crate) fn execute_rollback(
        &mut self,
        number: u32,
        origin: Origin,
    ) -> Result<(), Rejection> {
        let planned = self.state.planned.as_ref().filter(|planned| planned.number == number);
        let planned = planned.ok_or(Rejection::RollbackNotFound(number))?;
        if planned.needs_approval && planned.approved_by.is_none() {
            return Err(Rejection::RollbackNotApproved(number));
        }
        let target = planned.target;
        self.roll_back_ended(number, target, origin);
        Ok(())
    }

    fn roll_back_ended(&mut self, number: u32, target: u32, origin: Origin) {
        let (steps, not_undoable) = self.state.to_undo(target, false);
        let target = Some(target);
        self.emit(Event::RollbackStarted { steps, not_undoable, number, target, origin });
        self.pump_rollback();
    }

    /// The run above undoes this one.
    pub(crate) fn roll_back_for_parent(&mut self, parent: RunId) -> Result<(), Rejection> {
        if self.state.started.parent.map(|above| above.run) != Some(parent) {
            return Err(Rejection::State(format!("run {parent} has not started this one")));
        }
        match self.state.phase {
            Phase::Ended => {}
            // Its end tells the run above.
            Phase::RollingBack => return Ok(()),
            _ => return Err(Rejection::NotEnded),
        }
        let (steps, not_undoable) = self.state.to_undo(0, false);
        if steps.is_empty() {
            let complete = not_undoable.is_empty();
            self.effect(Effect::RolledBackForParent { complete });
            return Ok(());
        }
        let number = self.state.planned.as_ref().map_or(self.state.rollbacks + 1, |p| p.number);
        let origin = Origin { actor: actor_above(parent), request: None };
        self.roll_back_ended(number, 0, origin);
        Ok(())
    }

    /// A rollback has ended: of a failing run, the steps of `on_failure` follow; one that was
    /// asked for ends the run again.
    fn rollback_over(&mut self, complete: bool) {
        let prior = self.state.rollback.as_ref().and_then(|rollback| rollback.prior.clone());
        let Some(prior) = prior else { return self.begin_handler() };
        let (status, error) = if complete {
            (Ending::RolledBack, prior.error)
        } else {
            let message = "it was rolled back in part; the rollback lists what is left";
            (Ending::Failure, Some(message.to_owned()))
        };
        self.emit(Event::RunEnded { status, outputs: None, error: error.clone() });
        self.state.work.clear();
        if self.state.started.parent.is_some() {
            self.effect(Effect::RolledBackForParent { complete });
        }
        self.effect(Effect::Ended { status, outputs: None, error });
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
    /// Whether what the run has done is undone for the run above; `None`: that is not over, or was
    /// not begun.
    #[must_use]
    pub fn rolled_back_for(&self, parent: RunId) -> Option<bool> {
        if self.phase != Phase::Ended {
            return None;
        }
        let (steps, not_undoable) = self.to_undo(0, false);
        if steps.is_empty() {
            return Some(not_undoable.is_empty());
        }
        let actor = actor_above(parent);
        let given_up = self.rollback.as_ref().is_some_and(|r| r.origin.actor == actor);
        given_up.then_some(false)
    }

    /// The attempt of an undo that is made, or would be next.
    fn undo_attempt(&self, n: InstanceId) -> u32 {
        let unit = self.rollback.as_ref().and_then(|rollback| rollback.unit(n));
        unit.map_or(1, |unit| unit.attempts.max(1))
    }

    fn undo_queued_at(&self, n: InstanceId) -> crate::id::Instant {
        let unit = self.rollback.as_ref().and_then(|rollback| rollback.unit(n));
        match unit.map(|unit| &unit.state) {
            Some(UnitState::Out { queued_at, .. }) => *queued_at,
            _ => self.last_at,
        }
    }

    /// `{params, output}` of a step.
    pub(super) fn undo_input(&self, n: InstanceId) -> Result<Json, TaskError> {
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

/// Who asks when the run above is rolled back.
fn actor_above(parent: RunId) -> String {
    format!("run/{parent}")
}
