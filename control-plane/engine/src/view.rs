//! What people and other parts read of a run's state: paths, outputs, results, counts.

use std::sync::Arc;

use crate::event::{Ending, RunStarted, WaitingFor};
use crate::graph::{Action, Graph, ListId, NodeId, NodeKind};
use crate::id::{InstanceId, Instant, RunId};
use crate::instance::{ScopeId, Status};
use crate::lookup::status_word;
use crate::state::{Phase, State};
use crate::task::{AgentRef, Json, Purpose, TaskKey};

/// Where a run stands, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunStatus {
    /// It goes on.
    Running,
    /// Nothing can go on until a time, a signal, a decision or a child comes.
    Waiting,
    /// A person paused it.
    Paused,
    /// Its rollback waits for a person.
    Stuck,
    /// It ended.
    Ended(EndedStatus),
}

/// How a run ended; the order is that of `Ending`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndedStatus {
    /// All went well.
    Success,
    /// A step failed or the deadline passed.
    Failure,
    /// It was cancelled.
    Cancelled,
    /// It failed and everything it was to undo was undone.
    RolledBack,
}

impl From<Ending> for EndedStatus {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Success => Self::Success,
            Ending::Failure => Self::Failure,
            Ending::Cancelled => Self::Cancelled,
            Ending::RolledBack => Self::RolledBack,
        }
    }
}

impl RunStatus {
    /// The word for it in results.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Paused => "paused",
            Self::Stuck => "stuck",
            Self::Ended(EndedStatus::Success) => "success",
            Self::Ended(EndedStatus::Failure) => "failure",
            Self::Ended(EndedStatus::Cancelled) => "cancelled",
            Self::Ended(EndedStatus::RolledBack) => "rolled_back",
        }
    }
}

/// One entry of a result.
#[derive(Clone, Debug, PartialEq)]
pub struct StepView {
    /// The path, as `loop[2].c`.
    pub path: Arc<str>,
    /// The agent that the definition names; empty for others than actions.
    pub agent: Arc<str>,
    /// The action; empty for others than actions.
    pub action: Arc<str>,
    /// Its status, in the words of results.
    pub status: &'static str,
    /// Its output.
    pub output: Option<Json>,
    /// Why it failed.
    pub error: Option<String>,
    /// How many attempts were made.
    pub attempts: u32,
    /// When it became ready.
    pub start: Option<Instant>,
    /// When it settled.
    pub end: Option<Instant>,
    /// Who made the last attempt.
    pub by: Option<AgentRef>,
    /// What it waits for, and since when; for dispatch's part ask dispatch by the key.
    pub waiting: Option<Waiting>,
}

/// What a step waits for.
#[derive(Clone, Debug, PartialEq)]
pub enum Waiting {
    /// For an agent, or for its next attempt.
    Agent(TaskKey),
    /// For a concurrency key or a rate limit.
    Key(Arc<str>),
    /// For what it says, until a time.
    For(WaitingFor, Option<Instant>),
}

/// The counts over the entries of a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All entries but those of `on_failure`.
    pub total: u32,
    /// Those that ended well.
    pub successful: u32,
    /// Those that failed.
    pub failed: u32,
    /// Those that were skipped.
    pub skipped: u32,
}

impl State {
    /// The run's id.
    #[must_use]
    pub fn id(&self) -> RunId {
        self.id
    }

    /// The sequence of the last event.
    #[must_use]
    pub fn version(&self) -> i64 {
        self.version
    }

    /// When the last event happened; nothing later is decided as if it were before.
    #[must_use]
    pub fn last_at(&self) -> Instant {
        self.last_at
    }

    /// The definition that it runs.
    #[must_use]
    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// How it was started.
    #[must_use]
    pub fn started(&self) -> &RunStarted {
        &self.started
    }

    /// When it was started.
    #[must_use]
    pub fn started_at(&self) -> Instant {
        self.started_at
    }

    /// What it is about.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// When it ended.
    #[must_use]
    pub fn ended_at(&self) -> Option<Instant> {
        self.ended.as_ref().map(|ended| ended.at)
    }

    /// Its outputs, once it ended well.
    #[must_use]
    pub fn outputs(&self) -> Option<&Json> {
        self.ended.as_ref().and_then(|ended| ended.outputs.as_ref())
    }

    /// The id of the step that failed first, and why the run failed.
    #[must_use]
    pub fn failure(&self) -> (Option<&str>, Option<&str>) {
        let error = self.ended.as_ref().and_then(|ended| ended.error.as_deref());
        match &self.failure {
            Some(failure) => (Some(&failure.step), error.or(Some(&failure.error.message))),
            None => (None, error),
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn status(&self) -> RunStatus {
        if let Some(ended) = &self.ended {
            return RunStatus::Ended(ended.status.into());
        }
        if self.is_stuck() {
            return RunStatus::Stuck;
        }
        if self.paused {
            return RunStatus::Paused;
        }
        let only_waits = self.active > 0 && self.busy == 0 && self.work.is_empty();
        if self.phase == Phase::Blocked || (self.phase != Phase::RollingBack && only_waits) {
            return RunStatus::Waiting;
        }
        RunStatus::Running
    }

    /// Whether nothing happens before a timer fires, somebody asks something, one of the
    /// [awaited children](Self::awaited_children) ends, or one of the
    /// [wanted keys](Self::wanted_keys) is granted: nothing is owed to anybody (a task, a
    /// notification), and nothing is to be decided.
    #[must_use]
    pub fn only_waits(&self) -> bool {
        let open = match (self.phase, &self.rollback) {
            (Phase::Running | Phase::Handling | Phase::Blocked, _) => true,
            // Everything that is left waits for a person.
            (Phase::RollingBack, Some(rollback)) => rollback.out == 0 && rollback.stuck > 0,
            _ => false,
        };
        open && self.busy == 0 && self.work.is_empty() && !self.is_owed_word()
    }

    /// The child runs whose ends steps wait for. Whether they were started is not known here.
    #[must_use]
    pub fn awaited_children(&self) -> Vec<RunId> {
        let waiting = self.instances.iter().filter(|instance| instance.status == Status::Waiting);
        let awaited = waiting.filter_map(|instance| match &instance.detail()?.waiting_for {
            Some(WaitingFor::Child(child)) => Some(child.run),
            _ => None,
        });
        awaited.collect()
    }

    /// Whether a step waits for what this program itself tells it and nothing else keeps: who
    /// tells it may die before, so that it must be asked for again.
    fn is_owed_word(&self) -> bool {
        let mut waiting = self.instances.iter().filter(|it| it.status == Status::Waiting);
        waiting.any(|instance| {
            let waiting_for = instance.detail().and_then(|detail| detail.waiting_for.as_ref());
            matches!(waiting_for, Some(WaitingFor::Notification { .. }))
        })
    }

    /// When something happens by itself, if nothing else happens before.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The task key of a step instance.
    #[must_use]
    pub fn task_key(&self, n: InstanceId, purpose: Purpose) -> TaskKey {
        TaskKey { run: self.id, instance: n, purpose }
    }

    /// Whether what an agent made of a task has been taken in: it settled, and not by never
    /// having been started.
    #[must_use]
    pub fn is_task_taken_in(&self, key: &TaskKey) -> bool {
        let status = self.instances.get(key.instance.index()).map(|instance| instance.status);
        let never = matches!(status, Some(Status::Skipped | Status::NotStarted));
        self.is_task_settled(key) && !(never && key.purpose == Purpose::Do)
    }

    /// Whether nothing more can come of a task.
    fn is_task_settled(&self, key: &TaskKey) -> bool {
        let Some(instance) = self.instances.get(key.instance.index()) else { return false };
        match key.purpose {
            Purpose::Do => instance.status.is_settled(),
            Purpose::Undo => {
                let unit = self.rollback.as_ref().and_then(|rollback| rollback.unit(key.instance));
                let undone = instance.detail().is_some_and(|detail| detail.undone);
                unit.map_or(undone, |unit| unit.state.is_settled())
            }
        }
    }

    /// The action of a step instance, where it is one.
    #[must_use]
    pub fn action_of(&self, n: InstanceId) -> Option<&Action> {
        match &self.node(n).kind {
            NodeKind::Action(action) => Some(action),
            _ => None,
        }
    }

    /// The input of a step instance's task, where it has one.
    #[must_use]
    pub fn task_input(&self, n: InstanceId) -> Option<Json> {
        self.action_of(n).map(|_| self.order(n).input)
    }

    /// How many attempts were made of a step instance.
    #[must_use]
    pub fn attempts(&self, n: InstanceId) -> u32 {
        self.instances[n.index()].attempt
    }

    /// A step instance's path.
    #[must_use]
    pub fn path(&self, n: InstanceId) -> Arc<str> {
        let scope_id = self.instances[n.index()].scope;
        let scope = &self.scopes[scope_id.index()];
        let id = &self.node(n).id;
        match scope.parent {
            None if self.handler == Some(scope_id) => format!("on_failure.{id}").into(),
            None => Arc::clone(id),
            Some(parent) => {
                let inline = matches!(self.node(parent).kind, NodeKind::Loop { inline: true, .. });
                let above = self.path(parent);
                match (scope.iteration, inline) {
                    (Some(index), true) => format!("{above}[{index}]").into(),
                    (Some(index), false) => format!("{above}[{index}].{id}").into(),
                    (None, _) => format!("{above}.{id}").into(),
                }
            }
        }
    }

    /// A step instance's output; a block's is that of its last listed step, a loop's the list of
    /// these.
    #[must_use]
    pub fn output(&self, n: InstanceId) -> Option<Json> {
        let instance = &self.instances[n.index()];
        if let Some(output) = &instance.output {
            return Some(Arc::clone(output));
        }
        if instance.status != Status::Success {
            return None;
        }
        match &self.node(n).kind {
            NodeKind::Block { .. } | NodeKind::Choice { .. } => {
                self.last_output(*instance.detail()?.scopes.last()?)
            }
            NodeKind::Loop { .. } => {
                let scopes = instance.detail().map_or(&[][..], |detail| &detail.scopes);
                let outputs: Vec<Json> = scopes
                    .iter()
                    .map(|&scope| self.last_output(scope).unwrap_or_else(|| "null".into()))
                    .collect();
                Some(format!("[{}]", outputs.join(",")).into())
            }
            _ => None,
        }
    }

    fn last_output(&self, scope: ScopeId) -> Option<Json> {
        let scope = &self.scopes[scope.index()];
        let count = u32::try_from(self.graph.list(scope.list).nodes.len()).ok()?;
        self.output(InstanceId(scope.first + count - 1))
    }

    /// The steps directly before one: those it waits for, or, at the beginning of a block,
    /// those before the block.
    pub(crate) fn directly_before(&self, mut n: InstanceId) -> Vec<InstanceId> {
        loop {
            let scope = &self.scopes[self.instances[n.index()].scope.index()];
            let on = &self.node(n).depends_on;
            if !on.is_empty() {
                return on.iter().map(|at| InstanceId(scope.first + at)).collect();
            }
            match scope.parent {
                Some(parent) => n = parent,
                None => return Vec::new(),
            }
        }
    }

    /// The steps of the whole that nothing waits for.
    pub(crate) fn last_steps(&self) -> Vec<InstanceId> {
        let nodes = &self.graph.list(Graph::ROOT).nodes;
        let last = |&(_, node): &(usize, &NodeId)| self.graph.node(*node).dependents.is_empty();
        nodes
            .iter()
            .enumerate()
            .filter(last)
            .filter_map(|(at, _)| u32::try_from(at).ok().map(InstanceId))
            .collect()
    }

    /// All entries of the result, in the order of the definition; those of `on_failure` last.
    #[must_use]
    pub fn steps(&self) -> Vec<StepView> {
        let mut steps = Vec::new();
        self.list_scope(ScopeId(0), &mut steps);
        if let Some(handler) = self.handler {
            self.list_scope(handler, &mut steps);
        }
        steps
    }

    /// The counts over the entries, those of `on_failure` left out.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.visit(ScopeId(0), &mut |status| {
            counts.total += 1;
            match status {
                Some(Status::Success) => counts.successful += 1,
                Some(Status::Failure) => counts.failed += 1,
                Some(Status::Skipped | Status::NotStarted) => counts.skipped += 1,
                Some(_) => {}
                None => counts.skipped += u32::from(self.phase == Phase::Ended),
            }
        });
        counts
    }

    fn visit(&self, scope: ScopeId, see: &mut dyn FnMut(Option<Status>)) {
        let scope = &self.scopes[scope.index()];
        for (n, &node) in (scope.first..).zip(&self.graph.list(scope.list).nodes) {
            let instance = &self.instances[InstanceId(n).index()];
            see(Some(instance.status));
            let (opened, unopened) = self.inner_lists(InstanceId(n), node);
            for inner in opened {
                self.visit(inner, see);
            }
            for list in unopened {
                self.visit_list(list, instance.status, see);
            }
        }
    }

    fn visit_list(&self, list: ListId, above: Status, see: &mut dyn FnMut(Option<Status>)) {
        for &node in &self.graph.list(list).nodes {
            see(above.is_settled().then_some(Status::NotStarted));
            for inner in static_lists(&self.graph.node(node).kind) {
                self.visit_list(inner, above, see);
            }
        }
    }

    /// The scopes that an instance has opened, and the lists that it has (yet) not.
    fn inner_lists(&self, n: InstanceId, node: NodeId) -> (Vec<ScopeId>, Vec<ListId>) {
        let scopes = self.instances[n.index()]
            .detail()
            .map_or_else(Vec::new, |detail| detail.scopes.clone());
        let opened: Vec<ListId> =
            scopes.iter().map(|scope| self.scopes[scope.index()].list).collect();
        let mut unopened = static_lists(&self.graph.node(node).kind);
        unopened.retain(|list| !opened.contains(list));
        (scopes, unopened)
    }

    fn list_scope(&self, scope: ScopeId, into: &mut Vec<StepView>) {
        let (first, list) = (self.scopes[scope.index()].first, self.scopes[scope.index()].list);
        for (n, &node) in (first..).zip(&self.graph.list(list).nodes) {
            let n = InstanceId(n);
            let view = self.step_view(n);
            let path = Arc::clone(&view.path);
            let settled = self.instances[n.index()].status.is_settled();
            into.push(view);
            let (opened, unopened) = self.inner_lists(n, node);
            // The branch that was not taken stands where the definition has it.
            let first_is_other = self.instances[n.index()].detail().is_some_and(|d| d.otherwise);
            if first_is_other {
                unopened.iter().for_each(|&list| self.list_unopened(list, &path, settled, into));
            }
            opened.iter().for_each(|&inner| self.list_scope(inner, into));
            if !first_is_other {
                unopened.iter().for_each(|&list| self.list_unopened(list, &path, settled, into));
            }
        }
    }

    fn list_unopened(&self, list: ListId, above: &str, settled: bool, into: &mut Vec<StepView>) {
        for &node in &self.graph.list(list).nodes {
            let node = self.graph.node(node);
            let path: Arc<str> = format!("{above}.{}", node.id).into();
            let (agent, action) = names(&node.kind);
            into.push(StepView {
                path: Arc::clone(&path),
                agent,
                action,
                status: if settled { "skipped" } else { "pending" },
                output: None,
                error: None,
                attempts: 0,
                start: None,
                end: None,
                by: None,
                waiting: None,
            });
            for inner in static_lists(&node.kind) {
                self.list_unopened(inner, &path, settled, into);
            }
        }
    }

    fn step_view(&self, n: InstanceId) -> StepView {
        let instance = &self.instances[n.index()];
        let (agent, action) = names(&self.node(n).kind);
        let error = match instance.status {
            Status::Failure | Status::Queued => instance.error().map(|e| e.message.clone()),
            _ => None,
        };
        StepView {
            path: self.path(n),
            agent,
            action,
            status: status_word(instance.status),
            output: self.output(n),
            error,
            attempts: self.attempts(n),
            start: (instance.ready_at != Instant::default()).then_some(instance.ready_at),
            end: instance.status.is_settled().then_some(instance.settled_at),
            by: instance.by.clone(),
            waiting: self.waiting(n),
        }
    }

    fn waiting(&self, n: InstanceId) -> Option<Waiting> {
        let instance = &self.instances[n.index()];
        let detail = instance.detail();
        match instance.status {
            Status::Queued => Some(Waiting::Agent(self.task_key(n, Purpose::Do))),
            Status::Blocked => {
                let key = detail?.keys.iter().find(|key| !key.granted)?;
                Some(Waiting::Key(Arc::clone(&key.key)))
            }
            Status::Waiting => {
                let detail = detail?;
                Some(Waiting::For(detail.waiting_for.clone()?, detail.until))
            }
            _ => None,
        }
    }
}

/// The lists of a node that are there without an iteration.
fn static_lists(kind: &NodeKind) -> Vec<ListId> {
    match kind {
        NodeKind::Block { body } => vec![*body],
        NodeKind::Choice { then, otherwise } => {
            then.iter().chain(otherwise.iter()).copied().collect()
        }
        _ => Vec::new(),
    }
}

fn names(kind: &NodeKind) -> (Arc<str>, Arc<str>) {
    match kind {
        NodeKind::Action(action) => {
            (action.agent.clone().unwrap_or_else(|| Arc::from("")), Arc::clone(&action.action))
        }
        _ => (Arc::from(""), Arc::from("")),
    }
}
