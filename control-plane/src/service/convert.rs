//! Between the contracts and the engine: the one place where they meet. No decisions here.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use contracts::v1::{self, payload::Data};
use engine::definition::{Complaint, Severity};
use engine::graph::Graph;
use engine::task::Json;
use engine::{Instant, RunId, RunStatus, State, StepView};
use serde::Deserialize;
use store::{DeadLetterRow, JournalRow, RunRow, WorkflowRow};

use super::status::Refusal;
use crate::limits;

/// A point in time.
#[must_use]
pub fn timestamp(at: Instant) -> prost_types::Timestamp {
    let nanos = at.0.rem_euclid(1_000_000) * 1000;
    prost_types::Timestamp {
        seconds: at.0.div_euclid(1_000_000),
        nanos: i32::try_from(nanos).unwrap_or(0),
    }
}

/// A point in time, to the microsecond.
#[must_use]
pub fn instant(time: &prost_types::Timestamp) -> Instant {
    let micros = i64::from(time.nanos / 1000);
    Instant(time.seconds.saturating_mul(1_000_000).saturating_add(micros))
}

/// A span of time.
#[must_use]
pub fn duration(span: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(span.subsec_nanos()).unwrap_or(0),
    }
}

/// JSON text as a payload.
#[must_use]
pub fn payload(json: impl Into<String>) -> v1::Payload {
    v1::Payload { data: Some(Data::Json(json.into())), media_type: String::new() }
}

/// A payload as JSON text; `None` when there is none.
///
/// # Errors
/// When it is not JSON, or too large.
pub fn json(payload: Option<v1::Payload>, field: &str) -> Result<Option<String>, Refusal> {
    let text = match payload.and_then(|payload| payload.data) {
        None => return Ok(None),
        Some(Data::Json(text)) => text,
        Some(Data::Bytes(bytes)) => String::from_utf8(bytes)
            .map_err(|_| Refusal::field(field, "must be JSON text; these bytes are not UTF-8"))?,
        Some(Data::Blob(_)) => {
            return Err(Refusal::field(field, "must be JSON text, not a reference"));
        }
    };
    if text.len() > limits::PAYLOAD_BYTES_MAX {
        let (size, max) = (text.len(), limits::PAYLOAD_BYTES_MAX);
        let message = format!("{field} has {size} bytes; {max} are allowed");
        return Err(Refusal::limit(field, message));
    }
    if text.trim().is_empty() {
        return Ok(None);
    }
    Ok(Some(text))
}

/// The same, parsed.
///
/// # Errors
/// When it is not JSON, or too large.
pub fn value(
    payload: Option<v1::Payload>,
    field: &str,
) -> Result<Option<serde_json::Value>, Refusal> {
    let Some(text) = json(payload, field)? else { return Ok(None) };
    let value = serde_json::from_str(&text)
        .map_err(|error| Refusal::field(field, format!("is not JSON: {error}")))?;
    Ok(Some(value))
}

/// What an approval adds to the step's output: JSON text.
///
/// # Errors
/// When it is not JSON, or comes with a rejection.
pub fn amendment(payload: Option<v1::Payload>, approve: bool) -> Result<Option<String>, Refusal> {
    const FIELD: &str = "amendment";
    let Some(text) = json(payload, FIELD)? else { return Ok(None) };
    if !approve {
        return Err(Refusal::field(FIELD, "only what is approved is amended"));
    }
    serde_json::from_str::<serde_json::Value>(&text)
        .map_err(|error| Refusal::field(FIELD, format!("is not JSON: {error}")))?;
    Ok(Some(text))
}

/// A run's id.
///
/// # Errors
/// When the text is not one.
pub fn run_id(text: &str, field: &str) -> Result<RunId, Refusal> {
    if text.is_empty() {
        return Err(Refusal::field(field, "must be given"));
    }
    text.parse().map_err(|_| {
        let text = super::status::cut(text, 64);
        Refusal::field(field, format!("must be a run's id (a UUID), found `{text}`"))
    })
}

/// What the write path writes of a run for lists.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Summary {
    actor: Option<String>,
    error: Option<String>,
    failed_step: Option<String>,
    counts: Option<SummaryCounts>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SummaryCounts {
    total: u32,
    successful: u32,
    failed: u32,
    skipped: u32,
}

/// A run as its row has it: without params, outputs and result.
#[must_use]
pub fn run(row: &RunRow, stuck: Option<String>) -> v1::Run {
    let summary: Summary = serde_json::from_slice(&row.summary).unwrap_or_default();
    let labels: BTreeMap<String, String> = serde_json::from_slice(&row.labels).unwrap_or_default();
    let status = if stuck.is_some() { v1::RunStatus::Stuck.into() } else { i32::from(row.status) };
    v1::Run {
        run_id: row.run_id.to_string(),
        workflow: row.workflow.clone(),
        version: row.version_name.clone(),
        definition_hash: row.definition_hash.to_string(),
        status,
        params: None,
        outputs: None,
        error: stuck.or(summary.error).unwrap_or_default(),
        failed_step: summary.failed_step.unwrap_or_default(),
        create_time: Some(timestamp(Instant(row.created_at))),
        end_time: row.ended_at.map(|at| timestamp(Instant(at))),
        parent_run_id: row.parent.map(|parent| parent.to_string()).unwrap_or_default(),
        labels: labels.into_iter().collect(),
        priority: i32::from(row.priority),
        version_sequence: row.version,
        metrics: summary.counts.map(|counts| v1::RunMetrics {
            total_steps: count(counts.total),
            successful_steps: count(counts.successful),
            failed_steps: count(counts.failed),
            skipped_steps: count(counts.skipped),
        }),
        result: None,
        actor: summary.actor.unwrap_or_default(),
    }
}

/// The counts of a run.
#[must_use]
pub fn metrics(state: &State) -> v1::RunMetrics {
    counts(state.counts())
}

/// The counts over the steps of a run.
#[must_use]
pub fn counts(counts: engine::Counts) -> v1::RunMetrics {
    v1::RunMetrics {
        total_steps: count(counts.total),
        successful_steps: count(counts.successful),
        failed_steps: count(counts.failed),
        skipped_steps: count(counts.skipped),
    }
}

/// A number of things; as many as can be said of more.
#[must_use]
pub fn count(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// The result of a run, without its steps.
#[must_use]
pub fn result(state: &State) -> v1::WorkflowResult {
    let (start, end) = (state.started_at(), state.ended_at());
    v1::WorkflowResult {
        workflow_id: state.id().to_string(),
        status: state.status().word().to_owned(),
        start_time: Some(timestamp(start)),
        end_time: end.map(timestamp),
        duration: end.map(|end| duration(end.since(start))),
        steps: Vec::new(),
        metrics: Some(metrics(state)),
        outputs: state.outputs().map(|outputs| payload(&**outputs)),
        error: state.failure().1.unwrap_or_default().to_owned(),
    }
}

/// The status of a run.
#[must_use]
pub fn run_status(status: RunStatus) -> v1::RunStatus {
    use engine::EndedStatus;
    match status {
        RunStatus::Running => v1::RunStatus::Running,
        RunStatus::Waiting => v1::RunStatus::Waiting,
        RunStatus::Paused => v1::RunStatus::Paused,
        RunStatus::Stuck => v1::RunStatus::Stuck,
        RunStatus::Ended(EndedStatus::Success) => v1::RunStatus::Success,
        RunStatus::Ended(EndedStatus::Failure) => v1::RunStatus::Failure,
        RunStatus::Ended(EndedStatus::Cancelled) => v1::RunStatus::Cancelled,
        RunStatus::Ended(EndedStatus::RolledBack) => v1::RunStatus::RolledBack,
    }
}

/// One entry of a result.
#[must_use]
pub fn step(view: &StepView, waiting_reason: String) -> v1::StepResult {
    v1::StepResult {
        step_id: view.path.to_string(),
        agent: view.agent.to_string(),
        status: view.status.to_owned(),
        output: view.output.as_ref().map(|output| payload(&**output)),
        error: view.error.clone().unwrap_or_default(),
        attempts: count(view.attempts),
        action: view.action.to_string(),
        start_time: view.start.map(timestamp),
        end_time: view.end.map(timestamp),
        agent_instance: view.by.as_ref().map(|by| by.instance.to_string()).unwrap_or_default(),
        waiting_reason,
    }
}

/// What lists read of a journal event's body.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Peek<'a> {
    #[serde(borrow)]
    step: Option<Cow<'a, str>>,
    #[serde(borrow)]
    agent: Option<Cow<'a, str>>,
    by: Option<engine::task::AgentRef>,
    by_agent: Option<engine::task::AgentRef>,
}

/// A journal event as clients see it.
#[must_use]
pub fn journal_event(run: RunId, row: &JournalRow) -> v1::JournalEvent {
    let peek: Peek<'_> = serde_json::from_slice(&row.body).unwrap_or_default();
    let by = peek.by.or(peek.by_agent).map(|by| by.agent_type.to_string());
    let kind = v1::EventKind::try_from(i32::from(row.kind)).unwrap_or_default();
    v1::JournalEvent {
        run_id: run.to_string(),
        sequence: row.seq,
        time: Some(timestamp(Instant(row.at))),
        kind: kind.into(),
        step: peek.step.map(Cow::into_owned).unwrap_or_default(),
        agent: peek.agent.map(Cow::into_owned).or(by).unwrap_or_default(),
        body: Some(payload(String::from_utf8_lossy(&row.body))),
        step_status: step_status(kind).into(),
    }
}

/// The step's status behind an event of this kind.
fn step_status(kind: v1::EventKind) -> v1::StepStatus {
    use v1::{EventKind as Kind, StepStatus};
    match kind {
        Kind::StepQueued | Kind::AttemptFailed => StepStatus::Queued,
        Kind::TaskStarted
        | Kind::BlockOpened
        | Kind::IterationStarted
        | Kind::StepCancelRequested => StepStatus::Running,
        Kind::StepWaiting => StepStatus::Waiting,
        Kind::StepSucceeded => StepStatus::Success,
        Kind::StepFailed => StepStatus::Failure,
        Kind::StepSkipped => StepStatus::Skipped,
        Kind::StepCancelled => StepStatus::Cancelled,
        _ => StepStatus::Unspecified,
    }
}

/// A complaint.
#[must_use]
pub fn complaint(complaint: &Complaint) -> v1::Complaint {
    v1::Complaint {
        file: complaint.file.clone(),
        line: count(complaint.line),
        column: count(complaint.column),
        message: complaint.message.clone(),
        suggestion: complaint.suggestion.clone(),
        severity: match complaint.severity {
            Severity::Error => v1::Severity::Error,
            Severity::Warning => v1::Severity::Warning,
        }
        .into(),
    }
}

/// All complaints.
#[must_use]
pub fn complaints(complaints: &[Complaint]) -> Vec<v1::Complaint> {
    complaints.iter().map(complaint).collect()
}

/// What is kept of a registered workflow for lists.
#[must_use]
pub fn workflow_summary(graph: &Graph) -> Vec<u8> {
    let mut params = serde_json::Map::new();
    for param in &graph.params {
        let mut schema = param.schema.clone();
        if let Some(object) = schema.as_object_mut() {
            if let Some(default) = &param.default {
                object.insert("default".to_owned(), default.clone());
            }
            if param.required {
                object.insert("required".to_owned(), true.into());
            }
        }
        params.insert(param.name.to_string(), schema);
    }
    let schedule = graph.schedule.as_ref();
    let summary = serde_json::json!({
        "description": graph.description,
        "cron": schedule.map(|schedule| &schedule.cron),
        "timezone": schedule.map(|schedule| &schedule.timezone),
        "params": params,
    });
    summary.to_string().into_bytes()
}

/// What [`workflow_summary`] wrote.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct WorkflowSummary {
    description: Option<String>,
    /// The cron expression, where there is a schedule.
    pub cron: Option<String>,
    /// Its time zone.
    pub timezone: Option<String>,
    params: serde_json::Value,
}

/// A registered workflow, without its text.
#[must_use]
pub fn workflow(row: &WorkflowRow) -> (v1::Workflow, WorkflowSummary) {
    let summary: WorkflowSummary = serde_json::from_slice(&row.summary).unwrap_or_default();
    let workflow = v1::Workflow {
        name: row.name.clone(),
        version: row.version.clone(),
        description: summary.description.clone().unwrap_or_default(),
        hash: row.definition_hash.to_string(),
        definition: String::new(),
        schedule: summary.cron.clone().unwrap_or_default(),
        create_time: Some(timestamp(Instant(row.registered_at))),
        next_fire_time: None,
        params_schema: Some(payload(summary.params.to_string())),
    };
    (workflow, summary)
}

/// What the write path writes of a dead letter.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LetterBody<'a> {
    agent: String,
    action: String,
    attempts: u32,
    error: String,
    error_code: String,
    #[serde(borrow)]
    input: Option<&'a serde_json::value::RawValue>,
}

/// A dead letter, with its input where that is asked for.
#[must_use]
pub fn dead_letter(row: &DeadLetterRow, with_input: bool) -> v1::DeadLetter {
    let body: LetterBody<'_> = serde_json::from_slice(&row.body).unwrap_or_default();
    v1::DeadLetter {
        dead_letter_id: row.id.clone(),
        run_id: row.run_id.to_string(),
        workflow: row.workflow.clone(),
        step: row.step.clone(),
        agent: body.agent,
        action: body.action,
        attempts: count(body.attempts),
        error: body.error,
        error_code: body.error_code,
        create_time: Some(timestamp(Instant(row.at))),
        input: body.input.filter(|_| with_input).map(|input| payload(input.get())),
    }
}

/// News from a running task.
#[must_use]
pub fn task_update(update: crate::dispatch::TaskUpdate) -> v1::TaskUpdate {
    use crate::dispatch::UpdateKind;
    use v1::task_update::Update;
    let what = match update.what {
        UpdateKind::Accepted => Update::Accepted(v1::TaskAccepted {}),
        UpdateKind::Progress { fraction, message } => {
            Update::Progress(v1::TaskProgress { fraction, message })
        }
        UpdateKind::Log { level, message } => Update::Log(v1::TaskLog { level, message }),
        UpdateKind::Chunk(chunk) => Update::OutputChunk(v1::TaskOutputChunk { chunk: Some(chunk) }),
    };
    v1::TaskUpdate {
        step: update.path.to_string(),
        agent: update.agent.agent_type.to_string(),
        agent_instance: update.agent.instance.to_string(),
        attempt: count(update.attempt),
        time: Some(timestamp(update.at)),
        update: Some(what),
    }
}

/// Params as the journal keeps them.
#[must_use]
pub fn params(params: serde_json::Map<String, serde_json::Value>) -> Json {
    serde_json::Value::Object(params).to_string().into()
}

/// The path of a parameter, as `params.list[2].name`, of its JSON pointer.
#[must_use]
pub fn param_path(pointer: &str) -> String {
    let mut path = "params".to_owned();
    for part in pointer.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        if !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) {
            path.push_str(&format!("[{part}]"));
        } else {
            path.push_str(&format!(".{part}"));
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_has_a_name_for_every_kind_of_the_engine_and_for_no_other() {
        for (number, name) in engine::Event::KINDS {
            let kind = v1::EventKind::try_from(i32::from(*number)).unwrap();
            let expected = format!("EVENT_KIND_{}", name.to_uppercase());
            assert_eq!(kind.as_str_name(), expected);
        }
        let known = (1..100).filter(|number| v1::EventKind::try_from(*number).is_ok()).count();
        assert_eq!(known, engine::Event::KINDS.len());
    }

    #[test]
    fn a_journal_event_shows_step_agent_and_status() {
        let body = br#"{"n":3,"step":"loop[2].c","output":{"a":12345678901234567890123},
            "by":{"type":"echo","instance":"i-1"}}"#;
        let row = JournalRow { seq: 7, at: 1_500_000, kind: 6, schema: 1, body: body[..].into() };
        let run = RunId::at_instant(Instant(0), "x");
        let event = journal_event(run, &row);
        assert_eq!((event.step.as_str(), event.agent.as_str()), ("loop[2].c", "echo"));
        assert_eq!(event.kind(), v1::EventKind::StepSucceeded);
        assert_eq!(event.step_status(), v1::StepStatus::Success);
        let Some(Data::Json(text)) = event.body.unwrap().data else { unreachable!() };
        assert_eq!(text.as_bytes(), body, "digits and order stay");
        let time = event.time.unwrap();
        assert_eq!((time.seconds, time.nanos), (1, 500_000_000));
    }

    #[test]
    fn an_event_of_an_unknown_kind_is_shown_all_the_same() {
        let row =
            JournalRow { seq: 1, at: 0, kind: 900, schema: 1, body: br#"{"step":"a"}"#[..].into() };
        let event = journal_event(RunId::at_instant(Instant(0), "x"), &row);
        assert_eq!(event.kind(), v1::EventKind::Unspecified);
        assert_eq!(event.step, "a");
    }

    #[test]
    fn pointers_become_paths() {
        assert_eq!(param_path(""), "params");
        assert_eq!(param_path("/list/2/a~1b"), "params.list[2].a/b");
    }

    #[test]
    fn times_before_the_epoch_have_positive_nanos() {
        let time = timestamp(Instant(-1));
        assert_eq!((time.seconds, time.nanos), (-1, 999_999_000));
    }

    #[test]
    fn payloads_that_are_not_json_are_refused_with_their_field() {
        let bytes = v1::Payload { data: Some(Data::Bytes(vec![0xff])), ..Default::default() };
        assert!(json(Some(bytes), "params").is_err());
        assert!(value(Some(payload("{")), "params").is_err());
        assert_eq!(value(Some(payload("{\"a\":1}")), "params").unwrap().unwrap()["a"], 1);
        assert_eq!(json(None, "params").unwrap(), None);
        let large = payload("1".repeat(limits::PAYLOAD_BYTES_MAX + 1));
        let refusal = json(Some(large), "params").unwrap_err();
        assert_eq!(refusal.reason(), v1::Reason::LimitExceeded);
    }

    #[test]
    fn a_run_shows_what_its_row_says() {
        let row = RunRow {
            run_id: RunId::at_instant(Instant(0), "x"),
            tenant: "default".to_owned(),
            workflow: "w".to_owned(),
            version_name: "1.0".to_owned(),
            definition_hash: engine::ContentHash::of(b"x"),
            status: 5,
            version: 9,
            owner: None,
            created_at: 0,
            ended_at: Some(1_000_000),
            parent: None,
            priority: 5,
            labels: br#"{"a":"b"}"#.to_vec(),
            summary: br#"{"actor":"me","error":"boom","failed_step":"s",
                "counts":{"total":2,"successful":1,"failed":1,"skipped":0}}"#
                .to_vec(),
            wake_at: None,
        };
        let shown = run(&row, None);
        assert_eq!(shown.status(), v1::RunStatus::Failure);
        assert_eq!((shown.error.as_str(), shown.actor.as_str()), ("boom", "me"));
        assert_eq!(shown.metrics.unwrap().failed_steps, 1);
        assert_eq!(shown.labels["a"], "b");
        assert_eq!(run(&row, Some("why".into())).status(), v1::RunStatus::Stuck);
    }
}
