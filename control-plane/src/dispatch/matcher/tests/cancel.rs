//! Stopping tasks: cancelled, withdrawn, held.

use std::time::Duration;

use engine::task::{TaskOrder, TaskOutcome};

use super::super::super::session::{AgentVerdict, Outgoing};
use super::world::{World, key, order, run};

const GRACE: Duration = Duration::from_secs(3);

fn cancel(world: &mut World, number: u32) {
    world.act(|matcher| matcher.cancel(key("w", number), "enough", GRACE));
}

#[test]
fn what_is_not_out_is_cancelled_at_once() {
    let mut world = World::new();
    world.submit(order("w", 1));
    cancel(&mut world, 1);
    assert_eq!(world.outcomes(), [TaskOutcome::Cancelled]);
    let agent = world.agent("a", 1);
    assert_eq!(world.assigned(agent), [""; 0]);
}

#[test]
fn what_is_out_is_cancelled_when_its_agent_says_so() {
    let mut world = World::new();
    let agent = world.agent("a", 1);
    world.submit(order("w", 1));
    let task = world.one(agent);
    world.accept(agent, task);
    cancel(&mut world, 1);
    cancel(&mut world, 1);
    let frames = world.frames(agent);
    let [Outgoing::Cancel { key, lease, reason, grace }] = &frames[..] else {
        panic!("one cancel: {frames:?}")
    };
    assert_eq!((*key, *lease, reason.as_str(), *grace), (task.0, task.1, "enough", GRACE));
    assert!(world.reports.is_empty());
    world.result(agent, task, AgentVerdict::Cancelled);
    assert_eq!(world.outcomes(), [TaskOutcome::Cancelled]);
    assert!(matches!(world.frames(agent)[..], [Outgoing::Ack { duplicate: false, .. }]));
}

#[test]
fn what_was_done_before_the_cancel_came_is_done() {
    let mut world = World::new();
    let agent = world.agent("a", 1);
    world.submit(order("w", 1));
    let task = world.one(agent);
    cancel(&mut world, 1);
    world.succeed(agent, task);
    assert!(matches!(world.outcomes()[..], [TaskOutcome::Succeeded { .. }]));
}

#[test]
fn what_does_not_stop_in_time_is_cancelled_when_its_grace_ends() {
    let mut world = World::new();
    let agent = world.agent("a", 1);
    world.submit(order("w", 1));
    let task = world.one(agent);
    world.accept(agent, task);
    cancel(&mut world, 1);
    world.pass_alive(2, &[agent]);
    assert!(world.reports.is_empty());
    world.pass_alive(1, &[agent]);
    assert_eq!(world.outcomes(), [TaskOutcome::Cancelled]);
    let frames = world.frames(agent);
    assert!(frames.iter().any(|it| matches!(it, Outgoing::LeaseLost { .. })), "{frames:?}");
    world.succeed(agent, task);
    assert_eq!(world.inquiries, [task.0], "the sink knows that it has ended");
    assert!(world.reports.is_empty());
}

#[test]
fn a_cancelled_task_whose_agent_dies_is_cancelled_and_not_given_out_anew() {
    let mut world = World::new();
    let agent = world.agent("a", 1);
    world.submit(order("w", 1));
    world.one(agent);
    cancel(&mut world, 1);
    world.gone(agent);
    assert_eq!(world.outcomes(), [TaskOutcome::Cancelled]);
}

#[test]
fn what_is_not_known_is_cancelled_with_attempt_zero() {
    let mut world = World::new();
    cancel(&mut world, 1);
    assert_eq!(world.reports[0].0.task.attempt, 0);
    assert_eq!(world.outcomes(), [TaskOutcome::Cancelled]);
}

#[test]
fn withdrawing_takes_back_only_what_no_agent_has() {
    let mut world = World::new();
    let agent = world.agent("a", 1);
    world.submit(order("w", 1));
    world.submit(order("w", 2));
    for number in 1..=2 {
        world.act(|matcher| matcher.withdraw(key("w", number)));
    }
    assert_eq!(world.reports.len(), 1);
    assert_eq!(world.reports[0].0.task.key, key("w", 2));
    let task = world.one(agent);
    world.succeed(agent, task);
    assert_eq!(world.outcomes().len(), 2);
}

#[test]
fn the_tasks_of_a_run_that_ended_are_stopped_without_reports() {
    let mut world = World::new();
    let agent = world.agent("a", 1);
    world.submit(order("w", 1));
    world.submit(order("w", 2));
    world.submit(order("v", 1));
    let task = world.one(agent);
    world.accept(agent, task);
    world.act(|matcher| matcher.withdraw_run(run("w")));
    assert!(matches!(world.frames(agent)[..], [Outgoing::Cancel { .. }]));
    assert!(world.reports.is_empty());
    world.result(agent, task, AgentVerdict::Cancelled);
    assert_eq!(world.assigned(agent), ["v/1"]);
    assert!(world.reports.is_empty());
}

#[test]
fn a_run_that_moved_away_is_left_to_its_agents() {
    let mut world = World::new();
    let agent = world.agent("a", 1);
    world.submit(order("w", 1));
    world.one(agent);
    world.act(|matcher| matcher.forget_run(run("w")));
    assert_eq!(world.frames(agent), []);
    assert_eq!(world.matcher.counts().running, 0);
}

#[test]
fn a_held_run_gives_out_nothing_until_it_goes_on() {
    let mut world = World::new();
    let agent = world.agent("a", 1);
    world.act(|matcher| matcher.hold_run(run("w"), true));
    let patience = Some(Duration::from_secs(5));
    world.submit(TaskOrder { queue_timeout: patience, ..order("w", 1) });
    world.pass_alive(60, &[agent]);
    assert_eq!(world.assigned(agent), [""; 0]);
    assert!(world.reports.is_empty(), "time does not count while the run is held");
    assert_eq!(world.cause(key("w", 1)), "the run is paused");
    world.act(|matcher| matcher.hold_run(run("w"), false));
    assert_eq!(world.assigned(agent), ["w/1"]);
}

#[test]
fn holding_takes_tasks_out_of_the_queue_and_lost_ones_do_not_enter_it() {
    let mut world = World::new();
    world.submit(order("w", 1));
    world.act(|matcher| matcher.hold_run(run("w"), true));
    let agent = world.agent("a", 1);
    assert_eq!(world.assigned(agent), [""; 0]);
    world.act(|matcher| matcher.hold_run(run("w"), false));
    let task = world.one(agent);
    world.act(|matcher| matcher.hold_run(run("w"), true));
    let (key, lease) = task;
    world.hear(
        agent,
        super::super::super::session::Incoming::Release { key, lease, reason: String::new() },
    );
    assert_eq!(world.assigned(agent), [""; 0]);
    world.act(|matcher| matcher.hold_run(run("w"), false));
    assert_eq!(world.assigned(agent), ["w/1"]);
}

#[test]
fn a_cancel_goes_before_everything_that_it_does_not_concern() {
    let mut world = World::new();
    let agent = world.agent("a", 8);
    world.submit(order("w", 1));
    let running = world.one(agent);
    for number in 2..=4 {
        world.submit(order("w", number));
    }
    cancel(&mut world, 3);
    cancel(&mut world, running.0.instance.0);
    let told = |frame: &Outgoing| match frame {
        Outgoing::Assign(assignment) => format!("assign {}", assignment.order.key.instance.0),
        Outgoing::Cancel { key, .. } => format!("cancel {}", key.instance.0),
        other => format!("{other:?}"),
    };
    let frames: Vec<String> = world.frames(agent).iter().map(told).collect();
    assert_eq!(frames, ["cancel 1", "assign 2", "assign 3", "cancel 3", "assign 4"]);
}
