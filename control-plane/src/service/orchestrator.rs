//! `OrchestratorService`: workflows and runs. Shims over `workflow`, `run`, `watch` and `diagnose`.

use contracts::v1;
use contracts::v1::orchestrator_service_server::OrchestratorService;
use engine::Command;
use tonic::{Request, Response, Status, Streaming};

use super::auth::Principal;
use super::request::Mark;
use super::status::Refusal;
use super::{
    Context, convert, deployment, diagnose, replica, rollback, run, start_runs, watch, workflow,
};
use crate::limits;

/// Serves `OrchestratorService`.
#[derive(Clone, Debug)]
pub struct OrchestratorApi {
    context: Context,
}

impl OrchestratorApi {
    /// Serves what `context` has.
    #[must_use]
    pub fn new(context: Context) -> Self {
        Self { context }
    }
}

/// Passes a method on to the function that answers it.
macro_rules! pass_on {
    ($self:ident, $request:ident, $($function:tt)+) => {{
        let who = Principal::of(&$request);
        let answer = $($function)+(&$self.context, &who, $request.into_inner()).await?;
        Ok(Response::new(answer))
    }};
}

#[tonic::async_trait]
impl OrchestratorService for OrchestratorApi {
    type WatchRunStream = watch::Items;
    type StartRunsStream = start_runs::Answers;

    async fn validate_workflow(
        &self,
        request: Request<v1::ValidateWorkflowRequest>,
    ) -> Result<Response<v1::ValidateWorkflowResponse>, Status> {
        pass_on!(self, request, workflow::validate)
    }

    async fn register_workflow(
        &self,
        request: Request<v1::RegisterWorkflowRequest>,
    ) -> Result<Response<v1::RegisterWorkflowResponse>, Status> {
        pass_on!(self, request, workflow::register)
    }

    async fn list_workflows(
        &self,
        request: Request<v1::ListWorkflowsRequest>,
    ) -> Result<Response<v1::ListWorkflowsResponse>, Status> {
        pass_on!(self, request, workflow::list)
    }

    async fn get_workflow(
        &self,
        request: Request<v1::GetWorkflowRequest>,
    ) -> Result<Response<v1::GetWorkflowResponse>, Status> {
        pass_on!(self, request, workflow::get)
    }

    async fn start_run(
        &self,
        request: Request<v1::StartRunRequest>,
    ) -> Result<Response<v1::StartRunResponse>, Status> {
        pass_on!(self, request, run::start)
    }

    async fn start_runs(
        &self,
        request: Request<Streaming<v1::StartRunsRequest>>,
    ) -> Result<Response<start_runs::Answers>, Status> {
        pass_on!(self, request, start_runs::start)
    }

    async fn get_run(
        &self,
        request: Request<v1::GetRunRequest>,
    ) -> Result<Response<v1::GetRunResponse>, Status> {
        pass_on!(self, request, run::get)
    }

    async fn list_runs(
        &self,
        request: Request<v1::ListRunsRequest>,
    ) -> Result<Response<v1::ListRunsResponse>, Status> {
        pass_on!(self, request, run::list)
    }

    async fn list_steps(
        &self,
        request: Request<v1::ListStepsRequest>,
    ) -> Result<Response<v1::ListStepsResponse>, Status> {
        pass_on!(self, request, run::steps)
    }

    async fn watch_run(
        &self,
        request: Request<v1::WatchRunRequest>,
    ) -> Result<Response<watch::Items>, Status> {
        pass_on!(self, request, watch::watch)
    }

    async fn cancel_run(
        &self,
        request: Request<v1::CancelRunRequest>,
    ) -> Result<Response<v1::CancelRunResponse>, Status> {
        let who = Principal::of(&request);
        let v1::CancelRunRequest { run_id, reason, request_id } = request.into_inner();
        short(&reason, "reason")?;
        let parts = [run_id.as_bytes(), reason.as_bytes()];
        let mark = Mark::new(&request_id, "CancelRun", &parts)?;
        let command = |origin| Command::Cancel { reason, origin };
        let run = run::ask(&self.context, &who, &run_id, mark.as_ref(), command).await?;
        Ok(Response::new(v1::CancelRunResponse { run: Some(run) }))
    }

    async fn pause_run(
        &self,
        request: Request<v1::PauseRunRequest>,
    ) -> Result<Response<v1::PauseRunResponse>, Status> {
        let who = Principal::of(&request);
        let v1::PauseRunRequest { run_id, reason, request_id } = request.into_inner();
        short(&reason, "reason")?;
        let parts = [run_id.as_bytes(), reason.as_bytes()];
        let mark = Mark::new(&request_id, "PauseRun", &parts)?;
        let command = |origin| Command::Pause { reason, origin };
        let run = run::ask(&self.context, &who, &run_id, mark.as_ref(), command).await?;
        Ok(Response::new(v1::PauseRunResponse { run: Some(run) }))
    }

    async fn resume_run(
        &self,
        request: Request<v1::ResumeRunRequest>,
    ) -> Result<Response<v1::ResumeRunResponse>, Status> {
        pass_on!(self, request, rollback::resume)
    }

    async fn signal_run(
        &self,
        request: Request<v1::SignalRunRequest>,
    ) -> Result<Response<v1::SignalRunResponse>, Status> {
        let who = Principal::of(&request);
        let v1::SignalRunRequest { run_id, signal, payload, request_id } = request.into_inner();
        if signal.is_empty() {
            return Err(Refusal::field("signal", "must be given").into());
        }
        short(&signal, "signal")?;
        let payload = convert::json(payload, "payload")?.unwrap_or_else(|| "null".to_owned());
        // Signals are kept in the journal, so what is not JSON must not come so far.
        serde_json::from_str::<serde_json::Value>(&payload)
            .map_err(|error| Refusal::field("payload", format!("is not JSON: {error}")))?;
        let parts = [run_id.as_bytes(), signal.as_bytes(), payload.as_bytes()];
        let mark = Mark::new(&request_id, "SignalRun", &parts)?;
        let command = |origin| Command::Signal { signal, payload: payload.as_str().into(), origin };
        let run = run::ask(&self.context, &who, &run_id, mark.as_ref(), command).await?;
        Ok(Response::new(v1::SignalRunResponse { run: Some(run) }))
    }

    async fn decide_step(
        &self,
        request: Request<v1::DecideStepRequest>,
    ) -> Result<Response<v1::DecideStepResponse>, Status> {
        let who = Principal::of(&request);
        let v1::DecideStepRequest { run_id, step, approve, comment, request_id, amendment } =
            request.into_inner();
        if step.is_empty() {
            return Err(Refusal::field("step", "must be given").into());
        }
        short(&comment, "comment")?;
        let amendment = convert::amendment(amendment, approve)?;
        let decided = [u8::from(approve)];
        let mut parts = vec![run_id.as_bytes(), step.as_bytes(), &decided, comment.as_bytes()];
        // A request without one has the mark that it always had.
        parts.extend(amendment.as_deref().map(str::as_bytes));
        let mark = Mark::new(&request_id, "DecideStep", &parts)?;
        let amendment = amendment.as_deref().map(Into::into);
        let command = |origin| Command::Decide { path: step, approve, comment, amendment, origin };
        let run = run::ask(&self.context, &who, &run_id, mark.as_ref(), command).await?;
        Ok(Response::new(v1::DecideStepResponse { run: Some(run) }))
    }

    async fn retry_run(
        &self,
        request: Request<v1::RetryRunRequest>,
    ) -> Result<Response<v1::RetryRunResponse>, Status> {
        let who = Principal::of(&request);
        let v1::RetryRunRequest { run_id, request_id } = request.into_inner();
        let mark = Mark::new(&request_id, "RetryRun", &[run_id.as_bytes()])?;
        let command = |origin| Command::Retry { origin };
        let run = run::ask(&self.context, &who, &run_id, mark.as_ref(), command).await?;
        Ok(Response::new(v1::RetryRunResponse { run: Some(run) }))
    }

    async fn list_run_journal(
        &self,
        request: Request<v1::ListRunJournalRequest>,
    ) -> Result<Response<v1::ListRunJournalResponse>, Status> {
        pass_on!(self, request, run::journal)
    }

    async fn diagnose_run(
        &self,
        request: Request<v1::DiagnoseRunRequest>,
    ) -> Result<Response<v1::DiagnoseRunResponse>, Status> {
        pass_on!(self, request, diagnose::diagnose)
    }

    async fn diagnose(
        &self,
        request: Request<v1::DiagnoseRequest>,
    ) -> Result<Response<v1::DiagnoseResponse>, Status> {
        pass_on!(self, request, deployment::diagnose)
    }

    async fn list_replicas(
        &self,
        request: Request<v1::ListReplicasRequest>,
    ) -> Result<Response<v1::ListReplicasResponse>, Status> {
        pass_on!(self, request, replica::list)
    }
}

fn short(text: &str, field: &str) -> Result<(), Refusal> {
    let (size, max) = (text.len(), limits::REQUEST_TEXT_BYTES_MAX);
    if size > max {
        return Err(Refusal::field(field, format!("has {size} bytes; {max} are allowed")));
    }
    Ok(())
}
