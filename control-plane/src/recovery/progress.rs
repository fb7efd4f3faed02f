//! How far a recovery is: folded from its run's journal, event by event, so that a report belongs
//! to a sequence number and comes out the same wherever and whenever it is made again.
//!
//! What a journal does not say (who has a task just now, how many slots agents have) is handed in
//! with the question. This module must not read a clock or ask anybody.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use engine::event::{Ending, Event, SkipReason, UndoDecision, WaitingFor};
use engine::graph::{Graph, NodeKind};
use engine::task::AgentRef;
use engine::{InstanceId, Instant};

use super::utilisation::{Used, Work};

/// How long a step takes of which nothing is known.
const ESTIMATE_UNKNOWN: Duration = Duration::from_secs(10);
/// A step that goes on counts at most so far, however long it takes.
const RUNNING_SHARE_MAX: f64 = 0.95;

/// An issue of a plan and its step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanIssue {
    /// The issue's id.
    pub issue: Arc<str>,
    /// The step that mends it; `None`: none does.
    pub step: Option<Arc<str>>,
    /// How long it is expected to take; `None`: nobody knows.
    pub estimate: Option<Duration>,
}

/// What is to be done: the steps of the whole of a plan's workflow.
#[derive(Clone, Debug)]
pub struct Outline {
    steps: Vec<Step>,
    /// Places of steps, each behind all that it waits for.
    order: Vec<usize>,
    /// Issues without a step.
    left: Vec<Arc<str>>,
}

#[derive(Clone, Debug)]
struct Step {
    id: Arc<str>,
    issue: Option<Arc<str>>,
    agent: Arc<str>,
    estimate: Duration,
    depends_on: Vec<usize>,
}

/// Where an issue stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It waits for others.
    Waiting,
    /// It waits for an agent.
    Ready,
    /// It is being mended.
    Running,
    /// A person is asked.
    Asking,
    /// It is mended.
    Resolved,
    /// It could not be mended.
    Failed,
    /// It was not begun, because of a failure elsewhere or because its condition was false.
    Skipped,
    /// What was done for it is being undone.
    Undoing,
    /// What was done for it is undone.
    Undone,
    /// What was done for it could not be undone.
    Stuck,
}

impl Standing {
    /// Whether nothing more is to come of it before people act, an undo aside.
    #[must_use]
    pub fn is_through(self) -> bool {
        !matches!(self, Self::Waiting | Self::Ready | Self::Running | Self::Asking)
    }
}

/// How far a run is.
#[derive(Clone, Debug)]
pub struct Progress {
    outline: Arc<Outline>,
    standing: Vec<(Standing, Option<Instant>)>,
    work: Work,
    sequence: i64,
    at: Instant,
    paused: bool,
    ended: Option<Ending>,
}

/// What is known beside the journal.
#[derive(Clone, Debug, Default)]
pub struct Now {
    /// The time.
    pub now: Instant,
    /// How many tasks each agent type can have at once.
    pub slots: BTreeMap<Arc<str>, u32>,
    /// Who has which step, since when.
    pub held: BTreeMap<InstanceId, (AgentRef, Instant)>,
}

/// An agent at work.
#[derive(Clone, Debug, PartialEq)]
pub struct Active {
    /// Its type.
    pub agent: Arc<str>,
    /// Which one; `None`: not known here.
    pub instance: Option<Arc<str>>,
    /// The step.
    pub step: Arc<str>,
    /// The issue.
    pub issue: Option<Arc<str>>,
    /// Since when.
    pub since: Instant,
}

/// How far a recovery is.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The sequence of the journal's last event that it takes in.
    pub sequence: i64,
    /// When that happened.
    pub at: Instant,
    /// 0 to 1, weighted by the estimated durations.
    pub completion: f64,
    /// All issues with where they stand, in the order of the plan.
    pub issues: Vec<(Arc<str>, Standing)>,
    /// Issues that others wait for, and that wait for none themselves.
    pub blocking: Vec<Arc<str>>,
    /// Issues that no step mends.
    pub left: Vec<Arc<str>>,
    /// The agents at work.
    pub active: Vec<Active>,
    /// When it will be over; `None`: that depends on people, or it is.
    pub estimated_end: Option<Instant>,
    /// How well agents were used while there was enough to do, 0 to 1.
    pub utilisation: Option<f64>,
    /// The same by agent type.
    pub used: BTreeMap<Arc<str>, Used>,
    /// How it ended, once it did.
    pub ended: Option<Ending>,
}

impl Outline {
    /// The steps of `graph`, with the issues that they mend.
    #[must_use]
    pub fn new(graph: &Graph, issues: &[PlanIssue]) -> Self {
        let by_step: BTreeMap<&str, &PlanIssue> =
            issues.iter().filter_map(|issue| Some((issue.step.as_deref()?, issue))).collect();
        let list = graph.list(Graph::ROOT);
        let steps: Vec<Step> = list
            .nodes
            .iter()
            .map(|&node| {
                let node = graph.node(node);
                let issue = by_step.get(&*node.id);
                let agent = match &node.kind {
                    NodeKind::Action(action) => action.agent.clone(),
                    _ => None,
                };
                Step {
                    id: Arc::clone(&node.id),
                    issue: issue.map(|issue| Arc::clone(&issue.issue)),
                    agent: agent.unwrap_or_default(),
                    estimate: issue.and_then(|issue| issue.estimate).unwrap_or(ESTIMATE_UNKNOWN),
                    depends_on: node.depends_on.iter().map(|&on| on as usize).collect(),
                }
            })
            .collect();
        let there = |issue: &PlanIssue| {
            issue.step.as_ref().is_some_and(|step| steps.iter().any(|found| found.id == *step))
        };
        let left = issues.iter().filter(|issue| !there(issue));
        let left = left.map(|issue| Arc::clone(&issue.issue)).collect();
        Self { order: order(&steps), steps, left }
    }

    /// The issues that no step mends.
    #[must_use]
    pub fn left(&self) -> &[Arc<str>] {
        &self.left
    }

    /// The longest chain of estimated durations, and their sum.
    #[must_use]
    pub fn estimates(&self) -> (Duration, Duration) {
        let all: Vec<Duration> = self.steps.iter().map(|step| step.estimate).collect();
        (self.longest_chain(&all), all.iter().sum())
    }

    fn longest_chain(&self, durations: &[Duration]) -> Duration {
        let mut until = vec![Duration::ZERO; durations.len()];
        for &at in &self.order {
            let on = &self.steps[at].depends_on;
            let from = on.iter().map(|&on| until[on]).max().unwrap_or_default();
            until[at] = from.saturating_add(durations[at]);
        }
        until.into_iter().max().unwrap_or_default()
    }
}

fn order(steps: &[Step]) -> Vec<usize> {
    let mut waits_for: Vec<usize> = steps.iter().map(|step| step.depends_on.len()).collect();
    let mut dependents = vec![Vec::new(); steps.len()];
    for (at, step) in steps.iter().enumerate() {
        step.depends_on.iter().for_each(|&on| dependents[on].push(at));
    }
    let mut order: Vec<usize> = (0..steps.len()).filter(|&at| waits_for[at] == 0).collect();
    let mut next = 0;
    while let Some(&at) = order.get(next) {
        next += 1;
        for &dependent in &dependents[at] {
            waits_for[dependent] -= 1;
            if waits_for[dependent] == 0 {
                order.push(dependent);
            }
        }
    }
    order
}

impl Progress {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(outline: Arc<Outline>) -> Self {
        let standing = vec![(Standing::Waiting, None); outline.steps.len()];
        Self {
            outline,
            standing,
            work: Work::default(),
            sequence: 0,
            at: Instant::default(),
            paused: false,
            ended: None,
        }
    }

    /// The sequence of the last event that was taken in.
    #[must_use]
    pub fn sequence(&self) -> i64 {
        self.sequence
    }

    /// What agents were asked and did.
    #[must_use]
    pub fn work(&self) -> &Work {
        &self.work
    }

    /// The longest chain of steps that wait for each other, by how long agents really had them.
    /// What a recovery took beyond that, agents enough, is the orchestrator's.
    #[must_use]
    pub fn longest_chain(&self) -> Duration {
        let mut had = vec![Duration::ZERO; self.outline.steps.len()];
        for attempt in self.work.done() {
            if let Some(had) = had.get_mut(attempt.n.0 as usize) {
                *had += attempt.ended.since(attempt.began);
            }
        }
        self.outline.longest_chain(&had)
    }

    /// How the run ended, once it did.
    #[must_use]
    pub fn ended(&self) -> Option<Ending> {
        self.ended
    }

    /// Takes the next event of the journal in.
    pub fn apply(&mut self, sequence: i64, at: Instant, event: &Event) {
        self.sequence = sequence;
        self.at = self.at.max(at);
        self.follow_work(event, at);
        match event {
            Event::RunPaused { .. } => self.set_paused(true, at),
            Event::RunResumed { .. } | Event::RunCancelRequested { .. } => {
                self.set_paused(false, at);
            }
            Event::RunEnded { status, .. } => self.ended = Some(*status),
            Event::RunRetried { .. } | Event::RunReopened { .. } => self.reopen(),
            _ => {}
        }
        if let (Some(n), Some(standing)) = (event.instance(), standing(event)) {
            self.set(n, standing, at);
        }
    }

    fn set_paused(&mut self, paused: bool, at: Instant) {
        self.paused = paused;
        self.work.paused(paused, at);
    }

    /// What did not end well is taken up again.
    fn reopen(&mut self) {
        self.ended = None;
        for (standing, since) in &mut self.standing {
            if standing.is_through() && *standing != Standing::Resolved {
                (*standing, *since) = (Standing::Waiting, None);
            }
        }
    }

    fn set(&mut self, n: InstanceId, standing: Standing, at: Instant) {
        // The steps of the whole are the first instances, in the order of the definition.
        let Some((now, since)) = self.standing.get_mut(n.0 as usize) else { return };
        if since.is_none() {
            *since = Some(at);
        }
        *now = standing;
    }

    fn follow_work(&mut self, event: &Event, at: Instant) {
        match event {
            Event::StepQueued { n, agent, .. } => {
                self.work.ready(*n, &agent.clone().unwrap_or_default(), at);
            }
            Event::AttemptFailed { n, by, retry_at, took, .. } => {
                let named = self.work.open().find(|(open, ..)| open == n);
                let named = named.map_or_else(Arc::default, |(_, agent, _)| Arc::clone(agent));
                let by = by.as_ref().map(|by| &by.agent_type);
                self.work.ended(*n, by, began(*took, at), at);
                self.work.ready(*n, by.unwrap_or(&named), (*retry_at).max(at));
            }
            Event::StepSucceeded { n, by, took, .. } | Event::StepFailed { n, by, took, .. } => {
                let by = by.as_ref().map(|by| &by.agent_type);
                self.work.ended(*n, by, began(*took, at), at);
            }
            Event::StepSkipped { n, .. } | Event::StepCancelled { n, .. } => {
                self.work.ended(*n, None, None, at);
            }
            _ => {}
        }
    }

    /// How far it is.
    #[must_use]
    pub fn report(&self, now: &Now) -> Report {
        let outline = &*self.outline;
        let held = now.held.iter().map(|(n, (_, since))| (*n, *since)).collect();
        let until = if self.ended.is_some() { self.at } else { now.now.max(self.at) };
        let used = self.work.used(&now.slots, &held, until);
        let all = used.values().fold(Used::default(), |sum, one| Used {
            offered: sum.offered + one.offered,
            busy: sum.busy + one.busy,
        });
        let issues = self.issues(now).map(|(issue, _, standing)| (issue, standing));
        Report {
            sequence: self.sequence,
            at: self.at,
            completion: self.completion(now),
            issues: issues.collect(),
            blocking: self.blocking(),
            left: outline.left.clone(),
            active: self.active(now),
            estimated_end: self.estimated_end(now),
            utilisation: all.share(),
            used,
            ended: self.ended,
        }
    }

    /// The issues that have steps, with these and where they stand.
    pub(super) fn issues(
        &self,
        now: &Now,
    ) -> impl Iterator<Item = (Arc<str>, InstanceId, Standing)> {
        let steps = self.outline.steps.iter().enumerate();
        steps.filter_map(|(at, step)| {
            let n = InstanceId(u32::try_from(at).ok()?);
            Some((Arc::clone(step.issue.as_ref()?), n, self.standing_of(at, now)))
        })
    }

    /// A journal does not say that an agent has begun; who has it now does.
    fn standing_of(&self, at: usize, now: &Now) -> Standing {
        let n = u32::try_from(at).map(InstanceId);
        match self.standing[at].0 {
            Standing::Ready if n.is_ok_and(|n| now.held.contains_key(&n)) => Standing::Running,
            standing => standing,
        }
    }

    fn completion(&self, now: &Now) -> f64 {
        let (mut whole, mut done) = (0.0, 0.0);
        for (at, step) in self.outline.steps.iter().enumerate() {
            let weight = step.estimate.as_secs_f64().max(0.001);
            whole += weight;
            done += weight * self.share_of(at, now);
        }
        if whole > 0.0 { (done / whole).min(1.0) } else { 1.0 }
    }

    /// How much of a step is done, 0 to 1.
    fn share_of(&self, at: usize, now: &Now) -> f64 {
        match self.standing[at].0 {
            standing if standing.is_through() => 1.0,
            Standing::Ready | Standing::Running => {
                let Some(since) = self.since(at, now) else { return 0.0 };
                let elapsed = now.now.since(since).as_secs_f64();
                let estimate = self.outline.steps[at].estimate.as_secs_f64().max(0.001);
                (elapsed / estimate).min(RUNNING_SHARE_MAX)
            }
            _ => 0.0,
        }
    }

    /// Since when somebody is at it.
    fn since(&self, at: usize, now: &Now) -> Option<Instant> {
        let n = InstanceId(u32::try_from(at).ok()?);
        match (now.held.get(&n), self.standing[at]) {
            (Some((_, since)), _) => Some(*since),
            (None, (Standing::Running, since)) => since,
            _ => None,
        }
    }

    fn blocking(&self) -> Vec<Arc<str>> {
        let steps = &self.outline.steps;
        let is_open = |at: usize| self.standing[at].0 != Standing::Resolved;
        let mut waited_for = vec![false; steps.len()];
        for (at, step) in steps.iter().enumerate().filter(|(at, _)| is_open(*at)) {
            debug_assert!(at < steps.len(), "a place in the list");
            step.depends_on.iter().for_each(|&on| waited_for[on] = true);
        }
        let is_blocking = |at: usize| {
            is_open(at) && waited_for[at] && !steps[at].depends_on.iter().any(|&on| is_open(on))
        };
        let blocking = (0..steps.len()).filter(|&at| is_blocking(at));
        blocking.filter_map(|at| steps[at].issue.clone()).collect()
    }

    fn active(&self, now: &Now) -> Vec<Active> {
        let steps = &self.outline.steps;
        let held = now.held.iter().filter_map(|(n, (agent, since))| {
            let step = steps.get(n.0 as usize)?;
            Some(Active {
                agent: Arc::clone(&agent.agent_type),
                instance: Some(Arc::clone(&agent.instance)),
                step: Arc::clone(&step.id),
                issue: step.issue.clone(),
                since: *since,
            })
        });
        held.collect()
    }

    /// When all that remains is done: not before the longest chain of it, and not before each
    /// agent type has done its part with the slots that it has.
    fn estimated_end(&self, now: &Now) -> Option<Instant> {
        let asks = self.standing.iter().any(|(standing, _)| *standing == Standing::Asking);
        if self.ended.is_some() || self.paused || asks {
            return None;
        }
        let steps = &self.outline.steps;
        let remaining: Vec<Duration> = (0..steps.len())
            .map(|at| steps[at].estimate.mul_f64((1.0 - self.share_of(at, now)).max(0.0)))
            .collect();
        let mut by_agent: BTreeMap<&Arc<str>, Duration> = BTreeMap::new();
        for (step, remaining) in steps.iter().zip(&remaining) {
            *by_agent.entry(&step.agent).or_default() += *remaining;
        }
        let busiest = by_agent.into_iter().map(|(agent, all)| {
            // Without any agent there the estimate is that of one.
            all / now.slots.get(agent).copied().unwrap_or(1).max(1)
        });
        let chain = self.outline.longest_chain(&remaining);
        Some(now.now.max(self.at).after(busiest.max().unwrap_or_default().max(chain)))
    }
}

/// Where a step stands behind an event.
fn standing(event: &Event) -> Option<Standing> {
    Some(match event {
        Event::StepQueued { .. } | Event::AttemptFailed { .. } => Standing::Ready,
        Event::StepWaiting {
            waiting_for: WaitingFor::Decision(_) | WaitingFor::Signal(_), ..
        } => Standing::Asking,
        Event::TaskStarted { .. }
        | Event::BlockOpened { .. }
        | Event::IterationStarted { .. }
        | Event::StepWaiting { .. }
        | Event::DecisionMade { .. } => Standing::Running,
        Event::StepSucceeded { .. } => Standing::Resolved,
        Event::StepFailed { .. } => Standing::Failed,
        Event::StepSkipped { reason, .. } => match reason {
            SkipReason::Condition | SkipReason::NotStarted | SkipReason::NotConfigured => {
                Standing::Skipped
            }
        },
        Event::StepCancelled { .. } => Standing::Skipped,
        Event::UndoQueued { .. } => Standing::Undoing,
        Event::UndoSucceeded { .. } | Event::UndoDecided { decision: UndoDecision::Done, .. } => {
            Standing::Undone
        }
        Event::UndoDecided { decision: UndoDecision::Retry, .. } => Standing::Undoing,
        Event::UndoFailed { retry_at: None, .. } => Standing::Stuck,
        _ => return None,
    })
}

/// When an attempt began that ended at `at`.
fn began(took: Option<u64>, at: Instant) -> Option<Instant> {
    let took = i64::try_from(took?).unwrap_or(i64::MAX);
    Some(Instant(at.0.saturating_sub(took)))
}

#[cfg(test)]
#[path = "progress_tests.rs"]
mod tests;
