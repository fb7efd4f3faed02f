//! Judges many runs together: the promises that clients were given and every single execution
//! that agents counted, beside the journals. It is pure: it is given what was seen and talks to
//! nobody.

use std::collections::{BTreeMap, BTreeSet};

use contracts::v1::EventKind;

/// What a client was told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Promise {
    Started,
    Signalled(String),
    Cancelled,
}

/// An event of a journal.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) sequence: i64,
    pub(crate) kind: EventKind,
    /// The step's path, or the signal's name.
    pub(crate) about: String,
    /// Of an adoption.
    pub(crate) epoch: u64,
}

/// A line of the agents' file: an execution began or ended. Their order is that of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) began: bool,
    pub(crate) run: String,
    pub(crate) step: String,
}

/// All that was seen of some runs, which have ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    pub(crate) promises: Vec<(String, Promise)>,
    pub(crate) journals: BTreeMap<String, Vec<Event>>,
    pub(crate) marks: Vec<Mark>,
    /// Steps, and those that come before them.
    pub(crate) order: Vec<(&'static str, &'static str)>,
    /// Steps that never run twice.
    pub(crate) at_most_once: BTreeSet<&'static str>,
    /// One owner came after another; of several that live, an older one may follow a younger.
    pub(crate) owners_follow: bool,
}

/// What must not be; each names its run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    RunLost(String),
    SignalLost(String, String),
    CancelLost(String),
    /// The sequence that was expected.
    Gap(String, i64),
    NotEnded(String),
    EndedTwice(String),
    /// An event behind the end.
    GoesOn(String),
    CountedTwice(String, String),
    /// A step counts as done that no agent did.
    NeverDone(String, String),
    DoneTwice(String, String),
    /// A step began before another had ended.
    OutOfOrder(String, String),
    /// An older owner wrote behind a younger one.
    OldOwner(String),
    /// An agent did something for a run that nobody was promised.
    Unknown(String),
}

impl History {
    /// Everything that is wrong.
    pub(crate) fn violations(&self) -> Vec<Violation> {
        let mut wrong = Vec::new();
        for (run, promise) in &self.promises {
            self.check_promise(run, promise, &mut wrong);
        }
        for (run, events) in &self.journals {
            check_journal(run, events, self.owners_follow, &mut wrong);
            self.check_counts(run, events, &mut wrong);
        }
        self.check_marks(&mut wrong);
        wrong
    }

    fn check_promise(&self, run: &str, promise: &Promise, wrong: &mut Vec<Violation>) {
        let Some(events) = self.journals.get(run).filter(|events| !events.is_empty()) else {
            if *promise == Promise::Started {
                wrong.push(Violation::RunLost(run.to_owned()));
            }
            return;
        };
        let has = |kind| events.iter().any(|event| event.kind == kind);
        match promise {
            Promise::Started => {}
            Promise::Signalled(name) => {
                let stands =
                    |event: &Event| event.kind == EventKind::SignalReceived && event.about == *name;
                if !events.iter().any(stands) {
                    wrong.push(Violation::SignalLost(run.to_owned(), name.clone()));
                }
            }
            Promise::Cancelled if has(EventKind::RunCancelRequested) => {}
            Promise::Cancelled => wrong.push(Violation::CancelLost(run.to_owned())),
        }
    }

    fn check_counts(&self, run: &str, events: &[Event], wrong: &mut Vec<Violation>) {
        let ended: BTreeSet<&str> = self
            .marks
            .iter()
            .filter(|mark| mark.run == run && !mark.began)
            .map(|mark| &*mark.step)
            .collect();
        let mut counted = BTreeSet::new();
        for event in events.iter().filter(|event| event.kind == EventKind::StepSucceeded) {
            if !counted.insert(&event.about) {
                wrong.push(Violation::CountedTwice(run.to_owned(), event.about.clone()));
            }
            if self.is_counted(&event.about) && !ended.contains(&*event.about) {
                wrong.push(Violation::NeverDone(run.to_owned(), event.about.clone()));
            }
        }
    }

    /// Whether agents mark what they do for this step.
    fn is_counted(&self, step: &str) -> bool {
        self.order.iter().any(|(one, other)| [*one, *other].contains(&step))
            || self.at_most_once.contains(step)
    }

    fn check_marks(&self, wrong: &mut Vec<Violation>) {
        let mut begun = BTreeMap::<(&str, &str), usize>::new();
        let mut ended = BTreeSet::<(&str, &str)>::new();
        for mark in &self.marks {
            let (run, step) = (&*mark.run, &*mark.step);
            if !self.journals.contains_key(run) {
                wrong.push(Violation::Unknown(run.to_owned()));
            }
            if !mark.began {
                ended.insert((run, step));
                continue;
            }
            let times = begun.entry((run, step)).or_default();
            *times += 1;
            if *times == 2 && self.at_most_once.contains(step) {
                wrong.push(Violation::DoneTwice(run.to_owned(), step.to_owned()));
            }
            let before = self.order.iter().filter(|(later, _)| *later == step);
            if before.into_iter().any(|(_, earlier)| !ended.contains(&(run, *earlier))) {
                wrong.push(Violation::OutOfOrder(run.to_owned(), step.to_owned()));
            }
        }
    }
}

fn check_journal(run: &str, events: &[Event], owners_follow: bool, wrong: &mut Vec<Violation>) {
    let run = || run.to_owned();
    let (mut ends, mut epoch) = (0, 0);
    for (expected, event) in (1..).zip(events) {
        if event.sequence != expected {
            wrong.push(Violation::Gap(run(), expected));
            break;
        }
    }
    for event in events {
        if ends > 0 && event.kind != EventKind::RunEnded {
            wrong.push(Violation::GoesOn(run()));
        }
        match event.kind {
            EventKind::RunEnded => ends += 1,
            EventKind::RunAdopted if owners_follow && event.epoch < epoch => {
                wrong.push(Violation::OldOwner(run()));
            }
            EventKind::RunAdopted => epoch = event.epoch,
            _ => {}
        }
    }
    match ends {
        0 => wrong.push(Violation::NotEnded(run())),
        1 => {}
        _ => wrong.push(Violation::EndedTwice(run())),
    }
}

/// Good and bad histories made by hand: what is wrong must be found, and nothing else.
mod tests {
    use super::*;

    fn events(kinds: &[(EventKind, &str)]) -> Vec<Event> {
        let event = |(sequence, (kind, about)): (i64, &(EventKind, &str))| Event {
            sequence,
            kind: *kind,
            about: (*about).to_owned(),
            epoch: 0,
        };
        (1..).zip(kinds).map(event).collect()
    }

    fn mark(began: bool, step: &str) -> Mark {
        Mark { began, run: "r".to_owned(), step: step.to_owned() }
    }

    /// `a`, then `b` at most once, a signal and a cancel that came too late to change a thing.
    fn good() -> History {
        let journal = events(&[
            (EventKind::RunStarted, ""),
            (EventKind::StepSucceeded, "a"),
            (EventKind::RunAdopted, ""),
            (EventKind::SignalReceived, "go"),
            (EventKind::StepSucceeded, "b"),
            (EventKind::RunCancelRequested, ""),
            (EventKind::RunEnded, ""),
        ]);
        let promises = [Promise::Started, Promise::Signalled("go".to_owned()), Promise::Cancelled];
        History {
            promises: promises.map(|promise| ("r".to_owned(), promise)).to_vec(),
            journals: [("r".to_owned(), journal)].into(),
            // The first answer of `a` was lost: it ran twice and counts once.
            marks: vec![
                mark(true, "a"),
                mark(true, "a"),
                mark(false, "a"),
                mark(false, "a"),
                mark(true, "b"),
                mark(false, "b"),
            ],
            order: vec![("b", "a")],
            at_most_once: ["b"].into(),
            owners_follow: true,
        }
    }

    fn found(spoil: impl FnOnce(&mut History, &mut Vec<Event>)) -> Vec<Violation> {
        let mut history = good();
        let mut journal = history.journals.remove("r").unwrap();
        spoil(&mut history, &mut journal);
        history.journals.insert("r".to_owned(), journal);
        history.violations()
    }

    fn r() -> String {
        "r".to_owned()
    }

    #[test]
    fn nothing_is_found_where_nothing_is_wrong() {
        assert_eq!(good().violations(), []);
    }

    #[test]
    fn what_was_promised_and_is_not_there_is_found() {
        let mut lost = good();
        lost.journals.clear();
        lost.marks.clear();
        assert_eq!(lost.violations(), [Violation::RunLost(r())]);
        let lost = found(|_, journal| journal[3].about = "other".to_owned());
        assert_eq!(lost, [Violation::SignalLost(r(), "go".to_owned())]);
        let lost = found(|_, journal| journal[5].kind = EventKind::RunPaused);
        assert_eq!(lost, [Violation::CancelLost(r())]);
    }

    #[test]
    fn gaps_and_repeats_are_found() {
        let gap = found(|_, journal| journal[3].sequence = 9);
        assert_eq!(gap, [Violation::Gap(r(), 4)]);
        let repeat = found(|_, journal| journal[3].sequence = 3);
        assert_eq!(repeat, [Violation::Gap(r(), 4)]);
    }

    #[test]
    fn ends_that_are_missing_doubled_or_passed_are_found() {
        assert_eq!(found(|_, journal| drop(journal.pop())), [Violation::NotEnded(r())]);
        let twice = found(|_, journal| {
            let end = Event { sequence: 8, ..journal[6].clone() };
            journal.push(end);
        });
        assert_eq!(twice, [Violation::EndedTwice(r())]);
        let on = found(|_, journal| {
            journal.push(Event { sequence: 8, kind: EventKind::RunPaused, ..journal[6].clone() });
        });
        assert_eq!(on, [Violation::GoesOn(r())]);
    }

    #[test]
    fn results_that_count_twice_or_were_never_done_are_found() {
        let twice = found(|_, journal| {
            journal[2] = Event { sequence: 3, ..journal[1].clone() };
        });
        assert_eq!(twice, [Violation::CountedTwice(r(), "a".to_owned())]);
        let never = found(|history, _| drop(history.marks.pop()));
        assert_eq!(never, [Violation::NeverDone(r(), "b".to_owned())]);
    }

    #[test]
    fn work_done_twice_or_too_early_or_for_nobody_is_found() {
        let twice = found(|history, _| history.marks.push(mark(true, "b")));
        assert_eq!(twice, [Violation::DoneTwice(r(), "b".to_owned())]);
        let early = found(|history, _| history.marks.swap(3, 4));
        assert_eq!(early, [], "one of two attempts had ended");
        let early = found(|history, _| {
            let began = history.marks.remove(4);
            history.marks.insert(2, began);
        });
        assert_eq!(early, [Violation::OutOfOrder(r(), "b".to_owned())]);
        let unknown = found(|history, _| {
            history.marks.push(Mark { run: "x".to_owned(), ..mark(true, "a") });
        });
        assert_eq!(unknown, [Violation::Unknown("x".to_owned())]);
    }

    #[test]
    fn an_owner_that_comes_back_is_found() {
        let old = found(|_, journal| {
            journal[1].kind = EventKind::RunAdopted;
            journal[1].epoch = 7;
            journal[2].epoch = 6;
        });
        assert_eq!(old, [Violation::OldOwner(r())]);
    }
}
