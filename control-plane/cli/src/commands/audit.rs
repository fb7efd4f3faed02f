//! `audit`.

use clap::{Args, Subcommand};
use contracts::v1::{
    AuditChain, AuditEntry, ListAuditChainsRequest, ListAuditEntriesRequest,
    ListAuditEntriesResponse, VerifyAuditRequest, VerifyAuditResponse,
};

use super::run::json_text;
use super::{Session, count, pages};
use crate::audit::{Auditor, Found};
use crate::connection::audit;
use crate::error::Error;
use crate::exit::Exit;
use crate::table::Table;
use crate::{json, moment};

/// What can be done with the audit log.
#[derive(Subcommand, Clone, Debug)]
pub enum AuditCommand {
    /// List what was decided and by whom, the newest first
    #[command(after_help = "Examples:\n  orchestrator audit list\n  \
                            orchestrator audit list run/RUN\n  \
                            orchestrator audit list --actor ann --action run.cancel")]
    List(List),
    /// Compute all hashes again, follow all links and hold the seals against them
    #[command(after_help = "Exits with 1 where an entry was changed or is missing.\n\n\
                            Examples:\n  orchestrator audit verify\n  \
                            orchestrator audit verify run/RUN")]
    Verify(Verify),
}

/// Lists entries.
#[derive(Args, Clone, Debug)]
pub struct List {
    /// Those about this alone, in their order, as `run/RUN`
    resource: Option<String>,
    /// Those by this person alone
    #[arg(long, value_name = "WHO")]
    actor: Option<String>,
    /// Those that did this alone, as `run.cancel`
    #[arg(long, value_name = "WHAT")]
    action: Option<String>,
    /// How many at most
    #[arg(long, default_value_t = 100, value_name = "COUNT", value_parser = count)]
    limit: usize,
}

/// Verifies the log.
#[derive(Args, Clone, Debug)]
pub struct Verify {
    /// The one chain to look at, as `run/RUN`; all without it
    resource: Option<String>,
    /// Have the server compute the hashes instead of reading all entries
    #[arg(long)]
    on_server: bool,
}

pub(super) async fn run(command: AuditCommand, session: &mut Session) -> Result<Exit, Error> {
    match command {
        AuditCommand::List(list) => self::list(list, session).await,
        AuditCommand::Verify(verify) => self::verify(verify, session).await,
    }
}

async fn list(list: List, session: &mut Session) -> Result<Exit, Error> {
    let terms = [("resource", &list.resource), ("actor", &list.actor), ("action", &list.action)];
    let terms: Vec<String> = terms
        .into_iter()
        .filter_map(|(field, value)| Some(format!("{field}={}", value.as_ref()?)))
        .collect();
    let (filter, limit) = (terms.join(" AND "), list.limit);
    let is_chain = list.resource.is_some() && terms.len() == 1;
    let order_by = if is_chain { "number" } else { "" };
    let (entries, next_page_token) = entries(session, &filter, order_by, limit).await?;
    if session.output.is_json() {
        let response = ListAuditEntriesResponse { entries, next_page_token };
        session.output.data(&json::message("ListAuditEntriesResponse", &response))?;
        return Ok(Exit::Success);
    }
    if entries.is_empty() {
        session.output.note("nothing was decided yet that fits");
        return Ok(Exit::Success);
    }
    let now = moment::now();
    let headings = ["RESOURCE", "NUMBER", "WHEN", "WHO", "WHAT", "MORE"];
    let mut table = Table::new(&headings, &session.output);
    for entry in &entries {
        table.row([
            entry.resource.as_str(),
            &entry.number.to_string(),
            &moment::relative(entry.time.as_ref(), now),
            &entry.actor,
            &entry.action,
            &json_text(entry.body.as_ref()),
        ]);
    }
    session.output.data(&table.text())?;
    super::more(&next_page_token, session);
    Ok(Exit::Success)
}

async fn entries(
    session: &Session,
    filter: &str,
    order_by: &str,
    limit: usize,
) -> Result<(Vec<AuditEntry>, String), Error> {
    let client = session.client.clone();
    pages(limit, async |page_size, page_token| {
        let (filter, order_by) = (filter.to_owned(), order_by.to_owned());
        let request = ListAuditEntriesRequest { page_size, page_token, filter, order_by };
        let page = client
            .call(async |channel| audit(channel).list_audit_entries(request.clone()).await)
            .await?;
        Ok((page.entries, page.next_page_token))
    })
    .await
}

async fn chains(session: &Session) -> Result<Vec<AuditChain>, Error> {
    let client = session.client.clone();
    let (chains, _) = pages(usize::MAX, async |page_size, page_token| {
        let request = ListAuditChainsRequest { page_size, page_token };
        let page = client
            .call(async |channel| audit(channel).list_audit_chains(request.clone()).await)
            .await?;
        Ok((page.chains, page.next_page_token))
    })
    .await?;
    Ok(chains)
}

async fn verify(verify: Verify, session: &mut Session) -> Result<Exit, Error> {
    let found = if verify.on_server {
        on_server(verify.resource, session).await?
    } else {
        here(verify.resource, session).await?
    };
    let is_whole = found.broken.is_none();
    if session.output.is_json() {
        session.output.data(&found.json())?;
    } else {
        session.output.data(&found.text())?;
    }
    Ok(if is_whole { Exit::Success } else { Exit::RunFailed })
}

/// Reads all entries and computes their hashes in this process.
async fn here(resource: Option<String>, session: &Session) -> Result<Found, Error> {
    let mut auditor = Auditor::default();
    let seals = chain(session, Auditor::SEALS).await?;
    auditor.seals(&seals, resource.as_deref());
    let names = match resource {
        Some(resource) => vec![resource],
        None => chains(session).await?.into_iter().map(|chain| chain.resource).collect(),
    };
    for name in names.iter().filter(|name| *name != Auditor::SEALS) {
        if auditor.is_broken() {
            break;
        }
        auditor.chain(name, &chain(session, name).await?);
    }
    Ok(auditor.found())
}

async fn chain(session: &Session, resource: &str) -> Result<Vec<AuditEntry>, Error> {
    let filter = format!("resource={resource}");
    Ok(entries(session, &filter, "number", usize::MAX).await?.0)
}

async fn on_server(resource: Option<String>, session: &Session) -> Result<Found, Error> {
    let resource = resource.unwrap_or_default();
    let mut whole = VerifyAuditResponse::default();
    loop {
        let page_token = std::mem::take(&mut whole.next_page_token);
        let request = VerifyAuditRequest { resource: resource.clone(), page_token };
        let part = session
            .client
            .call(async |channel| audit(channel).verify_audit(request.clone()).await)
            .await?;
        whole = VerifyAuditResponse {
            chain_count: whole.chain_count + part.chain_count,
            entry_count: whole.entry_count + part.entry_count,
            seal_count: whole.seal_count + part.seal_count,
            ..part
        };
        if whole.next_page_token.is_empty() {
            return Ok(Found::of(whole));
        }
    }
}
