//! What runs ask of people stands in the one queue: from the transition that asks on, until nobody
//! needs to decide any more.

use contracts::v1::{self, EscalationDecision, EscalationStatus, EscalationTopic, RunStatus};

use super::{World, on_both_stores};

on_both_stores!(
    a_step_that_asks_is_in_the_queue_until_it_is_decided,
    nobody_is_asked_any_more_once_the_run_is_cancelled,
    an_undo_that_failed_is_in_the_queue_and_rollbacks_are_listed,
);

/// All questions of a run, the oldest first.
async fn questions(world: &World, run_id: &str) -> Vec<v1::Escalation> {
    let filter = format!("run_id={run_id}");
    let request = v1::ListEscalationsRequest { filter, ..Default::default() };
    let mut client = world.client.escalations.clone();
    let mut found = client.list_escalations(request).await.unwrap().into_inner().escalations;
    found.sort_by_key(|one| one.create_time.map(|time| (time.seconds, time.nanos)));
    found
}

fn asking(name: &str) -> String {
    format!("name: {name}\nsteps:\n  - {{id: sure, approve: {{message: 'really?'}}}}\n")
}

async fn a_step_that_asks_is_in_the_queue_until_it_is_decided(world: &World) {
    let client = &world.client;
    let id = client.start(&asking("asks")).await;
    client.event(&id, v1::EventKind::StepWaiting, "sure").await;
    let open = questions(world, &id).await;
    assert_eq!(open.len(), 1, "{open:?}");
    assert_eq!(
        (open[0].topic(), open[0].status()),
        (EscalationTopic::Step, EscalationStatus::Open)
    );
    assert_eq!((open[0].question.as_str(), open[0].step.as_str()), ("really?", "sure"));
    let decide = v1::DecideEscalationRequest {
        escalation_id: open[0].escalation_id.clone(),
        decision: EscalationDecision::Approve.into(),
        comment: "yes".to_owned(),
        request_id: format!("decide-{id}"),
        ..Default::default()
    };
    let mut escalations = client.escalations.clone();
    let done = escalations.decide_escalation(decide.clone()).await.unwrap().into_inner();
    let done = done.escalation.unwrap();
    assert_eq!(done.status(), EscalationStatus::Decided);
    assert_eq!(
        (done.decision(), done.settle_comment.as_str()),
        (EscalationDecision::Approve, "yes")
    );
    let again = escalations.decide_escalation(decide.clone()).await.unwrap().into_inner();
    assert_eq!(again.escalation.unwrap(), done, "the same request, the same answer");
    client.ends_well(&id).await;
    let other = v1::DecideEscalationRequest { request_id: String::new(), ..decide };
    escalations.decide_escalation(other).await.unwrap_err();
    assert_eq!(questions(world, &id).await, [done], "nothing has changed");
}

async fn nobody_is_asked_any_more_once_the_run_is_cancelled(world: &World) {
    let client = &world.client;
    let id = client.start(&asking("given_up")).await;
    client.event(&id, v1::EventKind::StepWaiting, "sure").await;
    let cancel = v1::CancelRunRequest { run_id: id.clone(), ..Default::default() };
    client.runs.clone().cancel_run(cancel).await.unwrap();
    assert_eq!(client.ended(&id).await.status(), RunStatus::Cancelled);
    let found = questions(world, &id).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].status(), EscalationStatus::Withdrawn, "{found:?}");
    assert_ne!(found[0].settle_comment, "", "it says why");
}

async fn an_undo_that_failed_is_in_the_queue_and_rollbacks_are_listed(world: &World) {
    let client = &world.client;
    let yaml = "name: hard_to_undo\nerror_handling: {rollback: to_start}\nsteps:\n  \
                - {id: a, agent: echo, action: echo, \
                   compensate: {action: fail, params: {message: broken, kind: permanent}}}\n  \
                - {id: f, agent: echo, action: fail, params: {message: boom, kind: permanent}}\n";
    let id = client.start(yaml).await;
    client.event(&id, v1::EventKind::UndoFailed, "a").await;
    let open = questions(world, &id).await;
    assert_eq!(open.len(), 1, "{open:?}");
    assert_eq!(
        (open[0].topic(), open[0].status()),
        (EscalationTopic::Undo, EscalationStatus::Open)
    );
    assert!(open[0].detail.contains("broken"), "{:?}", open[0].detail);
    let list = |filter: String| v1::ListRollbacksRequest { filter, ..Default::default() };
    let mut recovery = client.recovery.clone();
    let stuck = list(format!("status=stuck AND run_id={id}"));
    let stuck = recovery.list_rollbacks(stuck).await.unwrap().into_inner().rollbacks;
    assert_eq!(stuck.len(), 1, "{stuck:?}");
    let counts = stuck[0].counts.unwrap();
    assert_eq!((counts.total, counts.stuck, counts.undone), (1, 1, 0));
    let decide = v1::DecideEscalationRequest {
        escalation_id: open[0].escalation_id.clone(),
        decision: EscalationDecision::Done.into(),
        comment: "by hand".to_owned(),
        ..Default::default()
    };
    client.escalations.clone().decide_escalation(decide).await.unwrap();
    assert_eq!(client.ended(&id).await.status(), RunStatus::RolledBack);
    let found = questions(world, &id).await;
    assert_eq!(found[0].decision(), EscalationDecision::Done, "{found:?}");
    let all = recovery.list_rollbacks(list(format!("run_id={id}"))).await.unwrap().into_inner();
    assert_eq!(all.rollbacks.len(), 1);
    assert_eq!(all.rollbacks[0].status(), v1::RollbackStatus::Succeeded);
    assert_eq!(all.rollbacks[0].counts.unwrap().by_hand, 1);
    let refused = recovery.list_rollbacks(list("status=odd".to_owned())).await.unwrap_err();
    assert_eq!(crate::support::client::reason(&refused), "INVALID_FILTER");
}
