//! What a client asks of a control plane, in few words.

use contracts::v1::dead_letter_service_client::DeadLetterServiceClient;
use contracts::v1::escalation_service_client::EscalationServiceClient;
use contracts::v1::orchestrator_service_client::OrchestratorServiceClient;
use contracts::v1::recovery_service_client::RecoveryServiceClient;
use contracts::v1::{self, RunStatus, start_run_request::Source, watch_run_response::Item};
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use tonic_types::StatusExt as _;

use super::{DEADLINE, Server};

/// A client on a connection of its own.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) runs: OrchestratorServiceClient<Channel>,
    pub(crate) letters: DeadLetterServiceClient<Channel>,
    pub(crate) recovery: RecoveryServiceClient<Channel>,
    pub(crate) escalations: EscalationServiceClient<Channel>,
}

/// The largest answer that clients read.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// JSON text as a payload.
pub(crate) fn json(text: &str) -> Option<v1::Payload> {
    let data = Some(v1::payload::Data::Json(text.to_owned()));
    Some(v1::Payload { data, media_type: String::new() })
}

/// The JSON text of a payload; empty when there is none.
pub(crate) fn text(payload: Option<&v1::Payload>) -> &str {
    match payload.and_then(|payload| payload.data.as_ref()) {
        Some(v1::payload::Data::Json(text)) => text,
        None => "",
        Some(other) => panic!("not JSON: {other:?}"),
    }
}

/// Why something was refused.
pub(crate) fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no reason: {status:?}"));
    assert_eq!(info.domain, "orchestrator.v1");
    info.reason.clone()
}

/// The fields that were refused.
pub(crate) fn fields(status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    let violations = details.bad_request().map(|it| it.field_violations.clone());
    violations.unwrap_or_default().into_iter().map(|violation| violation.field).collect()
}

/// A request to start what is written here.
pub(crate) fn request(yaml: &str) -> v1::StartRunRequest {
    let definition = v1::Definition { yaml: yaml.to_owned(), ..Default::default() };
    v1::StartRunRequest { source: Some(Source::Definition(definition)), ..Default::default() }
}

/// A request to start what is registered.
pub(crate) fn by_name(name: &str) -> v1::StartRunRequest {
    let source = Some(Source::Workflow(name.to_owned()));
    v1::StartRunRequest { source, ..Default::default() }
}

impl Client {
    pub(crate) async fn of(server: &Server) -> Self {
        let channel = server.channel().await;
        let runs = OrchestratorServiceClient::new(channel.clone())
            .max_decoding_message_size(ANSWER_BYTES_MAX);
        let letters = DeadLetterServiceClient::new(channel.clone());
        let recovery = RecoveryServiceClient::new(channel.clone());
        Self { runs, letters, recovery, escalations: EscalationServiceClient::new(channel) }
    }

    pub(crate) async fn try_start(&self, request: v1::StartRunRequest) -> Result<v1::Run, Status> {
        let started = self.runs.clone().start_run(request).await?;
        Ok(started.into_inner().run.unwrap())
    }

    pub(crate) async fn start(&self, yaml: &str) -> String {
        self.try_start(request(yaml)).await.unwrap().run_id
    }

    pub(crate) async fn watch(&self, id: &str, after: i64) -> Streaming<v1::WatchRunResponse> {
        let request = v1::WatchRunRequest { run_id: id.to_owned(), after_sequence: after };
        self.runs.clone().watch_run(request).await.unwrap().into_inner()
    }

    /// Watches until something is seen.
    pub(crate) async fn seen<T>(
        &self,
        id: &str,
        after: i64,
        mut look: impl FnMut(Item) -> Option<T>,
    ) -> T {
        let watching = async {
            let mut stream = self.watch(id, after).await;
            while let Some(seen) = stream.message().await.unwrap() {
                let item = seen.item.unwrap();
                let ended = matches!(item, Item::Ended(_));
                let shown = format!("{item:?}");
                if let Some(found) = look(item) {
                    return found;
                }
                assert!(!ended, "the run ended before it was seen: {shown}");
            }
            panic!("a watch ends with the run's end");
        };
        tokio::time::timeout(DEADLINE, watching).await.expect("it is seen in time")
    }

    /// Waits for an event of this kind about this step (empty: about the run).
    pub(crate) async fn event(
        &self,
        id: &str,
        kind: v1::EventKind,
        step: &str,
    ) -> v1::JournalEvent {
        self.seen(id, 0, |item| match item {
            Item::Event(event) if event.kind() == kind && event.step == step => Some(event),
            _ => None,
        })
        .await
    }

    /// Waits until an agent has taken the step's task.
    pub(crate) async fn accepted(&self, id: &str, step: &str) {
        super::until("the task is out", async || {
            let step = self.step(id, step).await;
            step.is_some_and(|step| step.status == "running")
        })
        .await;
    }

    /// All events behind a sequence, without gaps, and the run as it ended.
    pub(crate) async fn events(&self, id: &str, after: i64) -> (Vec<v1::JournalEvent>, v1::Run) {
        let mut events = Vec::<v1::JournalEvent>::new();
        let run = self
            .seen(id, after, |item| match item {
                Item::Event(event) => {
                    let expected = after + 1 + i64::try_from(events.len()).unwrap();
                    assert_eq!(event.sequence, expected, "none is missed, none comes twice");
                    events.push(event);
                    None
                }
                Item::Update(_) => None,
                Item::Ended(ended) => ended.run,
            })
            .await;
        (events, run)
    }

    pub(crate) async fn ended(&self, id: &str) -> v1::Run {
        self.events(id, 0).await.1
    }

    pub(crate) async fn ends_well(&self, id: &str) -> v1::Run {
        let run = self.ended(id).await;
        assert_eq!(run.status(), RunStatus::Success, "{}: {}", run.failed_step, run.error);
        run
    }

    pub(crate) async fn run(&self, id: &str) -> v1::Run {
        self.view(id, v1::RunView::Basic).await
    }

    pub(crate) async fn full(&self, id: &str) -> v1::Run {
        self.view(id, v1::RunView::Full).await
    }

    async fn view(&self, id: &str, view: v1::RunView) -> v1::Run {
        let request = v1::GetRunRequest { run_id: id.to_owned(), view: view.into() };
        self.runs.clone().get_run(request).await.unwrap().into_inner().run.unwrap()
    }

    /// All steps, by pages.
    pub(crate) async fn steps(&self, id: &str) -> Vec<v1::StepResult> {
        let (mut steps, mut page_token) = (Vec::new(), String::new());
        loop {
            let request =
                v1::ListStepsRequest { run_id: id.to_owned(), page_size: 1000, page_token };
            let page = self.runs.clone().list_steps(request).await.unwrap().into_inner();
            steps.extend(page.steps);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return steps;
            }
        }
    }

    pub(crate) async fn step(&self, id: &str, path: &str) -> Option<v1::StepResult> {
        self.steps(id).await.into_iter().find(|step| step.step_id == path)
    }

    /// The findings of doctor, once there is one that says this.
    pub(crate) async fn finding(&self, id: &str, part: &str) -> v1::Finding {
        let mut last = Vec::new();
        let mut found = None;
        let look = super::until("doctor says it", async || {
            let request = v1::DiagnoseRunRequest { run_id: id.to_owned() };
            let response = self.runs.clone().diagnose_run(request).await.unwrap();
            last = response.into_inner().findings;
            found = last.iter().find(|finding| finding.cause.contains(part)).cloned();
            found.is_some()
        });
        let in_time = tokio::time::timeout(DEADLINE / 3, look).await;
        assert!(in_time.is_ok(), "doctor does not say `{part}`: {last:?}");
        found.unwrap()
    }

    pub(crate) async fn cancel(&self, id: &str) -> Result<v1::Run, Status> {
        let request = v1::CancelRunRequest {
            run_id: id.to_owned(),
            reason: "enough".to_owned(),
            ..Default::default()
        };
        let response = self.runs.clone().cancel_run(request).await?;
        Ok(response.into_inner().run.unwrap())
    }

    pub(crate) async fn signal(&self, id: &str, name: &str, body: &str) -> Result<v1::Run, Status> {
        let request = v1::SignalRunRequest {
            run_id: id.to_owned(),
            signal: name.to_owned(),
            payload: json(body),
            ..Default::default()
        };
        let response = self.runs.clone().signal_run(request).await?;
        Ok(response.into_inner().run.unwrap())
    }

    pub(crate) async fn decide(
        &self,
        id: &str,
        step: &str,
        approve: bool,
        comment: &str,
    ) -> Result<v1::Run, Status> {
        let request = v1::DecideStepRequest {
            run_id: id.to_owned(),
            step: step.to_owned(),
            approve,
            comment: comment.to_owned(),
            ..Default::default()
        };
        let response = self.runs.clone().decide_step(request).await?;
        Ok(response.into_inner().run.unwrap())
    }

    pub(crate) async fn retry(&self, id: &str) -> Result<v1::Run, Status> {
        let request = v1::RetryRunRequest { run_id: id.to_owned(), ..Default::default() };
        let response = self.runs.clone().retry_run(request).await?;
        Ok(response.into_inner().run.unwrap())
    }

    pub(crate) async fn register(&self, yaml: &str) -> Result<v1::Workflow, Status> {
        self.register_as(v1::RegisterWorkflowRequest::default(), yaml).await
    }

    pub(crate) async fn register_as(
        &self,
        request: v1::RegisterWorkflowRequest,
        yaml: &str,
    ) -> Result<v1::Workflow, Status> {
        let definition = v1::Definition { yaml: yaml.to_owned(), ..Default::default() };
        let request = v1::RegisterWorkflowRequest { definition: Some(definition), ..request };
        let response = self.runs.clone().register_workflow(request).await?;
        Ok(response.into_inner().workflow.unwrap())
    }

    /// All runs that a filter lets through, the oldest first.
    pub(crate) async fn list(&self, filter: &str) -> Vec<v1::Run> {
        let request = v1::ListRunsRequest {
            page_size: 1000,
            filter: filter.to_owned(),
            order_by: "create_time".to_owned(),
            ..Default::default()
        };
        self.runs.clone().list_runs(request).await.unwrap().into_inner().runs
    }
}
