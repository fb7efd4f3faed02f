//! Which keys the runs in this process's memory have or want. It decides nothing: the rows do.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::effect::Acquire;
use engine::event::KeyKind;
use engine::{InstanceId, RunId};

use super::{Holder, Name};

/// What each holder wants; holders of one run stand together.
#[derive(Debug, Default)]
pub(super) struct Registry(BTreeMap<Holder, Vec<Wish>>);

/// A key that is wanted.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) acquire: Arc<Acquire>,
    /// The run knows what became of it.
    pub(super) told: bool,
    /// The row says that it stands in line.
    queued: bool,
}

impl Wish {
    fn is(&self, name: &Name) -> bool {
        (self.acquire.which, &self.acquire.key) == (name.0, &name.1)
    }
}

impl Registry {
    pub(super) fn want(&mut self, holder: Holder, acquire: Arc<Acquire>) {
        let wishes = self.0.entry(holder).or_default();
        let name = (acquire.which, Arc::clone(&acquire.key));
        wishes.retain(|wish| !wish.is(&name));
        let told = acquire.held;
        wishes.push(Wish { acquire, told, queued: false });
    }

    /// The holder is known to want this from before; what is known of the wish stays.
    pub(super) fn recall(&mut self, holder: Holder, acquire: Arc<Acquire>) {
        let name = (acquire.which, Arc::clone(&acquire.key));
        if self.wish(holder, &name).is_none() {
            self.want(holder, acquire);
        }
    }

    /// The row says that this very wish stands in line.
    pub(super) fn queued(&mut self, holder: Holder, acquire: &Arc<Acquire>) {
        let wishes = self.0.get_mut(&holder).into_iter().flatten();
        for wish in wishes.filter(|wish| Arc::ptr_eq(&wish.acquire, acquire)) {
            wish.queued = true;
        }
    }

    /// Whether the row keeps the holder's place, and nothing else is known of its wish.
    pub(super) fn is_queued(&self, holder: Holder, name: &Name) -> bool {
        self.wish(holder, name).is_some_and(|wish| wish.queued && !wish.told)
    }

    /// Gives the names of what the holder had or wanted.
    pub(super) fn release(&mut self, holder: Holder) -> Vec<Name> {
        let wishes = self.0.remove(&holder).unwrap_or_default();
        wishes.iter().map(|wish| (wish.acquire.which, Arc::clone(&wish.acquire.key))).collect()
    }

    pub(super) fn holders_of(&self, run: RunId) -> Vec<Holder> {
        let first = Holder { run, instance: None };
        let last = Holder { run, instance: Some(InstanceId(u32::MAX)) };
        self.0.range(first..=last).map(|(holder, _)| *holder).collect()
    }

    pub(super) fn forget(&mut self, run: RunId) {
        for holder in self.holders_of(run) {
            self.0.remove(&holder);
        }
    }

    pub(super) fn wish(&self, holder: Holder, name: &Name) -> Option<&Wish> {
        self.0.get(&holder)?.iter().find(|wish| wish.is(name))
    }

    /// The run was told that it has the key of this kind, or that it never will.
    pub(super) fn told(&mut self, holder: Holder, which: Option<KeyKind>) {
        for wish in self.0.get_mut(&holder).into_iter().flatten() {
            wish.told |= which.is_none_or(|which| wish.acquire.which == which);
        }
    }

    /// All wishes whose holders do not know yet what becomes of them.
    pub(super) fn untold(&self) -> Vec<(Holder, Arc<Acquire>)> {
        let all = self
            .0
            .iter()
            .flat_map(|(holder, wishes)| wishes.iter().map(move |wish| (*holder, wish)));
        let untold = all.filter(|(_, wish)| !wish.told);
        untold.map(|(holder, wish)| (holder, Arc::clone(&wish.acquire))).collect()
    }
}
