//! `plans`.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use contracts::v1::create_recovery_plan_request::Source;
use contracts::v1::{
    ApproveRecoveryPlanRequest, Complaint, CreateRecoveryPlanRequest, EditRecoveryPlanRequest,
    ExecuteRecoveryRequest, GetRecoveryPlanRequest, ListRecoveryPlansRequest,
    ListRecoveryPlansResponse, PlanIssue, PlannedChange, RecoveryPlan, UndoKind,
    ValidateRecoveryPlanRequest,
};

use super::workflow::or_dash;
use super::{Session, count, pages, progress};
use crate::complaint::{self, Sources};
use crate::connection::recovery;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::one_line;
use crate::request_id::request_id;
use crate::table::{Table, details};
use crate::{definition, json, moment};

/// The largest plan that is read; a definition may not be larger.
const TEXT_BYTES_MAX: u64 = 1 << 20;
const TITLE_CHARS_MAX: usize = 60;
/// What complaints call the text of a plan.
const FILE: &str = "plan.yml";

/// What can be done with recovery plans.
#[derive(Subcommand, Clone, Debug)]
pub enum PlanCommand {
    /// Make a plan from a triage, or of a workflow that was written by hand
    #[command(after_help = "Examples:\n  orchestrator plans create TRIAGE\n  \
        orchestrator plans create TRIAGE --rollback-all --dry-run\n  \
        orchestrator plans create TRIAGE --issue db-1 --issue db-2\n  \
        orchestrator plans create --file recovery.yml")]
    Create(Create),
    /// List plans, the newest first
    #[command(after_help = "Example:\n  orchestrator plans list -o json | jq -r '.plans[].planId'")]
    List(List),
    /// Show a plan: its issues and its workflow
    #[command(after_help = "Examples:\n  orchestrator plans show PLAN\n  \
        orchestrator plans show PLAN --text > plan.yml")]
    Show(Show),
    /// Put another workflow in the place of a plan's, or change what it allows
    #[command(after_help = "Examples:\n  orchestrator plans edit PLAN plan.yml\n  \
        orchestrator plans show PLAN --text | sed 's/old/new/' | orchestrator plans edit PLAN -\n  \
        orchestrator plans edit PLAN --allow-not-undoable true")]
    Edit(Edit),
    /// Say what stands against executing a plan now
    #[command(after_help = "Exit status: 0 nothing does, 2 something does.\n\n\
        Example:\n  orchestrator plans validate PLAN")]
    Validate(Which),
    /// Approve a plan as it stands
    #[command(after_help = "Example:\n  orchestrator plans approve PLAN --comment 'seen'")]
    Approve(Approve),
    /// Carry an approved plan out and follow it to its end
    #[command(after_help = "Exit status: 0 all issues were mended, 1 not all.\n\nExamples:\n  \
        orchestrator plans execute PLAN --dry-run\n  orchestrator plans execute PLAN")]
    Execute(Execute),
}

/// Makes one.
#[derive(Args, Clone, Debug)]
pub struct Create {
    /// The triage's id
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    triage: Option<String>,
    /// A workflow that was written by hand
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Only this issue of the triage; may be given several times
    #[arg(long = "issue", value_name = "ISSUE", conflicts_with = "file")]
    issues: Vec<String>,
    /// A failure undoes the whole recovery, not only what depends on what failed
    #[arg(long, conflicts_with = "file")]
    rollback_all: bool,
    /// Changes that cannot be undone may be made
    #[arg(long)]
    allow_not_undoable: bool,
    /// Only say what the plan would be
    #[arg(long)]
    dry_run: bool,
}

/// Lists them.
#[derive(Args, Clone, Debug)]
pub struct List {
    /// Only those of this triage
    #[arg(long, default_value = "", hide_default_value = true)]
    triage: String,
    /// How many at most
    #[arg(long, default_value_t = 100, value_name = "COUNT", value_parser = count)]
    limit: usize,
}

/// Shows one.
#[derive(Args, Clone, Debug)]
pub struct Show {
    /// The plan's id
    plan: String,
    /// Nothing but its workflow
    #[arg(long)]
    text: bool,
}

/// Edits one.
#[derive(Args, Clone, Debug)]
pub struct Edit {
    /// The plan's id
    plan: String,
    /// The workflow in place of what stands there; `-` reads it from standard input
    #[arg(required_unless_present = "allow_not_undoable")]
    file: Option<PathBuf>,
    /// Whether changes that cannot be undone may be made
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    allow_not_undoable: Option<bool>,
    /// The plan's `etag` as it was read: refuse if it has changed since
    #[arg(long, default_value = "", hide_default_value = true)]
    etag: String,
    /// Only check
    #[arg(long)]
    dry_run: bool,
}

/// Names one.
#[derive(Args, Clone, Debug)]
pub struct Which {
    /// The plan's id
    plan: String,
}

/// Approves one.
#[derive(Args, Clone, Debug)]
pub struct Approve {
    /// The plan's id
    plan: String,
    /// A comment
    #[arg(long, default_value = "", hide_default_value = true)]
    comment: String,
    /// The plan's `etag` as it was read: refuse if it has changed since
    #[arg(long, default_value = "", hide_default_value = true)]
    etag: String,
}

/// Executes one.
#[derive(Args, Clone, Debug)]
pub struct Execute {
    /// The plan's id
    plan: String,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
    /// Do not follow it
    #[arg(long)]
    no_wait: bool,
}

pub(super) async fn run(command: PlanCommand, session: &mut Session) -> Result<Exit, Error> {
    match command {
        PlanCommand::Create(create) => self::create(create, session).await,
        PlanCommand::List(list) => self::list(list, session).await,
        PlanCommand::Show(show) => self::show(show, session).await,
        PlanCommand::Edit(edit) => self::edit(edit, session).await,
        PlanCommand::Validate(which) => validate(which, session).await,
        PlanCommand::Approve(approve) => self::approve(approve, session).await,
        PlanCommand::Execute(execute) => Box::pin(self::execute(execute, session)).await,
    }
}

async fn create(create: Create, session: &mut Session) -> Result<Exit, Error> {
    let source = match (create.file, create.triage) {
        (Some(file), _) => Source::Definition(definition::load(&file)?.definition),
        (None, triage) => Source::TriageId(triage.unwrap_or_default()),
    };
    let request = CreateRecoveryPlanRequest {
        source: Some(source),
        rollback_all: create.rollback_all,
        allow_not_undoable: create.allow_not_undoable,
        validate_only: create.dry_run,
        request_id: request_id(None),
        issue_ids: create.issues,
    };
    let response = session
        .client
        .call(async |channel| recovery(channel).create_recovery_plan(request.clone()).await)
        .await?;
    if session.output.is_json() {
        session.output.data(&json::message("CreateRecoveryPlanResponse", &response))?;
        return Ok(Exit::Success);
    }
    written(&response.plan.unwrap_or_default(), &response.complaints, session)
}

/// Shows a plan that was just written, and what to do next.
fn written(
    plan: &RecoveryPlan,
    complaints: &[Complaint],
    session: &mut Session,
) -> Result<Exit, Error> {
    notes(plan, complaints, session);
    print(plan, session)?;
    if !plan.plan_id.is_empty() {
        let id = &plan.plan_id;
        session.output.note(&format!("approve it with `orchestrator plans approve {id}`"));
    }
    Ok(Exit::Success)
}

fn notes(plan: &RecoveryPlan, complaints: &[Complaint], session: &mut Session) {
    let mut sources = Sources::default();
    sources.add(FILE, &plan.definition);
    complaint::notes(complaints, &sources, &mut session.output);
}

async fn list(list: List, session: &mut Session) -> Result<Exit, Error> {
    let client = session.client.clone();
    let triage_id = list.triage;
    let (plans, next_page_token) = pages(list.limit, async |page_size, page_token| {
        let triage_id = triage_id.clone();
        let request = ListRecoveryPlansRequest { page_size, page_token, triage_id };
        let page = client
            .call(async |channel| recovery(channel).list_recovery_plans(request.clone()).await)
            .await?;
        Ok((page.plans, page.next_page_token))
    })
    .await?;
    if session.output.is_json() {
        let response = ListRecoveryPlansResponse { plans, next_page_token };
        session.output.data(&json::message("ListRecoveryPlansResponse", &response))?;
        return Ok(Exit::Success);
    }
    if plans.is_empty() {
        let text = "there are no recovery plans; make one with `orchestrator plans create TRIAGE`";
        session.output.note(text);
        return Ok(Exit::Success);
    }
    let now = moment::now();
    let headings = ["PLAN", "STATUS", "ISSUES", "ESTIMATE", "TRIAGE", "RUN", "CREATED"];
    let mut table = Table::new(&headings, &session.output);
    for plan in &plans {
        table.row([
            plan.plan_id.as_str(),
            &status(plan),
            &plan.issues.len().to_string(),
            &estimate(plan),
            or_dash(&plan.triage_id),
            or_dash(&plan.run_id),
            &moment::relative(plan.create_time.as_ref(), now),
        ]);
    }
    session.output.data(&table.text())?;
    super::more(&next_page_token, session);
    Ok(Exit::Success)
}

async fn get(plan_id: &str, session: &Session) -> Result<RecoveryPlan, Error> {
    let request = GetRecoveryPlanRequest { plan_id: plan_id.to_owned() };
    let response = session
        .client
        .call(async |channel| recovery(channel).get_recovery_plan(request.clone()).await)
        .await?;
    Ok(response.plan.unwrap_or_default())
}

async fn show(show: Show, session: &mut Session) -> Result<Exit, Error> {
    let plan = get(&show.plan, session).await?;
    if show.text {
        session.output.data(plan.definition.trim_end_matches('\n'))?;
    } else if session.output.is_json() {
        session.output.data(&json::message("RecoveryPlan", &plan))?;
    } else {
        print(&plan, session)?;
    }
    Ok(Exit::Success)
}

async fn edit(edit: Edit, session: &mut Session) -> Result<Exit, Error> {
    let definition = match &edit.file {
        Some(file) => read(file)?,
        None => String::new(),
    };
    let request = EditRecoveryPlanRequest {
        plan_id: edit.plan,
        definition,
        allow_not_undoable: edit.allow_not_undoable,
        etag: edit.etag,
        validate_only: edit.dry_run,
        request_id: request_id(None),
    };
    let response = session
        .client
        .call(async |channel| recovery(channel).edit_recovery_plan(request.clone()).await)
        .await?;
    if session.output.is_json() {
        session.output.data(&json::message("EditRecoveryPlanResponse", &response))?;
        return Ok(Exit::Success);
    }
    written(&response.plan.unwrap_or_default(), &response.complaints, session)
}

fn read(file: &Path) -> Result<String, Error> {
    let name = if file == Path::new("-") {
        "standard input".to_owned()
    } else {
        format!("`{}`", file.display())
    };
    let wrong = |error: std::io::Error| Error::request(format!("{name} cannot be read: {error}"));
    let mut text = String::new();
    let mut input: Box<dyn std::io::Read> = if file == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(std::fs::File::open(file).map_err(wrong)?)
    };
    input.by_ref().take(TEXT_BYTES_MAX + 1).read_to_string(&mut text).map_err(wrong)?;
    if text.trim().is_empty() {
        return Err(Error::request(format!("{name} is empty; a plan is a workflow")));
    }
    Ok(text)
}

async fn validate(which: Which, session: &mut Session) -> Result<Exit, Error> {
    let plan = get(&which.plan, session).await?;
    let request = ValidateRecoveryPlanRequest { plan_id: which.plan };
    let response = session
        .client
        .call(async |channel| recovery(channel).validate_recovery_plan(request.clone()).await)
        .await?;
    let exit = if response.valid { Exit::Success } else { Exit::BadRequest };
    if session.output.is_json() {
        session.output.data(&json::message("ValidateRecoveryPlanResponse", &response))?;
        return Ok(exit);
    }
    notes(&plan, &response.complaints, session);
    print_changes(&response.changes, session)?;
    let verdict = if response.valid { "can be executed" } else { "cannot be executed yet" };
    session.output.note(&format!("the plan {verdict}"));
    Ok(exit)
}

async fn approve(approve: Approve, session: &mut Session) -> Result<Exit, Error> {
    let request = ApproveRecoveryPlanRequest {
        plan_id: approve.plan,
        etag: approve.etag,
        comment: approve.comment,
        request_id: request_id(None),
    };
    let response = session
        .client
        .call(async |channel| recovery(channel).approve_recovery_plan(request.clone()).await)
        .await?;
    let plan = response.plan.unwrap_or_default();
    if session.output.is_json() {
        session.output.data(&json::message("RecoveryPlan", &plan))?;
        return Ok(Exit::Success);
    }
    let id = &plan.plan_id;
    session.output.data(&format!("plan {id} is approved"))?;
    session.output.note(&format!("carry it out with `orchestrator plans execute {id}`"));
    Ok(Exit::Success)
}

async fn execute(execute: Execute, session: &mut Session) -> Result<Exit, Error> {
    let request = ExecuteRecoveryRequest {
        plan_id: execute.plan,
        validate_only: execute.dry_run,
        labels: std::collections::HashMap::default(),
        request_id: request_id(None),
    };
    let response = session
        .client
        .call(async |channel| recovery(channel).execute_recovery(request.clone()).await)
        .await?;
    if execute.dry_run {
        if session.output.is_json() {
            session.output.data(&json::message("ExecuteRecoveryResponse", &response))?;
            return Ok(Exit::Success);
        }
        notes(&response.plan.unwrap_or_default(), &response.complaints, session);
        print_changes(&response.changes, session)?;
        return Ok(Exit::Success);
    }
    let run = response.run.clone().unwrap_or_default();
    if execute.no_wait {
        if session.output.is_json() {
            session.output.data(&json::message("ExecuteRecoveryResponse", &response))?;
        } else {
            session.output.data(&format!("run {} carries the plan out", run.run_id))?;
        }
        return Ok(Exit::Success);
    }
    session.output.note(&format!("run {} carries the plan out", run.run_id));
    progress::follow(&run.run_id, session).await
}

fn status(plan: &RecoveryPlan) -> String {
    plan.status().as_str_name().trim_start_matches("PLAN_STATUS_").to_ascii_lowercase()
}

fn estimate(plan: &RecoveryPlan) -> String {
    let span = moment::span(plan.estimated_duration.as_ref());
    span.map_or_else(|| "-".to_owned(), moment::duration)
}

/// When and how the run ended.
fn ended(plan: &RecoveryPlan, now: chrono::DateTime<chrono::Utc>) -> String {
    if plan.end_time.is_none() {
        return String::new();
    }
    let status = plan.run_status().as_str_name().trim_start_matches("RUN_STATUS_");
    let at = moment::local(plan.end_time.as_ref(), now);
    format!("{} {at}", status.to_ascii_lowercase())
}

fn result(issue: &PlanIssue) -> String {
    let status = issue.status().as_str_name().trim_start_matches("ISSUE_STATUS_");
    status.to_ascii_lowercase().replace('_', " ")
}

/// The title, and what went wrong where something did.
fn said(issue: &PlanIssue) -> String {
    match issue.error.is_empty() {
        true => issue.title.clone(),
        false => format!("{}: {}", issue.title, issue.error),
    }
}

fn print(plan: &RecoveryPlan, session: &mut Session) -> Result<(), Error> {
    let now = moment::now();
    let mut text = details(&[
        ("Plan", plan.plan_id.clone()),
        ("Triage", plan.triage_id.clone()),
        ("Status", status(plan)),
        ("Approved by", plan.approved_by.clone()),
        ("Comment", plan.comment.clone()),
        ("Run", plan.run_id.clone()),
        ("Estimate", estimate(plan)),
        ("Ended", ended(plan, now)),
        ("Created", moment::local(plan.create_time.as_ref(), now)),
        ("Etag", plan.etag.clone()),
    ]);
    let mut table = Table::new(&["ISSUE", "STEP", "AGENT", "TITLE"], &session.output);
    if plan.end_time.is_some() {
        let headings = ["ISSUE", "STEP", "AGENT", "RESULT", "TOOK", "TITLE"];
        table = Table::new(&headings, &session.output);
    }
    for issue in &plan.issues {
        let step = if issue.step.is_empty() { "by hand" } else { &issue.step };
        let title = one_line(&issue.title, TITLE_CHARS_MAX);
        if plan.end_time.is_none() {
            table.row([&*issue.issue_id, step, or_dash(&issue.agent), &title]);
            continue;
        }
        let agent = if issue.mended_by.is_empty() { &issue.agent } else { &issue.mended_by };
        let took = moment::span(issue.took.as_ref()).map(moment::duration).unwrap_or_default();
        let (result, said) = (result(issue), one_line(&said(issue), TITLE_CHARS_MAX));
        table.row([&*issue.issue_id, step, or_dash(agent), &result, or_dash(&took), &said]);
    }
    text.push_str("\n\n");
    text.push_str(&table.text());
    if !plan.definition.is_empty() {
        text.push_str("\n\n");
        text.push_str(plan.definition.trim_end_matches('\n'));
    }
    session.output.data(&text)?;
    Ok(())
}

fn print_changes(changes: &[PlannedChange], session: &mut Session) -> Result<(), Error> {
    let headings = ["STEP", "ISSUE", "AGENT", "ACTION", "UNDONE BY"];
    let mut table = Table::new(&headings, &session.output);
    for change in changes {
        let undo = match change.undo_kind() {
            UndoKind::Action => &*change.undo,
            UndoKind::Nothing => "changes nothing",
            UndoKind::Impossible => "cannot be undone",
            UndoKind::Unspecified => "unknown",
        };
        let PlannedChange { step, issue_id, agent, action, .. } = change;
        table.row([&**step, or_dash(issue_id), or_dash(agent), &**action, undo]);
    }
    session.output.data(&table.text())?;
    Ok(())
}
