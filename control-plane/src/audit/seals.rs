//! Seals: once a minute one replica writes the heads of all chains that grew into one chain of its
//! own. Who would change a chain unseen has to change that one too, from there on.

use std::sync::Arc;

use engine::Instant;
use serde_json::json;
use store::{AuditHead, ReplicaStatus, Store};
use tokio_util::sync::CancellationToken;

use super::{Entry, Head};
use crate::clock::Clock;
use crate::limits;
use crate::replicas::Replicas;

/// The chain of the seals. No resource has a name without a slash.
pub const CHAIN: &str = "seal";
/// Who seals.
const ACTOR: &str = "orchestrator";

/// Seals from time to time, when it is this process's turn, until `shutdown`.
pub async fn run(
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    replicas: Replicas,
    shutdown: CancellationToken,
) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(limits::SEAL_EVERY) => {}
            () = shutdown.cancelled() => return,
        }
        let sealing = async {
            if is_ours(&*store, &replicas).await? {
                seal(&*store, clock.now()).await
            } else {
                Ok(0)
            }
        };
        let sealed = tokio::select! {
            sealed = sealing => sealed,
            () = shutdown.cancelled() => return,
        };
        match sealed {
            Ok(0) => {}
            Ok(chains) => tracing::debug!(chains, "sealed what was written to the audit log"),
            Err(error) => tracing::warn!(%error, "the audit log could not be sealed"),
        }
    }
}

/// One of those that serve seals: that of the least id. Should two think so for a while, each
/// seal is written by one of them.
pub(crate) async fn is_ours(store: &dyn Store, replicas: &Replicas) -> Result<bool, store::Error> {
    if store.kind() == "sqlite" {
        return Ok(true);
    }
    let rows = store.replicas().await?;
    let serving = rows.iter().filter(|row| row.status == ReplicaStatus::Serving);
    Ok(serving.map(|row| row.id).min() == Some(replicas.own().owner))
}

/// Seals all chains that grew since they were sealed last; gives how many.
///
/// # Errors
/// When the store does not do it.
pub async fn seal(store: &dyn Store, now: Instant) -> Result<usize, store::Error> {
    let mut sealed = 0;
    for _ in 0..limits::SEALS_AT_ONCE {
        let limit = u32::try_from(store::limits::SEAL_HEADS_MAX).unwrap_or(u32::MAX);
        let heads = store.unsealed_heads(limit).await?;
        if heads.is_empty() {
            break;
        }
        let mut head = Head::from(store.audit_head(CHAIN).await?);
        let row = head.add(entry(&heads), now);
        // Where it is taken another seals just now.
        if !store.seal(&row, &heads).await? {
            break;
        }
        sealed += heads.len();
    }
    Ok(sealed)
}

pub(super) fn entry(heads: &[AuditHead]) -> Entry {
    let head = |AuditHead { resource, number, hash }: &AuditHead| json!({"resource": resource, "number": number, "hash": hash.to_string()});
    let heads: Vec<_> = heads.iter().map(head).collect();
    Entry {
        resource: CHAIN.to_owned(),
        actor: ACTOR.to_owned(),
        action: "seal",
        body: json!({ "heads": heads }),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use store::testing::memory::Memory;

    use super::*;
    use crate::lease::Lease;
    use crate::replicas::{Config, Peers};

    struct Fixed(Instant);

    impl Clock for Fixed {
        fn now(&self) -> Instant {
            self.0
        }
    }

    async fn replica(store: &Arc<dyn Store>) -> Replicas {
        let clock: Arc<dyn Clock> = Arc::new(Fixed(Instant(1)));
        let config = Config::default();
        let peers = Peers::new(None, Arc::clone(&config.connect));
        let store = Arc::clone(store);
        Replicas::join(store, clock, &config, peers, Lease::endless()).await.unwrap()
    }

    /// Has one seal by its timer for as long as `time` of the paused clock, by its own time `at`.
    async fn seals_for(time: Duration, store: &Arc<dyn Store>, replica: &Replicas, at: i64) {
        let clock: Arc<dyn Clock> = Arc::new(Fixed(Instant(at)));
        let sealing = run(Arc::clone(store), clock, replica.clone(), CancellationToken::new());
        assert!(tokio::time::timeout(time, sealing).await.is_err(), "it goes on for good");
    }

    #[tokio::test(start_paused = true)]
    async fn one_replica_seals_once_a_minute_what_has_grown() {
        let store = Memory::new().open();
        let (one, other) = (replica(&store).await, replica(&store).await);
        let (ours, theirs) =
            if one.own().owner < other.own().owner { (one, other) } else { (other, one) };
        let entry = |resource: &str| Entry {
            resource: resource.to_owned(),
            actor: "ann".to_owned(),
            action: "x.do",
            body: json!({}),
        };
        crate::audit::append(&*store, &[entry("run/a")], Instant(2)).await.unwrap();
        seals_for(limits::SEAL_EVERY * 3, &store, &theirs, 3).await;
        assert_eq!(store.audit_head(CHAIN).await.unwrap(), None, "it is another's turn");
        seals_for(limits::SEAL_EVERY / 2, &store, &ours, 4).await;
        assert_eq!(store.audit_head(CHAIN).await.unwrap(), None, "it is not time yet");
        seals_for(limits::SEAL_EVERY * 3, &store, &ours, 5).await;
        let seals = store.audit_chain(CHAIN, 0, 9).await.unwrap();
        assert_eq!(seals.iter().map(|seal| seal.at).collect::<Vec<_>>(), [5], "once");
        crate::audit::append(&*store, &[entry("run/b")], Instant(6)).await.unwrap();
        seals_for(limits::SEAL_EVERY * 2, &store, &ours, 7).await;
        let seals = store.audit_chain(CHAIN, 1, 9).await.unwrap();
        let body = String::from_utf8(seals[0].body.clone()).unwrap();
        assert!(body.contains("run/b") && !body.contains("run/a"), "{body}");
    }
}
