//! One life of a control plane: the real write path and the real dispatch, on the model of a store
//! behind a gate. It ends by dying in the middle of everything; the next life takes over.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use control_plane::clock::Clock;
use control_plane::definitions::Definitions;
use control_plane::dispatch::{self, Dispatcher};
use control_plane::ids::Randomness;
use control_plane::lease::Lease;
use control_plane::limits::STORE_RETRY_MAX;
use control_plane::runs::{self, Among, Inbox, Notifier, Parts, Runs};
use engine::Instant;
use store::{NewReplica, OwnerId, Store};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::gate::SimulatedGate;
use crate::random::Random;
use crate::world::World;

pub(crate) struct Replica {
    pub(crate) runs: Runs,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) dead: CancellationToken,
    cut_off: CancellationToken,
    /// Under which it may act.
    lease: Lease,
    shutdown: CancellationToken,
}

/// Virtual time, as the clock of one machine shows it.
struct SimulatedClock {
    origin: tokio::time::Instant,
    at_origin: Instant,
}

impl Clock for SimulatedClock {
    fn now(&self) -> Instant {
        self.at_origin.after(self.origin.elapsed())
    }
}

/// When virtual time begins: an instant in microseconds.
const BEGIN: i64 = 1_800_000_000_000_000;
/// By how much clocks of machines differ.
const SKEW_MAX: Duration = Duration::from_secs(2);
/// How often a life looks for runs that nobody has.
const LOOK_EVERY: Duration = Duration::from_secs(20);

impl Replica {
    /// Starts the life with this number, from 1; returns once it has a place among the replicas.
    pub(crate) async fn start(world: &World, number: u64, mut random: Random) -> Arc<Self> {
        let dead = CancellationToken::new();
        let shutdown = CancellationToken::new();
        let cut_off = CancellationToken::new();
        let gate = SimulatedGate {
            cut_off: cut_off.clone(),
            faults: world.plan.store,
            random: Mutex::new(random.fork()),
            weather: world.weather.clone(),
            dead: dead.clone(),
            history: world.history.clone(),
        };
        let store = world.memory.open_behind(Arc::new(gate));
        let skew = random.millis(0, u64::try_from(SKEW_MAX.as_millis()).unwrap());
        let at_origin = Instant(BEGIN).after(crate::world::elapsed() + skew);
        let origin = tokio::time::Instant::now();
        let clock: Arc<dyn Clock> = Arc::new(SimulatedClock { origin, at_origin });
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
        tokio::spawn(take_over(runs.clone(), dead.clone()));
        let waking = runs.clone();
        let stop = shutdown.clone();
        tokio::spawn(async move { waking.wake_parked(stop).await });
        Arc::new(Self { runs, dispatcher, dead, cut_off, lease, shutdown })
    }

    /// Cannot reach the store any more, and has lost its lease by the time that another takes over;
    /// agents and clients still reach it.
    pub(crate) fn cut_off(&self) {
        self.cut_off.cancel();
        self.lease.end();
    }

    /// Dies: from now on nobody hears of it, and it hears of nobody.
    pub(crate) fn crash(&self) {
        self.dead.cancel();
        self.shutdown.cancel();
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
