//! `triage` and `triages`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use contracts::v1::{
    ConfirmOutcomesRequest, GetTriageModelRequest, GetTriageRequest, ListTriagesRequest,
    ListTriagesResponse, Outcome, Triage, TriageIssuesRequest,
};

use super::{Session, count, pages};
use crate::connection::triage as client_of;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::one_line;
use crate::request_id::request_id;
use crate::table::{Table, details};
use crate::{issues, json, moment};

const REASON_CHARS_MAX: usize = 80;
/// Outcomes sent at once.
const OUTCOMES_AT_ONCE: usize = 500;

/// Triages issues.
#[derive(Args, Clone, Debug)]
pub struct TriageFile {
    /// The issues, as YAML or JSON; `-` reads them from standard input
    file: PathBuf,
    /// Only say who would take what; keep nothing
    #[arg(long)]
    dry_run: bool,
    /// Makes the request repeatable
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

/// What can be done with triages.
#[derive(Subcommand, Clone, Debug)]
pub enum TriageCommand {
    /// List triages, the newest first
    #[command(after_help = "Example:\n  orchestrator triages list")]
    List(List),
    /// Show one: who takes which issue and why
    #[command(after_help = "Example:\n  orchestrator triages show TRIAGE")]
    Show(Which),
    /// Say which agent was right, which is learned from
    #[command(after_help = "Examples:\n  orchestrator triages confirm TRIAGE ISSUE\n  \
        orchestrator triages confirm TRIAGE ISSUE --agent database-agent\n  \
        orchestrator triages confirm --file outcomes.yml")]
    Confirm(Confirm),
    /// Show what was learned from confirmed outcomes
    #[command(after_help = "Examples:\n  orchestrator triages model\n  \
        orchestrator triages model --wait    # learns first from all that is confirmed")]
    Model(Model),
}

/// Shows the model.
#[derive(Args, Clone, Debug)]
pub struct Model {
    /// Learn first from everything that is confirmed
    #[arg(long)]
    wait: bool,
}

/// Lists them.
#[derive(Args, Clone, Debug)]
pub struct List {
    /// How many at most
    #[arg(long, default_value_t = 50, value_name = "COUNT", value_parser = count)]
    limit: usize,
}

/// Names one.
#[derive(Args, Clone, Debug)]
pub struct Which {
    /// The triage's id
    triage: String,
}

/// Confirms outcomes.
#[derive(Args, Clone, Debug)]
pub struct Confirm {
    /// The triage's id
    #[arg(required_unless_present = "file", requires = "issue")]
    triage: Option<String>,
    /// The issue's id
    issue: Option<String>,
    /// The agent type that was right; without it, the one that the triage chose
    #[arg(long, value_name = "TYPE", conflicts_with = "file")]
    agent: Option<String>,
    /// The agent did not mend it
    #[arg(long, conflicts_with = "file")]
    not_mended: bool,
    /// Many outcomes, as YAML or JSON; `-` reads them from standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["triage", "issue"])]
    file: Option<PathBuf>,
}

pub(super) async fn triage(command: TriageFile, session: &mut Session) -> Result<Exit, Error> {
    let handed = issues::read(&command.file)?;
    let request = TriageIssuesRequest {
        issues: handed.issues,
        system: handed.system,
        constraints: handed.constraints,
        validate_only: command.dry_run,
        request_id: request_id(command.request_id.as_deref()),
    };
    let client = session.client.clone();
    let response = client
        .call(async |channel| client_of(channel).triage_issues(request.clone()).await)
        .await?;
    if session.output.is_json() {
        session.output.data(&json::message("TriageIssuesResponse", &response))?;
        return Ok(Exit::Success);
    }
    show_one(&response.triage.unwrap_or_default(), session)
}

pub(super) async fn run(command: TriageCommand, session: &mut Session) -> Result<Exit, Error> {
    match command {
        TriageCommand::List(list) => self::list(list, session).await,
        TriageCommand::Show(which) => show(which, session).await,
        TriageCommand::Confirm(confirm) => self::confirm(confirm, session).await,
        TriageCommand::Model(model) => self::model(model, session).await,
    }
}

async fn list(list: List, session: &mut Session) -> Result<Exit, Error> {
    let client = session.client.clone();
    let (triages, next_page_token) = pages(list.limit, async |page_size, page_token| {
        let request = ListTriagesRequest { page_size, page_token };
        let page = client
            .call(async |channel| client_of(channel).list_triages(request.clone()).await)
            .await?;
        Ok((page.triages, page.next_page_token))
    })
    .await?;
    if session.output.is_json() {
        let response = ListTriagesResponse { triages, next_page_token };
        session.output.data(&json::message("ListTriagesResponse", &response))?;
        return Ok(Exit::Success);
    }
    if triages.is_empty() {
        session.output.note("there are no triages; make one with `orchestrator triage FILE`");
        return Ok(Exit::Success);
    }
    let now = moment::now();
    let headings = ["TRIAGE", "WHEN", "BY", "ISSUES", "ASSIGNED", "ESCALATED", "MODEL"];
    let mut table = Table::new(&headings, &session.output);
    for triage in &triages {
        let counts = triage.counts.unwrap_or_default();
        table.row([
            triage.triage_id.as_str(),
            &moment::relative(triage.create_time.as_ref(), now),
            &triage.creator,
            &counts.issues.to_string(),
            &counts.assigned.to_string(),
            &counts.escalated.to_string(),
            &triage.model_version.to_string(),
        ]);
    }
    session.output.data(&table.text())?;
    super::more(&next_page_token, session);
    Ok(Exit::Success)
}

async fn show(which: Which, session: &mut Session) -> Result<Exit, Error> {
    let request = GetTriageRequest { triage_id: which.triage };
    let client = session.client.clone();
    let response =
        client.call(async |channel| client_of(channel).get_triage(request.clone()).await).await?;
    if session.output.is_json() {
        session.output.data(&json::message("GetTriageResponse", &response))?;
        return Ok(Exit::Success);
    }
    show_one(&response.triage.unwrap_or_default(), session)
}

fn show_one(triage: &Triage, session: &mut Session) -> Result<Exit, Error> {
    let counts = triage.counts.unwrap_or_default();
    let takes = moment::span(triage.estimated_duration.as_ref()).map(moment::duration);
    let is_kept = !triage.triage_id.is_empty();
    let id = if is_kept { triage.triage_id.clone() } else { "not kept".to_owned() };
    let mut text = details(&[
        ("Triage", id),
        ("Issues", counts.issues.to_string()),
        ("Estimated", takes.unwrap_or_default()),
        ("Model", triage.model_version.to_string()),
    ]);
    let headings = ["STAGE", "ISSUE", "AGENT", "ACTION", "SCORE", "SURE", "REASON"];
    let mut table = Table::new(&headings, &session.output);
    let stage_of = |id: &String| {
        let found = triage.execution_order.iter().position(|stage| stage.issue_ids.contains(id));
        found.map_or_else(String::new, |stage| (stage + 1).to_string())
    };
    for assignment in &triage.assignments {
        table.row([
            stage_of(&assignment.issue_id),
            assignment.issue_id.clone(),
            assignment.agent_type.clone(),
            assignment.action.clone(),
            format!("{:.1}", assignment.score.unwrap_or_default().total),
            format!("{:.2}", assignment.confidence),
            one_line(&assignment.reason, REASON_CHARS_MAX),
        ]);
    }
    for escalated in &triage.escalated {
        table.row([
            String::new(),
            escalated.issue_id.clone(),
            "a person".to_owned(),
            String::new(),
            String::new(),
            format!("{:.2}", escalated.confidence),
            one_line(&escalated.reason, REASON_CHARS_MAX),
        ]);
    }
    text.push('\n');
    text.push_str(&table.text());
    session.output.data(&text)?;
    for handled in &triage.handled {
        let what = if handled.mended { "is mended by hand" } else { "is left as it is" };
        let (id, by) = (&handled.issue_id, &handled.by);
        session.output.note(&format!("{id} {what}, as {by} said: {}", handled.comment));
    }
    if let Some(first) = triage.escalated.iter().find(|it| !it.escalation_id.is_empty()) {
        session.output.note(&format!(
            "{} wait for a person; decide with `orchestrator escalations decide {} …`",
            triage.escalated.len(),
            first.escalation_id
        ));
    }
    for duplicate in &triage.duplicates {
        let (id, first) = (&duplicate.issue_id, &duplicate.first_issue_id);
        session.output.note(&format!("{id} is the same as {first}"));
    }
    Ok(Exit::Success)
}

async fn model(model: Model, session: &mut Session) -> Result<Exit, Error> {
    let request = GetTriageModelRequest { wait: model.wait };
    let client = session.client.clone();
    let response =
        client.call(async |channel| client_of(channel).get_triage_model(request).await).await?;
    if session.output.is_json() {
        session.output.data(&json::message("GetTriageModelResponse", &response))?;
        return Ok(Exit::Success);
    }
    let model = response.model.unwrap_or_default();
    let version = match model.version {
        0 => "none: what agents declare places issues".to_owned(),
        version => version.to_string(),
    };
    let learned = match &model.learn_time {
        None => "nothing".to_owned(),
        Some(_) => {
            let when = moment::relative(model.learn_time.as_ref(), moment::now());
            format!("from {}, {when}", outcomes_of(model.outcomes))
        }
    };
    let is_current = match model.current {
        true => "yes",
        false => "no: something waits to be learned from; `--wait` waits for it",
    };
    session.output.data(&details(&[
        ("Model", version),
        ("Learned", learned),
        ("Current", is_current.to_owned()),
        ("Places from", format!("confidence {:.2}", model.min_confidence)),
        ("Agents", format!("{} types take issues", model.agent_types)),
    ]))?;
    Ok(Exit::Success)
}

fn outcomes_of(count: i32) -> String {
    if count == 1 { "1 outcome".to_owned() } else { format!("{count} outcomes") }
}

async fn confirm(confirm: Confirm, session: &mut Session) -> Result<Exit, Error> {
    let outcomes = match &confirm.file {
        Some(file) => issues::outcomes(file)?,
        None => vec![Outcome {
            triage_id: confirm.triage.unwrap_or_default(),
            issue_id: confirm.issue.unwrap_or_default(),
            agent_type: confirm.agent.unwrap_or_default(),
            mended: confirm.not_mended.then_some(false),
            ..Outcome::default()
        }],
    };
    let client = session.client.clone();
    let mut response = contracts::v1::ConfirmOutcomesResponse::default();
    let mut confirmed = 0;
    for part in outcomes.chunks(OUTCOMES_AT_ONCE) {
        let request =
            ConfirmOutcomesRequest { outcomes: part.to_vec(), request_id: request_id(None) };
        response = client
            .call(async |channel| client_of(channel).confirm_outcomes(request.clone()).await)
            .await?;
        confirmed += response.confirmed;
    }
    response.confirmed = confirmed;
    if session.output.is_json() {
        session.output.data(&json::message("ConfirmOutcomesResponse", &response))?;
    } else {
        let ratio = response.first_assignment_correct_ratio * 100.0;
        let known =
            if ratio > 0.0 { format!("; {ratio:.1} % right first time") } else { String::new() };
        let verb = if confirmed == 1 { "is" } else { "are" };
        let text = format!("{} {verb} confirmed{known}", outcomes_of(confirmed));
        session.output.data(&text)?;
    }
    Ok(Exit::Success)
}
