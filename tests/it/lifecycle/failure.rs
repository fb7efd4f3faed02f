//! What happens when something fails: dead letters, rollback, notices, lost agents.

use contracts::v1::{self, EventKind, RunStatus, connect_response::Frame as Told};

use super::{World, on_both_stores};
use crate::support::client::{reason, text};
use crate::support::raw::{self, RawAgent};

on_both_stores!(
    dead_letters_are_listed_shown_and_discarded,
    a_dead_letter_is_replayed_once_what_was_wrong_is_mended,
    a_failed_run_takes_back_what_it_wrote,
    a_rollback_goes_to_the_last_checkpoint,
    a_webhook_is_told_and_a_channel_without_one_is_skipped,
    a_payment_whose_agent_is_lost_becomes_a_dead_letter,
    failures_are_retried_held_and_handled,
);

async fn dead_letters_are_listed_shown_and_discarded(world: &World) {
    let client = &world.client;
    let yaml = "name: dead\nsteps:\n  - {id: f, agent: echo, action: fail, \
                params: {message: boom, code: E7}, \
                retry: {max_attempts: 2, delay: 1ms}}\n";
    let id = client.start(yaml).await;
    assert_eq!(client.ended(&id).await.status(), RunStatus::Failure);
    let letter_id = format!("{id}/f");
    let list = async || {
        let (mut letters, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = v1::ListDeadLettersRequest { page_size: 3, page_token };
            let page = client.letters.clone().list_dead_letters(request).await.unwrap();
            let page = page.into_inner();
            letters.extend(page.dead_letters);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return letters;
            }
        }
    };
    let find = |letters: Vec<v1::DeadLetter>| {
        letters.into_iter().find(|letter| letter.dead_letter_id == letter_id)
    };
    let listed = find(list().await).unwrap();
    assert_eq!((listed.attempts, listed.error_code.as_str()), (2, "E7"));
    assert_eq!((listed.workflow.as_str(), listed.step.as_str()), ("dead", "f"));
    assert_eq!((listed.agent.as_str(), listed.action.as_str()), ("echo", "fail"));
    assert!(listed.error.contains("boom") && listed.input.is_none(), "{listed:?}");
    let get = v1::GetDeadLetterRequest { dead_letter_id: letter_id.clone() };
    let shown = client.letters.clone().get_dead_letter(get.clone()).await.unwrap().into_inner();
    let input = shown.dead_letter.unwrap().input;
    assert_eq!(text(input.as_ref()), r#"{"message":"boom","code":"E7"}"#);

    let discard =
        v1::DiscardDeadLetterRequest { dead_letter_id: letter_id.clone(), ..Default::default() };
    client.letters.clone().discard_dead_letter(discard.clone()).await.unwrap();
    let status = client.letters.clone().discard_dead_letter(discard).await.unwrap_err();
    assert_eq!(reason(&status), "DEAD_LETTER_NOT_FOUND");
    assert_eq!(client.run(&id).await.status(), RunStatus::Failure, "the run stays as it is");
    assert!(find(list().await).is_none());
}

async fn a_dead_letter_is_replayed_once_what_was_wrong_is_mended(world: &World) {
    let client = &world.client;
    let folder = world.shared.folder.path().join("mended");
    let yaml = format!(
        "name: mend\nsteps:\n  \
         - {{id: f, agent: echo, action: append, params: {{file: {}/f.txt, line: x}}}}\n",
        folder.display()
    );
    let id = client.start(&yaml).await;
    let before = client.ended(&id).await.version_sequence;
    let dead_letter_id = format!("{id}/f");
    let get = v1::GetDeadLetterRequest { dead_letter_id: dead_letter_id.clone() };
    client.letters.clone().get_dead_letter(get.clone()).await.unwrap();
    std::fs::create_dir(&folder).unwrap();
    let request_id = format!("replay-{id}");
    let replay = v1::ReplayDeadLetterRequest { dead_letter_id, request_id };
    for _ in 0..2 {
        client.letters.clone().replay_dead_letter(replay.clone()).await.unwrap();
    }
    let (events, run) = client.events(&id, before).await;
    assert_eq!(run.status(), RunStatus::Success, "{}", run.error);
    assert_eq!(events.iter().filter(|one| one.kind() == EventKind::RunRetried).count(), 1);
    assert_eq!(std::fs::read_to_string(folder.join("f.txt")).unwrap(), "x\n");
    let status = client.letters.clone().get_dead_letter(get).await.unwrap_err();
    assert_eq!(reason(&status), "DEAD_LETTER_NOT_FOUND", "what went well is no dead letter");
}

/// Appends three lines, then fails.
fn appends(file: &std::path::Path, rollback: &str) -> String {
    let mut yaml = format!("name: undo\nerror_handling: {{rollback: {rollback}}}\nsteps:\n");
    for (n, more) in [(1, ", checkpoint: one"), (2, ""), (3, "")] {
        yaml.push_str(&format!(
            "  - {{id: a{n}, agent: echo, action: append{more}, \
             params: {{file: {}, line: l{n}}}}}\n",
            file.display()
        ));
    }
    yaml.push_str("  - {id: f, agent: echo, action: fail, params: {message: boom}}\n");
    yaml
}

async fn a_failed_run_takes_back_what_it_wrote(world: &World) {
    let client = &world.client;
    let file = world.shared.folder.path().join("to_start.txt");
    std::fs::write(&file, "mine\n").unwrap();
    let id = client.start(&appends(&file, "to_start")).await;
    let (events, run) = client.events(&id, 0).await;
    assert_eq!((run.status(), run.failed_step.as_str()), (RunStatus::RolledBack, "f"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine\n");
    let undone: Vec<&str> = events
        .iter()
        .filter(|event| event.kind() == EventKind::UndoSucceeded)
        .map(|event| event.step.as_str())
        .collect();
    assert_eq!(undone, ["a3", "a2", "a1"], "in reverse order");
    assert_eq!(client.full(&id).await.result.unwrap().status, "rolled_back");
}

async fn a_rollback_goes_to_the_last_checkpoint(world: &World) {
    let client = &world.client;
    let file = world.shared.folder.path().join("to_checkpoint.txt");
    let id = client.start(&appends(&file, "to_checkpoint")).await;
    assert_eq!(client.ended(&id).await.status(), RunStatus::RolledBack);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "l1\n");
    let file = world.shared.folder.path().join("none.txt");
    let id = client.start(&appends(&file, "none")).await;
    assert_eq!(client.ended(&id).await.status(), RunStatus::Failure);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "l1\nl2\nl3\n");
}

async fn a_webhook_is_told_and_a_channel_without_one_is_skipped(world: &World) {
    let client = &world.client;
    let yaml = "name: tell\nsteps:\n  - {id: a, agent: echo, action: echo, params: {v: 7}}\n  \
                - {id: told,\n     \
                notify: {channel: ops, message: 'run ${{ run.id }} has ${{ a.v }}'}}\n  \
                - {id: untold, notify: {channel: pager, message: hello}}\n  \
                - {id: plain, notify: ops}\n";
    let id = client.start(yaml).await;
    client.ends_well(&id).await;
    let body = world.shared.hook.told(&format!("run {id} has 7"));
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["text"], format!("run {id} has 7"));
    let steps = client.steps(&id).await;
    let told: Vec<(&str, &str)> =
        steps.iter().map(|step| (step.step_id.as_str(), step.status.as_str())).collect();
    let expected =
        [("a", "success"), ("told", "success"), ("untold", "skipped"), ("plain", "success")];
    assert_eq!(told, expected);
}

async fn a_payment_whose_agent_is_lost_becomes_a_dead_letter(world: &World) {
    let client = &world.client;
    let register = raw::register("bank", "b-1", 1);
    let mut agent = RawAgent::connect(&world.shared.server, register.clone()).await;
    let yaml = "name: pay\nsteps:\n  - {id: pay, agent: bank, action: work, \
                delivery: at_most_once, timeout: 1h, retry: {max_attempts: 5, delay: 1ms}}\n";
    let id = client.start(yaml).await;
    let task = agent.task().await;
    assert!(task.await_proceed);
    agent.say(raw::accepted(&task)).await;
    let next = agent.next().await;
    assert!(matches!(next, Some(Told::Proceed(_))), "{next:?}");
    let started = client.event(&id, EventKind::TaskStarted, "pay").await;
    assert_eq!(started.step, "pay", "that it begins is durable before it may begin");
    drop(agent);
    let mut other = RawAgent::connect(&world.shared.server, raw::register("bank", "b-2", 1)).await;
    // It has room for the task all the time until the lease ends, and is not given it.
    let waiting = async {
        loop {
            if let Some(Told::Assign(assign)) = other.next().await {
                panic!("a payment is never begun twice: {assign:?}");
            }
        }
    };
    let run = tokio::select! {
        run = client.ended(&id) => run,
        () = waiting => unreachable!(),
    };
    assert_eq!((run.status(), run.failed_step.as_str()), (RunStatus::Failure, "pay"));
    let get = v1::GetDeadLetterRequest { dead_letter_id: format!("{id}/pay") };
    let letter = client.letters.clone().get_dead_letter(get).await.unwrap().into_inner();
    let letter = letter.dead_letter.unwrap();
    assert_eq!((letter.error_code.as_str(), letter.attempts), ("lost", 1), "{letter:?}");
}

async fn failures_are_retried_held_and_handled(world: &World) {
    let client = &world.client;
    let yaml = "name: f\nerror_handling:\n  retry: {max_attempts: 3, delay: 1ms}\n  on_failure:\n    \
        - {id: tell, agent: echo, action: echo, \
           params: {step: '${{ failure.step }}', error: '${{ failure.error }}'}}\nsteps:\n  \
        - {id: third, agent: echo, action: fail, params: {succeed_after: 3}}\n  \
        - {id: held, agent: echo, action: fail, continue_on_error: true, \
           params: {kind: permanent, message: held}}\n  \
        - {id: last, agent: echo, action: fail, params: {message: boom}}\n  \
        - {id: never, agent: echo, action: echo}\n";
    let id = client.start(yaml).await;
    let run = client.ended(&id).await;
    assert_eq!((run.status(), run.failed_step.as_str()), (RunStatus::Failure, "last"));
    let steps = client.steps(&id).await;
    let told: Vec<(&str, &str, i32)> = steps
        .iter()
        .map(|step| (step.step_id.as_str(), step.status.as_str(), step.attempts))
        .collect();
    assert_eq!(
        told,
        [
            ("third", "success", 3),
            ("held", "failure", 1),
            ("last", "failure", 3),
            ("never", "skipped", 0),
            ("on_failure.tell", "success", 1),
        ]
    );
    let tell = text(steps[4].output.as_ref());
    assert_eq!(tell, r#"{"step":"last","error":"boom"}"#);
    assert_eq!(run.metrics.unwrap().total_steps, 4, "steps of `on_failure` are not counted");
}
