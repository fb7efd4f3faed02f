//! Agents without a stream.

use engine::task::TaskOrder;

use super::super::super::card;
use super::super::super::session::{Incoming, SessionId};
use super::super::PollStart;
use super::world::{World, order, register};

fn session(world: &mut World, token: &str) -> (SessionId, String) {
    let mut register = register("t", "a", 5);
    register.session_token = token.to_owned();
    let registration = card::check(register).unwrap();
    let new = format!("token-{}", world.now.0).into();
    let (session, token) = world.act(|matcher| matcher.poll_session(registration, new)).unwrap();
    (session, token.to_string())
}

fn names(start: PollStart) -> Vec<String> {
    match start {
        PollStart::Ready(tasks) => {
            tasks.iter().map(|task| task.order.idempotency_key.to_string()).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn poll(world: &mut World, session: SessionId, id: &str, max: u32) -> PollStart {
    world.act(|matcher| matcher.poll(session, id, max))
}

#[test]
fn a_poll_takes_what_waits_up_to_its_bound_and_no_more_comes_unasked() {
    let mut world = World::new();
    for number in 1..=3 {
        world.submit(order("w", number));
    }
    let (agent, _) = session(&mut world, "");
    assert_eq!(world.matcher.counts().running, 0, "nobody has asked yet");
    let start = poll(&mut world, agent, "1", 2);
    assert_eq!(names(start), ["w/1", "w/2"]);
    assert_eq!(world.matcher.counts().running, 2);
}

#[test]
fn the_same_request_gives_the_same_tasks_until_they_are_accepted() {
    let mut world = World::new();
    for number in 1..=4 {
        world.submit(order("w", number));
    }
    let (agent, token) = session(&mut world, "");
    let PollStart::Ready(first) = poll(&mut world, agent, "1", 2) else { panic!("tasks") };
    let (again, same) = session(&mut world, &token);
    assert_eq!((again, same), (agent, token), "the token names the session");
    assert_eq!(poll(&mut world, agent, "1", 2), PollStart::Ready(first.clone()));
    world.accept(agent, (first[0].order.key, first[0].lease));
    assert_eq!(names(poll(&mut world, agent, "1", 2)), ["w/2"]);
    assert_eq!(names(poll(&mut world, agent, "2", 2)), ["w/3", "w/4"]);
}

#[test]
fn a_waiting_poll_gets_what_comes_and_ends_the_one_before() {
    let mut world = World::new();
    let (agent, _) = session(&mut world, "");
    let PollStart::Waits(old) = poll(&mut world, agent, "1", 1) else { panic!("nothing yet") };
    let PollStart::Waits(new) = poll(&mut world, agent, "2", 1) else { panic!("nothing yet") };
    assert_eq!(world.act(|matcher| matcher.poll_ready(agent, old)), Some(Vec::new()));
    assert_eq!(world.act(|matcher| matcher.poll_ready(agent, new)), None);
    world.submit(order("w", 1));
    world.submit(order("w", 2));
    let tasks = world.act(|matcher| matcher.poll_ready(agent, new)).unwrap();
    assert_eq!(tasks.len(), 1, "one was asked for");
    assert_eq!(world.matcher.counts().queued, 1);
}

#[test]
fn a_poll_that_waits_no_more_gets_nothing() {
    let mut world = World::new();
    let (agent, _) = session(&mut world, "");
    let PollStart::Waits(serial) = poll(&mut world, agent, "1", 1) else { panic!("nothing yet") };
    world.act(|matcher| matcher.poll_end(agent, serial));
    world.submit(order("w", 1));
    assert_eq!(world.matcher.counts().queued, 1);
    assert!(world.cause(order("w", 1).key).contains("with the next poll"));
}

#[test]
fn push_and_poll_share_one_queue() {
    let mut world = World::new();
    let low = TaskOrder { priority: 1, ..order("w", 1) };
    world.submit(low);
    world.submit(order("w", 2));
    let (agent, _) = session(&mut world, "");
    assert_eq!(names(poll(&mut world, agent, "1", 1)), ["w/2"]);
    let stream = world.agent("b", 1);
    assert_eq!(world.assigned(stream), ["w/1"]);
}

#[test]
fn what_a_poll_got_goes_back_when_it_is_not_accepted() {
    let mut world = World::new();
    world.submit(order("w", 1));
    let (agent, _) = session(&mut world, "");
    assert_eq!(names(poll(&mut world, agent, "1", 1)), ["w/1"]);
    world.pass_secs(5);
    assert_eq!(world.matcher.counts().queued, 1);
    assert_eq!(names(poll(&mut world, agent, "1", 1)), ["w/1"], "given out anew");
}

#[test]
fn a_session_that_is_silent_for_a_lease_ends_and_one_that_waits_does_not() {
    let mut world = World::new();
    let (agent, _) = session(&mut world, "");
    let PollStart::Waits(serial) = poll(&mut world, agent, "1", 1) else { panic!("nothing yet") };
    world.pass_secs(60);
    assert_eq!(world.matcher.counts().agents, 1);
    world.act(|matcher| matcher.poll_end(agent, serial));
    world.pass_secs(14);
    assert_eq!(world.matcher.counts().agents, 1);
    world.pass_secs(1);
    assert_eq!(world.matcher.counts().agents, 0);
    assert!(!world.hear(agent, Incoming::Pong));
}
