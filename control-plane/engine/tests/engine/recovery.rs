//! A run that is folded and taken over anywhere comes to the same end.

use engine::{Command, Effect};
use serde_json::json;

use crate::world::{World, statuses};

const YAML: &str = "
name: t
error_handling:
  rollback: to_start
  on_failure:
    - {id: log, agent: echo, action: echo}
steps:
  - {id: a, agent: echo, action: append, params: {line: a}}
  - id: all
    foreach: '[1, 2, 3]'
    max_parallel: 2
    steps:
      - {id: x, agent: echo, action: append, params: {v: '${{ item }}'}}
      - condition: item > 1
        then:
          - {id: y, agent: echo, action: fail, params: {succeed_after: 2}, retry: {max_attempts: 2}}
  - {id: w, wait: 5s}
  - id: loop
    while: iteration < 2
    agent: echo
    action: echo
  - {id: z, agent: echo, action: fail, params: {message: boom}}
";

#[test]
fn a_run_taken_over_behind_any_transition_ends_as_if_nothing_had_happened() {
    let mut whole = World::new(YAML, &json!({}));
    whole.run();
    let expected = statuses(&whole);
    let mut steps = 0;
    for crash_behind in 0..200 {
        let mut world = World::new(YAML, &json!({}));
        let mut alive = true;
        for _ in 0..crash_behind {
            alive = world.ended.is_none() && world.step();
            if !alive {
                break;
            }
        }
        if !alive || world.ended.is_some() {
            break;
        }
        steps += 1;
        // The process dies: state and everything that was out are gone.
        world.state = world.fold();
        world.out = world
            .state
            .pending_effects()
            .into_iter()
            .filter_map(|effect| match effect {
                Effect::Dispatch(order) => Some(*order),
                _ => None,
            })
            .collect();
        world.ask(Command::Adopt { epoch: 2 }).unwrap();
        world.run();
        assert_eq!(statuses(&world), expected, "crash behind step {crash_behind}");
        assert_eq!(world.ended, whole.ended, "crash behind step {crash_behind}");
    }
    assert!(steps > 15, "every point of the run was tried, found {steps}");
}
