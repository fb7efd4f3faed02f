//! What one replica lends another of one agent. Pure data: a credit that the borrower may still
//! be using counts as taken, whatever it was told meanwhile.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::limits;

/// How many tasks the borrower may have out at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Levels {
    pub(super) total: u32,
    /// Of the actions that the agent limits; the others are bounded by the total.
    pub(super) limited: BTreeMap<Arc<str>, u32>,
}

impl Levels {
    fn of(&self, action: &str) -> u32 {
        self.limited.get(action).copied().unwrap_or(self.total).min(self.total)
    }

    /// Whether all that `other` allows is allowed.
    fn covers(&self, other: &Self) -> bool {
        let limited = self.limited.keys().all(|action| self.of(action) >= other.of(action));
        self.total >= other.total && limited
    }
}

/// What is lent of one agent to one replica.
#[derive(Clone, Debug, Default)]
pub(super) struct Loan {
    /// What the borrower is to have.
    wanted: Levels,
    /// What it was told last.
    told: Levels,
    /// What it was told before and may be using until it has seen the serial.
    former: VecDeque<(u64, Levels)>,
    /// To be told although nothing is changed.
    tell: bool,
    /// How many tasks it has out, as far as is known here.
    pub(super) out: u32,
    /// How many of those it gave out itself, or said that they are its.
    pub(super) sure: u32,
    /// The most that it had out since the last look.
    pub(super) peak: u32,
}

impl Loan {
    /// What the borrower is to have in all.
    pub(super) fn level(&self) -> u32 {
        self.wanted.total
    }

    fn standing(&self) -> impl Iterator<Item = &Levels> {
        let former = self.former.iter().map(|(_, levels)| levels);
        [&self.wanted, &self.told].into_iter().chain(former)
    }

    /// How many credits of the agent it takes up.
    pub(super) fn reserved(&self) -> u32 {
        self.standing().map(|levels| levels.total).max().unwrap_or(0).max(self.out)
    }

    /// The same of one action that the agent limits.
    pub(super) fn reserved_of(&self, action: &str) -> u32 {
        self.standing().map(|levels| levels.of(action)).max().unwrap_or(0)
    }

    /// Credits that are lent and, as far as is known here, not used.
    pub(super) fn idle(&self) -> u32 {
        self.wanted.total.saturating_sub(self.out)
    }

    /// Credits that are on their way back.
    pub(super) fn returning(&self) -> u32 {
        self.reserved().saturating_sub(self.wanted.total.max(self.out))
    }

    /// Whether the borrower has not seen yet that it has less.
    pub(super) fn is_lowering(&self) -> bool {
        !self.former.is_empty()
    }

    /// Lends `count` more; of `action`, if the agent limits it.
    pub(super) fn raise(&mut self, count: u32, action: Option<&Arc<str>>) {
        self.wanted.total += count;
        if let Some(action) = action {
            *self.wanted.limited.entry(action.clone()).or_default() += count;
        }
    }

    /// Asks for `count` back.
    pub(super) fn lower(&mut self, count: u32) {
        if self.former.len() >= limits::LOWERINGS_MAX {
            return;
        }
        self.wanted.total = self.wanted.total.saturating_sub(count);
        let total = self.wanted.total;
        self.wanted.limited.values_mut().for_each(|level| *level = (*level).min(total));
    }

    /// The borrower had all its credits in use, and the result of one task is still to be told:
    /// its credit can go elsewhere at once, when it is told so before the result.
    pub(super) fn keep_back(&mut self) -> bool {
        let was_full = self.sure + 1 == self.told.total && self.former.is_empty();
        if !was_full || self.wanted != self.told || !self.wanted.limited.is_empty() {
            return false;
        }
        self.wanted.total -= 1;
        self.told.total -= 1;
        self.tell = true;
        true
    }

    /// The agent limits these actions, and no others.
    pub(super) fn limit<'a>(&mut self, actions: impl Iterator<Item = &'a Arc<str>>) {
        let old = std::mem::take(&mut self.wanted.limited);
        let level = |action: &Arc<str>| old.get(action).copied().unwrap_or(0);
        self.wanted.limited = actions.map(|action| (action.clone(), level(action))).collect();
    }

    /// What the borrower must be told, if anything, under this serial.
    pub(super) fn tell(&mut self, serial: u64) -> Option<Levels> {
        if self.wanted == self.told && !self.tell {
            return None;
        }
        self.tell = false;
        let before = std::mem::replace(&mut self.told, self.wanted.clone());
        if !self.told.covers(&before) {
            self.former.push_back((serial, before));
        }
        Some(self.told.clone())
    }

    /// What was told up to this serial is all that the borrower uses; whether credits came back.
    pub(super) fn seen(&mut self, serial: u64) -> bool {
        let before = self.former.len();
        self.former.retain(|(lowered, _)| *lowered > serial);
        before != self.former.len()
    }

    /// Nothing is lent and nothing out.
    pub(super) fn is_over(&self) -> bool {
        self.reserved() == 0 && !self.tell
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lowered_credit_counts_until_the_borrower_has_seen_it() {
        let mut loan = Loan::default();
        loan.raise(3, None);
        assert_eq!(loan.tell(1).map(|levels| levels.total), Some(3));
        assert_eq!(loan.tell(2), None);
        loan.lower(2);
        assert_eq!((loan.level(), loan.reserved(), loan.returning()), (1, 3, 2));
        assert!(loan.tell(2).is_some());
        assert!(!loan.seen(1));
        assert_eq!(loan.reserved(), 3);
        assert!(loan.seen(2));
        assert_eq!(loan.reserved(), 1);
        loan.out = 2;
        assert_eq!(loan.reserved(), 2, "what is out counts, whatever was lent");
    }

    #[test]
    fn a_lowering_that_is_taken_back_before_it_was_told_changes_nothing() {
        let mut loan = Loan::default();
        loan.raise(2, None);
        loan.tell(1);
        loan.lower(1);
        loan.raise(1, None);
        assert_eq!(loan.tell(2), None);
        assert_eq!(loan.reserved(), 2);
    }

    #[test]
    fn a_credit_is_kept_back_only_when_the_borrower_cannot_be_using_it() {
        let mut loan = Loan::default();
        loan.raise(2, None);
        loan.tell(1);
        assert!(!loan.keep_back(), "the other credit may have been used for another task");
        loan.out = 1;
        assert!(!loan.keep_back(), "the borrower does not know of that one");
        loan.sure = 1;
        assert!(loan.keep_back());
        assert_eq!((loan.level(), loan.reserved()), (1, 1));
        assert_eq!(loan.tell(2).map(|levels| levels.total), Some(1));
    }

    #[test]
    fn limited_actions_are_lent_by_themselves() {
        let action: Arc<str> = "do".into();
        let mut loan = Loan::default();
        loan.raise(2, None);
        assert_eq!(loan.reserved_of("do"), 2, "an action without a limit may use all");
        loan.tell(1);
        loan.limit([&action].into_iter());
        assert_eq!(loan.reserved_of("do"), 2, "it may be using it still");
        loan.tell(2);
        loan.seen(2);
        assert_eq!(loan.reserved_of("do"), 0);
        loan.raise(1, Some(&action));
        assert_eq!((loan.level(), loan.reserved_of("do")), (3, 1));
    }
}
