//! A server that says what a test tells it to say.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use contracts::v1::agent_service_server::{AgentService, AgentServiceServer};
use contracts::v1::dead_letter_service_server::{DeadLetterService, DeadLetterServiceServer};
use contracts::v1::orchestrator_service_server::{OrchestratorService, OrchestratorServiceServer};
use contracts::v1::*;
use futures::stream::{self, Stream, StreamExt as _};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};

type Answer<T> = Result<Response<T>, Status>;
type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What one watch sends before it ends, breaks, or waits for a cancel.
pub(super) struct Part {
    pub(super) items: Vec<Result<watch_run_response::Item, Status>>,
    /// What follows once the run is asked to stop; none ends the watch at once.
    pub(super) when_cancelled: Option<Vec<watch_run_response::Item>>,
}

/// What the server says.
#[derive(Default)]
pub(super) struct Fake {
    pub(super) validated: ValidateWorkflowResponse,
    pub(super) registered: Option<Workflow>,
    pub(super) start_error: Option<Status>,
    pub(super) run: Run,
    pub(super) steps: Vec<StepResult>,
    pub(super) parts: Mutex<VecDeque<Part>>,
    pub(super) findings: Vec<Finding>,
    pub(super) checks: Vec<Check>,
    pub(super) agents: Vec<Agent>,
    pub(super) metrics: Vec<ActionMetrics>,
    pub(super) letters: Vec<DeadLetter>,
    pub(super) seen: Arc<Seen>,
}

/// What the server was asked.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) starts: Mutex<Vec<StartRunRequest>>,
    pub(super) watches: Mutex<Vec<i64>>,
    /// The runs that each stream of `StartRuns` asked for.
    pub(super) streams: Mutex<Vec<Vec<RunToStart>>>,
    pub(super) signals: Mutex<Vec<SignalRunRequest>>,
    pub(super) filters: Mutex<Vec<String>>,
    cancelled: Notify,
    pub(super) watching: Notify,
}

/// A server that listens until it is dropped.
pub(super) struct Served {
    pub(super) url: String,
    pub(super) seen: Arc<Seen>,
    task: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The value behind a lock.
pub(super) fn locked<T: Clone>(value: &Mutex<T>) -> T {
    value.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn push<T>(list: &Mutex<Vec<T>>, value: T) {
    list.lock().unwrap_or_else(PoisonError::into_inner).push(value);
}

/// The page at a token, two entries a page.
fn page<T: Clone>(all: &[T], token: &str) -> (Vec<T>, String) {
    let begin: usize = token.parse().unwrap_or_default();
    let end = (begin + 2).min(all.len());
    let next = if end < all.len() { end.to_string() } else { String::new() };
    (all[begin..end].to_vec(), next)
}

impl Fake {
    pub(super) fn new() -> Fake {
        Fake::default()
    }

    /// A server with a valid workflow and a run that ends so.
    pub(super) fn with_run(run: Run, steps: Vec<StepResult>) -> Fake {
        let fake = Fake {
            validated: ValidateWorkflowResponse {
                valid: true,
                workflow: Some(Workflow { name: run.workflow.clone(), ..Default::default() }),
                ..Default::default()
            },
            run,
            steps,
            ..Fake::default()
        };
        let ended = Item::ended(&fake.run);
        fake.part(vec![Ok(Item::event(1, "", EventKind::RunStarted)), Ok(ended)])
    }

    /// Adds what the next watch sends.
    pub(super) fn part(self, items: Vec<Result<watch_run_response::Item, Status>>) -> Fake {
        let part = Part { items, when_cancelled: None };
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).push_back(part);
        self
    }

    /// Replaces everything that watches send.
    pub(super) fn parts(self, parts: Vec<Part>) -> Fake {
        *self.parts.lock().unwrap_or_else(PoisonError::into_inner) = parts.into();
        self
    }

    pub(super) async fn serve(self) -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let url = format!("http://{}", listener.local_addr().expect("it listens"));
        let seen = self.seen.clone();
        let fake = Arc::new(self);
        let server = tonic::transport::Server::builder()
            .add_service(OrchestratorServiceServer::from_arc(fake.clone()))
            .add_service(AgentServiceServer::from_arc(fake.clone()))
            .add_service(DeadLetterServiceServer::from_arc(fake))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let task = tokio::spawn(async move {
            let _ = server.await;
        });
        Served { url, seen, task }
    }
}

/// Shorthands for watch items.
pub(super) struct Item;

impl Item {
    pub(super) fn event(sequence: i64, step: &str, kind: EventKind) -> watch_run_response::Item {
        watch_run_response::Item::Event(JournalEvent {
            run_id: "run-1".into(),
            sequence,
            time: Some(prost_types::Timestamp { seconds: sequence, nanos: 0 }),
            kind: kind.into(),
            step: step.into(),
            agent: "echo".into(),
            ..Default::default()
        })
    }

    pub(super) fn ended(run: &Run) -> watch_run_response::Item {
        watch_run_response::Item::Ended(RunEnded { run: Some(run.clone()) })
    }
}

/// A port on which nobody listens.
pub(super) async fn dead_url() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    format!("http://{}", listener.local_addr().expect("it listens"))
}

macro_rules! answers_run {
    ($($method:ident $request:ident $response:ident),* $(,)?) => {
        $(
            fn $method<'life, 'future>(
                &'life self,
                _: Request<$request>,
            ) -> Pin<Box<dyn Future<Output = Answer<$response>> + Send + 'future>>
            where
                'life: 'future,
            {
                let run = Some(self.run.clone());
                Box::pin(async move { Ok(Response::new($response { run })) })
            }
        )*
    };
}

#[tonic::async_trait]
impl OrchestratorService for Fake {
    type WatchRunStream = Boxed<WatchRunResponse>;
    type StartRunsStream = Boxed<StartRunsResponse>;

    answers_run! {
        get_run GetRunRequest GetRunResponse,
        pause_run PauseRunRequest PauseRunResponse,
        resume_run ResumeRunRequest ResumeRunResponse,
        decide_step DecideStepRequest DecideStepResponse,
        retry_run RetryRunRequest RetryRunResponse,
    }

    async fn validate_workflow(
        &self,
        _: Request<ValidateWorkflowRequest>,
    ) -> Answer<ValidateWorkflowResponse> {
        Ok(Response::new(self.validated.clone()))
    }

    async fn register_workflow(
        &self,
        _: Request<RegisterWorkflowRequest>,
    ) -> Answer<RegisterWorkflowResponse> {
        let workflow = self.validated.workflow.clone();
        Ok(Response::new(RegisterWorkflowResponse { workflow, complaints: Vec::new() }))
    }

    async fn list_workflows(
        &self,
        _: Request<ListWorkflowsRequest>,
    ) -> Answer<ListWorkflowsResponse> {
        let workflows = self.registered.clone().into_iter().collect();
        Ok(Response::new(ListWorkflowsResponse { workflows, next_page_token: String::new() }))
    }

    async fn get_workflow(&self, _: Request<GetWorkflowRequest>) -> Answer<GetWorkflowResponse> {
        match &self.registered {
            Some(workflow) => {
                Ok(Response::new(GetWorkflowResponse { workflow: Some(workflow.clone()) }))
            }
            None => Err(Status::not_found("there is no such workflow")),
        }
    }

    async fn start_run(&self, request: Request<StartRunRequest>) -> Answer<StartRunResponse> {
        push(&self.seen.starts, request.into_inner());
        match &self.start_error {
            Some(status) => Err(status.clone()),
            None => {
                let mut run = self.run.clone();
                run.status = RunStatus::Running.into();
                run.end_time = None;
                Ok(Response::new(StartRunResponse { run: Some(run), complaints: Vec::new() }))
            }
        }
    }

    /// The first stream breaks behind its first answer; the others tell the end of each run.
    async fn start_runs(
        &self,
        request: Request<Streaming<StartRunsRequest>>,
    ) -> Answer<Self::StartRunsStream> {
        let mut frames = request.into_inner();
        frames.message().await?;
        let mut asked = Vec::new();
        let is_first = locked(&self.seen.streams).is_empty();
        while let Some(frame) = frames.message().await? {
            let Some(start_runs_request::Item::Run(run)) = frame.item else { continue };
            asked.push(run);
        }
        push(&self.seen.streams, asked.clone());
        let run = self.run.clone();
        let answers = asked.into_iter().map(move |asked| StartRunsResponse {
            tag: asked.tag,
            item: Some(start_runs_response::Item::Ended(RunEnded { run: Some(run.clone()) })),
        });
        let answers = stream::iter(answers.map(Ok));
        if is_first {
            let broken = stream::once(async { Err(Status::unavailable("it stops")) });
            return Ok(Response::new(answers.take(1).chain(broken).boxed()));
        }
        Ok(Response::new(answers.boxed()))
    }

    async fn list_runs(&self, request: Request<ListRunsRequest>) -> Answer<ListRunsResponse> {
        push(&self.seen.filters, request.into_inner().filter);
        let runs = if self.run.run_id.is_empty() { Vec::new() } else { vec![self.run.clone()] };
        Ok(Response::new(ListRunsResponse { runs, next_page_token: String::new() }))
    }

    async fn list_steps(&self, request: Request<ListStepsRequest>) -> Answer<ListStepsResponse> {
        let (steps, next_page_token) = page(&self.steps, &request.into_inner().page_token);
        Ok(Response::new(ListStepsResponse { steps, next_page_token }))
    }

    async fn watch_run(&self, request: Request<WatchRunRequest>) -> Answer<Self::WatchRunStream> {
        push(&self.seen.watches, request.into_inner().after_sequence);
        let part = self.parts.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(part) = part else { return Err(Status::internal("no more parts")) };
        let later = match part.when_cancelled {
            Some(items) => {
                let seen = self.seen.clone();
                let cancelled = stream::once(async move {
                    seen.watching.notify_one();
                    seen.cancelled.notified().await;
                });
                cancelled.flat_map(move |()| stream::iter(items.clone()).map(Ok)).boxed()
            }
            None => stream::empty().boxed(),
        };
        let items = stream::iter(part.items).chain(later);
        let responses = items.map(|item| item.map(|item| WatchRunResponse { item: Some(item) }));
        Ok(Response::new(responses.boxed()))
    }

    async fn cancel_run(&self, _: Request<CancelRunRequest>) -> Answer<CancelRunResponse> {
        self.seen.cancelled.notify_one();
        Ok(Response::new(CancelRunResponse { run: Some(self.run.clone()) }))
    }

    async fn signal_run(&self, request: Request<SignalRunRequest>) -> Answer<SignalRunResponse> {
        push(&self.seen.signals, request.into_inner());
        Ok(Response::new(SignalRunResponse { run: Some(self.run.clone()) }))
    }

    async fn list_run_journal(
        &self,
        request: Request<ListRunJournalRequest>,
    ) -> Answer<ListRunJournalResponse> {
        let events: Vec<JournalEvent> = (1..=3)
            .map(|sequence| JournalEvent {
                sequence,
                kind: EventKind::StepQueued.into(),
                step: "a".into(),
                ..Default::default()
            })
            .collect();
        let (events, next_page_token) = page(&events, &request.into_inner().page_token);
        Ok(Response::new(ListRunJournalResponse { events, next_page_token }))
    }

    async fn diagnose_run(&self, _: Request<DiagnoseRunRequest>) -> Answer<DiagnoseRunResponse> {
        let findings = self.findings.clone();
        Ok(Response::new(DiagnoseRunResponse { status: self.run.status, findings }))
    }

    async fn diagnose(&self, _: Request<DiagnoseRequest>) -> Answer<DiagnoseResponse> {
        Ok(Response::new(DiagnoseResponse { checks: self.checks.clone() }))
    }

    async fn list_replicas(&self, _: Request<ListReplicasRequest>) -> Answer<ListReplicasResponse> {
        let replica = |id: &str, is_self| Replica {
            replica_id: id.to_owned(),
            address: "10.0.0.1:8000".to_owned(),
            version: "1.2.3".to_owned(),
            status: ReplicaStatus::Serving.into(),
            runs: 7,
            lease_age: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
            is_self,
            ..Default::default()
        };
        let replicas = vec![replica("0a0b0c0d-0000", true), replica("0e0f0000-0000", false)];
        Ok(Response::new(ListReplicasResponse { replicas }))
    }
}

#[tonic::async_trait]
impl AgentService for Fake {
    type ConnectStream = Boxed<ConnectResponse>;

    async fn connect(&self, _: Request<Streaming<ConnectRequest>>) -> Answer<Self::ConnectStream> {
        Err(Status::unimplemented("not for clients"))
    }

    async fn poll_tasks(&self, _: Request<PollTasksRequest>) -> Answer<PollTasksResponse> {
        Err(Status::unimplemented("not for clients"))
    }

    async fn report_task(&self, _: Request<ReportTaskRequest>) -> Answer<ReportTaskResponse> {
        Err(Status::unimplemented("not for clients"))
    }

    async fn list_agents(&self, request: Request<ListAgentsRequest>) -> Answer<ListAgentsResponse> {
        let (agents, next_page_token) = page(&self.agents, &request.into_inner().page_token);
        Ok(Response::new(ListAgentsResponse { agents, next_page_token }))
    }

    async fn get_agent(&self, _: Request<GetAgentRequest>) -> Answer<GetAgentResponse> {
        Ok(Response::new(GetAgentResponse { agent: self.agents.first().cloned() }))
    }

    async fn drain_agent(&self, _: Request<DrainAgentRequest>) -> Answer<DrainAgentResponse> {
        Ok(Response::new(DrainAgentResponse { agent: self.agents.first().cloned() }))
    }

    async fn get_agent_metrics(
        &self,
        request: Request<GetAgentMetricsRequest>,
    ) -> Answer<GetAgentMetricsResponse> {
        let range = request.into_inner().range;
        Ok(Response::new(GetAgentMetricsResponse { actions: self.metrics.clone(), range }))
    }
}

#[tonic::async_trait]
impl DeadLetterService for Fake {
    async fn list_dead_letters(
        &self,
        request: Request<ListDeadLettersRequest>,
    ) -> Answer<ListDeadLettersResponse> {
        let (dead_letters, next_page_token) = page(&self.letters, &request.into_inner().page_token);
        Ok(Response::new(ListDeadLettersResponse { dead_letters, next_page_token }))
    }

    async fn get_dead_letter(
        &self,
        _: Request<GetDeadLetterRequest>,
    ) -> Answer<GetDeadLetterResponse> {
        Ok(Response::new(GetDeadLetterResponse { dead_letter: self.letters.first().cloned() }))
    }

    async fn replay_dead_letter(
        &self,
        _: Request<ReplayDeadLetterRequest>,
    ) -> Answer<ReplayDeadLetterResponse> {
        Ok(Response::new(ReplayDeadLetterResponse { run: Some(self.run.clone()) }))
    }

    async fn discard_dead_letter(
        &self,
        _: Request<DiscardDeadLetterRequest>,
    ) -> Answer<DiscardDeadLetterResponse> {
        Ok(Response::new(DiscardDeadLetterResponse {}))
    }
}
