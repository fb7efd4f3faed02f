//! The fuzz targets on stable Rust: every seed of the corpus, and a bounded number of mutations of
//! them. The mutations are the same each time; `FUZZ_ITERATIONS` makes more of them, `FUZZ_FIRST`
//! begins with another number, as that of a failure.

#![expect(clippy::unwrap_used, reason = "tests")]

mod mutate;
mod targets;

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use engine::{EndedStatus, RunStatus};

use mutate::{Random, mutated};

/// Mutations of each target when the environment does not say.
const ITERATIONS_DEFAULT: u64 = 400;

#[test]
fn definitions_compile_or_complain() {
    let words = include_str!("words/definitions.txt");
    let good = fuzz("definitions", words, targets::definition);
    assert!(good.iter().any(|good| *good) && !good.iter().all(|good| *good));
}

#[test]
fn expressions_have_a_value_or_an_error() {
    let words = include_str!("words/expressions.txt");
    let good = fuzz("expressions", words, targets::expression);
    assert!(good.iter().any(|good| *good) && !good.iter().all(|good| *good));
}

#[test]
fn decisions_keep_their_promises() {
    let endings = fuzz("decide", "", targets::decide);
    for ending in [
        EndedStatus::Success,
        EndedStatus::Failure,
        EndedStatus::Cancelled,
        EndedStatus::RolledBack,
    ] {
        assert!(endings.contains(&RunStatus::Ended(ending)), "no run ended as {ending:?}");
    }
}

/// Runs a target over its seeds and their mutations; gives what it says of each.
fn fuzz<T>(corpus: &str, words: &str, target: impl Fn(&[u8]) -> T) -> Vec<T> {
    let seeds = seeds(corpus);
    let words: Vec<&str> = words.lines().collect();
    let mut said = Vec::new();
    for (path, bytes) in &seeds {
        said.push(run(&target, bytes, &path.display().to_string()));
    }
    let number = |name: &str, default| match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} must be a number")),
        Err(_) => default,
    };
    let first = number("FUZZ_FIRST", 0);
    for iteration in first..first + number("FUZZ_ITERATIONS", ITERATIONS_DEFAULT) {
        let mut random = Random::new(iteration);
        let (path, seed) = &seeds[random.below(seeds.len())];
        let (_, other) = &seeds[random.below(seeds.len())];
        let bytes = mutated(seed, other, &words, &mut random);
        let name = format!("FUZZ_FIRST={iteration} FUZZ_ITERATIONS=1, from {}", path.display());
        said.push(run(&target, &bytes, &name));
    }
    said
}

#[expect(clippy::print_stdout, reason = "the input that fails must be seen")]
fn run<T>(target: &impl Fn(&[u8]) -> T, bytes: &[u8], name: &str) -> T {
    match panic::catch_unwind(AssertUnwindSafe(|| target(bytes))) {
        Ok(said) => said,
        Err(cause) => {
            println!("failed with {name}:\n{}", String::from_utf8_lossy(bytes));
            panic::resume_unwind(cause);
        }
    }
}

/// The seeds of a target, in the order of their paths.
fn seeds(corpus: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus").join(corpus);
    let mut folders = vec![root];
    let mut seeds = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = fs::read(&path).unwrap();
                seeds.push((path, bytes));
            }
        }
    }
    seeds.sort();
    assert!(seeds.len() >= 5, "the corpus has too few seeds");
    seeds
}
