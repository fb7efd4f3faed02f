//! The machine that a replica lives on: its clock, and what befalls it. It may die, stand still
//! for a while, or not reach the store.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use control_plane::clock::Clock;
use engine::Instant;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// When virtual time begins: an instant in microseconds.
const BEGIN: i64 = 1_800_000_000_000_000;
/// How often whoever waits for a way looks whether it is there again.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Virtual time, as the clock of one machine shows it, which goes wrong by as much as it did when
/// the replica began. While the machine stands still, its time does.
pub(crate) struct MachineClock {
    origin: tokio::time::Instant,
    at_origin: Instant,
    pause: Pause,
}

impl MachineClock {
    /// One that is `ahead` of virtual time.
    pub(crate) fn new(ahead: Duration, pause: Pause) -> Self {
        let at_origin = Instant(BEGIN).after(crate::world::elapsed() + ahead);
        Self { origin: tokio::time::Instant::now(), at_origin, pause }
    }

    fn running(&self, at: tokio::time::Instant) -> Instant {
        self.at_origin.after(at.saturating_duration_since(self.origin))
    }
}

impl Clock for MachineClock {
    fn now(&self) -> Instant {
        self.running(self.pause.since().unwrap_or_else(tokio::time::Instant::now))
    }
}

/// Whether a machine stands still: whatever it asks, answers and sends waits, and what it decides
/// meanwhile it decides by the time at which it stopped. So what it had found to be allowed just
/// before is done when it goes on, however long that is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pause(Arc<Stood>);

/// Whoever waits goes on in the order of coming: the receivers of a `watch` channel are woken in
/// an order that no seed decides.
#[derive(Debug, Default)]
struct Stood {
    since: Mutex<Option<tokio::time::Instant>>,
    over: Notify,
}

impl Pause {
    fn since(&self) -> Option<tokio::time::Instant> {
        *self.0.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, since: Option<tokio::time::Instant>) {
        *self.0.since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    pub(crate) fn begin(&self) {
        self.set(Some(tokio::time::Instant::now()));
    }

    pub(crate) fn end(&self) {
        self.set(None);
        self.0.over.notify_waiters();
    }

    pub(crate) fn is_on(&self) -> bool {
        self.since().is_some()
    }

    /// Returns once the machine goes on.
    pub(crate) async fn over(&self) {
        while self.is_on() {
            // Nothing comes between the look and the wait: there is one thread.
            self.0.over.notified().await;
        }
    }
}

/// What has befallen a replica. Cheap to clone; all clones are the same fate.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fate {
    /// From now on nobody hears of it, and it hears of nobody.
    pub(crate) dead: CancellationToken,
    /// It cannot reach the store any more.
    pub(crate) cut_off: CancellationToken,
    /// It cannot reach the store just now.
    pub(crate) away: Away,
    pub(crate) pause: Pause,
}

/// Whether a way is closed just now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Away(Arc<AtomicBool>);

impl Away {
    pub(crate) fn set(&self, away: bool) {
        self.0.store(away, Ordering::Relaxed);
    }

    pub(crate) fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Returns once the way is there again.
    pub(crate) async fn over(&self) {
        wait_while(|| self.is_on()).await;
    }
}

/// Returns once something is over.
pub(crate) async fn wait_while(lasts: impl Fn() -> bool) {
    while lasts() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
