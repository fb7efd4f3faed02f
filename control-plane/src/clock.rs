//! What time it is. The one place where the process reads the wall clock, once, at its start;
//! from then on it goes on monotonically, so that a jump of the wall clock fires no time-out.

use std::sync::Arc;
use std::time::Duration;

use engine::Instant;

/// Gives the time.
pub trait Clock: Send + Sync + 'static {
    /// Now. Never runs back.
    fn now(&self) -> Instant;
}

/// The time of this machine.
#[derive(Debug)]
pub struct SystemClock {
    origin: std::time::Instant,
    at_origin: Instant,
}

impl SystemClock {
    /// Reads the wall clock.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where the process learns what time it is"
    )]
    pub fn new() -> Self {
        let since_epoch = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        let micros = i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX);
        Self { origin: std::time::Instant::now(), at_origin: Instant(micros) }
    }

    /// The same, to be shared.
    #[must_use]
    pub fn shared() -> Arc<dyn Clock> {
        Arc::new(Self::new())
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        self.at_origin.after(self.origin.elapsed())
    }
}

/// How long it is until `at`.
#[must_use]
pub fn until(clock: &dyn Clock, at: Instant) -> Duration {
    at.since(clock.now())
}
