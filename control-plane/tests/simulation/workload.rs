//! What is run: random definitions, and some written for what spans runs or must happen once.

use engine::ContentHash;

use crate::random::Random;
use crate::reference::{self, Reference};
use crate::{generate, render};

/// A definition that runs are started with, or that others have as a sub-workflow.
#[derive(Clone, Debug)]
pub(crate) struct Definition {
    pub(crate) name: String,
    pub(crate) yaml: String,
    pub(crate) hash: ContentHash,
    /// What a run comes to that meets no fault, where that is certain.
    pub(crate) reference: Option<Reference>,
}

impl Definition {
    fn new(yaml: &str) -> Self {
        let compiled = engine::definition::compile("simulated.yml", yaml.as_bytes());
        let (graph, _) = compiled.unwrap_or_else(|wrong| panic!("{wrong:#?}\n{yaml}"));
        Self {
            name: graph.name.to_string(),
            yaml: yaml.to_owned(),
            hash: graph.hash,
            reference: None,
        }
    }
}

/// The definitions of one life: those written by hand, and some that the seed makes.
pub(crate) fn definitions(random: &mut Random) -> Vec<Definition> {
    let mut all: Vec<Definition> = WRITTEN.iter().map(|yaml| Definition::new(yaml)).collect();
    for _ in 0..3 {
        let length = usize::try_from(random.below(250)).unwrap();
        let workflow = generate::workflow(&random.bytes(length));
        let text = render::text(&workflow);
        let reference = reference::of(&workflow, &text);
        all.push(Definition { reference, ..Definition::new(&text) });
    }
    all
}

const WRITTEN: &[&str] = &[
    "
name: chain
steps:
  - {id: a, agent: echo, action: echo, params: {n: 1}}
  - {id: b, agent: echo, action: echo, params: {n: '${{ a.n }}'}}
  - {id: c, agent: echo, action: append}
  - {id: d, agent: echo, action: echo}
outputs: {n: '${{ b.n }}'}
",
    "
name: once
error_handling: {rollback: to_start, retry: {max_attempts: 3, delay: 1s}}
steps:
  - {id: a, agent: echo, action: echo, delivery: at_most_once}
  - {id: b, agent: echo, action: append, delivery: at_most_once}
  - {id: c, agent: echo, action: echo, delivery: at_most_once, continue_on_error: true}
  - {id: d, agent: echo, action: echo}
",
    "
name: fan
steps:
  - id: each
    foreach: '[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]'
    max_parallel: 5
    agent: echo
    action: echo
    params: {n: '${{ item }}'}
    retry: {max_attempts: 4, delay: 200ms}
  - {id: last, agent: echo, action: echo}
",
    "
name: child
steps:
  - {id: a, agent: echo, action: append}
  - {id: b, wait: 700ms}
  - {id: c, agent: echo, action: echo, params: {n: 3}}
outputs: {n: '${{ c.n }}'}
",
    "
name: parent
error_handling: {rollback: to_start, retry: {max_attempts: 2, delay: 1s}}
steps:
  - {id: one, workflow: child}
  - id: several
    foreach: '[1, 2, 3]'
    steps:
      - {id: inner, workflow: child, timeout: 5m}
  - {id: last, agent: echo, action: echo}
",
    "
name: above
steps:
  - {id: sub, workflow: parent, continue_on_error: true}
  - {id: last, agent: echo, action: echo}
",
    "
name: keyed
concurrency: {key: whole, limit: 2}
steps:
  - {id: a, agent: echo, action: echo}
  - id: b
    agent: echo
    action: append
    concurrency: {key: part, limit: 1}
  - {id: c, wait: 300ms, concurrency: {key: part, limit: 1}}
  - {id: d, agent: echo, action: echo}
",
    "
name: lined
concurrency: {key: line, limit: 1}
steps:
  - {id: a, wait_for: {signal: go, timeout: 20s}, continue_on_error: true}
  - {id: b, wait: 10s, concurrency: {key: part, limit: 1}}
  - {id: c, agent: echo, action: append, concurrency: {key: part, limit: 1}}
",
    "
name: limited
rate_limit: {key: starts, limit: 3, per: 5s}
steps:
  - id: a
    agent: echo
    action: echo
    rate_limit: {key: calls, limit: 2, per: 2s}
  - {id: b, agent: echo, action: echo}
",
    "
name: asking
steps:
  - {id: a, agent: echo, action: echo}
  - {id: b, wait_for: {signal: go, timeout: 90s}, continue_on_error: true}
  - {id: c, approve: {message: 'sure?', timeout: 90s}, continue_on_error: true}
  - {id: d, agent: echo, action: append, checkpoint: asked}
",
    "
name: undone
error_handling: {rollback: to_start}
steps:
  - {id: a, agent: echo, action: append, checkpoint: first}
  - {id: b, agent: echo, action: echo, compensate: {action: sweep}}
  - {id: c, agent: echo, action: append, delivery: at_most_once}
  - {id: d, agent: echo, action: fail, params: {message: 'never', kind: permanent}}
",
    "
name: impatient
deadline: 40s
steps:
  - id: a
    agent: echo
    action: echo
    timeout: 3s
    queue_timeout: 20s
    retry: {max_attempts: 3, delay: 100ms}
  - {id: b, agent: echo, action: fail, params: {message: 'busy', succeed_after: 3},
     retry: {max_attempts: 4, delay: 500ms, backoff: linear}}
  - {id: c, agent: echo, action: echo}
",
];
