//! The engine and the model live the same life: the same task reports next in both, the same
//! answers come, time jumps to the same moments.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use engine::event::{Origin, RunStarted};
use engine::task::{
    AgentRef, DeclaredUndo, FailureKind, Purpose, TaskError, TaskOrder, TaskOutcome, TaskReport,
};
use engine::{Command, Effect, Instant, Phase, RunId, State, Transition};
use serde_json::Value;

use crate::interpret::Model;
use crate::language::{Kind, Workflow};
use crate::render;

const MOMENTS_MAX: usize = 5_000;
const BEGIN: Instant = Instant(1_700_000_000_000_000);

/// Lives a life twice. Gives how it ended; the first difference is the error.
pub(crate) fn lives(workflow: &Workflow, order: u64) -> Result<&'static str, String> {
    let text = render::text(workflow);
    let told = |what: String, run: &Run, model: &Model<'_>| {
        let mut told = format!("{what}\n{text}\n");
        for step in run.state.steps() {
            let _ = writeln!(told, "engine {} {} {:?}", step.path, step.status, step.error);
        }
        for (path, entry) in model.entries() {
            let _ = writeln!(told, "model  {path} {} {:?}", entry.status, entry.error);
        }
        told
    };
    let mut run = Run::new(&text)?;
    let mut model = Model::new(workflow);
    let mut order = order | 1;
    for _ in 0..MOMENTS_MAX {
        let (engine_out, model_out) = (run.out(), model.out());
        if engine_out != model_out {
            let what = format!("out: engine {engine_out:?}, model {model_out:?}");
            return Err(told(what, &run, &model));
        }
        if run.state.phase() == Phase::Ended || model.ended.is_some() {
            let status = run.state.status().word();
            return match ends(&run, &model) {
                Ok(()) => Ok(status),
                Err(what) => Err(told(what, &run, &model)),
            };
        }
        order ^= order << 13;
        order ^= order >> 7;
        order ^= order << 17;
        let ready: Vec<&String> = model_out
            .iter()
            .filter(|(_, _, at)| at.is_none_or(|at| at <= model.now))
            .map(|(path, _, _)| path)
            .collect();
        if !ready.is_empty() {
            let path = ready[usize::try_from(order % ready.len() as u64).unwrap()];
            run.perform(path);
            model.report(path);
            continue;
        }
        if let Some((path, kind, key)) = model.answerable().into_iter().next() {
            run.answer(&path, &kind, key).map_err(|what| told(what, &run, &model))?;
            model.answered(&path);
            continue;
        }
        let (engine_next, model_next) = (run.next_time(), model.next_time());
        if engine_next != model_next || model_next.is_none() {
            let what = format!("next: engine {engine_next:?}, model {model_next:?}");
            return Err(told(what, &run, &model));
        }
        let now = model_next.unwrap();
        run.time(now);
        model.tick(now);
    }
    Err(told("the run does not end".to_owned(), &run, &model))
}

/// Compares what both tell of a run that has ended.
fn ends(run: &Run, model: &Model<'_>) -> Result<(), String> {
    let differ = |what: &str, engine: &dyn std::fmt::Debug, other: &dyn std::fmt::Debug| {
        Err(format!("{what}: engine {engine:?}, model {other:?}"))
    };
    let status = run.state.status().word();
    if Some(status) != model.ended {
        return differ("status", &status, &model.ended);
    }
    let steps: BTreeMap<String, _> =
        run.state.steps().into_iter().map(|step| (step.path.to_string(), step)).collect();
    let entries = model.entries();
    if !steps.keys().eq(entries.keys()) {
        return differ("entries", &steps.keys(), &entries.keys());
    }
    for (path, entry) in &entries {
        let step = &steps[path];
        let output =
            step.output.as_ref().map_or(Value::Null, |text| serde_json::from_str(text).unwrap());
        // A model's error is a part of the text that people read.
        let error = match (&step.error, &entry.error) {
            (Some(engine), Some(model)) if engine.contains(model.as_str()) => true,
            // Which of several failures a block bears is not laid down.
            (Some(engine), Some(_)) => steps.iter().any(|(inner, step)| {
                let below = inner.strip_prefix(path.as_str());
                below.is_some_and(|rest| rest.starts_with(['.', '[']))
                    && step.error.as_ref() == Some(engine)
            }),
            (engine, model) => engine.is_none() && model.is_none(),
        };
        let same = step.status == entry.status
            && alike(&output, &entry.output)
            && step.attempts == entry.attempts
            && error;
        if !same {
            return differ(path, step, entry);
        }
    }
    let counts = run.state.counts();
    let counts = [counts.total, counts.successful, counts.failed, counts.skipped];
    if counts != model.counts() {
        return differ("counts", &counts, &model.counts());
    }
    if run.undone != model.undone {
        return differ("undone", &run.undone, &model.undone);
    }
    if model.ended == Some("success") {
        let outputs = run.state.outputs().map(|text| serde_json::from_str(text).unwrap());
        // Without declared outputs there may be none, or no names.
        let outputs: Value = outputs.unwrap_or_else(|| Value::Object(serde_json::Map::new()));
        if outputs != model.outputs() {
            return differ("outputs", &outputs, &model.outputs());
        }
    }
    if let (Some(id), error) = run.state.failure()
        && let Some((model_id, model_error)) = &model.failure
    {
        let same = id == model_id && error.is_some_and(|text| text.contains(model_error));
        if !same {
            return differ("failure", &run.state.failure(), &model.failure);
        }
    }
    Ok(())
}

/// Whether outputs are equal; of an error's text the model knows a part.
fn alike(engine: &Value, model: &Value) -> bool {
    let (Some(engine_error), Some(model_error)) = (engine["e"].as_str(), model["e"].as_str())
    else {
        return engine == model;
    };
    engine_error.contains(model_error) && engine["s"] == model["s"]
}

/// The engine, with agents that have every task as soon as it may be made.
struct Run {
    state: State,
    now: Instant,
    out: Vec<TaskOrder>,
    undone: Vec<String>,
}

impl Run {
    fn new(text: &str) -> Result<Self, String> {
        let compiled = engine::definition::compile("model.yml", text.as_bytes());
        let (graph, _) = compiled.map_err(|complaints| format!("{complaints:#?}\n{text}"))?;
        let graph = Arc::new(graph);
        let started = RunStarted {
            workflow: graph.name.to_string(),
            version: String::new(),
            hash: graph.hash.to_string(),
            params: "{}".into(),
            tenant: "t".to_owned(),
            origin: Origin::default(),
            labels: BTreeMap::new(),
            priority: 5,
            parent: None,
            epoch: 1,
            siblings: BTreeMap::new(),
        };
        let id = RunId::at_instant(BEGIN, "model");
        let (state, transition) = engine::start(id, graph, started, BEGIN).unwrap();
        let mut run = Self { state, now: BEGIN, out: Vec::new(), undone: Vec::new() };
        run.took(transition);
        Ok(run)
    }

    fn ask(&mut self, command: Command) {
        let transition = engine::decide(&mut self.state, command, self.now).unwrap();
        self.took(transition);
    }

    fn took(&mut self, transition: Transition) {
        let mut stopped = Vec::new();
        for effect in transition.effects {
            match effect {
                Effect::Dispatch(order) => self.out.push(*order),
                Effect::CancelTask { key, .. } => stopped.push(key),
                Effect::Withdraw { key } => {
                    // An agent has what is due; the rest is taken back.
                    let due = |order: &TaskOrder| order.not_before.is_none_or(|at| at <= self.now);
                    let held = self.out.iter().any(|order| order.key == key && due(order));
                    if !held {
                        stopped.push(key);
                    }
                }
                _ => {}
            }
        }
        for key in stopped {
            if let Some(at) = self.out.iter().position(|order| order.key == key) {
                let order = self.out.remove(at);
                self.report(&order, TaskOutcome::Cancelled);
            }
        }
        if transition.more {
            self.ask(Command::Tick);
        }
        // What is undone is undone at once.
        let undo = |order: &TaskOrder| order.key.purpose == Purpose::Undo;
        while let Some(at) = self.out.iter().position(undo) {
            let order = self.out.remove(at);
            self.undone.push(order.path.to_string());
            let output = Arc::from("{}");
            let undo = DeclaredUndo::Nothing;
            self.report(&order, TaskOutcome::Succeeded { output, undo });
        }
    }

    fn report(&mut self, order: &TaskOrder, outcome: TaskOutcome) {
        let agent = Some(AgentRef { agent_type: Arc::from("echo"), instance: Arc::from("a") });
        let (key, attempt) = (order.key, order.attempt);
        self.ask(Command::Report(TaskReport {
            key,
            attempt,
            agent,
            outcome,
            touched: Vec::new(),
            took: None,
        }));
    }

    fn millis(at: Instant) -> i64 {
        (at.0 - BEGIN.0) / 1000
    }

    fn out(&self) -> Vec<(String, u32, Option<i64>)> {
        let mut out: Vec<_> = self
            .out
            .iter()
            .map(|order| {
                (order.path.to_string(), order.attempt, order.not_before.map(Self::millis))
            })
            .collect();
        out.sort();
        out
    }

    /// What the echo agent does.
    fn perform(&mut self, path: &str) {
        let at = self.out.iter().position(|order| &*order.path == path).unwrap();
        let order = self.out.remove(at);
        let input: Value = serde_json::from_str(&order.input).unwrap();
        let after = input["succeed_after"].as_u64();
        if &*order.action == "fail" && after.is_none_or(|after| u64::from(order.attempt) < after) {
            let permanent = input["kind"] == "permanent";
            let kind = if permanent { FailureKind::Permanent } else { FailureKind::Retryable };
            return self.report(
                &order,
                TaskOutcome::Failed(TaskError {
                    kind,
                    code: input["code"].as_str().unwrap_or_default().to_owned(),
                    message: input["message"].as_str().unwrap().to_owned(),
                    retry_after_ms: None,
                    no_effect: true,
                }),
            );
        }
        let undo = match &*order.action {
            "append" => DeclaredUndo::Action("remove_line".to_owned()),
            _ => DeclaredUndo::Nothing,
        };
        let output = Arc::clone(&order.input);
        self.report(&order, TaskOutcome::Succeeded { output, undo });
    }

    fn answer(&mut self, path: &str, kind: &Kind, key: usize) -> Result<(), String> {
        let origin = Origin { actor: "ann".to_owned(), request: None };
        let command = match kind {
            Kind::Approve { answer, .. } => Command::Decide {
                path: path.to_owned(),
                approve: *answer == Some(true),
                comment: String::new(),
                amendment: None,
                origin,
            },
            _ => Command::Signal {
                signal: format!("signal-{key}"),
                payload: r#"{"by":"signal"}"#.into(),
                origin,
            },
        };
        match engine::decide(&mut self.state, command, self.now) {
            Ok(transition) => {
                self.took(transition);
                Ok(())
            }
            Err(rejection) => Err(format!("the answer to {path} is refused: {rejection}")),
        }
    }

    fn next_time(&self) -> Option<i64> {
        let attempts = self.out.iter().filter_map(|order| order.not_before);
        attempts.chain(self.state.next_wakeup()).min().map(Self::millis)
    }

    fn time(&mut self, now: i64) {
        self.now = Instant(BEGIN.0 + now * 1000);
        if self.state.next_wakeup().is_some_and(|at| at <= self.now) {
            self.ask(Command::Tick);
        }
    }
}
