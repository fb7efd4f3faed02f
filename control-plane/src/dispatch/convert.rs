//! The frames of the agent protocol, to and from what the matcher knows. Decides nothing.

use std::sync::Arc;
use std::time::Duration;

use contracts::v1::{self, connect_request, connect_response};
use engine::task::{FailureKind, Json, Purpose, TaskError, TaskKey};
use engine::{Instant, ShortText};
use serde_json::value::RawValue;

use super::breaker::Stand;
use super::clocks::Clocks;
use super::inherit::inherited;
use super::lease::LeaseToken;
use super::matcher::{ActionView, AgentView};
use super::report::Usage;
use super::session::{AgentVerdict, Assignment, Incoming, Outgoing, Settled};
use crate::hash::QuickSet;
use crate::limits;

/// Frames for an agent, tasks and acknowledgements put together. An acknowledgement may overtake
/// tasks on the way to others like it, as long as none of them is the one that it is about.
pub(super) fn responses(frames: Vec<Outgoing>, clocks: &Clocks) -> Vec<v1::ConnectResponse> {
    use connect_response::Frame;
    let mut responses: Vec<v1::ConnectResponse> = Vec::with_capacity(2);
    let mut bytes = 0;
    let is_task = |frame: &&Outgoing| matches!(frame, Outgoing::Assign(_));
    let mut tasks = frames.iter().filter(is_task).count();
    let acks = frames.iter().filter(|frame| matches!(frame, Outgoing::Ack { .. })).count();
    let mut overtakable = Overtakable { count: acks, ..Overtakable::default() };
    for frame in frames {
        let Some(frame) = overtakable.join(frame, &mut responses) else { continue };
        let Outgoing::Assign(assignment) = frame else {
            responses.push(v1::ConnectResponse { frame: Some(response(frame, clocks)) });
            continue;
        };
        let task = task(&assignment, clocks);
        let size = size(&task);
        // All of its tasks go into one frame as a rule.
        let left = tasks;
        tasks = tasks.saturating_sub(1);
        match responses.last_mut().and_then(|response| response.frame.as_mut()) {
            Some(Frame::Assign(last)) if bytes + size <= limits::ASSIGN_BYTES => {
                bytes += size;
                last.tasks.push(task);
            }
            _ => {
                bytes = size;
                let mut tasks = Vec::with_capacity(left);
                tasks.push(task);
                let frame = Some(Frame::Assign(v1::Assign { tasks }));
                responses.push(v1::ConnectResponse { frame });
            }
        }
    }
    responses
}

/// How many bytes a task takes, nearly: what may be long, and as much for the rest as that takes
/// at the most.
fn size(task: &v1::Task) -> usize {
    const REST: usize = 512;
    let text = |payload: &Option<v1::Payload>| match payload.as_ref().map(|it| &it.data) {
        Some(Some(v1::payload::Data::Json(text))) => text.len(),
        Some(_) => payload.as_ref().map_or(0, prost::Message::encoded_len),
        None => 0,
    };
    let payloads = text(&task.input) + text(&task.inherited) + text(&task.last_checkpoint);
    payloads + task.action.len() + task.step.len() + task.idempotency_key.len() + REST
}

/// Where acknowledgements are gathered, and the tasks that were given out behind.
#[derive(Default)]
struct Overtakable {
    /// How many acknowledgements there are.
    count: usize,
    acks: Option<usize>,
    behind: QuickSet<TaskKey>,
}

impl Overtakable {
    /// Adds an acknowledgement to those before, where that may be; gives back everything else.
    fn join(
        &mut self,
        frame: Outgoing,
        responses: &mut Vec<v1::ConnectResponse>,
    ) -> Option<Outgoing> {
        match &frame {
            Outgoing::Ack { key, lease, duplicate } => {
                let gathered = self.acks.filter(|_| !self.behind.contains(key));
                let gathered = gathered.and_then(|at| responses.get_mut(at)?.frame.as_mut());
                if let Some(connect_response::Frame::ResultsAck(before)) = gathered {
                    before.acks.push(ack(*key, *lease, *duplicate));
                    return None;
                }
                let mut acks = Vec::with_capacity(self.count);
                acks.push(ack(*key, *lease, *duplicate));
                let frame = connect_response::Frame::ResultsAck(v1::ResultsAck { acks });
                self.begin(Some(responses.len()));
                responses.push(v1::ConnectResponse { frame: Some(frame) });
                return None;
            }
            Outgoing::Assign(assignment) if self.acks.is_some() => {
                self.behind.insert(assignment.order.key);
            }
            Outgoing::Assign(_) => {}
            _ => self.begin(None),
        }
        Some(frame)
    }

    fn begin(&mut self, acks: Option<usize>) {
        self.acks = acks;
        self.behind.clear();
    }
}

fn ack(key: TaskKey, lease: LeaseToken, duplicate: bool) -> v1::ResultAck {
    v1::ResultAck { task_id: key.to_string(), duplicate, lease_token: lease.to_string() }
}

/// Whether a frame makes the agent do something for a run: only the run's owner may.
pub(super) fn acts(response: &v1::ConnectResponse) -> bool {
    response.frame.as_ref().is_some_and(frame_acts)
}

/// The same of a frame by itself.
pub(super) fn frame_acts(frame: &connect_response::Frame) -> bool {
    use connect_response::Frame;
    matches!(frame, Frame::Assign(_) | Frame::Proceed(_) | Frame::Cancel(_))
}

pub(super) fn response(frame: Outgoing, clocks: &Clocks) -> connect_response::Frame {
    use connect_response::Frame;
    match frame {
        Outgoing::Registered { token, kept } => Frame::Registered(v1::Registered {
            session_token: token.to_string(),
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
            ping_interval: Some(duration(clocks.ping_busy)),
            ping_timeout: Some(duration(clocks.ping_timeout)),
            accept_timeout: Some(duration(clocks.accept)),
            lease: Some(duration(clocks.lease)),
            payload_bytes_max: i64::try_from(limits::PAYLOAD_BYTES_MAX).unwrap_or(i64::MAX),
            tasks_kept: kept.into_iter().map(|(key, lease)| task_ref(key, lease)).collect(),
        }),
        Outgoing::Assign(assignment) => {
            Frame::Assign(v1::Assign { tasks: vec![task(&assignment, clocks)] })
        }
        Outgoing::Proceed { key, lease } => {
            Frame::Proceed(v1::Proceed { task: Some(task_ref(key, lease)) })
        }
        Outgoing::Cancel { key, lease, reason, grace } => Frame::Cancel(v1::Cancel {
            task: Some(task_ref(key, lease)),
            reason,
            grace: Some(duration(grace)),
        }),
        Outgoing::Ack { key, lease, duplicate } => {
            Frame::ResultsAck(v1::ResultsAck { acks: vec![ack(key, lease, duplicate)] })
        }
        Outgoing::LeaseLost { key, lease, reason } => Frame::LeaseLost(v1::LeaseLost {
            task_id: key.to_string(),
            reason: reason.to_owned(),
            lease_token: lease.map(|lease| lease.to_string()).unwrap_or_default(),
        }),
        Outgoing::Rebalance { within } => {
            Frame::Rebalance(v1::Rebalance { within: Some(duration(within)) })
        }
        Outgoing::Drain { reason } => Frame::Drain(v1::Drain { reason }),
        Outgoing::Passed(frame) => *frame,
        Outgoing::Ping { nonce } => Frame::Ping(v1::Ping { nonce }),
        Outgoing::Pong { nonce } => Frame::Pong(v1::Pong { nonce }),
        Outgoing::Fault { message } => Frame::Fault(v1::Fault {
            status: Some(contracts::rpc::Status {
                code: tonic::Code::InvalidArgument as i32,
                message,
                details: Vec::new(),
            }),
        }),
    }
}

/// A task as it goes out.
pub(super) fn task(assignment: &Assignment, clocks: &Clocks) -> v1::Task {
    let order = &assignment.order;
    let inherits = &assignment.action.inherits;
    let own = order.timeout.map(|timeout| assignment.at.after(timeout));
    let deadline = own.into_iter().chain(order.deadline).min();
    v1::Task {
        r#ref: Some(task_ref(order.key, assignment.lease)),
        action: order.action.to_string(),
        run_id: order.key.run.to_string(),
        step: order.path.to_string(),
        attempt: i32::try_from(order.attempt).unwrap_or(i32::MAX),
        input: Some(json_payload(order.input.to_string())),
        inherited: inherited(inherits, &order.input, &order.upstream).map(json_payload),
        idempotency_key: order.idempotency_key.to_string(),
        deadline: deadline.map(timestamp),
        timeout: order.timeout.map(duration),
        lease: Some(duration(clocks.lease)),
        await_proceed: order.delivery == engine::task::Delivery::AtMostOnce,
        traceparent: traceparent(order),
        budget: None,
        last_checkpoint: assignment.checkpoint.as_deref().cloned(),
        is_undo: order.key.purpose == Purpose::Undo,
    }
}

/// The W3C trace context of a task. Its trace is the run, so that all that is done for a run is
/// one trace; its span is the attempt. The engine hands in no context of the client's own.
fn traceparent(order: &engine::task::TaskOrder) -> String {
    let undo = u64::from(order.key.purpose == Purpose::Undo);
    let (instance, attempt) = (u64::from(order.key.instance.0), u64::from(order.attempt & 0xffff));
    // Never zero, for attempts count from 1.
    let span = instance << 32 | attempt << 1 | undo;
    let text = ShortText::new().text("00-").plain_id(order.key.run.0).text("-");
    text.hexadecimal(span).text("-01").as_str().to_owned()
}

pub(super) fn task_ref(key: TaskKey, lease: LeaseToken) -> v1::TaskRef {
    v1::TaskRef { task_id: key.to_string(), lease_token: lease.to_string() }
}

fn json_payload(text: String) -> v1::Payload {
    v1::Payload { data: Some(v1::payload::Data::Json(text)), media_type: String::new() }
}

pub(super) fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(duration)
        .unwrap_or(prost_types::Duration { seconds: i64::MAX, nanos: 0 })
}

fn timestamp(at: Instant) -> prost_types::Timestamp {
    let nanos = at.0.rem_euclid(1_000_000) * 1_000;
    prost_types::Timestamp {
        seconds: at.0.div_euclid(1_000_000),
        nanos: i32::try_from(nanos).unwrap_or(0),
    }
}

/// What an agent's frame says.
pub(super) fn incoming(frame: connect_request::Frame) -> Vec<Incoming> {
    use connect_request::Frame;
    let one = match frame {
        Frame::Register(_) => wrong("`Register` is only the first frame of a session"),
        Frame::Credits(credits) => credits_of(credits),
        Frame::Accepted(it) => about(it.task, Incoming::Accepted),
        Frame::Progress(it) => about(it.task, |key, lease| {
            let fraction = if it.fraction.is_nan() { 0.0 } else { it.fraction.clamp(0.0, 1.0) };
            Incoming::Progress { key, lease, fraction, message: cut(it.message) }
        }),
        Frame::Log(it) => about(it.task, |key, lease| {
            let level = cut_to(it.level, limits::NAME_BYTES_MAX);
            Incoming::Log { key, lease, level, message: cut(it.message) }
        }),
        Frame::OutputChunk(it) => about(it.task, |key, lease| {
            let chunk = it.chunk.unwrap_or_default();
            Incoming::Chunk { key, lease, chunk }
        }),
        Frame::Checkpoint(it) => about(it.task, |key, lease| {
            let state = it.state.unwrap_or_default();
            if prost::Message::encoded_len(&state) > limits::PAYLOAD_BYTES_MAX {
                return wrong("a checkpoint is larger than 4 MiB; it is not kept");
            }
            Incoming::Checkpoint { key, lease, state: Arc::new(state) }
        }),
        Frame::ExtendLease(it) => about(it.task, Incoming::Extend),
        Frame::Results(results) => {
            return results.results.into_iter().map(result_of).collect();
        }
        Frame::Release(it) => about(it.task, |key, lease| {
            let reason = cut(it.reason);
            Incoming::Release { key, lease, reason }
        }),
        Frame::Status(status) => return status_of(status),
        Frame::DrainRequested(it) => Incoming::DrainRequested { reason: cut(it.reason) },
        Frame::Pong(_) => Incoming::Pong,
        Frame::Emit(emit) => emitted(emit),
        Frame::Ping(ping) => Incoming::Ping { nonce: ping.nonce },
    };
    vec![one]
}

fn wrong(message: impl Into<String>) -> Incoming {
    Incoming::Wrong { message: message.into() }
}

/// A frame about a task; one whose lease is not a lease of ours concerns nothing of ours.
fn about(
    task: Option<v1::TaskRef>,
    then: impl FnOnce(TaskKey, LeaseToken) -> Incoming,
) -> Incoming {
    let task = task.unwrap_or_default();
    match (task.task_id.parse(), task.lease_token.parse()) {
        (Ok(key), Ok(lease)) => then(key, lease),
        (Ok(key), Err(_)) => Incoming::Foreign(key),
        (Err(error), _) => wrong(error),
    }
}

fn status_of(status: v1::Status) -> Vec<Incoming> {
    let mut tasks = Vec::with_capacity(status.tasks.len());
    let mut frames = Vec::new();
    for task in status.tasks {
        let frame = about(Some(task), |key, lease| {
            tasks.push((key, lease));
            Incoming::Pong
        });
        if frame != Incoming::Pong {
            frames.push(frame);
        }
    }
    frames.push(Incoming::Status(tasks));
    frames
}

fn credits_of(credits: v1::Credits) -> Incoming {
    let valid = |count: i32| u32::try_from(count).ok().filter(|it| *it <= limits::SLOTS_MAX);
    let total = valid(credits.total);
    let per_action: Option<Vec<(Arc<str>, u32)>> = credits
        .per_action
        .into_iter()
        .map(|(action, count)| Some((action.into(), valid(count)?)))
        .collect();
    match (total, per_action) {
        (Some(total), Some(per_action)) if per_action.len() <= limits::ACTIONS_MAX => {
            Incoming::Credits { total, per_action }
        }
        _ => wrong(format!("credits must be 0 to {}", limits::SLOTS_MAX)),
    }
}

fn result_of(result: v1::TaskResult) -> Incoming {
    let usage = result.usage.map(usage_of);
    about(result.task, |key, lease| {
        let (verdict, confidence) = verdict_of(result.outcome);
        Incoming::Result(Box::new(Settled { key, lease, verdict, confidence, usage }))
    })
}

fn verdict_of(outcome: Option<v1::task_result::Outcome>) -> (AgentVerdict, Option<f64>) {
    use v1::task_result::Outcome;
    let failed = |kind, code: &str, message: String, no_effect| {
        AgentVerdict::Failed(TaskError {
            kind,
            code: code.to_owned(),
            message: cut(message),
            retry_after_ms: None,
            no_effect,
        })
    };
    let verdict = match outcome {
        Some(Outcome::Success(success)) => {
            let confidence = success.confidence.filter(|it| (0.0..=1.0).contains(it));
            let verdict = match output_of(success.output) {
                Ok(output) => AgentVerdict::Succeeded(output),
                Err(why) => failed(FailureKind::Permanent, "invalid_output", why, false),
            };
            return (verdict, confidence);
        }
        Some(Outcome::Failure(failure)) => {
            let kind = match failure.kind() {
                v1::FailureKind::Permanent => FailureKind::Permanent,
                v1::FailureKind::Retryable | v1::FailureKind::Unspecified => FailureKind::Retryable,
            };
            let after = failure.retry_after.and_then(|after| Duration::try_from(after).ok());
            AgentVerdict::Failed(TaskError {
                kind,
                code: cut_to(failure.code, limits::NAME_BYTES_MAX),
                message: cut(failure.message),
                retry_after_ms: after.and_then(|after| u64::try_from(after.as_millis()).ok()),
                no_effect: failure.no_effect,
            })
        }
        Some(Outcome::Rejected(rejected)) => {
            let code = cut_to(rejected.code, limits::NAME_BYTES_MAX);
            let prefix = if code.is_empty() { code } else { format!("{code}: ") };
            let message = format!("{prefix}{}", rejected.message);
            failed(FailureKind::Permanent, "rejected", message, true)
        }
        Some(Outcome::NeedsPerson(needs)) => {
            failed(FailureKind::Permanent, "needs_person", needs.question, false)
        }
        Some(Outcome::Cancelled(_)) => AgentVerdict::Cancelled,
        None => {
            let message = "the agent's result has no outcome".to_owned();
            failed(FailureKind::Permanent, "invalid_output", message, false)
        }
    };
    (verdict, None)
}

fn output_of(payload: Option<v1::Payload>) -> Result<Json, String> {
    let text = match payload.and_then(|payload| payload.data) {
        None => return Ok("null".into()),
        Some(v1::payload::Data::Json(text)) => text,
        Some(v1::payload::Data::Bytes(_) | v1::payload::Data::Blob(_)) => {
            return Err("an output must be JSON text (`json`)".to_owned());
        }
    };
    if text.len() > limits::PAYLOAD_BYTES_MAX {
        let (found, max) = (text.len(), limits::PAYLOAD_BYTES_MAX);
        return Err(format!("the output has {found} bytes; at most {max} are allowed"));
    }
    match serde_json::from_str::<&RawValue>(&text) {
        Ok(_) => Ok(text.into()),
        Err(error) => Err(format!("the output is not JSON: {error}")),
    }
}

fn usage_of(usage: v1::Usage) -> Usage {
    Usage {
        input_tokens: usage.input_tokens.max(0),
        output_tokens: usage.output_tokens.max(0),
        cost: if usage.cost.is_finite() { usage.cost.max(0.0) } else { 0.0 },
    }
}

fn emitted(emit: v1::Emit) -> Incoming {
    let task = match emit.task {
        None => None,
        Some(task) => match (task.task_id.parse::<TaskKey>(), task.lease_token.parse()) {
            (Ok(key), Ok(lease)) => Some((key, lease)),
            (Ok(key), Err(_)) => return Incoming::Foreign(key),
            (Err(error), _) => return wrong(error),
        },
    };
    let run = if emit.run_id.is_empty() {
        task.map(|(task, _)| task.run).ok_or("an event needs a run or a task".to_owned())
    } else {
        emit.run_id.parse().map_err(|_| format!("`{}` is not the id of a run", cut(emit.run_id)))
    };
    if emit.name.is_empty() || emit.name.len() > limits::NAME_BYTES_MAX {
        let max = limits::NAME_BYTES_MAX;
        return wrong(format!("the name of an event must have 1 to {max} bytes"));
    }
    match (run, output_of(emit.payload)) {
        (Ok(run), Ok(payload)) => Incoming::Emit { name: emit.name, payload, run, task },
        (Err(error), _) | (_, Err(error)) => wrong(error),
    }
}

fn cut(text: String) -> String {
    cut_to(text, limits::TEXT_BYTES_MAX)
}

fn cut_to(mut text: String, max: usize) -> String {
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max));
    }
    text
}

/// An agent as clients see it.
pub(crate) fn agent_to_proto(agent: AgentView) -> v1::Agent {
    let breakers = agent.breakers.into_iter().map(|(action, stand, failures)| {
        let (state, retry_time) = match stand {
            Stand::Closed => (v1::BreakerState::Closed, None),
            Stand::Open(until) => (v1::BreakerState::Open, Some(timestamp(until))),
            Stand::HalfOpen => (v1::BreakerState::HalfOpen, None),
        };
        v1::Breaker {
            action: action.to_string(),
            state: state.into(),
            failures: i32::try_from(failures).unwrap_or(i32::MAX),
            retry_time,
        }
    });
    v1::Agent {
        agent_id: format!("{}/{}", agent.agent_type, agent.instance),
        agent_type: agent.agent_type.to_string(),
        instance: agent.instance.to_string(),
        version: agent.version,
        aliases: agent.aliases.iter().map(ToString::to_string).collect(),
        card: Some(v1::AgentCard::clone(&agent.card)),
        labels: agent.labels.into_iter().collect(),
        slots: i32::try_from(agent.slots).unwrap_or(i32::MAX),
        tasks_in_flight: i32::try_from(agent.tasks).unwrap_or(i32::MAX),
        health: agent.health.into(),
        connect_time: Some(timestamp(agent.connected_at)),
        last_seen_time: Some(timestamp(agent.last_heard)),
        breakers: breakers.collect(),
        succeeded: i64::try_from(agent.succeeded).unwrap_or(i64::MAX),
        failed: i64::try_from(agent.failed).unwrap_or(i64::MAX),
        polls: agent.polls,
        replica_id: agent.replica.map_or_else(String::new, |replica| replica.to_string()),
    }
}

/// The figures of actions as clients see them.
pub(crate) fn actions_to_proto(views: Vec<ActionView>) -> Vec<v1::ActionMetrics> {
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let present = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let convert = |view: ActionView| v1::ActionMetrics {
        agent_type: view.figures.agent_type.to_string(),
        action: view.figures.action.to_string(),
        executions: count(view.figures.executions),
        failures: count(view.figures.failures),
        latency_p50: view.figures.p50.map(duration),
        latency_p99: view.figures.p99.map(duration),
        queued: present(view.queued),
        running: present(view.running),
    };
    views.into_iter().map(convert).collect()
}

#[cfg(test)]
mod tests {
    use super::super::card::ActionSpec;
    use super::super::matcher::tests::world::order;
    use super::*;

    fn assign(number: u32, input_bytes: usize) -> Outgoing {
        let input = format!("\"{}\"", "x".repeat(input_bytes));
        let order = engine::task::TaskOrder { input: input.into(), ..order("w", number) };
        Outgoing::Assign(Box::new(Assignment {
            action: Arc::new(ActionSpec::undeclared(&order.action)),
            order: Arc::new(order),
            lease: LeaseToken { epoch: 1, attempt: 1, counter: u64::from(number) },
            checkpoint: None,
            at: Instant(1_700_000_000_000_000),
        }))
    }

    fn shapes(frames: Vec<Outgoing>) -> Vec<String> {
        let shape = |response: v1::ConnectResponse| match response.frame {
            Some(connect_response::Frame::Assign(it)) => format!("assign {}", it.tasks.len()),
            Some(connect_response::Frame::ResultsAck(it)) => format!("ack {}", it.acks.len()),
            Some(connect_response::Frame::Ping(_)) => "ping".to_owned(),
            other => format!("{other:?}"),
        };
        responses(frames, &Clocks::default()).into_iter().map(shape).collect()
    }

    #[test]
    fn neighbours_are_put_together_and_order_is_kept() {
        let ack = || Outgoing::Ack {
            key: order("w", 1).key,
            lease: LeaseToken { epoch: 1, attempt: 1, counter: 1 },
            duplicate: false,
        };
        let ping = Outgoing::Ping { nonce: 1 };
        let frames = vec![assign(1, 1), assign(2, 1), ping, assign(3, 1), ack(), ack()];
        assert_eq!(shapes(frames), ["assign 2", "ping", "assign 1", "ack 2"]);
    }

    #[test]
    fn acknowledgements_overtake_tasks_unless_they_are_about_one() {
        let ack = |number| Outgoing::Ack {
            key: order("w", number).key,
            lease: LeaseToken { epoch: 1, attempt: 1, counter: u64::from(number) },
            duplicate: false,
        };
        let frames = vec![ack(1), assign(11, 1), ack(2), assign(12, 1), ack(3), assign(13, 1)];
        assert_eq!(shapes(frames), ["ack 3", "assign 3"]);
        let frames = vec![ack(1), assign(2, 1), ack(2), assign(3, 1), ack(4)];
        assert_eq!(shapes(frames), ["ack 1", "assign 1", "ack 2", "assign 1"]);
        let ping = Outgoing::Ping { nonce: 1 };
        let frames = vec![ack(1), assign(11, 1), ping, ack(2)];
        assert_eq!(shapes(frames), ["ack 1", "assign 1", "ping", "ack 1"]);
    }

    #[test]
    fn a_task_has_a_trace_context_of_its_run_and_attempt() {
        let Outgoing::Assign(mut assignment) = assign(1, 1) else { panic!("an assignment") };
        let context = |assignment: &Assignment| task(assignment, &Clocks::default()).traceparent;
        let first = context(&assignment);
        let parts: Vec<&str> = first.split('-').collect();
        let [version, trace, span, flags] = parts[..] else { panic!("{first}") };
        assert_eq!((version, flags), ("00", "01"));
        assert_eq!(trace, assignment.order.key.run.to_string().replace('-', ""));
        assert!(span.len() == 16 && u64::from_str_radix(span, 16).unwrap() != 0, "{first}");
        Arc::make_mut(&mut assignment.order).attempt = 2;
        assert_ne!(context(&assignment), first, "another attempt is another span");
    }

    #[test]
    fn large_tasks_do_not_share_a_frame() {
        let large = limits::ASSIGN_BYTES - 2_000;
        let frames = vec![assign(1, large), assign(2, large), assign(3, 1), assign(4, 10)];
        assert_eq!(shapes(frames), ["assign 1", "assign 3"]);
    }

    #[test]
    fn a_task_has_the_nearer_of_both_deadlines() {
        let Outgoing::Assign(mut assignment) = assign(1, 1) else { panic!("an assignment") };
        let seconds = |assignment: &Assignment| {
            task(assignment, &Clocks::default()).deadline.map(|deadline| deadline.seconds)
        };
        assert_eq!(seconds(&assignment), None);
        let order = Arc::make_mut(&mut assignment.order);
        order.timeout = Some(Duration::from_secs(30));
        assert_eq!(seconds(&assignment), Some(1_700_000_030));
        let order = Arc::make_mut(&mut assignment.order);
        order.deadline = Some(Instant(1_700_000_010_500_000));
        assert_eq!(seconds(&assignment), Some(1_700_000_010));
    }

    #[test]
    fn long_texts_are_cut_at_the_end_of_a_character() {
        let text = cut("é".repeat(limits::TEXT_BYTES_MAX));
        assert_eq!(text.len(), limits::TEXT_BYTES_MAX);
        assert_eq!(cut_to("aé".to_owned(), 2), "a");
    }

    #[test]
    fn figures_of_usage_that_are_no_figures_are_nothing() {
        let usage = v1::Usage { input_tokens: -1, output_tokens: 2, cost: f64::NAN };
        let expected = Usage { input_tokens: 0, output_tokens: 2, cost: 0.0 };
        assert_eq!(usage_of(usage), expected);
    }
}
