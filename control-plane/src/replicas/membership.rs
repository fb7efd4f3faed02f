//! The place of this process among the replicas: it joins, renews its lease, fences those that
//! are silent and takes their runs over, joins anew when it was fenced itself, and gives its runs
//! up when it stops. On SQLite there is nobody else, and no lease to be renewed.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use contracts::v1;
use contracts::v1::peer_service_client::PeerServiceClient;
use engine::Instant;
use store::{Heartbeat, NewReplica, OwnerId, ReplicaRow, ReplicaStatus, Store};
use tokio_util::sync::CancellationToken;
use tonic::Request;

use super::observer::Observer;
use super::{Peer, Peers};
use crate::clock::Clock;
use crate::dispatch::Dispatcher;
use crate::ids::Randomness;
use crate::lease::Lease;
use crate::limits;
use crate::runs::{Identity, Runs};

/// A lease is renewed so many times while it holds.
const RENEWALS: u32 = 4;

/// The replicas as this process sees them, and its own place. Cheap to clone.
#[derive(Clone)]
pub struct Replicas(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    peers: Peers,
    lease: Lease,
    lease_time: Duration,
    address: String,
    randomness: Randomness,
    own: Mutex<Identity>,
    status: Mutex<ReplicaStatus>,
    observer: Mutex<Observer>,
    /// Whose runs are being taken over just now.
    recovering: Mutex<HashSet<OwnerId>>,
}

/// A replica, for people.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Its row.
    pub row: ReplicaRow,
    /// How many unfinished runs it owns.
    pub runs: u64,
    /// How long ago its lease was seen renewed; `None`: it was not seen yet.
    pub lease_age: Option<Duration>,
    /// It is this process.
    pub is_self: bool,
}

impl Replicas {
    /// Joins the replicas that share `store`.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn join(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        config: &super::Config,
        peers: Peers,
        lease: Lease,
    ) -> Result<Self, store::Error> {
        let none = Identity { owner: OwnerId(uuid::Uuid::nil()), epoch: 0 };
        let replicas = Self(Arc::new(Inner {
            store,
            clock,
            peers,
            lease,
            lease_time: config.lease,
            address: config.address.clone(),
            randomness: config.randomness.clone(),
            own: Mutex::new(none),
            status: Mutex::new(ReplicaStatus::Serving),
            observer: Mutex::default(),
            recovering: Mutex::default(),
        }));
        let asked = replicas.join_as_new().await?;
        replicas.0.lease.extend(asked.after(replicas.0.lease_time));
        Ok(replicas)
    }

    /// Gives when this was asked for: from then on the lease counts.
    async fn join_as_new(&self) -> Result<Instant, store::Error> {
        let inner = &self.0;
        let kinds = engine::Event::KINDS.iter().map(|(kind, _)| *kind).max().unwrap_or(0);
        let new = NewReplica {
            id: OwnerId(inner.randomness.unique()),
            address: inner.address.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kinds,
        };
        let asked = inner.clock.now();
        let row = inner.store.join(&new, asked.0).await?;
        let epoch = u64::try_from(row.epoch).unwrap_or(1);
        *lock(&inner.own) = Identity { owner: row.id, epoch };
        Ok(asked)
    }

    /// Who this process is.
    #[must_use]
    pub fn own(&self) -> Identity {
        *lock(&self.0.own)
    }

    /// The others.
    #[must_use]
    pub fn peers(&self) -> &Peers {
        &self.0.peers
    }

    /// All replicas, for people.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn list(&self) -> Result<Vec<Standing>, store::Error> {
        let rows = self.0.store.replicas().await?;
        let owned = self.0.store.count_owned().await?;
        let own = self.own().owner;
        let now = self.0.clock.now();
        let observer = lock(&self.0.observer);
        let standing = |row: ReplicaRow| Standing {
            runs: owned.iter().find(|(id, _)| *id == Some(row.id)).map_or(0, |(_, count)| *count),
            lease_age: observer.since(row.id).map(|since| now.since(since)),
            is_self: row.id == own,
            row,
        };
        Ok(rows.into_iter().map(standing).collect())
    }

    /// How long a replica must be silent before the others take over its runs.
    #[must_use]
    pub fn lease_time(&self) -> Duration {
        self.0.lease_time
    }

    /// Looks at the replicas now: somebody says that one has given up.
    pub fn nudge(&self) {
        self.0.peers.nudge();
    }

    /// From now on this replica says that it stops.
    pub fn drain(&self) {
        *lock(&self.0.status) = ReplicaStatus::Draining;
        self.nudge();
    }

    /// Gives up what it owns, once nothing of it is in the commit any more, and tells the others.
    pub async fn leave(&self) {
        let own = self.own().owner;
        self.0.lease.end();
        match self.0.store.fence(own, None).await {
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "the others hear of this stop when the lease runs out");
                return;
            }
        }
        // With nothing left behind, nobody needs to look after it.
        if matches!(self.0.store.remove_replica(own).await, Ok(true)) {
            return;
        }
        let live = self.0.peers.live().borrow().clone();
        let told = live.iter().map(|peer| self.tell(peer.id, own));
        let told = futures::future::join_all(told);
        if tokio::time::timeout(limits::TAKE_OVER_WAIT_MAX, told).await.is_err() {
            tracing::debug!("a replica did not hear in time that this one stops");
        }
    }

    async fn tell(&self, peer: OwnerId, own: OwnerId) {
        let Some(channel) = self.0.peers.channel(peer) else { return };
        let mut request = Request::new(v1::TakeOverRequest { replica_id: own.to_string() });
        self.0.peers.authorize(&mut request);
        if let Err(status) = PeerServiceClient::new(channel).take_over(request).await {
            tracing::debug!(%status, "a replica did not hear that this one stops");
        }
    }

    /// Keeps the place among the replicas, and takes over what others left, until `shutdown`.
    pub async fn keep(self, runs: Runs, dispatcher: Dispatcher, shutdown: CancellationToken) {
        let kept = async {
            if self.0.store.kind() == "sqlite" {
                self.begin_alone(&runs).await;
            } else {
                self.share(&runs, &dispatcher).await;
            }
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = kept => {}
        }
    }

    /// The lock on the data directory says that all others are gone.
    async fn begin_alone(&self, runs: &Runs) {
        loop {
            match self.inherit(runs).await {
                Ok(0) => return,
                Ok(count) => {
                    tracing::info!(count, "took over unfinished runs");
                    return;
                }
                Err(error) => {
                    tracing::error!(%error, "unfinished runs cannot be taken over; trying again");
                    tokio::time::sleep(limits::STORE_RETRY_MAX).await;
                }
            }
        }
    }

    async fn inherit(&self, runs: &Runs) -> Result<usize, store::Error> {
        let store = &self.0.store;
        let mut count = 0;
        for row in store.replicas().await? {
            if row.id != self.own().owner {
                store.fence(row.id, None).await?;
                count += runs.adopt_from(row.id).await?;
                store.remove_replica(row.id).await?;
            }
        }
        count += runs.adopt_all().await?;
        if let Some(at) = store.next_wake().await? {
            runs.wakes_at(Instant(at));
        }
        Ok(count)
    }

    async fn share(&self, runs: &Runs, dispatcher: &Dispatcher) {
        let inner = &self.0;
        let pause = inner.lease_time / RENEWALS;
        let mut orphans_at = inner.clock.now();
        let (mut is_first, mut is_first_look) = (true, true);
        loop {
            let asked = inner.clock.now();
            let status = *lock(&inner.status);
            let wondered = inner.peers.take_asked();
            let beat = inner.store.heartbeat(self.own().owner, status, asked.0);
            // A lost answer must not cost the lease.
            let mut nap = pause;
            match tokio::time::timeout(pause, beat).await {
                Ok(Ok(beat)) if !beat.alive => self.rejoin(runs, dispatcher).await,
                Ok(Ok(beat)) => {
                    inner.lease.extend(asked.after(inner.lease_time));
                    let is_here = |id: &OwnerId| beat.replicas.iter().any(|row| row.id == *id);
                    let gone = wondered.into_iter().filter(|id| !is_here(id));
                    inner.peers.note_gone(gone);
                    self.heard(runs, beat, asked, std::mem::take(&mut is_first)).await;
                    if orphans_at <= asked {
                        orphans_at = asked.after(limits::ORPHANS_LOOK_EVERY);
                        self.look_for_orphans(runs, std::mem::take(&mut is_first_look));
                    }
                    let silence =
                        lock(&inner.observer).next_silence(self.own().owner, inner.lease_time);
                    let silence = silence.map(|at| at.since(inner.clock.now()));
                    nap = silence.map_or(pause, |silence| pause.min(silence.max(pause / 8)));
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the lease cannot be renewed just now");
                    nap = pause / RENEWALS;
                }
                Err(_) => {
                    tracing::warn!("the lease cannot be renewed just now: no answer in time");
                    nap = Duration::ZERO;
                }
            }
            tokio::select! {
                biased;
                () = inner.peers.nudged() => {}
                () = tokio::time::sleep(nap) => {}
            }
        }
    }

    /// Another replica has fenced this one: nothing is its own any more.
    async fn rejoin(&self, runs: &Runs, dispatcher: &Dispatcher) {
        let inner = &self.0;
        tracing::warn!("this replica was silent for too long, and joins anew");
        inner.lease.lapse();
        inner.peers.set(None, Vec::new());
        dispatcher.forget_all();
        runs.lose_all().await;
        let asked = loop {
            match self.join_as_new().await {
                Ok(asked) => break asked,
                Err(error) => tracing::warn!(%error, "this replica cannot join just now"),
            }
            tokio::time::sleep(limits::STORE_RETRY_MAX).await;
        };
        *lock(&inner.observer) = Observer::default();
        runs.become_owner(self.own());
        inner.lease.extend(asked.after(inner.lease_time));
        self.nudge();
    }

    /// What the others are about.
    async fn heard(&self, runs: &Runs, beat: Heartbeat, asked: Instant, is_first: bool) {
        let inner = &self.0;
        let own = self.own();
        let answered = inner.clock.now();
        let mut silent =
            lock(&inner.observer).observe(&beat.replicas, asked, answered, inner.lease_time);
        silent.retain(|(id, _)| *id != own.owner);
        let others = || beat.replicas.iter().filter(|row| row.id != own.owner);
        let lives = |row: &&ReplicaRow| row.status != ReplicaStatus::Fenced;
        if is_first && !inner.address.is_empty() {
            // Whoever said so before has lost the address to this process.
            let same = others().filter(lives).filter(|row| row.address == inner.address);
            silent.extend(same.map(|row| (row.id, row.lease)));
        }
        let mut fenced: Vec<OwnerId> =
            others().filter(|row| !lives(row)).map(|row| row.id).collect();
        for (id, counter) in silent {
            match inner.store.fence(id, Some(counter)).await {
                Ok(true) => {
                    tracing::warn!(replica = %id, "a replica is silent; its runs are taken over");
                    fenced.push(id);
                }
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "a silent replica cannot be fenced just now"),
            }
        }
        let peer = |row: &ReplicaRow| Peer {
            id: row.id,
            epoch: u64::try_from(row.epoch).unwrap_or(0),
            address: row.address.clone(),
        };
        let mut live: Vec<Peer> =
            others().filter(lives).filter(|row| !fenced.contains(&row.id)).map(peer).collect();
        live.sort_by_key(|peer| peer.epoch);
        let me = Peer { id: own.owner, epoch: own.epoch, address: inner.address.clone() };
        inner.peers.set(Some(me), live);
        inner.peers.note_gone(fenced.iter().copied());
        if *lock(&inner.status) == ReplicaStatus::Serving {
            fenced.retain(|id| understands(&beat.replicas, own.owner, *id));
            fenced.into_iter().for_each(|id| self.recover(runs, id));
        }
        if let Some(at) = beat.next_wake {
            runs.wakes_at(Instant(at));
        }
    }

    /// Takes over the runs of a replica that is fenced, beside the renewals of the lease.
    fn recover(&self, runs: &Runs, dead: OwnerId) {
        if !lock(&self.0.recovering).insert(dead) {
            return;
        }
        let (replicas, runs) = (self.clone(), runs.clone());
        tokio::spawn(async move {
            let recovered = async {
                let count = runs.adopt_from(dead).await?;
                replicas.0.store.remove_replica(dead).await?;
                Ok::<_, store::Error>(count)
            };
            match recovered.await {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, replica = %dead, "took over a replica's runs"),
                Err(error) => tracing::warn!(%error, "runs cannot be taken over just now"),
            }
            // Another look finds whatever is left.
            lock(&replicas.0.recovering).remove(&dead);
        });
    }

    /// Runs whose owner left no row: it was stalled in the middle of a start.
    fn look_for_orphans(&self, runs: &Runs, thoroughly: bool) {
        let runs = runs.clone();
        tokio::spawn(async move {
            let done = if thoroughly { runs.adopt_all().await } else { runs.adopt_orphans().await };
            match done {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, "took over runs that nobody had"),
                Err(error) => tracing::warn!(%error, "runs cannot be taken over just now"),
            }
        });
    }
}

/// Whether this replica is to take over the runs of `dead`: it understands all that may stand in
/// their journals, or nobody who lives does.
fn understands(rows: &[ReplicaRow], own: OwnerId, dead: OwnerId) -> bool {
    let kinds = |id| rows.iter().find(|row| row.id == id).map_or(0, |row| row.kinds);
    let needed = kinds(dead);
    let serves = |row: &&ReplicaRow| row.status == ReplicaStatus::Serving;
    kinds(own) >= needed || !rows.iter().filter(serves).any(|row| row.kinds >= needed)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Replicas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replicas").field("own", &self.own()).finish_non_exhaustive()
    }
}
