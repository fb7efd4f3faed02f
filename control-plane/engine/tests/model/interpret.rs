//! The model: a run as a tree of steps, moved on by looking at all of it again and again until
//! nothing changes.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::expression::Expr;
use crate::here::Here;
use crate::language::{Fail, Key, Kind, Repeat, Retry, Workflow};
use crate::plan::{Node, Plan};
use crate::render::message;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Is {
    Pending,
    /// A task is out, or its next attempt is due.
    Out,
    /// It waits for a time, a signal or a person.
    Waiting,
    /// Its inner steps run.
    Open,
    Success,
    Failure,
    Skipped,
    Cancelled,
}

impl Is {
    pub(crate) fn settled(self) -> bool {
        matches!(self, Self::Success | Self::Failure | Self::Skipped | Self::Cancelled)
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Out | Self::Open | Self::Waiting => "running",
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Skipped => "skipped",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A step in one iteration of everything around it.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub(crate) list: usize,
    pub(crate) place: usize,
    pub(crate) scope: usize,
    pub(crate) path: String,
    pub(crate) is: Is,
    pub(crate) attempt: u32,
    pub(crate) not_before: Option<i64>,
    pub(crate) input: Value,
    pub(crate) output: Value,
    pub(crate) error: Option<String>,
    /// When a wait ends, or is given up.
    pub(crate) until: Option<i64>,
    pub(crate) deadline: Option<i64>,
    /// The lists that were opened in it, one per iteration.
    pub(crate) scopes: Vec<usize>,
    /// A failure below it was not held below it.
    failed: Option<String>,
    /// Nothing in it begins any more.
    stopping: bool,
    /// It ended before its time.
    cut: bool,
}

/// A list that was opened.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    pub(crate) parent: Option<usize>,
    pub(crate) lives: Vec<usize>,
    pub(crate) iteration: Option<usize>,
    pub(crate) item: Option<i64>,
}

pub(crate) struct Model<'w> {
    pub(crate) workflow: &'w Workflow,
    pub(crate) plan: Plan,
    pub(crate) lives: Vec<Live>,
    pub(crate) scopes: Vec<Scope>,
    pub(crate) now: i64,
    pub(crate) deadline: Option<i64>,
    /// The first failure that nothing held: the step's id and the text.
    pub(crate) failure: Option<(String, String)>,
    stopping: bool,
    /// Steps of the whole that are stopped with all that is in them, under `scope: branch`.
    branches: BTreeSet<usize>,
    handler_stopping: bool,
    pub(crate) handler: Option<usize>,
    /// Actions in the order in which they ended well.
    completed: Vec<usize>,
    checkpointed: usize,
    /// What is undone, in order.
    pub(crate) undone: Vec<String>,
    pub(crate) ended: Option<&'static str>,
    /// The run's deadline has passed.
    late: bool,
}

impl<'w> Model<'w> {
    pub(crate) fn new(workflow: &'w Workflow) -> Self {
        let mut model = Self {
            workflow,
            plan: Plan::new(workflow),
            lives: Vec::new(),
            scopes: Vec::new(),
            now: 0,
            deadline: workflow.deadline,
            failure: None,
            stopping: false,
            branches: BTreeSet::new(),
            handler_stopping: false,
            handler: None,
            completed: Vec::new(),
            checkpointed: 0,
            undone: Vec::new(),
            ended: None,
            late: false,
        };
        model.open(None, 0, None, None);
        model.advance();
        model
    }

    pub(crate) fn node(&self, live: usize) -> &Node {
        let live = &self.lives[live];
        &self.plan.lists[live.list].nodes[live.place]
    }

    pub(crate) fn parent(&self, live: usize) -> Option<usize> {
        self.scopes[self.lives[live].scope].parent
    }

    fn open(
        &mut self,
        parent: Option<usize>,
        list: usize,
        iteration: Option<usize>,
        item: Option<i64>,
    ) {
        let scope = self.scopes.len();
        let count = self.plan.lists[list].nodes.len();
        let first = self.lives.len();
        for place in 0..count {
            let node = &self.plan.lists[list].nodes[place];
            let id = &self.workflow.ids[node.step.key];
            let above = parent.map(|parent| &self.lives[parent].path);
            let inline = parent.is_some_and(|parent| self.node(parent).inline);
            let path = match (above, iteration) {
                (None, _) if list == 1 => format!("on_failure.{id}"),
                (None, _) => id.clone(),
                (Some(above), Some(number)) if inline => format!("{above}[{number}]"),
                (Some(above), Some(number)) => format!("{above}[{number}].{id}"),
                (Some(above), None) => format!("{above}.{id}"),
            };
            self.lives.push(Live {
                list,
                place,
                scope,
                path,
                is: Is::Pending,
                attempt: 0,
                not_before: None,
                input: Value::Null,
                output: Value::Null,
                error: None,
                until: None,
                deadline: None,
                scopes: Vec::new(),
                failed: None,
                stopping: false,
                cut: false,
            });
        }
        let lives = (first..first + count).collect();
        self.scopes.push(Scope { parent, lives, iteration, item });
        if let Some(parent) = parent {
            self.lives[parent].scopes.push(scope);
        }
        if list == 1 {
            self.handler = Some(scope);
        }
    }

    fn in_handler(&self, live: usize) -> bool {
        let top = self.top(live);
        Some(self.lives[top].scope) == self.handler
    }

    fn top(&self, mut live: usize) -> usize {
        while let Some(parent) = self.parent(live) {
            live = parent;
        }
        live
    }

    /// Whether nothing may begin here any more.
    fn stopped(&self, live: usize) -> bool {
        let top = self.top(live);
        let whole = if self.in_handler(live) { self.handler_stopping } else { self.stopping };
        let mut above = self.parent(live);
        while let Some(parent) = above {
            if self.lives[parent].stopping {
                return true;
            }
            above = self.parent(parent);
        }
        whole || self.branches.contains(&top)
    }

    /// Moves everything on that can move on by itself.
    fn advance(&mut self) {
        if self.ended.is_some() {
            return;
        }
        let mut changed = true;
        while changed {
            changed = false;
            let mut at = 0;
            while at < self.lives.len() {
                changed |= self.look(at);
                at += 1;
            }
        }
        let quiet = self.lives.iter().all(|live| live.is.settled());
        if quiet {
            self.close();
        }
    }

    fn look(&mut self, at: usize) -> bool {
        match self.lives[at].is {
            Is::Pending if self.stopped(at) => {
                self.lives[at].is = Is::Skipped;
                self.lives[at].cut = true;
                true
            }
            Is::Pending => {
                let scope = &self.scopes[self.lives[at].scope];
                let ready =
                    self.node(at).on.iter().all(|on| self.lives[scope.lives[*on]].is.settled());
                if ready {
                    self.begin(at);
                }
                ready
            }
            // A step that is between two attempts gets no further one.
            Is::Out if self.lives[at].not_before.is_some_and(|at| at > self.now) => {
                let stopped = self.stopped(at);
                if stopped {
                    let error = self.lives[at].error.clone().unwrap();
                    self.unmade(at);
                    self.fail(at, error);
                }
                stopped
            }
            Is::Open => self.look_into(at),
            _ => false,
        }
    }

    fn begin(&mut self, at: usize) {
        let node = self.node(at).clone();
        let step = &node.step;
        self.lives[at].deadline = step.deadline.map(|deadline| self.now + deadline);
        let mut branch = 0;
        if let Some(condition) = &step.condition {
            match condition.value(&Here { model: self, live: at, next: None }) {
                Some(Value::Bool(true)) => {}
                Some(Value::Bool(false)) if node.inner.len() == 2 => branch = 1,
                Some(Value::Bool(false)) => {
                    self.lives[at].is = Is::Skipped;
                    return;
                }
                // No value, or not a boolean.
                _ => return self.fail(at, condition.written(&self.workflow.ids)),
            }
        }
        if !node.inner.is_empty() {
            self.lives[at].is = Is::Open;
            if node.loops().is_none() {
                self.open(Some(at), node.inner[branch], None, None);
            }
            return;
        }
        match &step.kind {
            Kind::Wait(time) => {
                self.lives[at].is = Is::Waiting;
                self.lives[at].until = Some(self.now + time);
            }
            Kind::WaitFor { timeout, .. } | Kind::Approve { timeout, .. } => {
                self.lives[at].is = Is::Waiting;
                self.lives[at].until = Some(self.now + timeout);
            }
            _ => match self.input(at, &step.kind, step.key) {
                Ok(input) => {
                    self.lives[at].is = Is::Out;
                    self.lives[at].attempt = 1;
                    self.lives[at].input = input;
                }
                Err(source) => self.fail(at, source),
            },
        }
    }

    fn input(&self, at: usize, kind: &Kind, key: Key) -> Result<Value, String> {
        let mut input = Map::new();
        match kind {
            Kind::Echo { params, .. } => {
                for (name, expr) in params {
                    let value = expr.value(&Here { model: self, live: at, next: None });
                    let source = || expr.written(&self.workflow.ids);
                    input.insert(name.clone(), value.ok_or_else(source)?);
                }
            }
            Kind::Fail(fail) => {
                input.insert("message".to_owned(), json!(message(key)));
                if let Some(after) = fail.succeed_after {
                    input.insert("succeed_after".to_owned(), json!(after));
                }
                if fail.permanent {
                    input.insert("kind".to_owned(), json!("permanent"));
                }
                if !fail.code.is_empty() {
                    input.insert("code".to_owned(), json!(fail.code));
                }
            }
            _ => {}
        }
        Ok(Value::Object(input))
    }

    fn succeed(&mut self, at: usize, output: Value) {
        self.lives[at].is = Is::Success;
        self.lives[at].output = output;
        // A failed attempt before the one that went well is no error of the step.
        self.lives[at].error = None;
        let node = self.node(at);
        let checkpoint = node.step.checkpoint;
        let is_action = node.inner.is_empty()
            && matches!(node.step.kind, Kind::Echo { .. } | Kind::Append | Kind::Fail(_));
        if is_action {
            self.completed.push(at);
        }
        if checkpoint {
            self.checkpointed = self.completed.len();
        }
    }

    /// A step's final failure, and how far it goes up.
    fn fail(&mut self, at: usize, error: String) {
        self.lives[at].is = Is::Failure;
        self.lives[at].error = Some(error.clone());
        if self.node(at).step.held {
            return;
        }
        self.tell_block(at);
        let mut holder = None;
        let mut above = self.parent(at);
        while let Some(parent) = above {
            if self.node(parent).step.held {
                holder = Some(parent);
                break;
            }
            above = self.parent(parent);
        }
        if let Some(holder) = holder {
            self.lives[holder].stopping = true;
        } else if self.in_handler(at) {
            self.handler_stopping = true;
        } else {
            let id = self.workflow.ids[self.node(at).step.key].clone();
            self.failure.get_or_insert((id, error));
            if self.workflow.branch { self.stop_branch(at) } else { self.stopping = true }
        }
        if self.workflow.fail_fast {
            for other in 0..self.lives.len() {
                if !self.lives[other].is.settled() && self.stopped(other) {
                    self.cancel(other);
                }
            }
        }
    }

    /// A block has the failure of the first step directly in it that failed.
    fn tell_block(&mut self, at: usize) {
        let error = self.lives[at].error.clone();
        if let Some(parent) = self.parent(at) {
            let failed = &mut self.lives[parent].failed;
            *failed = failed.take().or(error);
        }
    }

    /// The failed step's branch, and what depends on it, begin nothing more.
    fn stop_branch(&mut self, at: usize) {
        let top = self.top(at);
        self.branches.insert(top);
        let lives = &self.scopes[0].lives;
        for (node, live) in self.plan.lists[0].nodes.iter().zip(lives) {
            if node.on.iter().any(|on| self.branches.contains(&lives[*on])) {
                self.branches.insert(*live);
            }
        }
    }

    /// Stops what runs; what has not begun is skipped by the next look.
    fn cancel(&mut self, at: usize) {
        if matches!(self.lives[at].is, Is::Out | Is::Waiting) {
            self.unmade(at);
            let live = &mut self.lives[at];
            live.is = Is::Cancelled;
            live.cut = true;
            live.error = None;
        }
    }

    /// An attempt whose time had not come was not made.
    fn unmade(&mut self, at: usize) {
        let now = self.now;
        let live = &mut self.lives[at];
        if live.not_before.is_some_and(|at| at > now) {
            live.attempt -= 1;
        }
    }

    fn below(&self, at: usize) -> Vec<usize> {
        let mut found = Vec::new();
        for scope in &self.lives[at].scopes {
            for live in &self.scopes[*scope].lives {
                found.push(*live);
                found.extend(self.below(*live));
            }
        }
        found
    }

    /// Looks whether a block or a loop goes on or has come to its end.
    fn look_into(&mut self, at: usize) -> bool {
        let node = self.node(at).clone();
        let scopes = self.lives[at].scopes.clone();
        let running = scopes.iter().filter(|scope| !self.scope_settled(**scope)).count();
        let stopping = self.lives[at].stopping || self.stopped(at);
        let begun = scopes.len();
        let mut complete = true;
        match node.loops() {
            None if running > 0 => return false,
            None => {}
            Some(Repeat::Each { items, max_parallel, .. }) => {
                complete = begun == items.len();
                if !stopping && !complete && running < max_parallel.unwrap_or(usize::MAX) {
                    self.open(Some(at), node.inner[0], Some(begun), Some(items[begun]));
                    return true;
                }
                if running > 0 {
                    return false;
                }
            }
            Some(Repeat::While { condition, max_iterations }) => {
                if running > 0 {
                    return false;
                }
                // A loop that is done in spite of a failure beside it went well.
                let cut = self.is_cut(at);
                if cut || self.lives[at].failed.is_some() {
                    complete = false;
                } else {
                    let here = Here { model: self, live: at, next: Some(begun) };
                    match condition.value(&here) {
                        Some(Value::Bool(false)) => {}
                        Some(Value::Bool(true)) if begun < *max_iterations && stopping => {
                            complete = false;
                        }
                        Some(Value::Bool(true)) if begun < *max_iterations => {
                            self.open(Some(at), node.inner[0], Some(begun), None);
                            return true;
                        }
                        Some(Value::Bool(true)) => {
                            self.fail(at, max_iterations.to_string());
                            return true;
                        }
                        _ => {
                            self.fail(at, condition.written(&self.workflow.ids));
                            return true;
                        }
                    }
                }
            }
        }
        self.close_block(at, complete);
        true
    }

    fn scope_settled(&self, scope: usize) -> bool {
        self.scopes[scope].lives.iter().all(|live| self.lives[*live].is.settled())
    }

    /// Whether something directly in it ended before its time.
    fn is_cut(&self, at: usize) -> bool {
        let lives = self.lives[at].scopes.iter().flat_map(|scope| &self.scopes[*scope].lives);
        lives.into_iter().any(|live| self.lives[*live].cut)
    }

    fn close_block(&mut self, at: usize, complete: bool) {
        let cut = self.is_cut(at);
        if let Some(error) = self.lives[at].failed.clone() {
            // It went up when it happened.
            self.lives[at].is = Is::Failure;
            self.lives[at].error = Some(error);
            if !self.node(at).step.held {
                self.tell_block(at);
            }
        } else if cut || !complete {
            self.lives[at].is = Is::Cancelled;
            self.lives[at].cut = true;
        } else {
            let output = self.block_output(at);
            self.succeed(at, output);
        }
    }

    /// The output of the last listed step, members of a group being listed behind their head; of
    /// a loop, the list of these.
    fn block_output(&self, at: usize) -> Value {
        let last = |scope: &usize| {
            let last = *self.scopes[*scope].lives.last().unwrap();
            self.lives[last].output.clone()
        };
        let scopes = &self.lives[at].scopes;
        match self.node(at).loops() {
            Some(_) => scopes.iter().map(last).collect(),
            None => last(&scopes[0]),
        }
    }

    /// The tasks that are out: path, attempt, and when it may be made.
    pub(crate) fn out(&self) -> Vec<(String, u32, Option<i64>)> {
        let out = self.lives.iter().filter(|live| live.is == Is::Out);
        let mut out: Vec<_> =
            out.map(|live| (live.path.clone(), live.attempt, live.not_before)).collect();
        out.sort();
        out
    }

    fn find(&self, path: &str) -> usize {
        self.lives.iter().position(|live| live.path == path).unwrap()
    }

    /// An agent does what the echo agent does.
    pub(crate) fn report(&mut self, path: &str) {
        let at = self.find(path);
        let node = self.node(at);
        if let Kind::Fail(fail) = node.step.kind.clone()
            && fail.succeed_after.is_none_or(|after| self.lives[at].attempt < after)
        {
            let error = message(node.step.key);
            self.attempt_failed(at, &fail, error);
        } else {
            self.lives[at].not_before = None;
            let output = self.lives[at].input.clone();
            self.succeed(at, output);
        }
        self.advance();
    }

    fn attempt_failed(&mut self, at: usize, fail: &Fail, error: String) {
        let policy = fail.retry.as_ref().or(self.workflow.retry.as_ref());
        let attempt = self.lives[at].attempt;
        let again = policy.filter(|policy| {
            let named = policy.retry_on.is_empty() || policy.retry_on.contains(&fail.code);
            attempt < policy.max_attempts
                && !fail.permanent
                && named
                && !policy.no_retry_on.contains(&fail.code)
        });
        let stopped = self.stopped(at);
        match again {
            Some(policy) if !stopped => {
                let at_time = self.now + delay(policy, attempt);
                let live = &mut self.lives[at];
                live.attempt += 1;
                live.not_before = Some(at_time);
                live.error = Some(error);
            }
            _ => self.fail(at, error),
        }
    }

    /// Something came from outside: a signal, or a person's word.
    pub(crate) fn answered(&mut self, path: &str) {
        let at = self.find(path);
        match self.node(at).step.kind {
            Kind::Approve { answer: Some(false), .. } => {
                self.fail(at, "rejected".to_owned());
            }
            Kind::Approve { .. } => {
                self.succeed(at, json!({"approved": true, "comment": "", "by": "ann"}));
            }
            _ => self.succeed(at, json!({"by": "signal"})),
        }
        self.advance();
    }

    /// Steps that wait for an answer which will come.
    pub(crate) fn answerable(&self) -> Vec<(String, Kind, Key)> {
        let mut found = Vec::new();
        for (at, live) in self.lives.iter().enumerate() {
            let step = &self.node(at).step;
            let comes = match step.kind {
                Kind::WaitFor { arrives, .. } => arrives,
                Kind::Approve { answer, .. } => answer.is_some(),
                _ => false,
            };
            if live.is == Is::Waiting && comes {
                found.push((live.path.clone(), step.kind.clone(), step.key));
            }
        }
        found
    }

    pub(crate) fn next_time(&self) -> Option<i64> {
        let of = |live: &Live| {
            let out = (live.is == Is::Out).then_some(live.not_before).flatten();
            let until = (live.is == Is::Waiting).then_some(live.until).flatten();
            let deadline = if live.is.settled() { None } else { live.deadline };
            [out, until, deadline].into_iter().flatten().min()
        };
        self.lives.iter().filter_map(of).chain(self.deadline).min()
    }

    /// Time has come to `now`.
    pub(crate) fn tick(&mut self, now: i64) {
        self.now = now;
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.run_late();
        }
        for at in 0..self.lives.len() {
            let live = &self.lives[at];
            let over = live.deadline.is_some_and(|deadline| deadline <= now);
            if !live.is.settled() && over {
                for inner in self.below(at) {
                    self.cancel(inner);
                    self.lives[inner].stopping = true;
                }
                self.lives[at].stopping = true;
                if self.lives[at].is == Is::Open {
                    // It fails once what is in it has stopped, which it has.
                    self.settle_below(at);
                }
                self.unmade(at);
                self.fail(at, "deadline".to_owned());
            } else if live.is == Is::Waiting && live.until.is_some_and(|until| until <= now) {
                match self.node(at).step.kind {
                    Kind::Wait(_) => self.succeed(at, Value::Null),
                    _ => self.fail(at, "did not come within".to_owned()),
                }
            }
        }
        self.advance();
    }

    fn settle_below(&mut self, at: usize) {
        for inner in self.below(at).into_iter().rev() {
            match self.lives[inner].is {
                Is::Pending => self.lives[inner].is = Is::Skipped,
                Is::Open if self.lives[inner].failed.is_some() => {
                    self.lives[inner].is = Is::Failure;
                    self.lives[inner].error = self.lives[inner].failed.clone();
                    if !self.node(inner).step.held {
                        self.tell_block(inner);
                    }
                }
                Is::Open => self.lives[inner].is = Is::Cancelled,
                _ => {}
            }
            self.lives[inner].cut = true;
        }
    }

    /// The run's deadline: everything stops, and it has failed.
    fn run_late(&mut self) {
        self.deadline = None;
        self.late = true;
        self.failure.get_or_insert((String::new(), "deadline".to_owned()));
        self.stopping = true;
        for at in 0..self.lives.len() {
            self.cancel(at);
        }
    }

    /// All has settled: undo, then `on_failure`, then the end.
    fn close(&mut self) {
        if self.failure.is_none() {
            self.ended = Some("success");
            return;
        }
        self.deadline = None;
        if self.handler.is_none() {
            self.undo();
            if !self.workflow.on_failure.is_empty() {
                self.open(None, 1, None, None);
                return self.advance();
            }
        }
        let asked = self.workflow.rollback != "none";
        let undone = asked && !self.workflow.branch && !self.late;
        self.ended = Some(if undone { "rolled_back" } else { "failure" });
    }

    fn undo(&mut self) {
        let from = match self.workflow.rollback {
            "none" => return,
            "to_checkpoint" => self.checkpointed,
            _ => 0,
        };
        for &at in self.completed[from..].iter().rev() {
            // A deadline of the whole is no matter of a branch.
            let branch = self.workflow.branch && !self.late;
            let outside = branch && !self.branches.contains(&self.top(at));
            let changes = match self.node(at).step.kind {
                Kind::Append => true,
                Kind::Echo { compensate, .. } => compensate,
                _ => false,
            };
            if changes && !outside {
                self.undone.push(self.lives[at].path.clone());
            }
        }
    }

    /// The value of an output of the whole.
    pub(crate) fn whole_output(&self, expr: &Expr) -> Value {
        expr.value(&Here { model: self, live: 0, next: None }).unwrap_or(Value::Null)
    }
}

fn delay(policy: &Retry, attempt: u32) -> i64 {
    let times = match policy.backoff {
        "exponential" => 1 << (attempt - 1),
        "linear" => i64::from(attempt),
        _ => 1,
    };
    (policy.delay * times).min(policy.max_delay.unwrap_or(i64::MAX))
}
