//! How far a rollback is: what its events fold to.

use std::collections::{BTreeMap, BTreeSet};

use super::summary::UndoCounts;
use crate::asked::Asks;
use crate::event::{Event, Origin, RollbackTo, UndoDecision, UndoOrder};
use crate::id::{InstanceId, Instant, RunId};
use crate::limits;
use crate::state::{Ended, Phase, State, Timer};
use crate::task::TaskError;

/// A rollback that was planned and waits to be executed.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) number: u32,
    pub(crate) to: RollbackTo,
    /// What ended behind this sequence is undone.
    pub(crate) target: u32,
    pub(crate) needs_approval: bool,
    pub(crate) approved_by: Option<String>,
    pub(crate) origin: Origin,
    pub(crate) at: Instant,
    /// What it would undo, as things were when it was planned.
    pub(crate) counts: UndoCounts,
    /// The event that changed it last: its sequence and its time.
    pub(crate) changed: (u32, Instant),
}

/// How far a rollback is.
#[derive(Clone, Debug)]
pub(crate) struct Rollback {
    pub(crate) number: u32,
    pub(crate) target: u32,
    /// It was asked for behind the run's end, which was this one.
    pub(crate) prior: Option<Ended>,
    pub(crate) to: RollbackTo,
    pub(crate) origin: Origin,
    pub(crate) approved_by: Option<String>,
    pub(crate) started_at: Instant,
    pub(crate) ended_at: Option<Instant>,
    pub(crate) units: Vec<Unit>,
    pub(crate) not_undoable: Vec<InstanceId>,
    /// Nothing of what was to be undone is left, as far as is known yet.
    pub(crate) complete: bool,
    /// Where to find the unit of a step instance.
    places: BTreeMap<InstanceId, usize>,
    /// When what is not settled began, and where it stands: an undo waits for the undo of all that
    /// began behind the end of its step.
    open: BTreeSet<(u32, usize)>,
    /// The next unit to be begun.
    next: usize,
    /// How many undos are out.
    pub(crate) out: usize,
    /// How many wait for a person.
    pub(crate) stuck: usize,
    /// What became of the undos.
    pub(crate) counts: UndoCounts,
    /// The event that changed the counts or the status last: its sequence and its time.
    pub(crate) changed: (u32, Instant),
}

/// What is to be undone of one step instance.
#[derive(Clone, Debug)]
pub(crate) struct Unit {
    pub(crate) n: InstanceId,
    begun: u32,
    /// `u32::MAX`: it was under way when the run stopped.
    ended: u32,
    pub(crate) state: UnitState,
    /// Which of its parts is next: one for each agent type that had it, or each child run.
    pub(crate) part: usize,
    /// How many attempts were made; they count on over parts and decisions.
    pub(crate) attempts: u32,
    /// How many of them belong to former parts, or stand before a person's decision.
    pub(crate) attempts_before: u32,
    /// Who decided, and what was said.
    pub(crate) decided: Option<(UndoDecision, String, String)>,
    pub(crate) error: Option<TaskError>,
}

/// Where the undo of a step instance stands.
#[derive(Clone, Debug)]
pub(crate) enum UnitState {
    /// It waits for others, or is to be given out.
    Owed,
    /// An agent has it, or is owed it.
    Out { order: Box<UndoOrder>, not_before: Option<Instant>, queued_at: Instant },
    /// A child run undoes itself.
    Child(RunId),
    /// It failed for good; a person is asked.
    Stuck,
    /// It is undone.
    Undone,
    /// A person undid it.
    ByHand,
    /// A person left it as it is.
    Skipped,
}

impl UnitState {
    pub(crate) fn is_settled(&self) -> bool {
        matches!(self, Self::Undone | Self::ByHand | Self::Skipped)
    }

    fn is_out(&self) -> bool {
        matches!(self, Self::Out { .. } | Self::Child(_))
    }
}

impl Rollback {
    pub(crate) fn unit(&self, n: InstanceId) -> Option<&Unit> {
        self.places.get(&n).map(|&at| &self.units[at])
    }

    /// Whether everything is undone, or somebody has decided that it is over.
    pub(crate) fn is_over(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether anything was undone.
    pub(crate) fn has_undone(&self) -> bool {
        let gone = |unit: &Unit| matches!(unit.state, UnitState::Undone | UnitState::ByHand);
        self.units.iter().any(gone)
    }

    /// The step whose undo may be given out next.
    pub(crate) fn eligible(&self) -> Option<InstanceId> {
        if self.out >= limits::UNDOS_AT_ONCE_MAX {
            return None;
        }
        let unit = self.units.get(self.next)?;
        let latest = self.open.last().map_or(0, |(begun, _)| *begun);
        // What is open and began behind the end of this step may rest on it.
        (unit.ended > latest || unit.begun == latest).then_some(unit.n)
    }

    fn change(&mut self, n: InstanceId, change: impl FnOnce(&mut Unit)) {
        let Some(&at) = self.places.get(&n) else {
            debug_assert!(false, "an undo belongs to a step that is to be undone");
            return;
        };
        let unit = &mut self.units[at];
        let (was_out, was_stuck) = (unit.state.is_out(), matches!(unit.state, UnitState::Stuck));
        self.counts.leave(&unit.state);
        change(unit);
        self.counts.enter(&unit.state);
        let is_stuck = matches!(unit.state, UnitState::Stuck);
        self.out = self.out + usize::from(unit.state.is_out()) - usize::from(was_out);
        self.stuck = self.stuck + usize::from(is_stuck) - usize::from(was_stuck);
        if unit.state.is_settled() {
            self.open.remove(&(unit.begun, at));
        }
        while self.units.get(self.next).is_some_and(|unit| !matches!(unit.state, UnitState::Owed)) {
            self.next += 1;
        }
        if matches!(self.units[at].state, UnitState::Owed) {
            self.next = self.next.min(at);
        }
    }
}

impl State {
    /// Takes in one event of a rollback.
    pub(crate) fn apply_rollback(&mut self, event: &Event, at: Instant) {
        match event {
            Event::RollbackPlanned { number, to, target, needs_approval, origin } => {
                self.remember(origin);
                self.rollbacks = self.rollbacks.max(*number);
                let (steps, not_undoable) = self.to_undo(*target, false);
                self.planned = Some(Planned {
                    counts: UndoCounts::of(steps.len(), not_undoable.len()),
                    changed: (self.sequence(), at),
                    number: *number,
                    to: to.clone(),
                    target: *target,
                    needs_approval: *needs_approval,
                    approved_by: None,
                    origin: origin.clone(),
                    at,
                });
            }
            Event::RollbackApproved { origin, .. } => {
                self.remember(origin);
                let changed = (self.sequence(), at);
                if let Some(planned) = self.planned.as_mut() {
                    planned.approved_by = Some(origin.actor.clone());
                    planned.changed = changed;
                }
            }
            Event::RollbackAbandoned { origin, .. } => {
                self.remember(origin);
                self.note_abandoned(at);
                self.planned = None;
            }
            Event::RollbackStarted { steps, not_undoable, number, target, origin } => {
                self.remember(origin);
                self.begin_units(steps, not_undoable, *number, *target, origin, at);
            }
            Event::RollbackEnded { complete } => {
                let changed = (self.sequence(), at);
                if let Some(rollback) = self.rollback.as_mut() {
                    rollback.changed = changed;
                    rollback.complete = *complete;
                    rollback.ended_at = Some(at);
                }
            }
            undo => self.apply_undo(undo, at),
        }
    }

    fn begin_units(
        &mut self,
        steps: &[InstanceId],
        not_undoable: &[InstanceId],
        number: u32,
        target: Option<u32>,
        origin: &Origin,
        at: Instant,
    ) {
        let planned = self.planned.take();
        let known = |n: &&InstanceId| n.index() < self.instances.len();
        let units: Vec<Unit> = steps.iter().filter(known).map(|&n| self.unit_of(n)).collect();
        self.rollbacks = self.rollbacks.max(number);
        self.note_rollback();
        self.rollback = Some(Rollback {
            counts: UndoCounts::of(units.len(), not_undoable.len()),
            changed: (self.sequence(), at),
            number,
            target: target.unwrap_or(0),
            prior: self.ended.take(),
            to: planned.as_ref().map_or(RollbackTo::Start, |planned| planned.to.clone()),
            origin: origin.clone(),
            approved_by: planned.and_then(|planned| planned.approved_by),
            started_at: at,
            ended_at: None,
            places: units.iter().enumerate().map(|(at, unit)| (unit.n, at)).collect(),
            open: units.iter().enumerate().map(|(at, unit)| (unit.begun, at)).collect(),
            units,
            not_undoable: not_undoable.to_vec(),
            complete: not_undoable.is_empty(),
            next: 0,
            out: 0,
            stuck: 0,
        });
        self.phase = Phase::RollingBack;
        self.timers.retain(|(_, timer)| *timer != Timer::Run);
    }

    fn unit_of(&self, n: InstanceId) -> Unit {
        Unit {
            n,
            begun: self.instances[n.index()].begun,
            ended: self.undo_rank(n),
            state: UnitState::Owed,
            part: 0,
            attempts: 0,
            attempts_before: 0,
            decided: None,
            error: None,
        }
    }

    fn apply_undo(&mut self, event: &Event, at: Instant) {
        let Some(n) = event.instance().filter(|n| n.index() < self.instances.len()) else {
            debug_assert!(false, "every event of a rollback is taken in");
            return;
        };
        let parts = self.undo_parts(n).len();
        let changed = (self.sequence(), at);
        if let Event::UndoDecided { origin, .. } = event {
            self.remember(origin);
        }
        let Some(rollback) = self.rollback.as_mut() else {
            debug_assert!(false, "an undo belongs to a rollback");
            return;
        };
        match event {
            Event::UndoQueued { order, .. } => rollback.change(n, |unit| {
                unit.attempts += 1;
                let order = Box::new(order.clone());
                unit.state = UnitState::Out { order, not_before: None, queued_at: at };
            }),
            Event::ChildUndoRequested { child, .. } => {
                rollback.change(n, |unit| unit.state = UnitState::Child(*child));
            }
            Event::UndoSucceeded { .. } => rollback.change(n, |unit| {
                unit.part += 1;
                unit.attempts_before = unit.attempts;
                unit.error = None;
                let more = unit.part < parts;
                unit.state = if more { UnitState::Owed } else { UnitState::Undone };
            }),
            Event::UndoFailed { error, retry_at, attempt, .. } => rollback.change(n, |unit| {
                unit.error = Some(error.clone());
                match (&mut unit.state, retry_at) {
                    (UnitState::Out { not_before, .. }, Some(retry_at)) => {
                        *not_before = Some(*retry_at);
                        unit.attempts = attempt + 1;
                    }
                    (state, _) => *state = UnitState::Stuck,
                }
            }),
            Event::UndoDecided { decision, comment, origin, .. } => rollback.change(n, |unit| {
                unit.attempts_before = unit.attempts;
                unit.decided = Some((*decision, origin.actor.clone(), comment.clone()));
                unit.state = match decision {
                    UndoDecision::Retry => UnitState::Owed,
                    UndoDecision::Done => UnitState::ByHand,
                    UndoDecision::Skip => UnitState::Skipped,
                };
            }),
            _ => debug_assert!(false, "every event of a rollback is taken in"),
        }
        let begins = matches!(event, Event::UndoQueued { .. } | Event::ChildUndoRequested { .. });
        if !begins && !matches!(event, Event::UndoFailed { retry_at: Some(_), .. }) {
            rollback.changed = changed;
        }
        if let Event::UndoDecided { decision: UndoDecision::Skip, .. } = event {
            rollback.complete = false;
        }
        let gone = |unit: &Unit| matches!(unit.state, UnitState::Undone | UnitState::ByHand);
        if rollback.unit(n).is_some_and(gone) {
            self.instances[n.index()].detail_mut().undone = true;
        }
        if let Event::UndoFailed { error, retry_at: None, .. } = event {
            self.ask(n, Asks::Undo, &error.message, None, at);
        }
    }
}
