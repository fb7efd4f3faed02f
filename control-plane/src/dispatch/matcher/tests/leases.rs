//! The clocks: acceptance, lease, deadline, pings, and what a lost task comes to.

use std::time::Duration;

use engine::task::{Delivery, TaskOrder, TaskOutcome};

use super::super::super::report::ReportAck;
use super::super::super::session::{Incoming, Outgoing};
use super::world::{LIFE, World, order, register};
use crate::limits;

fn at_most_once(number: u32) -> TaskOrder {
    TaskOrder { delivery: Delivery::AtMostOnce, ..order("w", number) }
}

#[test]
fn what_is_not_accepted_goes_to_another_agent_at_once() {
    let mut world = World::new();
    let deaf = world.agent("a", 1);
    world.submit(order("w", 1));
    let old = world.one(deaf);
    let other = world.agent("b", 1);
    world.pass_alive(4, &[deaf, other]);
    assert_eq!(world.assigned(other), [""; 0]);
    world.pass_alive(1, &[deaf, other]);
    let new = world.one(other);
    assert_eq!(new.0, old.0);
    assert_ne!(new.1, old.1, "a new lease");
    let told = world.frames(deaf);
    assert!(told.iter().any(|it| matches!(it, Outgoing::LeaseLost { .. })), "{told:?}");
    world.succeed(deaf, old);
    assert!(world.reports.is_empty(), "the old lease changes nothing");
}

#[test]
fn any_frame_about_the_task_extends_the_lease_and_status_that_of_all_named() {
    let mut world = World::new();
    let agent = world.agent("a", 3);
    for number in 1..=3 {
        world.submit(order("w", number));
    }
    let tasks: Vec<_> =
        world.assignments(agent).iter().map(|it| (it.order.key, it.lease)).collect();
    for task in &tasks {
        world.accept(agent, *task);
    }
    for _ in 0..4 {
        world.pass_alive(10, &[agent]);
        let (key, lease) = tasks[0];
        let message = "half".to_owned();
        world.hear(agent, Incoming::Progress { key, lease, fraction: 0.5, message });
        world.hear(agent, Incoming::Status(vec![tasks[1]]));
    }
    let mut again = world.assigned(agent);
    again.dedup();
    assert_eq!(again, ["w/3"], "nobody spoke of the third, and it was given out anew");
    assert_eq!(world.matcher.progress(tasks[0].0).unwrap().message, "half");
}

#[test]
fn a_dead_stream_returns_unaccepted_tasks_at_once_and_accepted_ones_when_the_lease_ends() {
    let mut world = World::new();
    let dying = world.agent("a", 2);
    world.submit(order("w", 1));
    let first = world.one(dying);
    world.accept(dying, first);
    world.submit(order("w", 2));
    let other = world.agent("b", 9);
    world.gone(dying);
    let second = world.one(other);
    assert_eq!(second.0, order("w", 2).key);
    world.accept(other, second);
    let health = world.matcher.agents(None, 10)[0].health;
    assert_eq!(health, contracts::v1::AgentHealth::Unreachable);
    assert!(world.cause(order("w", 1).key).contains("does not answer"));
    world.pass_alive(14, &[other]);
    world.accept(other, second);
    assert_eq!(world.assigned(other), [""; 0]);
    world.pass_alive(1, &[other]);
    assert_eq!(world.assigned(other), ["w/1"]);
    assert_eq!(world.matcher.agents(None, 10).len(), 1, "nothing is left to wait for");
}

#[test]
fn pings_come_each_second_with_tasks_and_every_twenty_without() {
    let mut world = World::new();
    let agent = world.agent("a", 1);
    world.frames(agent);
    let pings = |world: &mut World| {
        let frames = world.frames(agent);
        frames.iter().filter(|it| matches!(it, Outgoing::Ping { .. })).count()
    };
    world.pass_alive(60, &[agent]);
    assert_eq!(pings(&mut world), 3);
    world.submit(order("w", 1));
    let task = world.one(agent);
    world.accept(agent, task);
    world.pass_alive(10, &[agent]);
    assert_eq!(pings(&mut world), 10);
}

#[test]
fn an_agent_that_misses_pings_for_three_seconds_is_taken_for_dead() {
    let mut world = World::new();
    let agent = world.agent("a", 1);
    world.submit(order("w", 1));
    world.pass(Duration::from_millis(3_900));
    assert_eq!(world.matcher.counts().agents, 1);
    world.pass(Duration::from_millis(200));
    assert_eq!(world.matcher.counts().agents, 0);
    assert_eq!(world.matcher.counts().queued, 1, "unaccepted: back at once");
    assert!(!world.hear(agent, Incoming::Pong), "its session has ended");
}

#[test]
fn the_time_of_an_attempt_begins_with_acceptance_and_its_end_frees_the_slot_later() {
    let mut world = World::new();
    let agent = world.agent("a", 1);
    world.submit(TaskOrder { timeout: Some(Duration::from_secs(3)), ..order("w", 1) });
    world.submit(order("w", 2));
    let task = world.one(agent);
    world.pass_alive(4, &[agent]);
    world.accept(agent, task);
    world.pass_alive(2, &[agent]);
    assert!(world.reports.is_empty());
    world.pass_alive(1, &[agent]);
    let frames = world.frames(agent);
    let cancel = |it: &Outgoing| matches!(it, Outgoing::Cancel { key, .. } if *key == task.0);
    assert!(frames.iter().any(cancel), "{frames:?}");
    let (report, _) = world.reports[0].clone();
    assert_eq!(report.task.agent.unwrap().instance, "a".into());
    assert_eq!(world.failures(), ["timeout"]);
    assert_eq!(world.assigned(agent), [""; 0], "the agent may still be stopping");
    world.result(agent, task, super::super::super::session::AgentVerdict::Cancelled);
    assert_eq!(world.assigned(agent), ["w/2"]);
    assert!(world.reports.is_empty(), "the late word changes nothing");
}

#[test]
fn who_does_not_say_that_it_stopped_has_room_again_after_a_grace() {
    let mut world = World::new();
    let agent = world.agent("a", 1);
    world.submit(TaskOrder { timeout: Some(Duration::from_secs(1)), ..order("w", 1) });
    world.submit(order("w", 2));
    let task = world.one(agent);
    world.accept(agent, task);
    world.pass_alive(1, &[agent]);
    assert_eq!(world.failures(), ["timeout"]);
    world.pass_alive(4, &[agent]);
    assert_eq!(world.assigned(agent), [""; 0]);
    world.pass_alive(1, &[agent]);
    assert_eq!(world.assigned(agent), ["w/2"]);
}

#[test]
fn at_most_once_waits_for_the_durable_start_before_it_proceeds() {
    let mut world = World::new();
    let agent = world.agent("a", 1);
    world.submit(at_most_once(1));
    let assigned = world.assignments(agent).remove(0);
    assert_eq!(assigned.order.delivery, Delivery::AtMostOnce);
    let task = (assigned.order.key, assigned.lease);
    world.accept(agent, task);
    let proceeds = |frames: Vec<Outgoing>| {
        frames.iter().filter(|it| matches!(it, Outgoing::Proceed { .. })).count()
    };
    assert_eq!(proceeds(world.frames(agent)), 0);
    assert_eq!(world.outcomes(), [TaskOutcome::Started]);
    assert_eq!(proceeds(world.frames(agent)), 1);
    world.act(|matcher| matcher.proceed(task.0));
    assert_eq!(proceeds(world.frames(agent)), 0, "once is enough");
    world.succeed(agent, task);
    assert!(matches!(world.outcomes()[..], [TaskOutcome::Succeeded { .. }]));
}

#[test]
fn what_was_started_and_lost_goes_to_a_person_and_never_back_to_the_queue() {
    let mut world = World::new();
    let agent = world.agent("a", 1);
    world.submit(at_most_once(1));
    let task = world.one(agent);
    world.accept(agent, task);
    assert_eq!(world.outcomes(), [TaskOutcome::Started]);
    world.gone(agent);
    let other = world.agent("b", 1);
    world.pass_alive(15, &[other]);
    assert_eq!(world.outcomes(), [TaskOutcome::LostAtMostOnce]);
    assert_eq!(world.assigned(other), [""; 0]);
    assert_eq!(world.matcher.counts().queued + world.matcher.counts().running, 0);
}

#[test]
fn at_most_once_that_was_never_accepted_goes_back_to_the_queue() {
    let mut world = World::new();
    let agent = world.agent("a", 1);
    world.submit(at_most_once(1));
    world.one(agent);
    let other = world.agent("b", 1);
    world.gone(agent);
    assert_eq!(world.assigned(other), ["w/1"]);
    assert!(world.reports.is_empty());
}

#[test]
fn what_was_started_and_is_given_back_unharmed_is_a_failure_without_effect() {
    let mut world = World::new();
    let agent = world.agent("a", 1);
    world.submit(at_most_once(1));
    let task = world.one(agent);
    world.accept(agent, task);
    world.outcomes();
    let (key, lease) = task;
    world.hear(agent, Incoming::Release { key, lease, reason: String::new() });
    let [TaskOutcome::Failed(error)] = &world.outcomes()[..] else { panic!("a failure") };
    assert!(error.no_effect && error.code == "released", "{error:?}");
}

#[test]
fn what_is_given_back_goes_to_another_agent_first() {
    let mut world = World::new();
    let first = world.agent("a", 1);
    let other = world.agent("b", 1);
    world.submit(order("w", 1));
    let (key, lease) = world.one(first);
    world.hear(first, Incoming::Release { key, lease, reason: "busy".into() });
    assert_eq!(world.assigned(other), ["w/1"]);
}

#[test]
fn a_task_lost_more_than_eight_times_fails() {
    let mut world = World::new();
    world.submit(order("w", 1));
    for loss in 0..=limits::LOSSES_MAX {
        assert!(world.reports.is_empty(), "after {loss} losses");
        let agent = world.agent("a", 1);
        world.one(agent);
        world.gone(agent);
    }
    assert_eq!(world.failures(), ["lost"]);
    assert_eq!(world.matcher.counts(), super::super::Counts::default());
}

#[test]
fn a_stream_is_rebalanced_at_its_age_and_gets_nothing_new_before_it_comes_again() {
    let mut world = World::new();
    let agent = world.agent("a", 2);
    world.pass_alive(LIFE.as_secs(), &[agent]);
    let frames = world.frames(agent);
    assert!(matches!(frames.last(), Some(Outgoing::Rebalance { .. })), "{frames:?}");
    world.submit(order("w", 1));
    assert_eq!(world.assigned(agent), [""; 0]);
    let again = world.connect(register("t", "a", 2));
    assert_eq!(world.assigned(again), ["w/1"]);
    assert!(!world.hear(agent, Incoming::Pong), "the old stream is over");
}

#[test]
fn a_stream_that_stays_after_rebalance_is_closed() {
    let mut world = World::new();
    let agent = world.agent("a", 2);
    world.pass_alive(LIFE.as_secs() + 10, &[agent]);
    assert_eq!(world.matcher.counts().agents, 0);
}

#[test]
fn a_refused_start_takes_the_task_from_the_agent() {
    let mut world = World::new();
    let agent = world.agent("a", 1);
    world.submit(at_most_once(1));
    let task = world.one(agent);
    world.accept(agent, task);
    world.answer_all(Some(ReportAck::LeaseLost));
    let frames = world.frames(agent);
    assert!(matches!(frames[..], [Outgoing::LeaseLost { .. }]), "{frames:?}");
    assert_eq!(world.matcher.counts().running, 0);
}

#[test]
fn a_start_that_nobody_answers_is_reported_again() {
    let mut world = World::new();
    let agent = world.agent("a", 1);
    world.submit(at_most_once(1));
    let task = world.one(agent);
    world.accept(agent, task);
    world.answer_all(None);
    world.pass_alive(1, &[agent]);
    assert_eq!(world.outcomes(), [TaskOutcome::Started]);
    let frames = world.frames(agent);
    assert!(frames.iter().any(|it| matches!(it, Outgoing::Proceed { .. })), "{frames:?}");
}
