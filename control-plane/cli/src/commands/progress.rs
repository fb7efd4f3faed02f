//! `progress`, and `agents advise`.

use clap::{Args, Subcommand};
use contracts::v1::watch_progress_request::Of;
use contracts::v1::{
    IssueStatus, OptimizeResourcesRequest, ProgressReport, ResourceAction, RunStatus,
    WatchProgressRequest,
};
use tonic::Code;

use super::Session;
use super::workflow::or_dash;
use crate::connection::{is_transient, recovery};
use crate::error::Error;
use crate::exit::Exit;
use crate::table::{Table, details};
use crate::{json, moment};

/// How often a broken watch is begun anew before the command gives up.
const WATCHES_MAX: u32 = 100;

/// What can be done with progress.
#[derive(Subcommand, Clone, Debug)]
pub enum ProgressCommand {
    /// Follow a recovery: how far it is, who works on it, what holds it up
    #[command(after_help = "Exit status: 0 all issues were mended, 1 not all.\n\nExamples:\n  \
        orchestrator progress watch PLAN\n  orchestrator progress watch RUN --once -o json")]
    Watch(Watch),
}

/// Follows one.
#[derive(Args, Clone, Debug)]
pub struct Watch {
    /// The plan's id, or that of any run
    plan: String,
    /// Show how it stands, and no more
    #[arg(long)]
    once: bool,
}

/// Advises about agents.
#[derive(Args, Clone, Debug)]
pub struct Advise {
    /// Over which time the history counts, in minutes; at most 60
    #[arg(long, default_value_t = 30, value_name = "MINUTES",
        value_parser = clap::value_parser!(u8).range(1..=60))]
    minutes: u8,
}

pub(super) async fn run(command: ProgressCommand, session: &mut Session) -> Result<Exit, Error> {
    let ProgressCommand::Watch(watch) = command;
    match watch_of(Of::PlanId(watch.plan.clone()), watch.once, session).await {
        Err(Error::Refused(status)) if status.code() == Code::NotFound => {
            watch_of(Of::RunId(watch.plan), watch.once, session).await
        }
        done => done,
    }
}

/// Follows a run to its end.
pub(super) async fn follow(run: &str, session: &mut Session) -> Result<Exit, Error> {
    watch_of(Of::RunId(run.to_owned()), false, session).await
}

/// A watch that breaks is begun anew behind the last report.
async fn watch_of(of: Of, once: bool, session: &mut Session) -> Result<Exit, Error> {
    let mut last: Option<ProgressReport> = None;
    for _ in 0..WATCHES_MAX {
        let after_sequence = last.as_ref().map_or(0, |report| report.sequence);
        let request = WatchProgressRequest { of: Some(of.clone()), after_sequence, once };
        let mut stream = session
            .client
            .clone()
            .call(async |channel| recovery(channel).watch_progress(request.clone()).await)
            .await?;
        loop {
            match stream.message().await {
                Ok(Some(item)) => {
                    let report = item.report.unwrap_or_default();
                    tell(&report, last.as_ref(), once, session)?;
                    last = Some(report);
                }
                Ok(None) => return finish(last.as_ref(), once, session),
                Err(status) if is_transient(&status) => break,
                Err(status) => return Err(Error::Refused(Box::new(status))),
            }
        }
    }
    Err(Error::request("the control plane breaks the watch again and again"))
}

/// A line for each report that says something new; JSON has them all.
fn tell(
    report: &ProgressReport,
    last: Option<&ProgressReport>,
    once: bool,
    session: &mut Session,
) -> Result<(), Error> {
    if session.output.is_json() {
        session.output.data(&json::line("ProgressReport", report))?;
        return Ok(());
    }
    if once || last.is_some_and(|last| last.issues == report.issues) {
        return Ok(());
    }
    let count =
        |wanted: IssueStatus| report.issues.iter().filter(|issue| issue.status() == wanted).count();
    let all = report.issues.len();
    let (resolved, running) = (report.resolved.len(), count(IssueStatus::Running));
    let failed =
        count(IssueStatus::Failed) + count(IssueStatus::Undone) + count(IssueStatus::Stuck);
    let mut line = format!(
        "{:3.0}%  {resolved} of {all} resolved, {running} running",
        report.completion_percent
    );
    if failed > 0 {
        line.push_str(&format!(", {failed} failed"));
    }
    if !report.blocking.is_empty() {
        let first: Vec<&str> = report.blocking.iter().take(3).map(String::as_str).collect();
        line.push_str(&format!("; others wait for {}", first.join(", ")));
    }
    if let Some(end) = &report.estimated_end_time {
        line.push_str(&format!("; ends {}", moment::relative(Some(end), moment::now())));
    }
    session.output.note(&line);
    Ok(())
}

fn finish(last: Option<&ProgressReport>, once: bool, session: &mut Session) -> Result<Exit, Error> {
    let Some(report) = last else {
        return Err(Error::request("the control plane told nothing about it"));
    };
    let is_mended = report.status() == RunStatus::Success;
    let exit = if once || is_mended { Exit::Success } else { Exit::RunFailed };
    if !session.output.is_json() {
        print(report, session)?;
    }
    Ok(exit)
}

fn print(report: &ProgressReport, session: &mut Session) -> Result<(), Error> {
    let percent = |value: f64| format!("{value:.0}%");
    let mut text = details(&[
        ("Run", report.run_id.clone()),
        ("Plan", report.plan_id.clone()),
        ("Status", word(report.status().as_str_name(), "RUN_STATUS_")),
        ("Completion", percent(report.completion_percent)),
        ("Blocking", report.blocking.join(", ")),
        ("By hand", report.by_hand.join(", ")),
        ("Utilisation", report.utilisation_percent.map(percent).unwrap_or_default()),
        ("Ends", moment::local(report.estimated_end_time.as_ref(), moment::now())),
    ]);
    let mut table = Table::new(&["ISSUE", "STATUS", "AGENT"], &session.output);
    for issue in &report.issues {
        let active = report.active_agents.iter().find(|it| it.issue_id == issue.issue_id);
        let agent = active.map(|it| format!("{}/{}", it.agent, it.instance)).unwrap_or_default();
        let status = word(issue.status().as_str_name(), "ISSUE_STATUS_");
        table.row([&*issue.issue_id, &status, or_dash(&agent)]);
    }
    text.push_str("\n\n");
    text.push_str(&table.text());
    session.output.data(&text)?;
    Ok(())
}

fn word(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).to_ascii_lowercase()
}

/// `agents advise`.
pub(super) async fn advise(advise: Advise, session: &mut Session) -> Result<Exit, Error> {
    let seconds = i64::from(advise.minutes) * 60;
    let window = Some(prost_types::Duration { seconds, nanos: 0 });
    let request = OptimizeResourcesRequest { window };
    let response = session
        .client
        .call(async |channel| recovery(channel).optimize_resources(request).await)
        .await?;
    if session.output.is_json() {
        session.output.data(&json::message("OptimizeResourcesResponse", &response))?;
        return Ok(Exit::Success);
    }
    let headings = ["AGENT", "SLOTS", "BUSY", "QUEUED", "OLDEST", "EXPECTED/MIN", "NEEDED"];
    let mut table = Table::new(&headings, &session.output);
    for load in &response.loads {
        let oldest = moment::span(load.oldest.as_ref()).unwrap_or_default();
        table.row([
            load.agent.clone(),
            load.slots.to_string(),
            format!("{:.0}%", load.busy_percent),
            load.queued.to_string(),
            if load.queued > 0 { moment::duration(oldest) } else { "-".to_owned() },
            format!("{:.1}", load.forecast_per_minute),
            format!("{:.1}", load.slots_needed),
        ]);
    }
    session.output.data(&table.text())?;
    for advice in &response.advice {
        let what = match advice.action() {
            ResourceAction::Add => format!("start {} more of `{}`", advice.count, advice.agent),
            ResourceAction::Drain => format!(
                "drain `{0}/{1}`: `orchestrator agents drain {0}/{1}`",
                advice.agent, advice.instance
            ),
            ResourceAction::Move => format!(
                "drain `{0}/{1}` and start a `{2}` in its place",
                advice.agent, advice.instance, advice.to
            ),
            ResourceAction::Unspecified => continue,
        };
        session.output.data(&format!("{what}\n  {}", advice.reason))?;
    }
    if response.advice.is_empty() {
        session.output.note("nothing is to be changed");
    }
    Ok(Exit::Success)
}
