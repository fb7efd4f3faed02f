//! How well agents were used: their busy time over the time in which they had no excuse.
//!
//! An agent type has no excuse while at least as many of its steps are ready as it has free slots:
//! then every slot that stands idle is the orchestrator's loss, not a lack of work. Pure: it is
//! told what happened when, and reads nothing else.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use engine::{InstanceId, Instant};

/// Attempts that are remembered; of longer runs the last ones count.
const ATTEMPTS_MAX: usize = 200_000;
/// Pauses that are remembered.
const PAUSES_MAX: usize = 1_000;

/// One attempt of a step: ready from `ready`, at an agent from `began` to `ended`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Of which step.
    pub n: InstanceId,
    /// The agent type that had it.
    pub agent: Arc<str>,
    /// When it could have begun.
    pub ready: Instant,
    /// When it began.
    pub began: Instant,
    /// When it ended.
    pub ended: Instant,
}

/// What a run's steps asked of agents, and what agents did.
#[derive(Clone, Debug, Default)]
pub struct Work {
    /// Ready or with an agent: which type is asked for, and since when.
    open: BTreeMap<InstanceId, (Arc<str>, Instant)>,
    done: VecDeque<Attempt>,
    pauses: VecDeque<(Instant, Instant)>,
    paused: Option<Instant>,
}

/// How well one agent type was used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Used {
    /// Slots × seconds in which there was enough to do for all free slots.
    pub offered: f64,
    /// How much of that the agents were busy.
    pub busy: f64,
}

impl Used {
    /// Busy over offered, 0 to 1; `None` when there never was enough to do.
    #[must_use]
    pub fn share(&self) -> Option<f64> {
        (self.offered > 0.0).then(|| (self.busy / self.offered).min(1.0))
    }
}

impl Work {
    /// A step is ready for an agent of this type.
    pub fn ready(&mut self, n: InstanceId, agent: &Arc<str>, at: Instant) {
        self.open.insert(n, (Arc::clone(agent), at));
    }

    /// An attempt ended, by an agent of this type if any had it; `began` where it is known.
    pub fn ended(
        &mut self,
        n: InstanceId,
        by: Option<&Arc<str>>,
        began: Option<Instant>,
        at: Instant,
    ) {
        let Some((agent, ready)) = self.open.remove(&n) else { return };
        let Some(by) = by.cloned().or(began.map(|_| agent)) else { return };
        let began = began.unwrap_or(ready).clamp(ready.min(at), at);
        if self.done.len() == ATTEMPTS_MAX {
            self.done.pop_front();
        }
        self.done.push_back(Attempt { n, agent: by, ready, began, ended: at });
    }

    /// Nothing is given out any more, or again.
    pub fn paused(&mut self, paused: bool, at: Instant) {
        match (paused, self.paused) {
            (true, None) => self.paused = Some(at),
            (false, Some(since)) => {
                self.paused = None;
                if self.pauses.len() == PAUSES_MAX {
                    self.pauses.pop_front();
                }
                self.pauses.push_back((since, at));
            }
            _ => {}
        }
    }

    /// Which steps are ready or with an agent, of which type, since when.
    pub fn open(&self) -> impl Iterator<Item = (InstanceId, &Arc<str>, Instant)> {
        self.open.iter().map(|(n, (agent, ready))| (*n, agent, *ready))
    }

    /// The attempts that have ended, in the order of their ends.
    pub fn done(&self) -> impl Iterator<Item = &Attempt> {
        self.done.iter()
    }

    /// How well each agent type was used until `now`. `slots` says how many tasks a type can have
    /// at once; where it does not, the most that it ever had counts. `began` says since when
    /// agents have what is open; what is not there waits.
    #[must_use]
    pub fn used(
        &self,
        slots: &BTreeMap<Arc<str>, u32>,
        began: &BTreeMap<InstanceId, Instant>,
        now: Instant,
    ) -> BTreeMap<Arc<str>, Used> {
        let mut changes: BTreeMap<&Arc<str>, Vec<Change>> = BTreeMap::new();
        for Attempt { agent, ready, began, ended, .. } in &self.done {
            let all = changes.entry(agent).or_default();
            span(all, Kind::Ready, *ready, *began);
            span(all, Kind::Busy, *began, *ended);
        }
        for (n, (agent, ready)) in &self.open {
            let all = changes.entry(agent).or_default();
            let since = began.get(n).map_or(now, |began| (*began).clamp(*ready, now.max(*ready)));
            span(all, Kind::Ready, *ready, since);
            span(all, Kind::Busy, since, now);
        }
        let pauses = self.pauses.iter().copied().chain(self.paused.map(|since| (since, now)));
        let pauses: Vec<(Instant, Instant)> = pauses.collect();
        changes
            .into_iter()
            .map(|(agent, mut all)| {
                for (from, to) in &pauses {
                    span(&mut all, Kind::Paused, *from, *to);
                }
                (Arc::clone(agent), sweep(all, slots.get(agent).copied()))
            })
            .collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Ready,
    Busy,
    Paused,
}

/// At this time there is one more or one less of this kind.
type Change = (Instant, i64, Kind);

fn span(all: &mut Vec<Change>, kind: Kind, from: Instant, to: Instant) {
    if from < to {
        all.extend([(from, 1, kind), (to, -1, kind)]);
    }
}

fn sweep(mut all: Vec<Change>, slots: Option<u32>) -> Used {
    all.sort_unstable();
    let slots = slots.map_or_else(|| most_at_once(&all), i64::from).max(1);
    let mut used = Used::default();
    let (mut ready, mut busy, mut paused) = (0_i64, 0_i64, 0_i64);
    let mut before = all.first().map_or(Instant::default(), |(at, _, _)| *at);
    for (at, change, kind) in all {
        let free = (slots - busy).max(0);
        if ready >= free && ready + busy > 0 && paused == 0 {
            let seconds = at.since(before).as_secs_f64();
            used.offered += seconds * as_f64(slots);
            used.busy += seconds * as_f64(busy.min(slots));
        }
        before = at;
        match kind {
            Kind::Ready => ready += change,
            Kind::Busy => busy += change,
            Kind::Paused => paused += change,
        }
    }
    used
}

fn most_at_once(all: &[Change]) -> i64 {
    let (mut busy, mut most) = (0, 0);
    for (_, change, kind) in all {
        if *kind == Kind::Busy {
            busy += change;
            most = most.max(busy);
        }
    }
    most
}

#[expect(clippy::cast_precision_loss, reason = "slots are few")]
fn as_f64(count: i64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn at(seconds: i64) -> Instant {
        Instant(seconds * SECOND)
    }

    /// Attempts as (ready, began, ended) in seconds.
    fn work(attempts: &[(i64, i64, i64)]) -> Work {
        let agent: Arc<str> = "a".into();
        let mut work = Work::default();
        for (n, (ready, began, ended)) in (0..).zip(attempts) {
            work.ready(InstanceId(n), &agent, at(*ready));
            work.ended(InstanceId(n), Some(&agent), Some(at(*began)), at(*ended));
        }
        work
    }

    fn share(work: &Work, slots: u32, now: i64) -> Option<f64> {
        let slots = BTreeMap::from([("a".into(), slots)]);
        work.used(&slots, &BTreeMap::new(), at(now)).get("a").and_then(Used::share)
    }

    #[test]
    fn idle_slots_count_only_while_there_is_work_for_all_of_them() {
        // One slot: 1 s until the first begins, 2 s between the two.
        let one = work(&[(0, 1, 5), (0, 7, 11)]);
        assert_eq!(share(&one, 1, 20), Some(8.0 / 11.0));
        // Two slots and one step: nobody could have used the other slot.
        assert_eq!(share(&work(&[(0, 0, 5)]), 2, 20), None);
        // Two slots, two steps, one of them late: in [0, 2) one slot of two was idle.
        let late = work(&[(0, 0, 4), (0, 2, 4)]);
        assert_eq!(share(&late, 2, 4), Some(6.0 / 8.0));
        assert_eq!(share(&Work::default(), 2, 4), None);
    }

    #[test]
    fn what_is_open_waits_unless_an_agent_has_it() {
        let agent: Arc<str> = "a".into();
        let mut work = Work::default();
        work.ready(InstanceId(0), &agent, at(0));
        assert_eq!(share(&work, 1, 10), Some(0.0));
        let slots = BTreeMap::from([(Arc::clone(&agent), 1)]);
        let began = BTreeMap::from([(InstanceId(0), at(5))]);
        assert_eq!(work.used(&slots, &began, at(10))["a"].share(), Some(0.5));
        work.ended(InstanceId(0), None, None, at(10));
        assert_eq!(work.done().count(), 0, "nobody had it");
    }

    #[test]
    fn pauses_do_not_count() {
        let mut work = work(&[(0, 0, 2), (0, 8, 10)]);
        work.paused(true, at(2));
        work.paused(false, at(8));
        assert_eq!(share(&work, 1, 10), Some(1.0));
    }

    #[test]
    fn without_known_slots_the_most_at_once_counts() {
        let both = work(&[(0, 0, 4), (0, 2, 4)]);
        let used = both.used(&BTreeMap::new(), &BTreeMap::new(), at(4));
        assert_eq!(used["a"].share(), Some(6.0 / 8.0));
    }
}
