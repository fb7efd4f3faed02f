//! A run's state: what folding its journal gives.
//!
//! `apply` is the only way in which it changes. It must give for an old journal what it gave when
//! the journal was written; `decide` may change, `apply` of an old event may not.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde_json::Value;

use crate::asked::{Notes, Question};
use crate::event::{Ending, Event, KeyChange, Origin, RunStarted, SkipReason, Stops, WaitingFor};
use crate::graph::{Graph, ListId, Node, NodeKind};
use crate::id::{ContentHash, InstanceId, Instant, RunId};
use crate::instance::{Detail, HeldKey, Instance, Repetition, Scope, ScopeId, Status};
use crate::limits;
use crate::rollback::{CheckpointMark, Planned, Rollback, content};
use crate::task::{Json, TaskError};

/// What a run is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It waits for the concurrency key or rate limit of its workflow.
    Blocked,
    /// Its steps run, or what runs comes to its end behind a failure.
    Running,
    /// What was done is undone.
    RollingBack,
    /// The steps of `on_failure` run.
    Handling,
    /// It ended.
    Ended,
}

/// Something that happens by itself at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// The run's deadline.
    Run,
    /// A step's deadline.
    Deadline(InstanceId),
    /// The end of a wait, or its time-out.
    Wait(InstanceId),
}

/// Something for `decide` to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// A step whose dependencies have settled.
    Ready(InstanceId),
    /// A scope in which something settled, or which is to stop.
    Scope(ScopeId),
    /// A scope whose steps are to stop.
    Cancel(ScopeId),
    /// A loop that may begin its next iteration or has come to its end.
    Loop(InstanceId),
    /// The run, one of whose phases may be over.
    Run,
}

/// The failure that stopped the run.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) step: Arc<str>,
    pub(crate) error: TaskError,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) status: Ending,
    pub(crate) at: Instant,
    pub(crate) outputs: Option<Json>,
    pub(crate) error: Option<String>,
}

/// A run's state.
#[derive(Clone, Debug)]
pub struct State {
    pub(crate) id: RunId,
    pub(crate) graph: Arc<Graph>,
    pub(crate) started: Arc<RunStarted>,
    pub(crate) started_at: Instant,
    pub(crate) params: Arc<Value>,
    pub(crate) version: i64,
    pub(crate) last_at: Instant,
    pub(crate) epoch: u64,
    pub(crate) phase: Phase,
    pub(crate) paused: bool,
    /// Nothing new is started in the steps of the whole.
    pub(crate) stopping: bool,
    /// Nothing new is started in the steps of `on_failure`.
    pub(crate) handler_stopping: bool,
    pub(crate) cancel: Option<(String, Option<TaskError>)>,
    pub(crate) failure: Option<Failure>,
    /// How many instances were started and have not settled.
    pub(crate) active: u32,
    /// How many of them an agent has, is owed, or is to let go.
    pub(crate) busy: u32,
    pub(crate) instances: Vec<Instance>,
    pub(crate) scopes: Vec<Scope>,
    pub(crate) handler: Option<ScopeId>,
    /// Actions in the order in which they ended well.
    pub(crate) completions: Vec<InstanceId>,
    pub(crate) checkpoints: VecDeque<CheckpointMark>,
    pub(crate) rollback: Option<Rollback>,
    pub(crate) planned: Option<Planned>,
    /// How many rollbacks there were.
    pub(crate) rollbacks: u32,
    /// Up to here it was taken over from another run; 0: it was not forked.
    pub(crate) forked_at: u32,
    pub(crate) signals: BTreeMap<String, VecDeque<Json>>,
    pub(crate) signals_buffered: usize,
    pub(crate) timers: BTreeSet<(Instant, Timer)>,
    pub(crate) requests: BTreeMap<String, String>,
    pub(crate) request_order: VecDeque<String>,
    pub(crate) keys: Vec<HeldKey>,
    pub(crate) ended: Option<Ended>,
    /// What is asked of people.
    pub(crate) questions: BTreeMap<InstanceId, Question>,
    /// What is over since the last look: for who writes it down, no part of the truth.
    pub(crate) notes: Notes,
    /// How many steps have settled, and a hash over all that did; `None` where nobody asks for it.
    pub(crate) settled: u32,
    pub(crate) content: Option<ContentHash>,
    /// What settled since the last look: for `decide` alone, no part of the truth.
    pub(crate) touched: Vec<InstanceId>,
    /// What `decide` has not looked at yet: no part of the truth, made anew on adoption.
    pub(crate) work: VecDeque<Work>,
}

impl State {
    /// The state behind `RunStarted`.
    ///
    /// # Errors
    /// When the params are not JSON.
    pub fn new(
        id: RunId,
        graph: Arc<Graph>,
        started: RunStarted,
        at: Instant,
    ) -> Result<Self, serde_json::Error> {
        let params = Arc::new(serde_json::from_str(&started.params)?);
        let blocked = graph.concurrency.is_some() || graph.rate_limit.is_some();
        let mut state = Self {
            id,
            started_at: at,
            params,
            version: 1,
            last_at: at,
            epoch: started.epoch,
            phase: if blocked { Phase::Blocked } else { Phase::Running },
            paused: false,
            stopping: false,
            handler_stopping: false,
            cancel: None,
            failure: None,
            active: 0,
            busy: 0,
            instances: Vec::new(),
            scopes: Vec::new(),
            handler: None,
            completions: Vec::new(),
            checkpoints: VecDeque::new(),
            rollback: None,
            planned: None,
            rollbacks: 0,
            forked_at: 0,
            signals: BTreeMap::new(),
            signals_buffered: 0,
            timers: BTreeSet::new(),
            requests: BTreeMap::new(),
            request_order: VecDeque::new(),
            keys: Vec::new(),
            ended: None,
            questions: BTreeMap::new(),
            notes: Notes::default(),
            settled: 0,
            content: content::at_start(&graph, &started),
            touched: Vec::new(),
            work: VecDeque::new(),
            started: Arc::new(started),
            graph,
        };
        if let Some(deadline) = state.graph.deadline {
            state.timers.insert((at.after(deadline), Timer::Run));
        }
        let origin = state.started.origin.clone();
        state.remember(&origin);
        state.open_scope(None, Graph::ROOT, None, None);
        Ok(state)
    }

    /// Takes one event in. Events come in the order of the journal.
    pub fn apply(&mut self, event: &Event, at: Instant) {
        self.version += 1;
        self.last_at = self.last_at.max(at);
        if !self.questions.is_empty() {
            self.answer(event, at);
        }
        match event {
            Event::RunStarted(_) => debug_assert!(false, "a run starts once"),
            Event::RunAdopted { epoch } => self.epoch = *epoch,
            Event::SignalReceived { signal, payload, origin } => {
                self.remember(origin);
                self.signals.entry(signal.clone()).or_default().push_back(payload.clone());
                self.signals_buffered += 1;
            }
            Event::KeyChanged { n: None, key, which, change, .. } => {
                change_key(&mut self.keys, *which, key, *change);
                let wanted = usize::from(self.graph.concurrency.is_some())
                    + usize::from(self.graph.rate_limit.is_some());
                if self.phase == Phase::Blocked
                    && self.keys.iter().filter(|key| key.granted).count() == wanted
                {
                    self.phase = Phase::Running;
                }
            }
            Event::RunReopened { params, origin } => {
                self.remember(origin);
                self.apply_reopened(params.as_ref(), at);
            }
            Event::RunForked { sequence, params, .. } => {
                self.apply_forked(*sequence, params.as_ref());
            }
            Event::OnFailureStarted {} => self.begin_handling(),
            Event::RunPaused { origin, .. } => {
                self.remember(origin);
                self.paused = true;
            }
            Event::RunResumed { origin } => {
                self.remember(origin);
                self.paused = false;
            }
            Event::RunCancelRequested { reason, origin, error } => {
                self.remember(origin);
                self.begin_stop(reason, error.as_ref());
            }
            Event::RunRetried { origin } => {
                self.remember(origin);
                self.reopen();
            }
            Event::RunEnded { status, outputs, error } => {
                self.phase = Phase::Ended;
                self.timers.clear();
                self.ended = Some(Ended {
                    status: *status,
                    at,
                    outputs: outputs.clone(),
                    error: error.clone(),
                });
            }
            other if other.is_of_rollback() => self.apply_rollback(other, at),
            step => self.apply_step(step, at),
        }
    }

    /// The steps of `on_failure` begin.
    fn begin_handling(&mut self) {
        self.phase = Phase::Handling;
        self.handler_stopping = false;
        self.timers.retain(|(_, timer)| *timer != Timer::Run);
        if let Some(list) = self.graph.on_failure {
            self.handler = Some(self.open_scope(None, list, None, None));
        }
    }

    /// The run is asked to stop; with an error it counts as failed.
    fn begin_stop(&mut self, reason: &str, error: Option<&TaskError>) {
        self.cancel = Some((reason.to_owned(), error.cloned()));
        self.paused = false;
        self.stopping = true;
        self.handler_stopping = true;
        self.timers.retain(|(_, timer)| *timer != Timer::Run);
        if let (Some(error), None) = (error, &self.failure) {
            self.failure = Some(Failure { step: Arc::from(""), error: error.clone() });
        }
    }

    /// To be called behind the last event of a fold: what only `decide` uses is dropped; a
    /// decision on `Command::Adopt` makes it anew.
    pub fn settle_fold(&mut self) {
        self.notes = Notes::default();
        self.touched.clear();
        self.work.clear();
    }

    fn apply_step(&mut self, event: &Event, at: Instant) {
        let Some(n) = event.instance().filter(|n| n.index() < self.instances.len()) else {
            debug_assert!(false, "an event names a step instance that is there");
            return;
        };
        match event {
            Event::StepQueued { input, .. } => {
                self.activate(n, Status::Queued, at);
                let instance = &mut self.instances[n.index()];
                instance.attempt = instance.attempts_before + 1;
                if input.is_some() {
                    instance.detail_mut().input.clone_from(input);
                }
            }
            Event::TaskStarted { by_agent: agent, .. } => {
                let instance = &mut self.instances[n.index()];
                instance.by.clone_from(agent);
                instance.detail_mut().started = true;
            }
            Event::AttemptFailed { attempt, error, by, retry_at, fallback, touched, .. } => {
                let instance = &mut self.instances[n.index()];
                instance.attempt = attempt + 1;
                instance.fallback = *fallback;
                instance.by.clone_from(by);
                let detail = instance.detail_mut();
                detail.touch(touched);
                detail.error = Some(error.clone());
                detail.retry_at = Some(*retry_at);
                detail.started = false;
            }
            Event::StepCancelRequested { error, .. } => {
                self.remove_timers(n);
                self.set_status(n, Status::Cancelling);
                let detail = self.instances[n.index()].detail_mut();
                detail.cancel_error.clone_from(error);
                detail.stopping = true;
            }
            Event::StepWaiting { waiting_for, until, .. } => {
                self.activate(n, Status::Waiting, at);
                if let Some(until) = until {
                    self.timers.insert((*until, Timer::Wait(n)));
                }
                let detail = self.instances[n.index()].detail_mut();
                detail.waiting_for = Some(waiting_for.clone());
                detail.until = *until;
                self.ask_of(n, waiting_for, *until, at);
            }
            Event::KeyChanged { key, which, change, otherwise, .. } => {
                self.activate(n, Status::Blocked, at);
                let detail = self.instances[n.index()].detail_mut();
                detail.otherwise = *otherwise;
                change_key(&mut detail.keys, *which, key, *change);
            }
            Event::DecisionMade { origin, .. } => self.remember(origin),
            Event::BlockOpened { otherwise, items, .. } => {
                self.open_block(n, *otherwise, items.as_ref(), at);
            }
            Event::IterationStarted { index, .. } => self.open_iteration(n, *index),
            end => self.apply_end(n, end, at),
        }
    }

    /// Takes in how a step ended.
    fn apply_end(&mut self, n: InstanceId, event: &Event, at: Instant) {
        match event {
            Event::StepSucceeded { output, by, undo, checkpoint, touched, .. } => {
                self.take_signal(n);
                let instance = &mut self.instances[n.index()];
                instance.output.clone_from(output);
                if by.is_some() || undo.is_some() || !touched.is_empty() {
                    instance.by.clone_from(by);
                    instance.undo.clone_from(undo);
                    if let Some(detail) = &mut instance.detail {
                        detail.error = None;
                    }
                }
                if !touched.is_empty() {
                    instance.detail_mut().touch(touched);
                }
                self.settle(n, Status::Success, at);
                match self.node(n).kind {
                    NodeKind::Action(_) => self.completions.push(n),
                    // Joined once, not for each step behind that sees it.
                    NodeKind::Loop { .. } => self.instances[n.index()].output = self.output(n),
                    _ => {}
                }
                if let Some(name) = checkpoint {
                    self.mark_checkpoint(name, n, at);
                }
            }
            Event::StepFailed { error, stops, by, touched, .. } => {
                let instance = &mut self.instances[n.index()];
                if by.is_some() {
                    instance.by.clone_from(by);
                }
                let detail = instance.detail_mut();
                detail.touch(touched);
                detail.error = Some(error.clone());
                self.settle(n, Status::Failure, at);
                self.note_failure(n, error, *stops);
            }
            Event::StepSkipped { reason, touched, .. } => {
                if !touched.is_empty() {
                    self.instances[n.index()].detail_mut().touch(touched);
                }
                let status = match reason {
                    SkipReason::Condition | SkipReason::NotConfigured => Status::Skipped,
                    SkipReason::NotStarted => Status::NotStarted,
                };
                self.settle(n, status, at);
            }
            Event::StepCancelled { touched, .. } => {
                if !touched.is_empty() {
                    self.instances[n.index()].detail_mut().touch(touched);
                }
                self.settle(n, Status::Cancelled, at);
            }
            _ => debug_assert!(false, "every event of a step is taken in"),
        }
    }

    /// Marks what a failure stops and remembers the first one.
    fn note_failure(&mut self, n: InstanceId, error: &TaskError, stops: Stops) {
        if let Some(parent) = self.parent(n) {
            let detail = self.instances[parent.index()].detail_mut();
            if !matches!(stops, Stops::Nothing) && detail.failed_inner.is_none() {
                detail.failed_inner = Some(n);
            }
        }
        let in_handler = self.handler == Some(self.root_scope(n));
        match stops {
            Stops::Nothing => {}
            Stops::Block(holder) => self.instances[holder.index()].detail_mut().stopping = true,
            Stops::Branch(top) => self.instances[top.index()].detail_mut().stopping = true,
            Stops::Run if in_handler => self.handler_stopping = true,
            Stops::Run => self.stopping = true,
        }
        let unheld = matches!(stops, Stops::Run | Stops::Branch(_));
        if unheld && !in_handler && self.failure.is_none() {
            let step = Arc::clone(&self.node(n).id);
            self.failure = Some(Failure { step, error: error.clone() });
        }
    }

    /// Makes an instance active; the first time sets its deadline.
    fn activate(&mut self, n: InstanceId, status: Status, at: Instant) {
        let first = self.instances[n.index()].status == Status::Pending;
        self.set_status(n, status);
        if first {
            let begun = self.sequence();
            let instance = &mut self.instances[n.index()];
            instance.ready_at = at;
            instance.begun = begun;
            self.scopes[instance.scope.index()].active += 1;
            if let Some(deadline) = self.graph.node(instance.node).deadline {
                self.timers.insert((at.after(deadline), Timer::Deadline(n)));
            }
        }
    }

    /// Sets a status and keeps the counts of active and busy instances.
    fn set_status(&mut self, n: InstanceId, status: Status) {
        let instance = &mut self.instances[n.index()];
        let busy = |status| matches!(status, Status::Queued | Status::Cancelling);
        self.active -= u32::from(instance.status.is_active());
        self.busy -= u32::from(busy(instance.status));
        instance.status = status;
        self.active += u32::from(status.is_active());
        self.busy += u32::from(busy(status));
    }

    fn remove_timers(&mut self, n: InstanceId) {
        let instance = &self.instances[n.index()];
        if let Some(until) = instance.detail().and_then(|detail| detail.until) {
            self.timers.remove(&(until, Timer::Wait(n)));
        }
        if let Some(deadline) = self.graph.node(instance.node).deadline {
            self.timers.remove(&(instance.ready_at.after(deadline), Timer::Deadline(n)));
        }
    }

    fn settle(&mut self, n: InstanceId, status: Status, at: Instant) {
        let graph = Arc::clone(&self.graph);
        let was = self.instances[n.index()].status;
        debug_assert!(!was.is_settled(), "a step settles once");
        let was_active = was.is_active();
        if was_active {
            self.remove_timers(n);
        }
        self.set_status(n, status);
        self.note_content(n, status);
        let ended = self.sequence();
        let instance = &mut self.instances[n.index()];
        instance.settled_at = at;
        instance.ended = ended;
        let owed = instance.detail().and_then(|detail| detail.retry_at);
        if status != Status::Success && owed.is_some_and(|retry_at| retry_at > at) {
            // The attempt that was owed is not made any more.
            instance.attempt -= 1;
        }
        let node = graph.node(instance.node);
        let scope_id = instance.scope;
        let scope = &mut self.scopes[scope_id.index()];
        scope.active -= u32::from(was_active);
        scope.unsettled -= 1;
        let (first, parent, all_settled) = (scope.first, scope.parent, scope.unsettled == 0);
        for &dependent in &node.dependents {
            self.instances[(first + dependent) as usize].waiting_on -= 1;
        }
        if let (Some(parent), true) = (parent, all_settled)
            && let Some(repeat) = self.instances[parent.index()].detail_mut().repeat.as_mut()
        {
            repeat.running -= 1;
        }
        self.touched.push(n);
    }

    fn open_block(&mut self, n: InstanceId, otherwise: bool, items: Option<&Json>, at: Instant) {
        self.activate(n, Status::Open, at);
        let graph = Arc::clone(&self.graph);
        let list = match &graph.node(self.instances[n.index()].node).kind {
            NodeKind::Block { body } => Some(*body),
            NodeKind::Choice { then, otherwise: other } => {
                if otherwise {
                    *other
                } else {
                    *then
                }
            }
            NodeKind::Loop { .. } => {
                let items = items.map(|json| {
                    let items: Vec<Arc<Value>> = serde_json::from_str(json).unwrap_or_default();
                    items.into()
                });
                self.instances[n.index()].detail_mut().repeat =
                    Some(Repetition { items, begun: 0, running: 0 });
                None
            }
            _ => None,
        };
        self.instances[n.index()].detail_mut().otherwise = otherwise;
        if let Some(list) = list {
            let scope = self.open_scope(Some(n), list, None, None);
            self.instances[n.index()].detail_mut().scopes.push(scope);
        }
    }

    fn open_iteration(&mut self, n: InstanceId, index: u32) {
        let graph = Arc::clone(&self.graph);
        let NodeKind::Loop { body, .. } = &graph.node(self.instances[n.index()].node).kind else {
            debug_assert!(false, "only loops have iterations");
            return;
        };
        let Some(repeat) = self.instances[n.index()].detail_mut().repeat.as_mut() else {
            debug_assert!(false, "a loop is opened before its iterations");
            return;
        };
        repeat.begun = repeat.begun.max(index + 1);
        repeat.running += 1;
        let item = repeat.items.as_ref().and_then(|items| items.get(index as usize)).cloned();
        let scope = self.open_scope(Some(n), *body, Some(index), item);
        self.instances[n.index()].detail_mut().scopes.push(scope);
    }

    fn open_scope(
        &mut self,
        parent: Option<InstanceId>,
        list: ListId,
        iteration: Option<u32>,
        item: Option<Arc<Value>>,
    ) -> ScopeId {
        let id = ScopeId(u32::try_from(self.scopes.len()).unwrap_or(u32::MAX));
        let opened = if id.0 == 0 { 0 } else { self.sequence() };
        let first = u32::try_from(self.instances.len()).unwrap_or(u32::MAX);
        let graph = Arc::clone(&self.graph);
        let nodes = &graph.list(list).nodes;
        self.scopes.push(Scope {
            parent,
            list,
            first,
            iteration,
            item,
            unsettled: u32::try_from(nodes.len()).unwrap_or(u32::MAX),
            active: 0,
            opened,
            dead: false,
        });
        for &node in nodes {
            let waiting_on = graph.node(node).depends_on.len();
            self.instances.push(Instance {
                node,
                scope: id,
                status: Status::Pending,
                waiting_on: u32::try_from(waiting_on).unwrap_or(u32::MAX),
                attempt: 0,
                attempts_before: 0,
                fallback: 0,
                ready_at: Instant::default(),
                settled_at: Instant::default(),
                begun: 0,
                ended: 0,
                output: None,
                by: None,
                undo: None,
                detail: None,
            });
        }
        id
    }

    /// A step that waited for a signal has it: takes it out of the buffer.
    fn take_signal(&mut self, n: InstanceId) {
        let Some(Detail { waiting_for: Some(WaitingFor::Signal(name)), .. }) =
            self.instances[n.index()].detail()
        else {
            return;
        };
        let name = name.clone();
        if let Some(queue) = self.signals.get_mut(&name) {
            if queue.pop_front().is_some() {
                self.signals_buffered -= 1;
            }
            if queue.is_empty() {
                self.signals.remove(&name);
            }
        }
    }

    /// The sequence of the last event, as instances keep it.
    pub(crate) fn sequence(&self) -> u32 {
        u32::try_from(self.version).unwrap_or(u32::MAX)
    }

    pub(crate) fn remember(&mut self, origin: &Origin) {
        let Some(request) = &origin.request else { return };
        if self.requests.insert(request.id.clone(), request.body.clone()).is_none() {
            self.request_order.push_back(request.id.clone());
        }
        if self.request_order.len() > limits::REQUESTS_REMEMBERED_MAX
            && let Some(oldest) = self.request_order.pop_front()
        {
            self.requests.remove(&oldest);
        }
    }

    /// Sets back what did not end well, so that the run can go on from there.
    fn reopen(&mut self) {
        // Its keys were given back when it ended.
        let blocked = self.graph.concurrency.is_some() || self.graph.rate_limit.is_some();
        self.phase = if blocked { Phase::Blocked } else { Phase::Running };
        self.keys.clear();
        self.paused = false;
        self.stopping = false;
        self.handler_stopping = false;
        self.cancel = None;
        self.failure = None;
        self.note_rollback();
        self.rollback = None;
        self.planned = None;
        self.ended = None;
        self.touched.clear();
        self.work.clear();
        self.mix_content(&[b"retried"]);
        if let Some(handler) = self.handler.take() {
            self.scopes[handler.index()].dead = true;
        }
        for index in 0..self.instances.len() {
            self.reopen_instance(index);
        }
        self.recount();
    }

    fn reopen_instance(&mut self, index: usize) {
        let scope = &self.scopes[self.instances[index].scope.index()];
        let parent_open = match scope.parent {
            None => !scope.dead,
            Some(parent) => self.instances[parent.index()].status == Status::Open,
        };
        let instance = &mut self.instances[index];
        let ended_badly =
            matches!(instance.status, Status::Failure | Status::NotStarted | Status::Cancelled);
        let held =
            instance.status == Status::Failure && self.graph.node(instance.node).continue_on_error;
        if !parent_open || !ended_badly || held {
            return;
        }
        let detail = instance.detail.take().map(|detail| *detail).unwrap_or_default();
        let was_open = !detail.scopes.is_empty() || detail.repeat.is_some();
        instance.output = None;
        (instance.by, instance.undo) = (None, None);
        if instance.status == Status::NotStarted {
            // Nobody had the attempt that was owed.
            instance.attempt = instance.attempt.saturating_sub(1);
        }
        instance.attempts_before = instance.attempt;
        instance.fallback = 0;
        instance.ended = 0;
        let mut former_children = detail.former_children;
        if let Some(WaitingFor::Child(child)) = &detail.waiting_for {
            former_children.push(child.run);
        }
        let (touched, generation) = (detail.touched, detail.generation);
        if was_open {
            instance.status = Status::Open;
            instance.detail = Some(Box::new(Detail {
                scopes: detail.scopes,
                repeat: detail.repeat,
                otherwise: detail.otherwise,
                keys: detail.keys,
                ..Detail::default()
            }));
        } else {
            instance.status = Status::Pending;
            if !touched.is_empty() || generation > 0 || !former_children.is_empty() {
                let kept = Detail { touched, generation, former_children, ..Detail::default() };
                instance.detail = Some(Box::new(kept));
            }
        }
    }

    /// Computes all counters anew from the statuses.
    pub(crate) fn recount(&mut self) {
        let graph = Arc::clone(&self.graph);
        let count = |wanted: fn(Status) -> bool, instances: &[Instance]| {
            let found = instances.iter().filter(|instance| wanted(instance.status)).count();
            u32::try_from(found).unwrap_or(u32::MAX)
        };
        self.active = count(Status::is_active, &self.instances);
        let busy = |status| matches!(status, Status::Queued | Status::Cancelling);
        self.busy = count(busy, &self.instances);
        let alive = |instance: &&Instance| !self.scopes[instance.scope.index()].dead;
        let settled = self.instances.iter().filter(alive).filter(|it| it.status.is_settled());
        self.settled = u32::try_from(settled.count()).unwrap_or(u32::MAX);
        for scope_index in 0..self.scopes.len() {
            let scope = &self.scopes[scope_index];
            let first = scope.first as usize;
            let nodes = &graph.list(scope.list).nodes;
            let (mut unsettled, mut active) = (0, 0);
            for (offset, &node) in nodes.iter().enumerate() {
                let waiting_on = graph
                    .node(node)
                    .depends_on
                    .iter()
                    .filter(|&&on| !self.instances[first + on as usize].status.is_settled())
                    .count();
                let instance = &mut self.instances[first + offset];
                instance.waiting_on = u32::try_from(waiting_on).unwrap_or(u32::MAX);
                unsettled += u32::from(!instance.status.is_settled());
                active += u32::from(instance.status.is_active());
            }
            let scope = &mut self.scopes[scope_index];
            scope.unsettled = unsettled;
            scope.active = active;
        }
        for index in 0..self.instances.len() {
            let scopes = self.instances[index].detail().map_or_else(Vec::new, |d| d.scopes.clone());
            let running = scopes.iter().filter(|id| self.scopes[id.index()].unsettled > 0).count();
            if let Some(detail) = self.instances[index].detail.as_mut()
                && let Some(repeat) = detail.repeat.as_mut()
            {
                repeat.running = u32::try_from(running).unwrap_or(u32::MAX);
            }
        }
    }

    pub(crate) fn node(&self, n: InstanceId) -> &Node {
        self.graph.node(self.instances[n.index()].node)
    }

    pub(crate) fn parent(&self, n: InstanceId) -> Option<InstanceId> {
        self.scopes[self.instances[n.index()].scope.index()].parent
    }

    /// The scope without a parent that an instance is below.
    pub(crate) fn root_scope(&self, n: InstanceId) -> ScopeId {
        let top = self.root_instance(n);
        self.instances[top.index()].scope
    }

    /// The instance of a scope without a parent that an instance is, or is below.
    pub(crate) fn root_instance(&self, mut n: InstanceId) -> InstanceId {
        while let Some(parent) = self.parent(n) {
            n = parent;
        }
        n
    }
}

fn change_key(
    keys: &mut Vec<HeldKey>,
    which: crate::event::KeyKind,
    key: &Arc<str>,
    change: KeyChange,
) {
    let granted = change == KeyChange::Granted;
    match keys.iter_mut().find(|held| held.which == which) {
        Some(held) => held.granted = granted,
        None => keys.push(HeldKey { which, key: Arc::clone(key), granted }),
    }
}
