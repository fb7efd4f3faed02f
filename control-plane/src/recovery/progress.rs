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

use super::overhead::{Overhead, Wall};
use super::undos::{Undos, UndosDone};
use super::utilisation::{Used, Work};

/// How long a step takes of which nothing is known.
const ESTIMATE_UNKNOWN: Duration = Duration::from_secs(10);
/// A step that goes on counts at most so far, however long it takes.
const RUNNING_SHARE_MAX: f64 = 0.95;
/// A recovery whose run has not ended is at most so far, whatever else is done.
const OPEN_SHARE_MAX: f64 = 0.99;

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
    /// Agents do it, and not people, clocks or inner steps.
    is_action: bool,
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

/// What a recovery is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Issues are mended.
    Mending,
    /// What was done is undone.
    RollingBack,
    /// Undos failed for good, and people are asked about them.
    Stuck,
    /// The steps of `on_failure` run.
    Handling,
    /// The run has ended.
    Over,
}

/// How far a run is.
#[derive(Clone, Debug)]
pub struct Progress {
    outline: Arc<Outline>,
    standing: Vec<(Standing, Option<Instant>)>,
    work: Work,
    wall: Wall,
    /// How long each step was had by whoever does it, in attempts that are over.
    had: Vec<Duration>,
    /// Where the rollback is that was begun last, if one was.
    undos: Option<Undos>,
    is_handling: bool,
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
    /// Who undoes which step, since when.
    pub undoing: BTreeMap<InstanceId, (AgentRef, Instant)>,
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
    /// It undoes the step.
    pub undo: bool,
}

/// How far a recovery is.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The sequence of the journal's last event that it takes in.
    pub sequence: i64,
    /// When that happened.
    pub at: Instant,
    /// What it is at.
    pub phase: Phase,
    /// 0 to 1: how much of all that is to be done is done, weighted by the estimated durations. An
    /// undo counts as much as its step. 1 only when the run has ended.
    pub completion: f64,
    /// How far its rollback is.
    pub undos: UndosDone,
    /// What the orchestrator added to the agents' own work.
    pub overhead: Overhead,
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
                let (agent, is_action) = match &node.kind {
                    NodeKind::Action(action) => (action.agent.clone(), true),
                    _ => (None, false),
                };
                Step {
                    id: Arc::clone(&node.id),
                    issue: issue.map(|issue| Arc::clone(&issue.issue)),
                    agent: agent.unwrap_or_default(),
                    is_action,
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
        let had = vec![Duration::ZERO; outline.steps.len()];
        Self {
            outline,
            standing,
            work: Work::default(),
            wall: Wall::default(),
            had,
            undos: None,
            is_handling: false,
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

    /// What the orchestrator added to the work of agents until `now`: the one figure of it, for
    /// reports and for measurements.
    #[must_use]
    pub fn overhead(&self, now: &Now) -> Overhead {
        let until = self.until(now);
        let had: Vec<Duration> = (0..self.had.len())
            .map(|at| {
                self.had[at] + self.open_since(at, now).map_or(Duration::ZERO, |s| until.since(s))
            })
            .collect();
        Overhead { wall: self.wall.until(until), chain: self.outline.longest_chain(&had) }
    }

    /// Since when a step is had by whoever does it now.
    fn open_since(&self, at: usize, now: &Now) -> Option<Instant> {
        if !self.is_mending() {
            return None;
        }
        if self.outline.steps[at].is_action {
            let n = InstanceId(u32::try_from(at).ok()?);
            return now.held.get(&n).map(|(_, since)| *since);
        }
        let (standing, since) = self.standing[at];
        since.filter(|_| matches!(standing, Standing::Running | Standing::Asking))
    }

    fn until(&self, now: &Now) -> Instant {
        if self.ended.is_some() { self.at } else { now.now.max(self.at) }
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
            Event::RunStarted(_) => self.wall.go_on(at),
            Event::RunPaused { .. } => self.set_paused(true, at),
            Event::RunResumed { .. } | Event::RunCancelRequested { .. } => {
                self.set_paused(false, at);
            }
            Event::RunEnded { status, .. } => {
                self.ended = Some(*status);
                self.wall.stop(at);
            }
            Event::RunRetried { .. } | Event::RunReopened { .. } => self.reopen(at),
            Event::RunForked { .. } => self.forked(at),
            Event::RollbackStarted { steps, .. } => self.begin_rollback(steps, at),
            Event::OnFailureStarted {} => {
                self.is_handling = true;
                self.wall.stop(at);
            }
            _ => {}
        }
        if let Some(undos) = &mut self.undos {
            undos.apply(event);
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
    fn reopen(&mut self, at: Instant) {
        self.ended = None;
        self.undos = None;
        self.is_handling = false;
        self.wall.go_on(at);
        for (standing, since) in &mut self.standing {
            if standing.is_through() && *standing != Standing::Resolved {
                (*standing, *since) = (Standing::Waiting, None);
            }
        }
    }

    /// What stands before was done in another run, at another time.
    fn forked(&mut self, at: Instant) {
        self.wall = Wall::default();
        self.wall.go_on(at);
        self.had.fill(Duration::ZERO);
    }

    /// A run that had ended has not any more.
    fn begin_rollback(&mut self, steps: &[InstanceId], at: Instant) {
        self.ended = None;
        self.is_handling = false;
        self.wall.stop(at);
        self.undos = Some(Undos::new(steps));
        for n in steps {
            self.set(*n, Standing::Undoing, at);
        }
    }

    fn set(&mut self, n: InstanceId, standing: Standing, at: Instant) {
        // The steps of the whole are the first instances, in the order of the definition.
        let place = n.0 as usize;
        let Some((now, since)) = self.standing.get_mut(place) else { return };
        let since = *since.get_or_insert(at);
        let is_over = standing.is_through() && !now.is_through();
        *now = standing;
        if is_over && !self.outline.steps[place].is_action {
            self.had[place] += at.since(since);
        }
    }

    /// An attempt is over that an agent had.
    fn attempt_over(&mut self, n: InstanceId, took: Option<u64>) {
        if let (Some(had), Some(took)) = (self.had.get_mut(n.0 as usize), took) {
            *had += Duration::from_micros(took);
        }
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
                self.attempt_over(*n, *took);
                self.work.ready(*n, by.unwrap_or(&named), (*retry_at).max(at));
            }
            Event::StepSucceeded { n, by, took, .. } | Event::StepFailed { n, by, took, .. } => {
                let by = by.as_ref().map(|by| &by.agent_type);
                self.work.ended(*n, by, began(*took, at), at);
                self.attempt_over(*n, *took);
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
        let used = self.work.used(&now.slots, &held, self.until(now));
        let all = used.values().fold(Used::default(), |sum, one| Used {
            offered: sum.offered + one.offered,
            busy: sum.busy + one.busy,
        });
        let issues = self.issues(now).map(|(issue, _, standing)| (issue, standing));
        Report {
            sequence: self.sequence,
            at: self.at,
            phase: self.phase(),
            completion: self.completion(now),
            undos: self.undos.as_ref().map(Undos::done).unwrap_or_default(),
            overhead: self.overhead(now),
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

    fn is_mending(&self) -> bool {
        self.ended.is_none() && self.undos.is_none() && !self.is_handling
    }

    fn phase(&self) -> Phase {
        match &self.undos {
            _ if self.ended.is_some() => Phase::Over,
            _ if self.is_handling => Phase::Handling,
            Some(undos) if undos.done().stuck > 0 => Phase::Stuck,
            Some(_) => Phase::RollingBack,
            None => Phase::Mending,
        }
    }

    /// An undo of which nothing is known takes as long as its step.
    fn undo_estimate(&self, n: InstanceId) -> Duration {
        self.outline.steps.get(n.0 as usize).map_or(ESTIMATE_UNKNOWN, |step| step.estimate)
    }

    fn completion(&self, now: &Now) -> f64 {
        if self.ended.is_some() {
            return 1.0;
        }
        let weight = |estimate: Duration| estimate.as_secs_f64().max(0.001);
        let (mut whole, mut done) = (0.0, 0.0);
        for (at, step) in self.outline.steps.iter().enumerate() {
            whole += weight(step.estimate);
            // Behind a failure nothing more is mended.
            let share = if self.is_mending() { self.share_of(at, now) } else { 1.0 };
            done += weight(step.estimate) * share;
        }
        for (n, is_done) in self.undos.iter().flat_map(Undos::all) {
            let weight = weight(self.undo_estimate(n));
            whole += weight;
            done += if is_done { weight } else { 0.0 };
        }
        if whole > 0.0 { (done / whole).min(OPEN_SHARE_MAX) } else { 0.0 }
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
        let all = |held: &BTreeMap<InstanceId, (AgentRef, Instant)>, undo: bool| {
            let held = held.iter().filter_map(|(n, (agent, since))| {
                let step = steps.get(n.0 as usize)?;
                let standing = self.standing[n.0 as usize].0;
                let is_open =
                    if undo { standing == Standing::Undoing } else { !standing.is_through() };
                // What other replicas said of who has it may be older than the journal.
                is_open.then(|| Active {
                    agent: Arc::clone(&agent.agent_type),
                    instance: Some(Arc::clone(&agent.instance)),
                    step: Arc::clone(&step.id),
                    issue: step.issue.clone(),
                    since: *since,
                    undo,
                })
            });
            held.collect::<Vec<Active>>()
        };
        let mut active = all(&now.held, false);
        active.extend(all(&now.undoing, true));
        active
    }

    /// When all that remains is done: not before the longest chain of it, and not before each
    /// agent type has done its part with the slots that it has.
    fn estimated_end(&self, now: &Now) -> Option<Instant> {
        let asks = self.standing.iter().any(|(standing, _)| *standing == Standing::Asking);
        let asks = asks || self.phase() == Phase::Stuck;
        if self.ended.is_some() || self.paused || asks {
            return None;
        }
        let steps = &self.outline.steps;
        let remaining = self.remaining(now);
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

    /// How long each step will still take, or its undo: undos wait for each other like steps, the
    /// other way round.
    fn remaining(&self, now: &Now) -> Vec<Duration> {
        let steps = &self.outline.steps;
        if self.is_mending() {
            let left = |at: usize| (1.0 - self.share_of(at, now)).max(0.0);
            return (0..steps.len()).map(|at| steps[at].estimate.mul_f64(left(at))).collect();
        }
        let mut remaining = vec![Duration::ZERO; steps.len()];
        for (n, is_done) in self.undos.iter().flat_map(Undos::all) {
            if let (false, Some(remaining)) = (is_done, remaining.get_mut(n.0 as usize)) {
                *remaining = self.undo_estimate(n);
            }
        }
        remaining
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
        Event::UndoQueued { .. } | Event::ChildUndoRequested { .. } => Standing::Undoing,
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
