//! What is written once the run of a recovery plan has ended.

use contracts::v1::create_recovery_plan_request::Source;
use contracts::v1::recovery_service_client::RecoveryServiceClient;
use contracts::v1::{self, IssueStatus, RunStatus};
use control_plane::documents::Kind;
use control_plane::plans;
use control_plane::testing::TestServer;
use store::testing::TestDatabase;
use store::{Change, DocumentRow, DocumentWrite};
use tonic::transport::Channel;

use crate::support::{definition, echo, ended, server, server_on, until};

fn recovery(server: &TestServer) -> RecoveryServiceClient<Channel> {
    RecoveryServiceClient::new(server.channel())
}

async fn get(server: &TestServer, plan_id: &str) -> v1::RecoveryPlan {
    let request = v1::GetRecoveryPlanRequest { plan_id: plan_id.to_owned() };
    recovery(server).get_recovery_plan(request).await.unwrap().into_inner().plan.unwrap()
}

/// Creates, approves and executes a plan; gives its id and that of its run.
async fn execute(server: &TestServer, text: &str) -> (String, String) {
    let source = Some(Source::Definition(definition(text)));
    let request = v1::CreateRecoveryPlanRequest { source, ..Default::default() };
    let made = recovery(server).create_recovery_plan(request).await.unwrap().into_inner();
    let plan_id = made.plan.unwrap().plan_id;
    let request = v1::ApproveRecoveryPlanRequest { plan_id: plan_id.clone(), ..Default::default() };
    recovery(server).approve_recovery_plan(request).await.unwrap();
    let request = v1::ExecuteRecoveryRequest { plan_id: plan_id.clone(), ..Default::default() };
    let run = recovery(server).execute_recovery(request).await.unwrap().into_inner().run.unwrap();
    (plan_id, run.run_id)
}

/// Waits until it is written how a plan ended.
async fn closed(server: &TestServer, plan_id: &str) -> v1::RecoveryPlan {
    until("the plan is closed", async || get(server, plan_id).await.end_time.is_some()).await;
    get(server, plan_id).await
}

fn results(plan: &v1::RecoveryPlan) -> Vec<(&str, IssueStatus)> {
    plan.issues.iter().map(|issue| (&*issue.issue_id, issue.status())).collect()
}

/// What the audit log says that was done with a plan.
async fn actions(server: &TestServer, plan_id: &str) -> Vec<String> {
    let store = server.control_plane.core().store();
    let chain = store.audit_chain(&plans::resource(plan_id), 0, 100).await.unwrap();
    chain.into_iter().map(|row| row.action).collect()
}

const PLAN: &str = "name: mend\nerror_handling: {scope: branch, rollback: to_start}\nsteps:\n  \
                    - {id: good, agent: echo, action: echo, depends_on: []}\n  \
                    - {id: bad, agent: echo, action: fail, params: {kind: permanent}, \
                    depends_on: []}\n  \
                    - {id: never, agent: echo, action: echo, depends_on: [bad]}\n";

/// The plan's row as it was before its end was written.
async fn reopened(server: &TestServer, plan_id: &str) -> DocumentRow {
    let store = server.control_plane.core().store();
    let row = store.document(Kind::Plan.number(), plan_id).await.unwrap().unwrap();
    let body = plans::Body { ended: None, ..plans::Body::read(&row).unwrap() };
    let expected_version = row.version;
    let due_at = Some(i64::MAX - 1);
    let body = serde_json::to_vec(&body).unwrap();
    let row = DocumentRow { due_at, body, version: expected_version + 1, ..row };
    let documents = vec![DocumentWrite { row: row.clone(), expected_version }];
    store.change(&Change { documents, ..Change::default() }).await.unwrap();
    row
}

async fn ends_are_written(server: TestServer) {
    let agent = echo(&server).await;
    let (plan_id, run_id) = execute(&server, PLAN).await;
    ended(&server, &run_id, 0).await;
    let plan = closed(&server, &plan_id).await;
    let never = ("never", IssueStatus::Skipped);
    let want = [("good", IssueStatus::Resolved), ("bad", plan.issues[1].status()), never];
    assert_eq!(results(&plan), want);
    assert!(matches!(want[1].1, IssueStatus::Failed | IssueStatus::Undone), "{plan:?}");
    assert_eq!((&*plan.issues[0].mended_by, plan.run_status()), ("echo", RunStatus::Failure));
    assert!(!plan.issues[1].error.is_empty() && plan.issues[1].mended_by.is_empty());
    let all = ["plan.create", "plan.approve", "plan.execute", "plan.end"];
    assert_eq!(actions(&server, &plan_id).await, all);

    // As when the process dies between the end of the run and what follows.
    let row = reopened(&server, &plan_id).await;
    drop(agent);
    let server = server.restart().await.unwrap();
    let again = closed(&server, &plan_id).await;
    assert_eq!(results(&again), results(&plan));
    let written = server.control_plane.core().store();
    let written = written.document(Kind::Plan.number(), &plan_id).await.unwrap().unwrap();
    assert_eq!((written.version, written.due_at), (row.version + 1, None), "once, and for good");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_a_plan_ended_is_written_once_even_if_the_process_died_before_on_sqlite() {
    ends_are_written(server().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_a_plan_ended_is_written_once_even_if_the_process_died_before_on_postgres() {
    let database: TestDatabase = store::testing::postgres().await;
    ends_are_written(server_on(&database).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_undone_later_is_told_by_the_plan() {
    let server = server().await;
    let _agent = echo(&server).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lines.txt");
    let text = format!(
        "name: mend\nsteps:\n  - {{id: line, agent: echo, action: append, params: {{file: {}, \
         line: x}}}}\n",
        file.display()
    );
    let (plan_id, run_id) = execute(&server, &text).await;
    let plan = closed(&server, &plan_id).await;
    assert_eq!(results(&plan), [("line", IssueStatus::Resolved)]);
    let request = v1::PlanRollbackRequest { run_id: run_id.clone(), ..Default::default() };
    let planned = recovery(&server).plan_rollback(request).await.unwrap().into_inner();
    let number = planned.rollback.unwrap().number;
    let request = v1::ExecuteRollbackRequest { run_id, number, ..Default::default() };
    recovery(&server).execute_rollback(request).await.unwrap();
    until("the plan tells it", async || {
        results(&get(&server, &plan_id).await) == [("line", IssueStatus::Undone)]
    })
    .await;
    let plan = get(&server, &plan_id).await;
    assert_eq!(plan.run_status(), RunStatus::RolledBack);
    let store = server.control_plane.core().store();
    let asked = store.document(Kind::Escalation.number(), &format!("{plan_id}-1")).await.unwrap();
    assert!(asked.is_some_and(|row| row.due_at.is_some()), "people are asked about it");
    assert_eq!(actions(&server, &plan_id).await.iter().filter(|it| *it == "plan.end").count(), 2);
}
