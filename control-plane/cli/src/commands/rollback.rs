//! `rollback`.

use clap::{Args, Subcommand, ValueEnum};
use contracts::v1::rollback_target::Target;
use contracts::v1::{
    ApproveRollbackRequest, DecideUndoRequest, ExecuteRollbackRequest, GetRollbackRequest,
    ListRollbacksRequest, ListRollbacksResponse, PlanRollbackRequest, Rollback, RollbackStatus,
    RollbackTarget, RollbackToStart, UndoDecision, UndoStatus, WatchRollbackRequest,
};

use super::workflow::or_dash;
use super::{Session, count, pages};
use crate::connection::{is_transient, recovery};
use crate::error::Error;
use crate::exit::Exit;
use crate::output::one_line;
use crate::request_id::request_id;
use crate::table::{Table, details};
use crate::{json, moment};

/// How often a broken watch is begun anew before the command gives up.
const WATCHES_MAX: u32 = 100;
const ERROR_CHARS_MAX: usize = 120;

/// What can be done with rollbacks.
#[derive(Subcommand, Clone, Debug)]
pub enum RollbackCommand {
    /// Say what undoing an ended run would undo, and plan it
    #[command(after_help = "Examples:\n  orchestrator rollback plan RUN --dry-run\n  \
        orchestrator rollback plan RUN --to before-deploy --needs-approval\n  \
        orchestrator rollback plan RUN --before deploy")]
    Plan(Plan),
    /// Approve a planned rollback
    #[command(after_help = "Example:\n  orchestrator rollback approve RUN --comment 'seen'")]
    Approve(Approval),
    /// Reject a planned rollback, which forgets it
    #[command(after_help = "Example:\n  orchestrator rollback reject RUN --comment 'not now'")]
    Reject(Approval),
    /// Carry the planned rollback out and follow it to its end
    #[command(after_help = "Exit status: 0 everything was undone, 1 it was not, or a person is \
        needed.\n\nExample:\n  orchestrator rollback execute RUN")]
    Execute(Execute),
    /// Show a run's rollback: each undo and what it waits for
    #[command(after_help = "Example:\n  orchestrator rollback status RUN --watch")]
    Status(Status),
    /// List the rollbacks of all runs, the newest first
    #[command(after_help = "Example:\n  orchestrator rollback list --status stuck")]
    List(List),
    /// Decide about an undo that failed for good
    #[command(after_help = "Examples:\n  orchestrator rollback decide RUN deploy retry\n  \
        orchestrator rollback decide RUN deploy done --comment 'removed by hand'\n  \
        orchestrator rollback decide RUN deploy skip --comment 'the host is gone'")]
    Decide(Decide),
}

/// Plans one.
#[derive(Args, Clone, Debug)]
pub struct Plan {
    /// The run's id
    run: String,
    /// To this checkpoint: its name or sequence; without it, to the start
    #[arg(long, value_name = "CHECKPOINT", conflicts_with = "before")]
    to: Option<String>,
    /// To before this step, by its path
    #[arg(long, value_name = "STEP")]
    before: Option<String>,
    /// Execute it only once somebody has approved it
    #[arg(long)]
    needs_approval: bool,
    /// Only say what would be undone
    #[arg(long)]
    dry_run: bool,
}

/// Approves or rejects one.
#[derive(Args, Clone, Debug)]
pub struct Approval {
    /// The run's id
    run: String,
    /// A comment for the journal
    #[arg(long, default_value = "", hide_default_value = true)]
    comment: String,
}

/// Executes one.
#[derive(Args, Clone, Debug)]
pub struct Execute {
    /// The run's id
    run: String,
    /// Do not follow it
    #[arg(long)]
    no_wait: bool,
}

/// Shows one.
#[derive(Args, Clone, Debug)]
pub struct Status {
    /// The run's id
    run: String,
    /// Follow it until it is over or needs a person
    #[arg(long)]
    watch: bool,
}

/// Lists them.
#[derive(Args, Clone, Debug)]
pub struct List {
    /// Of this run alone, by its id
    run: Option<String>,
    /// In this status: planned, approved, running, stuck, succeeded, incomplete or abandoned
    #[arg(long)]
    status: Option<String>,
    /// How many at most
    #[arg(long, default_value_t = 100, value_name = "COUNT", value_parser = count)]
    limit: usize,
}

/// Decides about an undo.
#[derive(Args, Clone, Debug)]
pub struct Decide {
    /// The run's id
    run: String,
    /// The path of the step whose undo it is
    step: String,
    /// What
    decision: Verdict,
    /// Why; needed for `skip`
    #[arg(long, default_value = "", hide_default_value = true)]
    comment: String,
}

/// What is decided.
#[derive(ValueEnum, Clone, Copy, Debug)]
enum Verdict {
    /// Try it again
    Retry,
    /// It was undone by hand
    Done,
    /// Leave what was done
    Skip,
}

pub(super) async fn run(command: RollbackCommand, session: &mut Session) -> Result<Exit, Error> {
    match command {
        RollbackCommand::Plan(plan) => self::plan(plan, session).await,
        RollbackCommand::Approve(approval) => approve(approval, true, session).await,
        RollbackCommand::Reject(approval) => approve(approval, false, session).await,
        RollbackCommand::Execute(execute) => Box::pin(self::execute(execute, session)).await,
        RollbackCommand::Status(status) => Box::pin(self::status(status, session)).await,
        RollbackCommand::List(list) => self::list(list, session).await,
        RollbackCommand::Decide(decide) => self::decide(decide, session).await,
    }
}

async fn list(list: List, session: &mut Session) -> Result<Exit, Error> {
    let client = session.client.clone();
    let terms = [("status", &list.status), ("run_id", &list.run)];
    let terms = terms.iter().filter_map(|(field, value)| Some((field, value.as_ref()?)));
    let terms: Vec<String> = terms.map(|(field, value)| format!("{field}={value}")).collect();
    let filter = terms.join(" AND ");
    let (rollbacks, next_page_token) = pages(list.limit, async |page_size, page_token| {
        let filter = filter.clone();
        let request = ListRollbacksRequest { page_size, page_token, filter };
        let page = client
            .call(async |channel| recovery(channel).list_rollbacks(request.clone()).await)
            .await?;
        Ok((page.rollbacks, page.next_page_token))
    })
    .await?;
    if session.output.is_json() {
        let response = ListRollbacksResponse { rollbacks, next_page_token };
        session.output.data(&json::message("ListRollbacksResponse", &response))?;
        return Ok(Exit::Success);
    }
    let now = moment::now();
    let columns = ["RUN", "NUMBER", "STATUS", "UNDONE", "STUCK", "LEFT", "BY", "WHEN"];
    let mut table = Table::new(&columns, &session.output);
    for rollback in &rollbacks {
        let counts = rollback.counts.unwrap_or_default();
        let done = counts.undone + counts.by_hand;
        table.row([
            rollback.run_id.as_str(),
            &rollback.number.to_string(),
            &word(rollback.status().as_str_name(), "ROLLBACK_STATUS_"),
            &format!("{done}/{}", counts.total),
            &counts.stuck.to_string(),
            &(counts.skipped + counts.not_undoable).to_string(),
            or_dash(&rollback.actor),
            &moment::relative(rollback.create_time.as_ref(), now),
        ]);
    }
    session.output.data(&table.text())?;
    super::more(&next_page_token, session);
    Ok(Exit::Success)
}

async fn plan(plan: Plan, session: &mut Session) -> Result<Exit, Error> {
    let target = match (plan.to, plan.before) {
        (Some(checkpoint), _) => Target::Checkpoint(checkpoint),
        (None, Some(step)) => Target::BeforeStep(step),
        (None, None) => Target::Start(RollbackToStart {}),
    };
    let request = PlanRollbackRequest {
        run_id: plan.run,
        target: Some(RollbackTarget { target: Some(target) }),
        needs_approval: plan.needs_approval,
        validate_only: plan.dry_run,
        request_id: request_id(None),
    };
    let response = session
        .client
        .call(async |channel| recovery(channel).plan_rollback(request.clone()).await)
        .await?;
    if session.output.is_json() {
        session.output.data(&json::message("PlanRollbackResponse", &response))?;
        return Ok(Exit::Success);
    }
    let rollback = response.rollback.unwrap_or_default();
    show(&rollback, session)?;
    if !plan.dry_run {
        let next = if plan.needs_approval { "approve" } else { "execute" };
        let run = &rollback.run_id;
        session.output.note(&format!("planned; go on: orchestrator rollback {next} {run}"));
    }
    Ok(Exit::Success)
}

async fn approve(approval: Approval, approve: bool, session: &mut Session) -> Result<Exit, Error> {
    let number = open_number(&approval.run, session).await?;
    let request = ApproveRollbackRequest {
        run_id: approval.run.clone(),
        number,
        approve,
        comment: approval.comment,
        request_id: request_id(None),
    };
    let response = session
        .client
        .call(async |channel| recovery(channel).approve_rollback(request.clone()).await)
        .await?;
    if session.output.is_json() {
        session.output.data(&json::message("ApproveRollbackResponse", &response))?;
    } else {
        let word = if approve { "approved" } else { "rejected" };
        session.output.data(&format!("rollback {number} of {} is {word}", approval.run))?;
    }
    Ok(Exit::Success)
}

async fn execute(execute: Execute, session: &mut Session) -> Result<Exit, Error> {
    let number = open_number(&execute.run, session).await?;
    let request = ExecuteRollbackRequest {
        run_id: execute.run.clone(),
        number,
        request_id: request_id(None),
    };
    let response = session
        .client
        .call(async |channel| recovery(channel).execute_rollback(request.clone()).await)
        .await?;
    let rollback = response.rollback.unwrap_or_default();
    let rollback = if execute.no_wait || is_over(&rollback) {
        rollback
    } else {
        follow(&execute.run, session).await?
    };
    finish(&rollback, session)
}

async fn status(status: Status, session: &mut Session) -> Result<Exit, Error> {
    let rollback = if status.watch {
        follow(&status.run, session).await?
    } else {
        get(&status.run, session).await?
    };
    finish(&rollback, session)
}

async fn decide(decide: Decide, session: &mut Session) -> Result<Exit, Error> {
    let decision = match decide.decision {
        Verdict::Retry => UndoDecision::Retry,
        Verdict::Done => UndoDecision::Done,
        Verdict::Skip => UndoDecision::Skip,
    };
    let request = DecideUndoRequest {
        run_id: decide.run,
        step: decide.step,
        decision: decision.into(),
        comment: decide.comment,
        request_id: request_id(None),
    };
    let response = session
        .client
        .call(async |channel| recovery(channel).decide_undo(request.clone()).await)
        .await?;
    if session.output.is_json() {
        session.output.data(&json::message("DecideUndoResponse", &response))?;
        return Ok(Exit::Success);
    }
    show(&response.rollback.unwrap_or_default(), session)?;
    Ok(Exit::Success)
}

async fn get(run: &str, session: &Session) -> Result<Rollback, Error> {
    let request = GetRollbackRequest { run_id: run.to_owned(), number: 0 };
    let response = session
        .client
        .call(async |channel| recovery(channel).get_rollback(request.clone()).await)
        .await?;
    Ok(response.rollback.unwrap_or_default())
}

async fn open_number(run: &str, session: &Session) -> Result<i32, Error> {
    Ok(get(run, session).await?.number)
}

/// Follows a rollback until it is over or needs a person; a watch that breaks is begun anew.
async fn follow(run: &str, session: &mut Session) -> Result<Rollback, Error> {
    let mut told = 0;
    for _ in 0..WATCHES_MAX {
        let request = WatchRollbackRequest { run_id: run.to_owned() };
        let client = session.client.clone();
        let mut stream = client
            .call(async |channel| recovery(channel).watch_rollback(request.clone()).await)
            .await?;
        loop {
            match stream.message().await {
                Ok(Some(item)) => {
                    let rollback = item.rollback.unwrap_or_default();
                    let done = rollback.undos.iter().filter(|undo| is_gone(undo.status())).count();
                    if done > told && !session.output.is_json() {
                        let all = rollback.undos.len();
                        session.output.note(&format!("{done} of {all} undone"));
                        told = done;
                    }
                    if is_over(&rollback) || rollback.status() == RollbackStatus::Stuck {
                        return Ok(rollback);
                    }
                }
                Ok(None) => break,
                Err(status) if is_transient(&status) => break,
                Err(status) => return Err(Error::Refused(Box::new(status))),
            }
        }
    }
    get(run, session).await
}

fn is_gone(status: UndoStatus) -> bool {
    matches!(status, UndoStatus::Undone | UndoStatus::ByHand | UndoStatus::Skipped)
}

fn is_over(rollback: &Rollback) -> bool {
    rollback.end_time.is_some()
}

fn finish(rollback: &Rollback, session: &mut Session) -> Result<Exit, Error> {
    if session.output.is_json() {
        session.output.data(&json::message("Rollback", rollback))?;
    } else {
        show(rollback, session)?;
    }
    let failed = matches!(rollback.status(), RollbackStatus::Incomplete | RollbackStatus::Stuck);
    Ok(if failed { Exit::RunFailed } else { Exit::Success })
}

fn word(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).to_ascii_lowercase()
}

fn show(rollback: &Rollback, session: &mut Session) -> Result<(), Error> {
    let to = match rollback.target.as_ref().and_then(|target| target.target.as_ref()) {
        Some(Target::Checkpoint(name)) => format!("checkpoint {name}"),
        Some(Target::BeforeStep(step)) => format!("before step {step}"),
        _ => "the start".to_owned(),
    };
    let now = moment::now();
    let estimate = rollback
        .estimated_duration
        .and_then(|time| std::time::Duration::try_from(time).ok())
        .map_or_else(String::new, moment::duration);
    let mut text = details(&[
        ("Run", rollback.run_id.clone()),
        ("Rollback", if rollback.number > 0 { rollback.number.to_string() } else { String::new() }),
        ("To", to),
        ("Status", word(rollback.status().as_str_name(), "ROLLBACK_STATUS_")),
        ("Asked by", rollback.actor.clone()),
        ("Approved by", rollback.approved_by.clone()),
        ("Begun", moment::local(rollback.create_time.as_ref(), now)),
        ("Ended", moment::local(rollback.end_time.as_ref(), now)),
        ("Takes about", estimate),
        ("Not undoable", rollback.not_undoable_steps.join(", ")),
    ]);
    if rollback.undos.is_empty() {
        text.push_str("\n\nnothing is to be undone");
    } else {
        let headings = ["STEP", "UNDO", "AGENT", "STATUS", "ATTEMPTS", "ERROR"];
        let mut table = Table::new(&headings, &session.output);
        for undo in &rollback.undos {
            let action = if undo.child_run_id.is_empty() {
                undo.action.clone()
            } else {
                format!("run {}", undo.child_run_id)
            };
            let mut status = word(undo.status().as_str_name(), "UNDO_STATUS_");
            if undo.possibly_done {
                status.push_str(" (possibly done)");
            }
            table.row([
                undo.step.as_str(),
                or_dash(&action),
                or_dash(&undo.agent),
                &status,
                &undo.attempts.to_string(),
                &one_line(
                    if undo.comment.is_empty() { &undo.error } else { &undo.comment },
                    ERROR_CHARS_MAX,
                ),
            ]);
        }
        text.push_str("\n\n");
        text.push_str(&table.text());
    }
    session.output.data(&text)?;
    if rollback.status() == RollbackStatus::Stuck {
        let stuck = rollback.undos.iter().find(|undo| undo.status() == UndoStatus::Stuck);
        let step = stuck.map_or("STEP", |undo| &undo.step);
        session.output.note(&format!(
            "a person is needed: orchestrator rollback decide {} {step} retry|done|skip",
            rollback.run_id
        ));
    }
    Ok(())
}
