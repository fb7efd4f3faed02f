//! What the language means, a construct at a time.

use std::time::Duration;

use engine::event::{Ending, Origin};
use engine::task::{FailureKind, TaskError, TaskOrder, TaskOutcome, TaskReport};
use engine::{Command, Effect};
use serde_json::json;

use crate::world::{World, check, run, statuses};

use Ending::{Cancelled, Failure, RolledBack, Success};

/// A workflow whose steps are these lines.
fn flow(steps: &str) -> String {
    format!("name: t\nsteps:\n{steps}")
}

#[test]
fn steps_run_one_after_another_and_see_what_came_before() {
    let yaml = flow(
        "  - {id: a, agent: echo, action: echo, params: {x: 9007199254740993, z: 1, y: 2}}\n\
         \x20 - {id: b, agent: echo, action: echo, params: {got: '${{ a.x }}', all: '${{ a.output }}'}}\n",
    );
    let world = check(&yaml, Success, "a=success b=success");
    let steps = world.state.steps();
    let expected = r#"{"got":9007199254740993,"all":{"x":9007199254740993,"z":1,"y":2}}"#;
    assert_eq!(steps[1].output.as_deref(), Some(expected));
    assert_eq!(world.most_out, 1);
}

#[test]
fn members_run_beside_their_head_and_the_next_step_waits_for_all() {
    let yaml = flow(
        "  - id: a\n    agent: echo\n    action: echo\n    parallel:\n\
         \x20     - {id: m, agent: echo, action: echo}\n\
         \x20     - {id: n, agent: echo, action: echo}\n\
         \x20 - {id: b, agent: echo, action: echo}\n",
    );
    let world = check(&yaml, Success, "a=success m=success n=success b=success");
    assert_eq!(world.most_out, 3);
    assert_eq!(world.done.last().unwrap(), "b");
}

#[test]
fn a_false_condition_skips_and_what_depends_goes_on() {
    let yaml = flow(
        "  - {id: a, agent: echo, action: echo, condition: '1 > 2'}\n\
         \x20 - {id: b, agent: echo, action: echo, params: {s: '${{ a.status }}', o: '${{ a.success }}'}}\n",
    );
    let world = check(&yaml, Success, "a=skipped b=success");
    assert_eq!(world.output("b"), json!({"s": "skipped", "o": false}));
}

#[test]
fn a_choice_takes_one_branch_and_shows_the_other_as_skipped() {
    let yaml = flow(
        "  - {id: a, agent: echo, action: echo, params: {error_rate: 0.01}}\n\
         \x20 - condition: error_rate > 0.05\n    then:\n\
         \x20     - {id: x, agent: echo, action: echo}\n\
         \x20   else:\n      - {id: y, agent: echo, action: echo, params: {v: 1}}\n",
    );
    let world = check(&yaml, Success, "a=success if=success if.x=skipped if.y=success");
    assert_eq!(world.output("if"), json!({"v": 1}));
    let without_else = yaml.split("    else:").next().unwrap().to_owned();
    check(&without_else, Success, "a=success if=skipped if.x=skipped");
}

#[test]
fn a_condition_that_cannot_be_evaluated_fails_its_step_with_text_and_cause() {
    let yaml = flow(
        "  - {id: a, agent: echo, action: echo}\n\
         \x20 - {id: b, agent: echo, action: echo, condition: nothing_like_it > 1}\n",
    );
    let world = check(&yaml, Failure, "a=success b=failure");
    let error = world.state.steps()[1].error.clone().unwrap();
    assert!(error.contains("nothing_like_it > 1"), "{error}");
}

#[test]
fn foreach_keeps_order_and_bound_and_gives_the_list_of_outputs() {
    let yaml = flow(
        "  - id: all\n    foreach: '[3, 1, 2]'\n    max_parallel: 2\n    agent: echo\n\
         \x20   action: echo\n    params: {v: '${{ item * 10 }}', i: '${{ index }}'}\n",
    );
    let world = check(&yaml, Success, "all=success all[0]=success all[1]=success all[2]=success");
    let expected = json!([{"v": 30, "i": 0}, {"v": 10, "i": 1}, {"v": 20, "i": 2}]);
    assert_eq!(world.output("all"), expected);
    assert_eq!(world.most_out, 2);
}

#[test]
fn foreach_over_nothing_is_done_at_once() {
    let yaml = flow("  - {id: all, foreach: '[]', agent: echo, action: echo}\n");
    let world = check(&yaml, Success, "all=success");
    assert_eq!(world.output("all"), json!([]));
}

#[test]
fn while_runs_as_long_as_its_condition_holds_and_stops_at_its_bound() {
    let body =
        "    steps:\n      - {id: s, agent: echo, action: echo, params: {n: '${{ iteration }}'}}\n";
    let yaml = flow(&format!("  - id: w\n    while: s == null || s.n < 2\n{body}"));
    let world = check(&yaml, Success, "w=success w[0].s=success w[1].s=success w[2].s=success");
    assert_eq!(world.output("w"), json!([{"n": 0}, {"n": 1}, {"n": 2}]));
    let endless = flow(&format!("  - id: w\n    while: 'true'\n    max_iterations: 2\n{body}"));
    check(&endless, Failure, "w=failure w[0].s=success w[1].s=success");
}

#[test]
fn an_attempt_is_repeated_with_growing_delays_up_to_its_bound() {
    let yaml = flow(
        "  - id: a\n    agent: echo\n    action: fail\n    params: {succeed_after: 3}\n\
         \x20   retry: {max_attempts: 3, delay: 10s, backoff: exponential, jitter: 0}\n",
    );
    let world = check(&yaml, Success, "a=success");
    assert_eq!(world.elapsed(), Duration::from_secs(30));
    assert_eq!(world.state.steps()[0].attempts, 3);
    let too_late = yaml.replace("succeed_after: 3", "succeed_after: 4");
    check(&too_late, Failure, "a=failure");
    let permanent = yaml.replace("{succeed_after: 3}", "{succeed_after: 3, kind: permanent}");
    let world = check(&permanent, Failure, "a=failure");
    assert_eq!(world.state.steps()[0].attempts, 1);
}

#[test]
fn retry_on_names_the_codes_that_are_retried() {
    let yaml = flow(
        "  - id: a\n    agent: echo\n    action: fail\n    params: {succeed_after: 2, code: busy}\n\
         \x20   retry: {max_attempts: 5, retry_on: [busy]}\n",
    );
    check(&yaml, Success, "a=success");
    check(&yaml.replace("retry_on: [busy]", "no_retry_on: [busy]"), Failure, "a=failure");
}

#[test]
fn a_fallback_is_tried_behind_the_last_attempt() {
    let yaml = flow(
        "  - id: a\n    agent: echo\n    action: fail\n    params: {succeed_after: 3}\n\
         \x20   retry: {max_attempts: 2, delay: 1s}\n    fallback: [other]\n",
    );
    let mut world = World::new(&yaml, &json!({}));
    assert!(world.step() && world.step() && world.step());
    assert_eq!(world.out[0].agent.as_deref(), Some("other"));
    world.run();
    assert_eq!(statuses(&world), "a=success");
}

#[test]
fn a_failure_stops_what_has_not_begun_and_lets_what_runs_finish() {
    let yaml = flow(
        "  - id: a\n    agent: echo\n    action: fail\n    parallel:\n\
         \x20     - {id: m, agent: echo, action: echo}\n\
         \x20 - {id: b, agent: echo, action: echo}\n",
    );
    // The member was not given out yet, so it is taken back.
    check(&yaml, Failure, "a=failure m=skipped b=skipped");
    let mut world = World::new(&yaml, &json!({}));
    world.pick = Box::new(|count| count - 1);
    world.run();
    assert_eq!(statuses(&world), "a=failure m=success b=skipped");
}

#[test]
fn continue_on_error_holds_a_failure_where_it_stands() {
    let yaml = flow(
        "  - id: box\n    continue_on_error: true\n    steps:\n\
         \x20     - {id: a, agent: echo, action: fail, params: {message: boom}}\n\
         \x20     - {id: b, agent: echo, action: echo}\n\
         \x20 - {id: c, agent: echo, action: echo, params: {ok: '${{ box.success }}', e: '${{ box.error }}'}}\n",
    );
    let world = check(&yaml, Success, "box=failure box.a=failure box.b=skipped c=success");
    assert_eq!(world.output("c"), json!({"ok": false, "e": "boom"}));
}

#[test]
fn on_failure_sees_what_failed_and_changes_no_status() {
    let yaml = "name: t\nsteps:\n  - {id: a, agent: echo, action: fail, params: {message: boom}}\n\
        error_handling:\n  on_failure:\n\
        \x20   - {id: log, agent: echo, action: echo,\n\
        \x20      params: {s: '${{ failure.step }}', e: '${{ failure.error }}'}}\n\
        \x20   - notify: slack\n";
    let world = check(yaml, Failure, "a=failure on_failure.log=success on_failure.notify=success");
    assert_eq!(world.output("on_failure.log"), json!({"s": "a", "e": "boom"}));
    assert_eq!(world.notified.len(), 1);
    assert!(world.notified[0].contains("boom"));
    assert_eq!(world.state.counts().total, 1, "steps of on_failure are not counted");
}

#[test]
fn a_rollback_undoes_in_reverse_order_of_completion() {
    let yaml = "name: t\nerror_handling: {rollback: to_start}\nsteps:\n\
        \x20 - {id: a, agent: echo, action: append, params: {line: a}}\n\
        \x20 - {id: b, agent: echo, action: append, params: {line: b}}\n\
        \x20 - {id: c, agent: echo, action: echo, compensate: sweep}\n\
        \x20 - {id: d, agent: echo, action: fail}\n";
    let world = check(yaml, RolledBack, "a=success b=success c=success d=failure");
    assert_eq!(world.done, ["a", "b", "c", "undo c", "undo b", "undo a"]);
    let stays = yaml.replace("action: echo, compensate: sweep", "action: stay");
    let world = check(&stays, Failure, "a=success b=success c=success d=failure");
    assert_eq!(world.done[3..], ["undo b", "undo a"], "what can be undone is undone");
}

#[test]
fn a_rollback_to_a_checkpoint_leaves_what_stands_before_it() {
    let yaml = "name: t\nerror_handling: {rollback: to_checkpoint}\nsteps:\n\
        \x20 - {id: a, agent: echo, action: append, checkpoint: good}\n\
        \x20 - {id: b, agent: echo, action: append}\n\
        \x20 - {id: c, agent: echo, action: fail}\n";
    let world = check(yaml, RolledBack, "a=success b=success c=failure");
    assert_eq!(world.done, ["a", "b", "undo b"]);
}

#[test]
fn a_branch_that_fails_leaves_the_others_alone() {
    let yaml = "name: t\nerror_handling: {scope: branch}\nsteps:\n\
        \x20 - {id: a, agent: echo, action: fail, depends_on: []}\n\
        \x20 - {id: b, agent: echo, action: echo, depends_on: [a]}\n\
        \x20 - {id: c, agent: echo, action: echo, depends_on: []}\n\
        \x20 - {id: d, agent: echo, action: echo, depends_on: [c]}\n";
    check(yaml, Failure, "a=failure b=skipped c=success d=success");
}

#[test]
fn a_failed_item_starts_no_further_items() {
    let yaml = flow(
        "  - id: all\n    foreach: '[1, 2, 3, 4]'\n    max_parallel: 1\n    agent: echo\n\
         \x20   action: fail\n    params: {succeed_after: '${{ item == 2 ? 9 : 1 }}'}\n",
    );
    check(&yaml, Failure, "all=failure all[0]=success all[1]=failure");
}

#[test]
fn a_wait_takes_its_time_and_a_signal_comes_early_or_late() {
    let yaml = flow("  - {id: w, wait: 90s}\n  - {id: s, wait_for: {signal: go, timeout: 1h}}\n");
    let signal = |payload: &str| Command::Signal {
        signal: "go".to_owned(),
        payload: payload.into(),
        origin: Origin::default(),
    };
    let mut early = World::new(&yaml, &json!({}));
    early.ask(signal(r#"{"by":"early"}"#)).unwrap();
    early.run();
    assert_eq!(statuses(&early), "w=success s=success");
    assert_eq!(early.elapsed(), Duration::from_secs(90));
    assert_eq!(early.output("s"), json!({"by": "early"}));
    let never = check(&yaml, Failure, "w=success s=failure");
    assert_eq!(never.elapsed(), Duration::from_secs(90 + 3600));
}

#[test]
fn a_person_approves_or_rejects() {
    let yaml =
        flow("  - {id: ok, approve: {message: 'sure?'}}\n  - {id: b, agent: echo, action: echo}\n");
    let amended = |approve, amendment: Option<&str>| Command::Decide {
        path: "ok".to_owned(),
        approve,
        comment: "because".to_owned(),
        amendment: amendment.map(Into::into),
        origin: Origin { actor: "ann".to_owned(), request: None },
    };
    let decide = |approve| amended(approve, None);
    let mut world = World::new(&yaml, &json!({}));
    world.script = vec![amended(true, Some(r#"{"share": 10}"#))];
    world.run();
    assert_eq!(world.output("ok")["amendment"], json!({"share": 10}));
    let mut world = World::new(&yaml, &json!({}));
    world.script = vec![decide(true)];
    world.run();
    assert_eq!(statuses(&world), "ok=success b=success");
    assert_eq!(world.output("ok"), json!({"approved": true, "comment": "because", "by": "ann"}));
    let mut world = World::new(&yaml, &json!({}));
    world.script = vec![decide(false)];
    world.run();
    assert_eq!(statuses(&world), "ok=failure b=skipped");
}

#[test]
fn a_deadline_bounds_a_step_a_block_and_the_run() {
    let step = flow("  - {id: w, wait: 1h, deadline: 10s}\n");
    assert_eq!(check(&step, Failure, "w=failure").elapsed(), Duration::from_secs(10));
    let block = flow(
        "  - id: box\n    deadline: 10s\n    steps:\n      - {id: w, wait: 1h}\n\
         \x20     - {id: b, agent: echo, action: echo}\n",
    );
    check(&block, Failure, "box=failure box.w=cancelled box.b=skipped");
    let whole = format!("deadline: 10s\n{}", flow("  - {id: w, wait: 1h}\n"));
    check(&whole, Failure, "w=cancelled");
}

#[test]
fn what_took_too_long_is_named_with_its_time() {
    let said = |steps: &str| {
        let world = run(&flow(steps));
        let first = world.state.steps().into_iter().find_map(|step| step.error);
        first.unwrap()
    };
    let step = "  - {id: w, wait: 1h, deadline: 90s}\n";
    assert_eq!(said(step), "the step did not end within 1m30s, its deadline");
    let signal = "  - {id: w, wait_for: {signal: go, timeout: 1500ms}}\n";
    assert_eq!(said(signal), "signal `go` did not come within 1.5s");
    let decision = "  - {id: w, approve: {message: ok, timeout: 2h}}\n";
    assert_eq!(said(decision), "the decision did not come within 2h");
    let whole = run(&format!("deadline: 10s\n{}", flow("  - {id: w, wait: 1h}\n")));
    let why = whole.state.failure().1.unwrap().to_owned();
    assert_eq!(why, "the run did not end within 10s, its deadline");
}

#[test]
fn blocks_that_fail_by_themselves_stop_themselves_alone() {
    let count = 5_000;
    let items: Vec<usize> = (0..count).collect();
    let yaml = flow(
        "  - id: all\n    foreach: '${{ params.items }}'\n    steps:\n      - id: box\n\
         \x20       continue_on_error: true\n        steps:\n\
         \x20         - {id: f, agent: echo, action: fail, params: {kind: permanent}}\n\
         \x20         - {id: after, agent: echo, action: echo}\nparams: {items: {type: array}}\n",
    );
    let mut world = World::new(&yaml, &json!({ "items": items }));
    // Without the look at everything behind each transition that `run` takes.
    let mut more = true;
    while more || !world.out.is_empty() {
        let command = match world.out.pop() {
            Some(order) if !more => report_of(&order),
            order => {
                world.out.extend(order);
                Command::Tick
            }
        };
        let decided = engine::decide(&mut world.state, command, world.now).unwrap();
        more = decided.more;
        world.out.extend(decided.effects.into_iter().filter_map(|effect| match effect {
            Effect::Dispatch(order) => Some(*order),
            _ => None,
        }));
    }
    let steps = world.state.steps();
    let counted = |status| steps.iter().filter(|step| step.status == status).count();
    assert_eq!(world.state.failure(), (None, None), "each is held by its block");
    assert_eq!((counted("failure"), counted("skipped")), (2 * count, count));
    assert_eq!(world.state.phase(), engine::Phase::Ended);
}

/// Its agent says that it failed for good.
fn report_of(order: &TaskOrder) -> Command {
    let error = TaskError {
        kind: FailureKind::Permanent,
        code: String::new(),
        message: "no".to_owned(),
        retry_after_ms: None,
        no_effect: false,
    };
    Command::Report(TaskReport {
        key: order.key,
        attempt: order.attempt,
        agent: None,
        outcome: TaskOutcome::Failed(error),
        touched: Vec::new(),
        took: None,
    })
}

#[test]
fn a_cancelled_run_stops_everywhere() {
    let mut world = World::new(
        &flow("  - {id: w, wait: 1h}\n  - {id: b, agent: echo, action: echo}\n"),
        &json!({}),
    );
    let cancel = Command::Cancel { reason: "enough".to_owned(), origin: Origin::default() };
    world.script = vec![cancel];
    world.run();
    assert_eq!(statuses(&world), "w=cancelled b=skipped");
    assert_eq!(world.ended, Some(Cancelled));
}

#[test]
fn a_paused_run_starts_nothing_until_it_is_resumed() {
    let yaml =
        flow("  - {id: a, agent: echo, action: echo}\n  - {id: b, agent: echo, action: echo}\n");
    let mut world = World::new(&yaml, &json!({}));
    let origin = Origin::default();
    world.ask(Command::Pause { reason: String::new(), origin: origin.clone() }).unwrap();
    world.run();
    assert_eq!(statuses(&world), "a=success b=pending");
    world.ask(Command::Resume { origin }).unwrap();
    world.run();
    assert_eq!(statuses(&world), "a=success b=success");
}

#[test]
fn a_failed_run_is_retried_from_what_failed() {
    let yaml = flow(
        "  - {id: a, agent: echo, action: echo}\n  - id: box\n    steps:\n\
         \x20     - {id: x, agent: echo, action: echo}\n\
         \x20     - {id: y, agent: echo, action: fail, params: {succeed_after: 2}}\n\
         \x20 - {id: b, agent: echo, action: echo}\n",
    );
    let mut world = run(&yaml);
    assert_eq!(statuses(&world), "a=success box=failure box.x=success box.y=failure b=skipped");
    world.ended = None;
    world.ask(Command::Retry { origin: Origin::default() }).unwrap();
    // Attempts count on, so the second one succeeds.
    world.run();
    assert_eq!(world.ended, Some(Success));
    assert_eq!(world.done, ["a", "box.x", "box.y", "b"], "what ended well is not done again");
    assert_eq!(world.state.steps()[3].attempts, 2);
}

#[test]
fn sub_workflows_give_their_outputs_or_their_failure() {
    let yaml = flow(
        "  - {id: sub, workflow: other}\n  - {id: b, agent: echo, action: echo, params: {v: '${{ sub.v }}'}}\n",
    );
    let mut world = World::new("name: t\nsteps: [{wait: 1s}]", &json!({}));
    world.run();
    assert_eq!(run(&yaml).ended, Some(Failure));
}

#[test]
fn outputs_are_computed_from_the_finished_steps() {
    let yaml = format!(
        "outputs: {{total: a.n + b.n, status: a.status}}\n{}",
        flow(
            "  - {id: a, agent: echo, action: echo, params: {n: 1}}\n\
             \x20 - {id: b, agent: echo, action: echo, params: {n: 2}}\n"
        )
    );
    let world = run(&yaml);
    assert_eq!(world.state.outputs().map(|o| &**o), Some(r#"{"total":3,"status":"success"}"#));
}

#[test]
fn keys_are_asked_for_before_a_step_begins() {
    let yaml = flow(
        "  - id: a\n    agent: echo\n    action: echo\n    concurrency: {key: db, limit: 1}\n\
         \x20   rate_limit: {key: api, limit: 5, per: 1s}\n",
    );
    check(&yaml, Success, "a=success");
}

#[test]
fn params_are_filled_in_and_typed() {
    let yaml = "name: t\nparams: {n: {type: integer, default: 4}, who: {type: string}}\nsteps:\n\
        \x20 - {id: a, agent: echo, action: echo, params: {n: '${{ params.n }}', t: 'hi ${{ params.who }}', w: '${{ params.who }}'}}\n";
    let mut world = World::new(yaml, &json!({"who": "ann"}));
    world.run();
    assert_eq!(world.output("a"), json!({"n": 4, "t": "hi ann", "w": "ann"}));
}

#[test]
fn a_loop_over_one_step_reads_its_last_iteration_under_its_own_id() {
    let yaml = flow(
        "  - id: poll\n    while: poll == null || poll.n < 2\n    agent: echo\n    action: echo\n\
         \x20   params: {n: '${{ iteration }}'}\n",
    );
    check(&yaml, Success, "poll=success poll[0]=success poll[1]=success poll[2]=success");
}

#[test]
fn a_block_whose_failure_cancels_the_rest_of_it_has_failed() {
    let yaml = format!(
        "fail_fast: true\n{}",
        flow(
            "  - id: all\n    foreach: '[1, 2]'\n    steps:\n\
             \x20     - {id: a, agent: echo, action: fail, params: {message: boom}}\n"
        )
    );
    check(&yaml, Failure, "all=failure all[0].a=failure all[1].a=cancelled");
}

#[test]
fn a_while_that_a_failure_stops_went_well_only_if_it_had_come_to_its_end() {
    let yaml = flow(
        "  - {id: w, depends_on: [], while: iteration < 1, steps: [{id: x, wait: 5s}]}\n\
         \x20 - {id: a, depends_on: [], agent: echo, action: fail}\n",
    );
    check(&yaml, Failure, "w=success w[0].x=success a=failure");
    check(&yaml.replace("< 1", "< 2"), Failure, "w=cancelled w[0].x=success a=failure");
}

#[test]
fn the_ids_of_a_body_are_null_before_the_first_iteration_however_they_are_written() {
    let yaml = flow(
        "  - id: w-1\n    while: steps[\"w-1\"] == null || steps[\"w-1\"].n < 1\n\
         \x20   agent: echo\n    action: echo\n    params: {n: '${{ iteration }}'}\n",
    );
    check(&yaml, Success, "w-1=success w-1[0]=success w-1[1]=success");
}

#[test]
fn a_step_past_its_deadline_is_rolled_back_like_any_failure_and_a_late_run_has_failed() {
    let steps = "  - {id: a, agent: echo, action: append}\n  - {id: w, wait: 1h, deadline: 10s}\n";
    let yaml = format!("error_handling: {{rollback: to_start}}\n{}", flow(steps));
    assert_eq!(check(&yaml, RolledBack, "a=success w=failure").done, ["a", "undo a"]);
    let late = format!("deadline: 10s\n{}", yaml.replace(", deadline: 10s", ""));
    assert_eq!(check(&late, Failure, "a=success w=cancelled").done, ["a", "undo a"]);
}

#[test]
fn attempts_that_were_not_made_any_more_do_not_count() {
    let yaml = flow(
        "  - id: a\n    deadline: 5s\n    agent: echo\n    action: fail\n\
         \x20   retry: {max_attempts: 3, delay: 1m, jitter: 0}\n",
    );
    assert_eq!(check(&yaml, Failure, "a=failure").state.steps()[0].attempts, 1);
}

#[test]
fn a_key_that_comes_after_the_end_changes_nothing() {
    let yaml = format!("rate_limit: {{limit: 1, per: 1s}}\n{}", flow("  - {wait: 1s}\n"));
    let mut world = World::new(&yaml, &json!({}));
    world.ask(Command::Cancel { reason: String::new(), origin: Origin::default() }).unwrap();
    world.run();
    let (instance, which) = (None, engine::event::KeyKind::Rate);
    let late = world.ask(Command::Granted { instance, which });
    assert_eq!(late, Err(engine::Rejection::Ended));
}

#[test]
fn what_only_waits_says_for_whom() {
    let begun = |yaml: &str| {
        let (graph, _) = engine::definition::compile("test.yml", yaml.as_bytes()).unwrap();
        let (graph, now) = (std::sync::Arc::new(graph), engine::Instant(0));
        let started = World::new(&flow("  - {wait: 1h}\n"), &json!({})).state.started().clone();
        engine::start(engine::RunId::at_instant(now, "test"), graph, started, now).unwrap().0
    };
    let child = begun(&flow("  - {id: a, workflow: other}\n"));
    assert!(child.only_waits());
    let started = |effect| match effect {
        engine::Effect::StartChild { child, .. } => child.run,
        other => panic!("{other:?}"),
    };
    let owed: Vec<_> = child.pending_effects().into_iter().map(started).collect();
    assert_eq!(child.awaited_children(), owed);
    assert_eq!(child.wanted_keys(), []);
    let steps = "  - {id: a, wait: 1h, concurrency: {key: k, limit: 1}}\n";
    let keyed = begun(&flow(steps));
    let whole = begun(&format!("concurrency: {{key: k, limit: 1}}\n{}", flow("  - {wait: 1h}\n")));
    for mut state in [keyed, whole] {
        assert!(state.only_waits());
        assert_eq!(state.awaited_children(), []);
        let wanted = state.wanted_keys();
        assert!(matches!(&wanted[..], [wish] if &*wish.key == "k" && !wish.held), "{wanted:?}");
        let (instance, which) = (wanted[0].instance, wanted[0].which);
        let granted = Command::Granted { instance, which };
        engine::decide(&mut state, granted, engine::Instant(1)).unwrap();
        assert!(state.wanted_keys()[0].held);
        let (reason, origin) = (String::new(), Origin::default());
        let cancel = Command::Cancel { reason, origin };
        engine::decide(&mut state, cancel, engine::Instant(2)).unwrap();
        assert_eq!(state.wanted_keys(), [], "it has ended");
    }
    let owes = begun(&flow("  - {id: a, agent: echo, action: echo}\n"));
    assert!(!owes.only_waits(), "a task is out");
    let tells = begun(&flow("  - {id: a, notify: slack}\n"));
    assert!(!tells.only_waits(), "a notification is owed");
}
