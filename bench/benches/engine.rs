//! The engine by itself: compiling, starting, deciding, folding, evaluating. One core, no store.
#![expect(clippy::unwrap_used, reason = "a measurement of what is known to work")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use engine::event::{Origin, RunStarted};
use engine::expression::{Expression, Lookup, Scope};
use engine::graph::Graph;
use engine::task::{AgentRef, DeclaredUndo, TaskOrder, TaskOutcome, TaskReport};
use engine::{Command, Effect, Event, Instant, RunId, State, Transition};

const NOW: Instant = Instant(1_700_000_000_000_000);

fn chain() -> String {
    let steps = (0..5).map(|n| format!("  - {{id: s{n}, agent: bench, action: noop}}\n"));
    format!("name: chain\nsteps:\n{}", steps.collect::<String>())
}

fn fan_out(width: usize) -> String {
    let mut yaml =
        "name: fan-out\nsteps:\n  - id: s0\n    agent: bench\n    action: noop\n".to_owned();
    yaml += "    parallel:\n";
    for n in 1..width {
        writeln!(yaml, "      - {{id: s{n}, agent: bench, action: noop}}").unwrap();
    }
    yaml
}

fn graph(yaml: &str) -> Arc<Graph> {
    Arc::new(engine::definition::compile("bench.yml", yaml.as_bytes()).unwrap().0)
}

fn start(graph: &Arc<Graph>) -> (State, Transition) {
    let started = RunStarted {
        workflow: graph.name.to_string(),
        version: graph.version.clone(),
        hash: graph.hash.to_string(),
        params: "{}".into(),
        tenant: "default".to_owned(),
        origin: Origin::default(),
        labels: std::collections::BTreeMap::new(),
        priority: graph.priority,
        parent: None,
        epoch: 1,
        siblings: std::collections::BTreeMap::new(),
    };
    engine::start(RunId::at_instant(NOW, "bench"), Arc::clone(graph), started, NOW).unwrap()
}

fn orders(transition: &Transition) -> Vec<TaskOrder> {
    let order = |effect: &Effect| match effect {
        Effect::Dispatch(order) => Some((**order).clone()),
        _ => None,
    };
    transition.effects.iter().filter_map(order).collect()
}

fn success(order: &TaskOrder) -> Command {
    Command::Report(TaskReport {
        key: order.key,
        attempt: order.attempt,
        agent: Some(AgentRef { agent_type: "bench".into(), instance: "one".into() }),
        outcome: TaskOutcome::Succeeded { output: "{}".into(), undo: DeclaredUndo::Nothing },
        touched: Vec::new(),
        took: None,
    })
}

/// A run to its end, and all its events.
fn whole(graph: &Arc<Graph>) -> Vec<Event> {
    let (mut state, transition) = start(graph);
    let mut out = orders(&transition);
    let mut events = transition.events;
    while let Some(order) = out.pop() {
        let transition = engine::decide(&mut state, success(&order), NOW).unwrap();
        out.extend(orders(&transition));
        events.extend(transition.events);
    }
    assert!(state.ended_at().is_some(), "the run ends");
    events
}

fn decisions(c: &mut Criterion) {
    let (chain, wide) = (graph(&chain()), graph(&fan_out(100)));
    c.bench_function("compile/chain of 5", |b| {
        let yaml = self::chain();
        b.iter(|| engine::definition::compile("bench.yml", black_box(yaml.as_bytes())).unwrap());
    });
    c.bench_function("start/chain of 5", |b| b.iter(|| start(black_box(&chain))));
    c.bench_function("start/fan-out of 100", |b| b.iter(|| start(black_box(&wide))));
    for (name, graph) in [("decide/first of 5", &chain), ("decide/first of 100", &wide)] {
        c.bench_function(name, |b| {
            let prepare = || {
                let (state, transition) = start(graph);
                (state, success(&orders(&transition)[0]))
            };
            let decide = |(mut state, command): (State, Command)| {
                let transition = engine::decide(&mut state, command, NOW).unwrap();
                (state, transition)
            };
            b.iter_batched(prepare, decide, BatchSize::SmallInput);
        });
    }
    c.bench_function("whole run/chain of 5", |b| b.iter(|| whole(black_box(&chain))));
    c.bench_function("whole run/fan-out of 100", |b| b.iter(|| whole(black_box(&wide))));
}

fn folding(c: &mut Criterion) {
    for (name, yaml) in [("chain of 5", chain()), ("fan-out of 100", fan_out(100))] {
        let graph = graph(&yaml);
        let events = whole(&graph);
        c.bench_function(&format!("fold/{name}"), |b| {
            b.iter(|| {
                let (first, rest) = events.split_first().unwrap();
                let Event::RunStarted(started) = first else { panic!("it begins with its start") };
                let id = RunId::at_instant(NOW, "bench");
                let started = (**started).clone();
                let mut state = State::new(id, Arc::clone(&graph), started, NOW).unwrap();
                rest.iter().for_each(|event| state.apply(black_box(event), NOW));
                state.settle_fold();
                state
            });
        });
    }
}

struct Names(Arc<serde_json::Value>);

impl Scope for Names {
    fn lookup(&self, name: &str) -> Lookup {
        match name {
            "build" => Lookup::Found(Arc::clone(&self.0)),
            other => Lookup::unknown(other, ["build"]),
        }
    }
}

fn expressions(c: &mut Criterion) {
    let source = "build.tests.filter(t, t.failed).size() == 0 && build.coverage >= 0.8";
    c.bench_function("expression/parse", |b| b.iter(|| Expression::parse(black_box(source))));
    let tests: Vec<serde_json::Value> =
        (0..20).map(|n| serde_json::json!({"name": n, "failed": false})).collect();
    let json = serde_json::json!({"tests": tests, "coverage": 0.91});
    let scope = Names(Arc::new(json));
    let expression = Expression::parse(source).unwrap();
    c.bench_function("expression/evaluate over 20 items", |b| {
        b.iter(|| expression.evaluate_bool(black_box(&scope)).unwrap());
    });
}

criterion_group!(benches, decisions, folding, expressions);
criterion_main!(benches);
