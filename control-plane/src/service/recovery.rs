//! `RecoveryService`: plans and their progress, rollbacks, checkpoints, runs that go on or begin
//! from them. Shims over `plan` and `rollback`.

use contracts::v1;
use contracts::v1::recovery_service_server::RecoveryService;
use tonic::{Request, Response, Status};

use super::auth::Principal;
use super::plan::{self, progress};
use super::{Context, checkpoint, rollback, rollback_list};

/// Serves `RecoveryService`.
#[derive(Clone, Debug)]
pub struct RecoveryApi {
    context: Context,
}

impl RecoveryApi {
    /// Serves what `context` has.
    #[must_use]
    pub fn new(context: Context) -> Self {
        Self { context }
    }
}

/// Methods, each passed on to the function that answers it.
macro_rules! methods {
    ($($name:ident($request:ident) -> $response:ty = $function:path;)+) => {
        #[tonic::async_trait]
        impl RecoveryService for RecoveryApi {
            type WatchRollbackStream = rollback::Rollbacks;
            type WatchProgressStream = progress::Reports;

            $(async fn $name(
                &self,
                request: Request<v1::$request>,
            ) -> Result<Response<$response>, Status> {
                let who = Principal::of(&request);
                let answer = $function(&self.context, &who, request.into_inner()).await?;
                Ok(Response::new(answer))
            })+
        }
    };
}

methods! {
    create_recovery_plan(CreateRecoveryPlanRequest)
        -> v1::CreateRecoveryPlanResponse = plan::create;
    get_recovery_plan(GetRecoveryPlanRequest) -> v1::GetRecoveryPlanResponse = plan::get;
    list_recovery_plans(ListRecoveryPlansRequest) -> v1::ListRecoveryPlansResponse = plan::list;
    edit_recovery_plan(EditRecoveryPlanRequest) -> v1::EditRecoveryPlanResponse = plan::edit;
    validate_recovery_plan(ValidateRecoveryPlanRequest)
        -> v1::ValidateRecoveryPlanResponse = plan::validate;
    approve_recovery_plan(ApproveRecoveryPlanRequest)
        -> v1::ApproveRecoveryPlanResponse = plan::approve;
    execute_recovery(ExecuteRecoveryRequest) -> v1::ExecuteRecoveryResponse = plan::execute;
    watch_progress(WatchProgressRequest) -> progress::Reports = progress::watch;
    optimize_resources(OptimizeResourcesRequest)
        -> v1::OptimizeResourcesResponse = progress::optimize;
    plan_rollback(PlanRollbackRequest) -> v1::PlanRollbackResponse = rollback::plan;
    approve_rollback(ApproveRollbackRequest) -> v1::ApproveRollbackResponse = rollback::approve;
    execute_rollback(ExecuteRollbackRequest) -> v1::ExecuteRollbackResponse = rollback::execute;
    get_rollback(GetRollbackRequest) -> v1::GetRollbackResponse = rollback::get;
    list_rollbacks(ListRollbacksRequest) -> v1::ListRollbacksResponse = rollback_list::list;
    watch_rollback(WatchRollbackRequest) -> rollback::Rollbacks = rollback::watch;
    decide_undo(DecideUndoRequest) -> v1::DecideUndoResponse = rollback::decide;
    list_checkpoints(ListCheckpointsRequest) -> v1::ListCheckpointsResponse = checkpoint::list;
    get_checkpoint(GetCheckpointRequest) -> v1::GetCheckpointResponse = checkpoint::get;
    resume_run(RecoveryServiceResumeRunRequest) -> v1::RecoveryServiceResumeRunResponse
        = rollback::resume_recovered;
    fork_run(ForkRunRequest) -> v1::ForkRunResponse = rollback::fork;
}
