//! What a handler is given besides its input: what it may know of its task, and how it tells
//! the control plane something while it works. Nothing here waits on the network, except
//! `start_run`.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use contracts::v1;
use contracts::v1::orchestrator_service_client::OrchestratorServiceClient;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::effect_log::EffectLog;
use crate::outbox::TaskId;
use crate::{Failure, payload};

/// How long a request id may be.
const REQUEST_ID_MAX: usize = 128;
/// How many characters a hash takes in front of a shortened request id.
const HASH_CHARS: usize = 17;

/// A task as its handler sees it. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    inner: Arc<Inner>,
}

/// How important a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// For who looks for a fault.
    Debug,
    /// What happens as a rule.
    Info,
    /// Something that may become a fault.
    Warn,
    /// A fault.
    Error,
}

impl Level {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// What a task used or may use.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Tokens read by models.
    pub input_tokens: i64,
    /// Tokens written by models.
    pub output_tokens: i64,
    /// Cost, in the operator's currency.
    pub cost: f64,
}

/// What a handler tells while it works.
#[derive(Clone, Debug)]
pub(crate) enum News {
    Progress { fraction: f64, message: String },
    Log { level: Level, message: String },
    Chunk(v1::Payload),
    Checkpoint(v1::Payload),
    ExtendLease,
    Emit { name: String, payload: v1::Payload, run_id: String },
}

/// Where a handler's news go.
pub(crate) trait Reporter: Send + Sync {
    fn tell(&self, task_id: &TaskId, news: News);
    /// A channel to the control plane, when there is one just now.
    fn channel(&self) -> Option<Channel>;
}

/// What came besides the output.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) usage: Option<Usage>,
    pub(crate) confidence: Option<f64>,
}

/// Tells a task to stop. Most are never told, nor ask: the token is made when it is needed. Cheap
/// to clone; all clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Cancel(Arc<OnceLock<CancellationToken>>);

impl Cancel {
    /// Fires with this token.
    pub(crate) fn by(token: CancellationToken) -> Self {
        Self(Arc::new(OnceLock::from(token)))
    }

    pub(crate) fn cancel(&self) {
        self.token().cancel();
    }

    fn token(&self) -> &CancellationToken {
        self.0.get_or_init(CancellationToken::new)
    }

    fn is_cancelled(&self) -> bool {
        self.0.get().is_some_and(CancellationToken::is_cancelled)
    }
}

struct Inner {
    facts: Facts,
    cancel: Cancel,
    reporter: Arc<dyn Reporter>,
    figures: Mutex<Figures>,
    runs_started: AtomicU32,
}

/// What the control plane says of a task.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) task_id: TaskId,
    pub(crate) action: String,
    pub(crate) run_id: String,
    pub(crate) step: String,
    pub(crate) attempt: u32,
    pub(crate) idempotency_key: String,
    pub(crate) deadline: Option<Instant>,
    pub(crate) traceparent: String,
    pub(crate) budget: Option<Usage>,
    pub(crate) last_checkpoint: Option<String>,
    pub(crate) is_undo: bool,
}

impl Facts {
    /// Takes over what a task says, but for its input.
    pub(crate) fn of(id: TaskId, task: &mut v1::Task, now: Instant) -> Result<Self, Failure> {
        let checkpoint = payload::text(task.last_checkpoint.take(), "the last checkpoint")?;
        let timeout = payload::from_duration(task.timeout);
        let until_deadline = task.deadline.and_then(|deadline| {
            let deadline = SystemTime::try_from(deadline).ok()?;
            #[expect(clippy::disallowed_methods, reason = "the deadline is wall-clock time")]
            let now = SystemTime::now();
            Some(deadline.duration_since(now).unwrap_or_default())
        });
        Ok(Self {
            task_id: id,
            action: std::mem::take(&mut task.action),
            run_id: std::mem::take(&mut task.run_id),
            step: std::mem::take(&mut task.step),
            attempt: u32::try_from(task.attempt).unwrap_or(1).max(1),
            idempotency_key: std::mem::take(&mut task.idempotency_key),
            // The time-out needs no comparison of two clocks, so it goes first.
            deadline: timeout.or(until_deadline).and_then(|left| now.checked_add(left)),
            traceparent: std::mem::take(&mut task.traceparent),
            budget: task.budget.map(Usage::from),
            last_checkpoint: checkpoint,
            is_undo: task.is_undo,
        })
    }
}

impl From<v1::Usage> for Usage {
    fn from(usage: v1::Usage) -> Self {
        Self {
            input_tokens: usage.input_tokens,
            output_tokens: usage.output_tokens,
            cost: usage.cost,
        }
    }
}

impl Context {
    pub(crate) fn new(facts: Facts, cancel: Cancel, reporter: Arc<dyn Reporter>) -> Self {
        let inner = Inner {
            facts,
            cancel,
            reporter,
            figures: Mutex::default(),
            runs_started: AtomicU32::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Fires when the task is to stop. Await `cancelled().cancelled()`, or ask
    /// [`Context::is_cancelled`]. A handler that does not listen is aborted after the grace.
    pub fn cancelled(&self) -> &CancellationToken {
        self.inner.cancel.token()
    }

    /// Whether the task is to stop.
    pub fn is_cancelled(&self) -> bool {
        self.inner.cancel.is_cancelled()
    }

    /// Tells how far the task is, from 0 to 1, and what it does just now.
    pub fn progress(&self, fraction: f64, message: impl Into<String>) {
        let fraction = if fraction.is_finite() { fraction.clamp(0.0, 1.0) } else { 0.0 };
        self.tell(News::Progress { fraction, message: message.into() });
    }

    /// Adds a line to the task's log.
    pub fn log(&self, level: Level, message: impl Into<String>) {
        self.tell(News::Log { level, message: message.into() });
    }

    /// Shows watchers a part of the output as it grows. It is not kept: the output itself is
    /// what the handler returns.
    pub fn output_chunk(&self, chunk: &impl Serialize) -> Result<(), Failure> {
        self.tell(News::Chunk(to_payload(chunk, "the chunk")?));
        Ok(())
    }

    /// Leaves state for the next attempt, should this one fail.
    pub fn checkpoint(&self, state: &impl Serialize) -> Result<(), Failure> {
        self.tell(News::Checkpoint(to_payload(state, "the checkpoint")?));
        Ok(())
    }

    /// What an earlier attempt left by [`Context::checkpoint`].
    pub fn last_checkpoint<State: DeserializeOwned>(&self) -> Result<Option<State>, Failure> {
        let Some(text) = &self.inner.facts.last_checkpoint else { return Ok(None) };
        serde_json::from_str(text).map(Some).map_err(|error| {
            Failure::permanent(format!(
                "the checkpoint of an earlier attempt does not fit: {error}"
            ))
        })
    }

    /// Asks for a longer lease. Leases of running tasks are extended each second anyway.
    pub fn extend_lease(&self) {
        self.tell(News::ExtendLease);
    }

    /// The same for all attempts of a step (and iteration), and for its undo. Write it beside
    /// every effect, so that none happens twice.
    pub fn idempotency_key(&self) -> &str {
        &self.inner.facts.idempotency_key
    }

    /// When the attempt is out of time.
    pub fn deadline(&self) -> Option<std::time::Instant> {
        self.inner.facts.deadline.map(Instant::into_std)
    }

    /// How much time is left; `None` means there is no bound.
    pub fn time_left(&self) -> Option<Duration> {
        self.inner.facts.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// The attempt, from 1.
    pub fn attempt(&self) -> u32 {
        self.inner.facts.attempt
    }

    /// The task's id.
    pub fn task_id(&self) -> &str {
        &self.inner.facts.task_id
    }

    /// The action that is asked for.
    pub fn action(&self) -> &str {
        &self.inner.facts.action
    }

    /// The run that the task belongs to.
    pub fn run_id(&self) -> &str {
        &self.inner.facts.run_id
    }

    /// The path of the step, as `build[3].deploy`.
    pub fn step(&self) -> &str {
        &self.inner.facts.step
    }

    /// The W3C `traceparent`; empty when there is none.
    pub fn traceparent(&self) -> &str {
        &self.inner.facts.traceparent
    }

    /// Whether the task undoes the one of its idempotency key.
    pub fn is_undo(&self) -> bool {
        self.inner.facts.is_undo
    }

    /// What the task may use; `None` means there is no bound.
    pub fn budget(&self) -> Option<Usage> {
        self.inner.facts.budget
    }

    /// Adds to what the task has used.
    pub fn usage(&self, used: Usage) {
        let mut figures = self.inner.figures.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = figures.usage.get_or_insert_default();
        sum.input_tokens = sum.input_tokens.saturating_add(used.input_tokens);
        sum.output_tokens = sum.output_tokens.saturating_add(used.output_tokens);
        sum.cost += used.cost;
    }

    /// Says how sure the agent is of its output, from 0 to 1.
    pub fn confidence(&self, confidence: f64) {
        let mut figures = self.inner.figures.lock().unwrap_or_else(PoisonError::into_inner);
        figures.confidence = Some(confidence.clamp(0.0, 1.0));
    }

    /// Sends an event: to the run given, else to the task's own, where a step may wait for it
    /// as a signal.
    pub fn emit(
        &self,
        name: impl Into<String>,
        payload: &impl Serialize,
        run_id: Option<&str>,
    ) -> Result<(), Failure> {
        let payload = to_payload(payload, "the event's payload")?;
        let run_id = run_id.unwrap_or_default().to_owned();
        self.tell(News::Emit { name: name.into(), payload, run_id });
        Ok(())
    }

    /// Starts a run of a registered workflow (`name` or `name@version`) and gives its id. The
    /// n-th call in a task starts the same run in every attempt, so a retry starts none twice.
    pub async fn start_run(
        &self,
        workflow: impl Into<String>,
        params: &impl Serialize,
    ) -> Result<String, Failure> {
        let number = self.inner.runs_started.fetch_add(1, Ordering::Relaxed);
        let channel = self.inner.reporter.channel().ok_or_else(|| {
            Failure::retryable("no run can be started: the control plane is out of reach")
        })?;
        let request = v1::StartRunRequest {
            source: Some(v1::start_run_request::Source::Workflow(workflow.into())),
            params: Some(to_payload(params, "the run's params")?),
            request_id: run_request_id(self.idempotency_key(), number),
            ..v1::StartRunRequest::default()
        };
        let answer = OrchestratorServiceClient::new(channel).start_run(request).await;
        let run = answer.map_err(|status| start_failure(&status))?.into_inner().run;
        run.map(|run| run.run_id)
            .ok_or_else(|| Failure::retryable("the control plane did not say which run it started"))
    }

    /// A failure that puts a question to a person: `return Err(context.ask_person("…"))`.
    pub fn ask_person(&self, question: impl Into<String>) -> Failure {
        Failure::needs_person(question)
    }

    /// Runs work that computes or blocks on a thread of its own, so that it holds up no other
    /// task. A panic in it is the handler's panic.
    pub async fn blocking<Output: Send + 'static>(
        &self,
        work: impl FnOnce() -> Output + Send + 'static,
    ) -> Result<Output, Failure> {
        match tokio::task::spawn_blocking(work).await {
            Ok(output) => Ok(output),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(Failure::retryable("the agent is stopping")),
        }
    }

    /// Has an effect once for this task's idempotency key: see [`EffectLog::once`].
    pub async fn once<Output, Work>(
        &self,
        log: &EffectLog,
        effect: impl FnOnce(bool) -> Work + Send,
    ) -> Result<Output, Failure>
    where
        Output: Serialize + DeserializeOwned + Send + 'static,
        Work: Future<Output = Result<Output, Failure>> + Send,
    {
        log.once(self.idempotency_key(), effect).await
    }

    pub(crate) fn id(&self) -> &TaskId {
        &self.inner.facts.task_id
    }

    pub(crate) fn figures(&self) -> Figures {
        *self.inner.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, news: News) {
        self.inner.reporter.tell(&self.inner.facts.task_id, news);
    }
}

/// The request id of the n-th run that a task starts. It has at most 128 characters; of a longer
/// key a hash stands in front of its end, which is what tells two keys of one run apart.
fn run_request_id(key: &str, number: u32) -> String {
    let id = format!("{key}/run-{number}");
    if id.len() <= REQUEST_ID_MAX {
        return id;
    }
    // FNV-1a: every version of the agent must come to the same id.
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let from = (id.len() + HASH_CHARS - REQUEST_ID_MAX..).find(|at| id.is_char_boundary(*at));
    format!("{hash:016x}-{}", &id[from.unwrap_or(id.len())..])
}

fn start_failure(status: &tonic::Status) -> Failure {
    let message = format!("the run was not started: {}", status.message());
    match status.code() {
        tonic::Code::InvalidArgument
        | tonic::Code::NotFound
        | tonic::Code::PermissionDenied
        | tonic::Code::AlreadyExists => Failure::permanent(message),
        _ => Failure::retryable(message),
    }
}

fn to_payload(value: &impl Serialize, what: &str) -> Result<v1::Payload, Failure> {
    serde_json::to_string(value)
        .map(payload::json)
        .map_err(|error| Failure::permanent(format!("{what} cannot be written as JSON: {error}")))
}

impl fmt::Debug for Context {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Context").field("facts", &self.inner.facts).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_id_of_a_run_fits_and_differs_between_keys() {
        assert_eq!(run_request_id("run/step", 2), "run/step/run-2");
        for length in 100..200 {
            let key = format!("{}ä{}", "x".repeat(length), "y".repeat(60));
            let other = format!("{}ä{}", "z".repeat(length), "y".repeat(60));
            let id = run_request_id(&key, 0);
            assert!(id.len() <= REQUEST_ID_MAX, "{} characters", id.len());
            assert_eq!(id, run_request_id(&key, 0));
            assert_ne!(id, run_request_id(&other, 0));
            assert_ne!(id, run_request_id(&key, 1));
        }
    }
}
