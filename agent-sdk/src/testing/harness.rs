//! Calls an agent's handlers as the runner would, without a control plane.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use contracts::v1::{self, payload::Data};
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::context::{Cancel, Context, Facts, News, Reporter, Usage};
use crate::outbox::TaskId;
use crate::{Agent, Failure, Undo, work};

/// Calls an agent's handlers in process, with everything that the runner does around them:
/// inherited fields, reading of the input, panics.
#[derive(Debug)]
pub struct Harness {
    agent: Agent,
    calls: AtomicU64,
    keys: Mutex<HashMap<String, String>>,
}

/// One call being put together.
#[derive(Debug)]
pub struct Call<'harness> {
    harness: &'harness Harness,
    input: Result<String, String>,
    inherited: Option<String>,
    cancelled: CancellationToken,
    facts: Facts,
    timeout: Option<Duration>,
}

/// What came of a call, and what was told meanwhile.
#[derive(Debug)]
pub struct Outcome {
    /// The output, or why there is none.
    pub result: Result<Value, Failure>,
    /// The output as the text that would be sent.
    pub output_text: Option<String>,
    /// Progress: fraction and message.
    pub progress: Vec<(f64, String)>,
    /// Log lines: level and message.
    pub logs: Vec<(String, String)>,
    /// Chunks of the output.
    pub chunks: Vec<Value>,
    /// The last state left for another attempt.
    pub checkpoint: Option<Value>,
    /// Events: name and payload.
    pub emitted: Vec<(String, Value)>,
    /// What it used.
    pub usage: Option<Usage>,
    /// How sure it is.
    pub confidence: Option<f64>,
}

impl Harness {
    /// A harness for this agent.
    ///
    /// # Panics
    /// When the agent was put together wrongly; see [`Agent::check`].
    pub fn new(agent: Agent) -> Self {
        if let Err(error) = agent.check() {
            panic!("{error}");
        }
        Self { agent, calls: AtomicU64::new(0), keys: Mutex::default() }
    }

    /// Calls an action with a fresh idempotency key.
    pub async fn call(&self, action: &str, params: impl Serialize) -> Result<Value, Failure> {
        self.task(action).params(params).run().await.result
    }

    /// Calls the action that undoes `action`, under the key of the last call of `action`.
    /// `output` is what that call gave; `Value::Null` means that it came to none.
    pub async fn call_undo(
        &self,
        action: &str,
        params: impl Serialize,
        output: impl Serialize,
    ) -> Result<Value, Failure> {
        self.undo_task(action, params, output).run().await.result
    }

    /// A call with settings of its own.
    pub fn task(&self, action: &str) -> Call<'_> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        let facts = Facts {
            task_id: format!("task-{number}").into(),
            action: action.to_owned(),
            run_id: "run-1".to_owned(),
            step: action.to_owned(),
            attempt: 1,
            idempotency_key: format!("key-{number}"),
            ..Facts::default()
        };
        Call {
            harness: self,
            input: Ok("{}".to_owned()),
            inherited: None,
            cancelled: CancellationToken::new(),
            facts,
            timeout: None,
        }
    }

    /// A call that undoes `action`, with settings of its own.
    pub fn undo_task(
        &self,
        action: &str,
        params: impl Serialize,
        output: impl Serialize,
    ) -> Call<'_> {
        let undo = match self.agent.find(action).map(|action| &action.undo) {
            Some(Undo::Action(name)) => name.clone(),
            _ => format!("(the undo of {action})"),
        };
        let mut call = self.task(&undo);
        if let Some(key) = self.keys.lock().unwrap_or_else(PoisonError::into_inner).get(action) {
            call.facts.idempotency_key.clone_from(key);
        }
        call.facts.is_undo = true;
        call.input = text(params).and_then(|params| {
            text(output).map(|output| format!(r#"{{"params":{params},"output":{output}}}"#))
        });
        call
    }
}

impl Call<'_> {
    /// The params.
    #[must_use]
    pub fn params(mut self, params: impl Serialize) -> Self {
        self.input = text(params);
        self
    }

    /// The params as JSON text, passed on as it is.
    #[must_use]
    pub fn params_text(mut self, params: impl Into<String>) -> Self {
        self.input = Ok(params.into());
        self
    }

    /// What the control plane offers for fields that the params leave out.
    #[must_use]
    pub fn inherited(mut self, fields: impl Serialize) -> Self {
        self.inherited = text(fields).ok();
        self
    }

    /// The idempotency key.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.facts.idempotency_key = key.into();
        self
    }

    /// The attempt, from 1.
    #[must_use]
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.facts.attempt = attempt;
        self
    }

    /// The run's id.
    #[must_use]
    pub fn run_id(mut self, run_id: impl Into<String>) -> Self {
        self.facts.run_id = run_id.into();
        self
    }

    /// The step's path.
    #[must_use]
    pub fn step(mut self, step: impl Into<String>) -> Self {
        self.facts.step = step.into();
        self
    }

    /// What an earlier attempt left.
    #[must_use]
    pub fn last_checkpoint(mut self, state: impl Serialize) -> Self {
        self.facts.last_checkpoint = text(state).ok();
        self
    }

    /// How long the attempt may take, as the handler sees it.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Cancels the task when this token is cancelled.
    #[must_use]
    pub fn cancelled_by(mut self, token: CancellationToken) -> Self {
        self.cancelled = token;
        self
    }

    /// Calls the handler.
    ///
    /// # Panics
    /// When the params cannot be written as JSON.
    pub async fn run(self) -> Outcome {
        let Self { harness, input, inherited, cancelled, mut facts, timeout } = self;
        let input = input.unwrap_or_else(|error| panic!("the params are no JSON: {error}"));
        facts.deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        harness
            .keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(facts.action.clone(), facts.idempotency_key.clone());
        let heard = Arc::new(Heard::default());
        let context = Context::new(facts, Cancel::by(cancelled), Arc::<Heard>::clone(&heard) as _);
        let done = work::perform(&harness.agent, context.clone(), input, inherited).await;
        let news = std::mem::take(&mut *heard.0.lock().unwrap_or_else(PoisonError::into_inner));
        let figures = context.figures();
        let result = match &done {
            Ok(text) => serde_json::from_str(text)
                .map_err(|error| Failure::permanent(format!("the output is no JSON: {error}"))),
            Err(failure) => Err(failure.clone()),
        };
        let mut outcome = Outcome {
            result,
            output_text: done.ok(),
            progress: Vec::new(),
            logs: Vec::new(),
            chunks: Vec::new(),
            checkpoint: None,
            emitted: Vec::new(),
            usage: figures.usage,
            confidence: figures.confidence,
        };
        for one in news {
            outcome.hear(one);
        }
        outcome
    }
}

impl Outcome {
    fn hear(&mut self, news: News) {
        match news {
            News::Progress { fraction, message } => self.progress.push((fraction, message)),
            News::Log { level, message } => self.logs.push((level.name().to_owned(), message)),
            News::Chunk(payload) => self.chunks.push(value(payload)),
            News::Checkpoint(payload) => self.checkpoint = Some(value(payload)),
            News::ExtendLease => {}
            News::Emit { name, payload, .. } => self.emitted.push((name, value(payload))),
        }
    }
}

#[derive(Default)]
struct Heard(Mutex<Vec<News>>);

impl Reporter for Heard {
    fn tell(&self, _task_id: &TaskId, news: News) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(news);
    }

    fn channel(&self) -> Option<Channel> {
        None
    }
}

fn text(value: impl Serialize) -> Result<String, String> {
    serde_json::to_string(&value).map_err(|error| error.to_string())
}

fn value(payload: v1::Payload) -> Value {
    match payload.data {
        Some(Data::Json(text)) => serde_json::from_str(&text).unwrap_or(Value::Null),
        _ => Value::Null,
    }
}
