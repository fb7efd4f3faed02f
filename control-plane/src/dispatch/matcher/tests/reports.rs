//! From an agent's result to its acknowledgement, and what comes twice or too late.

use std::sync::Arc;
use std::time::Duration;

use contracts::v1;
use engine::task::{DeclaredUndo, FailureKind, TaskOrder, TaskOutcome};

use super::super::super::lease::LeaseToken;
use super::super::super::report::{ReportAck, Subject, UpdateKind, Usage};
use super::super::super::session::{AgentVerdict, Incoming, Outgoing, Settled};
use crate::limits;

use super::world::{World, failure, key, order, register};

#[test]
fn a_result_is_acknowledged_only_once_it_is_durable() {
    let mut world = World::new();
    let agent = world.agent("a", 1);
    world.submit(order("w", 1));
    let task = world.one(agent);
    world.succeed(agent, task);
    world.succeed(agent, task);
    assert_eq!(world.reports.len(), 1, "the second delivery is not reported while one is");
    assert_eq!(world.frames(agent), []);
    world.outcomes();
    assert_eq!(
        world.frames(agent),
        [Outgoing::Ack { key: task.0, lease: task.1, duplicate: false }]
    );
    world.succeed(agent, task);
    assert_eq!(
        world.frames(agent),
        [Outgoing::Ack { key: task.0, lease: task.1, duplicate: true }]
    );
    assert!(world.reports.is_empty());
}

#[test]
fn an_agent_with_too_many_unacknowledged_results_gets_no_more_until_some_are() {
    let mut world = World::new();
    let agent = world.agent("a", 10_000);
    for number in 0..limits::RESULTS_UNACKNOWLEDGED_MAX {
        world.submit(order("w", number));
        let task = world.one(agent);
        world.succeed(agent, task);
    }
    world.submit(order("w", limits::RESULTS_UNACKNOWLEDGED_MAX));
    assert_eq!(world.frames(agent), [], "there would be no room for its result");
    world.answer_all(Some(ReportAck::Durable));
    let frames = world.frames(agent);
    let assigned = frames.iter().filter(|frame| matches!(frame, Outgoing::Assign(_))).count();
    assert_eq!(assigned, 1);
}

#[test]
fn what_the_sink_says_goes_to_the_agent() {
    for ack in [ReportAck::Duplicate, ReportAck::LeaseLost] {
        let mut world = World::new();
        let agent = world.agent("a", 1);
        world.submit(order("w", 1));
        let task = world.one(agent);
        world.succeed(agent, task);
        world.answer_all(Some(ack));
        let (key, lease) = task;
        let frame = match ack {
            ReportAck::LeaseLost => {
                let reason = "its result came too late";
                Outgoing::LeaseLost { key, lease: Some(lease), reason }
            }
            _ => Outgoing::Ack { key, lease, duplicate: true },
        };
        assert_eq!(world.frames(agent), [frame]);
        assert_eq!(world.matcher.tasks.keys().count(), 0);
    }
}

#[test]
fn a_report_that_nobody_answers_is_made_again() {
    let mut world = World::new();
    let agent = world.agent("a", 1);
    world.submit(order("w", 1));
    let task = world.one(agent);
    world.succeed(agent, task);
    world.answer_all(None);
    assert_eq!(world.frames(agent), []);
    world.pass_alive(1, &[agent]);
    assert_eq!(world.reports.len(), 1);
    world.answer_all(None);
    world.succeed(agent, task);
    assert_eq!(world.outcomes().len(), 1, "or when the agent sends it again");
    let acked = Outgoing::Ack { key: task.0, lease: task.1, duplicate: false };
    assert!(world.frames(agent).contains(&acked));
}

#[test]
fn an_order_of_the_same_attempt_while_its_report_is_out_stands_if_the_report_does_not() {
    for (ack, tasks) in [(Some(ReportAck::Durable), 0), (None, 1)] {
        let mut world = World::new();
        let agent = world.agent("a", 1);
        world.submit(order("w", 1));
        let task = world.one(agent);
        world.succeed(agent, task);
        world.act(|matcher| {
            let order = TaskOrder { epoch: 2, ..order("w", 1) };
            matcher.expect(order, Duration::from_secs(3));
        });
        world.answer_all(ack);
        assert_eq!(world.matcher.tasks.keys().count(), tasks, "{ack:?}");
        world.succeed(agent, task);
        assert_eq!(world.reports.len(), tasks, "the agent's result claims it: {ack:?}");
    }
}

#[test]
fn the_next_attempt_may_be_ordered_before_the_answer_comes() {
    let mut world = World::new();
    let agent = world.agent("a", 1);
    world.submit(order("w", 1));
    let first = world.one(agent);
    let (task, lease) = first;
    let state =
        v1::Payload { data: Some(v1::payload::Data::Json("42".into())), media_type: String::new() };
    let state = Arc::new(state);
    world.hear(agent, Incoming::Checkpoint { key: task, lease, state: state.clone() });
    world.result(agent, first, failure("x", FailureKind::Retryable));
    world.submit(TaskOrder { attempt: 2, ..order("w", 1) });
    let second = world.assignments(agent).remove(0);
    assert_eq!(second.order.attempt, 2);
    assert_eq!(second.lease.attempt, 2);
    assert_eq!(second.checkpoint, Some(state));
    world.outcomes();
    assert_eq!(world.frames(agent), [Outgoing::Ack { key: task, lease, duplicate: false }]);
    assert_eq!(world.matcher.counts().running, 1, "the answer to the first is not the second's");
    world.submit(order("w", 1));
    assert_eq!(world.matcher.counts().running, 1, "an order of an older attempt is nothing");
}

#[test]
fn a_wrong_lease_changes_nothing_and_is_told_so() {
    let mut world = World::new();
    let agent = world.agent("a", 1);
    world.submit(order("w", 1));
    let (task, lease) = world.one(agent);
    let wrong = [
        LeaseToken { counter: lease.counter + 1, ..lease },
        LeaseToken { epoch: 0, ..lease },
        LeaseToken { attempt: 9, ..lease },
    ];
    for lease in wrong {
        world.succeed(agent, (task, lease));
        world.accept(agent, (task, lease));
        world.hear(agent, Incoming::Status(vec![(task, lease)]));
        let frames = world.frames(agent);
        assert_eq!(frames.len(), 3, "{frames:?}");
        assert!(frames.iter().all(|it| matches!(it, Outgoing::LeaseLost { .. })));
    }
    let other = world.agent("b", 1);
    world.hear(other, Incoming::Status(vec![(task, lease)]));
    assert!(matches!(world.frames(other)[1..], [Outgoing::LeaseLost { .. }]), "another's lease");
    assert!(world.reports.is_empty());
    world.succeed(agent, (task, lease));
    assert_eq!(world.reports.len(), 1);
}

#[test]
fn a_result_of_a_task_that_is_not_here_is_asked_about() {
    let cases = [
        (Some(ReportAck::Duplicate), 1, 1),
        (Some(ReportAck::Durable), 1, 1),
        (Some(ReportAck::LeaseLost), 0, 1),
        (None, 0, 0),
    ];
    for (ack, acks, frames) in cases {
        let mut world = World::new();
        let agent = world.agent("a", 1);
        world.frames(agent);
        let lease = LeaseToken { epoch: 1, attempt: 1, counter: 5 };
        world.succeed(agent, (key("w", 1), lease));
        assert_eq!(world.inquiries, [key("w", 1)]);
        let id = world.matcher.agents(None, 1)[0].id;
        let subject = Subject::Unknown { key: key("w", 1), lease, agent: id };
        world.act(|matcher| matcher.answered(subject, ack));
        let told = world.frames(agent);
        assert_eq!(told.len(), frames, "{ack:?}");
        let acked = told.iter().filter(|it| matches!(it, Outgoing::Ack { duplicate: true, .. }));
        assert_eq!(acked.count(), acks, "{ack:?}");
    }
}

#[test]
fn a_report_says_who_did_it_how_sure_and_how_it_is_undone() {
    let mut world = World::new();
    let mut register = register("t", "a", 1);
    let card = register.card.as_mut().unwrap();
    card.actions[0].undo =
        Some(v1::Undo { way: Some(v1::undo::Way::Action("undo".into())), needs_output: false });
    card.actions.push(v1::ActionCard { name: "undo".into(), ..Default::default() });
    let agent = world.connect(register);
    world.submit(order("w", 1));
    let (task, lease) = world.one(agent);
    let usage = Some(Usage { input_tokens: 3, output_tokens: 5, cost: 0.25 });
    world.hear(
        agent,
        Incoming::Result(Box::new(Settled {
            key: task,
            lease,
            verdict: AgentVerdict::Succeeded("[1.50]".into()),
            confidence: Some(0.75),
            usage,
        })),
    );
    let (report, _) = &world.reports[0];
    let undo = DeclaredUndo::Action("undo".into());
    let outcome = TaskOutcome::Succeeded { output: "[1.50]".into(), undo };
    assert_eq!(report.task.outcome, outcome);
    assert_eq!((report.confidence, report.usage, report.lease), (Some(0.75), usage, Some(lease)));
    let who = report.task.agent.as_ref().unwrap();
    assert_eq!((&*who.agent_type, &*who.instance), ("t", "a"));
}

#[test]
fn watchers_hear_of_acceptance_progress_and_logs() {
    let mut world = World::new();
    let agent = world.agent("a", 1);
    world.submit(order("w", 1));
    let (key, lease) = world.one(agent);
    world.accept(agent, (key, lease));
    let message = "half".to_owned();
    world.hear(agent, Incoming::Progress { key, lease, fraction: 0.5, message: message.clone() });
    let level = "info".to_owned();
    world.hear(agent, Incoming::Log { key, lease, level: level.clone(), message: message.clone() });
    let kinds: Vec<UpdateKind> = world.updates.iter().map(|it| it.what.clone()).collect();
    let expected = [
        UpdateKind::Accepted,
        UpdateKind::Progress { fraction: 0.5, message: message.clone() },
        UpdateKind::Log { level, message },
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn figures_count_what_agents_did() {
    let mut world = World::new();
    let agent = world.agent("a", 1);
    for number in 1..=4 {
        world.submit(order("w", number));
        let task = world.one(agent);
        world.now = world.now.after(Duration::from_millis(100));
        if number == 4 {
            world.result(agent, task, failure("x", FailureKind::Permanent));
        } else {
            world.succeed(agent, task);
        }
        world.outcomes();
    }
    world.submit(order("w", 5));
    world.submit(order("w", 6));
    let views = world.matcher.figures(Some("t"), Duration::from_secs(3600));
    let view = &views[0];
    assert_eq!((view.figures.executions, view.figures.failures), (4, 1));
    assert_eq!((view.running, view.queued), (1, 1));
    let p50 = view.figures.p50.unwrap().as_millis();
    assert!((80..120).contains(&p50), "{p50}");
    assert!(world.matcher.figures(Some("u"), Duration::from_secs(3600)).is_empty());
}
