//! What a failure or a cancel stops, and when a failed attempt is followed by another.

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::decide::{Decider, task_error};
use crate::definition::show_duration as shown;
use crate::effect::Effect;
use crate::event::{Ending, Event, Origin, SkipReason, Stops, WaitingFor};
use crate::graph::{Backoff, FailureScope, NodeKind, Retry};
use crate::id::{InstanceId, Instant, RunId};
use crate::instance::{ScopeId, Status};
use crate::limits;
use crate::rejection::Rejection;
use crate::state::{Phase, State, Work};
use crate::task::{AgentRef, FailureKind, Json, Purpose, TaskError, Touch};

/// Codes after which no policy allows another attempt.
const FINAL_CODES: [&str; 3] = ["queue_timeout", "rejected", "needs_person"];

impl Decider<'_> {
    /// An attempt failed: another one, another agent, or the end.
    pub(crate) fn attempt_failed(
        &mut self,
        n: InstanceId,
        error: TaskError,
        by: Option<AgentRef>,
        touched: Vec<Touch>,
    ) {
        if self.state.instances[n.index()].status == Status::Cancelling {
            return self.task_stopped(n, touched);
        }
        let graph = Arc::clone(&self.state.graph);
        let instance = &self.state.instances[n.index()];
        let NodeKind::Action(action) = &graph.node(instance.node).kind else {
            return self.fail_touched(n, error, by, touched);
        };
        let (attempt, fallback) = (instance.attempt, instance.fallback);
        let tried = attempt - instance.attempts_before;
        let stopped = self.state.is_stopped(n);
        let may_retry =
            fallback == 0 && tried < action.retry.max_attempts && allows(&action.retry, &error);
        let next = if stopped {
            None
        } else if may_retry {
            let delay = match error.retry_after_ms {
                Some(ms) => Duration::from_millis(ms).min(limits::RETRY_DELAY_MAX),
                None => delay(&action.retry, tried, &self.state.idempotency_key(n)),
            };
            Some((self.now.after(delay), fallback))
        } else {
            ((fallback as usize) < action.fallback.len()).then_some((self.now, fallback + 1))
        };
        let Some((retry_at, fallback)) = next else {
            return self.fail_touched(n, error, by, touched);
        };
        let step = self.state.path(n);
        let took = self.took.take();
        self.emit(Event::AttemptFailed {
            n,
            step,
            attempt,
            error,
            by,
            retry_at,
            fallback,
            touched,
            took,
        });
        let order = self.state.order(n);
        self.effect(Effect::Dispatch(Box::new(order)));
    }

    /// A task was taken back before anybody had it, or it stopped when asked to.
    pub(crate) fn task_stopped(&mut self, n: InstanceId, touched: Vec<Touch>) {
        let instance = &self.state.instances[n.index()];
        let detail = instance.detail();
        if instance.status == Status::Cancelling {
            return match detail.and_then(|detail| detail.cancel_error.clone()) {
                Some(error) => self.fail_touched(n, error, None, touched),
                None => self.cancelled_touched(n, touched),
            };
        }
        match (self.state.is_stopped(n), detail.and_then(|detail| detail.error.clone())) {
            (true, Some(error)) => self.fail_touched(n, error, None, touched),
            (true, None) => self.skip_touched(n, SkipReason::NotStarted, touched),
            (false, _) => {
                let message = "the agent stopped the task without being asked to";
                let error = task_error(FailureKind::Retryable, "cancelled", message);
                self.attempt_failed(n, error, None, touched);
            }
        }
    }

    /// A step fails for good.
    pub(crate) fn fail(&mut self, n: InstanceId, error: TaskError, by: Option<AgentRef>) {
        self.fail_touched(n, error, by, Vec::new());
    }

    /// A step fails for good, and some agents may have changed something for it.
    pub(crate) fn fail_touched(
        &mut self,
        n: InstanceId,
        error: TaskError,
        by: Option<AgentRef>,
        touched: Vec<Touch>,
    ) {
        let stops = self.state.stops(n);
        let stopped_before = match stops {
            Stops::Nothing => true,
            Stops::Block(top) | Stops::Branch(top) => self.state.is_stopped_below(top),
            Stops::Run => self.state.is_stopped(self.state.root_instance(n)),
        };
        let step = self.state.path(n);
        let took = self.took.take();
        self.emit(Event::StepFailed { n, step, error, stops, by, touched, took });
        self.release_keys(n);
        if let NodeKind::Loop { .. } | NodeKind::Block { .. } | NodeKind::Choice { .. } =
            self.state.node(n).kind
        {
            // A loop may fail by its own condition; nothing of it is left running then.
            debug_assert!(self.state.instances[n.index()].status.is_settled());
        }
        if !stopped_before {
            let top = match stops {
                Stops::Block(top) | Stops::Branch(top) => Some(top),
                Stops::Run | Stops::Nothing => None,
            };
            self.stop(n, top);
        }
    }

    /// Nothing new begins below `top` (or in the root scope of `n`); what runs may finish, or is
    /// cancelled under `fail_fast`.
    fn stop(&mut self, n: InstanceId, top: Option<InstanceId>) {
        let (steps, scopes) = match top {
            Some(top) => self.state.open_in(self.state.scopes_of(top)),
            None => self.state.open_in(&[self.state.root_scope(n)]),
        };
        let fail_fast = self.state.graph.fail_fast;
        for inner in steps {
            match self.state.instances[inner.index()].status {
                Status::Blocked => self.skip(inner, SkipReason::NotStarted),
                // What is below a step that stops, stops with it.
                _ if fail_fast && self.state.is_cancelling_above(inner) => {}
                _ if fail_fast => self.cancel_instance(inner, "fail_fast", None),
                Status::Queued => {
                    let key = self.state.task_key(inner, Purpose::Do);
                    self.effect(Effect::Withdraw { key });
                }
                Status::Open => self.state.work.push_back(Work::Loop(inner)),
                _ => {}
            }
        }
        self.state.work.extend(scopes.into_iter().map(Work::Scope));
    }

    /// Asks a step to stop; with an error it then counts as failed.
    pub(crate) fn cancel_instance(
        &mut self,
        n: InstanceId,
        reason: &str,
        error: Option<TaskError>,
    ) {
        let instance = &self.state.instances[n.index()];
        let waiting_for = instance.detail().and_then(|detail| detail.waiting_for.clone());
        let step = self.state.path(n);
        let requested =
            |error| Event::StepCancelRequested { n, step, reason: reason.to_owned(), error };
        match instance.status {
            Status::Queued => {
                self.emit(requested(error));
                self.effect(Effect::CancelTask {
                    key: self.state.task_key(n, Purpose::Do),
                    reason: reason.to_owned(),
                    grace: limits::CANCEL_GRACE,
                });
            }
            Status::Waiting => match waiting_for {
                Some(WaitingFor::Child(child)) => {
                    self.emit(requested(error));
                    self.effect(Effect::CancelChild { run: child.run, reason: reason.to_owned() });
                }
                _ => self.settle_stopped(n, error),
            },
            Status::Blocked => match error {
                Some(error) => self.fail(n, error, None),
                None => self.skip(n, SkipReason::NotStarted),
            },
            Status::Open => {
                let scopes = instance.detail().map_or_else(Vec::new, |d| d.scopes.clone());
                self.emit(requested(error));
                self.state.work.push_back(Work::Loop(n));
                for scope in scopes {
                    // There may be more of them than one transition may hold.
                    if self.transition.events.len() < limits::EVENTS_PER_DECISION_MAX {
                        self.cancel_scope(scope, reason);
                    } else {
                        self.state.work.push_back(Work::Cancel(scope));
                    }
                }
            }
            _ => {}
        }
    }

    /// Stops the steps below one that is to stop.
    pub(crate) fn cancel_inner(&mut self, scope: ScopeId) {
        let asked = self.state.cancel.as_ref().map(|(reason, _)| reason.clone());
        let reason = asked.unwrap_or_else(|| {
            let failed = self.state.graph.fail_fast && self.state.failure.is_some();
            if failed { "fail_fast" } else { "the step around it stops" }.to_owned()
        });
        self.cancel_scope(scope, &reason);
    }

    fn cancel_scope(&mut self, scope_id: ScopeId, reason: &str) {
        let scope = &self.state.scopes[scope_id.index()];
        let count = self.state.graph.list(scope.list).nodes.len();
        let end = scope.first + u32::try_from(count).unwrap_or(u32::MAX);
        for n in (scope.first..end).map(InstanceId) {
            if self.state.instances[n.index()].status.is_active() {
                self.cancel_instance(n, reason, None);
            }
        }
        self.state.work.push_back(Work::Scope(scope_id));
    }

    fn settle_stopped(&mut self, n: InstanceId, error: Option<TaskError>) {
        match error {
            Some(error) => self.fail(n, error, None),
            None => self.cancelled(n),
        }
    }

    pub(crate) fn cancelled(&mut self, n: InstanceId) {
        self.cancelled_touched(n, Vec::new());
    }

    fn cancelled_touched(&mut self, n: InstanceId, touched: Vec<Touch>) {
        let step = self.state.path(n);
        self.emit(Event::StepCancelled { n, step, touched });
        self.release_keys(n);
    }

    pub(crate) fn cancel_run(&mut self, reason: String, origin: Origin) -> Result<(), Rejection> {
        self.not_ended()?;
        if self.state.phase == Phase::RollingBack {
            let message = "the run is being rolled back; that cannot be cancelled";
            return Err(Rejection::State(message.to_owned()));
        }
        let reason = if reason.is_empty() { "cancelled".to_owned() } else { reason };
        self.stop_run(reason, origin, None);
        Ok(())
    }

    /// Stops the whole run; with an error it then counts as failed.
    pub(crate) fn stop_run(&mut self, reason: String, origin: Origin, error: Option<TaskError>) {
        self.request_stop(reason.clone(), origin, error);
        self.cancel_scope(ScopeId(0), &reason);
        if let Some(handler) = self.state.handler {
            self.cancel_scope(handler, &reason);
        }
    }

    /// A run that is to stop is not paused any longer: what undoes it must be given out.
    pub(crate) fn request_stop(
        &mut self,
        reason: String,
        origin: Origin,
        error: Option<TaskError>,
    ) {
        let paused = self.state.paused;
        self.emit(Event::RunCancelRequested { reason, origin, error });
        if paused {
            self.effect(Effect::Hold(false));
        }
    }

    pub(crate) fn run_deadline(&mut self) {
        if !matches!(self.state.phase, Phase::Running | Phase::Blocked) {
            return;
        }
        let deadline = shown(self.state.graph.deadline.unwrap_or_default());
        let message = format!("the run did not end within {deadline}, its deadline");
        let error = task_error(FailureKind::Permanent, "deadline", &message);
        self.stop_run(message, Origin::default(), Some(error));
    }

    pub(crate) fn child_ended(
        &mut self,
        n: InstanceId,
        child: RunId,
        status: Ending,
        outputs: Option<Json>,
        error: Option<String>,
    ) -> Result<(), Rejection> {
        let instance = self.state.instances.get(n.index()).ok_or(Rejection::TaskNotOut)?;
        let detail = instance.detail();
        let waits = detail.is_some_and(
            |d| matches!(&d.waiting_for, Some(WaitingFor::Child(awaited)) if awaited.run == child),
        );
        if !waits || !matches!(instance.status, Status::Waiting | Status::Cancelling) {
            return Err(Rejection::TaskNotOut);
        }
        let cancel_error = detail.and_then(|detail| detail.cancel_error.clone());
        match (status, instance.status) {
            (Ending::Success, _) => {
                self.succeed(n, Some(outputs.unwrap_or_else(|| "{}".into())));
            }
            (_, Status::Cancelling) => self.settle_stopped(n, cancel_error),
            _ => {
                let message = error.unwrap_or_else(|| "the sub-workflow failed".to_owned());
                self.fail(n, task_error(FailureKind::Permanent, "sub_workflow", &message), None);
            }
        }
        Ok(())
    }
}

impl State {
    /// What the failure of a step stops.
    fn stops(&self, n: InstanceId) -> Stops {
        if self.node(n).continue_on_error {
            return Stops::Nothing;
        }
        let mut above = self.parent(n);
        while let Some(parent) = above {
            if self.node(parent).continue_on_error {
                return Stops::Block(parent);
            }
            above = self.parent(parent);
        }
        let in_handler = self.handler == Some(self.root_scope(n));
        if self.graph.scope == FailureScope::Branch && !in_handler {
            return Stops::Branch(self.root_instance(n));
        }
        Stops::Run
    }

    fn is_cancelling_above(&self, n: InstanceId) -> bool {
        let above = self.parent(n).map(|parent| self.instances[parent.index()].status);
        above == Some(Status::Cancelling)
    }

    /// The scopes of a step's inner steps.
    fn scopes_of(&self, n: InstanceId) -> &[ScopeId] {
        self.instances[n.index()].detail().map_or(&[], |detail| &detail.scopes)
    }

    /// The steps that are open in these scopes and below them, and the scopes that have not
    /// settled, each in the order in which they came to be. What has settled is not looked into.
    fn open_in(&self, scopes: &[ScopeId]) -> (Vec<InstanceId>, Vec<ScopeId>) {
        let (mut steps, mut open, mut todo) = (Vec::new(), Vec::new(), scopes.to_vec());
        while let Some(id) = todo.pop() {
            let scope = &self.scopes[id.index()];
            if scope.dead || scope.unsettled == 0 {
                continue;
            }
            open.push(id);
            if scope.active == 0 {
                continue;
            }
            let count = self.graph.list(scope.list).nodes.len();
            let end = scope.first + u32::try_from(count).unwrap_or(u32::MAX);
            for n in (scope.first..end).map(InstanceId) {
                if self.instances[n.index()].status.is_active() {
                    steps.push(n);
                    todo.extend(self.scopes_of(n));
                }
            }
        }
        steps.sort_unstable();
        open.sort_unstable();
        (steps, open)
    }

    /// One per step instance, equal for all attempts and for the undo; another one once it
    /// was undone and is done anew.
    pub(crate) fn idempotency_key(&self, n: InstanceId) -> Arc<str> {
        let mut id = [0; uuid::fmt::Hyphenated::LENGTH];
        let (id, path) = (self.id.0.hyphenated().encode_lower(&mut id), self.path(n));
        let generation = self.instances[n.index()].detail().map_or(0, |detail| detail.generation);
        if generation > 0 {
            return format!("{id}/{path}~{generation}").into();
        }
        [&*id, "/", &*path].concat().into()
    }
}

fn allows(retry: &Retry, error: &TaskError) -> bool {
    let named = |codes: &[String]| codes.contains(&error.code);
    error.kind == FailureKind::Retryable
        && !FINAL_CODES.contains(&error.code.as_str())
        && (retry.retry_on.is_empty() || named(&retry.retry_on))
        && !named(&retry.no_retry_on)
}

/// The delay behind attempt `attempt`. The jitter is drawn from the key, so that it is the same
/// whenever it is computed.
fn delay(retry: &Retry, attempt: u32, key: &str) -> Duration {
    let factor = match retry.backoff {
        Backoff::Constant => 1.0,
        Backoff::Linear => f64::from(attempt),
        Backoff::Exponential => 2_f64.powi(i32::try_from(attempt - 1).unwrap_or(i32::MAX)),
    };
    let longest = retry.max_delay.unwrap_or(limits::RETRY_DELAY_MAX).min(limits::RETRY_DELAY_MAX);
    let seconds = (retry.delay.as_secs_f64() * factor).min(longest.as_secs_f64());
    let digest = Sha256::digest(format!("{key}#{attempt}"));
    let drawn = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    let swing = f64::from(drawn) / f64::from(u32::MAX) * 2.0 - 1.0;
    let seconds = seconds * (1.0 + retry.jitter * swing);
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(longest)
}

/// When the next attempt of an undo may be made.
pub(crate) fn undo_retry_at(now: Instant, attempt: u32) -> Instant {
    let doubled = limits::UNDO_DELAY.saturating_mul(2_u32.saturating_pow(attempt - 1));
    now.after(doubled.min(limits::UNDO_DELAY_MAX))
}
