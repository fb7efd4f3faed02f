//! What the row of a key says after what was asked of it.

use std::sync::Arc;
use std::time::Duration;

use engine::effect::Acquire;
use engine::event::KeyKind;
use engine::graph::OnConflict;
use engine::{Command, InstanceId, Instant, RunId};

use super::entry::{Ask, Entry, Holder, Verdict};
use super::registry::Registry;

/// A row, written and read again behind every change.
struct Row {
    key: Arc<str>,
    which: KeyKind,
    entry: Entry,
    now: Instant,
}

impl Row {
    fn of(which: KeyKind) -> Self {
        Self { key: Arc::from("k"), which, entry: Entry::new(which), now: Instant(0) }
    }

    fn ask(&mut self, holder: Holder, ask: &Ask) -> Vec<Verdict> {
        let verdicts = self.entry.apply(&self.key, Some(holder), ask, self.now);
        self.entry = if self.entry.is_idle(self.now) {
            Entry::new(self.which)
        } else {
            serde_json::from_slice(&super::text(&self.entry)).unwrap()
        };
        verdicts
    }

    fn acquire(&mut self, holder: Holder, acquire: Acquire) -> Vec<Verdict> {
        self.ask(holder, &Ask::Acquire(Arc::new(acquire)))
    }

    fn release(&mut self, holder: Holder) -> Vec<Verdict> {
        self.ask(holder, &Ask::Release)
    }
}

fn holder(n: u64) -> Holder {
    let run = RunId::at_instant(Instant(1), &n.to_string());
    Holder { run, instance: n.is_multiple_of(2).then_some(InstanceId(7)) }
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

fn rate(limit: u32, per: Duration) -> Acquire {
    Acquire { which: KeyKind::Rate, per: Some(per), ..wanted(limit, OnConflict::Queue) }
}

fn who(verdicts: &[Verdict]) -> Vec<Holder> {
    verdicts.iter().map(|verdict| verdict.holder).collect()
}

#[test]
fn a_key_is_granted_in_order_as_far_as_its_limit_goes() {
    let mut row = Row::of(KeyKind::Concurrency);
    let queue = || wanted(2, OnConflict::Queue);
    assert_eq!(who(&row.acquire(holder(1), queue())), [holder(1)]);
    assert_eq!(who(&row.acquire(holder(2), queue())), [holder(2)]);
    assert_eq!(row.acquire(holder(3), queue()), []);
    assert_eq!(row.acquire(holder(4), queue()), []);
    assert_eq!(who(&row.release(holder(1))), [holder(3)]);
    assert_eq!(row.release(holder(1)), [], "giving back twice gives nothing twice");
    assert_eq!(who(&row.release(holder(2))), [holder(4)]);
}

#[test]
fn asking_again_tells_again_and_changes_nothing() {
    let mut row = Row::of(KeyKind::Concurrency);
    let queue = || wanted(1, OnConflict::Queue);
    row.acquire(holder(1), queue());
    row.acquire(holder(2), queue());
    let before = row.entry.clone();
    assert_eq!(who(&row.acquire(holder(1), queue())), [holder(1)], "its answer may be lost");
    assert_eq!(row.acquire(holder(2), queue()), []);
    let held = Acquire { held: true, ..queue() };
    assert_eq!(row.acquire(holder(1), held), []);
    assert_eq!(row.entry, before);
}

#[test]
fn a_holder_without_a_row_comes_back_into_it() {
    let mut row = Row::of(KeyKind::Concurrency);
    let held = Acquire { held: true, ..wanted(1, OnConflict::Queue) };
    assert_eq!(row.acquire(holder(1), held), []);
    assert_eq!(row.acquire(holder(2), wanted(1, OnConflict::Queue)), []);
    assert_eq!(who(&row.release(holder(1))), [holder(2)]);
}

#[test]
fn a_conflict_is_refused_or_displaces_the_oldest() {
    let mut row = Row::of(KeyKind::Concurrency);
    row.acquire(holder(1), wanted(1, OnConflict::Queue));
    let refused = row.acquire(holder(2), wanted(1, OnConflict::Reject));
    assert!(matches!(&refused[..], [Verdict { command: Command::Refused { .. }, .. }]));
    let displaced = row.acquire(holder(3), wanted(1, OnConflict::CancelRunning));
    assert!(matches!(&displaced[..], [Verdict { command: Command::Displaced { .. }, .. }]));
    assert_eq!(who(&displaced), [holder(1)]);
    let reminded = row.ask(holder(1), &Ask::Remind);
    assert_eq!(reminded, displaced, "the word may be lost");
    assert_eq!(row.ask(holder(3), &Ask::Remind), []);
    assert_eq!(who(&row.release(holder(1))), [holder(3)]);
}

#[test]
fn each_of_several_newcomers_has_the_one_before_it_stop() {
    let mut row = Row::of(KeyKind::Concurrency);
    let cancels = || wanted(1, OnConflict::CancelRunning);
    row.acquire(holder(1), cancels());
    assert_eq!(who(&row.acquire(holder(2), cancels())), [holder(1)]);
    assert_eq!(row.acquire(holder(3), cancels()), []);
    let next = row.release(holder(1));
    assert!(matches!(next[0].command, Command::Granted { .. }));
    assert!(matches!(next[1].command, Command::Displaced { .. }));
    assert_eq!(who(&next), [holder(2), holder(2)]);
}

#[test]
fn a_rate_limit_lets_so_many_through_in_its_time() {
    let mut row = Row::of(KeyKind::Rate);
    let two = || rate(2, Duration::from_secs(10));
    assert_eq!(row.acquire(holder(1), two()).len(), 1);
    assert_eq!(row.acquire(holder(2), two()).len(), 1);
    assert_eq!(row.acquire(holder(3), two()), []);
    row.now = Instant(1_000_000);
    assert_eq!(row.ask(holder(3), &Ask::Tick), []);
    let next = row.entry.next_token().unwrap();
    assert!(next > Instant(4_900_000) && next < Instant(5_100_000), "{next:?}");
    row.now = next;
    assert_eq!(who(&row.ask(holder(3), &Ask::Tick)), [holder(3)]);
    assert_eq!(row.entry.next_token(), None, "nobody waits");
}

#[test]
fn a_clock_that_is_behind_gives_no_token_twice() {
    let mut row = Row::of(KeyKind::Rate);
    let one = || rate(1, Duration::from_secs(10));
    row.now = Instant(100_000_000);
    assert_eq!(row.acquire(holder(1), one()).len(), 1);
    row.now = Instant(50_000_000);
    assert_eq!(row.acquire(holder(2), one()), []);
    row.now = Instant(105_000_000);
    assert_eq!(row.ask(holder(2), &Ask::Tick), [], "only half of the time is over");
    row.now = Instant(111_000_000);
    assert_eq!(who(&row.ask(holder(2), &Ask::Tick)), [holder(2)]);
}

#[test]
fn who_does_not_wait_any_longer_is_let_out_of_the_queue() {
    let mut row = Row::of(KeyKind::Rate);
    let one = || rate(1, Duration::from_secs(10));
    row.acquire(holder(1), one());
    row.acquire(holder(2), one());
    row.acquire(holder(3), one());
    row.release(holder(2));
    row.now = Instant(11_000_000);
    assert_eq!(who(&row.ask(holder(3), &Ask::Tick)), [holder(3)]);
}

#[test]
fn a_row_is_idle_once_it_says_nothing_any_more() {
    let mut concurrency = Row::of(KeyKind::Concurrency);
    concurrency.acquire(holder(1), wanted(1, OnConflict::Queue));
    assert!(!concurrency.entry.is_idle(Instant(0)));
    concurrency.release(holder(1));
    assert!(concurrency.entry.is_idle(Instant(0)));
    let mut limit = Row::of(KeyKind::Rate);
    limit.acquire(holder(1), rate(1, Duration::from_secs(10)));
    assert!(!limit.entry.is_idle(Instant(5_000_000)), "its bucket is half empty");
    assert!(limit.entry.is_idle(Instant(10_000_000)));
}

#[test]
fn the_registry_knows_what_a_run_has_until_it_gives_it_back() {
    let mut registry = Registry::default();
    let run = holder(1).run;
    let step = |n| Holder { run, instance: Some(InstanceId(n)) };
    let one = Arc::new(wanted(1, OnConflict::Queue));
    for who in [step(1), step(2), Holder { run, instance: None }, holder(3)] {
        registry.want(who, Arc::clone(&one));
    }
    assert_eq!(registry.holders_of(run).len(), 3);
    assert_eq!(registry.untold().len(), 4);
    registry.told(step(1), None);
    assert_eq!(registry.untold().len(), 3);
    assert_eq!(registry.release(step(1)), [(KeyKind::Concurrency, Arc::from("k"))]);
    assert_eq!(registry.release(step(1)), []);
    registry.forget(run);
    assert_eq!(registry.holders_of(run), []);
    assert_eq!(registry.untold().len(), 1);
}

#[test]
fn a_place_in_line_is_known_for_the_wish_that_the_row_was_written_for() {
    let mut registry = Registry::default();
    let name = (KeyKind::Concurrency, Arc::from("k"));
    let (first, again) = [(); 2].map(|()| Arc::new(wanted(1, OnConflict::Queue))).into();
    registry.want(holder(1), Arc::clone(&first));
    assert!(!registry.is_queued(holder(1), &name), "nothing was written");
    registry.release(holder(1));
    registry.want(holder(1), Arc::clone(&again));
    registry.queued(holder(1), &first);
    assert!(!registry.is_queued(holder(1), &name), "the row loses that place yet");
    registry.queued(holder(1), &again);
    assert!(registry.is_queued(holder(1), &name));
    registry.recall(holder(1), first);
    assert!(registry.is_queued(holder(1), &name), "what is known stays");
    registry.told(holder(1), Some(KeyKind::Rate));
    assert!(registry.is_queued(holder(1), &name), "of another key");
    registry.told(holder(1), Some(KeyKind::Concurrency));
    assert!(!registry.is_queued(holder(1), &name), "it is about to go on");
}

#[test]
fn only_a_concurrency_key_keeps_places() {
    let mut concurrency = Row::of(KeyKind::Concurrency);
    let mut limit = Row::of(KeyKind::Rate);
    for n in [1, 2] {
        concurrency.acquire(holder(n), wanted(1, OnConflict::Queue));
        limit.acquire(holder(n), rate(1, Duration::from_secs(10)));
    }
    assert!(concurrency.entry.has(holder(1)) && !concurrency.entry.keeps_place(holder(1)));
    assert!(!concurrency.entry.has(holder(2)) && concurrency.entry.keeps_place(holder(2)));
    assert!(!limit.entry.has(holder(1)) && !limit.entry.keeps_place(holder(2)));
}
