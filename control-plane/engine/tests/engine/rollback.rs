//! Rollbacks against a model of the world outside: at the end each change is wholly done, wholly
//! undone, or listed as left with a person called. Never anything else.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use engine::event::{Ending, Origin, RollbackTo, RunStarted, UndoDecision};
use engine::graph::Graph;
use engine::task::{
    AgentRef, DeclaredUndo, FailureKind, Purpose, TaskError, TaskKey, TaskOrder, TaskOutcome,
    TaskReport, Touch,
};
use engine::{
    Command, Effect, Event, Instant, Phase, Rejection, RollbackStatus, RunId, State, Transition,
};
use proptest::prelude::*;
use serde_json::json;

/// Choices that follow from a number.
struct Dice(u64);

impl Dice {
    fn below(&mut self, count: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % count
    }

    fn once_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// What stands outside under one idempotency key and agent type.
#[derive(Clone, Debug, Default, PartialEq)]
struct Change {
    path: String,
    /// It stands outside.
    there: bool,
    /// An undo was made: a do that comes later is refused.
    marked: bool,
    /// How often it was made, and undone.
    made: u32,
    taken_back: u32,
}

/// A run and the world outside of it.
struct World {
    graph: Arc<Graph>,
    state: State,
    journal: Vec<(Instant, Event)>,
    now: Instant,
    out: Vec<TaskOrder>,
    outside: BTreeMap<(String, String), Change>,
    ended: Option<Ending>,
    dice: Dice,
    /// Undos of these paths never succeed.
    hopeless: BTreeSet<String>,
    /// How many undos were out at once, at most.
    side_by_side: usize,
}

fn origin() -> Origin {
    Origin { actor: "ann".to_owned(), request: None }
}

impl World {
    fn new(yaml: &str, seed: u64) -> Self {
        let (graph, _) = engine::definition::compile("test.yml", yaml.as_bytes())
            .unwrap_or_else(|complaints| panic!("{complaints:#?}\n{yaml}"));
        let graph = Arc::new(graph);
        let now = Instant(1_700_000_000_000_000);
        let started = started(&graph);
        let id = RunId::at_instant(now, "test");
        let (state, transition) = engine::start(id, Arc::clone(&graph), started, now).unwrap();
        let mut world = Self {
            graph,
            state,
            journal: Vec::new(),
            now,
            out: Vec::new(),
            outside: BTreeMap::new(),
            ended: None,
            dice: Dice(seed | 1),
            hopeless: BTreeSet::new(),
            side_by_side: 0,
        };
        world.took(transition);
        world
    }

    fn ask(&mut self, command: Command) -> Result<(), Rejection> {
        let transition = engine::decide(&mut self.state, command, self.now)?;
        self.took(transition);
        Ok(())
    }

    fn took(&mut self, transition: Transition) {
        self.journal.extend(transition.events.into_iter().map(|event| (self.now, event)));
        let mut stopped = Vec::new();
        for effect in transition.effects {
            match effect {
                Effect::Dispatch(order) => {
                    self.out.retain(|out| out.key != order.key);
                    self.out.push(*order);
                }
                Effect::Withdraw { key } | Effect::CancelTask { key, .. } => stopped.push(key),
                Effect::Ended { status, .. } => self.ended = Some(status),
                _ => {}
            }
        }
        let undo = |order: &&TaskOrder| order.key.purpose == Purpose::Undo;
        self.side_by_side = self.side_by_side.max(self.out.iter().filter(undo).count());
        for key in stopped {
            self.stop(key);
        }
        if transition.more {
            self.ask(Command::Tick).unwrap();
        }
        if self.dice.once_in(4) {
            self.restart();
        }
    }

    /// Some agent may have begun what is stopped, and nobody may know it.
    fn stop(&mut self, key: TaskKey) {
        let Some(at) = self.out.iter().position(|order| order.key == key) else { return };
        let order = self.out.remove(at);
        let mut touched = Vec::new();
        if self.dice.once_in(2) {
            if declared(&order.action) != DeclaredUndo::Nothing && self.dice.once_in(2) {
                self.change(&order, "echo");
            }
            let known = self.dice.once_in(2);
            touched.push(if known { touch(&order, "echo") } else { Touch::unknown() });
        }
        self.report(&order, None, TaskOutcome::Cancelled, touched);
    }

    /// The process dies and the journal is read again.
    fn restart(&mut self) {
        let mut rows = self.journal.iter();
        let Some((at, Event::RunStarted(started))) = rows.next() else { panic!("it starts") };
        let (graph, started) = (Arc::clone(&self.graph), (**started).clone());
        let mut state = State::new(self.state.id(), graph, started, *at).unwrap();
        for (at, event) in rows {
            let body = event.encode().unwrap();
            state.apply(&Event::decode(event.kind(), &body).unwrap(), *at);
        }
        state.settle_fold();
        assert_eq!(state.steps(), self.state.steps(), "the journal tells all");
        assert_eq!(state.rollbacks(), self.state.rollbacks(), "of rollbacks too");
        assert!(state.checkpoints().eq(self.state.checkpoints()), "and of checkpoints");
        assert!(state.questions().eq(self.state.questions()), "and of what is asked");
        assert!(state.rollback_summaries().eq(self.state.rollback_summaries()));
        self.state = state;
        self.out.clear();
        match engine::decide(&mut self.state, Command::Adopt { epoch: 2 }, self.now) {
            Ok(transition) => {
                let events = transition.events.into_iter().map(|event| (self.now, event));
                self.journal.extend(events);
                for effect in self.state.pending_effects().into_iter().chain(transition.effects) {
                    if let Effect::Dispatch(order) = effect {
                        self.out.retain(|out| out.key != order.key);
                        self.out.push(*order);
                    }
                }
                if transition.more {
                    self.ask(Command::Tick).unwrap();
                }
            }
            Err(rejection) => assert_eq!(rejection, Rejection::Ended),
        }
    }

    fn change(&mut self, order: &TaskOrder, agent: &str) -> bool {
        let key = (order.idempotency_key.to_string(), agent.to_owned());
        let change = self.outside.entry(key).or_default();
        change.path = order.path.to_string();
        if change.marked {
            return false;
        }
        if !change.there {
            change.there = true;
            change.made += 1;
        }
        true
    }

    fn take_back(&mut self, order: &TaskOrder, agent: &str) {
        let key = (order.idempotency_key.to_string(), agent.to_owned());
        let change = self.outside.entry(key).or_default();
        change.path = order.path.to_string();
        change.marked = true;
        if change.there {
            change.there = false;
            change.taken_back += 1;
        }
    }

    fn report(
        &mut self,
        order: &TaskOrder,
        agent: Option<&str>,
        outcome: TaskOutcome,
        touched: Vec<Touch>,
    ) {
        let agent = agent.map(by);
        let (key, attempt) = (order.key, order.attempt);
        let report = TaskReport { key, attempt, agent, outcome, touched, took: None };
        self.ask(Command::Report(report)).unwrap();
    }

    /// One task that is out comes to its end.
    fn step(&mut self) -> bool {
        if self.out.is_empty() {
            let Some(at) = self.state.next_wakeup() else { return false };
            self.now = self.now.max(at);
            self.ask(Command::Tick).unwrap();
            return true;
        }
        let at = usize::try_from(self.dice.below(self.out.len() as u64)).unwrap();
        let order = self.out.remove(at);
        self.now = self.now.max(order.not_before.unwrap_or(self.now));
        let agent = order.agent.as_deref().unwrap_or("echo").to_owned();
        if order.key.purpose == Purpose::Undo {
            self.undo(&order, &agent);
        } else {
            self.perform(&order, &agent);
        }
        true
    }

    fn undo(&mut self, order: &TaskOrder, agent: &str) {
        if order.undo_of && declared(&order.action) == DeclaredUndo::NotUndoable {
            let outcome = TaskOutcome::Failed(error(true, true));
            return self.report(order, Some(agent), outcome, Vec::new());
        }
        if self.hopeless.contains(&*order.path) || self.dice.once_in(5) {
            if self.dice.once_in(3) && !self.hopeless.contains(&*order.path) {
                // It was done, and the answer was lost.
                self.take_back(order, agent);
            }
            let permanent = self.hopeless.contains(&*order.path);
            let error = error(permanent, false);
            return self.report(order, Some(agent), TaskOutcome::Failed(error), Vec::new());
        }
        self.take_back(order, agent);
        let outcome = TaskOutcome::Succeeded { output: "null".into(), undo: DeclaredUndo::Nothing };
        self.report(order, Some(agent), outcome, Vec::new());
    }

    fn perform(&mut self, order: &TaskOrder, agent: &str) {
        let undo = declared(&order.action);
        let fails = order.action.starts_with("break") && order.agent.as_deref() != Some("spare");
        let fails = fails || self.dice.once_in(9);
        if fails {
            // It failed before, in the middle of, or behind the change.
            let harmless = self.dice.once_in(3);
            if !harmless && undo != DeclaredUndo::Nothing && self.dice.once_in(2) {
                self.change(order, agent);
            }
            let permanent = self.dice.once_in(2);
            let touched = if harmless { Vec::new() } else { vec![touch(order, agent)] };
            let outcome = TaskOutcome::Failed(error(permanent, harmless));
            return self.report(order, Some(agent), outcome, touched);
        }
        if undo != DeclaredUndo::Nothing && !self.change(order, agent) {
            panic!("{} is done under a key that was undone", order.path);
        }
        let output = Arc::clone(&order.input);
        let outcome = TaskOutcome::Succeeded { output, undo };
        self.report(order, Some(agent), outcome, Vec::new());
    }

    /// Lets everything happen; where a person is needed, one decides.
    fn run(&mut self) {
        for _ in 0..20_000 {
            if self.ended.is_some() && self.state.phase() == Phase::Ended {
                return;
            }
            if self.step() {
                continue;
            }
            assert!(self.state.is_stuck(), "nothing happens, and nobody is asked");
            assert_eq!(self.state.status(), engine::RunStatus::Stuck);
            let rollbacks = self.state.rollbacks();
            let rollback = rollbacks.iter().find(|r| r.status == RollbackStatus::Stuck).unwrap();
            let stuck = rollback.undos.iter().find(|undo| undo.status == "stuck").unwrap();
            let path = stuck.path.to_string();
            let which = self.dice.below(3);
            let decision = match which {
                0 => UndoDecision::Retry,
                1 => UndoDecision::Done,
                _ => UndoDecision::Skip,
            };
            match decision {
                UndoDecision::Retry => drop(self.hopeless.remove(&path)),
                UndoDecision::Done => self.by_hand(&path),
                UndoDecision::Skip => {}
            }
            let comment = "seen".to_owned();
            self.ask(Command::DecideUndo { path, decision, comment, origin: origin() }).unwrap();
        }
        panic!("it does not come to an end");
    }

    fn by_hand(&mut self, path: &str) {
        for change in self.outside.values_mut().filter(|change| change.path == path) {
            change.taken_back += u32::from(change.there);
            change.there = false;
            change.marked = true;
        }
    }

    /// Wholly done, wholly undone, or listed.
    fn check_outside(&self, text: &str) {
        let rollbacks = self.state.rollbacks();
        let rollback = rollbacks.first();
        let listed = |path: &str| {
            rollback.is_some_and(|rollback| {
                let skipped =
                    rollback.undos.iter().any(|u| &*u.path == path && u.status == "skipped");
                skipped || rollback.not_undoable.iter().any(|other| &**other == path)
            })
        };
        for (key, change) in &self.outside {
            assert!(change.taken_back <= change.made, "{key:?} {change:?}\n{text}");
            let left = change.there && self.ended != Some(Ending::Success);
            let passed = rollback.is_none() || listed(&change.path);
            assert!(!left || passed, "{key:?} is left\n{change:?}\n{text}\n{rollbacks:#?}");
            if self.ended == Some(Ending::RolledBack) {
                assert!(!change.there, "{key:?} is said to be undone\n{text}");
            }
        }
        if let Some(rollback) = rollback {
            let whole = rollback.status == RollbackStatus::Succeeded;
            assert_eq!(whole, self.ended == Some(Ending::RolledBack), "{text}\n{rollback:#?}");
        }
    }
}

fn started(graph: &Graph) -> RunStarted {
    RunStarted {
        workflow: graph.name.to_string(),
        version: graph.version.clone(),
        hash: graph.hash.to_string(),
        params: "{}".into(),
        tenant: "default".to_owned(),
        origin: Origin::default(),
        labels: BTreeMap::new(),
        priority: graph.priority,
        parent: None,
        epoch: 1,
        siblings: BTreeMap::new(),
    }
}

fn by(agent: &str) -> AgentRef {
    AgentRef { agent_type: Arc::from(agent), instance: Arc::from(format!("{agent}-1")) }
}

fn touch(order: &TaskOrder, agent: &str) -> Touch {
    Touch { agent: Some(by(agent)), undo: Some(declared(&order.action)) }
}

fn declared(action: &str) -> DeclaredUndo {
    match action {
        "read" => DeclaredUndo::Nothing,
        "stay" | "break_stay" => DeclaredUndo::NotUndoable,
        other => DeclaredUndo::Action(format!("undo_{other}")),
    }
}

fn error(permanent: bool, no_effect: bool) -> TaskError {
    let kind = if permanent { FailureKind::Permanent } else { FailureKind::Retryable };
    TaskError {
        kind,
        code: String::new(),
        message: "it broke".to_owned(),
        retry_after_ms: None,
        no_effect,
    }
}

/// A plan: members side by side, one behind the other, in loops, with other agents to fall back on.
fn plan(dice: &mut Dice) -> String {
    let mut text = "name: t\nerror_handling: {rollback: to_start}\nfail_fast: ".to_owned();
    writeln!(text, "{}\nsteps:", dice.once_in(2)).unwrap();
    for at in 0..=dice.below(7) {
        let action = |dice: &mut Dice| match dice.below(9) {
            0..=3 => "write",
            4 => "read",
            5 => "stay",
            6 => "break_stay",
            _ => "break",
        };
        let name = action(dice);
        let extra = match dice.below(5) {
            0 => ", retry: {max_attempts: 3}",
            1 => ", fallback: [spare]",
            2 => ", continue_on_error: true",
            _ => "",
        };
        match dice.below(6) {
            0 => {
                writeln!(text, "- id: s{at}\n  agent: echo\n  action: {name}\n  parallel:")
                    .unwrap();
                for member in 0..=dice.below(3) {
                    let name = action(dice);
                    writeln!(text, "    - {{id: m{at}{member}, agent: echo, action: {name}}}")
                        .unwrap();
                }
            }
            1 => {
                writeln!(text, "- id: s{at}\n  foreach: '[1, 2, 3]'\n  steps:").unwrap();
                writeln!(text, "    - {{id: i{at}, agent: echo, action: {name}}}").unwrap();
            }
            2 if at > 0 => {
                let on = dice.below(at);
                writeln!(
                    text,
                    "- {{id: s{at}, agent: echo, action: {name}, depends_on: [s{on}]{extra}}}"
                )
                .unwrap();
            }
            _ => writeln!(text, "- {{id: s{at}, agent: echo, action: {name}{extra}}}").unwrap(),
        }
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: 1000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn each_change_is_done_or_undone_or_a_person_is_called(seed: u64) {
        let mut dice = Dice(seed | 1);
        let text = plan(&mut dice);
        let mut world = World::new(&text, dice.below(u64::MAX));
        for step in world.state.steps() {
            if dice.once_in(6) {
                world.hopeless.insert(step.path.to_string());
            }
        }
        world.run();
        world.check_outside(&text);
        if world.ended == Some(Ending::Success) {
            // It is rolled back because somebody asks for it.
            let (to, origin) = (RollbackTo::Start, origin());
            let command = Command::PlanRollback { to, needs_approval: false, origin };
            world.ask(command).unwrap();
            world.ask(Command::ExecuteRollback { number: 1, origin: self::origin() }).unwrap();
            world.run();
            world.check_outside(&text);
        }
    }
}

const CHAIN: &str = "name: t\nsteps:\n\
    - {id: a, agent: echo, action: write, checkpoint: one}\n\
    - {id: b, agent: echo, action: write}\n\
    - {id: c, agent: echo, action: write, checkpoint: two}\n\
    - {id: d, agent: echo, action: write}\n";

/// A world in which nothing fails by chance.
fn calm(yaml: &str) -> World {
    let mut seed = 1;
    loop {
        let mut world = World::new(yaml, seed);
        world.run();
        if world.ended == Some(Ending::Success) {
            return world;
        }
        seed += 2;
    }
}

fn left(world: &World) -> Vec<&str> {
    let there = world.outside.values().filter(|change| change.there);
    let mut left: Vec<&str> = there.map(|change| &*change.path).collect();
    left.sort_unstable();
    left
}

#[test]
fn a_run_is_rolled_back_to_a_checkpoint_and_goes_on_from_there() {
    let mut world = calm(CHAIN);
    let names: Vec<_> =
        world.state.checkpoints().map(|c| (c.name.to_string(), c.step.to_string())).collect();
    let expected = [("one", "a"), ("two", "c")];
    assert_eq!(names, expected.map(|(name, step)| (name.to_owned(), step.to_owned())));
    let to = RollbackTo::Checkpoint("one".to_owned());
    let (steps, not) = world.state.would_undo(&to).unwrap();
    assert_eq!(steps.iter().map(|undo| &*undo.path).collect::<Vec<_>>(), ["d", "c", "b"]);
    assert!(not.is_empty());
    let plan = Command::PlanRollback { to, needs_approval: true, origin: origin() };
    world.ask(plan.clone()).unwrap();
    assert_eq!(world.ask(plan), Err(Rejection::RollbackOpen(1)));
    let execute = Command::ExecuteRollback { number: 1, origin: origin() };
    assert_eq!(world.ask(execute.clone()), Err(Rejection::RollbackNotApproved(1)));
    let comment = "go on".to_owned();
    let approve = Command::ApproveRollback { number: 1, approve: true, comment, origin: origin() };
    world.ask(approve).unwrap();
    world.ask(execute).unwrap();
    world.run();
    assert_eq!(world.ended, Some(Ending::RolledBack));
    assert_eq!(left(&world), ["a"]);
    world.ended = None;
    let params = Some(r#"{"x":1}"#.into());
    world.ask(Command::Reopen { params, origin: origin() }).unwrap();
    world.run();
    if world.ended == Some(Ending::Success) {
        // Another key: the agents keep their marks of what was undone.
        assert_eq!(left(&world), ["a", "b", "c", "d"]);
    }
}

#[test]
fn a_rollback_may_go_back_to_before_a_step() {
    let mut world = calm(CHAIN);
    let to = RollbackTo::Before("d".to_owned());
    let (steps, _) = world.state.would_undo(&to).unwrap();
    assert_eq!(steps.len(), 1);
    let unknown = RollbackTo::Before("x".to_owned());
    assert_eq!(
        world.state.would_undo(&unknown).unwrap_err(),
        Rejection::StepNotFound("x".to_owned())
    );
    let nowhere = RollbackTo::Checkpoint("three".to_owned());
    let command = Command::PlanRollback { to: nowhere, needs_approval: false, origin: origin() };
    assert_eq!(world.ask(command), Err(Rejection::CheckpointNotFound("three".to_owned())));
}

#[test]
fn a_run_that_runs_is_not_rolled_back() {
    let mut world = World::new(CHAIN, 1);
    let to = RollbackTo::Start;
    let command = Command::PlanRollback { to, needs_approval: false, origin: origin() };
    assert_eq!(world.ask(command), Err(Rejection::NotEnded));
}

#[test]
fn a_fork_takes_over_what_was_done_and_leaves_it_to_the_other_run() {
    let world = calm(CHAIN);
    let journal: Vec<(Event, Instant)> =
        world.journal.iter().map(|(at, event)| (event.clone(), *at)).collect();
    let id = RunId::at_instant(world.now, "fork");
    let from = RollbackTo::Checkpoint("two".to_owned());
    let begun = started(&world.graph);
    let (state, transition) =
        engine::fork(id, &world.state, &journal, &from, begun, world.now).unwrap();
    let statuses: Vec<_> = state.steps().iter().map(|step| step.status).collect();
    assert_eq!(
        statuses,
        ["success", "success", "success", "pending"][..]
            .to_vec()
            .as_slice()
            .iter()
            .map(|status| if *status == "pending" { "queued" } else { *status })
            .collect::<Vec<_>>()
    );
    let mut fork = World { state, journal: Vec::new(), outside: BTreeMap::new(), ..world };
    fork.ended = None;
    fork.out.clear();
    fork.took(transition);
    fork.run();
    let to = RollbackTo::Start;
    if fork.ended == Some(Ending::Success) {
        let (steps, _) = fork.state.would_undo(&to).unwrap();
        assert_eq!(steps.iter().map(|undo| &*undo.path).collect::<Vec<_>>(), ["d"]);
    }
}

#[test]
fn what_a_sub_workflow_did_is_undone_as_one_step() {
    let yaml = "name: t\nsteps:\n  - {id: a, workflow: child}\n";
    let mut world = World::new(yaml, 1);
    let Some((_, Event::StepWaiting { n, waiting_for, .. })) =
        world.journal.iter().find(|(_, event)| matches!(event, Event::StepWaiting { .. })).cloned()
    else {
        panic!("it waits for its child");
    };
    let engine::event::WaitingFor::Child(child) = waiting_for else { panic!("for a child") };
    let ended = Command::ChildEnded {
        instance: n,
        child: child.run,
        status: Ending::Success,
        outputs: Some(json!({}).to_string().into()),
        error: None,
    };
    world.ask(ended).unwrap();
    assert_eq!(world.ended, Some(Ending::Success));
    let to = RollbackTo::Start;
    world.ask(Command::PlanRollback { to, needs_approval: false, origin: origin() }).unwrap();
    world.ask(Command::ExecuteRollback { number: 1, origin: origin() }).unwrap();
    let owed = world.state.pending_effects();
    assert!(owed.contains(&Effect::RollBackChild { instance: n, run: child.run }), "{owed:?}");
    let other = Command::ChildRolledBack { instance: n, child: world.state.id(), complete: true };
    assert_eq!(world.ask(other), Err(Rejection::TaskNotOut));
    let gone = Command::ChildRolledBack { instance: n, child: child.run, complete: true };
    world.ask(gone).unwrap();
    assert_eq!(world.ended, Some(Ending::RolledBack));
}
