//! A recovery in virtual time: the engine as it is, and agents with slots that take as long as
//! they are told to and fail where they are told to. For tests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use engine::graph::Graph;
use engine::task::{
    AgentRef, DeclaredUndo, FailureKind, Purpose, TaskError, TaskOrder, TaskOutcome, TaskReport,
};
use engine::{Command, Effect, Event, Instant, RunId, State, Transition};

use super::progress::Now;

/// A run with its agents.
pub(super) struct World {
    state: State,
    pub(super) journal: Vec<(i64, Instant, Event)>,
    pub(super) now: Instant,
    pub(super) slots: BTreeMap<Arc<str>, u32>,
    waiting: Vec<TaskOrder>,
    running: Vec<(Instant, Instant, TaskOrder)>,
    durations: BTreeMap<String, Duration>,
    failing: BTreeSet<String>,
    /// Steps and the agent types that cannot do them.
    failing_by: BTreeSet<(String, String)>,
    /// Only one task is given out whenever something happens.
    pub(super) slow: bool,
    /// Slots × seconds while there was enough to do for all that were free, and how much of it
    /// was used: counted as time passes, not from the journal.
    pub(super) offered: f64,
    pub(super) used: f64,
}

impl World {
    pub(super) fn new(text: &str, slots: &[(&str, u32)]) -> Self {
        let (graph, _) = engine::definition::compile("plan.yml", text.as_bytes()).unwrap();
        let graph = Arc::new(graph);
        let started = crate::runs::started(&graph, "{}".into(), 1);
        let now = Instant(1_700_000_000_000_000);
        let id = RunId::at_instant(now, "recovery");
        let (state, transition) = engine::start(id, graph, started, now).unwrap();
        let mut world = Self {
            state,
            journal: Vec::new(),
            now,
            slots: slots.iter().map(|(agent, slots)| ((*agent).into(), *slots)).collect(),
            waiting: Vec::new(),
            running: Vec::new(),
            durations: BTreeMap::new(),
            failing: BTreeSet::new(),
            failing_by: BTreeSet::new(),
            slow: false,
            offered: 0.0,
            used: 0.0,
        };
        world.took(transition);
        world.give_out();
        world
    }

    pub(super) fn graph(&self) -> &Graph {
        self.state.graph()
    }

    /// How long a step takes; a second where nothing is said.
    pub(super) fn takes(&mut self, step: &str, duration: Duration) {
        self.durations.insert(step.to_owned(), duration);
        // Those that have begun were given a second.
        for (ends, began, order) in &mut self.running {
            if *order.path == *step {
                *ends = began.after(duration);
            }
        }
    }

    /// A step fails for good.
    pub(super) fn fails(&mut self, step: &str) {
        self.failing.insert(step.to_owned());
    }

    /// A step fails for good at agents of this type.
    pub(super) fn fails_by(&mut self, step: &str, agent: &str) {
        self.failing_by.insert((step.to_owned(), agent.to_owned()));
    }

    pub(super) fn ended(&self) -> bool {
        self.state.ended_at().is_some()
    }

    /// What is known beside the journal.
    pub(super) fn beside(&self) -> Now {
        let with = |purpose: Purpose| {
            let held = self.running.iter().filter(|(_, _, order)| order.key.purpose == purpose);
            held.map(|(_, began, order)| (order.key.instance, (who(order), *began))).collect()
        };
        let (held, undoing) = (with(Purpose::Do), with(Purpose::Undo));
        Now { now: self.now, slots: self.slots.clone(), held, undoing }
    }

    /// Lets the next thing happen.
    pub(super) fn step(&mut self) {
        let next = self.running.iter().map(|(ends, _, _)| *ends).min();
        let later = self.waiting.iter().filter_map(|order| order.not_before).min();
        let wakes = self.state.next_wakeup();
        let at = [next, later.filter(|_| next.is_none()), wakes.filter(|_| next.is_none())];
        let Some(at) = at.into_iter().flatten().min() else { panic!("nothing happens any more") };
        self.count(self.now.max(at));
        self.now = self.now.max(at);
        if let Some(which) = self.running.iter().position(|(ends, _, _)| *ends <= self.now) {
            let (_, began, order) = self.running.remove(which);
            let report = self.report(&order, began);
            self.ask(Command::Report(report));
        } else {
            self.ask(Command::Tick);
        }
        self.give_out();
    }

    fn count(&mut self, until: Instant) {
        let seconds = until.since(self.now).as_secs_f64();
        for (agent, slots) in &self.slots {
            let is_its = |order: &TaskOrder| {
                who(order).agent_type == *agent && order.key.purpose == Purpose::Do
            };
            let busy = self.running.iter().filter(|(_, _, order)| is_its(order)).count();
            let ready = self.waiting.iter().filter(|order| is_its(order)).count();
            let slots = *slots as usize;
            if ready + busy > 0 && ready >= slots.saturating_sub(busy) {
                self.offered += seconds * f64::from(u32::try_from(slots).unwrap());
                self.used += seconds * f64::from(u32::try_from(busy).unwrap());
            }
        }
    }

    /// Goes on until the run has ended.
    pub(super) fn run(&mut self) {
        for _ in 0..100_000 {
            if self.ended() {
                return;
            }
            self.step();
        }
        panic!("the run does not end");
    }

    /// A person decides.
    pub(super) fn decide(&mut self, path: &str, approve: bool) {
        let command = Command::Decide {
            path: path.to_owned(),
            approve,
            comment: String::new(),
            amendment: None,
            origin: engine::event::Origin::default(),
        };
        self.ask(command);
        self.give_out();
    }

    fn report(&self, order: &TaskOrder, began: Instant) -> TaskReport {
        let (path, agent) = (order.path.to_string(), who(order).agent_type.to_string());
        let fails = order.key.purpose == Purpose::Do
            && (self.failing.contains(&path) || self.failing_by.contains(&(path, agent)));
        let outcome = if fails {
            TaskOutcome::Failed(TaskError {
                kind: FailureKind::Permanent,
                code: "broken".to_owned(),
                message: "cannot be mended".to_owned(),
                retry_after_ms: None,
                no_effect: false,
            })
        } else {
            let undo = DeclaredUndo::Action("undo".to_owned());
            TaskOutcome::Succeeded { output: "{}".into(), undo }
        };
        TaskReport {
            key: order.key,
            attempt: order.attempt,
            agent: Some(who(order)),
            outcome,
            touched: Vec::new(),
            took: Some(u64::try_from(self.now.since(began).as_micros()).unwrap()),
        }
    }

    fn ask(&mut self, command: Command) {
        let transition = engine::decide(&mut self.state, command, self.now).unwrap();
        self.took(transition);
    }

    fn took(&mut self, transition: Transition) {
        for event in transition.events {
            let sequence = i64::try_from(self.journal.len()).unwrap() + 1;
            self.journal.push((sequence, self.now, event));
        }
        for effect in transition.effects {
            match effect {
                Effect::Dispatch(order) => self.waiting.push(*order),
                Effect::Withdraw { key } => {
                    let was = self.waiting.len();
                    self.waiting.retain(|order| order.key != key);
                    if self.waiting.len() < was {
                        let outcome = TaskOutcome::Cancelled;
                        let touched = Vec::new();
                        let report = TaskReport {
                            key,
                            attempt: 1,
                            agent: None,
                            outcome,
                            touched,
                            took: None,
                        };
                        self.ask(Command::Report(report));
                    }
                }
                _ => {}
            }
        }
    }

    /// The most urgent first, then the longest ready.
    fn give_out(&mut self) {
        self.waiting.sort_by_key(|order| {
            (std::cmp::Reverse(order.priority), order.queued_at, order.key.instance)
        });
        let (mut left, mut given) = (Vec::new(), 0);
        let most = if self.slow { 1 } else { usize::MAX };
        for order in std::mem::take(&mut self.waiting) {
            let agent = who(&order).agent_type;
            let busy =
                self.running.iter().filter(|(_, _, other)| who(other).agent_type == agent).count();
            let slots = self.slots.get(&agent).copied().unwrap_or(1) as usize;
            if busy >= slots || given == most || order.not_before.is_some_and(|at| at > self.now) {
                left.push(order);
                continue;
            }
            let second = Duration::from_secs(1);
            let takes = self.durations.get(&*order.path).copied().unwrap_or(second);
            self.running.push((self.now.after(takes), self.now, order));
            given += 1;
        }
        self.waiting = left;
    }
}

fn who(order: &TaskOrder) -> AgentRef {
    let agent_type = order.agent.clone().unwrap_or_else(|| "any".into());
    AgentRef { instance: format!("{agent_type}-1").into(), agent_type }
}
