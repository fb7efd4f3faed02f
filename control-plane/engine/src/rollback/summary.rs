//! What lists show of a rollback: kept up as it goes on, so that nobody has to count.

use super::progress::{Planned, Rollback, UnitState};
use super::view::RollbackStatus;
use crate::event::RollbackTo;
use crate::id::Instant;
use crate::state::State;

/// What became of the undos of a rollback.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UndoCounts {
    /// How many steps are to be undone.
    pub total: u32,
    /// How many of them are undone.
    pub undone: u32,
    /// How many a person undid.
    pub by_hand: u32,
    /// How many a person left as they are.
    pub skipped: u32,
    /// How many wait for a person.
    pub stuck: u32,
    /// How many steps changed something, perhaps, and cannot be undone; not among the total.
    pub not_undoable: u32,
}

impl UndoCounts {
    /// Of so many steps, of which nothing has become yet.
    #[must_use]
    pub fn of(total: usize, not_undoable: usize) -> Self {
        let number = |count| u32::try_from(count).unwrap_or(u32::MAX);
        Self { total: number(total), not_undoable: number(not_undoable), ..Self::default() }
    }

    fn place(&mut self, state: &UnitState) -> Option<&mut u32> {
        match state {
            UnitState::Owed | UnitState::Out { .. } | UnitState::Child(_) => None,
            UnitState::Stuck => Some(&mut self.stuck),
            UnitState::Undone => Some(&mut self.undone),
            UnitState::ByHand => Some(&mut self.by_hand),
            UnitState::Skipped => Some(&mut self.skipped),
        }
    }

    pub(crate) fn leave(&mut self, state: &UnitState) {
        if let Some(count) = self.place(state) {
            *count = count.saturating_sub(1);
        }
    }

    pub(crate) fn enter(&mut self, state: &UnitState) {
        if let Some(count) = self.place(state) {
            *count += 1;
        }
    }
}

/// A rollback of a run, without its steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollbackSummary {
    /// Its number within the run, from 1.
    pub number: u32,
    /// How far it goes.
    pub to: RollbackTo,
    /// Where it stands.
    pub status: RollbackStatus,
    /// It was asked for, not begun by a failure.
    pub asked: bool,
    /// It is executed only once it is approved.
    pub needs_approval: bool,
    /// Who asked for it.
    pub actor: String,
    /// Who approved it.
    pub approved_by: Option<String>,
    /// When it was planned, or begun where nobody planned it.
    pub at: Instant,
    /// When it ended or was given up.
    pub ended_at: Option<Instant>,
    /// What became of its undos.
    pub counts: UndoCounts,
    /// The sequence of the event by which this is what it is.
    pub sequence: u32,
    /// When that was.
    pub changed_at: Instant,
}

fn of_planned(planned: &Planned) -> RollbackSummary {
    let approved = planned.approved_by.is_some();
    RollbackSummary {
        number: planned.number,
        to: planned.to.clone(),
        status: if approved { RollbackStatus::Approved } else { RollbackStatus::Planned },
        asked: true,
        needs_approval: planned.needs_approval,
        actor: planned.origin.actor.clone(),
        approved_by: planned.approved_by.clone(),
        at: planned.at,
        ended_at: None,
        counts: planned.counts,
        sequence: planned.changed.0,
        changed_at: planned.changed.1,
    }
}

fn of_rollback(rollback: &Rollback) -> RollbackSummary {
    RollbackSummary {
        number: rollback.number,
        to: rollback.to.clone(),
        status: rollback.status(),
        asked: rollback.prior.is_some(),
        needs_approval: rollback.approved_by.is_some(),
        actor: rollback.origin.actor.clone(),
        approved_by: rollback.approved_by.clone(),
        at: rollback.started_at,
        ended_at: rollback.ended_at,
        counts: rollback.counts,
        sequence: rollback.changed.0,
        changed_at: rollback.changed.1,
    }
}

impl Rollback {
    pub(crate) fn status(&self) -> RollbackStatus {
        match (self.ended_at, self.complete) {
            (Some(_), true) => RollbackStatus::Succeeded,
            (Some(_), false) => RollbackStatus::Incomplete,
            (None, _) if self.stuck > 0 => RollbackStatus::Stuck,
            (None, _) => RollbackStatus::Running,
        }
    }
}

impl State {
    /// The rollbacks that are known, as lists show them: the one under way or over last, and the
    /// one planned.
    pub fn rollback_summaries(&self) -> impl Iterator<Item = RollbackSummary> {
        let rollback = self.rollback.iter().map(of_rollback);
        rollback.chain(self.planned.iter().map(of_planned))
    }

    /// The rollback that was under way last is about to be forgotten.
    pub(crate) fn note_rollback(&mut self) {
        if let Some(rollback) = &self.rollback {
            self.notes.rollbacks.push(of_rollback(rollback));
        }
    }

    /// A planned rollback is given up.
    pub(crate) fn note_abandoned(&mut self, at: Instant) {
        if let Some(planned) = &self.planned {
            self.notes.rollbacks.push(RollbackSummary {
                status: RollbackStatus::Abandoned,
                ended_at: Some(at),
                sequence: self.sequence(),
                changed_at: at,
                ..of_planned(planned)
            });
        }
    }
}
