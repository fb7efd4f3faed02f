//! One life of a control plane: the real write path and the real dispatch, on the model of a store
//! behind a gate. It ends by dying in the middle of everything; the next life takes over. One of
//! several is the whole core, with leases, peers and agents lent.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use control_plane::clock::Clock;
use control_plane::core::Core;
use control_plane::definitions::Definitions;
use control_plane::dispatch::{self, Dispatcher};
use control_plane::ids::Randomness;
use control_plane::lease::Lease;
use control_plane::limits::{AGENTS_LEAVE_WAIT_MAX, STORE_RETRY_MAX};
use control_plane::replicas;
use control_plane::runs::{self, Among, Inbox, Notifier, Parts, Runs};
use control_plane::testing;
use engine::Instant;
use store::{NewReplica, OwnerId, Store};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::gate::SimulatedGate;
use crate::machine::{Fate, MachineClock};
use crate::random::Random;
use crate::wires::{self, Wires};
use crate::world::World;

pub(crate) struct Replica {
    pub(crate) runs: Runs,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) fate: Fate,
    kind: Kind,
}

enum Kind {
    /// The only one that lives.
    Alone {
        /// Under which it may act.
        lease: Lease,
        shutdown: CancellationToken,
    },
    /// One of several: the whole core of the product.
    Among {
        core: Mutex<Option<Core>>,
        /// Where the others connect.
        door: mpsc::UnboundedSender<std::io::Result<DuplexStream>>,
    },
}

/// By how much clocks of machines differ, where one replica lives after another.
const SKEW_MAX: Duration = Duration::from_secs(2);
/// How often a life looks for runs that nobody has.
const LOOK_EVERY: Duration = Duration::from_secs(20);
/// How long a stop may take before it is killed.
const STOP_WAIT: Duration = Duration::from_secs(20);

fn gate(world: &World, fate: &Fate, random: &mut Random) -> Arc<SimulatedGate> {
    Arc::new(SimulatedGate {
        fate: fate.clone(),
        faults: world.plan.store,
        random: Mutex::new(random.fork()),
        weather: world.weather.clone(),
        history: world.history.clone(),
    })
}

fn clock(skew: Duration, fate: &Fate, random: &mut Random) -> Arc<dyn Clock> {
    let ahead = random.millis(0, u64::try_from(skew.as_millis()).unwrap());
    Arc::new(MachineClock::new(ahead, fate.pause.clone()))
}

impl Replica {
    /// Starts the life with this number, from 1; returns once it has a place among the replicas.
    pub(crate) async fn start(world: &World, number: u64, mut random: Random) -> Arc<Self> {
        let shutdown = CancellationToken::new();
        let fate = Fate::default();
        let store = world.memory.open_behind(gate(world, &fate, &mut random));
        let clock = clock(SKEW_MAX, &fate, &mut random);
        let randomness = Randomness::seeded(random.next());
        let lease = Lease::endless();
        let config =
            dispatch::Config { lease: lease.clone(), randomness, ..dispatch::Config::default() };
        let dispatcher = Dispatcher::new(config, Arc::clone(&clock));
        let inbox = Inbox::new();
        dispatcher.start(inbox.sink(), shutdown.clone());
        let owner = OwnerId(Uuid::from_u128(u128::from(number)));
        let epoch = join(&*store, owner, clock.now()).await;
        let parts = Parts {
            definitions: Definitions::new(Arc::clone(&store)),
            store,
            owner,
            epoch,
            clock,
            dispatcher: dispatcher.clone(),
            notifier: notifier(),
        };
        // Some park what only waits, at once or after a while.
        let park_after = random.one_in(2).then(|| random.millis(0, 5_000));
        let among = Among { lease: lease.clone(), park_after, ..Among::default() };
        let (runs, _write_path) = runs::spawn_among(parts, among, inbox, shutdown.clone());
        tokio::spawn(take_over(runs.clone(), fate.dead.clone()));
        let waking = runs.clone();
        let stop = shutdown.clone();
        tokio::spawn(async move { waking.wake_parked(stop).await });
        Arc::new(Self { runs, dispatcher, fate, kind: Kind::Alone { lease, shutdown } })
    }

    /// Starts one of several, which share runs and agents as the product has it.
    pub(crate) async fn start_among(
        world: &Arc<World>,
        slot: usize,
        skew: Duration,
        mut random: Random,
    ) -> Arc<Self> {
        let fate = Fate::default();
        let clock = clock(skew, &fate, &mut random);
        let wires = Wires::new(Arc::clone(world), slot, fate.clone(), random.fork());
        let replica = replicas::Config {
            address: wires::address(slot),
            park_after: random.one_in(2).then(|| random.millis(0, 5_000)),
            connect: Arc::new(wires),
            randomness: Randomness::seeded(random.next()),
            ..replicas::Config::default()
        };
        let core = loop {
            let store = world.memory.open_behind(gate(world, &fate, &mut random));
            let randomness = Randomness::seeded(random.next());
            let dispatch = dispatch::Config { randomness, ..dispatch::Config::default() };
            let clock = Arc::clone(&clock);
            match Core::over(store, notifier(), dispatch, replica.clone(), clock).await {
                Ok(core) => break core,
                Err(_) => tokio::time::sleep(STORE_RETRY_MAX).await,
            }
        };
        let (door, incoming) = mpsc::unbounded_channel();
        let served = testing::serve_peers(&core, UnboundedReceiverStream::new(incoming));
        let dead = fate.dead.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = dead.cancelled() => {}
                served = served => served.unwrap(),
            }
        });
        let (runs, dispatcher) = (core.runs.clone(), core.dispatcher.clone());
        let kind = Kind::Among { core: Mutex::new(Some(core)), door };
        Arc::new(Self { runs, dispatcher, fate, kind })
    }

    /// Whether it has nothing to do.
    pub(crate) fn is_idle(&self) -> bool {
        let counts = self.dispatcher.counts();
        self.runs.active() == 0 && counts.queued == 0 && counts.running == 0
    }

    /// Takes a connection of another replica; `None` when nobody takes any.
    pub(crate) fn serve_peer(&self, connection: DuplexStream) -> Option<()> {
        match &self.kind {
            Kind::Alone { .. } => None,
            Kind::Among { door, .. } => door.send(Ok(connection)).ok(),
        }
    }

    /// Cannot reach the store any more, and has lost its lease by the time that another takes over;
    /// agents and clients still reach it.
    pub(crate) fn cut_off(&self) {
        self.fate.cut_off.cancel();
        if let Kind::Alone { lease, .. } = &self.kind {
            lease.end();
        }
    }

    /// Dies: from now on nobody hears of it, and it hears of nobody.
    pub(crate) fn crash(&self) {
        self.fate.dead.cancel();
        match &self.kind {
            Kind::Alone { shutdown, .. } => shutdown.cancel(),
            Kind::Among { core, .. } => {
                let core = core.lock().unwrap_or_else(PoisonError::into_inner).take();
                core.iter().for_each(Core::die);
            }
        }
    }

    /// Stops as it is asked to: what it has goes to the others.
    pub(crate) async fn stop(&self) {
        if let Kind::Among { core, .. } = &self.kind {
            let core = core.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(core) = core {
                core.replicas.drain();
                self.dispatcher.leave();
                tokio::time::sleep(AGENTS_LEAVE_WAIT_MAX).await;
                drop(tokio::time::timeout(STOP_WAIT, core.stop()).await);
            }
        }
        self.crash();
    }
}

/// Takes a place among the replicas, however long that takes; gives the epoch.
async fn join(store: &dyn Store, id: OwnerId, now: Instant) -> u64 {
    let kinds = engine::Event::KINDS.iter().map(|(kind, _)| *kind).max().unwrap();
    let (address, version) = (String::new(), "1".to_owned());
    let new = NewReplica { id, address, version, kinds };
    loop {
        if let Ok(row) = store.join(&new, now.0).await {
            return u64::try_from(row.epoch).unwrap();
        }
        // Perhaps it has joined, and did not hear of it.
        if let Ok(rows) = store.replicas().await
            && let Some(row) = rows.iter().find(|row| row.id == id)
        {
            return u64::try_from(row.epoch).unwrap();
        }
        tokio::time::sleep(STORE_RETRY_MAX).await;
    }
}

/// Takes over what all lives before have left, and looks again: what one of them wrote last may
/// have come late.
async fn take_over(runs: Runs, dead: CancellationToken) {
    while !dead.is_cancelled() {
        let pause = match take_over_once(&runs).await {
            Ok(()) => LOOK_EVERY,
            Err(_) => STORE_RETRY_MAX,
        };
        tokio::time::sleep(pause).await;
    }
}

async fn take_over_once(runs: &Runs) -> Result<(), store::Error> {
    let (store, own) = (runs.store(), runs.identity().owner);
    for row in store.replicas().await? {
        if row.id == own {
            continue;
        }
        store.fence(row.id, None).await?;
        runs.adopt_from(row.id).await?;
        store.remove_replica(row.id).await?;
    }
    runs.adopt_all().await?;
    Ok(())
}

/// Nothing is configured, so that it posts nothing; made once, since it loads certificates.
fn notifier() -> Notifier {
    static NOTIFIER: OnceLock<Notifier> = OnceLock::new();
    NOTIFIER.get_or_init(|| Notifier::new(BTreeMap::new()).unwrap()).clone()
}
