//! `workflows execute`: starts a run, follows it, and prints its result.

use std::path::{Path, PathBuf};

use clap::Args;
use contracts::v1::start_run_request::Source;
use contracts::v1::{
    Complaint, Definition, GetRunRequest, GetWorkflowRequest, Run, StartRunRequest,
    ValidateWorkflowRequest, Workflow,
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::Session;
use crate::complaint::{self, Sources};
use crate::connection::orchestrator;
use crate::error::Error;
use crate::exit::Exit;
use crate::follow::{Followed, OnInterrupt, follow, interrupts_of_process};
use crate::params::{Schema, pair};
use crate::{definition, json, params, request_id, result, status};

/// How the server marks steps whose agent is not connected.
const AGENT_MISSING: &str = "AGENT_MISSING";

/// Executes a workflow and prints its result.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Without --server a control plane is started for this one run and ends with it.
Interrupt once (Ctrl-C) to cancel the run, twice to leave.

Exit status: 0 the run succeeded; 1 it failed, was rolled back or cancelled;
2 the file or the request was wrong; 3 the server could not be reached.

Examples:
  orchestrator workflows execute build.yml
  orchestrator workflows execute build.yml --param name=demo --param replicas=3
  orchestrator workflows execute build.yml --params-file params.json -o json | jq .outputs
  orchestrator workflows execute deploy@1.2.0 --server http://127.0.0.1:8000 --detach")]
pub struct Execute {
    /// A workflow file, or the name of a registered workflow: NAME or NAME@VERSION
    #[arg(value_name = "FILE|NAME[@VERSION]")]
    pub(super) target: String,
    /// A parameter: text where the declared type is string, else JSON
    #[arg(short, long = "param", value_name = "NAME=VALUE", value_parser = pair)]
    pub(super) params: Vec<(String, String)>,
    /// A file with a JSON object of parameters; `-` reads stdin; --param goes before it
    #[arg(long, value_name = "FILE")]
    pub(super) params_file: Option<PathBuf>,
    /// A label to write on the run
    #[arg(short, long = "label", value_name = "NAME=VALUE", value_parser = pair)]
    pub(super) labels: Vec<(String, String)>,
    /// The run's priority, 0 to 9, the higher the sooner
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..=9))]
    pub(super) priority: Option<i32>,
    /// Print the run's id and do not wait for its end
    #[arg(long)]
    pub(super) detach: bool,
    /// Makes the request repeatable: the same id starts no second run
    #[arg(long, value_name = "ID")]
    pub(super) request_id: Option<String>,
    /// Without a server: where the control plane keeps its data, in place of a temporary folder
    #[arg(long, value_name = "FOLDER")]
    pub(super) data_dir: Option<PathBuf>,
}

/// What is to be run, and what is known of it before.
struct Subject {
    source: Source,
    schema: Schema,
    sources: Sources,
    warnings: Vec<Complaint>,
}

pub(super) async fn run(execute: Execute, session: &mut Session) -> Result<Exit, Error> {
    if execute.detach && session.is_embedded {
        return Err(Error::request("`--detach` needs a server that lives on")
            .help("start one with `orchestrator up` and name it with `--server URL`"));
    }
    if execute.data_dir.is_some() && !session.is_embedded {
        return Err(Error::request("`--data-dir` and a server cannot both be named")
            .help("leave out `--data-dir`, or `--server` and ORCHESTRATOR_URL"));
    }
    let subject = subject(&execute.target, session).await?;
    let params = params::payload(&execute.params, execute.params_file.as_deref(), &subject.schema)?;
    // From here on an interrupt is for the run, which may already have started.
    let interrupts = session.interrupts.take().unwrap_or_else(interrupts_of_process);
    let request = StartRunRequest {
        source: Some(subject.source),
        params,
        priority: execute.priority,
        labels: execute.labels.into_iter().collect(),
        validate_only: false,
        request_id: request_id::request_id(execute.request_id.as_deref()),
        // The agents of an embedded control plane are all that will ever come.
        require_agents: session.is_embedded,
    };
    let run = start(request, subject.warnings, &subject.sources, session).await?;
    if execute.detach {
        return detached(&run, session);
    }
    session.output.note(&format!("run {} of `{}` started", run.run_id, run.workflow));
    match follow(session, &run, OnInterrupt::Cancel(interrupts)).await? {
        Followed::Ended(run) => finish(&run, session).await,
        Followed::Stuck => stuck(&run.run_id, session).await,
        Followed::Left => {
            let text = format!("left; `orchestrator runs get {}` shows how it ends", run.run_id);
            session.output.note(&text);
            Ok(Exit::RunFailed)
        }
    }
}

/// Prints the result of a run that has ended; says what to exit with.
pub(super) async fn finish(run: &Run, session: &mut Session) -> Result<Exit, Error> {
    let steps = result::steps(&session.client, &run.run_id).await?;
    let result = result::of(run, steps);
    result::write(run, &result, &mut session.output)?;
    Ok(status::exit(run.status()))
}

/// Prints what there is of a run that does not go on.
pub(super) async fn stuck(run_id: &str, session: &mut Session) -> Result<Exit, Error> {
    let run = get(run_id, session).await?;
    finish(&run, session).await?;
    let error = session.output.note_paint().red("error:");
    session.output.note(&format!(
        "{error} a defect stopped the run; `orchestrator doctor {run_id}` says more"
    ));
    Ok(Exit::RunFailed)
}

/// A run in the basic view.
pub(super) async fn get(run_id: &str, session: &Session) -> Result<Run, Error> {
    let request =
        GetRunRequest { run_id: run_id.to_owned(), view: contracts::v1::RunView::Basic.into() };
    let response = session
        .client
        .call(async |channel| orchestrator(channel).get_run(request.clone()).await)
        .await?;
    Ok(response.run.unwrap_or_default())
}

/// Checks a definition; one with errors is an error.
pub(super) async fn validate(
    definition: &Definition,
    sources: &Sources,
    session: &Session,
) -> Result<(Workflow, Vec<Complaint>), Error> {
    let request = ValidateWorkflowRequest { definition: Some(definition.clone()), params: None };
    let checked = session
        .client
        .call(async |channel| orchestrator(channel).validate_workflow(request.clone()).await)
        .await?;
    if checked.valid {
        Ok((checked.workflow.unwrap_or_default(), checked.complaints))
    } else {
        Err(Error::Complaints { complaints: checked.complaints, sources: sources.clone() })
    }
}

async fn subject(target: &str, session: &Session) -> Result<Subject, Error> {
    if definition::is_file(target) {
        let loaded = definition::load(Path::new(target))?;
        let (workflow, warnings) = validate(&loaded.definition, &loaded.sources, session).await?;
        return Ok(Subject {
            source: Source::Definition(loaded.definition),
            schema: Schema::of(workflow.params_schema.as_ref()),
            sources: loaded.sources,
            warnings,
        });
    }
    let (name, version) = target.rsplit_once('@').unwrap_or((target, ""));
    let request = GetWorkflowRequest { name: name.to_owned(), version: version.to_owned() };
    let found = session
        .client
        .call(async |channel| orchestrator(channel).get_workflow(request.clone()).await)
        .await;
    let found = match found {
        Err(Error::Refused(status)) if session.is_embedded && status.code() == Code::NotFound => {
            return Err(Error::request(format!(
                "`{target}` is neither a file nor a workflow that is registered here"
            ))
            .help("give a workflow file, or name the server that knows it with `--server URL`"));
        }
        other => other?,
    };
    let workflow = found.workflow.unwrap_or_default();
    Ok(Subject {
        source: Source::Workflow(target.to_owned()),
        schema: Schema::of(workflow.params_schema.as_ref()),
        sources: Sources::default(),
        warnings: Vec::new(),
    })
}

/// Starts the run and tells the warnings, those of the check and those of the start, once each.
async fn start(
    request: StartRunRequest,
    mut warnings: Vec<Complaint>,
    sources: &Sources,
    session: &mut Session,
) -> Result<Run, Error> {
    let started = session
        .client
        .call(async |channel| orchestrator(channel).start_run(request.clone()).await)
        .await;
    let started = match started {
        Ok(started) => started,
        Err(error) => return Err(told_by_places(error, warnings, sources, session)),
    };
    for complaint in started.complaints {
        if !warnings.contains(&complaint) {
            warnings.push(complaint);
        }
    }
    complaint::notes(&warnings, sources, &mut session.output);
    Ok(started.run.unwrap_or_default())
}

/// A refusal, told by places in the file as far as they are known.
fn told_by_places(
    error: Error,
    warnings: Vec<Complaint>,
    sources: &Sources,
    session: &mut Session,
) -> Error {
    let Error::Refused(status) = &error else { return error };
    let complaints = complaints_of(status);
    if !complaints.is_empty() {
        return Error::Complaints { complaints, sources: sources.clone() };
    }
    // The check has found the places of missing agents, as warnings.
    let lacks_agents = status
        .get_details_precondition_failure()
        .is_some_and(|failure| failure.violations.iter().any(|it| it.r#type == AGENT_MISSING));
    if lacks_agents && !warnings.is_empty() {
        if session.output.is_json() {
            return Error::Complaints { complaints: warnings, sources: sources.clone() };
        }
        complaint::notes(&warnings, sources, &mut session.output);
    }
    if session.output.is_json() { as_complaints(error) } else { error }
}

/// What the server complains of in a definition, where that is why it refuses.
fn complaints_of(status: &Status) -> Vec<Complaint> {
    #[derive(Default, serde::Deserialize)]
    #[serde(default)]
    struct Entry {
        file: String,
        line: usize,
        column: usize,
        message: String,
        suggestion: String,
    }
    let Some(info) = status.get_details_error_info() else { return Vec::new() };
    let Some(listed) = info.metadata.get("complaints") else { return Vec::new() };
    let entries: Vec<Entry> = serde_json::from_str(listed).unwrap_or_default();
    let complaint = |entry: Entry| Complaint {
        suggestion: entry.suggestion,
        ..complaint::error_at(&entry.file, entry.line, entry.column, entry.message)
    };
    entries.into_iter().map(complaint).collect()
}

/// A refusal of single fields, in the form in which scripts read what is wrong with a file.
/// Parameters come from the command line and have no line and column.
fn as_complaints(error: Error) -> Error {
    let Error::Refused(status) = &error else { return error };
    let Some(bad) =
        status.get_details_bad_request().filter(|_| status.code() == Code::InvalidArgument)
    else {
        return error;
    };
    let complaints = bad
        .field_violations
        .into_iter()
        .map(|violation| {
            complaint::error_at("", 0, 0, format!("{}: {}", violation.field, violation.description))
        })
        .collect();
    Error::Complaints { complaints, sources: Sources::default() }
}

fn detached(run: &Run, session: &mut Session) -> Result<Exit, Error> {
    if session.output.is_json() {
        let result = result::of(run, Vec::new());
        session.output.data(&json::message("WorkflowResult", &result))?;
    } else {
        session.output.data(&run.run_id)?;
        let text = format!("follow it with `orchestrator runs watch {}`", run.run_id);
        session.output.note(&text);
    }
    Ok(Exit::Success)
}
