//! What the configuration, workflows and requests say of whether rollbacks are approved.

use contracts::v1::recovery_service_client::RecoveryServiceClient;
use contracts::v1::{self, RollbackStatus};
use control_plane::testing::TestServer;

use crate::support::{ended, reason, start, started};

#[tokio::test]
async fn every_planned_rollback_is_approved_where_the_configuration_says_so() {
    control_plane::server::install_metrics();
    let server = TestServer::start_with(|config| config.rollback_approval = true).await.unwrap();
    let run_id = started(&server, start("name: short\nsteps:\n  - {id: a, wait: 1ms}\n")).await;
    ended(&server, &run_id, 0).await;
    let mut client = RecoveryServiceClient::new(server.channel());
    let plan = v1::PlanRollbackRequest { run_id: run_id.clone(), ..Default::default() };
    let would_be = v1::PlanRollbackRequest { validate_only: true, ..plan.clone() };
    for request in [would_be, plan] {
        let planned = client.plan_rollback(request).await.unwrap().into_inner().rollback.unwrap();
        assert!(planned.needs_approval, "{planned:?}");
    }
    let execute =
        v1::ExecuteRollbackRequest { run_id: run_id.clone(), number: 1, ..Default::default() };
    let refused = client.execute_rollback(execute.clone()).await.unwrap_err();
    assert_eq!(reason(&refused), "ROLLBACK_STATE");
    let approve = v1::ApproveRollbackRequest {
        run_id: run_id.clone(),
        number: 1,
        approve: true,
        ..Default::default()
    };
    client.approve_rollback(approve).await.unwrap();
    let done = client.execute_rollback(execute).await.unwrap().into_inner().rollback.unwrap();
    assert_eq!(done.status(), RollbackStatus::Succeeded, "{done:?}");
}

#[tokio::test]
async fn a_planned_rollback_is_approved_where_its_workflow_says_so() {
    let server = crate::support::server().await;
    let mut client = RecoveryServiceClient::new(server.channel());
    // The strictest of workflow and request counts.
    for (workflow, request, wanted) in
        [(true, false, true), (false, true, true), (true, true, true), (false, false, false)]
    {
        let text = format!(
            "name: short\nerror_handling: {{rollback_approval: {workflow}}}\nsteps:\n  \
             - {{id: a, wait: 1ms}}\n"
        );
        let run_id = started(&server, start(&text)).await;
        ended(&server, &run_id, 0).await;
        let plan = v1::PlanRollbackRequest {
            run_id: run_id.clone(),
            needs_approval: request,
            ..Default::default()
        };
        let would_be = v1::PlanRollbackRequest { validate_only: true, ..plan.clone() };
        for request in [would_be, plan] {
            let planned = client.plan_rollback(request).await.unwrap().into_inner();
            assert_eq!(planned.rollback.unwrap().needs_approval, wanted, "{text}");
        }
        let execute = v1::ExecuteRollbackRequest { run_id, number: 1, ..Default::default() };
        let executed = client.execute_rollback(execute).await;
        assert_eq!(
            executed.err().map(|refused| reason(&refused)),
            wanted.then(|| "ROLLBACK_STATE".into())
        );
    }
}
