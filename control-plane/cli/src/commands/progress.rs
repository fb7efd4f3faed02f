//! `progress`, and `agents advise`.

use clap::{Args, Subcommand};
use contracts::v1::watch_progress_request::Of;
use contracts::v1::{
    IssueProgress, IssueStatus, OptimizeResourcesRequest, ProgressReport, RecoveryPhase,
    ResourceAction, RunStatus, WatchProgressRequest,
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
    if once || last.is_some_and(|last| seen(last) == seen(report)) {
        return Ok(());
    }
    session.output.note(&line(report));
    Ok(())
}

/// What a new line is told for.
fn seen(report: &ProgressReport) -> (RecoveryPhase, i32, i32, &[IssueProgress]) {
    (report.phase(), report.undos_done, report.undos_stuck, &report.issues)
}

fn line(report: &ProgressReport) -> String {
    let count =
        |wanted: IssueStatus| report.issues.iter().filter(|issue| issue.status() == wanted).count();
    let all = report.issues.len();
    let (resolved, running) = (report.resolved.len(), count(IssueStatus::Running));
    let failed =
        count(IssueStatus::Failed) + count(IssueStatus::Undone) + count(IssueStatus::Stuck);
    let mut line = format!("{:3.0}%  ", report.completion_percent);
    match report.phase() {
        RecoveryPhase::RollingBack | RecoveryPhase::Stuck => {
            line.push_str(&format!("rolling back: {}; ", undos(report)));
        }
        RecoveryPhase::HandlingFailure => line.push_str("`on_failure` runs; "),
        _ => {}
    }
    line.push_str(&format!("{resolved} of {all} resolved, {running} running"));
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
    line
}

/// How far a rollback is; empty without one.
fn undos(report: &ProgressReport) -> String {
    let ProgressReport { undos, undos_done, undos_stuck, .. } = report;
    match (undos, undos_stuck) {
        (0, _) => String::new(),
        (_, 0) => format!("{undos_done} of {undos} undone"),
        _ => format!("{undos_done} of {undos} undone, {undos_stuck} wait for a person"),
    }
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
        ("Phase", word(report.phase().as_str_name(), "RECOVERY_PHASE_").replace('_', " ")),
        ("Completion", percent(report.completion_percent)),
        ("Rollback", undos(report)),
        ("Blocking", report.blocking.join(", ")),
        ("By hand", report.by_hand.join(", ")),
        ("Utilisation", report.utilisation_percent.map(percent).unwrap_or_default()),
        ("Overhead", overhead(report)),
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
    tell_silent(&report.silent_replicas, session);
    Ok(())
}

/// Whose agents are left out.
fn tell_silent(replicas: &[String], session: &mut Session) {
    if !replicas.is_empty() {
        let names = replicas.join(", ");
        session.output.note(&format!("without the agents of replicas that do not answer: {names}"));
    }
}

/// What the orchestrator added to the work of agents.
fn overhead(report: &ProgressReport) -> String {
    let Some(percent) = report.overhead_percent else { return String::new() };
    let span = |span| moment::duration(moment::span(span).unwrap_or_default());
    format!(
        "{percent:.1}% ({} for a chain of {})",
        span(report.wall_time.as_ref()),
        span(report.longest_chain.as_ref())
    )
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
    tell_silent(&response.silent_replicas, session);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn issue(issue_id: &str, status: IssueStatus) -> IssueProgress {
        IssueProgress { issue_id: issue_id.to_owned(), status: status.into() }
    }

    #[test]
    fn a_rollback_is_told_with_how_many_undos_are_done() {
        let mut report = ProgressReport {
            completion_percent: 71.6,
            issues: vec![issue("a", IssueStatus::Undoing), issue("b", IssueStatus::Undone)],
            phase: RecoveryPhase::RollingBack.into(),
            undos: 5,
            undos_done: 2,
            ..Default::default()
        };
        let wanted = " 72%  rolling back: 2 of 5 undone; 0 of 2 resolved, 0 running, 1 failed";
        assert_eq!(line(&report), wanted);
        let before = report.clone();
        (report.undos_stuck, report.phase) = (1, RecoveryPhase::Stuck.into());
        assert_ne!(seen(&before), seen(&report), "a line is told for it");
        let told = line(&report);
        assert!(told.contains("2 of 5 undone, 1 wait for a person"), "{told}");
    }

    #[test]
    fn the_overhead_is_told_once_agents_have_worked() {
        let mut report = ProgressReport::default();
        assert_eq!(overhead(&report), "");
        let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        report.overhead_percent = Some(3.25);
        (report.wall_time, report.longest_chain) = (seconds(62), seconds(60));
        assert_eq!(overhead(&report), "3.2% (1m 02s for a chain of 1m 00s)");
    }
}
