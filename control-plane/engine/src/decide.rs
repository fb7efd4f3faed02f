//! State in, command in, time in; events and effects out.
//!
//! Events are applied as they are made, so the state handed in is ahead of the store until the
//! transition is committed; when the commit is lost, the state is thrown away and folded anew.

use std::sync::Arc;

use serde_json::value::RawValue;

use crate::command::Command;
use crate::definition::show_duration as shown;
use crate::effect::Effect;
use crate::event::{Event, KeyChange, KeyKind, Origin, RunStarted, WaitingFor};
use crate::graph::{Graph, NodeKind};
use crate::id::{InstanceId, Instant, RunId};
use crate::instance::{ScopeId, Status};
use crate::limits;
use crate::rejection::Rejection;
use crate::state::{Phase, State, Timer, Work};
use crate::task::{
    DeclaredUndo, FailureKind, Json, Purpose, TaskError, TaskOutcome, TaskReport, Touch,
};

/// What was decided.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transition {
    /// What happened, in order.
    pub events: Vec<Event>,
    /// What must be done once the events are durable.
    pub effects: Vec<Effect>,
    /// There is more to decide: send `Command::Tick` once this is durable.
    pub more: bool,
}

/// Decides the beginning of a run. The first event is `RunStarted`.
///
/// # Errors
/// When the params are not JSON.
pub fn start(
    id: RunId,
    graph: Arc<Graph>,
    started: RunStarted,
    now: Instant,
) -> Result<(State, Transition), Rejection> {
    let event = Event::RunStarted(Box::new(started.clone()));
    let mut state = State::new(id, graph, started, now)
        .map_err(|error| Rejection::NotJson(error.to_string()))?;
    let mut decider = Decider::new(&mut state, now);
    decider.transition.events.push(event);
    decider.ask_run_keys();
    decider.rescan();
    decider.advance();
    let transition = decider.transition;
    Ok((state, transition))
}

/// The beginning of a run that takes over the events of another one.
pub(crate) fn begin_fork(
    id: RunId,
    graph: Arc<Graph>,
    started: RunStarted,
    taken_over: Vec<Event>,
    forked: Event,
    now: Instant,
) -> Result<(State, Transition), Rejection> {
    let event = Event::RunStarted(Box::new(started.clone()));
    let mut state = State::new(id, graph, started, now)
        .map_err(|error| Rejection::NotJson(error.to_string()))?;
    for event in &taken_over {
        state.apply(event, now);
    }
    state.settle_fold();
    let mut decider = Decider::new(&mut state, now);
    decider.transition.events.push(event);
    decider.transition.events.extend(taken_over);
    decider.emit(forked);
    decider.take_up_again();
    decider.advance();
    let transition = decider.transition;
    Ok((state, transition))
}

/// Decides what a command changes.
///
/// # Errors
/// When the command is refused; then nothing has changed.
pub fn decide(state: &mut State, command: Command, now: Instant) -> Result<Transition, Rejection> {
    // Time never runs back behind what was decided.
    let now = now.max(state.last_at);
    if let Some(Origin { request: Some(request), .. }) = command.origin()
        && let Some(body) = state.requests.get(&request.id)
    {
        return Err(if *body == request.body {
            Rejection::Repeated
        } else {
            Rejection::RequestIdReused(request.id.clone())
        });
    }
    let mut decider = Decider::new(state, now);
    decider.command(command)?;
    decider.advance();
    Ok(decider.transition)
}

/// One decision in the making.
pub(crate) struct Decider<'a> {
    pub(crate) state: &'a mut State,
    pub(crate) now: Instant,
    pub(crate) transition: Transition,
    /// For how long an agent had the attempt that is reported.
    pub(crate) took: Option<u64>,
}

impl<'a> Decider<'a> {
    fn new(state: &'a mut State, now: Instant) -> Self {
        Self { state, now, transition: Transition::default(), took: None }
    }

    /// Makes an event true.
    pub(crate) fn emit(&mut self, event: Event) {
        self.state.apply(&event, self.now);
        self.transition.events.push(event);
        for n in std::mem::take(&mut self.state.touched) {
            let instance = &self.state.instances[n.index()];
            let scope_id = instance.scope;
            let first = self.state.scopes[scope_id.index()].first;
            let graph = Arc::clone(&self.state.graph);
            for &dependent in &graph.node(instance.node).dependents {
                let next = InstanceId(first + dependent);
                if self.state.instances[next.index()].waiting_on == 0 {
                    self.state.work.push_back(Work::Ready(next));
                }
            }
            self.state.work.push_back(Work::Scope(scope_id));
        }
    }

    pub(crate) fn effect(&mut self, effect: Effect) {
        self.transition.effects.push(effect);
    }

    fn command(&mut self, command: Command) -> Result<(), Rejection> {
        match command {
            Command::Adopt { epoch } => {
                if self.state.phase == Phase::Ended {
                    return Err(Rejection::Ended);
                }
                self.emit(Event::RunAdopted { epoch });
                self.rescan();
                Ok(())
            }
            Command::Report(report) => self.report(report),
            Command::Tick => {
                self.tick();
                Ok(())
            }
            Command::Signal { signal, payload, origin } => self.signal(signal, payload, origin),
            Command::Decide { path, approve, comment, amendment, origin } => {
                self.decision(&path, approve, comment, amendment, origin)
            }
            Command::Cancel { reason, origin } => self.cancel_run(reason, origin),
            Command::Pause { reason, origin } => self.pause(reason, origin),
            Command::Resume { origin } => self.resume(origin),
            Command::Retry { origin } => self.retry(origin),
            Command::PlanRollback { to, needs_approval, origin } => {
                self.plan_rollback(to, needs_approval, origin)
            }
            Command::ApproveRollback { number, approve, comment, origin } => {
                self.approve_rollback(number, approve, comment, origin)
            }
            Command::ExecuteRollback { number, origin } => self.execute_rollback(number, origin),
            Command::DecideUndo { path, decision, comment, origin } => {
                self.decide_undo(&path, decision, comment, origin)
            }
            Command::Reopen { params, origin } => self.reopen(params, origin),
            Command::RollBackForParent { parent } => self.roll_back_for_parent(parent),
            Command::ChildRolledBack { instance, child, complete } => {
                self.child_rolled_back(instance, child, complete)
            }
            Command::ChildEnded { instance, child, status, outputs, error } => {
                self.child_ended(instance, child, status, outputs, error)
            }
            Command::Granted { instance, which } => self.granted(instance, which),
            Command::Refused { instance, reason } => self.refused(instance, reason),
            Command::Displaced { instance, key } => self.displaced(instance, &key),
            Command::Notified { instance, sent, error } => self.notified(instance, sent, error),
        }
    }

    fn report(&mut self, report: TaskReport) -> Result<(), Rejection> {
        if report.key.purpose == Purpose::Undo {
            return self.undo_report(report);
        }
        let n = report.key.instance;
        let instance = self.state.instances.get(n.index()).ok_or(Rejection::TaskNotOut)?;
        let out = matches!(instance.status, Status::Queued | Status::Cancelling);
        // Dispatch cancels a task that it does not know under attempt 0.
        let unknown = report.attempt == 0 && report.outcome == TaskOutcome::Cancelled;
        let present = report.attempt == instance.attempt || unknown;
        if !out || !present || self.state.phase == Phase::Ended {
            return Err(Rejection::TaskNotOut);
        }
        let cancelling = instance.status == Status::Cancelling;
        self.took = report.took;
        let mut touched = report.touched;
        // What says that nothing is to be undone need not be kept.
        touched.retain(|touch| touch.undo != Some(DeclaredUndo::Nothing));
        match report.outcome {
            TaskOutcome::Started => {
                let started = instance.detail().is_some_and(|detail| detail.started);
                if !started {
                    let step = self.state.path(n);
                    self.emit(Event::TaskStarted { n, step, by_agent: report.agent });
                }
                self.effect(Effect::Proceed { key: report.key });
            }
            TaskOutcome::Succeeded { output, undo } => match checked(&output) {
                Ok(()) => self.succeed_task(n, output, report.agent, undo, touched),
                Err(error) => {
                    let done = Touch { agent: report.agent.clone(), undo: Some(undo) };
                    let touched = touched.into_iter().chain([done]).collect();
                    self.attempt_failed(n, error, report.agent, touched);
                }
            },
            TaskOutcome::Failed(error) if !cancelling => {
                self.attempt_failed(n, error, report.agent, touched);
            }
            TaskOutcome::Failed(_) | TaskOutcome::Cancelled => self.task_stopped(n, touched),
            TaskOutcome::LostAtMostOnce => {
                let message = "the task was begun, may not run twice, and was lost; look at what \
                               it has done before you retry it";
                let error = task_error(FailureKind::Permanent, "lost", message);
                self.fail_touched(n, error, report.agent, touched);
            }
        }
        Ok(())
    }

    fn tick(&mut self) {
        while let Some(&(at, timer)) = self.state.timers.first() {
            if at > self.now || self.transition.events.len() >= limits::EVENTS_PER_DECISION_MAX {
                break;
            }
            match timer {
                Timer::Run => self.run_deadline(),
                Timer::Deadline(n) => {
                    let deadline = shown(self.state.node(n).deadline.unwrap_or_default());
                    let message = format!("the step did not end within {deadline}, its deadline");
                    let error = task_error(FailureKind::Permanent, "deadline", &message);
                    self.cancel_instance(n, "deadline", Some(error));
                }
                Timer::Wait(n) => self.wait_over(n),
            }
            // Whatever was decided, a timer fires once.
            self.state.timers.remove(&(at, timer));
        }
    }

    fn wait_over(&mut self, n: InstanceId) {
        let waiting_for =
            self.state.instances[n.index()].detail().and_then(|d| d.waiting_for.clone());
        let timeout = match &self.state.node(n).kind {
            NodeKind::WaitFor { timeout, .. } | NodeKind::Approve { timeout, .. } => *timeout,
            NodeKind::Workflow(workflow) => workflow.timeout,
            _ => None,
        };
        let timed_out = |what: &str| {
            let within = shown(timeout.unwrap_or_default());
            let message = format!("{what} did not come within {within}");
            task_error(FailureKind::Permanent, "timeout", &message)
        };
        match waiting_for {
            Some(WaitingFor::Signal(name)) => {
                self.fail(n, timed_out(&format!("signal `{name}`")), None);
            }
            Some(WaitingFor::Decision(_)) => self.fail(n, timed_out("the decision"), None),
            Some(WaitingFor::Child(_)) => {
                let error = timed_out("the end of the sub-workflow");
                self.cancel_instance(n, "timeout", Some(error));
            }
            Some(WaitingFor::Time | WaitingFor::Notification { .. }) | None => {
                self.succeed(n, None);
            }
        }
    }

    fn signal(&mut self, signal: String, payload: Json, origin: Origin) -> Result<(), Rejection> {
        self.not_ended()?;
        check_json(&payload)?;
        let waiting = self.state.instances.iter().position(|instance| {
            let waiting_for = instance.detail().and_then(|detail| detail.waiting_for.as_ref());
            instance.status == Status::Waiting
                && matches!(waiting_for, Some(WaitingFor::Signal(name)) if *name == signal)
        });
        // One that is waited for takes no room.
        if waiting.is_none() && self.state.signals_buffered >= limits::SIGNALS_BUFFERED_MAX {
            return Err(Rejection::TooManySignals(self.state.signals_buffered));
        }
        self.emit(Event::SignalReceived { signal: signal.clone(), payload, origin });
        if let Some(index) = waiting {
            self.take_signal(InstanceId(u32::try_from(index).unwrap_or(u32::MAX)), &signal);
        }
        Ok(())
    }

    /// A step that waits for a signal takes the oldest that is there, if one is.
    pub(crate) fn take_signal(&mut self, n: InstanceId, signal: &str) {
        let payload = self.state.signals.get(signal).and_then(|queue| queue.front()).cloned();
        if let Some(payload) = payload {
            self.succeed(n, Some(payload));
        }
    }

    fn decision(
        &mut self,
        path: &str,
        approve: bool,
        comment: String,
        amendment: Option<Json>,
        origin: Origin,
    ) -> Result<(), Rejection> {
        self.not_ended()?;
        let found = (0..self.state.instances.len())
            .map(|index| InstanceId(u32::try_from(index).unwrap_or(u32::MAX)))
            .filter(|n| !self.state.instances[n.index()].status.is_settled())
            .find(|&n| &*self.state.path(n) == path);
        let Some(n) = found else {
            let known = self.state.steps().iter().any(|step| &*step.path == path);
            return Err(if known {
                Rejection::StepNotWaiting(path.to_owned())
            } else {
                Rejection::StepNotFound(path.to_owned())
            });
        };
        let instance = &self.state.instances[n.index()];
        let asks = instance
            .detail()
            .is_some_and(|detail| matches!(detail.waiting_for, Some(WaitingFor::Decision(_))));
        if instance.status != Status::Waiting || !asks {
            return Err(Rejection::StepNotWaiting(path.to_owned()));
        }
        let amendment = amendment.filter(|_| approve);
        let amended = match &amendment {
            Some(text) => Some(parse_json(text)?),
            None => None,
        };
        let actor = origin.actor.clone();
        let step = self.state.path(n);
        let (approved, said) = (approve, comment.clone());
        self.emit(Event::DecisionMade { n, step, approved, comment: said, amendment, origin });
        if approve {
            let mut output = serde_json::json!({"approved": true, "comment": comment, "by": actor});
            if let Some(amended) = amended {
                output["amendment"] = amended;
            }
            self.succeed(n, Some(output.to_string().into()));
        } else {
            let because = if comment.is_empty() { String::new() } else { format!(": {comment}") };
            let message = format!("rejected by {actor}{because}");
            self.fail(n, task_error(FailureKind::Permanent, "rejected", &message), None);
        }
        Ok(())
    }

    fn pause(&mut self, reason: String, origin: Origin) -> Result<(), Rejection> {
        self.not_ended()?;
        if self.state.paused {
            return Err(Rejection::State("the run is paused already".to_owned()));
        }
        if self.state.cancel.is_some() {
            return Err(Rejection::State("the run is being cancelled".to_owned()));
        }
        self.emit(Event::RunPaused { reason, origin });
        self.effect(Effect::Hold(true));
        Ok(())
    }

    fn resume(&mut self, origin: Origin) -> Result<(), Rejection> {
        self.not_ended()?;
        if !self.state.paused {
            return Err(Rejection::State("the run is not paused".to_owned()));
        }
        self.emit(Event::RunResumed { origin });
        self.effect(Effect::Hold(false));
        self.rescan();
        Ok(())
    }

    fn retry(&mut self, origin: Origin) -> Result<(), Rejection> {
        use crate::event::Ending;
        let Some(ended) = &self.state.ended else { return Err(Rejection::NotEnded) };
        match ended.status {
            Ending::Failure | Ending::Cancelled => {}
            Ending::Success => {
                let message = "the run succeeded; there is nothing to retry";
                return Err(Rejection::State(message.to_owned()));
            }
            Ending::RolledBack => {
                let message = "the run was rolled back; start a new one";
                return Err(Rejection::State(message.to_owned()));
            }
        }
        if let Some(planned) = &self.state.planned {
            return Err(Rejection::RollbackOpen(planned.number));
        }
        if self.state.rollback.as_ref().is_some_and(crate::rollback::Rollback::has_undone) {
            let message = "a part of the run was rolled back; start a new one";
            return Err(Rejection::State(message.to_owned()));
        }
        self.emit(Event::RunRetried { origin });
        self.take_up_again();
        Ok(())
    }

    /// What follows once an ended run is open again.
    pub(crate) fn take_up_again(&mut self) {
        self.ask_run_keys();
        // A block that is taken up again within holds its keys again.
        for index in 0..self.state.instances.len() {
            if self.state.instances[index].status == Status::Open {
                let n = InstanceId(u32::try_from(index).unwrap_or(u32::MAX));
                for acquire in self.state.acquires(Some(n)) {
                    self.effect(Effect::Acquire(Box::new(acquire)));
                }
            }
        }
        self.rescan();
    }

    fn granted(&mut self, instance: Option<InstanceId>, which: KeyKind) -> Result<(), Rejection> {
        self.not_ended()?;
        let keys = match instance {
            None => Some(&self.state.keys),
            Some(n) => {
                let instance = self.state.instances.get(n.index());
                let blocked = instance.filter(|instance| instance.status == Status::Blocked);
                blocked.and_then(|instance| instance.detail()).map(|detail| &detail.keys)
            }
        };
        let waits = keys
            .and_then(|keys| keys.iter().find(|key| key.which == which && !key.granted))
            .map(|held| Arc::clone(&held.key));
        let Some(key) = waits else { return Err(Rejection::TaskNotOut) };
        let (step, otherwise) = match instance {
            Some(n) => {
                let detail = self.state.instances[n.index()].detail();
                (self.state.path(n), detail.is_some_and(|detail| detail.otherwise))
            }
            None => (Arc::from(""), false),
        };
        let change = KeyChange::Granted;
        self.emit(Event::KeyChanged { n: instance, step, key, which, change, otherwise });
        match instance {
            Some(n) => {
                let held = self.state.instances[n.index()].detail();
                if held.is_some_and(|detail| detail.keys.iter().all(|key| key.granted)) {
                    self.enter(n, otherwise);
                }
            }
            None => self.rescan(),
        }
        Ok(())
    }

    fn refused(&mut self, instance: Option<InstanceId>, reason: String) -> Result<(), Rejection> {
        self.not_ended()?;
        let error = task_error(FailureKind::Permanent, "concurrency", &reason);
        match instance {
            Some(n)
                if self.state.instances.get(n.index()).map(|i| i.status)
                    == Some(Status::Blocked) =>
            {
                self.fail(n, error, None);
                Ok(())
            }
            None if self.state.phase == Phase::Blocked => {
                self.stop_run(reason, Origin::default(), Some(error));
                Ok(())
            }
            _ => Err(Rejection::TaskNotOut),
        }
    }

    fn displaced(&mut self, instance: Option<InstanceId>, key: &str) -> Result<(), Rejection> {
        self.not_ended()?;
        let reason = format!("another took the concurrency key `{key}`");
        match instance {
            Some(n)
                if self.state.instances.get(n.index()).is_some_and(|i| i.status.is_active()) =>
            {
                self.cancel_instance(
                    n,
                    &reason,
                    Some(task_error(FailureKind::Permanent, "displaced", &reason)),
                )
            }
            Some(_) => return Err(Rejection::TaskNotOut),
            None => self.stop_run(reason, Origin::default(), None),
        }
        Ok(())
    }

    fn notified(
        &mut self,
        n: InstanceId,
        sent: Option<Vec<String>>,
        error: Option<String>,
    ) -> Result<(), Rejection> {
        let status = self.state.instances.get(n.index()).map(|instance| instance.status);
        if status != Some(Status::Waiting) {
            return Err(Rejection::TaskNotOut);
        }
        match (sent, error) {
            (_, Some(error)) => {
                self.fail(n, task_error(FailureKind::Permanent, "notify", &error), None);
            }
            (Some(channels), None) => {
                let output = serde_json::json!({"sent": channels}).to_string();
                self.succeed(n, Some(output.into()));
            }
            (None, None) => self.skip(n, crate::event::SkipReason::NotConfigured),
        }
        Ok(())
    }

    pub(crate) fn not_ended(&self) -> Result<(), Rejection> {
        if self.state.phase == Phase::Ended { Err(Rejection::Ended) } else { Ok(()) }
    }

    /// Puts everything on the list of what is to be looked at.
    pub(crate) fn rescan(&mut self) {
        self.state.work.clear();
        for (index, scope) in self.state.scopes.iter().enumerate() {
            if scope.dead || scope.unsettled == 0 && scope.parent.is_some() {
                continue;
            }
            let count = self.state.graph.list(scope.list).nodes.len();
            let end = scope.first + u32::try_from(count).unwrap_or(u32::MAX);
            for n in (scope.first..end).map(InstanceId) {
                let instance = &self.state.instances[n.index()];
                if instance.status == Status::Pending && instance.waiting_on == 0 {
                    self.state.work.push_back(Work::Ready(n));
                }
                if matches!(instance.status, Status::Open | Status::Cancelling)
                    && instance.detail().is_some_and(|detail| detail.repeat.is_some())
                {
                    self.state.work.push_back(Work::Loop(n));
                }
            }
            let scope_id = ScopeId(u32::try_from(index).unwrap_or(u32::MAX));
            let above = scope.parent.map(|parent| self.state.instances[parent.index()].status);
            if above == Some(Status::Cancelling) && scope.active > 0 {
                self.state.work.push_back(Work::Cancel(scope_id));
            }
            self.state.work.push_back(Work::Scope(scope_id));
        }
        for index in 0..self.state.instances.len() {
            let instance = &self.state.instances[index];
            let open = matches!(instance.status, Status::Open | Status::Cancelling);
            if let (true, Some(detail)) = (open, instance.detail())
                && detail.repeat.is_none()
                && let Some(&scope) = detail.scopes.last()
                && self.state.scopes[scope.index()].unsettled == 0
            {
                self.state.work.push_back(Work::Scope(scope));
            }
        }
        self.state.work.push_back(Work::Run);
    }
}

/// An error of the orchestrator's own.
pub(crate) fn task_error(kind: FailureKind, code: &str, message: &str) -> TaskError {
    TaskError {
        kind,
        code: code.to_owned(),
        message: message.to_owned(),
        retry_after_ms: None,
        no_effect: false,
    }
}

fn parse_json(text: &str) -> Result<serde_json::Value, Rejection> {
    serde_json::from_str(text).map_err(|error| Rejection::NotJson(error.to_string()))
}

pub(crate) fn check_json(text: &str) -> Result<(), Rejection> {
    let parsed: Result<&RawValue, _> = serde_json::from_str(text);
    parsed.map(|_| ()).map_err(|error| Rejection::NotJson(error.to_string()))
}

/// Whether an output can be kept.
fn checked(output: &Json) -> Result<(), TaskError> {
    let permanent = |message: String| task_error(FailureKind::Permanent, "output", &message);
    if output.len() > limits::PAYLOAD_BYTES_MAX {
        return Err(permanent(format!(
            "the output has {} bytes, more than the {} allowed",
            output.len(),
            limits::PAYLOAD_BYTES_MAX
        )));
    }
    check_json(output).map_err(|error| permanent(format!("the output cannot be kept: {error}")))
}
