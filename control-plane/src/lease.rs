//! Whether this process may still act for its runs. Asked before every frame to an agent and
//! before every commit; no database and no wall clock here, only the process's own clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use engine::Instant;

/// A lease that its holder extends by renewing it in the database. Cheap to clone; all clones
/// are the same lease.
#[derive(Clone, Debug)]
pub struct Lease(Arc<AtomicI64>);

impl Lease {
    /// One that never runs out: nobody else can own the runs of this process.
    #[must_use]
    pub fn endless() -> Self {
        Self(Arc::new(AtomicI64::new(i64::MAX)))
    }

    /// One that holds until `until`.
    #[must_use]
    pub fn until(until: Instant) -> Self {
        Self(Arc::new(AtomicI64::new(until.0)))
    }

    /// Extends it to `until`, counted from before the renewal was asked for. It never shrinks by
    /// this, and one that was ended stays so.
    pub fn extend(&self, until: Instant) {
        // Only an ended lease is below zero, and it must stay there.
        let extended = |now: i64| (now >= 0).then_some(now.max(until.0));
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, extended);
    }

    /// Lets it run out at once; it may be extended again.
    pub fn lapse(&self) {
        let lapsed = |now: i64| (now >= 0).then_some(0);
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, lapsed);
    }

    /// Ends it for good.
    pub fn end(&self) {
        self.0.store(i64::MIN, Ordering::Release);
    }

    /// Whether it holds.
    #[must_use]
    pub fn holds(&self, now: Instant) -> bool {
        now.0 < self.0.load(Ordering::Acquire)
    }
}

impl Default for Lease {
    fn default() -> Self {
        Self::endless()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_holds_until_its_time_and_is_extended_forward_only() {
        let lease = Lease::until(Instant(10));
        assert!(lease.holds(Instant(9)));
        assert!(!lease.holds(Instant(10)));
        lease.extend(Instant(20));
        lease.extend(Instant(15));
        assert!(lease.holds(Instant(19)));
        assert!(!lease.holds(Instant(20)));
    }

    #[test]
    fn a_lapsed_lease_holds_again_once_it_is_extended() {
        let lease = Lease::until(Instant(10));
        lease.lapse();
        assert!(!lease.holds(Instant(9)));
        lease.extend(Instant(20));
        assert!(lease.holds(Instant(19)));
        lease.end();
        lease.lapse();
        lease.extend(Instant(30));
        assert!(!lease.holds(Instant(29)));
    }

    #[test]
    fn an_ended_lease_cannot_be_extended() {
        let lease = Lease::endless();
        assert!(lease.holds(Instant(i64::MAX - 1)));
        lease.clone().end();
        lease.extend(Instant(i64::MAX));
        assert!(!lease.holds(Instant(0)));
    }
}
