//! Steps a second of the group commit, for batches of 1, 64 and 500, or of the sizes given.
//!
//! `cargo run --release -p store --example commit_bench -- sqlite:/path/bench.db` or the address of
//! a PostgreSQL database, which should be empty. A step is a transition of two events, as of a
//! step that ends well and the next that is queued.
#![expect(clippy::print_stdout, reason = "the figures are what it is for")]
#![expect(clippy::disallowed_methods, reason = "it measures time, and its ids are only to differ")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::{ContentHash, RunId};
use store::{Commit, JournalRow, Outcome, RunRow, Store};

const WINDOW: Duration = Duration::from_secs(5);
/// Each run makes this many steps, then another takes its place.
const STEPS: i64 = 5;
/// What happens in a step.
const EVENTS: i64 = 2;
const COMMITTERS: usize = 2;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let url = std::env::args().nth(1).ok_or("give the address of a database")?;
    let store = store::open(&url).await?;
    let mut sizes: Vec<usize> = Vec::new();
    for size in std::env::args().skip(2) {
        sizes.push(size.parse()?);
    }
    if sizes.is_empty() {
        sizes = vec![1, 64, 500];
    }
    for size in sizes {
        let began = Instant::now();
        let committers = (0..COMMITTERS).map(|_| tokio::spawn(commit_for(store.clone(), size)));
        let mut steps = 0;
        let mut latencies = Vec::new();
        for committer in committers.collect::<Vec<_>>() {
            let (count, times) = committer.await??;
            steps += count;
            latencies.extend(times);
        }
        latencies.sort_unstable();
        let rate = steps as f64 / began.elapsed().as_secs_f64();
        let p50 = latencies[latencies.len() / 2];
        let p99 = latencies[latencies.len() * 99 / 100];
        println!("{} batch {size}: {rate:.0} steps/s, p50 {p50:?}, p99 {p99:?}", store.kind());
    }
    store.close().await;
    Ok(())
}

async fn commit_for(store: Arc<dyn Store>, size: usize) -> Result<(usize, Vec<Duration>), Failure> {
    let began = Instant::now();
    let mut batch: Vec<Commit> = (0..size).map(|place| start(place as i64 % STEPS)).collect();
    let (mut steps, mut latencies) = (0, Vec::new());
    while began.elapsed() < WINDOW {
        let sent = Instant::now();
        let outcomes = store.commit(&batch).await?;
        latencies.push(sent.elapsed());
        if let Some(lost) = outcomes.iter().find(|outcome| **outcome != Outcome::Committed) {
            return Err(format!("a transition was lost: {lost:?}").into());
        }
        steps += batch.len();
        batch.iter_mut().for_each(follow);
    }
    Ok((steps, latencies))
}

/// A new run; `head_start` spreads the ends of runs over the batches.
fn start(head_start: i64) -> Commit {
    let run = RunId(uuid::Uuid::now_v7());
    let row = RunRow {
        run_id: run,
        tenant: "default".to_owned(),
        workflow: "bench".to_owned(),
        version_name: "1.0.0".to_owned(),
        definition_hash: ContentHash::of(b"bench"),
        status: 1,
        version: EVENTS,
        owner: Some(store::OwnerId(uuid::Uuid::from_u128(1))),
        created_at: head_start,
        ended_at: None,
        parent: None,
        priority: 0,
        labels: b"{}".to_vec(),
        summary: br#"{"params":{"name":"bench"}}"#.to_vec(),
        wake_at: None,
    };
    Commit {
        run,
        expected_version: 0,
        events: events(1),
        row,
        request: None,
        dead_letters: Vec::new(),
        remove_dead_letters: Vec::new(),
        blobs: Vec::new(),
        documents: Vec::new(),
        audit: Vec::new(),
    }
}

/// Of what happens to a step, the bodies as long as they usually are.
fn events(first: i64) -> Vec<JournalRow> {
    let row = |seq, kind, body: String| JournalRow {
        seq,
        at: first,
        kind,
        schema: 1,
        body: body.into_bytes().into(),
    };
    let done = format!(
        r#"{{"n":{first},"step":"step_{first}","output":{{}},"by":{{"agent_type":"echo","instance":"host-1-00ff00"}}}}"#
    );
    let queued = format!(r#"{{"n":{first},"step":"step_{first}","agent":"echo"}}"#);
    vec![row(first, 6, done), row(first + 1, 3, queued)]
}

fn follow(commit: &mut Commit) {
    let step = commit.row.version / EVENTS;
    if step + commit.row.created_at >= STEPS * 2 || step >= STEPS {
        *commit = start(0);
        return;
    }
    commit.expected_version = commit.row.version;
    commit.row.version += EVENTS;
    commit.row.ended_at = (step + 1 == STEPS).then_some(1);
    commit.events = events(commit.expected_version + 1);
}
