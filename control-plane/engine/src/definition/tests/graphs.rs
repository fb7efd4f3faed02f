//! What definitions compile to.

use std::fmt::Write as _;
use std::time::Duration;

use super::*;
use crate::graph::{Backoff, Node, NodeKind, Repeat};
use crate::task::Delivery;

/// The nodes of all lists: `list[place] id <- what it waits for`.
fn plan(graph: &Graph) -> String {
    let mut text = String::new();
    for (number, list) in graph.lists.iter().enumerate() {
        for (place, &node) in list.nodes.iter().enumerate() {
            let node = graph.node(node);
            assert_eq!((node.list.0 as usize, node.index as usize), (number, place));
            let names = |places: &[u32]| {
                let ids = places.iter().map(|&at| graph.node(list.nodes[at as usize]).id.as_ref());
                ids.collect::<Vec<&str>>().join(" ")
            };
            let before = names(&node.depends_on);
            writeln!(text, "{number} {} <- {before}", node.id).unwrap();
            for &before in &node.depends_on {
                let before = graph.node(list.nodes[before as usize]);
                assert!(before.dependents.contains(&node.index));
            }
        }
    }
    text
}

fn node<'g>(graph: &'g Graph, id: &str) -> &'g Node {
    graph.nodes.iter().find(|node| &*node.id == id).unwrap()
}

#[test]
fn steps_wait_for_the_step_before_and_groups_count_as_one() {
    let graph = compiled(
        "
name: x
steps:
  - action: a
    parallel: [{action: b}, {action: c}]
  - action: d
  - {action: e, depends_on: []}
  - {action: f, depends_on: [b, e]}
  - {action: g, depends_on: d}
",
    );
    assert_eq!(
        plan(&graph),
        "0 a <- \n0 b <- \n0 c <- \n0 d <- a b c\n0 e <- \n0 f <- a b c e\n0 g <- d\n"
    );
}

#[test]
fn ids_are_given_first_to_those_that_name_themselves() {
    let graph = compiled(
        "
name: x
error_handling:
  on_failure:
    - action: deploy
steps:
  - action: deploy
    parallel:
      - action: deploy
  - {id: deploy_2, action: other}
  - {foreach: [1], steps: [{action: git.clone}]}
  - {condition: 'true', then: [{wait: 1s}], else: [{notify: slack}]}
  - {condition: 'true', steps: [{wait_for: go}]}
  - {while: 'false', steps: [{approve: ok}]}
  - {steps: [{workflow: My Flow@1.2}]}
  - {foreach: [1], action: scan}
",
    );
    let ids: Vec<&str> = graph.nodes.iter().map(|node| &*node.id).collect();
    assert_eq!(
        ids,
        [
            "deploy_3",
            "deploy_4",
            "deploy_2",
            "foreach",
            "git_clone",
            "if",
            "wait",
            "notify",
            "if_2",
            "wait_for",
            "while",
            "approve",
            "block",
            "My_Flow",
            "scan",
            "scan",
            "deploy",
        ]
    );
}

#[test]
fn the_three_examples_have_the_expected_plans() {
    let example = |name: &str| {
        let text = std::fs::read_to_string(root().join("examples").join(name)).unwrap();
        compiled(&text)
    };
    let build = example("project-build.yml");
    assert_eq!(
        plan(&build),
        "0 scaffold <- \n0 build_api <- scaffold\n0 quality_check <- build_api\n\
         0 security_scan <- build_api\n0 performance_test <- build_api\n\
         0 deploy <- quality_check security_scan performance_test\n\
         1 log_error <- \n1 notify <- log_error\n"
    );
    assert_eq!(build.version, "1.0.0");
    assert_eq!(build.name.as_ref(), "Complete Project Build");
    let NodeKind::Action(action) = &node(&build, "deploy").kind else { panic!() };
    assert_eq!((action.retry.max_attempts, action.retry.backoff), (3, Backoff::Exponential));
    assert_eq!(action.timeout, Duration::from_secs(30));
    assert_eq!((action.agent_position.line, action.agent_position.column), (29, 12));
    assert_eq!(action.agent.as_deref(), Some("agent19"));
    let pipeline = example("data-pipeline.yml");
    assert_eq!(plan(&pipeline).lines().count(), 5);
    let monitoring = example("continuous-monitoring.yml");
    assert_eq!(
        plan(&monitoring),
        "0 collect_metrics <- \n0 track_errors <- collect_metrics\n0 if <- track_errors\n\
         1 rollback <- \n"
    );
    assert_eq!(monitoring.schedule.unwrap().cron, "*/5 * * * *");
}

#[test]
fn a_loop_on_a_single_step_keeps_what_belongs_to_it() {
    let graph = compiled(
        "
name: x
steps:
  - id: scan
    foreach: '[1, 2]'
    as: target
    max_parallel: 2
    action: scan
    condition: 'true'
    deadline: 1h
    timeout: 5s
    continue_on_error: true
    concurrency: 'scan-${{ target }}'
    params: {target: '${{ target }}', n: '${{ index }}'}
",
    );
    let [outer, inner] = graph.nodes.as_slice() else { panic!() };
    let NodeKind::Loop { repeat, body, inline: true } = &outer.kind else { panic!() };
    let Repeat::ForEach { item_name, max_parallel, .. } = repeat else { panic!() };
    assert_eq!((&**item_name, *max_parallel), ("target", Some(2)));
    assert_eq!(graph.list(*body).nodes.len(), 1);
    assert!(std::ptr::eq(graph.node(graph.list(*body).nodes[0]), inner));
    assert_eq!(outer.deadline, Some(Duration::from_secs(3600)));
    assert!(outer.continue_on_error && outer.condition.is_some() && outer.concurrency.is_none());
    assert!(!inner.continue_on_error && inner.condition.is_none() && inner.concurrency.is_some());
    let NodeKind::Action(action) = &inner.kind else { panic!() };
    assert_eq!(action.timeout, Duration::from_secs(5));
}

#[test]
fn blocks_know_their_parents_and_bounds() {
    let graph = compiled(
        "
name: x
steps:
  - id: box
    timeout: 1m
    deadline: 1h
    steps:
      - id: cycle
        while: 'iteration < 3'
        max_iterations: 5
        steps: [{action: a}]
",
    );
    let outer = node(&graph, "box");
    assert_eq!(outer.deadline, Some(Duration::from_secs(60)));
    let NodeKind::Block { body } = outer.kind else { panic!() };
    assert_eq!(graph.node(graph.list(body).parent.unwrap()).id.as_ref(), "box");
    let NodeKind::Loop { body, repeat, inline: false } = &node(&graph, "cycle").kind else {
        panic!()
    };
    assert!(matches!(repeat, Repeat::While { max_iterations: 5, .. }));
    assert_eq!(graph.node(graph.list(*body).nodes[0]).id.as_ref(), "a");
}

#[test]
fn what_an_action_says_arrives() {
    let graph = compiled(
        "
name: x
params: {n: {type: integer}}
error_handling: {retry: {max_attempts: 3}}
steps:
  - action: a
    agent: b
    requires: {region: eu, gpu: true, cores: 8}
    retry: {max_attempts: 2, backoff: linear, delay: 2s, max_delay: 10s, jitter: 20%,
            retry_on: [timeout], no_retry_on: fatal}
    fallback: [c, d]
    compensate: {agent: e, action: undo, params: {id: '${{ a.output.id }}'}}
    delivery: at_most_once
    priority: 9
    queue_timeout: 5m
    rate_limit: {limit: 5, per: 1s}
  - {action: b, compensate: undo_b}
",
    );
    let NodeKind::Action(action) = &node(&graph, "a").kind else { panic!() };
    let labels: Vec<_> = action.requires.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(labels, ["cores=8", "gpu=true", "region=eu"]);
    assert_eq!((action.retry.max_attempts, action.retry.backoff), (2, Backoff::Linear));
    assert!((action.retry.jitter - 0.2).abs() < 1e-9);
    assert_eq!(action.retry.no_retry_on, ["fatal"]);
    assert_eq!(action.fallback.len(), 2);
    assert_eq!(action.delivery, Delivery::AtMostOnce);
    assert_eq!(action.priority, Some(9));
    assert!(node(&graph, "a").rate_limit.is_some());
    let NodeKind::Action(action) = &node(&graph, "b").kind else { panic!() };
    assert_eq!(action.retry.max_attempts, 3);
    let used: Vec<_> = graph.actions().map(|used| (used.agent, used.action)).collect();
    assert_eq!(used, [(Some("b"), "a"), (Some("e"), "undo"), (None, "b"), (None, "undo_b")]);
}

#[test]
fn a_byte_order_mark_and_carriage_returns_change_nothing() {
    let graph = compiled("\u{feff}name: x\r\nsteps:\r\n  - action: a\r\n");
    assert_eq!(graph.nodes[0].position, crate::graph::Position { line: 3, column: 5 });
}
