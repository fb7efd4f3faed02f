//! Why tasks wait, for how long, and who offers what.

use std::sync::Arc;
use std::time::Duration;

use engine::task::{TaskOrder, TaskOutcome};

use super::super::Offer;
use super::world::{START, World, key, order, register};

#[test]
fn the_cause_names_what_is_missing() {
    let mut world = World::new();
    world.submit(TaskOrder { agent: Some("agent16".into()), ..order("w", 1) });
    world.submit(TaskOrder { agent: None, ..order("w", 2) });
    assert_eq!(world.cause(key("w", 1)), "no agent of type `agent16` is connected");
    assert_eq!(world.cause(key("w", 2)), "no agent is connected");
    world.connect(register("agent15", "a", 1));
    world.agent("a", 1);
    world.submit(order("w", 3));
    world.submit(order("w", 4));
    world.submit(TaskOrder { action: "dos".into(), ..order("w", 5) });
    let requires = [("zone".to_owned(), "b".to_owned())];
    world.submit(TaskOrder { requires: Arc::new(requires.into()), ..order("w", 6) });
    let causes = [
        (1, "no agent of type `agent16` is connected; did you mean `agent15`?"),
        (4, "1 agent of type `t` is connected but all slots are taken (1 of 1)"),
        (5, "no connected agent of type `t` offers the action `dos`; did you mean `do`?"),
        (6, "no connected agent of type `t` offers the action `do` with the labels zone=b"),
    ];
    for (number, cause) in causes {
        assert_eq!(world.cause(key("w", number)), cause);
    }
    world.agent("b", 1);
    let cause = "2 agents of type `t` are connected but all slots are taken (2 of 2)";
    world.submit(order("w", 7));
    assert_eq!(world.cause(key("w", 7)), cause);
    assert!(world.act(|matcher| matcher.why(key("w", 3))).is_none(), "it is out");
    assert!(world.act(|matcher| matcher.why(key("w", 99))).is_none(), "nobody knows it");
}

#[test]
fn an_attempt_is_not_given_out_before_its_time() {
    let mut world = World::new();
    let agent = world.agent("a", 1);
    let due = START.after(Duration::from_secs(5));
    world.submit(TaskOrder { attempt: 2, not_before: Some(due), ..order("w", 1) });
    assert!(world.cause(key("w", 1)).starts_with("attempt 2 is due at 2023-"));
    world.pass_alive(4, &[agent]);
    assert_eq!(world.assigned(agent), [""; 0]);
    world.pass_alive(1, &[agent]);
    assert_eq!(world.assigned(agent), ["w/1"]);
}

#[test]
fn the_queue_time_out_counts_from_when_the_task_became_ready() {
    let mut world = World::new();
    world.pass_secs(4);
    let patience = Some(Duration::from_secs(10));
    world.submit(TaskOrder { queue_timeout: patience, ..order("w", 1) });
    world.pass_secs(5);
    assert!(world.reports.is_empty());
    world.pass_secs(1);
    let [TaskOutcome::Failed(error)] = &world.outcomes()[..] else { panic!("a failure") };
    assert_eq!(error.code, "queue_timeout");
    assert!(error.message.contains("no agent of type `t` is connected"), "{error:?}");
    assert!(error.no_effect);
    let agent = world.agent("a", 1);
    assert_eq!(world.assigned(agent), [""; 0]);
}

#[test]
fn time_spent_at_an_agent_does_not_count_as_time_in_the_queue() {
    let mut world = World::new();
    let agent = world.agent("a", 1);
    let patience = Some(Duration::from_secs(10));
    world.submit(TaskOrder { queue_timeout: patience, ..order("w", 1) });
    let task = world.one(agent);
    world.accept(agent, task);
    for _ in 0..30 {
        world.pass_alive(1, &[agent]);
        world.accept(agent, task);
    }
    world.gone(agent);
    world.pass_secs(15 + 9);
    assert!(world.reports.is_empty());
    world.pass_secs(1);
    assert_eq!(world.failures(), ["queue_timeout"]);
}

#[test]
fn offers_say_what_is_known_and_what_was_perhaps_meant() {
    let mut world = World::new();
    let offer = |known_agent, offers_action, suggestion: Option<&str>| Offer {
        known_agent,
        offers_action,
        suggestion: suggestion.map(ToOwned::to_owned),
    };
    assert_eq!(world.matcher.offers(Some("builder"), "do"), offer(false, false, None));
    let mut builder = register("builder", "a", 1);
    builder.aliases = vec!["agent6".into()];
    let session = world.connect(builder);
    let cases = [
        (Some("builder"), "do", offer(true, true, None)),
        (Some("agent6"), "do", offer(true, true, None)),
        (None, "do", offer(true, true, None)),
        (Some("bilder"), "do", offer(false, false, Some("builder"))),
        (Some("builder"), "dot", offer(true, false, Some("do"))),
        (None, "zzz", offer(true, false, None)),
    ];
    for (agent, action, expected) in cases {
        assert_eq!(world.matcher.offers(agent, action), expected, "{agent:?} {action}");
    }
    world.gone(session);
    assert!(!world.matcher.offers(Some("builder"), "do").known_agent);
}

#[test]
fn empty_lanes_are_given_up_and_their_agents_forget_them() {
    let mut world = World::new();
    let agent = world.agent("a", 1);
    for number in 0..3_000 {
        let requires = [("n".to_owned(), number.to_string())];
        let order = TaskOrder { requires: Arc::new(requires.into()), ..order("w", number) };
        world.submit(order);
        world.act(|matcher| matcher.cancel(key("w", number), "", Duration::ZERO));
        world.outcomes();
    }
    assert!(world.matcher.lanes.lanes.len() <= crate::limits::EMPTY_LANES_KEPT);
    world.submit(order("w", 1));
    assert_eq!(world.assigned(agent), ["w/1"]);
}
