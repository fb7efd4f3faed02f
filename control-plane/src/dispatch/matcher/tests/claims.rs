//! Reconnects and restarts: tasks stay with the agents that still have them.

use std::time::Duration;

use contracts::v1;
use engine::task::{AgentRef, Delivery, TaskKey, TaskOrder, TaskOutcome};

use super::super::super::lease::LeaseToken;
use super::super::super::session::{Incoming, Outgoing, SessionId};
use super::super::{Matcher, Taken};
use super::world::{World, key, order, register};

const GRACE: Duration = Duration::from_secs(3);

/// The lease that an earlier owner gave out.
const OLD: LeaseToken = LeaseToken { epoch: 1, attempt: 1, counter: 77 };

fn adopted(number: u32) -> TaskOrder {
    TaskOrder { epoch: 2, ..order("w", number) }
}

fn reconnect(world: &mut World, instance: &str, tasks: &[(TaskKey, LeaseToken)]) -> SessionId {
    let named = tasks.iter().map(|(key, lease)| v1::TaskRef {
        task_id: key.to_string(),
        lease_token: lease.to_string(),
    });
    let tasks_in_flight = named.collect();
    world.connect(v1::Register { tasks_in_flight, ..register("t", instance, 2) })
}

fn kept(world: &mut World, session: SessionId) -> Vec<TaskKey> {
    match &world.frames(session)[0] {
        Outgoing::Registered { kept, .. } => kept.iter().map(|(key, _)| *key).collect(),
        other => panic!("the first frame is {other:?}"),
    }
}

#[test]
fn registering_again_replaces_the_session_and_keeps_what_is_named() {
    let mut world = World::new();
    let old = world.agent("a", 2);
    world.submit(order("w", 1));
    world.submit(order("w", 2));
    let tasks: Vec<_> = world.assignments(old).iter().map(|it| (it.order.key, it.lease)).collect();
    world.accept(old, tasks[0]);
    world.accept(old, tasks[1]);
    let new = reconnect(&mut world, "a", &tasks[..1]);
    assert!(!world.hear(old, Incoming::Pong));
    let frames = world.frames(new);
    let Outgoing::Registered { kept, .. } = &frames[0] else { panic!("{frames:?}") };
    assert_eq!(kept, &tasks[..1]);
    let Outgoing::Assign(again) = &frames[1] else { panic!("{frames:?}") };
    assert_eq!(again.order.key, tasks[1].0, "what is not named is given out anew");
    world.gone(old);
    world.succeed(new, tasks[0]);
    assert_eq!(world.outcomes().len(), 1, "the end of the old stream changes nothing");
}

#[test]
fn an_agent_that_comes_back_within_the_lease_keeps_its_tasks() {
    let mut world = World::new();
    let old = world.agent("a", 1);
    world.submit(order("w", 1));
    let task = world.one(old);
    world.accept(old, task);
    world.gone(old);
    world.pass_secs(14);
    let new = reconnect(&mut world, "a", &[task]);
    assert_eq!(kept(&mut world, new), [task.0]);
    world.pass_alive(14, &[new]);
    world.succeed(new, task);
    assert!(matches!(world.outcomes()[..], [TaskOutcome::Succeeded { .. }]));
}

#[test]
fn orders_of_adopted_runs_wait_for_the_agent_that_had_them() {
    let mut world = World::new();
    let other = world.agent("b", 9);
    world.act(|matcher| matcher.expect(adopted(1), GRACE));
    assert_eq!(world.assigned(other), [""; 0]);
    assert!(world.cause(key("w", 1)).contains("before the restart"));
    world.pass_secs(2);
    let agent = reconnect(&mut world, "a", &[(key("w", 1), OLD)]);
    assert_eq!(kept(&mut world, agent), [key("w", 1)]);
    world.pass_alive(2, &[agent, other]);
    assert_eq!(world.assigned(other), [""; 0]);
    world.succeed(agent, (key("w", 1), OLD));
    assert_eq!(world.outcomes().len(), 1);
}

#[test]
fn after_the_grace_they_are_given_out_and_a_late_claim_loses() {
    let mut world = World::new();
    world.act(|matcher| matcher.expect(adopted(1), GRACE));
    let other = world.agent("b", 9);
    world.pass_secs(3);
    assert_eq!(world.assigned(other), ["w/1"]);
    let late = reconnect(&mut world, "a", &[(key("w", 1), OLD)]);
    assert_eq!(kept(&mut world, late), []);
}

#[test]
fn a_claim_after_the_grace_still_wins_while_nobody_else_has_the_task() {
    let mut world = World::new();
    world.act(|matcher| matcher.expect(adopted(1), GRACE));
    world.pass_secs(60);
    let agent = reconnect(&mut world, "a", &[(key("w", 1), OLD)]);
    assert_eq!(kept(&mut world, agent), [key("w", 1)]);
    assert_eq!(world.matcher.counts().running, 1);
}

#[test]
fn a_claim_that_comes_before_the_order_is_remembered() {
    let mut world = World::new();
    let agent = reconnect(&mut world, "a", &[(key("w", 1), OLD), (key("w", 2), OLD)]);
    assert_eq!(kept(&mut world, agent).len(), 2, "it cannot be told yet");
    world.hear(agent, Incoming::Status(vec![(key("w", 1), OLD)]));
    world.act(|matcher| matcher.expect(adopted(1), GRACE));
    assert_eq!(world.frames(agent), [], "nothing is given out anew, nothing taken away");
    assert_eq!(world.matcher.counts().running, 1);
    for _ in 0..15 {
        world.pass_secs(1);
        world.hear(agent, Incoming::Status(vec![(key("w", 1), OLD)]));
    }
    let frames = world.frames(agent);
    let lost =
        |it: &Outgoing| matches!(it, Outgoing::LeaseLost { key: k, .. } if *k == key("w", 2));
    assert!(frames.iter().any(lost), "the other is nobody's: {frames:?}");
}

#[test]
fn the_first_valid_claim_wins_and_one_of_another_attempt_is_not_valid() {
    let mut world = World::new();
    world.act(|matcher| matcher.expect(TaskOrder { attempt: 2, ..adopted(1) }, GRACE));
    let stale = reconnect(&mut world, "a", &[(key("w", 1), OLD)]);
    assert_eq!(kept(&mut world, stale), []);
    let lease = LeaseToken { attempt: 2, ..OLD };
    let first = reconnect(&mut world, "b", &[(key("w", 1), lease)]);
    assert_eq!(kept(&mut world, first), [key("w", 1)]);
    let second = reconnect(&mut world, "c", &[(key("w", 1), LeaseToken { counter: 78, ..lease })]);
    assert_eq!(kept(&mut world, second), []);
}

#[test]
fn a_result_is_a_claim_too() {
    let mut world = World::new();
    world.act(|matcher| matcher.expect(adopted(1), GRACE));
    let agent = world.agent("a", 1);
    world.succeed(agent, (key("w", 1), OLD));
    assert!(matches!(world.outcomes()[..], [TaskOutcome::Succeeded { .. }]));
}

/// One that must run at most once and was begun by this instance.
fn begun(number: u32, instance: &str) -> TaskOrder {
    let begun_by = Some(AgentRef { agent_type: "t".into(), instance: instance.into() });
    TaskOrder { delivery: Delivery::AtMostOnce, begun: true, begun_by, ..adopted(number) }
}

/// It was given to one that did not accept it in time, then to another that began.
#[test]
fn what_was_begun_is_not_gone_on_with_by_another_that_holds_it() {
    let mut world = World::new();
    world.act(|matcher| matcher.expect(begun(1, "a"), GRACE));
    let other = reconnect(&mut world, "b", &[(key("w", 1), OLD)]);
    let frames = world.frames(other);
    assert!(!frames.iter().any(|it| matches!(it, Outgoing::Proceed { .. })), "{frames:?}");
    let later = LeaseToken { counter: 78, ..OLD };
    let agent = reconnect(&mut world, "a", &[(key("w", 1), later)]);
    let frames = world.frames(agent);
    assert!(frames.iter().any(|it| matches!(it, Outgoing::Proceed { .. })), "{frames:?}");
}

#[test]
fn what_was_begun_and_nobody_claims_goes_to_a_person() {
    let mut world = World::new();
    let other = world.agent("b", 9);
    world.act(|matcher| matcher.expect(begun(1, "a"), GRACE));
    world.act(|matcher| matcher.expect(begun(2, "a"), GRACE));
    let agent = reconnect(&mut world, "a", &[(key("w", 2), OLD)]);
    let frames = world.frames(agent);
    let expected = matches!(frames[..], [Outgoing::Registered { .. }, Outgoing::Proceed { .. }]);
    assert!(expected, "{frames:?}");
    world.pass_secs(3);
    assert_eq!(world.reports.len(), 1);
    assert_eq!(world.reports[0].0.task.key, key("w", 1));
    assert_eq!(world.outcomes(), [TaskOutcome::LostAtMostOnce]);
    assert_eq!(world.assigned(other), [""; 0]);
}

#[test]
fn a_claimed_task_that_was_accepted_but_not_begun_asks_anew_whether_it_may_begin() {
    let mut world = World::new();
    let order = TaskOrder { delivery: Delivery::AtMostOnce, ..adopted(1) };
    world.act(|matcher| matcher.expect(order, GRACE));
    let agent = reconnect(&mut world, "a", &[(key("w", 1), OLD)]);
    assert_eq!(world.outcomes(), [TaskOutcome::Started]);
    let frames = world.frames(agent);
    assert!(frames.iter().any(|it| matches!(it, Outgoing::Proceed { .. })), "{frames:?}");
}

#[test]
fn the_same_order_again_changes_nothing_for_the_agent_that_has_it() {
    let mut world = World::new();
    let agent = world.agent("a", 1);
    world.submit(order("w", 1));
    let task = world.one(agent);
    world.act(|matcher| matcher.expect(adopted(1), GRACE));
    world.submit(adopted(1));
    assert_eq!(world.frames(agent), []);
    world.succeed(agent, task);
    assert_eq!(world.outcomes().len(), 1);
}

#[test]
fn an_agent_told_to_drain_drains_on_after_a_reconnect_of_the_same_process() {
    let mut world = World::new();
    let agent = world.agent("a", 1);
    let token = match &world.frames(agent)[0] {
        Outgoing::Registered { token, .. } => token.to_string(),
        other => panic!("{other:?}"),
    };
    world.hear(agent, Incoming::DrainRequested { reason: String::new() });
    let same = v1::Register { session_token: token, ..register("t", "a", 1) };
    world.now = world.now.after(Duration::from_secs(1));
    let agent = world.connect(same);
    world.submit(order("w", 1));
    assert_eq!(world.assigned(agent), [""; 0]);
    let agent = world.agent("a", 1);
    assert_eq!(world.assigned(agent), ["w/1"], "a new process is another matter");
}

#[test]
fn what_was_lost_with_the_old_stream_is_said_once_more() {
    let mut world = World::new();
    let agent = world.agent("a", 2);
    world.submit(TaskOrder { delivery: Delivery::AtMostOnce, ..order("w", 1) });
    world.submit(order("w", 2));
    let tasks: Vec<_> =
        world.assignments(agent).iter().map(|it| (it.order.key, it.lease)).collect();
    world.accept(agent, tasks[0]);
    world.accept(agent, tasks[1]);
    assert_eq!(world.outcomes(), [TaskOutcome::Started]);
    world.act(|matcher| matcher.cancel(key("w", 2), "enough", GRACE));
    world.gone(agent);
    let agent = reconnect(&mut world, "a", &tasks);
    let frames = world.frames(agent);
    let expected = matches!(
        frames[..],
        [Outgoing::Registered { .. }, Outgoing::Cancel { .. }, Outgoing::Proceed { .. }]
    );
    assert!(expected, "{frames:?}");
}

#[test]
fn a_remembered_claim_of_another_attempt_is_told_that_it_lost() {
    let mut world = World::new();
    let agent = reconnect(&mut world, "a", &[(key("w", 1), OLD)]);
    world.frames(agent);
    world.act(|matcher| matcher.expect(TaskOrder { attempt: 2, ..adopted(1) }, GRACE));
    let frames = world.frames(agent);
    assert!(matches!(frames[..], [Outgoing::LeaseLost { .. }]), "{frames:?}");
}

#[test]
fn a_cancel_within_the_grace_waits_for_the_agent_that_may_have_the_task() {
    let mut world = World::new();
    for number in 1..=2 {
        world.act(|matcher| matcher.expect(adopted(number), GRACE));
        world.act(|matcher| matcher.cancel(key("w", number), "enough", GRACE));
    }
    assert!(world.reports.is_empty(), "it cannot be told yet");
    let agent = reconnect(&mut world, "a", &[(key("w", 1), OLD)]);
    let frames = world.frames(agent);
    let cancelled =
        |it: &Outgoing| matches!(it, Outgoing::Cancel { key: k, .. } if *k == key("w", 1));
    assert!(frames.iter().any(cancelled), "{frames:?}");
    world.pass_secs(3);
    assert!(world.reports.iter().any(|(report, _)| report.task.key == key("w", 2)));
    assert!(world.outcomes().iter().all(|outcome| *outcome == TaskOutcome::Cancelled));
    assert_eq!(world.assigned(agent), [""; 0], "neither is given out");
}

#[test]
fn what_is_withdrawn_within_the_grace_stays_with_the_agent_that_has_it() {
    let mut world = World::new();
    for number in 1..=2 {
        world.act(|matcher| matcher.expect(adopted(number), GRACE));
        world.act(|matcher| matcher.withdraw(key("w", number)));
    }
    let agent = reconnect(&mut world, "a", &[(key("w", 1), OLD)]);
    world.pass_secs(3);
    assert_eq!(world.reports.len(), 1);
    assert_eq!(world.reports[0].0.task.key, key("w", 2));
    assert_eq!(world.outcomes(), [TaskOutcome::Cancelled]);
    world.succeed(agent, (key("w", 1), OLD));
    assert!(matches!(world.outcomes()[..], [TaskOutcome::Succeeded { .. }]));
}

#[test]
fn after_the_loss_of_all_runs_what_is_claimed_again_goes_on_and_the_rest_is_lost() {
    let mut world = World::new();
    let agent = world.agent("a", 3);
    for number in 1..=3 {
        world.submit(order("w", number));
    }
    let tasks: Vec<_> =
        world.assignments(agent).iter().map(|it| (it.order.key, it.lease)).collect();
    tasks.iter().for_each(|task| world.accept(agent, *task));
    world.succeed(agent, tasks[2]);
    world.act(Matcher::forget_all);
    assert_eq!(world.frames(agent), []);
    let counts = world.matcher.counts();
    assert_eq!((counts.queued, counts.running, counts.agents), (0, 0, 1));
    let status = || Incoming::Status(tasks.clone());
    world.hear(agent, status());
    assert_eq!(world.frames(agent), [], "nobody knows yet whose they are");
    world.act(|matcher| matcher.expect(adopted(1), GRACE));
    world.act(|matcher| matcher.expect(adopted(3), GRACE));
    world.succeed(agent, tasks[2]);
    for _ in 0..16 {
        world.pass_secs(1);
        world.hear(agent, status());
    }
    let lost = |it: &Outgoing| match it {
        Outgoing::LeaseLost { key, .. } => Some(key.instance.0),
        _ => None,
    };
    let lost: std::collections::BTreeSet<u32> =
        world.frames(agent).iter().filter_map(lost).collect();
    assert_eq!(lost.into_iter().collect::<Vec<_>>(), [2]);
    world.succeed(agent, tasks[0]);
    let ended = world.reports.iter().filter(|(it, _)| it.task.outcome != TaskOutcome::Started);
    assert!(ended.count() >= 2);
}

#[test]
fn without_the_lease_nothing_that_acts_for_a_run_is_sent() {
    let mut world = World::new();
    let agent = world.agent("a", 2);
    world.frames(agent);
    world.submit(order("w", 1));
    world.hear(agent, Incoming::Ping { nonce: 7 });
    let taken = world.act(|matcher| matcher.take(agent, false));
    assert_eq!(taken, Taken::Frames(vec![Outgoing::Pong { nonce: 7 }]));
    assert_eq!(world.frames(agent), [], "and it is not sent later either");
}
