//! The bare commit statement: what the store alone does with the rows of real runs.
//!
//! `Store::commit` is called as the product calls it (as many committers, batches as large),
//! with the journal and the rows that a run of the same workload left behind, transition by
//! transition. No engine, no agents, no gRPC: what is left between this and the product's figure
//! is what those cost.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use engine::RunId;
use store::{Commit, JournalRow, Outcome, OwnerId, RunRow, Store};
use tokio::sync::Notify;

use crate::host::agents::monotonic_micros;
use crate::host::database::{Database, Kind};
use crate::host::usage;

/// One run as the store has it, cut into its transitions.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    row: RunRow,
    /// The summary of a run that has not ended.
    summary_before: Vec<u8>,
    transitions: Vec<Vec<JournalRow>>,
}

impl Recorded {
    /// Reads a run that has ended from the store of a server.
    pub(crate) async fn read(url: &str, run_id: &str) -> anyhow::Result<Self> {
        let store = store::open(url).await?;
        let run = run_id.parse().ok().context("the server gave an id that is none")?;
        let found = store.fold(run).await?;
        store.close().await;
        let (row, journal) = found.context("the run is not in the store")?;
        Self::of(row, journal)
    }

    fn of(row: RunRow, journal: Vec<JournalRow>) -> anyhow::Result<Self> {
        let mut transitions: Vec<Vec<JournalRow>> = Vec::new();
        for event in journal {
            match transitions.last_mut() {
                // The events of one decision have one time, and no two decisions of a run do.
                Some(last) if last.iter().any(|other| other.at == event.at) => last.push(event),
                _ => transitions.push(vec![event]),
            }
        }
        if transitions.is_empty() {
            bail!("the run has no journal");
        }
        let mut summary: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&row.summary).unwrap_or_default();
        for at_the_end in ["error", "failed_step", "counts"] {
            summary.remove(at_the_end);
        }
        let summary_before = serde_json::Value::Object(summary).to_string().into_bytes();
        Ok(Self { row, summary_before, transitions })
    }

    /// How many commits a run takes.
    pub(crate) fn transitions(&self) -> usize {
        self.transitions.len()
    }

    /// How many bytes of journal bodies it writes.
    pub(crate) fn body_bytes(&self) -> usize {
        self.transitions.iter().flatten().map(|event| event.body.len()).sum()
    }

    /// A transition of a run like this one.
    fn commit(&self, run: RunId, owner: OwnerId, place: usize) -> Commit {
        let events = self.transitions[place].clone();
        let is_last = place + 1 == self.transitions.len();
        let first = events.first().map_or(1, |event| event.seq);
        let version = events.last().map_or(1, |event| event.seq);
        let mut row = RunRow { run_id: run, owner: Some(owner), version, ..self.row.clone() };
        if !is_last {
            row.status = contracts::v1::RunStatus::Running as i16;
            row.ended_at = None;
            row.summary.clone_from(&self.summary_before);
        }
        Commit {
            run,
            expected_version: first - 1,
            row,
            events,
            request: None,
            dead_letters: Vec::new(),
            remove_dead_letters: Vec::new(),
            blobs: Vec::new(),
            documents: Vec::new(),
            audit: Vec::new(),
        }
    }
}

/// How fast the bare statement was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bare {
    pub(crate) runs_per_second: f64,
    pub(crate) batch: f64,
    /// CPU time of the committing process and of the database, in microseconds for each run.
    pub(crate) cpu_micros_per_run: f64,
}

/// What the bare statement is loaded with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// How many runs at a time.
    pub(crate) concurrency: u32,
    /// How many transitions a batch of the product had on the average: none has more.
    pub(crate) batch: f64,
}

impl Load {
    fn batch_max(self) -> usize {
        // A positive figure of transitions, far below what a float holds; rounded against us.
        (self.batch.ceil() as usize).clamp(1, store::limits::BATCH_TRANSITIONS_MAX)
    }
}

/// Commits runs like the recorded one for so long.
pub(crate) async fn measure(
    recorded: &Recorded,
    kind: Kind,
    load: Load,
    warm_up: Duration,
    window: Duration,
) -> anyhow::Result<Bare> {
    let database = Database::new(kind).await?;
    let store = store::open(&database.url()).await?;
    let committers = if kind == Kind::Sqlite { 1 } else { 2 };
    let from = Instant::now() + warm_up;
    let ready = (0..load.concurrency).map(|_| (fresh(), 0)).collect();
    let shared = Arc::new(Loop {
        recorded: recorded.clone(),
        store: Arc::clone(&store),
        owner: OwnerId(fresh().0),
        ready: Mutex::new(ready),
        woken: Notify::new(),
        window: (from, from + window),
        batch_max: load.batch_max(),
    });
    let tasks: Vec<_> =
        (0..committers).map(|_| tokio::spawn(Arc::clone(&shared).commit())).collect();
    let me = std::process::id();
    let used = || -> anyhow::Result<u64> {
        Ok(usage::cpu_micros(me)? + database.cpu_micros()?.unwrap_or(0))
    };
    tokio::time::sleep_until(from.into()).await;
    let before = used()?;
    tokio::time::sleep_until((from + window).into()).await;
    let cpu = used()? - before;
    let (mut ended, mut transitions, mut batches) = (0_u64, 0_u64, 0_u64);
    for task in tasks {
        let counted = task.await??;
        ended += counted.ended;
        transitions += counted.transitions;
        batches += counted.batches;
    }
    store.close().await;
    // Counted by transitions: with runs of many, ends come in waves.
    let runs = transitions as f64 / recorded.transitions() as f64;
    if transitions == 0 {
        bail!("the bare statement committed nothing within {window:?} ({ended} runs ended)");
    }
    Ok(Bare {
        runs_per_second: runs / window.as_secs_f64(),
        batch: transitions as f64 / batches.max(1) as f64,
        cpu_micros_per_run: cpu as f64 / runs,
    })
}

/// Ids as the product makes them: time first, then chance enough to differ.
fn fresh() -> RunId {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let now = engine::Instant(i64::try_from(wall_micros()).unwrap_or(0));
    RunId::at_instant(now, &format!("{}/{count}", monotonic_micros()))
}

#[expect(clippy::disallowed_methods, reason = "ids begin with the time, and nothing hangs on it")]
fn wall_micros() -> u128 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros())
}

#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    ended: u64,
    transitions: u64,
    batches: u64,
}

struct Loop {
    recorded: Recorded,
    store: Arc<dyn Store>,
    owner: OwnerId,
    /// Runs whose next transition may be committed, and which one that is.
    ready: Mutex<VecDeque<(RunId, usize)>>,
    woken: Notify,
    window: (Instant, Instant),
    batch_max: usize,
}

impl Loop {
    async fn commit(self: Arc<Self>) -> anyhow::Result<Counted> {
        let mut counted = Counted::default();
        let last = self.recorded.transitions() - 1;
        while Instant::now() < self.window.1 {
            let mut taken = self.take();
            if taken.is_empty() {
                // All runs are in the other's commit.
                self.woken.notified().await;
                continue;
            }
            taken.sort_unstable_by_key(|(run, _)| *run);
            let batch: Vec<Commit> = taken
                .iter()
                .map(|(run, place)| self.recorded.commit(*run, self.owner, *place))
                .collect();
            let outcomes = self.store.commit(&batch).await?;
            if let Some(lost) = outcomes.iter().find(|outcome| **outcome != Outcome::Committed) {
                bail!("the bare statement lost a transition: {lost:?}");
            }
            let now = Instant::now();
            if now >= self.window.0 && now < self.window.1 {
                counted.transitions += taken.len() as u64;
                counted.batches += 1;
                counted.ended += taken.iter().filter(|(_, place)| *place == last).count() as u64;
            }
            self.give_back(taken, last);
        }
        self.woken.notify_waiters();
        self.woken.notify_one();
        Ok(counted)
    }

    fn take(&self) -> Vec<(RunId, usize)> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let count = ready.len().min(self.batch_max);
        ready.drain(..count).collect()
    }

    fn give_back(&self, taken: Vec<(RunId, usize)>, last: usize) {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        ready.extend(taken.into_iter().map(|(run, place)| match place == last {
            true => (fresh(), 0),
            false => (run, place + 1),
        }));
        self.woken.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded() -> Recorded {
        let event = |seq: i64, at: i64| JournalRow {
            seq,
            at,
            kind: 1,
            schema: 1,
            body: format!("{{\"n\":{seq}}}").into_bytes().into(),
        };
        let row = RunRow {
            run_id: fresh(),
            tenant: "default".to_owned(),
            workflow: "w".to_owned(),
            version_name: String::new(),
            definition_hash: engine::ContentHash::of(b"w"),
            status: contracts::v1::RunStatus::Success as i16,
            version: 5,
            owner: None,
            created_at: 1,
            ended_at: Some(3),
            parent: None,
            priority: 5,
            labels: b"{}".to_vec(),
            summary: br#"{"actor":"a","error":null,"counts":{"total":1}}"#.to_vec(),
            wake_at: None,
        };
        let journal = vec![event(1, 1), event(2, 1), event(3, 2), event(4, 3), event(5, 3)];
        Recorded::of(row, journal).unwrap()
    }

    #[test]
    fn a_journal_is_cut_into_the_transitions_it_was_written_in() {
        let recorded = recorded();
        assert_eq!(recorded.transitions(), 3);
        let owner = OwnerId(fresh().0);
        let run = fresh();
        let versions: Vec<(i64, i64, bool)> = (0..3)
            .map(|place| recorded.commit(run, owner, place))
            .map(|it| (it.expected_version, it.row.version, it.row.ended_at.is_some()))
            .collect();
        assert_eq!(versions, [(0, 2, false), (2, 3, false), (3, 5, true)]);
        assert_eq!(recorded.commit(run, owner, 1).row.summary, br#"{"actor":"a"}"#);
    }

    #[tokio::test]
    async fn the_bare_statement_writes_whole_runs() {
        let window = Duration::from_millis(200);
        let load = Load { concurrency: 8, batch: 2.5 };
        let bare = measure(&recorded(), Kind::Sqlite, load, Duration::ZERO, window).await.unwrap();
        assert!(bare.runs_per_second > 0.0 && (1.0..=3.0).contains(&bare.batch), "{bare:?}");
    }
}
