//! What is owed to the world: the tasks, and all effects that follow from a state.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use serde_json::json;

use crate::effect::{Acquire, Effect};
use crate::event::WaitingFor;
use crate::expression::{Lookup, Scope};
use crate::graph::NodeKind;
use crate::id::InstanceId;
use crate::instance::{ScopeId, Status};
use crate::limits;
use crate::rollback::UnitState;
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
        self.pending_undos(&mut effects);
        effects
    }

    /// All keys that the run and its steps have or wait for.
    #[must_use]
    pub fn wanted_keys(&self) -> Vec<Acquire> {
        if self.phase == Phase::Ended {
            return Vec::new();
        }
        let mut keys = self.acquires(None);
        for (n, instance) in (0..).map(InstanceId).zip(&self.instances) {
            if instance.status.is_active() && !self.scopes[instance.scope.index()].dead {
                keys.extend(self.acquires(Some(n)));
            }
        }
        keys
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

    /// The paths and the tasks of the undos that are owed.
    #[must_use]
    pub fn undos_owed(&self) -> Vec<(Arc<str>, TaskKey)> {
        let units = self.rollback.iter().flat_map(|rollback| &rollback.units);
        let orders = units.filter_map(|unit| self.undo_task(unit.n));
        orders.map(|order| (order.path, order.key)).collect()
    }

    fn pending_undos(&self, effects: &mut Vec<Effect>) {
        let Some(rollback) = self.rollback.as_ref() else { return };
        for unit in &rollback.units {
            match &unit.state {
                UnitState::Out { .. } => {
                    let order = self.undo_task(unit.n).map(Box::new);
                    effects.extend(order.map(Effect::Dispatch));
                }
                UnitState::Child(run) => {
                    effects.push(Effect::RollBackChild { instance: unit.n, run: *run });
                }
                _ => {}
            }
        }
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
            begun_by: detail.filter(|detail| detail.started).and_then(|_| instance.by.clone()),
            epoch: self.epoch,
            undo_of: false,
        }
    }

    /// The order for the undo of a step, where it is owed.
    pub(crate) fn undo_task(&self, n: InstanceId) -> Option<TaskOrder> {
        let unit = self.rollback.as_ref()?.unit(n)?;
        let UnitState::Out { order: undo, not_before, queued_at } = &unit.state else {
            return None;
        };
        Some(TaskOrder {
            key: TaskKey { run: self.id, instance: n, purpose: Purpose::Undo },
            path: self.path(n),
            attempt: unit.attempts,
            agent: undo.agent.clone(),
            preferred_instance: undo.instance.clone(),
            action: Arc::clone(&undo.action),
            requires: Arc::new(BTreeMap::new()),
            input: Arc::clone(&undo.input),
            upstream: Vec::new(),
            idempotency_key: self.idempotency_key(n),
            timeout: Some(limits::UNDO_TIMEOUT),
            deadline: None,
            not_before: *not_before,
            queued_at: not_before.unwrap_or(*queued_at),
            queue_timeout: Some(limits::UNDO_QUEUE_TIMEOUT),
            priority: limits::PRIORITY_MAX,
            fairness_key: Arc::clone(&self.graph.name),
            delivery: Delivery::AtLeastOnce,
            begun: false,
            begun_by: None,
            epoch: self.epoch,
            undo_of: undo.undo_of,
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
