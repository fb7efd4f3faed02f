//! What a run leaves behind when it stops, and what it finds when it is taken up again.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use engine::event::{Ending, Origin};
use engine::{Command, Effect, RunStatus, State};
use serde_json::json;

use crate::world::{World, run};

fn pause() -> Command {
    Command::Pause { reason: String::new(), origin: Origin::default() }
}

fn retry() -> Command {
    Command::Retry { origin: Origin::default() }
}

fn signal(name: &str) -> Command {
    Command::Signal { signal: name.to_owned(), payload: "1".into(), origin: Origin::default() }
}

/// The effects of one command.
fn effects(world: &mut World, command: Command) -> Vec<Effect> {
    engine::decide(&mut world.state, command, world.now).unwrap().effects
}

#[test]
fn a_paused_run_that_is_out_of_time_gives_its_tasks_out_again() {
    let yaml = "name: t\ndeadline: 10s\nerror_handling: {on_failure: [{agent: echo, action: echo}]}\n\
        steps:\n  - {id: w, wait: 1h}\n";
    let mut world = World::new(yaml, &json!({}));
    assert!(effects(&mut world, pause()).contains(&Effect::Hold(true)));
    world.now = world.state.next_wakeup().unwrap();
    let late = effects(&mut world, Command::Tick);
    assert!(late.contains(&Effect::Hold(false)), "{late:?}");
    assert_eq!(world.state.status(), RunStatus::Running);
}

#[test]
fn steps_behind_a_passed_deadline_are_not_bound_by_it() {
    let yaml = "name: t\ndeadline: 10s\nerror_handling: {on_failure: [{agent: echo, action: echo}]}\n\
        steps:\n  - {id: a, agent: echo, action: echo}\n  - {id: w, wait: 1h}\n";
    let mut world = World::new(yaml, &json!({}));
    assert!(world.out[0].deadline.is_some(), "a step of the run is bound");
    while world.out.first().is_none_or(|order| !order.path.starts_with("on_failure")) {
        assert!(world.step());
    }
    assert_eq!(world.out[0].deadline, None);
}

#[test]
fn a_retried_run_waits_for_its_key_again() {
    let yaml = "name: t\nconcurrency: {key: db, limit: 1}\nsteps:\n\
        \x20 - {id: a, agent: echo, action: fail, params: {kind: permanent}}\n";
    let mut world = run(yaml);
    assert_eq!(world.ended, Some(Ending::Failure));
    let again = effects(&mut world, retry());
    assert!(again.iter().any(|effect| matches!(effect, Effect::Acquire(key) if !key.held)));
    assert!(!again.iter().any(|effect| matches!(effect, Effect::Dispatch(_))), "{again:?}");
    let which = engine::event::KeyKind::Concurrency;
    let granted = effects(&mut world, Command::Granted { instance: None, which });
    assert!(granted.iter().any(|effect| matches!(effect, Effect::Dispatch(_))));
}

#[test]
fn a_block_that_is_taken_up_again_holds_its_key_again() {
    let yaml = "name: t\nsteps:\n  - id: box\n    concurrency: {key: db, limit: 1}\n    steps:\n\
        \x20     - {id: a, agent: echo, action: fail, params: {kind: permanent}}\n";
    let mut world = run(yaml);
    let again = effects(&mut world, retry());
    assert!(again.iter().any(|effect| matches!(effect, Effect::Acquire(key) if key.held)));
}

#[test]
fn a_run_that_failed_while_it_was_paused_goes_on_when_it_is_retried() {
    let yaml =
        "name: t\nsteps:\n  - {id: a, agent: echo, action: fail, params: {kind: permanent}}\n";
    let mut world = World::new(yaml, &json!({}));
    world.ask(pause()).unwrap();
    world.run();
    assert_eq!(world.ended, Some(Ending::Failure));
    effects(&mut world, retry());
    assert_eq!(world.state.status(), RunStatus::Running);
}

#[test]
fn the_end_of_a_former_child_is_not_that_of_the_present_one() {
    let yaml = "name: t\nsteps: [{id: sub, workflow: other}]\n";
    let child_of = |state: &State| {
        let owed = state.pending_effects();
        owed.into_iter().find_map(|effect| match effect {
            Effect::StartChild { instance, child, .. } => Some((instance, child.run)),
            _ => None,
        })
    };
    let mut world = run(yaml);
    assert_eq!(world.ended, Some(Ending::Failure), "there is no such workflow");
    effects(&mut world, retry());
    let (instance, present) = child_of(&world.state).unwrap();
    let end = |child| Command::ChildEnded {
        instance,
        child,
        status: Ending::Success,
        outputs: None,
        error: None,
    };
    let former = engine::RunId::derived(world.state.id(), "a former child");
    assert!(engine::decide(&mut world.state, end(former), world.now).is_err());
    assert!(engine::decide(&mut world.state, end(present), world.now).is_ok());
}

#[test]
fn a_signal_that_is_waited_for_comes_through_however_many_are_kept() {
    let yaml = "name: t\nsteps: [{id: w, wait_for: {signal: go}}]\n";
    let mut world = World::new(yaml, &json!({}));
    for _ in 0..engine::limits::SIGNALS_BUFFERED_MAX {
        effects(&mut world, signal("noise"));
    }
    assert!(engine::decide(&mut world.state, signal("noise"), world.now).is_err());
    effects(&mut world, signal("go"));
    assert_eq!(world.state.steps()[0].status, "success");
}

#[test]
fn the_output_of_a_loop_is_joined_once_for_all_who_see_it() {
    let yaml = "name: t\nsteps:\n\
        \x20 - id: one\n    foreach: '[1, 2, 3]'\n    agent: echo\n    action: echo\n\
        \x20   params: {v: '${{ item }}'}\n\
        \x20 - {id: two, foreach: '[1, 2, 3]', agent: echo, action: echo}\n";
    let mut world = World::new(yaml, &json!({}));
    while world.out.first().is_none_or(|order| !order.path.starts_with("two")) {
        assert!(world.step());
    }
    let seen: Vec<_> = world.out.iter().map(|order| &order.upstream[0].1).collect();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|output| Arc::ptr_eq(output, seen[0])));
}

#[test]
fn a_loop_of_many_items_is_cancelled_in_transitions_that_the_store_can_take() {
    let yaml = "name: t\nsteps:\n\
        \x20 - {id: all, foreach: '${{ params.items }}', agent: echo, action: echo}\n\
        params: {items: {type: array}}\n";
    let items: Vec<usize> = (0..2 * engine::limits::EVENTS_PER_DECISION_MAX).collect();
    let mut world = World::new(yaml, &json!({ "items": items }));
    let cancel = Command::Cancel { reason: "enough".to_owned(), origin: Origin::default() };
    let mut decided = engine::decide(&mut world.state, cancel, world.now).unwrap();
    let (mut asked, mut crashed) = (0, false);
    loop {
        assert!(decided.events.len() <= engine::limits::EVENTS_PER_DECISION_MAX + 10);
        let cancels = |effect: &&Effect| matches!(effect, Effect::CancelTask { .. });
        asked += decided.effects.iter().filter(cancels).count();
        if !decided.more {
            break;
        }
        // Whoever takes the run over half-way goes on with it.
        let next = if crashed { Command::Tick } else { Command::Adopt { epoch: 2 } };
        if !crashed {
            world.state.settle_fold();
        }
        crashed = true;
        decided = engine::decide(&mut world.state, next, world.now).unwrap();
    }
    assert_eq!(asked, items.len());
}
