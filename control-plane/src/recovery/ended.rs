//! How a recovery ended, issue by issue, and how each agent that tried did: folded from the
//! journal of its run, so that it comes out the same whoever asks and however often.
//!
//! This module must not read a clock or ask anybody.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use engine::event::Event;
use engine::task::AgentRef;
use engine::{InstanceId, Instant};
use serde::{Deserialize, Serialize};

use super::progress::{Now, Outline, Progress, Standing};

/// The longest error that is kept of an issue, in characters.
const ERROR_CHARS_MAX: usize = 500;

/// How an issue of a recovery ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// It is mended.
    Resolved,
    /// It could not be mended.
    Failed,
    /// It was not begun.
    Skipped,
    /// What was done for it is undone.
    Undone,
    /// What was done for it could not be undone.
    Stuck,
    /// No step was to mend it: people have it.
    #[default]
    ByHand,
}

/// How an agent type did with an issue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Try {
    /// The agent type.
    pub agent: String,
    /// It mended it; else it failed and nobody of its type mended it afterwards.
    pub mended: bool,
    /// How long its last attempt took.
    pub took_ms: Option<u64>,
}

/// An issue at the end of a recovery.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IssueEnd {
    /// How it ended.
    pub how: How,
    /// Who tried, in the order of their first attempts.
    pub tries: Vec<Try>,
    /// What went wrong last; empty where nothing did.
    pub error: String,
}

impl IssueEnd {
    /// The one who mended it.
    #[must_use]
    pub fn mended_by(&self) -> Option<&Try> {
        self.tries.iter().find(|tried| tried.mended)
    }
}

/// Folds a journal to the ends of issues.
#[derive(Debug)]
pub struct Ends {
    progress: Progress,
    steps: BTreeMap<InstanceId, Step>,
}

#[derive(Debug, Default)]
struct Step {
    tries: Vec<Try>,
    error: String,
    is_cancelled: bool,
}

impl Ends {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(outline: Arc<Outline>) -> Self {
        Self { progress: Progress::new(outline), steps: BTreeMap::new() }
    }

    /// The sequence of the last event that was taken in.
    #[must_use]
    pub fn sequence(&self) -> i64 {
        self.progress.sequence()
    }

    /// Takes the next event of the journal in.
    pub fn apply(&mut self, sequence: i64, at: Instant, event: &Event) {
        self.progress.apply(sequence, at, event);
        let Some(n) = event.instance() else { return };
        match event {
            Event::AttemptFailed { error, by, took, .. }
            | Event::StepFailed { error, by, took, .. } => {
                let step = self.steps.entry(n).or_default();
                step.error = cut(&error.message);
                step.tried(by.as_ref(), false, *took);
            }
            Event::StepSucceeded { by, took, .. } => {
                let step = self.steps.entry(n).or_default();
                step.error.clear();
                step.is_cancelled = false;
                step.tried(by.as_ref(), true, *took);
            }
            Event::StepCancelled { .. } => {
                let step = self.steps.entry(n).or_default();
                step.is_cancelled = true;
            }
            Event::UndoFailed { error, .. } => {
                self.steps.entry(n).or_default().error = cut(&error.message);
            }
            _ => {}
        }
    }

    /// The issues that have steps, with how they ended.
    #[must_use]
    pub fn issues(&self) -> BTreeMap<Arc<str>, IssueEnd> {
        let mut issues = BTreeMap::new();
        for (issue, n, standing) in self.progress.issues(&Now::default()) {
            let step = self.steps.get(&n);
            let end = IssueEnd {
                how: how(standing, step.is_some_and(|step| step.is_cancelled)),
                tries: step.map(|step| step.tries.clone()).unwrap_or_default(),
                error: step.map(|step| step.error.clone()).unwrap_or_default(),
            };
            issues.insert(issue, end);
        }
        issues
    }
}

impl Step {
    fn tried(&mut self, by: Option<&AgentRef>, mended: bool, took: Option<u64>) {
        let Some(by) = by else { return };
        let took_ms = took.map(|micros| micros / 1_000);
        let at = self.tries.iter().position(|tried| *tried.agent == *by.agent_type);
        let at = at.unwrap_or_else(|| {
            self.tries.push(Try { agent: by.agent_type.to_string(), ..Try::default() });
            self.tries.len() - 1
        });
        let tried = &mut self.tries[at];
        (tried.mended, tried.took_ms) = (mended, took_ms);
    }
}

fn how(standing: Standing, is_cancelled: bool) -> How {
    match standing {
        Standing::Resolved => How::Resolved,
        Standing::Undone => How::Undone,
        Standing::Stuck | Standing::Undoing => How::Stuck,
        // What was cancelled had begun.
        Standing::Skipped if is_cancelled => How::Failed,
        Standing::Skipped | Standing::Waiting | Standing::Ready => How::Skipped,
        Standing::Failed | Standing::Running | Standing::Asking => How::Failed,
    }
}

fn cut(text: &str) -> String {
    text.chars().take(ERROR_CHARS_MAX).collect()
}

impl Try {
    /// How long its last attempt took.
    #[must_use]
    pub fn took(&self) -> Option<Duration> {
        self.took_ms.map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use engine::definition::compile;
    use engine::event::Ending;

    use super::super::progress::PlanIssue;
    use super::super::world::World;
    use super::*;

    /// A plan of three issues, the second of which waits for the first; `b` has somebody to turn
    /// to.
    const PLAN: &str = "name: plan\nerror_handling:\n  scope: branch\n  rollback: to_start\n  \
                        retry: {max_attempts: 2}\nsteps:\n  \
                        - {id: a, agent: one, action: mend, depends_on: []}\n  \
                        - {id: b, agent: one, action: mend, depends_on: [a]}\n  \
                        - {id: c, agent: one, action: mend, depends_on: [], fallback: [two]}\n";

    fn ends(world: &World) -> BTreeMap<Arc<str>, IssueEnd> {
        let issue = |id: &str| PlanIssue {
            issue: id.to_uppercase().into(),
            step: Some(id.into()),
            estimate: None,
        };
        let (graph, _) = compile("plan.yml", PLAN.as_bytes()).unwrap();
        let outline = Arc::new(Outline::new(&graph, &["a", "b", "c"].map(issue)));
        let mut ends = Ends::new(outline);
        for (sequence, at, event) in &world.journal {
            ends.apply(*sequence, *at, event);
        }
        ends.issues()
    }

    #[test]
    fn each_issue_ends_in_its_way_and_each_agent_answers_for_its_own() {
        let mut world = World::new(PLAN, &[("one", 2), ("two", 1)]);
        world.takes("c", Duration::from_secs(3));
        world.fails("a");
        world.run();
        assert!(matches!(
            world.journal.last(),
            Some((_, _, Event::RunEnded { status: Ending::Failure | Ending::RolledBack, .. }))
        ));
        let ends = ends(&world);
        assert_ne!(ends["A"].how, How::Resolved);
        assert_eq!(ends["A"].error, "cannot be mended");
        let tries: Vec<(&str, bool)> =
            ends["A"].tries.iter().map(|tried| (&*tried.agent, tried.mended)).collect();
        assert_eq!(tries, [("one", false)]);
        assert_eq!((ends["B"].how, ends["B"].tries.len()), (How::Skipped, 0));
        assert_eq!(ends["C"].how, How::Resolved);
        let by = ends["C"].mended_by().unwrap();
        assert_eq!((&*by.agent, by.took()), ("one", Some(Duration::from_secs(3))));
    }

    #[test]
    fn the_fallback_mended_it_and_the_first_did_not() {
        let mut world = World::new(PLAN, &[("one", 2), ("two", 1)]);
        world.fails_by("c", "one");
        world.run();
        let ends = ends(&world);
        assert_eq!(ends["C"].how, How::Resolved);
        assert_eq!(ends["C"].mended_by().unwrap().agent, "two");
        let first = Try { agent: "one".into(), mended: false, took_ms: Some(1_000) };
        assert_eq!(ends["C"].tries[0], first);
        assert!(ends["C"].error.is_empty());
    }
}
