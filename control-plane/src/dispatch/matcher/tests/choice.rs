//! Which agent gets which task, and when none does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use contracts::v1;
use engine::task::{FailureKind, TaskOrder};

use super::super::super::session::{Incoming, SessionId};
use super::world::{START, World, failure, order, register};
use crate::limits;

fn credits(total: u32, per_action: &[(&str, u32)]) -> Incoming {
    let per_action = per_action.iter().map(|(name, count)| (Arc::from(*name), *count));
    Incoming::Credits { total, per_action: per_action.collect() }
}

fn with_actions(mut register: v1::Register, names: &[&str]) -> v1::Register {
    let action = |name: &&str| v1::ActionCard { name: (*name).into(), ..Default::default() };
    register.card.as_mut().unwrap().actions = names.iter().map(action).collect();
    register
}

#[test]
fn no_more_is_out_than_the_slots() {
    let mut world = World::new();
    let agent = world.agent("a", 2);
    for number in 1..=3 {
        world.submit(order("w", number));
    }
    let assigned = world.assignments(agent);
    assert_eq!(assigned.len(), 2);
    world.succeed(agent, (assigned[1].order.key, assigned[1].lease));
    assert_eq!(world.assigned(agent), ["w/3"]);
}

#[test]
fn credits_are_absolute_and_lowering_them_holds_for_new_tasks() {
    let mut world = World::new();
    let agent = world.agent("a", 4);
    for number in 1..=9 {
        world.submit(order("w", number));
    }
    let out = world.assignments(agent);
    assert_eq!(out.len(), 4);
    world.hear(agent, credits(2, &[]));
    for (index, done) in out.iter().enumerate() {
        world.succeed(agent, (done.order.key, done.lease));
        let expected = usize::from(index >= 2);
        assert_eq!(world.assignments(agent).len(), expected, "after {index}");
    }
    world.hear(agent, credits(5, &[]));
    assert_eq!(world.assignments(agent).len(), 3, "five at once, not five more");
}

#[test]
fn credits_of_an_action_bound_that_action_alone() {
    let mut world = World::new();
    let agent = world.connect(with_actions(register("t", "a", 10), &["do", "other"]));
    world.hear(agent, credits(10, &[("do", 1)]));
    world.submit(order("w", 1));
    world.submit(order("w", 2));
    world.submit(TaskOrder { action: "other".into(), ..order("w", 3) });
    assert_eq!(world.assigned(agent), ["w/1", "w/3"]);
}

#[test]
fn a_new_task_does_not_overtake_an_older_one_of_equal_priority() {
    let mut world = World::new();
    let agent = world.agent("a", 1);
    world.submit(order("w", 1));
    world.submit(TaskOrder { queued_at: START.after(Duration::from_micros(2)), ..order("w", 2) });
    world.submit(TaskOrder { queued_at: START.after(Duration::from_micros(1)), ..order("w", 3) });
    let first = world.one(agent);
    world.succeed(agent, first);
    let second = world.assignments(agent).remove(0);
    assert_eq!(&*second.order.idempotency_key, "w/3");
    world.succeed(agent, (second.order.key, second.lease));
    assert_eq!(world.assigned(agent), ["w/2"]);
}

#[test]
fn between_actions_of_one_agent_the_older_task_goes_first() {
    let mut world = World::new();
    let agent = world.connect(with_actions(register("t", "a", 1), &["do", "other"]));
    world.submit(order("w", 1));
    let later = START.after(Duration::from_micros(1));
    world.submit(TaskOrder { queued_at: later, ..order("w", 2) });
    world.submit(TaskOrder { action: "other".into(), ..order("w", 3) });
    let first = world.one(agent);
    world.succeed(agent, first);
    assert_eq!(world.assigned(agent), ["w/3"]);
}

#[test]
fn a_higher_priority_goes_first_and_waiting_a_minute_gains_a_level() {
    let mut world = World::new();
    world.submit(TaskOrder { priority: 3, ..order("w", 1) });
    world.pass_secs(61);
    let queued_at = world.now;
    world.submit(TaskOrder { priority: 4, queued_at, ..order("w", 2) });
    world.submit(TaskOrder { priority: 5, queued_at, ..order("w", 3) });
    let agent = world.agent("a", 1);
    let mut seen = Vec::new();
    for _ in 0..3 {
        let next = world.assignments(agent).remove(0);
        seen.push(next.order.key.instance.0);
        world.succeed(agent, (next.order.key, next.lease));
    }
    assert_eq!(seen, [3, 1, 2], "3 by priority; 1 has reached the level of 2 and is older");
}

#[test]
fn ageing_goes_up_to_the_highest_level_and_no_further() {
    let mut world = World::new();
    world.submit(TaskOrder { priority: 0, ..order("w", 1) });
    world.pass_secs(60 * 60);
    let queued_at = world.now;
    world.submit(TaskOrder { priority: limits::PRIORITY_MAX, queued_at, ..order("w", 2) });
    let agent = world.agent("a", 2);
    assert_eq!(world.assigned(agent), ["w/1", "w/2"]);
}

#[test]
fn an_agent_is_chosen_by_type_or_alias_or_by_action_alone() {
    let named = |name: Option<&str>| TaskOrder { agent: name.map(Arc::from), ..order("w", 1) };
    let cases = [
        (Some("t"), true),
        (Some("agent6"), true),
        (Some("agent7"), false),
        (Some("T"), false),
        (None, true),
    ];
    for (name, expected) in cases {
        let mut world = World::new();
        let mut register = register("t", "a", 1);
        register.aliases = vec!["agent6".into()];
        let agent = world.connect(register);
        world.submit(named(name));
        assert_eq!(world.assigned(agent).len(), usize::from(expected), "{name:?}");
    }
}

#[test]
fn the_action_must_be_offered_and_the_labels_must_fit() {
    let requires = |labels: &[(&str, &str)]| {
        let labels = labels.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        Arc::new(labels.collect::<BTreeMap<String, String>>())
    };
    let cases = [
        (TaskOrder { action: "undo".into(), ..order("w", 1) }, false),
        (TaskOrder { requires: requires(&[("zone", "a")]), ..order("w", 1) }, true),
        (TaskOrder { requires: requires(&[("zone", "b")]), ..order("w", 1) }, false),
        (TaskOrder { requires: requires(&[("gpu", "yes")]), ..order("w", 1) }, false),
    ];
    for (order, expected) in cases {
        let mut world = World::new();
        let mut register = register("t", "a", 1);
        register.labels.insert("zone".into(), "a".into());
        let agent = world.connect(register);
        world.submit(order.clone());
        assert_eq!(world.assigned(agent).len(), usize::from(expected), "{order:?}");
    }
}

#[test]
fn the_least_loaded_gets_it_and_among_equals_the_first_by_name() {
    let mut world = World::new();
    let b = world.agent("b", 4);
    let a = world.agent("a", 2);
    let mut places = String::new();
    for number in 1..=6 {
        world.submit(order("w", number));
        let to_a = world.assigned(a).len();
        let to_b = world.assigned(b).len();
        assert_eq!(to_a + to_b, 1);
        places.push(if to_a == 1 { 'a' } else { 'b' });
    }
    // By share of the slots: a 0/2 first by name, b 0/4, b 1/4, then a 1/2 before b 2/4.
    assert_eq!(places, "abbabb");
}

#[test]
fn draining_and_unreachable_agents_get_nothing() {
    let mut world = World::new();
    let draining = world.agent("a", 9);
    world.hear(draining, Incoming::DrainRequested { reason: String::new() });
    world.submit(order("w", 1));
    assert_eq!(world.assigned(draining), [""; 0]);
    let other = world.agent("b", 1);
    let task = world.one(other);
    world.accept(other, task);
    world.gone(other);
    world.submit(order("w", 2));
    assert_eq!(world.matcher.counts().queued, 1);
    assert!(world.cause(order("w", 2).key).contains("about to leave"));
}

#[test]
fn a_preferred_instance_is_waited_for_while_it_is_there() {
    let mut world = World::new();
    let preferred = world.agent("b", 1);
    let other = world.agent("a", 1);
    let undo = |number| TaskOrder { preferred_instance: Some("b".into()), ..order("w", number) };
    world.submit(undo(1));
    world.submit(undo(2));
    let first = world.one(preferred);
    assert_eq!(world.assigned(other), [""; 0]);
    assert!(world.cause(undo(2).key).contains("where the step was done"));
    world.accept(preferred, first);
    world.gone(preferred);
    assert_eq!(world.assigned(other), ["w/2"]);
}

#[test]
fn an_agent_that_reads_nothing_gets_nothing_more_until_it_reads() {
    let mut world = World::new();
    let agent = world.agent("a", 5_000);
    let count = u32::try_from(limits::OUTBOX_FRAMES_FULL).unwrap() + 10;
    for number in 1..=count {
        world.submit(order("w", number));
    }
    assert_eq!(world.matcher.counts().running, limits::OUTBOX_FRAMES_FULL - 1);
    assert!(world.cause(order("w", count).key).contains("do not read"));
    world.assignments(agent);
    assert_eq!(world.matcher.counts().queued, 0);
}

#[test]
fn an_agent_that_never_reads_loses_its_stream() {
    let mut world = World::new();
    let agent = world.agent("a", 1);
    for nonce in 0..=limits::OUTBOX_FRAMES_MAX as u64 {
        world.hear(agent, Incoming::Ping { nonce });
    }
    assert_eq!(world.matcher.counts().agents, 0);
}

fn fail_until_open(world: &mut World, agent: SessionId) {
    for number in 1..=limits::BREAKER_RESULTS_MIN {
        world.submit(order("w", number));
        let task = world.one(agent);
        world.result(agent, task, failure("x", FailureKind::Retryable));
        world.outcomes();
    }
}

#[test]
fn a_circuit_breaker_opens_for_one_agent_and_action_and_lets_a_trial_through_later() {
    let mut world = World::new();
    let agent = world.connect(with_actions(register("t", "a", 9), &["do", "other"]));
    fail_until_open(&mut world, agent);
    world.submit(order("w", 100));
    world.submit(order("w", 101));
    world.submit(TaskOrder { action: "other".into(), ..order("w", 102) });
    let other = world.assignments(agent).remove(0);
    assert_eq!(&*other.order.action, "other", "the other action goes through");
    world.succeed(agent, (other.order.key, other.lease));
    let cause = world.cause(order("w", 100).key);
    assert!(cause.contains("circuit breaker of `do` is open at all of them until"), "{cause}");
    let view = &world.matcher.agents(None, 10)[0];
    assert_eq!(view.health, v1::AgentHealth::Degraded);
    assert_eq!(&*view.breakers[0].0, "do");

    world.pass_alive(limits::BREAKER_OPEN_MIN.as_secs(), &[agent]);
    let trial = world.one(agent);
    world.succeed(agent, trial);
    assert_eq!(world.assigned(agent).len(), 1, "closed again");
    assert_eq!(world.matcher.agents(None, 10)[0].health, v1::AgentHealth::Healthy);
}

#[test]
fn another_instance_takes_what_an_open_circuit_breaker_keeps_out() {
    let mut world = World::new();
    let agent = world.agent("a", 9);
    fail_until_open(&mut world, agent);
    let other = world.agent("b", 1);
    world.submit(order("w", 100));
    assert_eq!(world.assigned(other), ["w/100"]);
}

#[test]
fn permanent_failures_and_rejections_open_no_circuit_breaker() {
    let mut world = World::new();
    let agent = world.agent("a", 1);
    for number in 1..=3 * limits::BREAKER_RESULTS_MIN {
        world.submit(order("w", number));
        let task = world.one(agent);
        world.result(agent, task, failure("rejected", FailureKind::Permanent));
        world.outcomes();
    }
    assert!(world.matcher.agents(None, 10)[0].breakers.is_empty());
}

#[test]
fn of_very_many_agents_all_get_their_part() {
    let mut world = World::new();
    let count = u32::try_from(4 * limits::AGENTS_COMPARED).unwrap();
    let agents: Vec<SessionId> =
        (0..count).map(|number| world.agent(&format!("a{number:04}"), 2)).collect();
    for number in 1..=2 * count + 5 {
        world.submit(order("w", number));
    }
    assert_eq!(world.matcher.counts().queued, 5, "all slots are taken, and no more");
    let first = world.assignments(agents[7]);
    assert_eq!(first.len(), 2);
    world.succeed(agents[7], (first[0].order.key, first[0].lease));
    assert_eq!(world.assignments(agents[7]).len(), 1, "room is seen where it comes");
    world.gone(agents[3]);
    assert_eq!(world.matcher.counts().queued, 6, "the other's tasks wait again");
    let cards: std::collections::BTreeSet<_> =
        world.matcher.agents(None, 999).iter().map(|it| Arc::as_ptr(&it.card)).collect();
    assert_eq!(cards.len(), 1, "equal agents share one card");
}
