//! Where new ids come from: the clock and randomness. Everything that is derived from something
//! else is derived by the engine.

use engine::{Instant, RunId};
use rand::RngExt as _;
use uuid::Uuid;

use crate::clock::Clock;

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

/// A mark for a request that came without one.
pub(crate) fn request_mark() -> engine::event::RequestMark {
    engine::event::RequestMark { id: unique().to_string(), body: String::new() }
}

/// An id that nobody else has, as of a replica's life.
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
    fn ids_of_runs_sort_by_time_and_are_of_version_7() {
        let early = run_id_at(Instant(1_700_000_000_000_000));
        let late = run_id_at(Instant(1_700_000_000_001_000));
        assert!(early < late);
        assert_eq!(early.0.get_version_num(), 7);
        assert_ne!(late, run_id_at(Instant(1_700_000_000_001_000)));
    }
}
