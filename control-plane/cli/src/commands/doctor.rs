//! `doctor`: why a run waits; or which runs do, and whether the deployment is well.

use std::time::Instant;

use clap::Args;
use contracts::v1::{
    AgentHealth, CheckStatus, DiagnoseRequest, DiagnoseRunRequest, DiagnoseRunResponse, Finding,
    Run, RunStatus,
};
use serde::Serialize;

use super::run::{filter, runs};
use super::{Session, agent};
use crate::connection::{Client, orchestrator};
use crate::error::Error;
use crate::exit::Exit;
use crate::output::{Paint, one_line};
use crate::{json, moment, status};

/// Runs looked at, of each status.
const RUNS_MAX: usize = 100;
const TEXT_CHARS_MAX: usize = 200;
/// The statuses in which a run may need help, the gravest first.
const LOOKED_AT: [RunStatus; 4] =
    [RunStatus::Stuck, RunStatus::Waiting, RunStatus::Paused, RunStatus::Running];

/// Says what is wrong.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  orchestrator doctor
  orchestrator doctor RUN
  orchestrator doctor -o json | jq '.servers[].checks[] | select(.status != \"ok\")'

It exits with 0 when nothing is broken (warnings are), with 1 when a check failed, and with 3 when
no server can be reached.")]
pub struct Doctor {
    /// The run's id; without it all runs that wait, and how servers, database and agents are
    run: Option<String>,
}

#[derive(Serialize)]
struct Report {
    servers: Vec<Server>,
    agents: Agents,
    runs: Vec<Waiting>,
}

#[derive(Serialize)]
struct Server {
    address: String,
    reachable: bool,
    latency: String,
    #[serde(skip)]
    latency_text: String,
    error: String,
    checks: Vec<Check>,
}

#[derive(Serialize)]
struct Check {
    name: String,
    status: &'static str,
    found: String,
    remedy: String,
}

#[derive(Default, Serialize)]
struct Agents {
    connected: usize,
    healthy: usize,
    unwell: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Waiting {
    run_id: String,
    workflow: String,
    status: &'static str,
    findings: Vec<Cause>,
}

#[derive(Serialize)]
struct Cause {
    step: String,
    cause: String,
    remedy: String,
    since: Option<String>,
    #[serde(skip)]
    since_text: Option<String>,
}

pub(super) async fn run(doctor: Doctor, session: &mut Session) -> Result<Exit, Error> {
    match doctor.run {
        Some(run) => one(&run, session).await,
        None => all(session).await,
    }
}

async fn diagnose(run_id: &str, session: &Session) -> Result<DiagnoseRunResponse, Error> {
    let request = DiagnoseRunRequest { run_id: run_id.to_owned() };
    session
        .client
        .call(async |channel| orchestrator(channel).diagnose_run(request.clone()).await)
        .await
}

async fn one(run_id: &str, session: &mut Session) -> Result<Exit, Error> {
    let diagnosis = diagnose(run_id, session).await?;
    if session.output.is_json() {
        session.output.data(&json::message("DiagnoseRunResponse", &diagnosis))?;
        return Ok(Exit::Success);
    }
    let word = status::run_word(diagnosis.status());
    let word = status::painted(word, word, session.output.data_paint());
    if diagnosis.findings.is_empty() {
        session.output.data(&format!("nothing holds the run up (status: {word})"))?;
        return Ok(Exit::Success);
    }
    let mut lines = vec![format!("status: {word}")];
    for finding in diagnosis.findings {
        lines.extend(cause(finding).lines());
    }
    session.output.data(&lines.join("\n"))?;
    Ok(Exit::Success)
}

fn cause(finding: Finding) -> Cause {
    Cause {
        since: finding.since.map(|since| json::duration(since.seconds, since.nanos)),
        since_text: moment::span(finding.since.as_ref()).map(moment::duration),
        step: finding.step,
        cause: finding.cause,
        remedy: finding.remedy,
    }
}

impl Cause {
    /// What is waited for and since when; below it what to do, on a line that can be copied.
    fn lines(&self) -> Vec<String> {
        let step = if self.step.is_empty() { "the run" } else { self.step.as_str() };
        let cause = one_line(&self.cause, TEXT_CHARS_MAX);
        let since = self.since_text.iter().map(|since| format!(" (for {since})"));
        let mut lines = vec![format!("  {step}: {cause}{}", since.collect::<String>())];
        if !self.remedy.is_empty() {
            lines.push(format!("    {}", one_line(&self.remedy, TEXT_CHARS_MAX)));
        }
        lines
    }
}

async fn all(session: &mut Session) -> Result<Exit, Error> {
    let servers = servers(&session.client).await;
    let reachable = servers.iter().any(|server| server.reachable);
    let mut checks = servers.iter().flat_map(|server| &server.checks);
    let is_broken = checks.any(|check| check.status == FAILURE);
    let mut report = Report { servers, agents: Agents::default(), runs: Vec::new() };
    if reachable {
        report.agents = agents(session).await?;
        for status in LOOKED_AT {
            let filter = filter(None, Some(status::run_word(status)));
            let (runs, _) = runs(&filter, RUNS_MAX, session).await?;
            for run in runs {
                report.runs.extend(waiting(run, session).await?);
            }
        }
    }
    if session.output.is_json() {
        let text = serde_json::to_string_pretty(&report).expect("plain data is always JSON");
        session.output.data(&text)?;
    } else {
        let text = text(&report, session);
        session.output.data(&text)?;
    }
    Ok(match (reachable, is_broken) {
        (false, _) => Exit::Unavailable,
        (true, true) => Exit::Unwell,
        (true, false) => Exit::Success,
    })
}

/// What holds a run up; none for one that goes on as it should.
async fn waiting(run: Run, session: &Session) -> Result<Option<Waiting>, Error> {
    let diagnosis = match diagnose(&run.run_id, session).await {
        Ok(diagnosis) => diagnosis,
        // It may have been removed since it was listed.
        Err(Error::Refused(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let findings: Vec<Cause> = diagnosis.findings.into_iter().map(cause).collect();
    if findings.is_empty() && diagnosis.status == i32::from(RunStatus::Running) {
        return Ok(None);
    }
    let status = RunStatus::try_from(diagnosis.status).unwrap_or_default();
    Ok(Some(Waiting {
        run_id: run.run_id,
        workflow: run.workflow,
        status: status::run_word(status),
        findings,
    }))
}

/// Asks each address how it is. One of a release before this question answers that it does not
/// know it, and is reachable all the same.
async fn servers(client: &Client) -> Vec<Server> {
    let mut servers = Vec::new();
    for (address, single) in client.singles() {
        let begun = Instant::now();
        let answer = single
            .call(async |channel| orchestrator(channel).diagnose(DiagnoseRequest {}).await)
            .await;
        let latency = begun.elapsed();
        let knows_not = matches!(
            &answer, Err(Error::Refused(status)) if status.code() == tonic::Code::Unimplemented
        );
        servers.push(Server {
            address,
            reachable: answer.is_ok() || knows_not,
            latency: json::duration(
                i64::try_from(latency.as_secs()).unwrap_or(i64::MAX),
                i32::try_from(latency.subsec_micros() * 1000).unwrap_or_default(),
            ),
            latency_text: moment::duration(latency),
            error: match &answer {
                Ok(_) => String::new(),
                Err(_) if knows_not => String::new(),
                Err(Error::Unreachable { cause, .. }) => cause.clone(),
                Err(error) => error.message(),
            },
            checks: answer.unwrap_or_default().checks.into_iter().map(check).collect(),
        });
    }
    servers
}

/// The word for a check that found something broken.
const FAILURE: &str = "failure";

fn check(check: contracts::v1::Check) -> Check {
    let status = match check.status() {
        CheckStatus::Ok => "ok",
        CheckStatus::Warning => "warning",
        CheckStatus::Failure => FAILURE,
        CheckStatus::Unspecified => "unknown",
    };
    let contracts::v1::Check { name, found, remedy, .. } = check;
    Check { name, status, found, remedy }
}

impl Check {
    fn lines(&self, paint: Paint) -> Vec<String> {
        let mark = match self.status {
            "ok" => paint.green("✓"),
            FAILURE => paint.red("✗"),
            _ => paint.yellow("!"),
        };
        let found = one_line(&self.found, TEXT_CHARS_MAX);
        let mut lines = vec![format!("  {mark} {}: {found}", self.name)];
        if self.status != "ok" && !self.remedy.is_empty() {
            lines.push(format!("    {}", one_line(&self.remedy, TEXT_CHARS_MAX)));
        }
        lines
    }
}

async fn agents(session: &Session) -> Result<Agents, Error> {
    let agents = agent::all(session).await?;
    let mut counted = Agents { connected: agents.len(), ..Agents::default() };
    for agent in agents {
        if agent.health() == AgentHealth::Healthy {
            counted.healthy += 1;
        } else {
            let word = status::health_word(agent.health());
            counted.unwell.push(format!("{} ({word})", agent.agent_id));
        }
    }
    Ok(counted)
}

fn text(report: &Report, session: &Session) -> String {
    let paint = session.output.data_paint();
    let mut lines = Vec::new();
    for server in &report.servers {
        lines.push(if server.reachable {
            let mark = paint.green("✓");
            format!("{mark} server {} answers within {}", server.address, server.latency_text)
        } else {
            format!("{} server {}: {}", paint.red("✗"), server.address, server.error)
        });
        lines.extend(server.checks.iter().flat_map(|check| check.lines(paint)));
    }
    if !report.servers.iter().any(|server| server.reachable) {
        lines.push("start one with `orchestrator up`, or name another with `--server URL`".into());
        return lines.join("\n");
    }
    let agents = &report.agents;
    lines.push(if agents.connected == 0 {
        let mark = paint.yellow("!");
        format!("{mark} no agent is connected; `orchestrator up` brings the bundled ones")
    } else if agents.unwell.is_empty() {
        format!("{} agents: {} connected, all healthy", paint.green("✓"), agents.connected)
    } else {
        let mark = paint.yellow("!");
        let unwell = one_line(&agents.unwell.join(", "), TEXT_CHARS_MAX);
        format!("{mark} agents: {} of {} healthy; {unwell}", agents.healthy, agents.connected)
    });
    if report.runs.is_empty() {
        lines.push(format!("{} runs: none waits", paint.green("✓")));
        return lines.join("\n");
    }
    lines.push(format!("{} runs that wait: {}", paint.yellow("!"), report.runs.len()));
    for run in &report.runs {
        let word = status::painted(run.status, run.status, paint);
        let workflow = one_line(&run.workflow, TEXT_CHARS_MAX);
        lines.push(format!("\nrun {}  {workflow}  {word}", run.run_id));
        lines.extend(run.findings.iter().flat_map(Cause::lines));
    }
    lines.join("\n")
}
