//! `replicas`.

use clap::Subcommand;
use contracts::v1::{ListReplicasRequest, ReplicaStatus};

use super::Session;
use crate::connection::orchestrator;
use crate::error::Error;
use crate::exit::Exit;
use crate::table::Table;
use crate::{json, moment};

/// What can be asked of replicas.
#[derive(Subcommand, Clone, Debug)]
pub enum ReplicaCommand {
    /// List the servers that share the database, and how each is
    #[command(after_help = "Examples:\n  orchestrator replicas list\n  \
        orchestrator replicas list -o json | jq -r '.replicas[].address'")]
    List,
}

pub(super) async fn run(command: ReplicaCommand, session: &mut Session) -> Result<Exit, Error> {
    let ReplicaCommand::List = command;
    let call = async |channel| orchestrator(channel).list_replicas(ListReplicasRequest {}).await;
    let response = session.client.call(call).await?;
    if session.output.is_json() {
        session.output.data(&json::message("ListReplicasResponse", &response))?;
        return Ok(Exit::Success);
    }
    let now = moment::now();
    let headings = ["REPLICA", "ADDRESS", "STATUS", "RUNS", "LEASE SEEN", "STARTED", "VERSION", ""];
    let mut table = Table::new(&headings, &session.output);
    for replica in &response.replicas {
        let status = match replica.status() {
            ReplicaStatus::Serving => "serving",
            ReplicaStatus::Draining => "draining",
            ReplicaStatus::Fenced => "fenced",
            ReplicaStatus::Unspecified => "unknown",
        };
        let seen = moment::span(replica.lease_age.as_ref());
        let seen =
            seen.map_or_else(|| "-".to_owned(), |age| format!("{} ago", moment::duration(age)));
        let address = if replica.address.is_empty() { "-" } else { &replica.address };
        table.row([
            replica.replica_id.get(..8).unwrap_or(&replica.replica_id),
            address,
            status,
            &replica.runs.to_string(),
            &seen,
            &moment::relative(replica.start_time.as_ref(), now),
            &replica.version,
            if replica.is_self { "answers" } else { "" },
        ]);
    }
    session.output.data(&table.text())?;
    Ok(Exit::Success)
}
