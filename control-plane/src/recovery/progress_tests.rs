//! Reports folded from journals of recoveries in virtual time.

use std::collections::BTreeSet;

use super::super::plan::{Assigned, By, Draft, Planned, Undo, write};
use super::super::world::World;
use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Issues as (id, agent or nobody, what they depend on, seconds), planned.
fn planned(issues: &[(&str, &str, &[&str], u64)], rollback_all: bool) -> (String, Vec<PlanIssue>) {
    let issue = |&(id, agent, on, seconds): &(&str, &str, &[&str], u64)| Planned {
        issue: id.to_owned(),
        depends_on: on.iter().map(|&on| on.to_owned()).collect(),
        by: match agent {
            "" => By::Person { reason: String::new() },
            agent => By::Agent(Box::new(Assigned {
                agent: agent.to_owned(),
                action: "mend".to_owned(),
                estimate: SECOND * u32::try_from(seconds).unwrap(),
                undo: match rollback_all {
                    true => Undo::Action("unmend".to_owned()),
                    false => Undo::Declared,
                },
                ..Assigned::default()
            })),
        },
        ..Planned::default()
    };
    let issues_drafted = issues.iter().map(issue).collect();
    let draft = Draft { issues: issues_drafted, rollback_all, ..Draft::default() };
    let written = write(&draft).unwrap();
    let steps = issues.iter().zip(written.steps).map(|((id, _, _, seconds), step)| PlanIssue {
        issue: (*id).into(),
        step: step.map(Into::into),
        estimate: Some(SECOND * u32::try_from(*seconds).unwrap()),
    });
    (written.text, steps.collect())
}

fn world(issues: &[(&str, &str, &[&str], u64)], slots: &[(&str, u32)]) -> (World, Arc<Outline>) {
    world_of(planned(issues, false), slots)
}

fn world_of(
    (text, steps): (String, Vec<PlanIssue>),
    slots: &[(&str, u32)],
) -> (World, Arc<Outline>) {
    let mut world = World::new(&text, slots);
    for step in &steps {
        if let Some(name) = &step.step {
            world.takes(name, step.estimate.unwrap());
        }
    }
    let outline = Arc::new(Outline::new(world.graph(), &steps));
    (world, outline)
}

fn folded(world: &World, outline: &Arc<Outline>, until: i64) -> Progress {
    let mut progress = Progress::new(Arc::clone(outline));
    let events = world.journal.iter().take_while(|(sequence, _, _)| *sequence <= until);
    events.for_each(|(sequence, at, event)| progress.apply(*sequence, *at, event));
    progress
}

fn report(world: &World, outline: &Arc<Outline>) -> Report {
    folded(world, outline, i64::MAX).report(&world.beside())
}

fn names(all: &[Arc<str>]) -> Vec<&str> {
    all.iter().map(|name| &**name).collect()
}

fn standings(report: &Report) -> Vec<(&str, Standing)> {
    report.issues.iter().map(|(issue, standing)| (&**issue, *standing)).collect()
}

#[test]
fn a_report_says_what_is_done_who_is_at_work_and_when_it_ends() {
    let issues: &[(&str, &str, &[&str], u64)] =
        &[("a", "x", &[], 10), ("b", "x", &["a"], 30), ("c", "y", &[], 40), ("d", "y", &[], 20)];
    let (mut world, outline) = world(issues, &[("x", 1), ("y", 1)]);
    let begin = world.now;
    let first = report(&world, &outline);
    assert!(first.completion.abs() < 1e-9);
    assert_eq!(names(&first.blocking), ["a"]);
    // x: 40 s one after another; y: 60 s with one slot.
    assert_eq!(first.estimated_end, Some(begin.after(SECOND * 60)));
    let active: Vec<_> = first.active.iter().map(|one| (&*one.agent, &*one.step)).collect();
    assert_eq!(active, [("x", "a"), ("y", "c")]);
    world.step();
    let second = report(&world, &outline);
    // a is done (10 of 100 s), and c is a quarter done (10 of 40 s).
    assert!((second.completion - 0.2).abs() < 1e-9, "{}", second.completion);
    assert_eq!(
        standings(&second),
        [
            ("a", Standing::Resolved),
            ("b", Standing::Running),
            ("c", Standing::Running),
            ("d", Standing::Ready)
        ]
    );
    assert_eq!(names(&second.blocking), [""; 0]);
    world.run();
    let last = report(&world, &outline);
    assert!((last.completion - 1.0).abs() < 1e-9);
    assert_eq!((last.ended, last.estimated_end), (Some(Ending::Success), None));
    assert!(last.issues.iter().all(|(_, standing)| *standing == Standing::Resolved));
}

#[test]
fn a_failed_branch_is_shown_as_what_it_is_and_the_rest_goes_on() {
    let issues: &[(&str, &str, &[&str], u64)] = &[
        ("base", "x", &[], 5),
        ("broken", "x", &[], 5),
        ("above", "x", &["broken"], 5),
        ("other", "x", &["base"], 60),
        ("lost", "", &[], 1),
    ];
    let (mut world, outline) = world(issues, &[("x", 4)]);
    world.fails("broken");
    world.step();
    world.step();
    let middle = report(&world, &outline);
    assert_eq!(names(&middle.blocking), ["broken"]);
    assert_eq!(names(&middle.left), ["lost"]);
    world.run();
    let last = report(&world, &outline);
    let standing: BTreeMap<&str, Standing> = standings(&last).into_iter().collect();
    assert_eq!(standing["other"], Standing::Resolved);
    assert_eq!(standing["above"], Standing::Skipped);
    assert!(matches!(standing["broken"], Standing::Failed | Standing::Undone));
    assert_eq!(last.ended, Some(Ending::Failure));
}

#[test]
fn nobody_knows_how_long_people_take() {
    let issues: &[(&str, &str, &[&str], u64)] = &[("ask", "", &[], 1), ("then", "x", &["ask"], 5)];
    let (mut world, outline) = world(issues, &[("x", 1)]);
    let asking = report(&world, &outline);
    assert_eq!(standings(&asking)[0], ("ask", Standing::Asking));
    assert_eq!((asking.estimated_end, names(&asking.blocking)), (None, vec!["ask"]));
    world.decide("ask", true);
    assert!(report(&world, &outline).estimated_end.is_some());
    world.run();
    assert_eq!(report(&world, &outline).ended, Some(Ending::Success));
}

#[test]
fn a_report_belongs_to_its_sequence_however_it_is_come_by() {
    let issues: &[(&str, &str, &[&str], u64)] =
        &[("a", "x", &[], 3), ("b", "x", &["a"], 4), ("c", "x", &[], 5), ("d", "x", &["c"], 1)];
    let (mut world, outline) = world(issues, &[("x", 2)]);
    world.fails("c");
    let mut live = Progress::new(Arc::clone(&outline));
    let mut told = Vec::new();
    while !world.ended() {
        world.step();
        for (sequence, at, event) in world.journal.iter().skip(told.len()) {
            live.apply(*sequence, *at, event);
            let now = Now { now: *at, ..Now::default() };
            told.push((*sequence, live.report(&now)));
        }
    }
    let sequences: BTreeSet<i64> = told.iter().map(|(sequence, _)| *sequence).collect();
    assert_eq!(sequences.len(), world.journal.len());
    for (sequence, report) in &told {
        let now = Now { now: world.journal[told_place(*sequence)].1, ..Now::default() };
        assert_eq!(folded(&world, &outline, *sequence).report(&now), *report);
    }
    // A rollback is more to be done; apart from that nothing goes back.
    for phases in told.chunk_by(|(_, a), (_, b)| a.undos.all == b.undos.all) {
        let completions: Vec<f64> = phases.iter().map(|(_, report)| report.completion).collect();
        assert!(completions.is_sorted(), "{completions:?}");
    }
}

#[test]
fn a_rollback_is_shown_as_one_and_nothing_is_whole_before_its_end() {
    let issues: &[(&str, &str, &[&str], u64)] =
        &[("a", "x", &[], 10), ("b", "x", &["a"], 20), ("broken", "x", &["b"], 30)];
    let (mut world, outline) = world_of(planned(issues, true), &[("x", 3)]);
    world.fails("broken");
    let mut undone = Vec::new();
    while !world.ended() {
        let open = report(&world, &outline);
        assert!(open.completion < 1.0 && open.phase != Phase::Over, "{open:?}");
        if open.phase == Phase::RollingBack {
            assert_eq!(open.undos.all, 2);
            assert!(open.active.iter().all(|one| one.undo) && !open.active.is_empty());
            assert!(open.estimated_end.is_some_and(|end| end > world.now));
            // 60 s are over, and 30 s of undos are to come, the last done first.
            let seconds = [20, 10].iter().take(open.undos.done as usize).sum::<u32>();
            let wanted = f64::from(60 + seconds) / 90.0;
            assert!((open.completion - wanted).abs() < 1e-9, "{open:?}");
            undone.push(open.undos.done);
        } else {
            assert_eq!((open.phase, open.undos.all), (Phase::Mending, 0));
        }
        world.step();
    }
    assert_eq!(undone, [0, 1]);
    let last = report(&world, &outline);
    assert_eq!((last.phase, last.ended), (Phase::Over, Some(Ending::RolledBack)));
    assert_eq!((last.undos.done, last.undos.stuck), (2, 0));
    assert!((last.completion - 1.0).abs() < 1e-9);
    let undone = [("a", Standing::Undone), ("b", Standing::Undone), ("broken", Standing::Failed)];
    assert_eq!(standings(&last), undone);
    // What undoing takes is none of the orchestrator's.
    assert_eq!(last.overhead, Overhead { wall: SECOND * 60, chain: SECOND * 60 });
}

fn told_place(sequence: i64) -> usize {
    usize::try_from(sequence - 1).unwrap()
}

/// A recovery of fifty issues of three agents: chains of five, next to each other.
fn fifty() -> Vec<(String, &'static str, Vec<String>, u64)> {
    (0..50_usize)
        .map(|n| {
            let on = if n % 5 == 0 { vec![] } else { vec![format!("i{}", n - 1)] };
            (format!("i{n}"), ["x", "y", "z"][n % 3], on, 1 + (n as u64 * 7) % 11)
        })
        .collect()
}

fn fifty_planned(slow: bool, slots: u32) -> (World, Arc<Outline>) {
    let issues = fifty();
    let on: Vec<Vec<&str>> =
        issues.iter().map(|(_, _, on, _)| on.iter().map(String::as_str).collect()).collect();
    let issues: Vec<(&str, &str, &[&str], u64)> = issues
        .iter()
        .zip(&on)
        .map(|((id, agent, _, seconds), on)| (&**id, *agent, &**on, *seconds))
        .collect();
    let (mut world, outline) = world(&issues, &[("x", slots), ("y", slots), ("z", slots)]);
    world.slow = slow;
    (world, outline)
}

#[test]
fn utilisation_from_the_journal_is_what_it_was_outside() {
    for slow in [false, true] {
        let (mut world, outline) = fifty_planned(slow, 2);
        world.run();
        let report = report(&world, &outline);
        assert_eq!(report.ended, Some(Ending::Success));
        let (found, wanted) = (report.utilisation.unwrap(), world.used / world.offered);
        assert!((found - wanted).abs() < 1e-6, "{found} in the journal, {wanted} outside");
        assert!(slow || found > 0.999, "slots stood idle with work for them: {found}");
        assert!(!slow || found < 0.999, "nobody waited: {found}");
    }
}

#[test]
fn a_recovery_that_costs_no_time_of_its_own_has_no_overhead() {
    let (mut world, outline) = fifty_planned(false, 50);
    let begin = world.now;
    world.run();
    let wall = world.now.since(begin);
    let overhead = report(&world, &outline).overhead;
    assert_eq!(overhead, Overhead { wall, chain: wall }, "nothing waits but for what it needs");
    assert_eq!(overhead.share(), Some(0.0));
}

#[test]
fn what_a_recovery_takes_beyond_its_agents_is_overhead_at_every_moment() {
    let issues: &[(&str, &str, &[&str], u64)] = &[("a", "x", &[], 10), ("b", "x", &["a"], 30)];
    let (mut world, outline) = world(issues, &[("x", 1)]);
    let late = |world: &World, seconds: u32| {
        let now = Now { now: world.now.after(SECOND * seconds), ..world.beside() };
        folded(world, &outline, i64::MAX).overhead(&now)
    };
    assert_eq!(late(&world, 4), Overhead { wall: SECOND * 4, chain: SECOND * 4 });
    let nobody = folded(&world, &outline, i64::MAX).overhead(&Now::default());
    assert_eq!(nobody.share(), None, "without who has it nothing is known yet");
    world.step();
    assert_eq!(late(&world, 5), Overhead { wall: SECOND * 15, chain: SECOND * 15 });
    // Two seconds in which nobody has anything.
    let idle = Now { held: BTreeMap::new(), now: world.now.after(SECOND * 2), ..world.beside() };
    let overhead = folded(&world, &outline, i64::MAX).overhead(&idle);
    assert_eq!(overhead.share(), Some(0.2));
}

#[test]
fn people_are_no_overhead() {
    let issues: &[(&str, &str, &[&str], u64)] = &[("ask", "", &[], 1), ("then", "x", &["ask"], 5)];
    let (mut world, outline) = world(issues, &[("x", 1)]);
    world.now = world.now.after(SECOND * 100);
    assert_eq!(report(&world, &outline).overhead.share(), Some(0.0));
    world.decide("ask", true);
    world.run();
    let overhead = report(&world, &outline).overhead;
    assert_eq!(overhead, Overhead { wall: SECOND * 105, chain: SECOND * 105 });
}
