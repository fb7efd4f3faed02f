//! A world around one run: agents that do what the echo agent does, a clock that jumps to whatever
//! happens next, and checks behind every transition.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use engine::event::{Ending, KeyKind, Origin, RunStarted};
use engine::graph::Graph;
use engine::task::{
    AgentRef, DeclaredUndo, FailureKind, Purpose, TaskError, TaskKey, TaskOrder, TaskOutcome,
    TaskReport,
};
use engine::{Command, Effect, Event, Instant, Phase, Rejection, RunId, State, Transition};
use serde_json::{Value, json};

/// A run and everything around it.
pub(crate) struct World {
    pub(crate) graph: Arc<Graph>,
    pub(crate) state: State,
    pub(crate) journal: Vec<(Instant, Event)>,
    pub(crate) now: Instant,
    /// Tasks that are out or wait for an agent, in the order in which they were given out.
    pub(crate) out: Vec<TaskOrder>,
    /// What was done, in order: `path` of a task, `undo path` of an undo.
    pub(crate) done: Vec<String>,
    pub(crate) notified: Vec<String>,
    pub(crate) ended: Option<Ending>,
    /// Signals and decisions to be sent when nothing else happens.
    pub(crate) script: Vec<Command>,
    /// What the world has to say to effects.
    answers: Vec<Command>,
    /// Which of several tasks reports next.
    pub(crate) pick: Box<dyn FnMut(usize) -> usize>,
    /// The most tasks that were out at once.
    pub(crate) most_out: usize,
    pub(crate) children: BTreeMap<String, Value>,
}

/// Runs a definition to its end, tasks reporting in the order in which they were given out.
pub(crate) fn run(yaml: &str) -> World {
    let mut world = World::new(yaml, &json!({}));
    world.run();
    world
}

/// The statuses of all steps: `path=status`, joined by spaces.
pub(crate) fn statuses(world: &World) -> String {
    let steps = world.state.steps();
    let words: Vec<String> =
        steps.iter().map(|step| format!("{}={}", step.path, step.status)).collect();
    words.join(" ")
}

/// What a run came to, behind a check of its steps.
pub(crate) fn check(yaml: &str, ending: Ending, expected: &str) -> World {
    let world = run(yaml);
    assert_eq!(statuses(&world), expected, "\n{yaml}");
    assert_eq!(world.ended, Some(ending), "\n{yaml}");
    world
}

impl World {
    pub(crate) fn new(yaml: &str, params: &Value) -> Self {
        let (graph, _) = engine::definition::compile("test.yml", yaml.as_bytes())
            .unwrap_or_else(|complaints| panic!("{complaints:#?}\n{yaml}"));
        let graph = Arc::new(graph);
        let params = engine::definition::check_params(&graph, Some(params)).unwrap();
        let now = Instant(1_700_000_000_000_000);
        let started = RunStarted {
            workflow: graph.name.to_string(),
            version: graph.version.clone(),
            hash: graph.hash.to_string(),
            params: Value::Object(params).to_string().into(),
            tenant: "default".to_owned(),
            origin: Origin::default(),
            labels: BTreeMap::new(),
            priority: graph.priority,
            parent: None,
            epoch: 1,
            siblings: BTreeMap::new(),
        };
        let id = RunId::at_instant(now, "test");
        let (state, transition) = engine::start(id, Arc::clone(&graph), started, now).unwrap();
        let mut world = Self {
            graph,
            state,
            journal: Vec::new(),
            now,
            out: Vec::new(),
            done: Vec::new(),
            notified: Vec::new(),
            ended: None,
            script: Vec::new(),
            answers: Vec::new(),
            pick: Box::new(|_| 0),
            most_out: 0,
            children: BTreeMap::new(),
        };
        world.took(transition);
        // A tick changes nothing by itself; the answers to the start's effects are given.
        world.ask(Command::Tick).unwrap();
        world
    }

    /// Lets everything happen until the run ends or nothing can happen.
    pub(crate) fn run(&mut self) {
        for _ in 0..100_000 {
            if self.ended.is_some() || !self.step() {
                return;
            }
        }
        panic!("the run does not come to an end");
    }

    /// Lets one thing happen; gives whether there was one.
    pub(crate) fn step(&mut self) -> bool {
        let ready: Vec<usize> = (0..self.out.len())
            .filter(|&at| self.out[at].not_before.is_none_or(|at| at <= self.now))
            .collect();
        if !ready.is_empty() {
            let at = ready[(self.pick)(ready.len())];
            let order = self.out.remove(at);
            let outcome = self.perform(&order);
            self.report(&order, outcome);
            return true;
        }
        if !self.script.is_empty() {
            let command = self.script.remove(0);
            self.ask(command).unwrap();
            return true;
        }
        let next_attempt = self.out.iter().filter_map(|order| order.not_before).min();
        let next = [next_attempt, self.state.next_wakeup()].into_iter().flatten().min();
        let Some(at) = next else { return false };
        self.now = self.now.max(at);
        if self.state.next_wakeup().is_some_and(|at| at <= self.now) {
            self.ask(Command::Tick).unwrap();
        }
        true
    }

    pub(crate) fn report(&mut self, order: &TaskOrder, outcome: TaskOutcome) {
        let agent = Some(AgentRef { agent_type: Arc::from("echo"), instance: Arc::from("a") });
        let (key, attempt) = (order.key, order.attempt);
        self.ask(Command::Report(TaskReport {
            key,
            attempt,
            agent,
            outcome,
            touched: Vec::new(),
            took: None,
        }))
        .unwrap();
    }

    pub(crate) fn ask(&mut self, command: Command) -> Result<(), Rejection> {
        let transition = engine::decide(&mut self.state, command, self.now)?;
        self.took(transition);
        while !self.answers.is_empty() {
            let answer = self.answers.remove(0);
            // What was asked for may have been settled in between.
            if let Ok(transition) = engine::decide(&mut self.state, answer, self.now) {
                self.took(transition);
            }
        }
        self.check();
        Ok(())
    }

    fn took(&mut self, transition: Transition) {
        let Transition { events, effects, more } = transition;
        for event in events {
            let body = event.encode().unwrap();
            assert_eq!(Event::decode(event.kind(), &body).unwrap(), event, "survives the journal");
            self.journal.push((self.now, event));
        }
        let mut commands = Vec::new();
        for effect in effects {
            self.carry_out(effect, &mut commands);
        }
        self.most_out = self.most_out.max(self.out.len());
        if more {
            commands.push(Command::Tick);
        }
        self.answers.extend(commands);
    }

    fn carry_out(&mut self, effect: Effect, commands: &mut Vec<Command>) {
        match effect {
            Effect::Dispatch(order) => self.out.push(*order),
            Effect::CancelTask { key, .. } | Effect::Withdraw { key } => {
                if let Some(order) = self.take(&key) {
                    commands.push(Command::Report(TaskReport {
                        key,
                        attempt: order.attempt,
                        agent: None,
                        outcome: TaskOutcome::Cancelled,
                        touched: Vec::new(),
                        took: None,
                    }));
                }
            }
            Effect::Acquire(acquire) => {
                let (instance, which) = (acquire.instance, acquire.which);
                assert!(matches!(which, KeyKind::Concurrency | KeyKind::Rate));
                commands.push(Command::Granted { instance, which });
            }
            Effect::Notify { instance, message, channels } => {
                self.notified.push(message);
                commands.push(Command::Notified { instance, sent: Some(channels), error: None });
            }
            Effect::StartChild { instance, child, .. } => {
                let output = self.children.get(&child.workflow).cloned();
                commands.push(Command::ChildEnded {
                    instance,
                    child: child.run,
                    status: if output.is_some() { Ending::Success } else { Ending::Failure },
                    outputs: output.map(|output| output.to_string().into()),
                    error: Some("no such workflow".to_owned()),
                });
            }
            Effect::Ended { status, .. } => {
                assert_eq!(self.ended, None, "a run ends once");
                self.ended = Some(status);
            }
            Effect::Proceed { .. }
            | Effect::CancelChild { .. }
            | Effect::RollBackChild { .. }
            | Effect::RolledBackForParent { .. }
            | Effect::Release { .. }
            | Effect::Hold(_) => {}
        }
    }

    pub(crate) fn take(&mut self, key: &TaskKey) -> Option<TaskOrder> {
        let at = self.out.iter().position(|order| order.key == *key)?;
        Some(self.out.remove(at))
    }

    /// What the echo agent does.
    fn perform(&mut self, order: &TaskOrder) -> TaskOutcome {
        let input: Value = serde_json::from_str(&order.input).unwrap();
        let undo = match &*order.action {
            "append" => DeclaredUndo::Action("remove_line".to_owned()),
            "stay" => DeclaredUndo::NotUndoable,
            _ => DeclaredUndo::Nothing,
        };
        let mark = match order.key.purpose {
            Purpose::Do => order.path.to_string(),
            Purpose::Undo => format!("undo {}", order.path),
        };
        if &*order.action == "fail" {
            let succeeds = input["succeed_after"].as_u64();
            if succeeds.is_none_or(|after| u64::from(order.attempt) < after) {
                let permanent = input["kind"] == "permanent";
                let kind = if permanent { FailureKind::Permanent } else { FailureKind::Retryable };
                return TaskOutcome::Failed(TaskError {
                    kind,
                    code: input["code"].as_str().unwrap_or_default().to_owned(),
                    message: input["message"].as_str().unwrap_or("failed").to_owned(),
                    retry_after_ms: None,
                    no_effect: false,
                });
            }
        }
        self.done.push(mark);
        TaskOutcome::Succeeded { output: Arc::clone(&order.input), undo }
    }

    /// What must hold behind every transition.
    fn check(&self) {
        let folded = self.fold();
        assert_eq!(folded.version(), self.state.version());
        assert_eq!(folded.steps(), self.state.steps(), "the journal tells all");
        assert_eq!(folded.phase(), self.state.phase());
        assert_eq!(folded.next_wakeup(), self.state.next_wakeup());
        if self.state.phase() == Phase::Ended {
            assert_eq!(self.out, [], "nothing is out when a run has ended");
            return;
        }
        let owed: BTreeSet<(TaskKey, u32)> = folded
            .pending_effects()
            .into_iter()
            .filter_map(|effect| match effect {
                Effect::Dispatch(order) => Some((order.key, order.attempt)),
                _ => None,
            })
            .collect();
        let out: BTreeSet<(TaskKey, u32)> =
            self.out.iter().map(|order| (order.key, order.attempt)).collect();
        assert_eq!(owed, out, "what is owed is what is out");
    }

    /// The state that the journal gives.
    pub(crate) fn fold(&self) -> State {
        let mut journal = self.journal.iter();
        let Some((at, Event::RunStarted(started))) = journal.next() else {
            panic!("a journal begins with the start");
        };
        let id = self.state.id();
        let graph = Arc::clone(&self.graph);
        let mut state = State::new(id, graph, (**started).clone(), *at).unwrap();
        for (at, event) in journal {
            state.apply(event, *at);
        }
        state.settle_fold();
        state
    }

    /// The output of a step.
    pub(crate) fn output(&self, path: &str) -> Value {
        let steps = self.state.steps();
        let step = steps.iter().find(|step| &*step.path == path);
        let step = step.unwrap_or_else(|| panic!("no step {path}"));
        step.output.as_ref().map_or(Value::Null, |json| serde_json::from_str(json).unwrap())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.now.since(self.state.started_at())
    }
}
