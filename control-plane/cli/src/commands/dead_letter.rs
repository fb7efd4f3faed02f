//! `dead-letters`.

use clap::{Args, Subcommand};
use contracts::v1::{
    DeadLetter, DiscardDeadLetterRequest, GetDeadLetterRequest, ListDeadLettersRequest,
    ListDeadLettersResponse, ReplayDeadLetterRequest,
};

use super::run::{changed, json_text};
use super::{Session, count, pages};
use crate::connection::dead_letters;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::one_line;
use crate::request_id::request_id;
use crate::table::{Table, details};
use crate::{json, moment};

/// What can be done with dead letters.
#[derive(Subcommand, Clone, Debug)]
pub enum DeadLetterCommand {
    /// List tasks that were given up, the newest first
    #[command(after_help = "Example:\n  orchestrator dead-letters list")]
    List(List),
    /// Show one with its input
    #[command(after_help = "Example:\n  orchestrator dead-letters show RUN/deploy")]
    Show(Which),
    /// Retry the run from the step that was given up
    #[command(after_help = "Example:\n  orchestrator dead-letters replay RUN/deploy")]
    Replay(Which),
    /// Remove one; the run stays as it is
    #[command(after_help = "Example:\n  orchestrator dead-letters discard RUN/deploy")]
    Discard(Which),
}

/// Lists them.
#[derive(Args, Clone, Debug)]
pub struct List {
    /// How many at most
    #[arg(long, default_value_t = 100, value_name = "COUNT", value_parser = count)]
    limit: usize,
}

/// Names one.
#[derive(Args, Clone, Debug)]
pub struct Which {
    /// The dead letter's id: the run's id, a slash and the step's path
    id: String,
}

pub(super) async fn run(command: DeadLetterCommand, session: &mut Session) -> Result<Exit, Error> {
    match command {
        DeadLetterCommand::List(list) => self::list(list, session).await,
        DeadLetterCommand::Show(which) => show(which, session).await,
        DeadLetterCommand::Replay(which) => replay(which, session).await,
        DeadLetterCommand::Discard(which) => discard(which, session).await,
    }
}

async fn list(list: List, session: &mut Session) -> Result<Exit, Error> {
    let client = session.client.clone();
    let (letters, next_page_token) = pages(list.limit, async |page_size, page_token| {
        let request = ListDeadLettersRequest { page_size, page_token };
        let page = client
            .call(async |channel| dead_letters(channel).list_dead_letters(request.clone()).await)
            .await?;
        Ok((page.dead_letters, page.next_page_token))
    })
    .await?;
    if session.output.is_json() {
        let response = ListDeadLettersResponse { dead_letters: letters, next_page_token };
        session.output.data(&json::message("ListDeadLettersResponse", &response))?;
        return Ok(Exit::Success);
    }
    if letters.is_empty() {
        session.output.note("no task was given up; there is nothing to do");
        return Ok(Exit::Success);
    }
    let now = moment::now();
    let headings = ["DEAD LETTER", "WORKFLOW", "AGENT", "ACTION", "ATTEMPTS", "WHEN", "ERROR"];
    let mut table = Table::new(&headings, &session.output);
    for letter in &letters {
        table.row([
            letter.dead_letter_id.as_str(),
            &letter.workflow,
            &letter.agent,
            &letter.action,
            &letter.attempts.to_string(),
            &moment::relative(letter.create_time.as_ref(), now),
            &one_line(&letter.error, 100),
        ]);
    }
    session.output.data(&table.text())?;
    super::more(&next_page_token, session);
    Ok(Exit::Success)
}

async fn show(which: Which, session: &mut Session) -> Result<Exit, Error> {
    let request = GetDeadLetterRequest { dead_letter_id: which.id };
    let response = session
        .client
        .call(async |channel| dead_letters(channel).get_dead_letter(request.clone()).await)
        .await?;
    if session.output.is_json() {
        session.output.data(&json::message("GetDeadLetterResponse", &response))?;
        return Ok(Exit::Success);
    }
    let letter: DeadLetter = response.dead_letter.unwrap_or_default();
    let text = details(&[
        ("Dead letter", letter.dead_letter_id),
        ("Run", letter.run_id),
        ("Workflow", letter.workflow),
        ("Step", letter.step),
        ("Agent", letter.agent),
        ("Action", letter.action),
        ("Attempts", letter.attempts.to_string()),
        ("When", moment::local(letter.create_time.as_ref(), moment::now())),
        ("Error", letter.error),
        ("Code", letter.error_code),
        ("Input", json_text(letter.input.as_ref())),
    ]);
    session.output.data(&text)?;
    Ok(Exit::Success)
}

async fn replay(which: Which, session: &mut Session) -> Result<Exit, Error> {
    let request =
        ReplayDeadLetterRequest { dead_letter_id: which.id, request_id: request_id(None) };
    let response = session
        .client
        .call(async |channel| dead_letters(channel).replay_dead_letter(request.clone()).await)
        .await?;
    let document = json::message("ReplayDeadLetterResponse", &response);
    changed(response.run, &document, "is taken up again", session)
}

async fn discard(which: Which, session: &mut Session) -> Result<Exit, Error> {
    let request =
        DiscardDeadLetterRequest { dead_letter_id: which.id.clone(), request_id: request_id(None) };
    let response = session
        .client
        .call(async |channel| dead_letters(channel).discard_dead_letter(request.clone()).await)
        .await?;
    if session.output.is_json() {
        session.output.data(&json::message("DiscardDeadLetterResponse", &response))?;
    } else {
        session.output.data(&format!("{} is discarded", which.id))?;
    }
    Ok(Exit::Success)
}
