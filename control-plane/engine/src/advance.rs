//! What follows from what happened: steps begin, blocks and loops come to their end, the run ends.

use std::sync::Arc;

use serde_json::Value;

use crate::decide::{Decider, task_error};
use crate::effect::{Acquire, Effect};
use crate::event::{Child, Ending, Event, KeyChange, KeyKind, Origin, SkipReason, WaitingFor};
use crate::expression::{EvaluateError, Expression, Template};
use crate::graph::{Graph, NodeKind, OnConflict, Repeat, SubWorkflow};
use crate::id::{InstanceId, Instant, RunId};
use crate::instance::{HeldKey, ScopeId, Status};
use crate::limits;
use crate::lookup::Names;
use crate::state::{Phase, State, Work};
use crate::task::{AgentRef, DeclaredUndo, FailureKind, Json, TaskError, Touch};

impl Decider<'_> {
    /// Decides everything that follows, or as much as one transition may hold.
    pub(crate) fn advance(&mut self) {
        while let Some(work) = self.state.work.pop_front() {
            if self.transition.events.len() >= limits::EVENTS_PER_DECISION_MAX {
                self.state.work.push_front(work);
                break;
            }
            match work {
                Work::Ready(n) => self.begin(n),
                Work::Scope(scope) => self.check_scope(scope),
                Work::Cancel(scope) => self.cancel_inner(scope),
                Work::Loop(n) => self.pump_loop(n),
                Work::Run => self.check_run(),
            }
        }
        let due = self.state.next_wakeup().is_some_and(|at| at <= self.now);
        self.transition.more = !self.state.work.is_empty() || due;
    }

    /// Begins a step whose dependencies have settled, unless something holds it.
    fn begin(&mut self, n: InstanceId) {
        let state = &*self.state;
        let instance = &state.instances[n.index()];
        if instance.status != Status::Pending || instance.waiting_on > 0 {
            return;
        }
        let scope_id = instance.scope;
        if state.scopes[scope_id.index()].dead {
            return;
        }
        if state.is_stopped(n) {
            self.state.work.push_back(Work::Scope(scope_id));
            return;
        }
        if state.is_held() {
            return;
        }
        if state.follows_failure(n) {
            self.skip(n, SkipReason::NotStarted);
            return;
        }
        let graph = Arc::clone(&state.graph);
        let node = graph.node(instance.node);
        let mut otherwise = false;
        if let Some(condition) = &node.condition {
            let chosen = match self.evaluate_bool(n, condition) {
                Ok(value) => value,
                Err(error) => return self.fail_expression(n, &error),
            };
            let runs = match &node.kind {
                NodeKind::Choice { then, otherwise: other } => {
                    if chosen {
                        then.is_some()
                    } else {
                        other.is_some()
                    }
                }
                _ => chosen,
            };
            if !runs {
                return self.skip(n, SkipReason::Condition);
            }
            otherwise = !chosen;
        }
        if node.concurrency.is_some() || node.rate_limit.is_some() {
            self.ask_keys(n, otherwise);
        } else {
            self.enter(n, otherwise);
        }
    }

    /// Does what a step is there to do; nothing holds it any more.
    pub(crate) fn enter(&mut self, n: InstanceId, otherwise: bool) {
        let graph = Arc::clone(&self.state.graph);
        let node = graph.node(self.state.instances[n.index()].node);
        let entered = match &node.kind {
            NodeKind::Action(action) => self.enter_action(n, action),
            NodeKind::Workflow(workflow) => self.enter_workflow(n, workflow),
            NodeKind::Block { .. } | NodeKind::Choice { .. } => {
                let step = self.state.path(n);
                self.emit(Event::BlockOpened { n, step, otherwise, items: None });
                self.begin_last_scope(n);
                Ok(())
            }
            NodeKind::Loop { repeat, .. } => self.enter_loop(n, repeat),
            NodeKind::Wait { until } => self.enter_wait(n, until),
            NodeKind::WaitFor { signal, timeout } => {
                self.text(n, signal, "the signal's name").map(|signal| {
                    let until = timeout.map(|timeout| self.now.after(timeout));
                    self.wait(n, WaitingFor::Signal(signal.clone()), until);
                    self.take_signal(n, &signal);
                })
            }
            NodeKind::Approve { message, timeout } => {
                self.text(n, message, "the message").map(|message| {
                    let until = timeout.map(|timeout| self.now.after(timeout));
                    self.wait(n, WaitingFor::Decision(message), until);
                })
            }
            NodeKind::Notify { channels, message } => {
                self.enter_notify(n, channels, message.as_ref())
            }
        };
        if let Err(error) = entered {
            self.fail(n, error, None);
        }
    }

    fn enter_action(
        &mut self,
        n: InstanceId,
        action: &crate::graph::Action,
    ) -> Result<(), TaskError> {
        let input = match &action.params {
            Some(params) if !params.is_literal() => {
                Some(self.template(n, params)?.to_string().into())
            }
            _ => None,
        };
        if let Some(input) = &input {
            size_checked(input, "the params")?;
        }
        let step = self.state.path(n);
        self.emit(Event::StepQueued { n, step, agent: action.agent.clone(), input });
        let order = self.state.order(n);
        self.effect(Effect::Dispatch(Box::new(order)));
        Ok(())
    }

    fn enter_workflow(&mut self, n: InstanceId, workflow: &SubWorkflow) -> Result<(), TaskError> {
        let depth = self.state.started.parent.map_or(0, |parent| parent.depth);
        if depth >= limits::SUB_WORKFLOW_DEPTH_MAX {
            let message = format!(
                "sub-workflows may be {} deep; `{}` would be deeper",
                limits::SUB_WORKFLOW_DEPTH_MAX,
                workflow.name
            );
            return Err(task_error(FailureKind::Permanent, "depth", &message));
        }
        let params: Json = match &workflow.params {
            Some(params) => self.template(n, params)?.to_string().into(),
            None => "{}".into(),
        };
        size_checked(&params, "the params")?;
        let path = self.state.path(n);
        // A retried run starts its child anew.
        let origin = format!("{}/{path}#{}", self.state.id, self.state.version);
        let child = Box::new(Child {
            run: RunId::derived(self.state.id, &origin),
            workflow: workflow.name.to_string(),
            version: workflow.version.as_ref().map(ToString::to_string),
            params,
        });
        let until = workflow.timeout.map(|timeout| self.now.after(timeout));
        self.wait(n, WaitingFor::Child(child.clone()), until);
        self.effect(Effect::StartChild { instance: n, path, child });
        Ok(())
    }

    fn enter_loop(&mut self, n: InstanceId, repeat: &Repeat) -> Result<(), TaskError> {
        let items = match repeat {
            Repeat::While { .. } => None,
            Repeat::ForEach { items, .. } => {
                let value = self.template(n, items)?;
                let Value::Array(list) = &value else {
                    let message = format!("`foreach` needs a list, this is {}", kind_of(&value));
                    return Err(task_error(FailureKind::Permanent, "expression", &message));
                };
                if list.len() > limits::FOREACH_ITEMS_MAX {
                    let message = format!(
                        "`foreach` may have {} items, this list has {}",
                        limits::FOREACH_ITEMS_MAX,
                        list.len()
                    );
                    return Err(task_error(FailureKind::Permanent, "limit", &message));
                }
                Some(Json::from(value.to_string()))
            }
        };
        let step = self.state.path(n);
        self.emit(Event::BlockOpened { n, step, otherwise: false, items });
        self.state.work.push_back(Work::Loop(n));
        Ok(())
    }

    fn enter_wait(&mut self, n: InstanceId, until: &Template) -> Result<(), TaskError> {
        let text = self.text(n, until, "the time")?;
        let until = if let Ok(duration) = crate::definition::parse_duration(&text) {
            self.now.after(duration)
        } else {
            let time = chrono::DateTime::parse_from_rfc3339(&text).map_err(|_| {
                let message = format!(
                    "`wait` needs a duration like `30s` or a time like `2030-01-31T12:00:00Z`, \
                     found `{text}`"
                );
                task_error(FailureKind::Permanent, "expression", &message)
            })?;
            Instant(time.timestamp_micros())
        };
        self.wait(n, WaitingFor::Time, Some(until));
        Ok(())
    }

    fn enter_notify(
        &mut self,
        n: InstanceId,
        channels: &[Arc<str>],
        message: Option<&Template>,
    ) -> Result<(), TaskError> {
        let message = match message {
            Some(message) => self.text(n, message, "the message")?,
            None => self.state.announcement(),
        };
        let channels: Vec<String> = channels.iter().map(ToString::to_string).collect();
        let waiting_for =
            WaitingFor::Notification { channels: channels.clone(), message: message.clone() };
        self.wait(n, waiting_for, None);
        self.effect(Effect::Notify { instance: n, channels, message });
        Ok(())
    }

    fn wait(&mut self, n: InstanceId, waiting_for: WaitingFor, until: Option<Instant>) {
        let step = self.state.path(n);
        self.emit(Event::StepWaiting { n, step, waiting_for, until });
    }

    /// Asks for the keys that a step needs; it begins once all are granted.
    fn ask_keys(&mut self, n: InstanceId, otherwise: bool) {
        let graph = Arc::clone(&self.state.graph);
        let node = graph.node(self.state.instances[n.index()].node);
        let templates = [
            node.concurrency.as_ref().map(|limit| (KeyKind::Concurrency, &limit.key)),
            node.rate_limit.as_ref().map(|limit| (KeyKind::Rate, &limit.key)),
        ];
        let mut keys = Vec::new();
        for (which, template) in templates.into_iter().flatten() {
            match self.text(n, template, "the key") {
                Ok(key) => keys.push((which, Arc::<str>::from(key))),
                Err(error) => return self.fail(n, error, None),
            }
        }
        let step = self.state.path(n);
        for (which, key) in keys {
            self.emit(Event::KeyChanged {
                n: Some(n),
                step: Arc::clone(&step),
                key,
                which,
                change: KeyChange::Wanted,
                otherwise,
            });
        }
        for acquire in self.state.acquires(Some(n)) {
            self.effect(Effect::Acquire(Box::new(acquire)));
        }
    }

    /// Asks for the keys that the run needs; its steps begin once all are granted.
    pub(crate) fn ask_run_keys(&mut self) {
        let graph = Arc::clone(&self.state.graph);
        let templates = [
            graph.concurrency.as_ref().map(|limit| (KeyKind::Concurrency, &limit.key)),
            graph.rate_limit.as_ref().map(|limit| (KeyKind::Rate, &limit.key)),
        ];
        for (which, template) in templates.into_iter().flatten() {
            let names = Names::of_outputs(self.state).reading(&template.references());
            let key = match template.evaluate(&names) {
                Ok(Value::String(key)) => Arc::<str>::from(key),
                Ok(value) => Arc::from(value.to_string()),
                Err(error) => {
                    let error =
                        task_error(FailureKind::Permanent, "expression", &error.to_string());
                    let reason = error.message.clone();
                    return self.stop_run(reason, Origin::default(), Some(error));
                }
            };
            self.emit(Event::KeyChanged {
                n: None,
                step: Arc::from(""),
                key,
                which,
                change: KeyChange::Wanted,
                otherwise: false,
            });
        }
        for acquire in self.state.acquires(None) {
            self.effect(Effect::Acquire(Box::new(acquire)));
        }
    }

    /// Puts the first steps of the scope that was just opened on the list.
    fn begin_last_scope(&mut self, n: InstanceId) {
        let scope = self.state.instances[n.index()].detail().and_then(|d| d.scopes.last());
        let Some(&scope) = scope else { return };
        let first = self.state.scopes[scope.index()].first;
        let count = self.state.graph.list(self.state.scopes[scope.index()].list).nodes.len();
        let end = first + u32::try_from(count).unwrap_or(u32::MAX);
        for inner in (first..end).map(InstanceId) {
            if self.state.instances[inner.index()].waiting_on == 0 {
                self.state.work.push_back(Work::Ready(inner));
            }
        }
    }

    fn check_scope(&mut self, scope_id: ScopeId) {
        let scope = &self.state.scopes[scope_id.index()];
        if scope.dead {
            return;
        }
        let (parent, first, unsettled) = (scope.parent, scope.first, scope.unsettled);
        if unsettled > 0 {
            let stopped = scope.active == 0 && self.state.is_stopped(InstanceId(first));
            if stopped {
                self.skip_pending(scope_id);
            }
            return;
        }
        match parent {
            None => self.state.work.push_back(Work::Run),
            Some(n)
                if self.state.instances[n.index()]
                    .detail()
                    .is_some_and(|detail| detail.repeat.is_some()) =>
            {
                self.state.work.push_back(Work::Loop(n))
            }
            Some(n) => self.finish_block(n),
        }
    }

    /// A scope was stopped and nothing in it runs: what was never started is skipped.
    fn skip_pending(&mut self, scope: ScopeId) {
        let scope = &self.state.scopes[scope.index()];
        let count = self.state.graph.list(scope.list).nodes.len();
        let end = scope.first + u32::try_from(count).unwrap_or(u32::MAX);
        for n in (scope.first..end).map(InstanceId) {
            if self.state.instances[n.index()].status == Status::Pending {
                self.skip(n, SkipReason::NotStarted);
            }
        }
    }

    /// A block or loop whose inner steps have all settled comes to its own end.
    fn finish_block(&mut self, n: InstanceId) {
        let instance = &self.state.instances[n.index()];
        if !matches!(instance.status, Status::Open | Status::Cancelling) {
            return;
        }
        let detail = instance.detail();
        let cancel_error = detail.and_then(|detail| detail.cancel_error.clone());
        let inner = detail.and_then(|detail| detail.failed_inner);
        if let Some(error) = cancel_error {
            return self.fail(n, error, None);
        }
        // A failure goes up as its block's, also when it had the rest of the block cancelled.
        if let Some(inner) = inner {
            let error = self.state.instances[inner.index()].error().cloned();
            let path = self.state.path(inner);
            let error = error.unwrap_or_else(|| {
                let message = format!("step `{path}` failed");
                task_error(FailureKind::Permanent, "", &message)
            });
            return self.fail(n, error, None);
        }
        if instance.status == Status::Cancelling || self.state.was_cut_short(n) {
            return self.cancelled(n);
        }
        self.succeed(n, None);
    }

    fn pump_loop(&mut self, n: InstanceId) {
        let graph = Arc::clone(&self.state.graph);
        let NodeKind::Loop { repeat, .. } = &graph.node(self.state.instances[n.index()].node).kind
        else {
            return;
        };
        let instance = &self.state.instances[n.index()];
        let open = instance.status == Status::Open;
        if !open && instance.status != Status::Cancelling {
            return;
        }
        let stopped = !open || self.state.is_stopped_below(n);
        match repeat {
            Repeat::ForEach { max_parallel, .. } if !stopped => self.pump_items(n, *max_parallel),
            // A stopped loop too is asked whether it has come to its end, unless that is plain.
            Repeat::While { condition, max_iterations }
                if !stopped || open && !self.state.was_cut_short(n) =>
            {
                self.pump_while(n, condition, *max_iterations, stopped);
                return;
            }
            _ => {}
        }
        let repeat = self.state.repetition(n);
        let all = repeat.items.as_ref().is_none_or(|items| repeat.begun as usize >= items.len());
        if repeat.running == 0 && (all || stopped) {
            self.finish_block(n);
        }
    }

    fn pump_items(&mut self, n: InstanceId, max_parallel: Option<u32>) {
        loop {
            let repeat = self.state.repetition(n);
            let count = repeat.items.as_ref().map_or(0, |items| items.len());
            let room = max_parallel.is_none_or(|max| repeat.running < max);
            if repeat.begun as usize >= count || !room || self.state.is_held() {
                return;
            }
            if self.transition.events.len() >= limits::EVENTS_PER_DECISION_MAX {
                self.state.work.push_back(Work::Loop(n));
                return;
            }
            let (step, index) = (self.state.path(n), repeat.begun);
            self.emit(Event::IterationStarted { n, step, index });
            self.begin_last_scope(n);
        }
    }

    fn pump_while(
        &mut self,
        n: InstanceId,
        condition: &Expression,
        max_iterations: u32,
        stopped: bool,
    ) {
        let repeat = self.state.repetition(n);
        if repeat.running > 0 || self.state.is_held() && !stopped {
            return;
        }
        let failed = self.state.instances[n.index()].detail().and_then(|d| d.failed_inner);
        if failed.is_some() {
            return self.finish_block(n);
        }
        let index = repeat.begun;
        let names = Names::of_while(self.state, n, index).reading_of(condition);
        match condition.evaluate_bool(&names) {
            Err(error) => self.fail_expression(n, &error),
            Ok(false) => self.finish_block(n),
            Ok(true) if index >= max_iterations => {
                let message = format!(
                    "the condition still holds after {max_iterations} iterations, the most allowed"
                );
                let error = task_error(FailureKind::Permanent, "max_iterations", &message);
                self.fail(n, error, None);
            }
            Ok(true) if stopped => self.cancelled(n),
            Ok(true) => {
                let step = self.state.path(n);
                self.emit(Event::IterationStarted { n, step, index });
                self.begin_last_scope(n);
            }
        }
    }

    /// Looks whether a phase of the run is over.
    fn check_run(&mut self) {
        let over = |scope: ScopeId, state: &State| state.scopes[scope.index()].unsettled == 0;
        match self.state.phase {
            Phase::Running | Phase::Blocked if over(ScopeId(0), self.state) => {
                self.steps_over();
            }
            Phase::RollingBack => self.pump_rollback(),
            Phase::Handling if self.state.handler.is_none_or(|scope| over(scope, self.state)) => {
                self.end_failed();
            }
            _ => {}
        }
    }

    /// All steps of the whole have settled.
    fn steps_over(&mut self) {
        if self.state.failure.is_some() {
            return self.begin_rollback();
        }
        if self.state.cancel.is_some() {
            return self.end(Ending::Cancelled, None);
        }
        match self.outputs() {
            Ok(outputs) => self.end(Ending::Success, outputs),
            Err(error) => {
                let reason = error.message.clone();
                self.request_stop(reason, Origin::default(), Some(error));
                self.begin_rollback();
            }
        }
    }

    fn outputs(&self) -> Result<Option<Json>, TaskError> {
        if self.state.graph.outputs.is_empty() {
            return Ok(None);
        }
        let mut outputs = serde_json::Map::new();
        for (name, expression) in &self.state.graph.outputs {
            let names = Names::of_outputs(self.state).reading_of(expression);
            let value = expression.evaluate(&names).map_err(|error| {
                let message = format!("output `{name}` cannot be computed: {error}");
                task_error(FailureKind::Permanent, "expression", &message)
            })?;
            outputs.insert(name.to_string(), value);
        }
        let outputs: Json = Value::Object(outputs).to_string().into();
        size_checked(&outputs, "the outputs")?;
        Ok(Some(outputs))
    }

    pub(crate) fn end(&mut self, status: Ending, outputs: Option<Json>) {
        let error = match status {
            Ending::Success => None,
            Ending::Cancelled => self.state.cancel.as_ref().map(|(reason, _)| reason.clone()),
            Ending::Failure | Ending::RolledBack => {
                self.state.failure.as_ref().map(|failure| failure.error.message.clone())
            }
        };
        let ended = Event::RunEnded { status, outputs: outputs.clone(), error: error.clone() };
        self.emit(ended);
        self.state.work.clear();
        if !self.state.keys.is_empty() {
            self.effect(Effect::Release { instance: None });
        }
        self.effect(Effect::Ended { status, outputs, error });
    }

    pub(crate) fn succeed_task(
        &mut self,
        n: InstanceId,
        output: Json,
        by: Option<AgentRef>,
        undo: DeclaredUndo,
        touched: Vec<Touch>,
    ) {
        let undo = (undo != DeclaredUndo::Nothing).then_some(undo);
        self.settle_well(n, Some(output), by, undo, touched);
    }

    pub(crate) fn succeed(&mut self, n: InstanceId, output: Option<Json>) {
        self.settle_well(n, output, None, None, Vec::new());
    }

    fn settle_well(
        &mut self,
        n: InstanceId,
        output: Option<Json>,
        by: Option<AgentRef>,
        undo: Option<DeclaredUndo>,
        touched: Vec<Touch>,
    ) {
        let step = self.state.path(n);
        let checkpoint = self.state.node(n).checkpoint.clone();
        let took = self.took.take();
        self.emit(Event::StepSucceeded { n, step, output, by, undo, checkpoint, touched, took });
        self.release_keys(n);
    }

    pub(crate) fn skip(&mut self, n: InstanceId, reason: SkipReason) {
        self.skip_touched(n, reason, Vec::new());
    }

    pub(crate) fn skip_touched(&mut self, n: InstanceId, reason: SkipReason, touched: Vec<Touch>) {
        let step = self.state.path(n);
        self.emit(Event::StepSkipped { n, step, reason, touched });
        self.release_keys(n);
    }

    pub(crate) fn release_keys(&mut self, n: InstanceId) {
        let held = self.state.instances[n.index()].detail();
        if held.is_some_and(|detail| !detail.keys.is_empty()) {
            self.effect(Effect::Release { instance: Some(n) });
        }
    }

    fn fail_expression(&mut self, n: InstanceId, error: &EvaluateError) {
        let error = task_error(FailureKind::Permanent, "expression", &error.to_string());
        self.fail(n, error, None);
    }

    fn evaluate_bool(&self, n: InstanceId, expression: &Expression) -> Result<bool, EvaluateError> {
        expression.evaluate_bool(&Names::of_step(self.state, n).reading_of(expression))
    }

    pub(crate) fn template(&self, n: InstanceId, template: &Template) -> Result<Value, TaskError> {
        let names = Names::of_step(self.state, n).reading(&template.references());
        template
            .evaluate(&names)
            .map_err(|error| task_error(FailureKind::Permanent, "expression", &error.to_string()))
    }

    /// A template that must give text.
    fn text(&self, n: InstanceId, template: &Template, what: &str) -> Result<String, TaskError> {
        match self.template(n, template)? {
            Value::String(text) => Ok(text),
            Value::Number(number) => Ok(number.to_string()),
            other => {
                let message = format!("{what} must be text, this is {}", kind_of(&other));
                Err(task_error(FailureKind::Permanent, "expression", &message))
            }
        }
    }
}

impl State {
    /// Whether nothing new may begin for now.
    pub(crate) fn is_held(&self) -> bool {
        self.paused || self.phase == Phase::Blocked
    }

    /// Whether something above a step keeps anything new from beginning.
    pub(crate) fn is_stopped(&self, n: InstanceId) -> bool {
        match self.parent(n) {
            Some(parent) => self.is_stopped_below(parent),
            None if self.handler == Some(self.instances[n.index()].scope) => self.handler_stopping,
            None => self.stopping,
        }
    }

    /// Whether nothing new may begin below a step.
    pub(crate) fn is_stopped_below(&self, n: InstanceId) -> bool {
        let stopping = self.instances[n.index()].detail().is_some_and(|detail| detail.stopping);
        stopping || self.is_stopped(n)
    }

    /// Whether a step waits for one that failed, unheld, or was never started.
    fn follows_failure(&self, n: InstanceId) -> bool {
        let scope = &self.scopes[self.instances[n.index()].scope.index()];
        self.node(n).depends_on.iter().any(|on| {
            let before = InstanceId(scope.first + on);
            match self.instances[before.index()].status {
                Status::Failure | Status::Cancelled => !self.node(before).continue_on_error,
                Status::NotStarted => true,
                _ => false,
            }
        })
    }

    /// Whether a block ended before all its steps had their turn.
    fn was_cut_short(&self, n: InstanceId) -> bool {
        let Some(detail) = self.instances[n.index()].detail() else { return false };
        if let Some(repeat) = &detail.repeat {
            let count = repeat.items.as_ref().map_or(0, |items| items.len());
            if (repeat.begun as usize) < count {
                return true;
            }
        }
        detail.scopes.iter().any(|scope| {
            let scope = &self.scopes[scope.index()];
            let count = self.graph.list(scope.list).nodes.len();
            let first = scope.first as usize;
            self.instances[first..first + count]
                .iter()
                .any(|inner| matches!(inner.status, Status::NotStarted | Status::Cancelled))
        })
    }

    fn repetition(&self, n: InstanceId) -> crate::instance::Repetition {
        let detail = self.instances[n.index()].detail();
        detail.and_then(|detail| detail.repeat.clone()).unwrap_or_default()
    }

    /// The keys that a step or the run holds or waits for, as they are asked for.
    pub(crate) fn acquires(&self, n: Option<InstanceId>) -> Vec<Acquire> {
        let (keys, concurrency, rate): (&[HeldKey], _, _) = match n {
            Some(n) => {
                let node = self.node(n);
                let keys = self.instances[n.index()].detail().map_or(&[][..], |d| &d.keys);
                (keys, node.concurrency.as_ref(), node.rate_limit.as_ref())
            }
            None => (&self.keys, self.graph.concurrency.as_ref(), self.graph.rate_limit.as_ref()),
        };
        keys.iter()
            .filter_map(|held| {
                let (limit, per, on_conflict) = match held.which {
                    KeyKind::Concurrency => {
                        let limit = concurrency?;
                        (limit.limit, None, limit.on_conflict)
                    }
                    KeyKind::Rate => {
                        let limit = rate?;
                        (limit.limit, Some(limit.per), OnConflict::Queue)
                    }
                };
                Some(Acquire {
                    instance: n,
                    which: held.which,
                    key: Arc::clone(&held.key),
                    limit,
                    per,
                    on_conflict,
                    held: held.granted,
                })
            })
            .collect()
    }

    /// What a notification without a message says.
    fn announcement(&self) -> String {
        let name = &self.graph.name;
        match &self.failure {
            Some(failure) if failure.step.is_empty() => {
                format!("Workflow `{name}`, run {}: {}", self.id, failure.error.message)
            }
            Some(failure) => format!(
                "Workflow `{name}`, run {}: step `{}` failed: {}",
                self.id, failure.step, failure.error.message
            ),
            None => format!("Workflow `{name}`, run {}", self.id),
        }
    }
}

fn size_checked(json: &Json, what: &str) -> Result<(), TaskError> {
    if json.len() <= limits::PAYLOAD_BYTES_MAX {
        return Ok(());
    }
    let message = format!(
        "{what} have {} bytes, more than the {} allowed",
        json.len(),
        limits::PAYLOAD_BYTES_MAX
    );
    Err(task_error(FailureKind::Permanent, "limit", &message))
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The root list is where a run's own steps stand.
const _: () = assert!(Graph::ROOT.0 == 0);
