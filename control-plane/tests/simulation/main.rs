//! Whole lives on virtual time: the real write path and the real dispatch, between a model of a
//! store and model agents, with faults everywhere; a seed decides everything. In the end the
//! journals are held against what the outside saw.
//!
//! `SIMULATION_START` and `SIMULATION_SEEDS` say which seeds are lived (`make simulate`); with
//! `SIMULATION_TRACE` set a life tells what happens. A seed that failed goes into `seeds.txt`.

#![expect(clippy::unwrap_used, reason = "tests")]

mod agent;
mod client;
mod conditions;
mod gate;
mod history;
mod machine;
mod network;
mod oracle;
mod random;
mod reference;
mod replica;
mod wires;
mod work;
mod workload;
mod world;

#[path = "../../engine/tests/model/expression.rs"]
mod expression;
#[path = "../../engine/tests/model/generate.rs"]
mod generate;
#[path = "../../engine/tests/model/here.rs"]
mod here;
#[path = "../../engine/tests/model/interpret.rs"]
mod interpret;
#[path = "../../engine/tests/model/language.rs"]
mod language;
#[path = "../../engine/tests/model/outcome.rs"]
mod outcome;
#[path = "../../engine/tests/model/plan.rs"]
mod plan;
#[path = "../../engine/tests/model/render.rs"]
mod render;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use conditions::Plan;
use random::Random;
use world::{Life, World};

/// Seeds lived when the environment does not say.
const SEEDS_DEFAULT: u64 = 100;
/// The same of several replicas.
const SEVERAL_DEFAULT: u64 = 60;

thread_local! {
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// A panic in a task of a life must not go unseen.
fn note_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.with_borrow_mut(|panics| panics.push(panic.to_string()));
            usual(panic);
        }));
    });
    PANICS.with_borrow_mut(Vec::clear);
}

fn live(seed: u64, plan: impl FnOnce(&mut Random) -> Plan) -> Result<Life, String> {
    note_panics();
    let mut random = Random::new(seed);
    let plan = plan(&mut random);
    let told = format!("{plan:?}");
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let life = runtime.unwrap().block_on(World::live(plan, random));
    let panics = PANICS.with_borrow_mut(std::mem::take);
    let life = match life {
        Ok(_) if !panics.is_empty() => Err(panics.join("\n")),
        life => life,
    };
    life.map_err(|what| format!("seed {seed}: {what}\n{told}"))
}

/// Lives all these, on as many threads as there are cores.
fn live_all(seeds: &[u64], plan: fn(&mut Random) -> Plan) -> Result<Vec<Life>, String> {
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let lives = std::thread::scope(|scope| {
        let work = || {
            let mut lives = Vec::new();
            while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                lives.push(live(*seed, plan));
            }
            lives
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let joined = workers.into_iter().map(|worker| worker.join().unwrap());
        joined.flatten().collect::<Vec<_>>()
    });
    let failed: Vec<&String> = lives.iter().filter_map(|life| life.as_ref().err()).collect();
    if let Some(first) = failed.first() {
        let seeds: Vec<&str> = failed.iter().filter_map(|text| text.split(':').next()).collect();
        return Err(format!(
            "{first}\n{} of {} lives failed: {seeds:?}\nagain: make simulate START=SEED SEEDS=1",
            failed.len(),
            lives.len()
        ));
    }
    Ok(lives.into_iter().map(Result::unwrap).collect())
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} must be a number, not `{text}`")))
}

#[test]
fn every_life_comes_to_a_good_end() {
    all_come_to_a_good_end(Plan::new, SEEDS_DEFAULT, &FAULTS);
}

#[test]
fn lives_of_several_replicas_come_to_a_good_end() {
    all_come_to_a_good_end(Plan::of_several, SEVERAL_DEFAULT, &FAULTS_OF_SEVERAL);
}

#[expect(clippy::print_stdout, reason = "what was lived, for whoever asked for many")]
fn all_come_to_a_good_end(plan: fn(&mut Random) -> Plan, usually: u64, expected: &[&str]) {
    let start = number("SIMULATION_START").unwrap_or(1);
    let count = number("SIMULATION_SEEDS").unwrap_or(usually);
    let seeds: Vec<u64> = (start..start + count).collect();
    let begun = std::time::Instant::now();
    let lives = live_all(&seeds, plan).unwrap_or_else(|what| panic!("{what}"));
    let (mut faults, mut ends, mut time) = (BTreeMap::new(), BTreeMap::new(), 0);
    for life in &lives {
        time += life.time.as_secs();
        life.faults.iter().for_each(|(what, count)| *faults.entry(*what).or_insert(0) += count);
        life.ends.iter().for_each(|(how, count)| *ends.entry(*how).or_insert(0) += count);
    }
    let took = begun.elapsed().as_secs_f64();
    println!("{count} lives, {time} s of virtual time in {took:.1} s; runs: {ends:?}");
    println!("faults: {faults:?}");
    if count >= usually {
        for how in ["success", "failure", "cancelled", "rolled_back"] {
            assert!(ends.contains_key(how), "no run ended as {how}: {ends:?}");
        }
        for what in expected {
            assert!(faults.contains_key(*what), "no fault was `{what}`: {faults:?}");
        }
    }
}

/// What must happen at times, lest the simulation looks away.
const FAULTS: [&str; 15] = [
    "unavailable store",
    "store outage",
    "slow store",
    "write lost, outcome unknown",
    "written, outcome unknown",
    "write of a dead replica",
    "replica crash",
    "replica cut off",
    "agent crash",
    "agent stall",
    "connection cut",
    "stalled direction",
    "frame twice",
    "parent parked",
    "parked in line",
];

/// What must happen at times where there are several replicas.
const FAULTS_OF_SEVERAL: [&str; 10] = [
    "store outage",
    "replica crash",
    "replica restart",
    "replica stall",
    "replica away from the store",
    "replicas parted",
    "link cut",
    "parent parked",
    "parked in line",
    "parent woken untold",
];

#[test]
fn seeds_that_failed_once_go_well() {
    let lines = || include_str!("seeds.txt").lines().map(|line| line.split('#').next().unwrap());
    let alone: Vec<u64> = lines().filter_map(|line| line.trim().parse().ok()).collect();
    live_all(&alone, Plan::new).unwrap_or_else(|what| panic!("{what}"));
    let several = lines().filter_map(|line| line.trim().strip_prefix("several "));
    let several: Vec<u64> = several.map(|seed| seed.parse().unwrap()).collect();
    live_all(&several, Plan::of_several).unwrap_or_else(|what| panic!("{what}"));
}

#[test]
fn the_same_seed_is_the_same_life() {
    for seed in 1..=6 {
        let [one, other] = [(); 2].map(|()| live(seed, Plan::new).unwrap());
        assert_eq!(one.fingerprint, other.fingerprint, "seed {seed}");
    }
    let [one, other] = [7, 8].map(|seed| live(seed, Plan::new).unwrap());
    assert_ne!(one.fingerprint, other.fingerprint);
}

/// Among them are stalls, deaths and restarts of replicas, and links that break.
#[test]
fn the_same_seed_is_the_same_life_of_several_replicas() {
    for seed in [1, 5, 22, 37, 38, 54, 61, 64] {
        let [one, other] = [(); 2].map(|()| live(seed, Plan::of_several).unwrap());
        assert_eq!(one.fingerprint, other.fingerprint, "seed {seed}");
    }
}

#[test]
fn runs_whose_take_over_gave_no_answer_go_on() {
    for seed in 1..=20 {
        live(seed, Plan::of_lost_take_overs).unwrap_or_else(|what| panic!("{what}"));
    }
}

#[test]
fn a_day_comes_to_a_good_end() {
    let seed = number("SIMULATION_START").unwrap_or(1);
    let life = live(seed, Plan::of_a_day).unwrap_or_else(|what| panic!("{what}"));
    assert!(life.time.as_secs() >= 24 * 3600);
}
