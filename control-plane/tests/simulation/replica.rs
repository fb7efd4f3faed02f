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
use control_plane::runs::{self, Inbox, Notifier, Parts, Runs};
use engine::Instant;
use store::OwnerId;
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

impl Replica {
    /// Starts the life with this number, from 1.
    pub(crate) fn start(world: &World, number: u64, mut random: Random) -> Arc<Self> {
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
        let parts = Parts {
            definitions: Definitions::new(Arc::clone(&store)),
            store,
            owner: OwnerId(Uuid::from_u128(u128::from(number))),
            epoch: number,
            clock,
            dispatcher: dispatcher.clone(),
            notifier: notifier(),
        };
        let (runs, _write_path) = runs::spawn(parts, inbox, shutdown.clone());
        tokio::spawn(adopt(runs.clone(), dead.clone()));
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

async fn adopt(runs: Runs, dead: CancellationToken) {
    while !dead.is_cancelled() && runs.adopt_all().await.is_err() {
        tokio::time::sleep(control_plane::limits::STORE_RETRY_MAX).await;
    }
}

/// Nothing is configured, so that it posts nothing; made once, since it loads certificates.
fn notifier() -> Notifier {
    static NOTIFIER: OnceLock<Notifier> = OnceLock::new();
    NOTIFIER.get_or_init(|| Notifier::new(BTreeMap::new()).unwrap()).clone()
}
