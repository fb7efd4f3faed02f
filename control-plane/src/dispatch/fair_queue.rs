//! The order in which tasks of equal needs are given out: by level of priority, within a level
//! by weighted fair share over the fairness keys, within a key the oldest first.
//!
//! Fair share is deficit round robin in the form of virtual time: every task costs the same, so
//! each key has a pass that grows by a stride, smaller the heavier the key, with every task
//! given out, and the key with the smallest pass is next. Passes are shared by all lanes.
//! Pure data; knows no agents.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use engine::Instant;
use engine::task::TaskKey;

use crate::hash::QuickMap;
use crate::limits;

/// Where a task stands among those of its key: when it became ready, and a counter.
pub(super) type Place = (Instant, u64);

const LEVELS: usize = limits::PRIORITY_MAX as usize + 1;
const STRIDE: u64 = 1_000_000;

/// What each fairness key has had.
#[derive(Debug, Default)]
pub(super) struct Shares {
    shares: QuickMap<Arc<str>, Share>,
    /// The pass of the key that was served last; who comes anew starts here.
    virtual_time: u64,
    weights: BTreeMap<String, u32>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Share {
    pass: u64,
    waiting: usize,
}

impl Shares {
    pub(super) fn new(weights: BTreeMap<String, u32>) -> Self {
        Self { weights, ..Self::default() }
    }

    /// A task of `key` was given out.
    pub(super) fn charge(&mut self, key: &Arc<str>) {
        let weight = self.weights.get(&**key).copied().unwrap_or(1);
        let stride = STRIDE / u64::from(weight.clamp(1, limits::WEIGHT_MAX));
        let share = self.shares.entry(key.clone()).or_default();
        share.pass = share.pass.max(if share.waiting == 0 { self.virtual_time } else { 0 });
        self.virtual_time = self.virtual_time.max(share.pass);
        share.pass += stride;
        self.forget_idle();
    }

    fn enter(&mut self, key: &Arc<str>) {
        let share = self.shares.entry(key.clone()).or_default();
        if share.waiting == 0 {
            share.pass = share.pass.max(self.virtual_time);
        }
        share.waiting += 1;
    }

    fn leave(&mut self, key: &Arc<str>) {
        if let Some(share) = self.shares.get_mut(key) {
            share.waiting = share.waiting.saturating_sub(1);
        }
        self.forget_idle();
    }

    fn forget_idle(&mut self) {
        if self.shares.len() > limits::IDLE_SHARES_KEPT {
            let time = self.virtual_time;
            self.shares.retain(|_, share| share.waiting > 0 || share.pass > time);
        }
    }

    fn pass(&self, key: &Arc<str>) -> u64 {
        self.shares.get(key).map_or(self.virtual_time, |share| share.pass)
    }
}

/// The tasks of one lane.
#[derive(Debug, Default)]
pub(super) struct FairQueue {
    levels: [Level; LEVELS],
    len: usize,
}

#[derive(Debug, Default)]
struct Level {
    fifos: QuickMap<Arc<str>, Fifo>,
    /// Each key with the pass it had when it was last looked at, which is never above its own.
    order: BTreeSet<(u64, Arc<str>)>,
}

#[derive(Debug)]
struct Fifo {
    tasks: BTreeMap<Place, TaskKey>,
    pass: u64,
}

/// The task that is next in a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) level: u8,
    pub(super) pass: u64,
    pub(super) place: Place,
    pub(super) key: TaskKey,
}

impl Head {
    /// Whether this one goes before `other` where an agent could take either.
    pub(super) fn goes_before(&self, other: &Self) -> bool {
        let rank = |head: &Self| (std::cmp::Reverse(head.level), head.pass, head.place);
        rank(self) < rank(other)
    }
}

impl FairQueue {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn insert(
        &mut self,
        level: u8,
        fairness: &Arc<str>,
        place: Place,
        key: TaskKey,
        shares: &mut Shares,
    ) {
        shares.enter(fairness);
        let pass = shares.pass(fairness);
        let level = &mut self.levels[usize::from(level.min(limits::PRIORITY_MAX))];
        let fifo = level.fifos.entry(fairness.clone()).or_insert_with(|| {
            level.order.insert((pass, fairness.clone()));
            Fifo { tasks: BTreeMap::new(), pass }
        });
        let before = fifo.tasks.insert(place, key);
        debug_assert!(before.is_none(), "a place is taken once");
        self.len += 1;
    }

    /// Takes a task out; false when it was not there.
    pub(super) fn remove(
        &mut self,
        level: u8,
        fairness: &Arc<str>,
        place: Place,
        shares: &mut Shares,
    ) -> bool {
        let level = &mut self.levels[usize::from(level.min(limits::PRIORITY_MAX))];
        let Some(fifo) = level.fifos.get_mut(fairness) else { return false };
        if fifo.tasks.remove(&place).is_none() {
            return false;
        }
        if fifo.tasks.is_empty() {
            level.order.remove(&(fifo.pass, fairness.clone()));
            level.fifos.remove(fairness);
        }
        shares.leave(fairness);
        self.len -= 1;
        true
    }

    /// The task that is next, left where it is.
    pub(super) fn head(&mut self, shares: &Shares) -> Option<Head> {
        if self.len == 0 {
            return None;
        }
        self.levels.iter_mut().enumerate().rev().find_map(|(number, level)| {
            let (pass, place, key) = level.head(shares)?;
            Some(Head { level: u8::try_from(number).unwrap_or(0), pass, place, key })
        })
    }
}

impl Level {
    fn head(&mut self, shares: &Shares) -> Option<(u64, Place, TaskKey)> {
        loop {
            let (stored, key) = self.order.first()?.clone();
            let current = shares.pass(&key);
            let fifo = self.fifos.get_mut(&key)?;
            if stored == current {
                let (place, task) = fifo.tasks.first_key_value()?;
                return Some((current, *place, *task));
            }
            self.order.pop_first();
            fifo.pass = current;
            self.order.insert((current, key));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use engine::InstanceId;
    use engine::RunId;
    use engine::task::Purpose;

    use super::*;

    struct World {
        queue: FairQueue,
        shares: Shares,
        count: u64,
    }

    impl World {
        fn new(weights: &[(&str, u32)]) -> Self {
            let weights = weights.iter().map(|(key, weight)| ((*key).to_owned(), *weight));
            Self { queue: FairQueue::default(), shares: Shares::new(weights.collect()), count: 0 }
        }

        fn add(&mut self, level: u8, fairness: &str, at: i64) -> u32 {
            self.count += 1;
            let number = u32::try_from(self.count).unwrap_or(0);
            let run = RunId::derived(RunId::at_instant(Instant(0), ""), "run");
            let key = TaskKey { run, instance: InstanceId(number), purpose: Purpose::Do };
            let place = (Instant(at), self.count);
            self.queue.insert(level, &fairness.into(), place, key, &mut self.shares);
            number
        }

        fn take(&mut self, names: &HashMap<u32, &'static str>) -> Option<(u32, &'static str)> {
            let head = self.queue.head(&self.shares)?;
            let number = head.key.instance.0;
            let name = names[&number];
            self.shares.charge(&name.into());
            assert!(self.queue.remove(head.level, &name.into(), head.place, &mut self.shares));
            Some((number, name))
        }
    }

    fn served(world: &mut World, names: &HashMap<u32, &'static str>, count: usize) -> String {
        let taken = std::iter::from_fn(|| world.take(names));
        taken.take(count).map(|(_, name)| name).collect()
    }

    #[test]
    fn a_workflow_with_many_tasks_does_not_hold_up_one_with_few() {
        let mut world = World::new(&[]);
        let mut names = HashMap::new();
        for at in 0..100 {
            names.insert(world.add(5, "a", at), "a");
        }
        for at in 100..103 {
            names.insert(world.add(5, "b", at), "b");
        }
        assert_eq!(served(&mut world, &names, 8), "abababaa");
    }

    #[test]
    fn shares_follow_weights() {
        let mut world = World::new(&[("a", 3)]);
        let mut names = HashMap::new();
        for at in 0..100 {
            names.insert(world.add(5, "a", at), "a");
            names.insert(world.add(5, "b", at), "b");
        }
        let served = served(&mut world, &names, 40);
        assert_eq!(served.matches('a').count(), 30);
    }

    #[test]
    fn who_was_idle_saves_up_nothing() {
        let mut world = World::new(&[]);
        let mut names = HashMap::new();
        for at in 0..50 {
            names.insert(world.add(5, "a", at), "a");
        }
        assert_eq!(served(&mut world, &names, 40).len(), 40);
        for at in 50..60 {
            names.insert(world.add(5, "b", at), "b");
        }
        let next = served(&mut world, &names, 10);
        assert_eq!(next.matches('a').count(), 5, "{next}");
    }

    #[test]
    fn a_higher_level_goes_first_and_the_oldest_within_a_key() {
        let mut world = World::new(&[]);
        let mut names = HashMap::new();
        let late = world.add(5, "a", 20);
        let early = world.add(5, "a", 10);
        let high = world.add(6, "a", 30);
        for number in [late, early, high] {
            names.insert(number, "a");
        }
        let order: Vec<u32> =
            std::iter::from_fn(|| world.take(&names)).map(|(number, _)| number).collect();
        assert_eq!(order, [high, early, late]);
        assert_eq!(world.queue.len(), 0);
        assert!(world.queue.levels.iter().all(|l| l.order.is_empty() && l.fifos.is_empty()));
    }
}
