//! `checkpoints`.

use clap::{Args, Subcommand};
use contracts::v1::{GetCheckpointRequest, ListCheckpointsRequest, ListCheckpointsResponse};

use super::run::json_text;
use super::workflow::or_dash;
use super::{Session, count, pages};
use crate::connection::recovery;
use crate::error::Error;
use crate::exit::Exit;
use crate::table::{Table, details};
use crate::{json, moment, status};

/// What can be done with checkpoints.
#[derive(Subcommand, Clone, Debug)]
pub enum CheckpointCommand {
    /// List the checkpoints of a run, the oldest first; the start is one
    #[command(after_help = "Example:\n  orchestrator checkpoints list RUN")]
    List(List),
    /// Show a checkpoint with the steps that had settled
    #[command(after_help = "Example:\n  orchestrator checkpoints show RUN before-deploy")]
    Show(Show),
}

/// Lists them.
#[derive(Args, Clone, Debug)]
pub struct List {
    /// The run's id
    run: String,
    /// How many at most
    #[arg(long, default_value_t = 1000, value_name = "COUNT", value_parser = count)]
    limit: usize,
}

/// Names one.
#[derive(Args, Clone, Debug)]
pub struct Show {
    /// The run's id
    run: String,
    /// The checkpoint's name, of which the last counts, or its sequence
    checkpoint: String,
}

pub(super) async fn run(command: CheckpointCommand, session: &mut Session) -> Result<Exit, Error> {
    match command {
        CheckpointCommand::List(list) => self::list(list, session).await,
        CheckpointCommand::Show(show) => self::show(show, session).await,
    }
}

async fn list(list: List, session: &mut Session) -> Result<Exit, Error> {
    let client = session.client.clone();
    let (checkpoints, next_page_token) = pages(list.limit, async |page_size, page_token| {
        let request = ListCheckpointsRequest { run_id: list.run.clone(), page_size, page_token };
        let page = client
            .call(async |channel| recovery(channel).list_checkpoints(request.clone()).await)
            .await?;
        Ok((page.checkpoints, page.next_page_token))
    })
    .await?;
    if session.output.is_json() {
        let response = ListCheckpointsResponse { checkpoints, next_page_token };
        session.output.data(&json::message("ListCheckpointsResponse", &response))?;
        return Ok(Exit::Success);
    }
    let now = moment::now();
    let mut table =
        Table::new(&["CHECKPOINT", "SEQ", "BEHIND", "SETTLED", "WHEN", "HASH"], &session.output);
    for checkpoint in &checkpoints {
        table.row([
            checkpoint.name.as_str(),
            &checkpoint.sequence.to_string(),
            or_dash(&checkpoint.step),
            &checkpoint.settled_count.to_string(),
            &moment::relative(checkpoint.time.as_ref(), now),
            checkpoint.content_hash.get(..12).unwrap_or_default(),
        ]);
    }
    session.output.data(&table.text())?;
    super::more(&next_page_token, session);
    Ok(Exit::Success)
}

async fn show(show: Show, session: &mut Session) -> Result<Exit, Error> {
    let request = GetCheckpointRequest { run_id: show.run, checkpoint: show.checkpoint };
    let response = session
        .client
        .call(async |channel| recovery(channel).get_checkpoint(request.clone()).await)
        .await?;
    if session.output.is_json() {
        session.output.data(&json::message("GetCheckpointResponse", &response))?;
        return Ok(Exit::Success);
    }
    let checkpoint = response.checkpoint.unwrap_or_default();
    let mut text = details(&[
        ("Checkpoint", checkpoint.name),
        ("Run", checkpoint.run_id),
        ("Sequence", checkpoint.sequence.to_string()),
        ("Behind step", checkpoint.step),
        ("When", moment::local(checkpoint.time.as_ref(), moment::now())),
        ("Params", json_text(checkpoint.params.as_ref())),
        ("Hash", checkpoint.content_hash),
    ]);
    if !checkpoint.settled_steps.is_empty() {
        let mut table = Table::new(&["STEP", "STATUS", "OUTPUT HASH"], &session.output);
        for step in &checkpoint.settled_steps {
            let word = status::step_word(step.status());
            table.row([step.step.as_str(), word, or_dash(&step.output_hash)]);
        }
        text.push_str("\n\n");
        text.push_str(&table.text());
    }
    session.output.data(&text)?;
    Ok(Exit::Success)
}
