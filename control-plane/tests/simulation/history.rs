//! What the outside saw: executions at agents, acknowledgements to agents and to clients. Kept
//! apart from the journal, which is held against it in the end.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine::RunId;

/// Cheap to clone; all clones are the same history.
#[derive(Clone, Debug, Default)]
pub(crate) struct History(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// By task and attempt.
    pub(crate) executions: BTreeMap<(String, i32), Executions>,
    /// Results that an agent was told to be durable, by task.
    pub(crate) acknowledged: BTreeMap<String, Vec<Acknowledged>>,
    /// Runs whose start was acknowledged, with the request that asked for it.
    pub(crate) started: BTreeMap<String, RunId>,
    /// Other requests, and what became of them.
    pub(crate) asked: BTreeMap<String, Asked>,
    /// How often which fault was met, to show that they happen.
    pub(crate) faults: BTreeMap<&'static str, u64>,
    trace: u64,
    /// The last of what was traced, for people.
    recent: std::collections::VecDeque<String>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Executions {
    pub(crate) begun: u32,
    pub(crate) succeeded: u32,
    pub(crate) at_most_once: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Acknowledged {
    pub(crate) attempt: i32,
    pub(crate) success: bool,
    pub(crate) duplicate: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) run: RunId,
    /// It was said to be done; otherwise nobody knows, or it was refused.
    pub(crate) acknowledged: bool,
    pub(crate) refused: bool,
}

/// Lines kept for people.
const RECENT: usize = 400;

impl History {
    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes something that must be the same in every life of the same seed.
    pub(crate) fn trace(&self, what: impl FnOnce() -> String) {
        let mut seen = self.seen();
        let line = format!("{:>10.3} {}", crate::world::elapsed().as_secs_f64(), what());
        seen.mix(&line);
        if seen.recent.len() >= RECENT {
            seen.recent.pop_front();
        }
        tell(&line);
        seen.recent.push_back(line);
    }

    pub(crate) fn fault(&self, what: &'static str) {
        *self.seen().faults.entry(what).or_default() += 1;
        self.trace(|| format!("fault: {what}"));
    }
}

/// Says what happens while it happens, when it is asked for.
#[expect(clippy::print_stderr, reason = "it is for whoever looks for what went wrong")]
fn tell(line: &str) {
    if std::env::var_os("SIMULATION_TRACE").is_some() {
        eprintln!("{line}");
    }
}

impl Seen {
    pub(crate) fn mix(&mut self, what: &impl Hash) {
        let mut hasher = DefaultHasher::new();
        self.trace.hash(&mut hasher);
        what.hash(&mut hasher);
        self.trace = hasher.finish();
    }

    pub(crate) fn fingerprint(&self) -> u64 {
        self.trace
    }

    pub(crate) fn recent(&self, about: &str) -> Vec<String> {
        self.recent.iter().filter(|line| line.contains(about)).cloned().collect()
    }
}
