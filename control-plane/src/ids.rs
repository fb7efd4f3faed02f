//! Where new ids come from: the clock and randomness. Everything that is derived from something
//! else is derived by the engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use engine::{Instant, RunId};
use rand::RngExt as _;
use uuid::Uuid;

use crate::clock::Clock;

/// Where randomness comes from that decides when something happens, so that a test can decide it.
#[derive(Clone, Debug, Default)]
pub enum Randomness {
    /// From the system.
    #[default]
    System,
    /// From a seed: the same draws give the same numbers.
    Seeded(Arc<AtomicU64>),
}

impl Randomness {
    /// Numbers that a seed decides.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self::Seeded(Arc::new(AtomicU64::new(seed)))
    }

    fn bits(&self) -> u64 {
        match self {
            Self::System => u64::from_le_bytes(random()),
            Self::Seeded(state) => splitmix(state.fetch_add(SPLITMIX_STEP, Ordering::Relaxed)),
        }
    }

    /// A number from 0 to below 1.
    pub(crate) fn share(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "53 bits are what a float keeps")]
        let share = (self.bits() >> 11) as f64 / (1_u64 << 53) as f64;
        share
    }

    /// An id that nobody else has, as of a replica's life.
    pub(crate) fn unique(&self) -> Uuid {
        uuid::Builder::from_u128(u128::from(self.bits()) << 64 | u128::from(self.bits()))
            .with_variant(uuid::Variant::RFC4122)
            .with_version(uuid::Version::Random)
            .into_uuid()
    }

    /// A mark for a request that came without one.
    pub(crate) fn request_mark(&self) -> engine::event::RequestMark {
        engine::event::RequestMark { id: self.unique().to_string(), body: String::new() }
    }
}

const SPLITMIX_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

fn splitmix(state: u64) -> u64 {
    let mut mixed = state.wrapping_add(SPLITMIX_STEP);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A new run's id: a UUID of version 7 with the clock's time in front.
pub(crate) fn run_id(clock: &dyn Clock) -> RunId {
    run_id_at(clock.now())
}

fn run_id_at(now: Instant) -> RunId {
    let millis = u64::try_from(now.0 / 1000).unwrap_or(0);
    RunId(uuid::Builder::from_unix_timestamp_millis(millis, &random()).into_uuid())
}

/// An id for a person to look for in the log.
pub(crate) fn incident() -> String {
    let bytes: [u8; 6] = random();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An id that nobody else has.
pub(crate) fn unique() -> Uuid {
    uuid::Builder::from_random_bytes(random()).into_uuid()
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rng().fill(&mut bytes);
    bytes
}

#[expect(clippy::disallowed_methods, reason = "the one place where ids get their randomness")]
fn rng() -> rand::rngs::ThreadRng {
    rand::rng()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_the_numbers() {
        let draws = |randomness: &Randomness| [randomness.share(), randomness.share()];
        let [one, same, other] = [1, 1, 2].map(|seed| draws(&Randomness::seeded(seed)));
        assert_eq!(one, same);
        assert_ne!(one, other);
        assert_ne!(one[0], one[1]);
        let id = |seed| Randomness::seeded(seed).unique();
        assert_eq!(id(1), id(1));
        assert_ne!(id(1), id(2));
        assert_eq!(id(1).get_version_num(), 4);
        let shares = [one, other, draws(&Randomness::System)].concat();
        assert!(shares.iter().all(|share| (0.0..1.0).contains(share)), "{shares:?}");
    }

    #[test]
    fn ids_of_runs_sort_by_time_and_are_of_version_7() {
        let early = run_id_at(Instant(1_700_000_000_000_000));
        let late = run_id_at(Instant(1_700_000_000_001_000));
        assert!(early < late);
        assert_eq!(early.0.get_version_num(), 7);
        assert_ne!(late, run_id_at(Instant(1_700_000_000_001_000)));
    }
}
