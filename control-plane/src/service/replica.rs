//! The replicas that share the database, for people.

use contracts::v1;
use engine::Instant;
use store::ReplicaStatus;

use super::auth::Principal;
use super::status::Refusal;
use super::{Context, convert};
use crate::replicas::Standing;

/// Answers `ListReplicas`.
///
/// # Errors
/// When the store cannot be read.
pub async fn list(
    context: &Context,
    _who: &Principal,
    _request: v1::ListReplicasRequest,
) -> Result<v1::ListReplicasResponse, Refusal> {
    let replicas = context.replicas.list().await?;
    Ok(v1::ListReplicasResponse { replicas: replicas.into_iter().map(replica).collect() })
}

fn replica(standing: Standing) -> v1::Replica {
    let Standing { row, runs, lease_age, is_self } = standing;
    let status = match row.status {
        ReplicaStatus::Serving => v1::ReplicaStatus::Serving,
        ReplicaStatus::Draining => v1::ReplicaStatus::Draining,
        ReplicaStatus::Fenced => v1::ReplicaStatus::Fenced,
    };
    v1::Replica {
        replica_id: row.id.to_string(),
        address: row.address,
        version: row.version,
        status: status.into(),
        epoch: row.epoch,
        runs: i64::try_from(runs).unwrap_or(i64::MAX),
        lease_age: lease_age.map(convert::duration),
        is_self,
        start_time: Some(convert::timestamp(Instant(row.started_at))),
        renew_time: Some(convert::timestamp(Instant(row.seen_at))),
    }
}
