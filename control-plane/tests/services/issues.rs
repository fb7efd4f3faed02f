//! What becomes of issues that nobody is sure of, or that a recovery did not mend: people are
//! asked, and what they say is done.

use agent_sdk::{Action, Agent, Context, Failure, Handles, Undo};
use contracts::v1::create_recovery_plan_request::Source;
use contracts::v1::escalation_service_client::EscalationServiceClient;
use contracts::v1::recovery_service_client::RecoveryServiceClient;
use contracts::v1::triage_service_client::TriageServiceClient;
use contracts::v1::{self, EscalationDecision, EscalationStatus, IssueStatus, TriageBasis};
use control_plane::documents::Kind;
use control_plane::testing::TestServer;
use store::DocumentFilter;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::support::{reason, server, server_on, until};

/// One that mends disks, and one that takes databases and never mends them.
async fn agents(server: &TestServer) -> CancellationToken {
    let stop = CancellationToken::new();
    let mended = async |_: Context, _: serde_json::Value| {
        Ok::<_, Failure>(serde_json::json!({"mended": true}))
    };
    let broken = async |_: Context, _: serde_json::Value| {
        Err::<serde_json::Value, _>(Failure::permanent("the disk of the database is full"))
    };
    let words = |keywords: &[&str]| Handles {
        keywords: keywords.iter().map(ToString::to_string).collect(),
        ..Handles::default()
    };
    let disk = Action::new("mend", "Mends disks.", mended)
        .handles(words(&["disk", "folder", "quota", "space"]))
        .undo(Undo::Nothing);
    let database = Action::new("repair", "Repairs databases.", broken)
        .handles(words(&["migration", "table", "deadlock", "query"]))
        .undo(Undo::Nothing);
    for agent in [
        Agent::new("disk-agent", "1").describe("keeps disks from filling up").action(disk),
        Agent::new("database-agent", "1").describe("keeps the database").action(database),
    ] {
        let channel = server.channel();
        let open = move || {
            let channel = channel.clone();
            async move { Ok::<_, std::convert::Infallible>(channel) }
        };
        tokio::spawn(agent.run_on(open, stop.clone()));
    }
    until("the agents are connected", async || {
        let listed = server.agents().list_agents(v1::ListAgentsRequest::default()).await.unwrap();
        listed.into_inner().agents.len() == 2
    })
    .await;
    stop
}

fn issue(id: &str, title: &str, on: &[&str]) -> v1::Issue {
    v1::Issue {
        issue_id: id.into(),
        title: title.into(),
        severity: v1::IssueSeverity::High.into(),
        depends_on: on.iter().map(ToString::to_string).collect(),
        ..v1::Issue::default()
    }
}

async fn triage(server: &TestServer, issues: Vec<v1::Issue>) -> v1::Triage {
    let request = v1::TriageIssuesRequest { issues, ..Default::default() };
    let mut client = TriageServiceClient::new(server.channel());
    client.triage_issues(request).await.unwrap().into_inner().triage.unwrap()
}

async fn get(server: &TestServer, triage_id: &str) -> v1::Triage {
    let request = v1::GetTriageRequest { triage_id: triage_id.to_owned() };
    let mut client = TriageServiceClient::new(server.channel());
    client.get_triage(request).await.unwrap().into_inner().triage.unwrap()
}

async fn escalations(server: &TestServer, filter: &str) -> Vec<v1::Escalation> {
    let request = v1::ListEscalationsRequest { filter: filter.to_owned(), ..Default::default() };
    let mut client = EscalationServiceClient::new(server.channel());
    client.list_escalations(request).await.unwrap().into_inner().escalations
}

fn decision(id: &str, decision: EscalationDecision) -> v1::DecideEscalationRequest {
    v1::DecideEscalationRequest {
        escalation_id: id.to_owned(),
        decision: decision.into(),
        comment: "seen".to_owned(),
        ..Default::default()
    }
}

async fn decide(
    server: &TestServer,
    request: v1::DecideEscalationRequest,
) -> Result<v1::Escalation, Status> {
    let mut client = EscalationServiceClient::new(server.channel());
    Ok(client.decide_escalation(request).await?.into_inner().escalation.unwrap())
}

async fn plan(
    server: &TestServer,
    triage_id: &str,
    only: &[&str],
) -> Result<v1::CreateRecoveryPlanResponse, Status> {
    let request = v1::CreateRecoveryPlanRequest {
        source: Some(Source::TriageId(triage_id.to_owned())),
        issue_ids: only.iter().map(ToString::to_string).collect(),
        ..Default::default()
    };
    let mut client = RecoveryServiceClient::new(server.channel());
    Ok(client.create_recovery_plan(request).await?.into_inner())
}

/// Approves and executes a plan; gives it once it is written how it ended.
async fn executed(server: &TestServer, plan: v1::RecoveryPlan) -> v1::RecoveryPlan {
    let mut client = RecoveryServiceClient::new(server.channel());
    let plan_id = plan.plan_id;
    let request = v1::ApproveRecoveryPlanRequest { plan_id: plan_id.clone(), ..Default::default() };
    client.approve_recovery_plan(request).await.unwrap();
    let request = v1::ExecuteRecoveryRequest { plan_id: plan_id.clone(), ..Default::default() };
    client.execute_recovery(request).await.unwrap();
    let get = async || {
        let request = v1::GetRecoveryPlanRequest { plan_id: plan_id.clone() };
        let mut client = RecoveryServiceClient::new(server.channel());
        client.get_recovery_plan(request).await.unwrap().into_inner().plan.unwrap()
    };
    until("the plan is closed", async || get().await.end_time.is_some()).await;
    get().await
}

async fn audited(server: &TestServer, resource: &str) -> Vec<String> {
    let store = server.control_plane.core().store();
    let chain = store.audit_chain(resource, 0, 100).await.unwrap();
    chain.into_iter().map(|row| row.action).collect()
}

async fn people_place_what_nobody_was_sure_of(server: TestServer) {
    let _agents = agents(&server).await;
    let issues = vec![
        issue("a", "deadlock of two queries on a table", &["c"]),
        issue("b", "no space left on the disk", &[]),
        issue("c", "the coffee is cold", &[]),
    ];
    let made = triage(&server, issues).await;
    let id = made.triage_id.clone();
    let open = escalations(&server, &format!("triage_id = {id}")).await;
    assert_eq!(open.len(), 1, "{open:?}");
    let asked = &open[0];
    assert_eq!(asked.escalation_id, made.escalated[0].escalation_id);
    assert_eq!((&*asked.issue_id, &*asked.severity), ("c", "high"));
    assert!(asked.question.contains("the coffee is cold"), "{}", asked.question);
    let offered = asked.choices.contains(&EscalationDecision::Reroute.into());
    assert!(offered && !asked.choices.contains(&EscalationDecision::Reject.into()));

    let reroute = decision(&asked.escalation_id, EscalationDecision::Reroute);
    let nobody = v1::DecideEscalationRequest { agent_type: "barista".into(), ..reroute.clone() };
    let refused = decide(&server, nobody).await.unwrap_err();
    assert_eq!(reason(&refused), "INVALID_FIELD");
    assert!(refused.message().contains("database-agent, disk-agent"), "{}", refused.message());
    let reroute = v1::DecideEscalationRequest {
        agent_type: "disk-agent".into(),
        request_id: format!("reroute-{id}"),
        ..reroute
    };
    let tried = v1::DecideEscalationRequest {
        validate_only: true,
        request_id: String::new(),
        ..reroute.clone()
    };
    assert_eq!(decide(&server, tried).await.unwrap().status(), EscalationStatus::Open);
    assert_eq!(get(&server, &id).await.escalated.len(), 1, "nothing changed");

    let decided = decide(&server, reroute.clone()).await.unwrap();
    assert_eq!(decided.status(), EscalationStatus::Decided);
    assert_eq!(decided.route.as_ref().unwrap().agent_type, "disk-agent");
    assert_eq!(decide(&server, reroute).await.unwrap(), decided, "a repetition");
    let late = decision(&asked.escalation_id, EscalationDecision::Skip);
    let refused = decide(&server, late).await.unwrap_err();
    assert_eq!(reason(&refused), "ESCALATION_SETTLED");
    let now = get(&server, &id).await;
    let given = now.assignments.iter().find(|it| it.issue_id == "c").unwrap();
    assert_eq!((&*given.agent_type, given.basis()), ("disk-agent", TriageBasis::Person));
    assert!(now.escalated.is_empty());
    assert!(now.assignments.iter().all(|it| it.blocked_by.is_empty()), "{now:?}");
    assert_eq!(audited(&server, &format!("triage/{id}")).await, ["triage.create", "triage.decide"]);
    let resource = format!("escalation/{}", asked.escalation_id);
    assert_eq!(audited(&server, &resource).await, ["escalation.decide"]);
    let kind = Kind::Outcome.number();
    let filter = DocumentFilter { kind, parent: Some(id), ..DocumentFilter::default() };
    let store = server.control_plane.core().store();
    let learned = store.documents(&filter, None, true, 10).await.unwrap();
    assert_eq!(learned.len(), 1, "triage learns who was right");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_place_what_nobody_was_sure_of_on_sqlite() {
    people_place_what_nobody_was_sure_of(server().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_place_what_nobody_was_sure_of_on_postgres() {
    let database = store::testing::postgres().await;
    people_place_what_nobody_was_sure_of(server_on(&database).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_done_by_hand_or_left_is_waited_for_no_more() {
    let server = server().await;
    let _agents = agents(&server).await;
    let issues = vec![
        issue("cold", "the coffee is cold", &[]),
        issue("dim", "the lamp is dim", &[]),
        issue("full", "no space left on the disk", &["cold", "dim"]),
    ];
    let id = triage(&server, issues).await.triage_id;
    let before = plan(&server, &id, &[]).await.unwrap().plan.unwrap();
    assert!(before.definition.contains("Is `cold` mended?"), "{}", before.definition);
    for (asked, what) in escalations(&server, &format!("triage_id = {id}"))
        .await
        .iter()
        .zip([EscalationDecision::Done, EscalationDecision::Skip])
    {
        decide(&server, decision(&asked.escalation_id, what)).await.unwrap();
    }
    let handled = get(&server, &id).await.handled;
    let mut mended: Vec<bool> = handled.iter().map(|handled| handled.mended).collect();
    mended.sort_unstable();
    assert_eq!(mended, [false, true], "{handled:?}");
    let plan = plan(&server, &id, &[]).await.unwrap().plan.unwrap();
    assert_eq!(plan.issues.len(), 1, "{plan:?}");
    assert!(plan.definition.contains("depends_on: []"), "{}", plan.definition);
    let only = self::plan(&server, &id, &["cold"]).await.unwrap_err();
    assert_eq!(reason(&only), "INVALID_FIELD");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_recovery_did_not_mend_goes_to_others_in_a_plan_of_its_own() {
    let server = server().await;
    let _agents = agents(&server).await;
    let issues = vec![
        issue("table", "deadlock of two queries on a table", &[]),
        issue("space", "no space left on the disk", &[]),
    ];
    let id = triage(&server, issues).await.triage_id;
    let first = plan(&server, &id, &[]).await.unwrap().plan.unwrap();
    let first = executed(&server, first).await;
    let results: Vec<IssueStatus> = first.issues.iter().map(|issue| issue.status()).collect();
    assert!(results.contains(&IssueStatus::Resolved) && results.len() == 2, "{first:?}");
    let filter = format!("plan_id = {} AND status = open", first.plan_id);
    let asked = escalations(&server, &filter).await;
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!((&*asked[0].issue_id, &*asked[0].triage_id), ("table", &*id));
    assert!(asked[0].detail.contains("the disk of the database is full"), "{}", asked[0].detail);
    let reroute = v1::DecideEscalationRequest {
        agent_type: "disk-agent".into(),
        ..decision(&asked[0].escalation_id, EscalationDecision::Reroute)
    };
    decide(&server, reroute).await.unwrap();
    let given = get(&server, &id).await;
    let given = given.assignments.iter().find(|it| it.issue_id == "table").unwrap();
    assert_eq!((&*given.agent_type, &*given.instead_of), ("disk-agent", "database-agent"));

    let unknown = plan(&server, &id, &["table", "chair"]).await.unwrap_err();
    assert_eq!(reason(&unknown), "INVALID_FIELD");
    // What is mended is left out.
    let rest = plan(&server, &id, &[]).await.unwrap().plan.unwrap();
    let issues: Vec<&str> = rest.issues.iter().map(|issue| &*issue.issue_id).collect();
    assert_eq!(issues, ["table"]);
    let second = plan(&server, &id, &["table"]).await.unwrap().plan.unwrap();
    let second = executed(&server, second).await;
    assert_eq!(second.issues[0].status(), IssueStatus::Resolved, "{second:?}");
    assert_eq!(second.issues[0].mended_by, "disk-agent");
    let done = plan(&server, &id, &[]).await.unwrap_err();
    assert!(done.message().contains("all its issues are mended"), "{}", done.message());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_of_what_nobody_takes_is_refused_with_why_and_what_to_do() {
    let server = server().await;
    let _agents = agents(&server).await;
    let issues = vec![
        issue("cold", "the coffee is cold", &[]),
        issue("dim", "the lamp is dim", &[]),
        issue("full", "no space left on the disk", &[]),
    ];
    let made = triage(&server, issues).await;
    let id = made.triage_id.clone();
    let cold = made.escalated.iter().find(|it| it.issue_id == "cold").unwrap();
    let refused = plan(&server, &id, &["cold"]).await.unwrap_err();
    assert_eq!(reason(&refused), "INVALID_FIELD");
    let remedy =
        format!("`orchestrator escalations decide {} reroute --agent TYPE`", cold.escalation_id);
    let said = refused.message();
    assert!(said.contains("nobody takes `cold`") && said.contains(&cold.reason), "{said}");
    assert!(said.contains(&remedy), "{said}");
    let both = plan(&server, &id, &["cold", "dim"]).await.unwrap_err();
    assert!(both.message().contains(&format!("escalations list --triage {id}")), "{both:?}");

    // Where others are mended the plan says so of those that were asked for.
    let mixed = plan(&server, &id, &["cold", "full"]).await.unwrap();
    let told: Vec<&v1::Complaint> =
        mixed.complaints.iter().filter(|it| it.message.contains("nobody takes")).collect();
    assert_eq!(told.len(), 1, "{mixed:?}");
    assert_eq!(told[0].suggestion, remedy);

    // What the sentence says helps.
    let reroute = v1::DecideEscalationRequest {
        agent_type: "disk-agent".into(),
        ..decision(&cold.escalation_id, EscalationDecision::Reroute)
    };
    decide(&server, reroute).await.unwrap();
    assert!(plan(&server, &id, &["cold"]).await.is_ok());
}

/// With nobody there all are escalated, and each is asked about, or none is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_issues_that_nobody_takes_are_all_asked_about() {
    let server = server().await;
    let issues: Vec<v1::Issue> =
        (0..10_000).map(|n| issue(&format!("i{n}"), &word(n), &[])).collect();
    let made = triage(&server, issues).await;
    assert_eq!(made.escalated.len(), 10_000);
    let store = server.control_plane.core().store();
    let last = store.document(Kind::Escalation.number(), &made.escalated[9_999].escalation_id);
    assert!(last.await.unwrap().is_some());
}

/// A title of its own: numbers do not tell issues apart.
fn word(number: usize) -> String {
    let digits = number.to_string();
    let letters = digits.bytes().map(|digit| char::from(b'a' + (digit - b'0')));
    format!("the lamp {} is dim", letters.collect::<String>())
}
