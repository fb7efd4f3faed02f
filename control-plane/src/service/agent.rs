//! `AgentService`: the agents' sessions, and who is there. Shims over `dispatch`.

#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::time::Duration;

use contracts::v1::agent_service_server::AgentService;
use contracts::v1::{self, Reason, connect_request};
use futures::{FutureExt as _, Stream, StreamExt as _, stream};
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::auth::Principal;
use super::page;
use super::request::{Known, Mark};
use super::status::Refusal;
use crate::dispatch::{AgentView, Dispatcher, RegisterFault, ReportFault, agent_to_proto};
use crate::limits;
use crate::runs::Runs;

/// The list that page tokens of `ListAgents` are good for.
const LIST: &str = "ListAgents";

/// Serves `AgentService`.
#[derive(Clone, Debug)]
pub struct AgentApi {
    dispatcher: Dispatcher,
    stopping: CancellationToken,
    /// Where request ids are kept; without it requests are carried out as often as they come.
    runs: Option<Runs>,
}

/// The frames to one agent.
type Frames = Pin<Box<dyn Stream<Item = Result<v1::ConnectResponse, Status>> + Send>>;

impl AgentApi {
    /// Serves what `dispatcher` has. Once `stopping` is cancelled, streams end with UNAVAILABLE.
    #[must_use]
    pub fn new(dispatcher: Dispatcher, stopping: CancellationToken) -> Self {
        Self { dispatcher, stopping, runs: None }
    }

    /// The same, with request ids kept in the store of `runs`.
    #[must_use]
    pub fn with_requests(mut self, runs: Runs) -> Self {
        self.runs = Some(runs);
        self
    }
}

#[tonic::async_trait]
impl AgentService for AgentApi {
    type ConnectStream = Frames;

    async fn connect(
        &self,
        request: Request<Streaming<v1::ConnectRequest>>,
    ) -> Result<Response<Frames>, Status> {
        let mut frames = request.into_inner();
        let register = first_frame(&mut frames).await?;
        let stream = self.dispatcher.connect(register).map_err(|fault| refuse("", fault))?;
        tokio::spawn(stream.inbox().run(frames));
        let stopping = self.stopping.clone();
        let patience = stopping.clone().cancelled_owned();
        let patience = patience.then(|()| tokio::time::sleep(limits::AGENTS_LEAVE_WAIT_MAX));
        let stream = stream.take_until(patience);
        // Why it ended, so that the agent goes elsewhere and comes back in time.
        let last = stream::once(async move { stopping.is_cancelled() });
        let last = last.filter_map(async |stopping| {
            let message = "the server stops; connect to another one, or again shortly";
            stopping.then(|| Err(Refusal::unavailable(message).into()))
        });
        Ok(Response::new(Box::pin(stream.chain(last))))
    }

    async fn poll_tasks(
        &self,
        request: Request<v1::PollTasksRequest>,
    ) -> Result<Response<v1::PollTasksResponse>, Status> {
        let request = request.into_inner();
        let max = u32::try_from(request.max_tasks).unwrap_or(0);
        if !(1..=limits::POLL_TASKS_MAX).contains(&max) {
            let what = format!("must be 1 to {}", limits::POLL_TASKS_MAX);
            return Err(Refusal::field("max_tasks", what).into());
        }
        let Some(register) = request.register else {
            return Err(Refusal::field("register", "is required").into());
        };
        let wait = bounded(request.wait, "wait", limits::POLL_WAIT_MAX)?.unwrap_or_default();
        check_request_id(&request.request_id)?;
        let polled = self.dispatcher.poll(register, max, wait, &request.request_id).await;
        let (tasks, token) = polled.map_err(|fault| refuse("register.", fault))?;
        let session_token = token.to_string();
        Ok(Response::new(v1::PollTasksResponse { tasks, session_token }))
    }

    async fn report_task(
        &self,
        request: Request<v1::ReportTaskRequest>,
    ) -> Result<Response<v1::ReportTaskResponse>, Status> {
        let request = request.into_inner();
        let count = request.frames.len();
        if count > limits::REPORT_FRAMES_MAX {
            let max = limits::REPORT_FRAMES_MAX;
            let what = format!("has {count} entries; at most {max} are allowed");
            return Err(Refusal::field("frames", what).into());
        }
        let told = self.dispatcher.report_frames(&request.session_token, request.frames).await;
        let frames = told.map_err(|ReportFault::NoSession| {
            not_registered("the session has ended; poll again with the tasks in flight")
        })?;
        Ok(Response::new(v1::ReportTaskResponse { frames }))
    }

    async fn list_agents(
        &self,
        request: Request<v1::ListAgentsRequest>,
    ) -> Result<Response<v1::ListAgentsResponse>, Status> {
        let request = request.into_inner();
        let size = page::size(request.page_size)?;
        let after = page::place::<2>(LIST, &request.page_token)?;
        let after = after.as_ref().map(|[agent_type, instance]| (&**agent_type, &**instance));
        let mut views = self.dispatcher.agents(after, size + 1);
        let more = views.len() > size;
        views.truncate(size);
        let last = views.last().filter(|_| more);
        let next_page_token = last.map_or_else(String::new, |last| {
            page::token(LIST, &[&last.agent_type, &last.instance])
        });
        let agents = views.into_iter().map(agent_to_proto).collect();
        Ok(Response::new(v1::ListAgentsResponse { agents, next_page_token }))
    }

    async fn get_agent(
        &self,
        request: Request<v1::GetAgentRequest>,
    ) -> Result<Response<v1::GetAgentResponse>, Status> {
        let agent = self.one(&request.into_inner().agent_id)?;
        Ok(Response::new(v1::GetAgentResponse { agent: Some(agent_to_proto(agent)) }))
    }

    async fn drain_agent(
        &self,
        request: Request<v1::DrainAgentRequest>,
    ) -> Result<Response<v1::DrainAgentResponse>, Status> {
        let who = Principal::of(&request);
        let request = request.into_inner();
        let parts = [request.agent_id.as_bytes(), request.reason.as_bytes()];
        let mark = Mark::new(&request.request_id, "DrainAgent", &parts)?;
        let noted = mark.as_ref().zip(self.runs.as_ref());
        if let Some((mark, runs)) = noted
            && let Known::Before(row) = mark.known(&**runs.store(), &who).await?
            && let Some(answer) = &row.response
        {
            // Who goes by that name now may be another, and was not asked to drain.
            let answer = v1::DrainAgentResponse::decode(answer.as_slice());
            return answer.map(Response::new).map_err(|error| Status::internal(error.to_string()));
        }
        let agent = self.one(&request.agent_id)?;
        let drained = self.dispatcher.drain(&agent, &request.reason);
        // An agent without tasks may have left meanwhile; it is shown as it was.
        let agent = drained.unwrap_or(agent);
        let response = v1::DrainAgentResponse { agent: Some(agent_to_proto(agent)) };
        if let Some((mark, runs)) = noted {
            let (store, at) = (&**runs.store(), runs.clock().now());
            mark.note_answer(store, &who, at, response.encode_to_vec()).await?;
        }
        Ok(Response::new(response))
    }

    async fn get_agent_metrics(
        &self,
        request: Request<v1::GetAgentMetricsRequest>,
    ) -> Result<Response<v1::GetAgentMetricsResponse>, Status> {
        const RANGE_DEFAULT: Duration = Duration::from_secs(60 * 60);
        let request = request.into_inner();
        let range = bounded(request.range, "range", limits::FIGURES_SPAN)?;
        let range = range.unwrap_or(RANGE_DEFAULT);
        let agent = Some(request.agent.as_str()).filter(|name| !name.is_empty());
        let actions = self.dispatcher.figures(agent, range);
        let range = prost_types::Duration::try_from(range).ok();
        Ok(Response::new(v1::GetAgentMetricsResponse { actions, range }))
    }
}

impl AgentApi {
    /// The one agent that goes by this name.
    fn one(&self, name: &str) -> Result<AgentView, Refusal> {
        if name.is_empty() {
            return Err(Refusal::field("agent_id", "is required"));
        }
        let mut found = self.dispatcher.find(name);
        match (found.pop(), found.len()) {
            (Some(agent), 0) => Ok(agent),
            (Some(last), _) => {
                let all = found.iter().chain([&last]);
                let ids: Vec<String> =
                    all.take(10).map(|it| format!("{}/{}", it.agent_type, it.instance)).collect();
                let what = format!("names several agents; give one of {}", ids.join(", "));
                Err(Refusal::field("agent_id", what))
            }
            (None, _) => {
                let message = format!("no agent `{name}` is connected");
                Err(Refusal::missing(Reason::AgentNotFound, "agent", name, message))
            }
        }
    }
}

async fn first_frame(frames: &mut Streaming<v1::ConnectRequest>) -> Result<v1::Register, Status> {
    let first = tokio::time::timeout(limits::REGISTER_WAIT_MAX, frames.message()).await;
    let Ok(first) = first else {
        return Err(not_registered("no frame came in time; the first must be `Register`").into());
    };
    let wrong = match first?.and_then(|request| request.frame) {
        Some(connect_request::Frame::Register(register)) => return Ok(register),
        Some(_) => "the first frame must be `Register`",
        None => "the stream ended, or its first frame is not known; it must be `Register`",
    };
    Err(not_registered(wrong).into())
}

fn check_request_id(id: &str) -> Result<(), Refusal> {
    if id.chars().count() > REQUEST_ID_CHARS_MAX {
        let what = format!("has more than {REQUEST_ID_CHARS_MAX} characters");
        return Err(Refusal::field("request_id", what));
    }
    Ok(())
}

const REQUEST_ID_CHARS_MAX: usize = 128;

fn bounded(
    given: Option<prost_types::Duration>,
    field: &str,
    max: Duration,
) -> Result<Option<Duration>, Refusal> {
    let Some(given) = given else { return Ok(None) };
    match Duration::try_from(given) {
        Ok(duration) if duration <= max => Ok(Some(duration)),
        _ => Err(Refusal::field(field, format!("must be 0 to {max:?}"))),
    }
}

fn refuse(prefix: &str, fault: RegisterFault) -> Refusal {
    match fault {
        RegisterFault::Invalid(violations) => {
            let named: Vec<String> = violations
                .iter()
                .map(|it| format!("{prefix}{}: {}", it.field, it.description))
                .collect();
            let refusal = Refusal::new(Reason::InvalidField, named.join("; "));
            violations.into_iter().fold(refusal, |refusal, it| {
                refusal.violation(&format!("{prefix}{}", it.field), it.description)
            })
        }
        RegisterFault::TooMany(count) => {
            let message = format!("{count} agents are connected already; try again later");
            Refusal::overloaded(message).retry_after(Duration::from_secs(5))
        }
    }
}

fn not_registered(message: &str) -> Refusal {
    Refusal::new(Reason::NotRegistered, message)
}
