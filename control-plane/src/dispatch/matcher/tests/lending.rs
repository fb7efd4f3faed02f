//! Replicas lend each other agents.

use std::time::Duration;

use engine::task::{Delivery, TaskOrder, TaskOutcome};

use super::super::super::report::ReportAck;
use super::web::{Web, run};
use super::world::{key, order};

const DURABLE: Option<ReportAck> = Some(ReportAck::Durable);

fn counts(web: &mut Web, node: usize) -> (usize, usize) {
    let counts = web.node(node).matcher.counts();
    (counts.queued, counts.running)
}

#[test]
fn an_agent_of_one_replica_serves_the_runs_of_another() {
    let mut web = Web::new(2);
    let worker = web.worker("a", 2, 0);
    web.settle();
    web.submit(1, order("w", 1));
    web.settle();
    let task = key("w", 1).to_string();
    assert!(web.workers[worker].running.contains_key(&task));
    web.finish(worker, &task);
    web.settle();
    assert!(web.workers[worker].acknowledged.is_empty(), "it is not durable yet");
    let ended = web.answer(DURABLE);
    assert!(matches!(&ended[..], [(1, _, TaskOutcome::Succeeded { .. })]), "{ended:?}");
    web.settle();
    assert_eq!(web.workers[worker].acknowledged, [task]);
    web.live(3_000);
    for node in 0..2 {
        assert_eq!(counts(&mut web, node), (0, 0));
        let matcher = &web.node(node).matcher;
        let agent = matcher.registry.in_order().next().unwrap();
        assert!(agent.strays.is_empty() && agent.loans.is_empty() && agent.tasks.is_empty());
        assert_eq!(agent.taken(), 0);
    }
}

#[test]
fn no_credit_is_counted_twice() {
    let mut web = Web::new(3);
    let worker = web.worker("a", 4, 0);
    web.settle();
    for number in 1..=6 {
        for (node, name) in ["u", "v", "w"].into_iter().enumerate() {
            web.submit(node, order(name, number));
            for wire in 0..web.wires.len() {
                web.turn(wire);
            }
            web.read(worker);
            web.assert_within_slots();
        }
    }
    for _ in 0..40 {
        web.settle();
        web.assert_within_slots();
        let first = web.workers[worker].running.keys().next().cloned();
        first.into_iter().for_each(|task| web.finish(worker, &task));
        web.answer(DURABLE);
        web.pass(Duration::from_millis(10));
    }
    assert_eq!(web.workers[worker].acknowledged.len(), 18);
}

#[test]
fn nobody_starves_and_who_waits_longer_gets_more() {
    let mut web = Web::new(2);
    let worker = web.worker("a", 2, 0);
    web.settle();
    for number in 1..=60 {
        web.submit(1, order("w", number));
    }
    web.settle();
    web.pass(Duration::from_millis(20));
    for number in 1..=60 {
        web.submit(0, order("v", number));
    }
    let mut done = [0, 0];
    for _ in 0..30 {
        web.settle();
        web.assert_within_slots();
        web.finish_all(worker);
        web.settle();
        for (node, ..) in web.answer(DURABLE) {
            done[node] += 1;
        }
        web.pass(Duration::from_millis(2));
    }
    assert!(done[0] >= 8, "the lender's own tasks get their share: {done:?}");
    assert!(done[1] >= done[0], "those of the borrower waited longer: {done:?}");
    assert!(done[0] + done[1] >= 50, "nothing idles: {done:?}");
}

#[test]
fn a_single_slot_goes_to_and_fro() {
    let mut web = Web::new(2);
    let worker = web.worker("a", 1, 0);
    web.settle();
    for number in 1..=20 {
        web.submit(0, order("v", number));
        web.submit(1, order("w", number));
    }
    let mut done = [0, 0];
    for _ in 0..20 {
        web.settle();
        web.assert_within_slots();
        web.finish_all(worker);
        for (node, ..) in web.answer(DURABLE) {
            done[node] += 1;
        }
        web.settle();
        for (node, ..) in web.answer(DURABLE) {
            done[node] += 1;
        }
        web.pass(Duration::from_millis(5));
    }
    assert!(done[0] >= 4 && done[1] >= 4, "{done:?}");
}

#[test]
fn a_borrowed_agent_is_not_lent_on() {
    let mut web = Web::new(3);
    web.cut(2, 0);
    web.worker("a", 4, 0);
    web.settle();
    assert_eq!(web.node(1).matcher.agents(None, 9).len(), 1);
    assert_eq!(web.node(2).matcher.agents(None, 9).len(), 0, "it is not linked to the lender");
    web.submit(2, order("w", 1));
    web.live(1_000);
    assert_eq!(web.running(), 0);
    web.link(2, 0);
    web.settle();
    assert_eq!(web.running(), 1);
}

#[test]
fn idle_credits_go_back_when_the_lender_needs_them() {
    let mut web = Web::new(2);
    let worker = web.worker("a", 2, 0);
    web.settle();
    web.submit(1, order("w", 1));
    web.submit(1, order("w", 2));
    web.settle();
    web.finish_all(worker);
    web.settle();
    web.answer(DURABLE);
    web.settle();
    web.submit(0, order("v", 1));
    web.submit(0, order("v", 2));
    web.settle();
    assert_eq!(web.running(), 2, "the credits were lent and not used");
    assert_eq!(counts(&mut web, 0), (0, 2));
}

#[test]
fn a_cancel_and_the_word_to_proceed_reach_an_agent_of_another_replica() {
    let mut web = Web::new(2);
    let worker = web.worker("a", 2, 0);
    web.settle();
    web.submit(1, TaskOrder { delivery: Delivery::AtMostOnce, ..order("w", 1) });
    web.submit(1, order("w", 2));
    web.settle();
    assert!(web.workers[worker].proceeded.is_empty());
    web.answer(DURABLE);
    web.settle();
    assert!(web.workers[worker].proceeded.contains(&key("w", 1).to_string()));
    web.act(1, |matcher| matcher.cancel(key("w", 2), "enough", Duration::from_secs(9)));
    web.settle();
    assert!(web.workers[worker].cancelled.contains(&key("w", 2).to_string()));
    web.finish(worker, &key("w", 2).to_string());
    web.settle();
    let ended = web.answer(DURABLE);
    assert!(matches!(&ended[..], [(1, _, TaskOutcome::Cancelled)]), "{ended:?}");
}

#[test]
fn the_death_of_the_lender_is_not_that_of_its_agents() {
    let mut web = Web::new(2);
    let worker = web.worker("a", 2, 0);
    web.settle();
    web.submit(1, order("w", 1));
    web.submit(1, order("w", 2));
    web.settle();
    web.kill(0);
    web.pass(Duration::from_secs(2));
    assert_eq!(counts(&mut web, 1), (0, 2), "the owner waits for the claim");
    web.finish(worker, &key("w", 1).to_string());
    web.connect(worker, 1);
    web.settle();
    assert_eq!(web.answer(DURABLE).len(), 1);
    web.finish_all(worker);
    web.settle();
    assert_eq!(web.answer(DURABLE).len(), 1);
    web.settle();
    assert_eq!(web.workers[worker].acknowledged.len(), 2);
}

#[test]
fn an_agent_that_goes_to_a_third_replica_keeps_its_tasks() {
    let mut web = Web::new(3);
    let worker = web.worker("a", 2, 0);
    let other = web.worker("b", 2, 1);
    web.settle();
    web.submit(1, order("w", 1));
    web.submit(1, order("w", 2));
    web.submit(1, order("w", 3));
    web.settle();
    let before = web.workers[worker].running.clone();
    assert_eq!(before.len() + web.workers[other].running.len(), 3);
    assert!(!before.is_empty());
    web.kill(0);
    web.connect(worker, 2);
    web.live(10_000);
    assert_eq!(web.workers[worker].running, before);
    web.finish_all(worker);
    web.finish_all(other);
    web.settle();
    assert_eq!(web.answer(DURABLE).len(), 3);
    web.settle();
    assert_eq!(web.workers[worker].acknowledged.len(), before.len());
}

#[test]
fn the_death_of_the_owner_goes_unnoticed_by_the_agent() {
    let mut web = Web::new(3);
    let worker = web.worker("a", 3, 0);
    web.settle();
    for number in 1..=3 {
        web.submit(1, order("w", number));
    }
    web.settle();
    web.kill(1);
    // One is done while nobody owns its run.
    web.finish(worker, &key("w", 1).to_string());
    web.live(6_000);
    assert_eq!(web.workers[worker].running.len(), 2, "it has heard nothing of all that");
    // One goes to the lender itself, the others elsewhere.
    web.expect(0, order("w", 2));
    web.expect(2, order("w", 1));
    web.expect(2, order("w", 3));
    web.settle();
    assert_eq!((counts(&mut web, 0), counts(&mut web, 2).0), ((0, 1), 0));
    assert_eq!(web.answer(DURABLE).len(), 1, "the result was kept");
    web.live(6_000);
    web.finish_all(worker);
    web.settle();
    assert_eq!(web.answer(DURABLE).len(), 2);
    web.settle();
    assert_eq!(web.workers[worker].acknowledged.len(), 3);
}

#[test]
fn what_nobody_takes_over_the_agent_loses_in_the_end() {
    let mut web = Web::new(2);
    let worker = web.worker("a", 1, 0);
    web.settle();
    web.submit(1, order("w", 1));
    web.settle();
    web.kill(1);
    web.live(10_000);
    assert_eq!(web.running(), 1);
    web.live(10_000);
    assert_eq!(web.running(), 0);
    web.submit(0, order("v", 1));
    web.settle();
    assert!(web.workers[worker].running.contains_key(&key("v", 1).to_string()));
}

#[test]
fn a_link_that_breaks_for_a_moment_costs_no_task() {
    let mut web = Web::new(2);
    let worker = web.worker("a", 2, 0);
    web.settle();
    web.submit(1, order("w", 1));
    web.submit(1, order("w", 2));
    web.settle();
    let before = web.workers[worker].running.clone();
    web.cut(1, 0);
    web.finish(worker, &key("w", 1).to_string());
    web.pass(Duration::from_secs(1));
    web.link(1, 0);
    web.settle();
    assert_eq!(web.answer(DURABLE).len(), 1, "the result waited");
    web.live(2_000);
    assert_eq!(web.workers[worker].running.keys().next(), before.keys().nth(1));
    web.finish_all(worker);
    web.settle();
    assert_eq!(web.answer(DURABLE).len(), 1);
}

#[test]
fn what_was_assigned_when_the_link_broke_is_given_out_anew() {
    let mut web = Web::new(2);
    let worker = web.worker("a", 2, 0);
    web.settle();
    web.submit(1, order("w", 1));
    web.settle();
    web.finish_all(worker);
    web.settle();
    web.answer(DURABLE);
    web.settle();
    // The credit is still lent: the next task is out at once, and lost on its way.
    web.submit(1, order("w", 2));
    assert_eq!(counts(&mut web, 1), (0, 1));
    web.cut(1, 0);
    web.link(1, 0);
    web.settle();
    assert!(web.workers[worker].running.contains_key(&key("w", 2).to_string()));
}

#[test]
fn draining_reaches_an_agent_of_another_replica_and_is_seen_there() {
    let mut web = Web::new(2);
    web.worker("a", 2, 0);
    web.settle();
    let id = web.node(1).matcher.agents(None, 9)[0].id;
    web.act(1, |matcher| matcher.drain(id, "for repair"));
    web.settle();
    let draining = contracts::v1::AgentHealth::Draining;
    assert_eq!(web.node(0).matcher.agents(None, 9)[0].health, draining);
    for node in 0..2 {
        web.submit(node, order(["v", "w"][node], 1));
    }
    web.live(1_000);
    assert_eq!(web.running(), 0);
    let why = web.act(1, |matcher| matcher.why(key("w", 1))).unwrap();
    assert!(why.cause.contains("about to leave"), "{}", why.cause);
}

#[test]
fn agents_of_all_replicas_are_shown_with_where_they_are() {
    let mut web = Web::new(2);
    web.worker("a", 2, 0);
    web.worker("b", 2, 1);
    web.settle();
    let lender = web.node(0).replica;
    let shown: Vec<_> = web
        .node(1)
        .matcher
        .agents(None, 9)
        .iter()
        .map(|it| (it.instance.to_string(), it.replica))
        .collect();
    assert_eq!(shown, [("a".to_owned(), Some(lender)), ("b".to_owned(), None)]);
    assert_eq!(web.node(1).matcher.counts().agents, 1, "counted where it is connected");
    web.submit(1, TaskOrder { action: "other".into(), ..order("w", 1) });
    let why = web.act(1, |matcher| matcher.why(key("w", 1))).unwrap();
    assert!(why.cause.contains("offers the action `other`"), "{}", why.cause);
    web.kill(0);
    assert_eq!(web.node(1).matcher.agents(None, 9).len(), 1);
}

#[test]
fn the_agents_of_a_replica_that_lost_its_lease_serve_the_others() {
    let mut web = Web::new(2);
    let worker = web.worker("a", 3, 0);
    web.settle();
    web.submit(0, order("v", 1));
    web.submit(1, order("w", 1));
    web.settle();
    web.act(0, |matcher| matcher.forget_all());
    web.settle();
    web.link(0, 1);
    web.link(1, 0);
    web.settle();
    assert_eq!(web.running(), 2, "sessions stay, and tasks go on");
    web.expect(1, order("v", 1));
    web.settle();
    assert_eq!(counts(&mut web, 1), (0, 2));
    web.live(4_000);
    web.finish_all(worker);
    web.settle();
    let ended = web.answer(DURABLE);
    assert!(ended.iter().all(|(node, ..)| *node == 1) && ended.len() == 2, "{ended:?}");
}

#[test]
fn a_run_that_moves_on_takes_its_tasks_with_it() {
    let mut web = Web::new(2);
    let worker = web.worker("a", 2, 0);
    web.settle();
    web.submit(0, order("w", 1));
    web.submit(0, order("w", 2));
    web.settle();
    web.finish(worker, &key("w", 2).to_string());
    web.act(0, |matcher| matcher.forget_run(run("w")));
    web.expect(1, order("w", 1));
    web.expect(1, order("w", 2));
    web.settle();
    assert_eq!(web.running(), 1);
    assert_eq!(counts(&mut web, 1), (0, 2), "both are with the agent");
    web.finish_all(worker);
    web.live(1_000);
    let ended = web.answer(DURABLE);
    let at_1 = ended.iter().filter(|(node, ..)| *node == 1).count();
    assert_eq!(at_1, 2, "{ended:?}");
}

#[test]
fn a_result_that_comes_again_frees_no_credit_twice() {
    let mut web = Web::new(2);
    let worker = web.worker("a", 2, 0);
    web.settle();
    for number in 1..=4 {
        web.submit(1, order("w", number));
        web.submit(0, order("v", number));
    }
    web.settle();
    for _ in 0..12 {
        // Acknowledged, but not read: the agent says it again.
        let first = web.workers[worker].running.keys().next().cloned();
        first.into_iter().for_each(|task| web.finish(worker, &task));
        (0..web.wires.len()).for_each(|wire| {
            web.turn(wire);
        });
        web.answer(DURABLE);
        (0..web.wires.len()).for_each(|wire| {
            web.turn(wire);
        });
        web.beat(worker);
        web.settle();
        web.assert_within_slots();
    }
    assert_eq!(web.workers[worker].acknowledged.len(), 8);
}
