//! What is owed to the world: the tasks, and all effects that follow from a state.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use serde_json::json;

use crate::effect::Effect;
use crate::event::WaitingFor;
use crate::expression::{Lookup, Scope};
use crate::graph::NodeKind;
use crate::id::InstanceId;
use crate::instance::{ScopeId, Status};
use crate::limits;
use crate::state::{Phase, State, Timer};
use crate::task::{Delivery, Json, Purpose, TaskKey, TaskOrder};

/// How many steps are looked at in search of outputs.
const UPSTREAM_LOOKED_AT_MAX: usize = 256;

/// The input of a task without params.
static NO_PARAMS: LazyLock<Json> = LazyLock::new(|| "{}".into());

/// What literal params see.
struct NoNames;

impl Scope for NoNames {
    fn lookup(&self, _name: &str) -> Lookup {
        Lookup::Unknown { suggestion: None }
    }
}

impl State {
    /// All effects that are still owed. Each can be carried out again.
    #[must_use]
    pub fn pending_effects(&self) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.phase == Phase::Ended {
            return effects;
        }
        if self.paused {
            effects.push(Effect::Hold(true));
        }
        for acquire in self.acquires(None) {
            effects.push(Effect::Acquire(Box::new(acquire)));
        }
        for index in 0..self.instances.len() {
            let n = InstanceId(u32::try_from(index).unwrap_or(u32::MAX));
            let dead = self.scopes[self.instances[index].scope.index()].dead;
            if !dead && self.instances[index].status.is_active() {
                self.pending_of(n, &mut effects);
            }
        }
        if let Some(order) = self.current_undo() {
            effects.push(Effect::Dispatch(Box::new(order)));
        }
        effects
    }

    fn pending_of(&self, n: InstanceId, effects: &mut Vec<Effect>) {
        for acquire in self.acquires(Some(n)) {
            effects.push(Effect::Acquire(Box::new(acquire)));
        }
        let instance = &self.instances[n.index()];
        let cancelling = instance.status == Status::Cancelling;
        let is_action = matches!(self.node(n).kind, NodeKind::Action(_));
        if is_action && (cancelling || instance.status == Status::Queued) {
            let key = self.task_key(n, Purpose::Do);
            effects.push(Effect::Dispatch(Box::new(self.order(n))));
            if cancelling {
                let (reason, grace) = ("cancelled".to_owned(), limits::CANCEL_GRACE);
                effects.push(Effect::CancelTask { key, reason, grace });
            } else if self.is_stopped(n) {
                effects.push(Effect::Withdraw { key });
            }
            return;
        }
        let waiting_for = instance.detail().and_then(|detail| detail.waiting_for.clone());
        match waiting_for {
            Some(WaitingFor::Child(child)) => {
                let run = child.run;
                effects.push(Effect::StartChild { instance: n, path: self.path(n), child });
                if cancelling {
                    effects.push(Effect::CancelChild { run, reason: "cancelled".to_owned() });
                }
            }
            Some(WaitingFor::Notification { channels, message })
                if instance.status == Status::Waiting =>
            {
                effects.push(Effect::Notify { instance: n, channels, message });
            }
            _ => {}
        }
    }

    /// The path and the task of the undo that is owed, if one is.
    #[must_use]
    pub fn undo_owed(&self) -> Option<(Arc<str>, TaskKey)> {
        self.current_undo().map(|order| (order.path, order.key))
    }

    /// The order for a step's present attempt.
    pub(crate) fn order(&self, n: InstanceId) -> TaskOrder {
        let instance = &self.instances[n.index()];
        let NodeKind::Action(action) = &self.node(n).kind else {
            unreachable!("only actions are ordered");
        };
        let detail = instance.detail();
        let fallback = (instance.fallback as usize).checked_sub(1);
        let agent = match fallback.and_then(|at| action.fallback.get(at)) {
            Some(agent) => Some(Arc::clone(agent)),
            None => action.agent.clone(),
        };
        let input = detail.and_then(|detail| detail.input.clone()).unwrap_or_else(|| {
            let literal = action.params.as_ref().and_then(|params| params.evaluate(&NoNames).ok());
            literal.map_or_else(|| Arc::clone(&NO_PARAMS), |value| value.to_string().into())
        });
        let retry_at = detail.and_then(|detail| detail.retry_at);
        TaskOrder {
            key: self.task_key(n, Purpose::Do),
            path: self.path(n),
            attempt: instance.attempt,
            agent,
            preferred_instance: None,
            action: Arc::clone(&action.action),
            requires: Arc::clone(&action.requires),
            input,
            upstream: self.upstream(n),
            idempotency_key: self.idempotency_key(n),
            timeout: Some(action.timeout),
            deadline: self.deadline_of(n),
            not_before: retry_at,
            queued_at: retry_at.unwrap_or(instance.ready_at),
            queue_timeout: action.queue_timeout,
            priority: action.priority.unwrap_or(self.started.priority),
            fairness_key: Arc::clone(&self.graph.name),
            delivery: action.delivery,
            begun: detail.is_some_and(|detail| detail.started),
            begun_by: detail.filter(|detail| detail.started).and_then(|it| it.by.clone()),
            epoch: self.epoch,
        }
    }

    /// The order for the undo that is owed, if one is.
    pub(crate) fn current_undo(&self) -> Option<TaskOrder> {
        let rollback = self.rollback.as_ref()?;
        let (undo, attempt, retry_at, queued_at) = rollback.current.as_ref()?;
        let n = *rollback.steps.get(rollback.done)?;
        Some(TaskOrder {
            key: TaskKey { run: self.id, instance: n, purpose: Purpose::Undo },
            path: self.path(n),
            attempt: *attempt,
            agent: undo.agent.clone(),
            preferred_instance: undo.instance.clone(),
            action: Arc::clone(&undo.action),
            requires: Arc::new(BTreeMap::new()),
            input: Arc::clone(&undo.input),
            upstream: Vec::new(),
            idempotency_key: self.idempotency_key(n),
            timeout: Some(limits::UNDO_TIMEOUT),
            deadline: None,
            not_before: *retry_at,
            queued_at: *queued_at,
            queue_timeout: None,
            priority: limits::PRIORITY_MAX,
            fairness_key: Arc::clone(&self.graph.name),
            delivery: Delivery::AtLeastOnce,
            begun: false,
            begun_by: None,
            epoch: self.epoch,
        })
    }

    fn deadline_of(&self, n: InstanceId) -> Option<crate::id::Instant> {
        let own = self
            .node(n)
            .deadline
            .map(|deadline| self.instances[n.index()].ready_at.after(deadline));
        // Steps of `on_failure` and those of a retried run are not bound by it any more.
        let run = self.graph.deadline.map(|deadline| self.started_at.after(deadline));
        let run = run.filter(|at| self.timers.contains(&(*at, Timer::Run)));
        [own, run].into_iter().flatten().min()
    }

    /// The outputs of the steps before one, the nearest first. Steps of `on_failure` see the
    /// failure before anything else.
    fn upstream(&self, n: InstanceId) -> Vec<(Arc<str>, Json)> {
        let mut found: Vec<(Arc<str>, Json)> = Vec::new();
        let in_handler = self.handler.is_some_and(|handler| self.root_scope(n) == handler);
        if in_handler && let Some(failure) = &self.failure {
            let told = json!({
                "step": &*failure.step,
                "error": failure.error.message,
                "code": failure.error.code,
                "workflow": &*self.graph.name,
                "run_id": self.id.to_string(),
            });
            found.push((Arc::from("failure"), told.to_string().into()));
        }
        // The nearest first: each is looked at in the order in which it was come upon.
        let mut seen = vec![n];
        let mut level = self.directly_before(n);
        let mut next = 0;
        while next < level.len()
            && found.len() < limits::UPSTREAM_MAX
            && seen.len() < UPSTREAM_LOOKED_AT_MAX
        {
            let before = level[next];
            next += 1;
            if seen.contains(&before) {
                continue;
            }
            seen.push(before);
            if let Some(output) = self.output(before) {
                found.push((Arc::clone(&self.node(before).id), output));
            }
            level.extend(self.directly_before(before));
        }
        if in_handler {
            let done =
                self.completions.iter().rev().filter(|&&done| self.root_scope(done) == ScopeId(0));
            for &done in done.take(limits::UPSTREAM_MAX.saturating_sub(found.len())) {
                if let Some(output) = self.output(done) {
                    found.push((Arc::clone(&self.node(done).id), output));
                }
            }
        }
        found
    }
}
