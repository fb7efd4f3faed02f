//! What the services of clients share.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use contracts::v1;
use engine::event::WaitingFor;
use engine::{Instant, RunId, State, StepView, Waiting};
use store::RunRow;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::admission::Admission;
use super::convert;
use super::status::Refusal;
use crate::config::Config;
use crate::core::Core;
use crate::dispatch::Dispatcher;
use crate::limits;
use crate::replicas::Replicas;
use crate::runs::Runs;
use crate::schedules::Schedules;
use crate::triages::Learning;

/// What the services of clients share. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// The way to all runs.
    pub runs: Runs,
    /// Who gives tasks to agents.
    pub dispatcher: Dispatcher,
    /// The replicas that share the store.
    pub replicas: Replicas,
    /// What starts runs by itself.
    pub schedules: Schedules,
    /// What confirmed outcomes of triages taught.
    pub learning: Learning,
    /// The server stops: streams end.
    pub stopping: CancellationToken,
    /// Whether new runs are taken on.
    pub(super) admission: Admission,
    /// One permit for each open watch.
    pub(super) watches: Arc<Semaphore>,
    /// The folder of the embedded store.
    pub(super) data_dir: Option<Arc<Path>>,
    /// How long a question to people may be open.
    pub(super) policy: Policy,
    folded: Arc<Mutex<VecDeque<Folded>>>,
}

type Folded = (RunRow, Arc<State>);

/// Why a step waits, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// Since when.
    pub since: Option<Instant>,
    /// What for.
    pub cause: String,
    /// What would help; empty when waiting is all there is to do.
    pub remedy: String,
}

/// What the configuration says of the part that people have.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// How long a question to people may be open before they are reminded.
    pub escalation_due: Duration,
    /// A rollback that a person plans is executed only once somebody has approved it.
    pub rollback_approval: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self::from(&Config::default())
    }
}

impl From<&Config> for Policy {
    fn from(config: &Config) -> Self {
        let &Config { escalation_due, rollback_approval, .. } = config;
        Self { escalation_due, rollback_approval }
    }
}

impl Context {
    /// What the services need to answer.
    #[must_use]
    pub fn new(
        core: &Core,
        schedules: Schedules,
        admission: Admission,
        stopping: CancellationToken,
    ) -> Self {
        Self {
            runs: core.runs.clone(),
            dispatcher: core.dispatcher.clone(),
            replicas: core.replicas.clone(),
            schedules,
            learning: Learning::new(
                Arc::clone(core.store()),
                Arc::clone(core.runs.clock()),
                core.dispatcher.clone(),
            ),
            stopping,
            admission,
            watches: Arc::new(Semaphore::new(limits::WATCHES_MAX)),
            data_dir: None,
            policy: Policy::default(),
            folded: Arc::default(),
        }
    }

    /// The same where the embedded store lies in this folder.
    #[must_use]
    pub fn with_data_dir(mut self, data_dir: Option<&Path>) -> Self {
        self.data_dir = data_dir.map(Arc::from);
        self
    }

    /// The same with what the configuration says of people.
    #[must_use]
    pub fn with_policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// A run with its state; pages of one list share a fold as long as the run stands still.
    ///
    /// # Errors
    /// When there is no such run, or it cannot be read.
    pub async fn folded(&self, run: RunId) -> Result<(RunRow, Arc<State>), Refusal> {
        let row = super::run::row(self, run).await?;
        let known = {
            let folded = self.folded.lock().unwrap_or_else(PoisonError::into_inner);
            folded.iter().find(|(known, _)| *known == row).cloned()
        };
        if let Some(known) = known {
            return Ok(known);
        }
        let (row, state) = self.runs.read(run).await?;
        let read = (row, Arc::new(state));
        let mut folded = self.folded.lock().unwrap_or_else(PoisonError::into_inner);
        folded.retain(|(known, _)| known.run_id != run);
        folded.push_back(read.clone());
        if folded.len() > limits::FOLDED_RUNS_CACHED {
            folded.pop_front();
        }
        Ok(read)
    }

    /// The steps of a run as results have them.
    #[must_use]
    pub fn steps(&self, state: &State) -> Vec<v1::StepResult> {
        state.steps().iter().map(|view| self.step(view)).collect()
    }

    /// A step as results have it.
    #[must_use]
    pub fn step(&self, view: &StepView) -> v1::StepResult {
        let waiting = self.why(view).map(|why| why.cause).unwrap_or_default();
        let mut step = convert::step(view, waiting);
        // Dispatch alone knows that an agent has it; the journal does not.
        if let Some(Waiting::Agent(key)) = &view.waiting
            && self.dispatcher.why(key).is_none()
        {
            step.status = "running".to_owned();
        }
        step
    }

    /// Why a step waits; `None` when it does not.
    #[must_use]
    pub fn why(&self, view: &StepView) -> Option<Why> {
        let since = view.start;
        let (cause, remedy) = match view.waiting.as_ref()? {
            Waiting::Agent(key) => {
                let why = self.dispatcher.why(key)?;
                return Some(Why { since: Some(why.since), cause: why.cause, remedy: why.remedy });
            }
            Waiting::Key(key) => self.why_key(key),
            Waiting::For(what, until) => why_for(&view.path, what, *until),
        };
        Some(Why { since, cause, remedy })
    }

    fn why_key(&self, key: &str) -> (String, String) {
        let Some(holding) = self.runs.holding(key) else {
            let cause = format!("it waits until the rate limit `{key}` allows another start");
            return (cause, String::new());
        };
        let holders: Vec<String> =
            holding.holders.iter().take(5).map(ToString::to_string).collect();
        let (waiting, who) = (holding.waiting, holders.join(", "));
        let cause = match holders.len() {
            0 => format!("it waits for the concurrency key `{key}`"),
            1 => format!("the concurrency key `{key}` is held by run {who}; {waiting} wait for it"),
            _ => {
                format!("the concurrency key `{key}` is held by runs {who}; {waiting} wait for it")
            }
        };
        let remedy = holders.first().map(|first| {
            format!("wait for its end, or stop it: `orchestrator runs cancel {first}`")
        });
        (cause, remedy.unwrap_or_default())
    }
}

fn why_for(path: &str, what: &WaitingFor, until: Option<Instant>) -> (String, String) {
    // People do not wait for microseconds.
    let until = until.map(|until| Instant(until.0 - until.0.rem_euclid(1_000_000)).to_rfc3339());
    let by = until.as_ref().map(|until| format!(", until {until}")).unwrap_or_default();
    match what {
        WaitingFor::Time => {
            let at = until.unwrap_or_else(|| "a time".to_owned());
            (format!("it waits until {at}"), String::new())
        }
        WaitingFor::Signal(signal) => (
            format!("it waits for the signal `{signal}`{by}"),
            format!("send it: `orchestrator runs signal RUN {signal}`"),
        ),
        WaitingFor::Decision(question) => (
            format!("it waits for a person's decision: {question}{by}"),
            format!(
                "decide: `orchestrator runs approve RUN {path}` or `orchestrator runs reject RUN \
                 {path}`"
            ),
        ),
        WaitingFor::Child(child) => (
            format!("it waits for run {} of the sub-workflow `{}`", child.run, child.workflow),
            format!("see what that run does: `orchestrator doctor {}`", child.run),
        ),
        WaitingFor::Notification { channels, .. } => {
            (format!("a notification is being sent to {}", channels.join(", ")), String::new())
        }
    }
}

impl Why {
    /// The same with the run's id where commands name it.
    #[must_use]
    pub fn of_run(mut self, run: RunId) -> Self {
        self.remedy = self.remedy.replace(" RUN ", &format!(" {run} "));
        self
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remedies_name_the_run() {
        let run = RunId::at_instant(Instant(0), "x");
        let (cause, remedy) = why_for("gate", &WaitingFor::Decision("Deploy?".into()), None);
        let why = Why { since: None, cause, remedy }.of_run(run);
        assert_eq!(why.cause, "it waits for a person's decision: Deploy?");
        assert!(why.remedy.contains(&format!("orchestrator runs approve {run} gate")));
        assert!(why.remedy.contains(&format!("orchestrator runs reject {run} gate")));
        let until = Some(Instant(1_999_999));
        let (cause, remedy) = why_for("a", &WaitingFor::Signal("go".into()), until);
        assert_eq!(cause, "it waits for the signal `go`, until 1970-01-01T00:00:01Z");
        assert_eq!(remedy, "send it: `orchestrator runs signal RUN go`");
    }
}
