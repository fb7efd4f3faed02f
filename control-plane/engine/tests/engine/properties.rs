//! Invariants over random definitions and random orders of events.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fmt::Write as _;

use engine::event::Ending;
use engine::{Command, Event, InstanceId, RunStatus};
use proptest::prelude::*;
use serde_json::json;

use crate::world::{World, statuses};

/// A random step, as YAML in flow form.
#[derive(Clone, Debug)]
enum Step {
    Echo,
    Append,
    Fail { succeed_after: u8, attempts: u8, held: bool },
    Wait,
    Skip,
    Group(u8),
    Block(Vec<Step>, bool),
    Each(u8, u8, Vec<Step>),
    Choice(bool, Vec<Step>, Vec<Step>),
    While(u8, Vec<Step>),
}

fn step() -> impl Strategy<Value = Step> {
    let leaf = prop_oneof![
        3 => Just(Step::Echo),
        2 => Just(Step::Append),
        2 => (1_u8..4, 1_u8..4, any::<bool>()).prop_map(|(succeed_after, attempts, held)| {
            Step::Fail { succeed_after, attempts, held }
        }),
        1 => Just(Step::Wait),
        1 => Just(Step::Skip),
        1 => (1_u8..4).prop_map(Step::Group),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let steps = proptest::collection::vec(inner, 1..4);
        prop_oneof![
            (steps.clone(), any::<bool>()).prop_map(|(steps, held)| Step::Block(steps, held)),
            (0_u8..5, 0_u8..3, steps.clone())
                .prop_map(|(items, parallel, steps)| Step::Each(items, parallel, steps)),
            (any::<bool>(), steps.clone(), steps.clone())
                .prop_map(|(which, then, other)| Step::Choice(which, then, other)),
            (0_u8..3, steps).prop_map(|(times, steps)| Step::While(times, steps)),
        ]
    })
}

fn write_steps(steps: &[Step], indent: usize, into: &mut String) {
    let pad = " ".repeat(indent);
    for step in steps {
        match step {
            Step::Echo => writeln!(into, "{pad}- {{agent: echo, action: echo}}").unwrap(),
            Step::Append => writeln!(into, "{pad}- {{agent: echo, action: append}}").unwrap(),
            Step::Fail { succeed_after, attempts, held } => writeln!(
                into,
                "{pad}- {{agent: echo, action: fail, params: {{succeed_after: {succeed_after}}}, \
                 retry: {{max_attempts: {attempts}}}, continue_on_error: {held}}}"
            )
            .unwrap(),
            Step::Wait => writeln!(into, "{pad}- {{wait: 7s}}").unwrap(),
            Step::Skip => {
                writeln!(into, "{pad}- {{agent: echo, action: echo, condition: '1 > 2'}}").unwrap();
            }
            Step::Group(members) => {
                writeln!(into, "{pad}- agent: echo\n{pad}  action: echo\n{pad}  parallel:")
                    .unwrap();
                for _ in 0..*members {
                    writeln!(into, "{pad}    - {{agent: echo, action: echo}}").unwrap();
                }
            }
            Step::Block(steps, held) => {
                writeln!(into, "{pad}- continue_on_error: {held}\n{pad}  steps:").unwrap();
                write_steps(steps, indent + 4, into);
            }
            Step::Each(items, parallel, steps) => {
                let items: Vec<String> = (0..*items).map(|item| item.to_string()).collect();
                writeln!(into, "{pad}- foreach: '[{}]'", items.join(", ")).unwrap();
                if *parallel > 0 {
                    writeln!(into, "{pad}  max_parallel: {parallel}").unwrap();
                }
                writeln!(into, "{pad}  steps:").unwrap();
                write_steps(steps, indent + 4, into);
            }
            Step::Choice(which, then, other) => {
                writeln!(into, "{pad}- condition: '{which}'\n{pad}  then:").unwrap();
                write_steps(then, indent + 4, into);
                writeln!(into, "{pad}  else:").unwrap();
                write_steps(other, indent + 4, into);
            }
            Step::While(times, steps) => {
                writeln!(into, "{pad}- while: iteration < {times}\n{pad}  steps:").unwrap();
                write_steps(steps, indent + 4, into);
            }
        }
    }
}

#[derive(Clone, Debug)]
struct Whole {
    steps: Vec<Step>,
    fail_fast: bool,
    rollback: &'static str,
    scope: &'static str,
}

fn whole() -> impl Strategy<Value = Whole> {
    let rollback = prop_oneof![Just("none"), Just("to_start")];
    let scope = prop_oneof![Just("run"), Just("branch")];
    (proptest::collection::vec(step(), 1..6), any::<bool>(), rollback, scope)
        .prop_map(|(steps, fail_fast, rollback, scope)| Whole { steps, fail_fast, rollback, scope })
}

fn yaml(whole: &Whole) -> String {
    let mut text = format!(
        "name: t\nfail_fast: {}\nerror_handling:\n  rollback: {}\n  scope: {}\n  on_failure:\n    \
         - {{agent: echo, action: echo}}\nsteps:\n",
        whole.fail_fast, whole.rollback, whole.scope
    );
    write_steps(&whole.steps, 2, &mut text);
    text
}

/// A source of choices that needs no state but a number.
fn chooser(seed: u64) -> Box<dyn FnMut(usize) -> usize> {
    let mut state = seed | 1;
    Box::new(move |count| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % count as u64).unwrap()
    })
}

fn lived(text: &str, seed: u64, cancel_at: Option<u8>) -> World {
    let mut world = World::new(text, &json!({}));
    world.pick = chooser(seed);
    let mut steps = 0_u8;
    while world.ended.is_none() && world.step() {
        steps = steps.saturating_add(1);
        if cancel_at == Some(steps) && world.ended.is_none() {
            let origin = engine::event::Origin::default();
            // A rollback cannot be cancelled.
            drop(world.ask(Command::Cancel { reason: "enough".to_owned(), origin }));
        }
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_run_ends_with_every_step_settled(
        whole in whole(), seed: u64, cancel_at in proptest::option::of(1_u8..20)
    ) {
        let text = yaml(&whole);
        let world = lived(&text, seed, cancel_at);
        prop_assert!(world.ended.is_some(), "{text}\n{}", statuses(&world));
        prop_assert!(matches!(world.state.status(), RunStatus::Ended(_)));
        for step in world.state.steps() {
            let settled = ["success", "failure", "skipped", "cancelled"];
            prop_assert!(settled.contains(&step.status), "{text}\n{}", statuses(&world));
        }
        let counts = world.state.counts();
        let handler = |path: &str| path.starts_with("on_failure.");
        let entries = world.state.steps().iter().filter(|step| !handler(&step.path)).count();
        prop_assert_eq!(counts.total as usize, entries);
        if world.ended == Some(Ending::Success) {
            let held = text.contains("continue_on_error: true");
            prop_assert!(counts.failed == 0 || held, "{text}\n{}", statuses(&world));
        }
        let mut paths: Vec<_> = world.done.iter().collect();
        paths.sort();
        let count = paths.len();
        paths.dedup();
        prop_assert_eq!(paths.len(), count, "no step ends well twice");
    }

    #[test]
    fn a_rollback_undoes_each_change_once_and_the_last_first(whole in whole(), seed: u64) {
        let whole = Whole { rollback: "to_start", scope: "run", ..whole };
        let text = yaml(&whole);
        let world = lived(&text, seed, None);
        let undone: Vec<&str> =
            world.done.iter().filter_map(|done| done.strip_prefix("undo ")).collect();
        if world.ended == Some(Ending::Success) {
            prop_assert!(undone.is_empty());
        } else {
            let mut appended: Vec<&str> = world.done.iter().map(|done| &**done)
                .filter(|done| !done.starts_with("undo ") && last(done).starts_with("append"))
                .collect();
            let mut sorted = undone.clone();
            appended.sort_unstable();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, appended, "{}", text);
            check_order_of_undos(&world)?;
            prop_assert_eq!(world.ended, Some(Ending::RolledBack));
        }
    }

    #[test]
    fn the_same_choices_give_the_same_journal(whole in whole(), seed: u64) {
        let text = yaml(&whole);
        prop_assert_eq!(lived(&text, seed, None).journal, lived(&text, seed, None).journal);
    }
}

/// What began when a step had ended may rest on it, so it is undone before the undo of that step
/// begins.
fn check_order_of_undos(world: &World) -> Result<(), TestCaseError> {
    let place = |wanted: &dyn Fn(&Event) -> bool| {
        world.journal.iter().position(|(_, event)| wanted(event)).unwrap_or(usize::MAX)
    };
    let undone: Vec<InstanceId> = (world.journal.iter())
        .filter_map(|(_, event)| match event {
            Event::UndoSucceeded { n, .. } => Some(*n),
            _ => None,
        })
        .collect();
    for &first in &undone {
        let ended = place(&|e| matches!(e, Event::StepSucceeded { n, .. } if *n == first));
        let undo = place(&|e| matches!(e, Event::UndoQueued { n, .. } if *n == first));
        for &second in &undone {
            let begun = place(&|e| matches!(e, Event::StepQueued { n, .. } if *n == second));
            let gone = place(&|e| matches!(e, Event::UndoSucceeded { n, .. } if *n == second));
            prop_assert!(first == second || begun < ended || gone < undo);
        }
    }
    Ok(())
}

/// The last part of a path.
fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}
