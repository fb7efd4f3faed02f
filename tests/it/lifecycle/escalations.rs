//! Questions to people: opened by runs, listed, taken up, told and decided, each once.

use contracts::v1::{self, EscalationDecision, EscalationStatus, EscalationTopic, RunStatus};
use tonic::Status;

use super::{World, on_both_stores};
use crate::support::client::{json, reason, text};
use crate::support::orchestrator;

on_both_stores!(
    a_step_is_amended_once_and_people_are_told,
    a_stuck_undo_is_tried_again_and_then_left,
    what_nobody_needs_to_decide_is_withdrawn,
    a_decision_elsewhere_settles_the_question,
    wrong_lists_and_ids_are_refused,
    rollbacks_are_listed_by_how_they_stand,
);

async fn list(world: &World, filter: &str) -> Vec<v1::Escalation> {
    let request = v1::ListEscalationsRequest { filter: filter.to_owned(), ..Default::default() };
    world
        .client
        .escalations
        .clone()
        .list_escalations(request)
        .await
        .unwrap()
        .into_inner()
        .escalations
}

async fn only(world: &World, filter: &str) -> v1::Escalation {
    let mut found = list(world, filter).await;
    assert_eq!(found.len(), 1, "{filter}: {found:?}");
    found.remove(0)
}

async fn get(world: &World, id: &str) -> v1::Escalation {
    let request = v1::GetEscalationRequest { escalation_id: id.to_owned() };
    let response = world.client.escalations.clone().get_escalation(request).await.unwrap();
    response.into_inner().escalation.unwrap()
}

fn decision(id: &str, decision: EscalationDecision) -> v1::DecideEscalationRequest {
    v1::DecideEscalationRequest {
        escalation_id: id.to_owned(),
        decision: decision.into(),
        ..Default::default()
    }
}

async fn decide(
    world: &World,
    request: v1::DecideEscalationRequest,
) -> Result<v1::Escalation, Status> {
    let response = world.client.escalations.clone().decide_escalation(request).await?;
    Ok(response.into_inner().escalation.unwrap())
}

/// What a command of the CLI prints.
fn cli(world: &World, arguments: &[&str]) -> String {
    let all = [&["--server", world.shared.server.url.as_str()], arguments].concat();
    let output = orchestrator(&all, world.shared.folder.path());
    let (out, err) = (output.stdout, String::from_utf8_lossy(&output.stderr).into_owned());
    assert!(output.status.success(), "{arguments:?}: {err}");
    String::from_utf8(out).unwrap() + &err
}

async fn a_step_is_amended_once_and_people_are_told(world: &World) {
    let client = &world.client;
    let yaml = "name: ask\noutputs: {share: '${{ gate.output.amendment.share }}'}\nsteps:\n  \
                - {id: gate, approve: Ship it?}\n";
    let run = client.start(yaml).await;
    client.event(&run, v1::EventKind::StepWaiting, "gate").await;
    let asked = only(world, &format!("run_id={run} AND status=open AND topic=step")).await;
    assert_eq!((asked.topic(), asked.status()), (EscalationTopic::Step, EscalationStatus::Open));
    assert_eq!((asked.question.as_str(), asked.step.as_str()), ("Ship it?", "gate"));
    assert!(!asked.overdue && asked.due_time.is_some());
    let id = asked.escalation_id.as_str();
    let told = world.shared.hook.told(&format!("orchestrator escalations show {id}"));
    assert!(told.contains("step gate: Ship it?"), "{told}");

    assert!(cli(world, &["escalations", "claim", id, "--as", "ann"]).contains("ann has taken"));
    let claim = v1::ClaimEscalationRequest {
        escalation_id: id.to_owned(),
        assignee: "bob".to_owned(),
        ..Default::default()
    };
    let refused =
        world.client.escalations.clone().claim_escalation(claim.clone()).await.unwrap_err();
    assert_eq!(reason(&refused), "ESCALATION_CLAIMED");
    let claim = v1::ClaimEscalationRequest { take_over: true, ..claim };
    world.client.escalations.clone().claim_escalation(claim).await.unwrap();
    cli(world, &["escalations", "comment", id, "not before noon"]);
    let mine = only(world, &format!("assignee=bob AND run_id={run} AND overdue=false")).await;
    assert_eq!(mine.escalation_id, id);
    let shown = cli(world, &["escalations", "show", id]);
    for part in ["Ship it?", "bob", "not before noon", "approve, reject, amend"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }

    let refused = decide(world, decision(id, EscalationDecision::Retry)).await.unwrap_err();
    assert_eq!(reason(&refused), "DECISION_NOT_OFFERED");
    let bare = decide(world, decision(id, EscalationDecision::Amend)).await.unwrap_err();
    assert_eq!(reason(&bare), "INVALID_FIELD");
    let amend = v1::DecideEscalationRequest {
        comment: "a tenth".to_owned(),
        payload: json(r#"{"share":10}"#),
        request_id: format!("amend-{id}"),
        ..decision(id, EscalationDecision::Amend)
    };
    let dry = v1::DecideEscalationRequest { validate_only: true, ..amend.clone() };
    assert_eq!(decide(world, dry).await.unwrap().status(), EscalationStatus::Open);
    let done = decide(world, amend.clone()).await.unwrap();
    assert_eq!(
        (done.status(), done.decision(), done.decided_by.as_str(), done.settle_comment.as_str()),
        (EscalationStatus::Decided, EscalationDecision::Amend, "anonymous", "a tenth"),
    );
    assert_eq!(done.comments.len(), 1, "what was said stays");
    assert_eq!(decide(world, amend.clone()).await.unwrap(), done, "the same request, one answer");
    let other = v1::DecideEscalationRequest { comment: "more".to_owned(), ..amend };
    assert_eq!(reason(&decide(world, other).await.unwrap_err()), "REQUEST_ID_REUSED");
    let late = decide(world, decision(id, EscalationDecision::Reject)).await.unwrap_err();
    assert_eq!(reason(&late), "ESCALATION_SETTLED");
    let ended = client.ends_well(&run).await;
    assert_eq!(text(ended.outputs.as_ref()), r#"{"share":10}"#);
    assert!(list(world, &format!("run_id={run} AND status=open")).await.is_empty());
    let chain = cli(world, &["audit", "list", &format!("escalation/{id}")]);
    assert!(chain.contains("escalation.claim") && chain.contains("escalation.comment"), "{chain}");
}

async fn a_stuck_undo_is_tried_again_and_then_left(world: &World) {
    let client = &world.client;
    let file = world.shared.folder.path().join("asked.txt");
    let yaml = format!(
        "name: stuck\nerror_handling: {{rollback: to_start}}\nsteps:\n  \
         - {{id: b, agent: echo, action: append, params: {{file: {}, line: l}}, \
             compensate: {{action: fail, params: {{message: no, kind: permanent}}}}}}\n  \
         - {{id: f, agent: echo, action: fail, params: {{message: boom}}}}\n",
        file.display()
    );
    let run = client.start(&yaml).await;
    client.event(&run, v1::EventKind::UndoFailed, "b").await;
    let first = only(world, &format!("run_id={run} AND topic=undo")).await;
    assert!(first.question.contains("`b`") && first.detail.contains("no"), "{first:?}");
    let retried = decide(world, decision(&first.escalation_id, EscalationDecision::Retry)).await;
    assert_eq!(retried.unwrap().decision(), EscalationDecision::Retry);
    let asked_again = async {
        loop {
            let open = list(world, &format!("run_id={run} AND status=open")).await;
            match open.first() {
                Some(found) => break found.clone(),
                None => tokio::task::yield_now().await,
            }
        }
    };
    let second = tokio::time::timeout(crate::support::DEADLINE, asked_again).await.unwrap();
    assert_ne!(second.escalation_id, first.escalation_id, "it is another question");
    let skip = decision(&second.escalation_id, EscalationDecision::Skip);
    assert_eq!(reason(&decide(world, skip.clone()).await.unwrap_err()), "INVALID_FIELD");
    let skip = v1::DecideEscalationRequest { comment: "it may stay".to_owned(), ..skip };
    let old =
        v1::DecideEscalationRequest { escalation_id: first.escalation_id.clone(), ..skip.clone() };
    assert_eq!(reason(&decide(world, old).await.unwrap_err()), "ESCALATION_SETTLED");
    assert_eq!(decide(world, skip).await.unwrap().decision(), EscalationDecision::Skip);
    assert_eq!(client.ended(&run).await.status(), RunStatus::Failure);
}

async fn what_nobody_needs_to_decide_is_withdrawn(world: &World) {
    let client = &world.client;
    let yaml = "name: late\nsteps:\n  - {id: gate, approve: {message: Now?, timeout: 50ms}}\n";
    let run = client.start(yaml).await;
    assert_eq!(client.ended(&run).await.status(), RunStatus::Failure);
    let late = only(world, &format!("run_id={run}")).await;
    assert_eq!(late.status(), EscalationStatus::Withdrawn, "{late:?}");
    assert!(!late.settle_comment.is_empty() && late.decided_by.is_empty());

    let run = client.start("name: gone\nsteps:\n  - {id: gate, approve: Now?}\n").await;
    client.event(&run, v1::EventKind::StepWaiting, "gate").await;
    let asked = only(world, &format!("run_id={run} AND status=open")).await;
    cli(world, &["runs", "cancel", &run]);
    assert_eq!(client.ended(&run).await.status(), RunStatus::Cancelled);
    let gone = get(world, &asked.escalation_id).await;
    assert_eq!(gone.status(), EscalationStatus::Withdrawn, "{gone:?}");
    let approve = decision(&asked.escalation_id, EscalationDecision::Approve);
    assert_eq!(reason(&decide(world, approve).await.unwrap_err()), "ESCALATION_SETTLED");
}

async fn a_decision_elsewhere_settles_the_question(world: &World) {
    let client = &world.client;
    let yaml = "name: two\nsteps:\n  - {id: a, approve: A?}\n  - {id: b, approve: B?}\n";
    let run = client.start(yaml).await;
    client.event(&run, v1::EventKind::StepWaiting, "a").await;
    cli(world, &["runs", "approve", &run, "a", "--comment", "fine", "--amend", "[1]"]);
    client.event(&run, v1::EventKind::StepWaiting, "b").await;
    let a = only(world, &format!("run_id={run} AND status=decided")).await;
    assert_eq!((a.step.as_str(), a.decision()), ("a", EscalationDecision::Amend));
    assert_eq!(a.settle_comment, "fine");
    let listed = cli(world, &["escalations", "list", "--run", &run]);
    assert!(listed.contains("B?") && !listed.contains("A?"), "{listed}");
    let b = only(world, &format!("run_id={run} AND status=open")).await;
    cli(world, &["escalations", "decide", &b.escalation_id, "reject", "--comment", "no"]);
    let ended = client.ended(&run).await;
    assert_eq!(ended.status(), RunStatus::Failure);
    let b = get(world, &b.escalation_id).await;
    assert_eq!((b.decision(), b.settle_comment.as_str()), (EscalationDecision::Reject, "no"));
}

async fn wrong_lists_and_ids_are_refused(world: &World) {
    for filter in ["status=asleep", "topic=weather", "overdue=perhaps", "colour=red", "run_id"] {
        let request =
            v1::ListEscalationsRequest { filter: filter.to_owned(), ..Default::default() };
        let status = world.client.escalations.clone().list_escalations(request).await.unwrap_err();
        assert_eq!(reason(&status), "INVALID_FILTER", "{filter}");
    }
    for id in ["nothing", "nul\0", &"x".repeat(4_000)] {
        let request = v1::GetEscalationRequest { escalation_id: id.to_owned() };
        let status = world.client.escalations.clone().get_escalation(request).await.unwrap_err();
        assert_eq!(reason(&status), "ESCALATION_NOT_FOUND");
        let approve = decision(id, EscalationDecision::Approve);
        let status = decide(world, approve).await.unwrap_err();
        assert_eq!(reason(&status), "ESCALATION_NOT_FOUND");
    }
    let nothing = decision("nothing", EscalationDecision::Unspecified);
    assert_eq!(reason(&decide(world, nothing).await.unwrap_err()), "INVALID_FIELD");
}

async fn rollbacks_are_listed_by_how_they_stand(world: &World) {
    let client = &world.client;
    let yaml = "name: hard_to_undo\nerror_handling: {rollback: to_start}\nsteps:\n  \
                - {id: a, agent: echo, action: echo, \
                   compensate: {action: fail, params: {message: broken, kind: permanent}}}\n  \
                - {id: f, agent: echo, action: fail, params: {message: boom, kind: permanent}}\n";
    let id = client.start(yaml).await;
    client.event(&id, v1::EventKind::UndoFailed, "a").await;
    let open = only(world, &format!("run_id={id}")).await;
    assert_eq!((open.topic(), open.status()), (EscalationTopic::Undo, EscalationStatus::Open));
    let list = |filter: String| v1::ListRollbacksRequest { filter, ..Default::default() };
    let mut recovery = client.recovery.clone();
    let stuck = list(format!("status=stuck AND run_id={id}"));
    let stuck = recovery.list_rollbacks(stuck).await.unwrap().into_inner().rollbacks;
    assert_eq!(stuck.len(), 1, "{stuck:?}");
    let counts = stuck[0].counts.unwrap();
    assert_eq!((counts.total, counts.stuck, counts.undone), (1, 1, 0));
    decide(world, decision(&open.escalation_id, EscalationDecision::Done)).await.unwrap();
    assert_eq!(client.ended(&id).await.status(), RunStatus::RolledBack);
    assert_eq!(get(world, &open.escalation_id).await.decision(), EscalationDecision::Done);
    let all = recovery.list_rollbacks(list(format!("run_id={id}"))).await.unwrap().into_inner();
    assert_eq!(all.rollbacks.len(), 1);
    assert_eq!(all.rollbacks[0].status(), v1::RollbackStatus::Succeeded);
    assert_eq!(all.rollbacks[0].counts.unwrap().by_hand, 1);
    let refused = recovery.list_rollbacks(list("status=odd".to_owned())).await.unwrap_err();
    assert_eq!(reason(&refused), "INVALID_FILTER");
}
