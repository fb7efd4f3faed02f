//! The client commands, one file a noun.

mod agent;
mod audit;
mod checkpoint;
mod completion;
mod dead_letter;
mod doctor;
mod escalation;
mod execute;
mod metrics;
mod plan;
mod progress;
mod replica;
mod rollback;
mod run;
mod start_many;
mod triage;
mod workflow;

pub(crate) use completion::complete;

use std::path::Path;

use clap::Subcommand;
use tokio::sync::mpsc;

use crate::arguments::Globals;
use crate::connection::{Client, Connection};
use crate::error::Error;
use crate::exit::Exit;
use crate::output::Output;

const PAGE_SIZE: i32 = 1000;

/// The client commands.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Validate, register and execute workflows
    #[command(subcommand, visible_alias = "workflow")]
    Workflows(workflow::WorkflowCommand),
    /// List, follow and steer runs
    #[command(subcommand, visible_alias = "run")]
    Runs(run::RunCommand),
    /// See which agents are connected and how they are
    #[command(subcommand)]
    Agents(agent::AgentCommand),
    /// See the servers that share one database
    #[command(subcommand, visible_alias = "replica")]
    Replicas(replica::ReplicaCommand),
    /// Find out which agents mend which issues, and in which order
    #[command(after_help = "Issues are a list, or `issues`, `system` and `constraints`; see \
        docs/triage.md.\n\nExamples:\n  orchestrator triage issues.yml\n  \
        checks | orchestrator triage - -o json")]
    Triage(triage::TriageFile),
    /// See triages, and say which agents were right
    #[command(subcommand)]
    Triages(triage::TriageCommand),
    /// See the points to which a run can be rolled back
    #[command(subcommand, visible_alias = "checkpoint")]
    Checkpoints(checkpoint::CheckpointCommand),
    /// Plan a recovery from a triage, approve the plan and carry it out
    #[command(subcommand, visible_alias = "plan")]
    Plans(plan::PlanCommand),
    /// See how far a recovery is
    #[command(subcommand)]
    Progress(progress::ProgressCommand),
    /// See the questions that people are asked, and decide them
    #[command(subcommand, visible_alias = "escalation")]
    Escalations(escalation::EscalationCommand),
    /// Undo what a run has done
    #[command(subcommand, visible_alias = "rollbacks")]
    Rollback(rollback::RollbackCommand),
    /// Show counts and latencies of agents
    Metrics(metrics::Metrics),
    /// See what was decided and by whom, and verify that nobody changed it
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// See to tasks that were given up
    #[command(subcommand, visible_alias = "dead-letter")]
    DeadLetters(dead_letter::DeadLetterCommand),
    /// Say why runs wait and whether the control plane is well
    Doctor(doctor::Doctor),
    /// Print a completion script for a shell
    Completion(completion::Completion),
}

impl Command {
    /// Whether the command wants a control plane of its own: `workflows execute` where no server
    /// is named.
    pub fn wants_embedded(&self, globals: &Globals) -> bool {
        globals.server().is_none() && self.execute().is_some()
    }

    /// Where that control plane keeps its data; none means a temporary folder.
    pub fn data_dir(&self) -> Option<&Path> {
        self.execute()?.data_dir.as_deref()
    }

    fn execute(&self) -> Option<&execute::Execute> {
        match self {
            Command::Workflows(workflow::WorkflowCommand::Execute(execute)) => Some(execute),
            _ => None,
        }
    }
}

/// What a command works with.
pub(crate) struct Session {
    /// The control plane.
    pub(crate) client: Client,
    /// Where it writes.
    pub(crate) output: Output,
    /// Whether the control plane lives in this process, for this command alone.
    pub(crate) is_embedded: bool,
    /// Whether the user has interrupted once.
    pub(crate) is_cancelling: bool,
    /// The user's interrupts, in place of the process's own.
    interrupts: Option<mpsc::Receiver<()>>,
}

/// Carries out a command and reports what kept it from being done.
pub(crate) async fn run(
    command: Command,
    connection: Connection,
    mut output: Output,
    interrupts: Option<mpsc::Receiver<()>>,
) -> Exit {
    let is_embedded = matches!(connection, Connection::Channel(_));
    let client = match Client::new(connection) {
        Ok(client) => client,
        Err(error) => {
            error.report(&mut output);
            return error.exit();
        }
    };
    let mut session = Session { client, output, is_embedded, is_cancelling: false, interrupts };
    match dispatch(command, &mut session).await {
        Ok(exit) => exit,
        Err(error) => {
            error.report(&mut session.output);
            error.exit()
        }
    }
}

async fn dispatch(command: Command, session: &mut Session) -> Result<Exit, Error> {
    match command {
        Command::Workflows(command) => Box::pin(workflow::run(command, session)).await,
        Command::Runs(command) => Box::pin(run::run(command, session)).await,
        Command::Agents(command) => Box::pin(agent::run(command, session)).await,
        Command::Replicas(command) => replica::run(command, session).await,
        Command::Triage(command) => Box::pin(triage::triage(command, session)).await,
        Command::Triages(command) => Box::pin(triage::run(command, session)).await,
        Command::Checkpoints(command) => Box::pin(checkpoint::run(command, session)).await,
        Command::Escalations(command) => Box::pin(escalation::run(command, session)).await,
        Command::Rollback(command) => Box::pin(rollback::run(command, session)).await,
        Command::Plans(command) => Box::pin(plan::run(command, session)).await,
        Command::Progress(command) => Box::pin(progress::run(command, session)).await,
        Command::Metrics(command) => metrics::run(command, session).await,
        Command::Audit(command) => Box::pin(audit::run(command, session)).await,
        Command::DeadLetters(command) => Box::pin(dead_letter::run(command, session)).await,
        Command::Doctor(command) => Box::pin(doctor::run(command, session)).await,
        Command::Completion(_) => Ok(Exit::Success),
    }
}

/// How many entries a list shall have at most.
fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err("give a whole number from 1 on".to_owned()),
    }
}

/// Gathers pages up to `limit` entries; gives the token of the page behind where there is more.
async fn pages<T>(
    limit: usize,
    page: impl AsyncFn(i32, String) -> Result<(Vec<T>, String), Error>,
) -> Result<(Vec<T>, String), Error> {
    let mut entries = Vec::new();
    let mut token = String::new();
    loop {
        let missing = limit.saturating_sub(entries.len());
        let size = i32::try_from(missing).map_or(PAGE_SIZE, |missing| missing.min(PAGE_SIZE));
        let (more, next) = page(size.max(1), token.clone()).await?;
        // A server that repeats its token would otherwise be asked for ever.
        let is_stuck = next == token;
        entries.extend(more);
        token = next;
        if token.is_empty() || is_stuck || entries.len() >= limit {
            entries.truncate(limit);
            return Ok((entries, token));
        }
    }
}

/// Says that a list has more than what was shown.
fn more(next_page_token: &str, session: &mut Session) {
    if !next_page_token.is_empty() {
        session.output.note("… there are more; raise `--limit` to see them");
    }
}
