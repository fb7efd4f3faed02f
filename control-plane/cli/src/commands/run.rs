//! `runs`.

use clap::{Args, Subcommand};
use contracts::v1::{
    CancelRunRequest, DecideStepRequest, ForkRunRequest, GetRunResponse, JournalEvent,
    ListRunJournalRequest, ListRunJournalResponse, ListRunsRequest, ListRunsResponse,
    PauseRunRequest, Payload, ResumeRunRequest, RetryRunRequest, Run, RunEnded, SignalRunRequest,
    WatchRunResponse, payload::Data, watch_run_response::Item,
};
use futures::StreamExt as _;
use serde_json::value::RawValue;

use super::workflow::{or_dash, versioned};
use super::{Session, count, execute, pages, start_many};
use crate::connection::{orchestrator, recovery};
use crate::error::Error;
use crate::exit::Exit;
use crate::follow::{Followed, OnInterrupt, follow};
use crate::output::one_line;
use crate::request_id::request_id;
use crate::table::{Table, details};
use crate::watch::{RECONNECT_TIME_MAX, Seen, watch};
use crate::{json, moment, result, status};

const BODY_CHARS_MAX: usize = 160;

/// What can be done with runs.
#[derive(Subcommand, Clone, Debug)]
pub enum RunCommand {
    /// List runs, the newest first
    #[command(after_help = "Examples:\n  orchestrator runs list --status running\n  \
        orchestrator runs list --workflow deploy --limit 5\n  \
        orchestrator runs list -o json | jq -r '.runs[].runId'")]
    List(List),
    /// Start one run of a registered workflow for each line of parameters
    #[command(after_help = "Exit status: 0 all runs succeeded, 1 not all did.\n\n\
        Examples:\n  orchestrator runs start-many resize --params-lines images.jsonl\n  \
        seq 100 | jq -c '{n: .}' | orchestrator runs start-many count --params-lines - --no-wait")]
    StartMany(start_many::StartMany),
    /// Show a run and its steps
    #[command(after_help = "Example:\n  orchestrator runs get RUN -o json | jq .run.outputs")]
    Get(Which),
    /// Follow a run to its end; with `-o json` one line an event
    #[command(after_help = "Exit status: 0 the run succeeded, 1 it did not.\n\n\
        Examples:\n  orchestrator runs watch RUN\n  \
        orchestrator runs watch RUN -o json | jq -c .event.kind")]
    Watch(Which),
    /// Ask a run to stop
    #[command(after_help = "Example:\n  orchestrator runs cancel RUN --reason 'wrong branch'")]
    Cancel(WithReason),
    /// Start nothing new in a run until it is resumed
    #[command(after_help = "Example:\n  orchestrator runs pause RUN --reason 'maintenance'")]
    Pause(WithReason),
    /// Let a paused run go on, or one that was rolled back, from there
    #[command(after_help = "Examples:\n  orchestrator runs resume RUN\n  \
        orchestrator runs resume RUN --params '{\"target\": \"staging\"}'")]
    Resume(Resume),
    /// Start a new run from a checkpoint of another one
    #[command(after_help = "Example:\n  orchestrator runs fork RUN --from before-deploy")]
    Fork(Fork),
    /// Send a named signal to a run, which keeps it until a step waits for it
    #[command(after_help = "Examples:\n  orchestrator runs signal RUN go\n  \
        orchestrator runs signal RUN order --payload '{\"id\": 7}'")]
    Signal(Signal),
    /// Approve a step that waits for a decision
    #[command(after_help = "Examples:\n  orchestrator runs approve RUN release --comment 'ok'\n  \
        orchestrator runs approve RUN release --amend '{\"share\": 10}'")]
    Approve(Approval),
    /// Reject a step that waits for a decision, which fails it
    #[command(after_help = "Example:\n  orchestrator runs reject RUN release --comment 'not yet'")]
    Reject(Decision),
    /// Take a failed run up again from the steps that failed
    #[command(
        after_help = "Example:\n  orchestrator runs retry RUN && orchestrator runs watch RUN"
    )]
    Retry(Which),
    /// Show everything that happened in a run
    #[command(after_help = "Examples:\n  orchestrator runs journal RUN\n  \
        orchestrator runs journal RUN -o json | jq '.events[].kind'")]
    Journal(Journal),
}

/// Lists runs.
#[derive(Args, Clone, Debug)]
pub struct List {
    /// Only those of this workflow
    #[arg(long, value_name = "NAME")]
    workflow: Option<String>,
    /// Only those that stand so
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(
        status::RUN_STATUSES.map(status::run_word)
    ))]
    status: Option<String>,
    /// How many at most
    #[arg(long, default_value_t = 20, value_name = "COUNT", value_parser = count)]
    limit: usize,
}

/// Names a run.
#[derive(Args, Clone, Debug)]
pub struct Which {
    /// The run's id
    run: String,
}

/// Lets a run go on.
#[derive(Args, Clone, Debug)]
pub struct Resume {
    /// The run's id
    run: String,
    /// Of a run that was rolled back: other params than before, all of them
    #[arg(long, value_name = "JSON")]
    params: Option<String>,
}

/// Forks a run.
#[derive(Args, Clone, Debug)]
pub struct Fork {
    /// The id of the run to fork
    run: String,
    /// The checkpoint's name, of which the last counts, or its sequence; without it, the start
    #[arg(long, value_name = "CHECKPOINT", default_value = "", hide_default_value = true)]
    from: String,
    /// Other params than those of the run, all of them
    #[arg(long, value_name = "JSON")]
    params: Option<String>,
}

/// Names a run and a reason.
#[derive(Args, Clone, Debug)]
pub struct WithReason {
    /// The run's id
    run: String,
    /// Why, for the journal
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

/// A signal.
#[derive(Args, Clone, Debug)]
pub struct Signal {
    /// The run's id
    run: String,
    /// The signal's name, as the `wait_for` step has it
    name: String,
    /// What it carries; becomes the step's output
    #[arg(long, value_name = "JSON")]
    payload: Option<String>,
}

/// A decision.
#[derive(Args, Clone, Debug)]
pub struct Decision {
    /// The run's id
    run: String,
    /// The path of the step that waits
    step: String,
    /// A comment for the journal and the step's output
    #[arg(long, default_value = "", hide_default_value = true)]
    comment: String,
}

/// Approves a step that waits.
#[derive(Args, Clone, Debug)]
pub struct Approval {
    #[command(flatten)]
    decision: Decision,
    /// What is changed: JSON that stands in the step's output as `amendment`
    #[arg(long, value_name = "JSON")]
    amend: Option<String>,
}

/// Shows the journal.
#[derive(Args, Clone, Debug)]
pub struct Journal {
    /// The run's id
    run: String,
    /// How many events at most, the oldest first
    #[arg(long, default_value_t = 100_000, value_name = "COUNT", value_parser = count)]
    limit: usize,
}

pub(super) async fn run(command: RunCommand, session: &mut Session) -> Result<Exit, Error> {
    match command {
        RunCommand::List(list) => self::list(list, session).await,
        RunCommand::StartMany(args) => Box::pin(start_many::start_many(args, session)).await,
        RunCommand::Get(which) => get(which, session).await,
        RunCommand::Watch(which) => Box::pin(watch_run(which, session)).await,
        RunCommand::Journal(journal) => self::journal(journal, session).await,
        RunCommand::Signal(signal) => self::signal(signal, session).await,
        RunCommand::Approve(approval) => {
            decide(approval.decision, Some(approval.amend), session).await
        }
        RunCommand::Reject(decision) => decide(decision, None, session).await,
        RunCommand::Cancel(with) => cancel(with, session).await,
        RunCommand::Pause(with) => pause(with, session).await,
        RunCommand::Resume(args) => resume(args, session).await,
        RunCommand::Fork(args) => fork(args, session).await,
        RunCommand::Retry(which) => retry(which, session).await,
    }
}

/// The filter of the list of runs.
pub(super) fn filter(workflow: Option<&str>, status: Option<&str>) -> String {
    let mut terms = Vec::new();
    terms.extend(workflow.map(|name| format!("workflow={name}")));
    terms.extend(status.map(|status| format!("status={status}")));
    terms.join(" AND ")
}

/// Runs that a filter lets through, the newest first.
pub(super) async fn runs(
    filter: &str,
    limit: usize,
    session: &Session,
) -> Result<(Vec<Run>, String), Error> {
    pages(limit, async |page_size, page_token| {
        let request = ListRunsRequest {
            page_size,
            page_token,
            filter: filter.to_owned(),
            order_by: String::new(),
        };
        let page = session
            .client
            .call(async |channel| orchestrator(channel).list_runs(request.clone()).await)
            .await?;
        Ok((page.runs, page.next_page_token))
    })
    .await
}

async fn list(list: List, session: &mut Session) -> Result<Exit, Error> {
    let filter = filter(list.workflow.as_deref(), list.status.as_deref());
    let (runs, next_page_token) = runs(&filter, list.limit, session).await?;
    if session.output.is_json() {
        let response = ListRunsResponse { runs, next_page_token };
        session.output.data(&json::message("ListRunsResponse", &response))?;
        return Ok(Exit::Success);
    }
    if runs.is_empty() {
        session.output.note(if filter.is_empty() {
            "there are no runs yet; start one with `orchestrator workflows execute FILE`"
        } else {
            "no run matches; `orchestrator runs list` shows all"
        });
        return Ok(Exit::Success);
    }
    let now = moment::now();
    let headings = ["RUN", "WORKFLOW", "STATUS", "STEPS", "STARTED", "TIME"];
    let mut table = Table::new(&headings, &session.output);
    for run in &runs {
        let steps = run.metrics.map_or_else(
            || "-".to_owned(),
            |metrics| format!("{}/{}", metrics.successful_steps, metrics.total_steps),
        );
        let time = moment::between(run.create_time.as_ref(), run.end_time.as_ref(), now);
        table.row([
            run.run_id.as_str(),
            &versioned(&run.workflow, &run.version),
            status::run_word(run.status()),
            &steps,
            &moment::relative(run.create_time.as_ref(), now),
            &time.map_or_else(|| "-".to_owned(), moment::duration),
        ]);
    }
    session.output.data(&table.text())?;
    super::more(&next_page_token, session);
    Ok(Exit::Success)
}

async fn get(which: Which, session: &mut Session) -> Result<Exit, Error> {
    let mut run = execute::get(&which.run, session).await?;
    let steps = result::steps(&session.client, &run.run_id).await?;
    if session.output.is_json() {
        run.result = Some(result::of(&run, steps));
        let response = GetRunResponse { run: Some(run) };
        session.output.data(&json::message("GetRunResponse", &response))?;
        return Ok(Exit::Success);
    }
    let mut text = details(&rows(&run));
    if !steps.is_empty() {
        text.push_str("\n\n");
        text.push_str(&result::step_table(&steps, &session.output));
    }
    session.output.data(&text)?;
    Ok(Exit::Success)
}

fn rows(run: &Run) -> Vec<(&'static str, String)> {
    let now = moment::now();
    let word = status::run_word(run.status());
    let mut labels: Vec<String> =
        run.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    labels.sort();
    let ended = match &run.end_time {
        Some(_) => moment::local(run.end_time.as_ref(), now),
        None => String::new(),
    };
    let error = match run.failed_step.as_str() {
        "" => run.error.clone(),
        step => format!("step `{step}`: {}", run.error),
    };
    vec![
        ("Run", run.run_id.clone()),
        ("Workflow", versioned(&run.workflow, &run.version)),
        ("Status", word.to_owned()),
        ("Error", error),
        ("Started", moment::local(run.create_time.as_ref(), now)),
        ("Ended", ended),
        ("By", run.actor.clone()),
        ("Parent", run.parent_run_id.clone()),
        ("Labels", labels.join(", ")),
        ("Priority", run.priority.to_string()),
        ("Params", json_text(run.params.as_ref())),
        ("Outputs", json_text(run.outputs.as_ref())),
    ]
}

/// A payload for people.
pub(super) fn json_text(payload: Option<&Payload>) -> String {
    match payload.and_then(|payload| payload.data.as_ref()) {
        Some(Data::Json(json)) => one_line(json, 2000),
        Some(Data::Bytes(bytes)) => format!("{} bytes", bytes.len()),
        Some(Data::Blob(blob)) => format!("{} bytes, sha256 {}", blob.size_bytes, blob.sha256),
        None => String::new(),
    }
}

async fn watch_run(which: Which, session: &mut Session) -> Result<Exit, Error> {
    if session.output.is_json() {
        return watch_as_lines(which, session).await;
    }
    let run = execute::get(&which.run, session).await?;
    if status::has_ended(run.status()) {
        return execute::finish(&run, session).await;
    }
    match follow(session, &run, OnInterrupt::Nothing).await? {
        Followed::Ended(run) => execute::finish(&run, session).await,
        Followed::Stuck | Followed::Left => execute::stuck(&run.run_id, session).await,
    }
}

async fn watch_as_lines(which: Which, session: &mut Session) -> Result<Exit, Error> {
    let mut seen = std::pin::pin!(watch(session.client.clone(), which.run, 0, RECONNECT_TIME_MAX));
    while let Some(next) = seen.next().await {
        let mut exit = None;
        let item = match next? {
            Seen::Event(event) => Item::Event(event),
            Seen::Update(update) => Item::Update(update),
            Seen::Ended(run) => {
                exit = Some(status::exit(run.status()));
                Item::Ended(RunEnded { run: Some(*run) })
            }
            Seen::Broken => continue,
        };
        let response = WatchRunResponse { item: Some(item) };
        session.output.data(&json::line("WatchRunResponse", &response))?;
        if let Some(exit) = exit {
            return Ok(exit);
        }
    }
    Ok(Exit::RunFailed)
}

async fn journal(journal: Journal, session: &mut Session) -> Result<Exit, Error> {
    let client = session.client.clone();
    let (events, next_page_token) = pages(journal.limit, async |page_size, page_token| {
        let request = ListRunJournalRequest { run_id: journal.run.clone(), page_size, page_token };
        let page = client
            .call(async |channel| orchestrator(channel).list_run_journal(request.clone()).await)
            .await?;
        Ok((page.events, page.next_page_token))
    })
    .await?;
    if session.output.is_json() {
        let response = ListRunJournalResponse { events, next_page_token };
        session.output.data(&json::message("ListRunJournalResponse", &response))?;
        return Ok(Exit::Success);
    }
    let mut table = Table::new(&["SEQ", "TIME", "EVENT", "STEP", "AGENT", "BODY"], &session.output);
    for event in &events {
        table.row([
            event.sequence.to_string().as_str(),
            &moment::clock(event.time.as_ref()),
            &event_word(event),
            or_dash(&event.step),
            or_dash(&event.agent),
            &one_line(&json_text(event.body.as_ref()), BODY_CHARS_MAX),
        ]);
    }
    session.output.data(&table.text())?;
    super::more(&next_page_token, session);
    Ok(Exit::Success)
}

fn event_word(event: &JournalEvent) -> String {
    let name = event.kind().as_str_name();
    name.trim_start_matches("EVENT_KIND_").to_ascii_lowercase()
}

async fn signal(signal: Signal, session: &mut Session) -> Result<Exit, Error> {
    let payload = json_payload(signal.payload, "--payload")?;
    let request = SignalRunRequest {
        run_id: signal.run,
        signal: signal.name.clone(),
        payload,
        request_id: request_id(None),
    };
    let response = session
        .client
        .call(async |channel| orchestrator(channel).signal_run(request.clone()).await)
        .await?;
    let document = json::message("SignalRunResponse", &response);
    changed(response.run, &document, &format!("has the signal `{}`", signal.name), session)
}

/// Approves, perhaps with an amendment, or rejects.
async fn decide(
    decision: Decision,
    approval: Option<Option<String>>,
    session: &mut Session,
) -> Result<Exit, Error> {
    let approve = approval.is_some();
    let amendment = json_payload(approval.flatten(), "--amend")?;
    let request = DecideStepRequest {
        run_id: decision.run,
        step: decision.step.clone(),
        approve,
        comment: decision.comment,
        request_id: request_id(None),
        amendment,
    };
    let response = session
        .client
        .call(async |channel| orchestrator(channel).decide_step(request.clone()).await)
        .await?;
    let document = json::message("DecideStepResponse", &response);
    let verb = if approve { "approved" } else { "rejected" };
    changed(response.run, &document, &format!("has `{}` {verb}", decision.step), session)
}

async fn cancel(with: WithReason, session: &mut Session) -> Result<Exit, Error> {
    let request =
        CancelRunRequest { run_id: with.run, reason: with.reason, request_id: request_id(None) };
    let response = session
        .client
        .call(async |channel| orchestrator(channel).cancel_run(request.clone()).await)
        .await?;
    let document = json::message("CancelRunResponse", &response);
    changed(response.run, &document, "is asked to stop", session)
}

async fn pause(with: WithReason, session: &mut Session) -> Result<Exit, Error> {
    let request =
        PauseRunRequest { run_id: with.run, reason: with.reason, request_id: request_id(None) };
    let response = session
        .client
        .call(async |channel| orchestrator(channel).pause_run(request.clone()).await)
        .await?;
    let document = json::message("PauseRunResponse", &response);
    changed(response.run, &document, "starts nothing new", session)
}

async fn resume(args: Resume, session: &mut Session) -> Result<Exit, Error> {
    let params = json_payload(args.params, "--params")?;
    let request = ResumeRunRequest { run_id: args.run, request_id: request_id(None), params };
    let response = session
        .client
        .call(async |channel| orchestrator(channel).resume_run(request.clone()).await)
        .await?;
    let document = json::message("ResumeRunResponse", &response);
    changed(response.run, &document, "goes on", session)
}

async fn fork(args: Fork, session: &mut Session) -> Result<Exit, Error> {
    let request = ForkRunRequest {
        run_id: args.run.clone(),
        checkpoint: args.from,
        params: json_payload(args.params, "--params")?,
        labels: std::collections::HashMap::new(),
        request_id: request_id(None),
    };
    let response = session
        .client
        .call(async |channel| recovery(channel).fork_run(request.clone()).await)
        .await?;
    let document = json::message("ForkRunResponse", &response);
    changed(response.run, &document, &format!("is forked from {}", args.run), session)
}

/// The payload that an argument gives as JSON text.
pub(super) fn json_payload(json: Option<String>, name: &str) -> Result<Option<Payload>, Error> {
    let Some(json) = json else { return Ok(None) };
    if let Err(error) = serde_json::from_str::<&RawValue>(&json) {
        return Err(Error::request(format!("`{name}` is not JSON: {error}"))
            .help(format!("text needs quotes: {name} '\"text\"'")));
    }
    Ok(Some(Payload { data: Some(Data::Json(json)), media_type: String::new() }))
}

async fn retry(which: Which, session: &mut Session) -> Result<Exit, Error> {
    let request = RetryRunRequest { run_id: which.run, request_id: request_id(None) };
    let response = session
        .client
        .call(async |channel| orchestrator(channel).retry_run(request.clone()).await)
        .await?;
    let document = json::message("RetryRunResponse", &response);
    changed(response.run, &document, "is taken up again", session)
}

/// Prints what a change has done to a run.
pub(super) fn changed(
    run: Option<Run>,
    document: &str,
    what: &str,
    session: &mut Session,
) -> Result<Exit, Error> {
    if session.output.is_json() {
        session.output.data(document)?;
        return Ok(Exit::Success);
    }
    let run = run.unwrap_or_default();
    let word = status::run_word(run.status());
    let word = status::painted(word, word, session.output.data_paint());
    session.output.data(&format!("run {} {what} (status: {word})", run.run_id))?;
    Ok(Exit::Success)
}
