//! A second opinion on the language: a small interpreter, written from the language's description
//! alone, runs random definitions beside the engine. At every moment both must have the same tasks
//! out and wait for the same time, and in the end they must tell the same of every step.

#![expect(clippy::unwrap_used, reason = "tests")]

mod compare;
mod expression;
mod generate;
mod here;
mod interpret;
mod language;
mod outcome;
mod plan;
mod render;

use proptest::prelude::*;

/// Lives when the environment does not say (`PROPTEST_CASES`).
const CASES_DEFAULT: u32 = 1500;

fn config() -> ProptestConfig {
    let cases = match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default().cases,
        None => CASES_DEFAULT,
    };
    let max_shrink_iters = 20_000;
    ProptestConfig { cases, max_shrink_iters, failure_persistence: None, ..Default::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_engine_does_what_the_description_says(
        bytes in proptest::collection::vec(any::<u8>(), 0..400), order: u64
    ) {
        let workflow = generate::workflow(&bytes);
        if let Err(difference) = compare::lives(&workflow, order) {
            return Err(TestCaseError::fail(difference));
        }
    }
}

#[test]
fn the_random_definitions_come_to_every_end() {
    let mut ends = std::collections::BTreeMap::new();
    let mut number = 1_u64;
    for _ in 0..300 {
        let bytes: Vec<u8> = (0..300)
            .map(|_| {
                number ^= number << 13;
                number ^= number >> 7;
                number ^= number << 17;
                u8::try_from(number >> 56).unwrap()
            })
            .collect();
        let end = compare::lives(&generate::workflow(&bytes), number).unwrap();
        *ends.entry(end).or_insert(0) += 1;
    }
    for end in ["success", "failure", "rolled_back"] {
        assert!(ends.get(end).is_some_and(|count| *count >= 10), "{ends:?}");
    }
}
