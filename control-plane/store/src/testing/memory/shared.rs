//! What replicas share: leases, who holds which run, keys.

use std::collections::{BTreeMap, BTreeSet};

use engine::RunId;

use super::Figures;
use super::tables::{Tables, page};
use crate::limits::FOLDED_BYTES_MAX;
use crate::{
    Adoption, Heartbeat, JournalRow, KeyChange, KeyRow, Micros, NewReplica, OwnerId, Parking,
    ReplicaRow, ReplicaStatus, RunRow, Standing,
};

/// The tables of this.
#[derive(Debug, Default)]
pub(super) struct Shared {
    replicas: BTreeMap<OwnerId, ReplicaRow>,
    epoch: i64,
    parked: BTreeMap<RunId, Option<Micros>>,
    keys: BTreeMap<(i16, String), KeyRow>,
    /// Parked runs whose children have ended since.
    to_be_told: BTreeSet<RunId>,
    pub(super) figures: Figures,
}

impl Tables {
    pub(super) fn take_over(&mut self, run: RunId, from: Option<OwnerId>, to: OwnerId) -> Adoption {
        let Some(row) = self.runs.get_mut(&run) else { return Adoption::NotFound };
        if row.owner != from {
            return Adoption::OwnedBy(row.owner);
        }
        row.owner = Some(to);
        self.shared.parked.remove(&run);
        self.shared.to_be_told.remove(&run);
        Adoption::Adopted(Box::new(row.clone()))
    }

    fn take(
        &mut self,
        to: OwnerId,
        limit: u32,
        chosen: impl Fn(&RunRow, &Shared) -> bool,
    ) -> Vec<RunRow> {
        let Self { runs, shared, .. } = self;
        let open = runs.values_mut().filter(|row| row.ended_at.is_none());
        let taken = open.filter(|row| chosen(row, shared)).map(|row| {
            row.owner = Some(to);
            row.clone()
        });
        page(taken, limit)
    }

    pub(super) fn adopt_from(&mut self, from: OwnerId, to: OwnerId, limit: u32) -> Vec<RunRow> {
        self.take(to, limit, |row, _| row.owner == Some(from))
    }

    pub(super) fn adopt_orphans(&mut self, to: OwnerId, limit: u32) -> Vec<RunRow> {
        self.take(to, limit, |row, shared| {
            row.owner.is_some_and(|owner| owner != to && !shared.replicas.contains_key(&owner))
        })
    }

    pub(super) fn adopt_unowned(&mut self, to: OwnerId, limit: u32) -> Vec<RunRow> {
        self.take(to, limit, |row, shared| {
            row.owner.is_none() && !shared.parked.contains_key(&row.run_id)
        })
    }

    pub(super) fn fold_many(&self, runs: &[RunId]) -> Vec<(RunRow, Vec<JournalRow>)> {
        let mut room = FOLDED_BYTES_MAX;
        let folded = runs.iter().filter_map(|run| self.fold(*run));
        let fitting = folded.filter(|(_, events)| {
            let bytes = events.iter().map(|event| event.body.len()).sum();
            let left = room.checked_sub(bytes);
            room = left.unwrap_or(room);
            left.is_some()
        });
        fitting.collect()
    }

    pub(super) fn park(&mut self, owner: OwnerId, parkings: &[Parking]) -> Vec<RunId> {
        let mut parked = Vec::new();
        for Parking { run, version, wake_at, children } in parkings {
            let lives = |child| self.runs.get(child).is_some_and(|row| row.ended_at.is_none());
            if !children.iter().all(lives) {
                continue;
            }
            let row = self.runs.get_mut(run).filter(|row| {
                row.version == *version && row.owner == Some(owner) && row.ended_at.is_none()
            });
            let Some(row) = row else { continue };
            row.owner = None;
            self.shared.parked.insert(*run, *wake_at);
            self.shared.figures.parents_parked += u64::from(!children.is_empty());
            parked.push(*run);
        }
        parked.sort();
        parked
    }

    pub(super) fn wake_due(&mut self, to: OwnerId, now: Micros, limit: u32) -> Vec<RunRow> {
        let parked = self.shared.parked.iter();
        let due = parked.filter_map(|(run, wake_at)| Some(((*wake_at)?, *run)));
        let mut due: Vec<_> = due.filter(|(wake_at, _)| *wake_at <= now).collect();
        due.sort();
        let due = page(due.into_iter(), limit);
        let untold = due.iter().filter(|(_, run)| self.shared.to_be_told.contains(run)).count();
        self.shared.figures.parents_woken += untold as u64;
        let woken = due.into_iter().filter_map(|(_, run)| match self.take_over(run, None, to) {
            Adoption::Adopted(row) => Some(*row),
            _ => None,
        });
        woken.collect()
    }

    /// Has a run wake by then if it is parked.
    pub(super) fn wake_by(&mut self, run: RunId, at: Micros) {
        if let Some(wake_at) = self.shared.parked.get_mut(&run) {
            *wake_at = Some(wake_at.map_or(at, |before| before.min(at)));
            self.shared.to_be_told.insert(run);
        }
    }

    pub(super) fn next_wake(&self) -> Option<Micros> {
        self.shared.parked.values().copied().flatten().min()
    }

    pub(super) fn standings(&self, runs: &[RunId]) -> Vec<Standing> {
        let rows = runs.iter().filter_map(|run| self.runs.get(run));
        let standing = |row: &RunRow| Standing {
            run_id: row.run_id,
            owner: row.owner,
            version: row.version,
            ended: row.ended_at.is_some(),
        };
        rows.map(standing).collect()
    }

    pub(super) fn count_owned(&self) -> Vec<(Option<OwnerId>, u64)> {
        let mut counts = BTreeMap::new();
        for row in self.runs.values().filter(|row| row.ended_at.is_none()) {
            *counts.entry(row.owner).or_default() += 1;
        }
        counts.into_iter().collect()
    }

    pub(super) fn join(&mut self, replica: &NewReplica, at: Micros) -> ReplicaRow {
        let Shared { replicas, epoch, .. } = &mut self.shared;
        *epoch = at.max(*epoch + 1);
        let NewReplica { id, address, version, kinds } = replica.clone();
        let row = ReplicaRow {
            id,
            epoch: *epoch,
            address,
            version,
            kinds,
            lease: 1,
            status: ReplicaStatus::Serving,
            started_at: at,
            seen_at: at,
        };
        replicas.insert(id, row.clone());
        row
    }

    pub(super) fn heartbeat(
        &mut self,
        id: OwnerId,
        status: ReplicaStatus,
        at: Micros,
    ) -> Heartbeat {
        let row = self.shared.replicas.get_mut(&id);
        let row = row.filter(|row| row.status != ReplicaStatus::Fenced);
        let alive = row.is_some();
        if let Some(row) = row {
            row.lease += 1;
            row.status = status;
            row.seen_at = at;
        }
        Heartbeat { alive, replicas: self.replicas(), next_wake: self.next_wake() }
    }

    pub(super) fn fence(&mut self, id: OwnerId, seen_lease: Option<i64>) -> bool {
        let Some(row) = self.shared.replicas.get_mut(&id) else { return true };
        if seen_lease.is_none_or(|seen| seen == row.lease) {
            row.status = ReplicaStatus::Fenced;
        }
        row.status == ReplicaStatus::Fenced
    }

    pub(super) fn replicas(&self) -> Vec<ReplicaRow> {
        let mut rows: Vec<_> = self.shared.replicas.values().cloned().collect();
        rows.sort_by_key(|row| row.epoch);
        rows
    }

    pub(super) fn remove_replica(&mut self, id: OwnerId) -> bool {
        let mut open = self.runs.values().filter(|row| row.ended_at.is_none());
        let owns = open.any(|row| row.owner == Some(id));
        let row = self.shared.replicas.get(&id);
        let goes = !owns && row.is_some_and(|row| row.status == ReplicaStatus::Fenced);
        goes && self.shared.replicas.remove(&id).is_some()
    }

    pub(super) fn keys(&self, kind: i16, keys: &[&str]) -> Vec<KeyRow> {
        let rows = keys.iter().filter_map(|key| self.shared.keys.get(&(kind, (*key).to_owned())));
        rows.cloned().collect()
    }

    pub(super) fn list_keys(&self, after: Option<(i16, &str)>, limit: u32) -> Vec<KeyRow> {
        let rows = self
            .shared
            .keys
            .values()
            .filter(|row| after.is_none_or(|after| (row.kind, row.key.as_str()) > after));
        page(rows.cloned(), limit)
    }

    pub(super) fn put_keys(&mut self, changes: &[KeyChange]) -> Vec<bool> {
        changes.iter().map(|change| self.put_key(change)).collect()
    }

    fn put_key(&mut self, change: &KeyChange) -> bool {
        let KeyChange { kind, key, expected_version, version, body } = change.clone();
        let place = (kind, key.clone());
        let found = self.shared.keys.get(&place).map_or(0, |row| row.version);
        match body {
            // What is expected not to be there is not removed, and that is no loss.
            None if expected_version == 0 => true,
            _ if found != expected_version => false,
            None => self.shared.keys.remove(&place).is_some(),
            Some(body) => {
                self.shared.keys.insert(place, KeyRow { kind, key, version, body });
                true
            }
        }
    }
}
