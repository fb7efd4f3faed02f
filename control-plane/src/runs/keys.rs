//! What spans runs: concurrency keys and rate limits.
//!
//! Grants stand in the journals of the runs that hold them; this table is made anew from those
//! when a process starts, and grants nothing to who waits until all holders have come back.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine::effect::Acquire;
use engine::event::KeyKind;
use engine::graph::OnConflict;
use engine::{Command, InstanceId, Instant, RunId};
use tokio::sync::Notify;

use super::lock;
use crate::limits;

/// Who holds a key or waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Holder {
    pub(crate) run: RunId,
    pub(crate) instance: Option<InstanceId>,
}

/// What a run is to be told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) run: RunId,
    pub(crate) command: Command,
}

/// The keys of all runs.
#[derive(Debug)]
pub(crate) struct Keys {
    table: Mutex<Table>,
    /// A rate limit has somebody waiting whose time may come sooner than was known.
    pub(crate) changed: Notify,
}

#[derive(Debug, Default)]
struct Table {
    recovered: bool,
    concurrency: HashMap<Arc<str>, Concurrency>,
    rates: HashMap<Arc<str>, Rate>,
    /// Which keys a holder has or waits for; those of one run stand together.
    of: BTreeMap<Holder, Vec<(KeyKind, Arc<str>)>>,
}

#[derive(Debug, Default)]
struct Concurrency {
    holders: VecDeque<Holder>,
    /// Who was told to stop for another.
    displaced: Vec<Holder>,
    waiting: VecDeque<Waiting>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    holder: Holder,
    limit: u32,
    on_conflict: OnConflict,
}

#[derive(Debug)]
struct Rate {
    tokens: f64,
    limit: u32,
    per: Duration,
    at: Instant,
    waiting: VecDeque<Holder>,
}

/// Who holds a key and who waits for it, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The runs that hold it.
    pub holders: Vec<RunId>,
    /// How many wait.
    pub waiting: usize,
}

impl Keys {
    pub(crate) fn new() -> Self {
        Self { table: Mutex::default(), changed: Notify::new() }
    }

    /// Asks for a key.
    pub(crate) fn acquire(&self, holder: Holder, acquire: &Acquire, now: Instant) -> Vec<Verdict> {
        let mut table = lock(&self.table);
        let known = table.of.entry(holder).or_default();
        let entry = (acquire.which, Arc::clone(&acquire.key));
        if known.contains(&entry) {
            return Vec::new();
        }
        known.push(entry);
        if table.concurrency.len() + table.rates.len() >= limits::KEYS_MAX && !acquire.held {
            return vec![refused(holder, "too many keys are in use at once")];
        }
        match acquire.which {
            KeyKind::Concurrency => table.acquire_concurrency(holder, acquire),
            KeyKind::Rate => {
                let verdicts = table.acquire_rate(holder, acquire, now);
                self.changed.notify_one();
                verdicts
            }
        }
    }

    /// Gives back all that a holder has or waits for.
    pub(crate) fn release(&self, holder: Holder) -> Vec<Verdict> {
        let mut table = lock(&self.table);
        let mut verdicts = Vec::new();
        for (which, key) in table.of.remove(&holder).unwrap_or_default() {
            match which {
                KeyKind::Concurrency => {
                    if let Some(entry) = table.concurrency.get_mut(&key) {
                        let held = entry.holders.len();
                        entry.holders.retain(|other| *other != holder);
                        entry.displaced.retain(|other| *other != holder);
                        if entry.holders.len() == held {
                            entry.waiting.retain(|waiting| waiting.holder != holder);
                        }
                    }
                    verdicts.extend(table.grant_concurrency(&key));
                }
                KeyKind::Rate => {
                    if let Some(rate) = table.rates.get_mut(&key) {
                        rate.waiting.retain(|other| *other != holder);
                    }
                }
            }
        }
        verdicts
    }

    /// Gives back all that a run and its steps have or wait for.
    pub(crate) fn release_run(&self, run: RunId) -> Vec<Verdict> {
        self.keep(run, &[])
    }

    /// Gives back all that a run and its steps have or wait for, but for what these have.
    pub(crate) fn keep(&self, run: RunId, wanted: &[Option<InstanceId>]) -> Vec<Verdict> {
        let first = Holder { run, instance: None };
        let last = Holder { run, instance: Some(InstanceId(u32::MAX)) };
        let over: Vec<Holder> = {
            let table = lock(&self.table);
            let all = table.of.range(first..=last).map(|(holder, _)| *holder);
            all.filter(|holder| !wanted.contains(&holder.instance)).collect()
        };
        over.into_iter().flat_map(|holder| self.release(holder)).collect()
    }

    /// All runs of a former life have come back: those who wait may be granted what is free.
    pub(crate) fn recovered(&self) -> Vec<Verdict> {
        let mut table = lock(&self.table);
        table.recovered = true;
        // Who waits for a rate limit is looked at from now on.
        self.changed.notify_one();
        let keys: Vec<Arc<str>> = table.concurrency.keys().cloned().collect();
        keys.iter().flat_map(|key| table.grant_concurrency(key)).collect()
    }

    /// Grants what rate limits allow by now, and says when to look again.
    pub(crate) fn tick(&self, now: Instant) -> (Vec<Verdict>, Option<Instant>) {
        let mut table = lock(&self.table);
        if !table.recovered {
            return (Vec::new(), None);
        }
        let (mut verdicts, mut next) = (Vec::new(), None::<Instant>);
        for rate in table.rates.values_mut() {
            verdicts.extend(rate.grant(now));
            if let Some(at) = rate.next_token(now) {
                next = Some(next.map_or(at, |next| next.min(at)));
            }
        }
        table.rates.retain(|_, rate| !rate.waiting.is_empty() || !rate.is_full(now));
        (verdicts, next)
    }

    /// Who holds a concurrency key.
    pub(crate) fn holding(&self, key: &str) -> Option<Holding> {
        let table = lock(&self.table);
        let entry = table.concurrency.get(key)?;
        Some(Holding {
            holders: entry.holders.iter().map(|holder| holder.run).collect(),
            waiting: entry.waiting.len(),
        })
    }
}

impl Table {
    fn acquire_concurrency(&mut self, holder: Holder, acquire: &Acquire) -> Vec<Verdict> {
        let entry = self.concurrency.entry(Arc::clone(&acquire.key)).or_default();
        if acquire.held {
            entry.holders.push_back(holder);
            return Vec::new();
        }
        let limit = acquire.limit as usize;
        let full = entry.holders.len() >= limit;
        if full && self.recovered && acquire.on_conflict == OnConflict::Reject {
            let reason = format!(
                "concurrency key `{}` is taken by {} already",
                acquire.key,
                entry.holders.len()
            );
            self.of.remove(&holder);
            return vec![refused(holder, &reason)];
        }
        let on_conflict = acquire.on_conflict;
        entry.waiting.push_back(Waiting { holder, limit: acquire.limit, on_conflict });
        self.grant_concurrency(&acquire.key)
    }

    fn grant_concurrency(&mut self, key: &Arc<str>) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        if !self.recovered {
            return verdicts;
        }
        let Some(entry) = self.concurrency.get_mut(key) else { return verdicts };
        while let Some(&Waiting { holder, limit, .. }) = entry.waiting.front() {
            if entry.holders.len() >= limit as usize {
                break;
            }
            entry.waiting.pop_front();
            entry.holders.push_back(holder);
            verdicts.push(granted(holder, KeyKind::Concurrency));
        }
        entry.displace(key, &mut verdicts);
        if entry.holders.is_empty() && entry.waiting.is_empty() {
            self.concurrency.remove(key);
        }
        verdicts
    }

    fn acquire_rate(&mut self, holder: Holder, acquire: &Acquire, now: Instant) -> Vec<Verdict> {
        if acquire.held {
            return Vec::new();
        }
        let recovered = self.recovered;
        let per = acquire.per.unwrap_or(Duration::from_secs(1));
        let rate = self.rates.entry(Arc::clone(&acquire.key)).or_insert_with(|| Rate {
            // What was used up before a restart is not known, so it starts empty behind one.
            tokens: if recovered { f64::from(acquire.limit) } else { 0.0 },
            limit: acquire.limit,
            per,
            at: now,
            waiting: VecDeque::new(),
        });
        rate.limit = acquire.limit;
        rate.per = per;
        rate.waiting.push_back(holder);
        if recovered { rate.grant(now) } else { Vec::new() }
    }
}

impl Concurrency {
    /// For each who waits and wants a holder to stop, the oldest that was not told yet is told.
    fn displace(&mut self, key: &Arc<str>, verdicts: &mut Vec<Verdict>) {
        let Self { holders, displaced, waiting } = self;
        let demands = |waiting: &&Waiting| waiting.on_conflict == OnConflict::CancelRunning;
        // No more are counted than there are holders to be told.
        let demands = waiting.iter().filter(demands).take(holders.len()).count();
        for &oldest in holders.iter() {
            if displaced.len() >= demands {
                return;
            }
            if !displaced.contains(&oldest) {
                displaced.push(oldest);
                let command =
                    Command::Displaced { instance: oldest.instance, key: Arc::clone(key) };
                verdicts.push(Verdict { run: oldest.run, command });
            }
        }
    }
}

impl Rate {
    fn refill(&mut self, now: Instant) {
        let share = now.since(self.at).as_secs_f64() / self.per.as_secs_f64().max(1e-6);
        self.tokens = (self.tokens + share * f64::from(self.limit)).min(f64::from(self.limit));
        self.at = self.at.max(now);
    }

    fn grant(&mut self, now: Instant) -> Vec<Verdict> {
        self.refill(now);
        let mut verdicts = Vec::new();
        while self.tokens >= 1.0 {
            let Some(holder) = self.waiting.pop_front() else { break };
            self.tokens -= 1.0;
            verdicts.push(granted(holder, KeyKind::Rate));
        }
        verdicts
    }

    fn next_token(&self, now: Instant) -> Option<Instant> {
        self.waiting.front()?;
        let missing = (1.0 - self.tokens).max(0.0) / f64::from(self.limit.max(1));
        let pause = self.per.mul_f64(missing) + Duration::from_millis(1);
        Some(now.after(pause))
    }

    fn is_full(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.tokens >= f64::from(self.limit)
    }
}

fn granted(holder: Holder, which: KeyKind) -> Verdict {
    let command = Command::Granted { instance: holder.instance, which };
    Verdict { run: holder.run, command }
}

fn refused(holder: Holder, reason: &str) -> Verdict {
    let command = Command::Refused { instance: holder.instance, reason: reason.to_owned() };
    Verdict { run: holder.run, command }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(n: u64) -> Holder {
        let run = RunId::at_instant(Instant(1), &n.to_string());
        Holder { run, instance: None }
    }

    fn wanted(limit: u32, on_conflict: OnConflict) -> Acquire {
        Acquire {
            instance: None,
            which: KeyKind::Concurrency,
            key: Arc::from("k"),
            limit,
            per: None,
            on_conflict,
            held: false,
        }
    }

    fn who(verdicts: &[Verdict]) -> Vec<RunId> {
        verdicts.iter().map(|verdict| verdict.run).collect()
    }

    #[test]
    fn a_key_is_granted_in_order_as_far_as_its_limit_goes() {
        let keys = Keys::new();
        keys.recovered();
        let queue = wanted(2, OnConflict::Queue);
        let now = Instant(0);
        assert_eq!(who(&keys.acquire(holder(1), &queue, now)), [holder(1).run]);
        assert_eq!(who(&keys.acquire(holder(2), &queue, now)), [holder(2).run]);
        assert_eq!(keys.acquire(holder(3), &queue, now), []);
        assert_eq!(keys.acquire(holder(4), &queue, now), []);
        assert_eq!(who(&keys.release(holder(1))), [holder(3).run]);
        assert_eq!(keys.release(holder(1)), [], "giving back twice gives nothing twice");
    }

    #[test]
    fn nobody_new_is_granted_a_key_before_its_former_holders_have_come_back() {
        let keys = Keys::new();
        let now = Instant(0);
        assert_eq!(keys.acquire(holder(1), &wanted(1, OnConflict::Queue), now), []);
        let held = Acquire { held: true, ..wanted(1, OnConflict::Queue) };
        assert_eq!(keys.acquire(holder(2), &held, now), []);
        assert_eq!(keys.recovered(), []);
        assert_eq!(who(&keys.release(holder(2))), [holder(1).run]);
    }

    #[test]
    fn a_conflict_is_refused_or_displaces_the_oldest() {
        let keys = Keys::new();
        keys.recovered();
        let now = Instant(0);
        keys.acquire(holder(1), &wanted(1, OnConflict::Queue), now);
        let refused = keys.acquire(holder(2), &wanted(1, OnConflict::Reject), now);
        assert!(matches!(&refused[..], [Verdict { command: Command::Refused { .. }, .. }]));
        let displaced = keys.acquire(holder(3), &wanted(1, OnConflict::CancelRunning), now);
        assert_eq!(who(&displaced), [holder(1).run]);
        assert_eq!(who(&keys.release(holder(1))), [holder(3).run]);
    }

    #[test]
    fn a_rate_limit_lets_so_many_through_in_its_time() {
        let keys = Keys::new();
        keys.recovered();
        let rate = Acquire {
            which: KeyKind::Rate,
            per: Some(Duration::from_secs(10)),
            ..wanted(2, OnConflict::Queue)
        };
        assert_eq!(keys.acquire(holder(1), &rate, Instant(0)).len(), 1);
        assert_eq!(keys.acquire(holder(2), &rate, Instant(0)).len(), 1);
        assert_eq!(keys.acquire(holder(3), &rate, Instant(0)), []);
        let (none, next) = keys.tick(Instant(1_000_000));
        assert_eq!(none, []);
        let (granted, _) = keys.tick(next.unwrap().after(Duration::from_secs(5)));
        assert_eq!(who(&granted), [holder(3).run]);
    }

    #[test]
    fn each_of_several_newcomers_has_the_one_before_it_stop() {
        let keys = Keys::new();
        let now = Instant(0);
        let cancels = wanted(1, OnConflict::CancelRunning);
        keys.acquire(holder(1), &Acquire { held: true, ..cancels.clone() }, now);
        // The conflict stood before the process was started anew.
        assert_eq!(keys.acquire(holder(2), &cancels, now), []);
        assert_eq!(who(&keys.recovered()), [holder(1).run]);
        assert_eq!(keys.acquire(holder(3), &cancels, now), []);
        let next = keys.release(holder(1));
        assert!(matches!(next[0].command, Command::Granted { .. }));
        assert!(matches!(next[1].command, Command::Displaced { .. }));
        assert_eq!(who(&next), [holder(2).run, holder(2).run]);
    }

    #[tokio::test]
    async fn who_waits_for_a_rate_limit_is_looked_at_when_all_have_come_back() {
        let keys = Keys::new();
        let rate = Acquire {
            which: KeyKind::Rate,
            per: Some(Duration::from_secs(1)),
            ..wanted(1, OnConflict::Queue)
        };
        keys.acquire(holder(1), &rate, Instant(0));
        keys.changed.notified().await;
        assert_eq!(keys.tick(Instant(0)), (Vec::new(), None), "not yet");
        keys.recovered();
        let told = tokio::time::timeout(Duration::from_secs(5), keys.changed.notified()).await;
        assert!(told.is_ok(), "the ticker looks again");
        assert!(keys.tick(Instant(0)).1.is_some());
    }

    #[test]
    fn a_run_gives_back_what_it_does_not_want_any_more() {
        let keys = Keys::new();
        keys.recovered();
        let one = wanted(1, OnConflict::Queue);
        let run = holder(1).run;
        let step = |n| Holder { run, instance: Some(InstanceId(n)) };
        keys.acquire(step(1), &one, Instant(0));
        keys.acquire(holder(2), &one, Instant(0));
        assert_eq!(keys.keep(run, &[Some(InstanceId(1))]), []);
        assert_eq!(who(&keys.keep(run, &[None])), [holder(2).run]);
    }
}
