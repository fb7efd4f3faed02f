//! `workflows`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use contracts::v1::{ListWorkflowsRequest, ListWorkflowsResponse, RegisterWorkflowRequest};

use super::execute::{self, Execute};
use super::{Session, count, pages};
use crate::connection::orchestrator;
use crate::error::Error;
use crate::exit::Exit;
use crate::table::Table;
use crate::{complaint, definition, json, moment, request_id, result};

/// What can be done with workflows.
#[derive(Subcommand, Clone, Debug)]
pub enum WorkflowCommand {
    /// List registered workflows
    #[command(after_help = "Examples:\n  orchestrator workflows list\n  \
        orchestrator workflows list -o json | jq -r '.workflows[].name'")]
    List(List),
    /// Check a workflow file and say everything that is wrong with it
    #[command(after_help = "Examples:\n  orchestrator workflows validate build.yml\n  \
        orchestrator workflows validate build.yml -o json | jq '.complaints'")]
    Validate(Validate),
    /// Execute a workflow and print its result
    Execute(Execute),
    /// Show the result of a run as far as it is
    #[command(after_help = "Examples:\n  orchestrator workflows status RUN\n  \
        orchestrator workflows status RUN -o json | jq -r .status")]
    Status(Status),
    /// Register a workflow under its name and version, and activate its schedule
    #[command(after_help = "Examples:\n  orchestrator workflows register deploy.yml\n  \
        orchestrator workflows register deploy.yml --replace\n  \
        orchestrator workflows register deploy.yml --validate-only")]
    Register(Register),
}

/// Lists registered workflows.
#[derive(Args, Clone, Debug)]
pub struct List {
    /// How many at most
    #[arg(long, default_value_t = 1000, value_name = "COUNT", value_parser = count)]
    limit: usize,
}

/// Checks a file.
#[derive(Args, Clone, Debug)]
pub struct Validate {
    /// The workflow file
    file: PathBuf,
}

/// Shows the result of a run.
#[derive(Args, Clone, Debug)]
pub struct Status {
    /// The run's id
    run: String,
}

/// Registers a file.
#[derive(Args, Clone, Debug)]
pub struct Register {
    /// The workflow file
    file: PathBuf,
    /// Replace other content under the same name and version
    #[arg(long)]
    replace: bool,
    /// Check everything and store nothing
    #[arg(long)]
    validate_only: bool,
}

pub(super) async fn run(command: WorkflowCommand, session: &mut Session) -> Result<Exit, Error> {
    match command {
        WorkflowCommand::List(list) => self::list(list, session).await,
        WorkflowCommand::Validate(validate) => self::validate(validate, session).await,
        WorkflowCommand::Execute(execute) => Box::pin(execute::run(execute, session)).await,
        WorkflowCommand::Status(status) => self::status(status, session).await,
        WorkflowCommand::Register(register) => self::register(register, session).await,
    }
}

async fn list(list: List, session: &mut Session) -> Result<Exit, Error> {
    let client = session.client.clone();
    let (workflows, next_page_token) = pages(list.limit, async |page_size, page_token| {
        let request = ListWorkflowsRequest { page_size, page_token };
        let page = client
            .call(async |channel| orchestrator(channel).list_workflows(request.clone()).await)
            .await?;
        Ok((page.workflows, page.next_page_token))
    })
    .await?;
    if session.output.is_json() {
        let response = ListWorkflowsResponse { workflows, next_page_token };
        session.output.data(&json::message("ListWorkflowsResponse", &response))?;
        return Ok(Exit::Success);
    }
    if workflows.is_empty() {
        let text = "no workflows are registered; add one with `orchestrator workflows register \
                    FILE`, or run a file with `orchestrator workflows execute FILE`";
        session.output.note(text);
        return Ok(Exit::Success);
    }
    let now = moment::now();
    let headings = ["NAME", "VERSION", "SCHEDULE", "NEXT", "REGISTERED", "DESCRIPTION"];
    let mut table = Table::new(&headings, &session.output);
    for workflow in &workflows {
        table.row([
            workflow.name.as_str(),
            or_dash(&workflow.version),
            or_dash(&workflow.schedule),
            &moment::relative(workflow.next_fire_time.as_ref(), now),
            &moment::relative(workflow.create_time.as_ref(), now),
            &crate::output::one_line(&workflow.description, 80),
        ]);
    }
    session.output.data(&table.text())?;
    super::more(&next_page_token, session);
    Ok(Exit::Success)
}

async fn validate(validate: Validate, session: &mut Session) -> Result<Exit, Error> {
    let loaded = definition::load(&validate.file)?;
    let (workflow, complaints) =
        execute::validate(&loaded.definition, &loaded.sources, session).await?;
    if session.output.is_json() {
        session.output.data(&complaint::json(&complaints))?;
        return Ok(Exit::Success);
    }
    complaint::notes(&complaints, &loaded.sources, &mut session.output);
    let version = match workflow.version.as_str() {
        "" => String::new(),
        version => format!(" {version}"),
    };
    let file = validate.file.display();
    session.output.data(&format!("{file} is valid: {}{version}", workflow.name))?;
    Ok(Exit::Success)
}

async fn status(status: Status, session: &mut Session) -> Result<Exit, Error> {
    let run = execute::get(&status.run, session).await?;
    let steps = result::steps(&session.client, &run.run_id).await?;
    result::write(&run, &result::of(&run, steps), &mut session.output)?;
    Ok(Exit::Success)
}

async fn register(register: Register, session: &mut Session) -> Result<Exit, Error> {
    let loaded = definition::load(&register.file)?;
    let (_, warnings) = execute::validate(&loaded.definition, &loaded.sources, session).await?;
    let request = RegisterWorkflowRequest {
        definition: Some(loaded.definition),
        replace: register.replace,
        etag: String::new(),
        validate_only: register.validate_only,
        request_id: request_id::request_id(None),
    };
    let response = session
        .client
        .call(async |channel| orchestrator(channel).register_workflow(request.clone()).await)
        .await?;
    if session.output.is_json() {
        session.output.data(&json::message("RegisterWorkflowResponse", &response))?;
        return Ok(Exit::Success);
    }
    let warnings = if response.complaints.is_empty() { warnings } else { response.complaints };
    complaint::notes(&warnings, &loaded.sources, &mut session.output);
    let workflow = response.workflow.unwrap_or_default();
    let verb = if register.validate_only { "could be registered" } else { "is registered" };
    let mut text = format!("{} {verb}", versioned(&workflow.name, &workflow.version));
    if !workflow.schedule.is_empty() {
        let next = moment::local(workflow.next_fire_time.as_ref(), moment::now());
        text.push_str(&format!("; schedule `{}`, next {next}", workflow.schedule));
    }
    session.output.data(&text)?;
    Ok(Exit::Success)
}

/// `name@version`, or the name alone.
pub(super) fn versioned(name: &str, version: &str) -> String {
    if version.is_empty() { name.to_owned() } else { format!("{name}@{version}") }
}

pub(super) fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}
