//! How long things wait in a queue, as overload is known by it: a burst makes some things wait and
//! is over, overload makes even the luckiest wait. So of each window of time the least wait counts,
//! and what counts is known when the window is over. Pure: told when things happen.

use std::time::Duration;

use tokio::time::Instant;

/// The least wait of the last window.
#[derive(Debug)]
pub(crate) struct LeastWait {
    window: Duration,
    began: Instant,
    /// The least wait since then.
    least: Option<Duration>,
    /// The least wait of the last window in which something came out.
    before: Duration,
    /// When something came out last.
    heard: Instant,
}

impl LeastWait {
    pub(crate) fn new(window: Duration, now: Instant) -> Self {
        Self { window, began: now, least: None, before: Duration::ZERO, heard: now }
    }

    /// Something came out of the queue that was in it for so long.
    pub(crate) fn note(&mut self, now: Instant, waited: Duration) {
        self.roll(now);
        self.heard = now;
        self.least = Some(self.least.map_or(waited, |least| least.min(waited)));
    }

    /// What counts now. While nothing comes out of a queue that is not empty (`waits`), what was
    /// known last goes on.
    pub(crate) fn least(&mut self, now: Instant, waits: bool) -> Duration {
        self.roll(now);
        let unheard = now.saturating_duration_since(self.heard) >= 2 * self.window;
        if unheard && !waits { Duration::ZERO } else { self.before }
    }

    fn roll(&mut self, now: Instant) {
        if now.saturating_duration_since(self.began) < self.window {
            return;
        }
        if let Some(least) = self.least.take() {
            self.before = least;
        }
        self.began = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_millis(100);

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_burst_does_not_count_and_lasting_waits_do() {
        let began = Instant::now();
        let mut waits = LeastWait::new(WINDOW, began);
        waits.note(began + millis(10), millis(500));
        waits.note(began + millis(20), millis(3));
        waits.note(began + millis(30), millis(700));
        let least = waits.least(began + millis(40), true);
        assert_eq!(least, Duration::ZERO, "the window is not over");
        assert_eq!(waits.least(began + millis(110), true), millis(3), "one did not wait");
        waits.note(began + millis(120), millis(250));
        waits.note(began + millis(200), millis(400));
        assert_eq!(waits.least(began + millis(215), true), millis(250), "all waited");
    }

    #[test]
    fn a_queue_that_stands_still_is_as_it_was_and_an_empty_one_is_not() {
        let began = Instant::now();
        let mut waits = LeastWait::new(WINDOW, began);
        waits.note(began, millis(900));
        assert_eq!(waits.least(began + millis(150), false), millis(900));
        assert_eq!(waits.least(began + millis(950), true), millis(900), "it stands still");
        assert_eq!(waits.least(began + millis(950), false), Duration::ZERO, "nothing waits");
        waits.note(began + millis(960), millis(2));
        assert_eq!(waits.least(began + millis(1_070), true), millis(2));
    }
}
