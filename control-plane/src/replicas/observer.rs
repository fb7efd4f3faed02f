//! Who is silent. A lease is a counter; whoever sees it unchanged for the lease time, on its own
//! clock, may fence its holder. Pure: rows and times in, verdicts out.

use std::collections::HashMap;
use std::time::Duration;

use engine::Instant;
use store::{OwnerId, ReplicaRow, ReplicaStatus};

/// What was seen of the replicas.
#[derive(Debug, Default)]
pub(super) struct Observer {
    /// The counter and since when it stands so.
    seen: HashMap<OwnerId, (i64, Instant)>,
}

impl Observer {
    /// Notes rows that were asked for and answered at these times; gives those whose counter has
    /// not changed for `lease`, with the counter.
    pub(super) fn observe(
        &mut self,
        rows: &[ReplicaRow],
        asked: Instant,
        answered: Instant,
        lease: Duration,
    ) -> Vec<(OwnerId, i64)> {
        self.seen.retain(|id, _| rows.iter().any(|row| row.id == *id));
        let mut silent = Vec::new();
        for row in rows.iter().filter(|row| row.status != ReplicaStatus::Fenced) {
            let (counter, since) = self.seen.entry(row.id).or_insert((row.lease, answered));
            if *counter != row.lease {
                (*counter, *since) = (row.lease, answered);
            } else if asked.since(*since) >= lease {
                silent.push((row.id, row.lease));
            }
        }
        silent
    }

    /// Since when a replica's counter stands as it does.
    pub(super) fn since(&self, id: OwnerId) -> Option<Instant> {
        self.seen.get(&id).map(|(_, since)| *since)
    }

    /// When the first of the others is silent for `lease`, if it stays so.
    pub(super) fn next_silence(&self, own: OwnerId, lease: Duration) -> Option<Instant> {
        let others = self.seen.iter().filter(|(id, _)| **id != own);
        others.map(|(_, (_, since))| since.after(lease)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_micros(100);

    fn row(lease: i64, status: ReplicaStatus) -> ReplicaRow {
        ReplicaRow {
            id: OwnerId(uuid::Uuid::from_u128(1)),
            epoch: 1,
            address: String::new(),
            version: String::new(),
            kinds: 1,
            lease,
            status,
            started_at: 0,
            seen_at: 0,
        }
    }

    #[test]
    fn whoever_is_silent_for_the_lease_time_is_found() {
        let mut observer = Observer::default();
        let mut at = |asked: i64, lease| {
            let rows = [row(lease, ReplicaStatus::Serving)];
            observer.observe(&rows, Instant(asked), Instant(asked + 10), LEASE)
        };
        assert_eq!(at(0, 1), []);
        // Not yet: what was first read at 10 may have been written just before.
        assert_eq!(at(109, 1), []);
        assert_eq!(at(110, 2), [], "it has spoken");
        assert_eq!(at(219, 2), []);
        assert_eq!(at(220, 2), [(row(2, ReplicaStatus::Serving).id, 2)]);
    }

    #[test]
    fn the_fenced_and_the_gone_are_not_waited_for() {
        let mut observer = Observer::default();
        let id = row(1, ReplicaStatus::Serving).id;
        observer.observe(&[row(1, ReplicaStatus::Serving)], Instant(0), Instant(0), LEASE);
        assert_eq!(observer.since(id), Some(Instant(0)));
        let other = OwnerId(uuid::Uuid::from_u128(2));
        assert_eq!(observer.next_silence(other, LEASE), Some(Instant(100)));
        assert_eq!(observer.next_silence(id, LEASE), None);
        let fenced = [row(1, ReplicaStatus::Fenced)];
        assert_eq!(observer.observe(&fenced, Instant(500), Instant(500), LEASE), []);
        observer.observe(&[], Instant(600), Instant(600), LEASE);
        assert_eq!(observer.since(id), None);
    }
}
