//! The engine's decisions: bytes give a definition and commands, sense and nonsense. In the end
//! everybody does what is owed, and the run must come to its end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use engine::event::{Ending, KeyKind, Origin, RequestMark, UndoDecision, WaitingFor};
use engine::task::{
    AgentRef, DeclaredUndo, FailureKind, Purpose, TaskError, TaskKey, TaskOrder, TaskOutcome,
    TaskReport,
};
use engine::{Command, Effect, InstanceId, Instant, Phase, RunId, RunStatus, Waiting, definition};

use super::drive::Run;
use super::grammar::{self, Choices};

/// Commands of one life, and what is done in the end.
const COMMANDS_MAX: usize = 150;
const ROUNDS_MAX: usize = 5_000;

/// Lives a life. Gives how the run ended.
pub(crate) fn decide(bytes: &[u8]) -> RunStatus {
    let mut choices = Choices::new(bytes);
    let text = grammar::definition(&mut choices);
    let (graph, _) = definition::compile("fuzz.yml", text.as_bytes())
        .unwrap_or_else(|complaints| panic!("{complaints:#?}\n{text}"));
    let mut life = Life { run: Run::new(graph), children: BTreeMap::new(), past: Vec::new() };
    for _ in 0..COMMANDS_MAX {
        if choices.is_empty() {
            break;
        }
        life.something(&mut choices);
    }
    life.finish(&text);
    life.run.state.status()
}

struct Life {
    run: Run,
    /// Which step waits for which child.
    children: BTreeMap<RunId, InstanceId>,
    /// What was reported before.
    past: Vec<TaskReport>,
}

impl Life {
    /// Does one thing that the bytes say.
    fn something(&mut self, choices: &mut Choices<'_>) {
        let instance = InstanceId(u32::try_from(choices.below(40)).unwrap());
        let kind = choices.below(32);
        let command = match kind {
            0..10 => return self.report_something(choices),
            10 => match self.past.len() {
                0 => Command::Tick,
                count => Command::Report(self.past[choices.below(count)].clone()),
            },
            11 => self.nonsense(instance, choices),
            12 => Command::Signal {
                signal: choices.one_of(&["go", "stop"]).to_owned(),
                payload: choices.one_of(&["{\"a\": 1}", "7", "not JSON"]).into(),
                origin: origin(choices),
            },
            13 | 14 => self.decision(choices),
            15 => Command::Cancel { reason: "enough".to_owned(), origin: origin(choices) },
            16 => Command::Pause { reason: "wait".to_owned(), origin: origin(choices) },
            17 => Command::Resume { origin: origin(choices) },
            18 => Command::Retry { origin: origin(choices) },
            19 => Command::ChildEnded {
                instance,
                child: engine::RunId::at_instant(engine::Instant(1), "nobody"),
                status: choices.one_of(&[Ending::Failure, Ending::Success, Ending::Cancelled]),
                outputs: choices.one_of(&[None, Some("{\"v\": 1}"), Some("}")]).map(Into::into),
                error: choices.one_of(&[None, Some("broken")]).map(str::to_owned),
            },
            20 => Command::Granted {
                instance: choices.one_of(&[None, Some(instance)]),
                which: choices.one_of(&[KeyKind::Concurrency, KeyKind::Rate]),
            },
            21 => Command::Refused {
                instance: choices.one_of(&[None, Some(instance)]),
                reason: "no".to_owned(),
            },
            22 => Command::Displaced {
                instance: choices.one_of(&[None, Some(instance)]),
                key: Arc::from(choices.one_of(&["k", "whole", "other"])),
            },
            23 => Command::Notified {
                instance,
                sent: choices.one_of(&[None, Some("ops")]).map(|to| vec![to.to_owned()]),
                error: choices.one_of(&[None, Some("down")]).map(str::to_owned),
            },
            24 => {
                let epoch = u64::try_from(choices.below(9)).unwrap();
                return self.run.crash(epoch);
            }
            25..28 => return self.jump(choices),
            _ => return self.do_what_is_owed(choices.below(4)),
        };
        self.run.ask(command);
    }

    /// The clock jumps: to what is due, by some time, or back.
    fn jump(&mut self, choices: &mut Choices<'_>) {
        let second = 1_000_000;
        match choices.below(4) {
            0 | 1 => {
                if let Some(at) = self.run.state.next_wakeup() {
                    self.run.now = self.run.now.max(at);
                }
            }
            2 => {
                let seconds = i64::try_from(choices.below(120)).unwrap();
                self.run.now = Instant(self.run.now.0 + seconds * second);
            }
            _ => self.run.now = Instant(self.run.now.0 - 5 * second),
        }
        self.run.ask(Command::Tick);
    }

    fn orders(&self) -> Vec<TaskOrder> {
        let dispatched = |effect| match effect {
            Effect::Dispatch(order) => Some(*order),
            _ => None,
        };
        self.run.owed().into_iter().filter_map(dispatched).collect()
    }

    fn report_something(&mut self, choices: &mut Choices<'_>) {
        let orders = self.orders();
        if orders.is_empty() {
            return;
        }
        let order = &orders[choices.below(orders.len())];
        let failed = |kind, code: &str, no_effect: bool| {
            TaskOutcome::Failed(TaskError {
                kind,
                code: code.to_owned(),
                message: "failed".to_owned(),
                retry_after_ms: no_effect.then_some(1500),
                no_effect,
            })
        };
        let outcome = match choices.below(12) {
            0..4 => succeeded(order),
            4 => failed(FailureKind::Retryable, "busy", false),
            5 => failed(FailureKind::Retryable, "timeout", true),
            6 => failed(FailureKind::Permanent, "", false),
            7 => TaskOutcome::Cancelled,
            8 => TaskOutcome::LostAtMostOnce,
            9 | 10 => TaskOutcome::Started,
            _ => TaskOutcome::Succeeded { output: "not JSON".into(), undo: DeclaredUndo::Nothing },
        };
        self.report(order, outcome);
    }

    fn report(&mut self, order: &TaskOrder, outcome: TaskOutcome) {
        let agent = Some(AgentRef { agent_type: Arc::from("echo"), instance: Arc::from("a") });
        let report = TaskReport {
            key: order.key,
            attempt: order.attempt,
            agent,
            outcome,
            touched: Vec::new(),
            took: None,
        };
        self.past.push(report.clone());
        self.run.ask(Command::Report(report));
    }

    /// A report of a task that is not out.
    fn nonsense(&self, instance: InstanceId, choices: &mut Choices<'_>) -> Command {
        let run = self.run.state.id();
        let purpose = choices.one_of(&[Purpose::Do, Purpose::Undo]);
        let attempt = choices.one_of(&[0, 1, 2, u32::MAX]);
        let outcome = match choices.below(4) {
            0 => TaskOutcome::Started,
            1 => TaskOutcome::Cancelled,
            2 => TaskOutcome::LostAtMostOnce,
            _ => TaskOutcome::Succeeded { output: "1".into(), undo: DeclaredUndo::NotUndoable },
        };
        let key = TaskKey { run, instance, purpose };
        Command::Report(TaskReport {
            key,
            attempt,
            agent: None,
            outcome,
            touched: Vec::new(),
            took: None,
        })
    }

    fn decision(&self, choices: &mut Choices<'_>) -> Command {
        let steps = self.run.state.steps();
        let path = match choices.below(steps.len() + 1) {
            0 => "nowhere".to_owned(),
            at => steps[at - 1].path.to_string(),
        };
        let approve = choices.below(2) == 0;
        let amendment = [None, Some("{}".into()), Some("{".into())][choices.below(3)].clone();
        let origin = origin(choices);
        Command::Decide { path, approve, comment: "c".to_owned(), amendment, origin }
    }

    /// Carries out up to `count` of the effects that are owed.
    fn do_what_is_owed(&mut self, count: usize) {
        for effect in self.run.owed().into_iter().take(count) {
            self.carry_out(effect);
        }
    }

    /// Does what an effect asks for. Gives whether that changes anything by itself.
    fn carry_out(&mut self, effect: Effect) -> bool {
        let command = match effect {
            Effect::Dispatch(order) => {
                if order.not_before.is_some_and(|at| at > self.run.now) {
                    return false;
                }
                let outcome = succeeded(&order);
                self.report(&order, outcome);
                return true;
            }
            Effect::CancelTask { key, .. } | Effect::Withdraw { key } => {
                Command::Report(TaskReport {
                    key,
                    attempt: 0,
                    agent: None,
                    outcome: TaskOutcome::Cancelled,
                    touched: Vec::new(),
                    took: None,
                })
            }
            Effect::Acquire(acquire) if !acquire.held => {
                Command::Granted { instance: acquire.instance, which: acquire.which }
            }
            Effect::Notify { instance, channels, .. } => {
                Command::Notified { instance, sent: Some(channels), error: None }
            }
            Effect::StartChild { instance, child, .. } => {
                self.children.insert(child.run, instance);
                Command::ChildEnded {
                    instance,
                    child: child.run,
                    status: Ending::Success,
                    outputs: Some("{\"v\":1}".into()),
                    error: None,
                }
            }
            Effect::CancelChild { run, .. } => Command::ChildEnded {
                instance: self.children[&run],
                child: run,
                status: Ending::Cancelled,
                outputs: None,
                error: None,
            },
            Effect::RollBackChild { instance, run } => {
                Command::ChildRolledBack { instance, child: run, complete: true }
            }
            _ => return false,
        };
        self.run.ask(command);
        true
    }

    /// Everybody does what is owed until the run has ended.
    fn finish(&mut self, text: &str) {
        for _ in 0..ROUNDS_MAX {
            if self.run.state.phase() == Phase::Ended {
                return;
            }
            if self.run.state.status() == RunStatus::Paused {
                let resumed = self.run.ask(Command::Resume { origin: Origin::default() });
                assert!(resumed, "a paused run can be resumed");
                continue;
            }
            let version = self.run.state.version();
            for effect in self.run.owed() {
                self.carry_out(effect);
            }
            if self.run.state.version() == version && !self.answer_or_wait() {
                panic!(
                    "nothing is owed and nothing will happen in phase {:?}: {:#?} {:#?}\n{text}",
                    self.run.state.phase(),
                    self.run.state.rollbacks(),
                    self.run.state.steps()
                );
            }
        }
        panic!("the run does not end: {:#?}\n{text}", self.run.state.steps());
    }

    /// Gives what a step waits for from outside, or lets time pass. False: there is nothing.
    fn answer_or_wait(&mut self) -> bool {
        for step in self.run.state.steps() {
            let origin = Origin::default();
            let command = match step.waiting {
                Some(Waiting::For(WaitingFor::Signal(signal), _)) => {
                    Command::Signal { signal, payload: "1".into(), origin }
                }
                Some(Waiting::For(WaitingFor::Decision(_), _)) => {
                    let (path, comment) = (step.path.to_string(), String::new());
                    Command::Decide { path, approve: true, comment, amendment: None, origin }
                }
                _ => continue,
            };
            if self.run.ask(command) {
                return true;
            }
        }
        let rollbacks = self.run.state.rollbacks();
        let mut undos = rollbacks.iter().flat_map(|rollback| &rollback.undos);
        if let Some(stuck) = undos.find(|undo| undo.status == "stuck") {
            let (path, decision) = (stuck.path.to_string(), UndoDecision::Skip);
            let (comment, origin) = (String::new(), Origin::default());
            return self.run.ask(Command::DecideUndo { path, decision, comment, origin });
        }
        let attempts = self.orders().into_iter().filter_map(|order| order.not_before);
        let later = attempts.chain(self.run.state.next_wakeup()).min();
        let Some(at) = later else { return false };
        self.run.now = self.run.now.max(at).after(Duration::from_micros(1));
        self.run.ask(Command::Tick)
    }
}

fn succeeded(order: &TaskOrder) -> TaskOutcome {
    let undo = match &*order.action {
        "append" => DeclaredUndo::Action("remove_line".to_owned()),
        "stay" => DeclaredUndo::NotUndoable,
        _ => DeclaredUndo::Nothing,
    };
    TaskOutcome::Succeeded { output: Arc::clone(&order.input), undo }
}

/// Somebody; sometimes with a request id, which may have been used before.
fn origin(choices: &mut Choices<'_>) -> Origin {
    let request = match choices.below(6) {
        0..4 => None,
        id => Some(RequestMark {
            id: id.to_string(),
            body: choices.one_of(&["one", "other"]).to_owned(),
        }),
    };
    Origin { actor: "ann".to_owned(), request }
}
