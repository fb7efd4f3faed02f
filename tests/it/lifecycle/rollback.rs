//! Ended runs are rolled back, resumed and forked; what cannot be undone waits for a person.

use contracts::v1::recovery_service_client::RecoveryServiceClient;
use contracts::v1::{self, RollbackStatus, RunStatus, UndoDecision, UndoStatus};
use tonic::transport::Channel;

use super::{World, on_both_stores};
use crate::support::client::{json, reason};

on_both_stores!(
    a_run_is_rolled_back_to_a_checkpoint_and_resumed_with_other_params,
    what_cannot_be_undone_waits_for_a_person,
    a_failure_that_was_begun_is_undone_too,
    a_run_is_forked_from_a_checkpoint,
    what_a_child_run_did_is_undone_with_its_parent,
    wrong_requests_are_refused_and_change_nothing,
);

fn recovery(world: &World) -> RecoveryServiceClient<Channel> {
    world.client.recovery.clone()
}

/// Appends three lines, behind the first a checkpoint.
fn appends(file: &std::path::Path) -> String {
    let mut yaml = "name: lines\nparams:\n  last: {type: string, default: l3}\nsteps:\n".to_owned();
    for (id, line, more) in
        [("a", "l1", ", checkpoint: one"), ("b", "l2", ""), ("c", "${{ params.last }}", "")]
    {
        yaml.push_str(&format!(
            "  - {{id: {id}, agent: echo, action: append{more}, params: {{file: {}, line: '{line}'}}}}\n",
            file.display()
        ));
    }
    yaml
}

async fn plan(world: &World, run_id: &str, checkpoint: Option<&str>) -> v1::Rollback {
    let target = checkpoint.map(|name| v1::RollbackTarget {
        target: Some(v1::rollback_target::Target::Checkpoint(name.to_owned())),
    });
    let request = v1::PlanRollbackRequest {
        run_id: run_id.to_owned(),
        target,
        request_id: format!("plan-{run_id}-{checkpoint:?}"),
        ..Default::default()
    };
    let first = recovery(world).plan_rollback(request.clone()).await.unwrap().into_inner();
    let again = recovery(world).plan_rollback(request).await.unwrap().into_inner();
    assert_eq!(first, again, "a repetition plans nothing new");
    first.rollback.unwrap()
}

async fn execute(world: &World, run_id: &str, number: i32) -> v1::Rollback {
    let request =
        v1::ExecuteRollbackRequest { run_id: run_id.to_owned(), number, ..Default::default() };
    recovery(world).execute_rollback(request).await.unwrap();
    watched(world, run_id).await
}

/// The rollback once it is over or needs a person.
async fn watched(world: &World, run_id: &str) -> v1::Rollback {
    let request = v1::WatchRollbackRequest { run_id: run_id.to_owned() };
    let mut stream = recovery(world).watch_rollback(request).await.unwrap().into_inner();
    let mut last = v1::Rollback::default();
    while let Some(item) = stream.message().await.unwrap() {
        last = item.rollback.unwrap();
        if last.status() == RollbackStatus::Stuck {
            break;
        }
    }
    last
}

fn failed(message: &str) -> v1::task_result::Outcome {
    let failure = v1::TaskFailure { message: message.to_owned(), ..Default::default() };
    v1::task_result::Outcome::Failure(failure)
}

fn read(file: &std::path::Path) -> String {
    std::fs::read_to_string(file).unwrap_or_default()
}

async fn a_run_is_rolled_back_to_a_checkpoint_and_resumed_with_other_params(world: &World) {
    let client = &world.client;
    let file = world.shared.folder.path().join("back.txt");
    let id = client.start(&appends(&file)).await;
    client.ends_well(&id).await;
    assert_eq!(read(&file), "l1\nl2\nl3\n");
    let list = v1::ListCheckpointsRequest { run_id: id.clone(), ..Default::default() };
    let list = recovery(world).list_checkpoints(list).await.unwrap().into_inner();
    let names: Vec<&str> = list.checkpoints.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["start", "one"]);
    let get = v1::GetCheckpointRequest { run_id: id.clone(), checkpoint: "one".to_owned() };
    let one = recovery(world).get_checkpoint(get).await.unwrap().into_inner().checkpoint.unwrap();
    assert_eq!(one.settled_steps.len(), 1);
    assert_eq!(one.settled_steps[0].step, "a");
    assert_eq!(one.content_hash, list.checkpoints[1].content_hash);
    let one_of_list = list.checkpoints[1].clone();

    let planned = plan(world, &id, Some("one")).await;
    let steps: Vec<&str> = planned.undos.iter().map(|undo| undo.step.as_str()).collect();
    assert_eq!((steps, planned.status()), (vec!["c", "b"], RollbackStatus::Planned));
    let done = execute(world, &id, planned.number).await;
    assert_eq!(done.status(), RollbackStatus::Succeeded, "{done:?}");
    assert_eq!(read(&file), "l1\n");
    assert_eq!(client.run(&id).await.status(), RunStatus::RolledBack);

    let before = client.run(&id).await.version_sequence;
    let params = json(r#"{"last":"other"}"#);
    let resume =
        v1::RecoveryServiceResumeRunRequest { run_id: id.clone(), params, ..Default::default() };
    recovery(world).resume_run(resume).await.unwrap();
    let (_, run) = client.events(&id, before).await;
    assert_eq!(run.status(), RunStatus::Success, "{}", run.error);
    assert_eq!(read(&file), "l1\nl2\nother\n", "each once, the first not again");
    let list = v1::ListCheckpointsRequest { run_id: id.clone(), ..Default::default() };
    let after = recovery(world).list_checkpoints(list).await.unwrap().into_inner();
    assert_eq!(after.checkpoints[1], one_of_list, "it is what it was");
    let get = v1::GetRollbackRequest { run_id: id.clone(), number: planned.number };
    let known = recovery(world).get_rollback(get).await.unwrap().into_inner().rollback.unwrap();
    assert_eq!(known, done, "what the run has gone on from is known still");
}

async fn what_cannot_be_undone_waits_for_a_person(world: &World) {
    let client = &world.client;
    let file = world.shared.folder.path().join("stuck.txt");
    let yaml = format!(
        "name: stuck\nerror_handling: {{rollback: to_start}}\nsteps:\n  \
         - {{id: a, agent: echo, action: append, params: {{file: {0}, line: l1}}}}\n  \
         - {{id: b, agent: echo, action: append, params: {{file: {0}, line: l2}}, \
             compensate: {{action: fail, params: {{message: no, kind: permanent}}}}}}\n  \
         - {{id: f, agent: echo, action: fail, params: {{message: boom}}}}\n",
        file.display()
    );
    let id = client.start(&yaml).await;
    client.event(&id, v1::EventKind::UndoFailed, "b").await;
    let stuck = watched(world, &id).await;
    assert_eq!(stuck.status(), RollbackStatus::Stuck, "{stuck:?}");
    assert_eq!(client.run(&id).await.status(), RunStatus::Stuck);
    assert_eq!(read(&file), "l1\nl2\n", "what stands before it waits for it");
    let decide = |decision: UndoDecision, comment: &str| v1::DecideUndoRequest {
        run_id: id.clone(),
        step: "b".to_owned(),
        decision: decision.into(),
        comment: comment.to_owned(),
        ..Default::default()
    };
    let refused = recovery(world).decide_undo(decide(UndoDecision::Skip, " ")).await.unwrap_err();
    assert_eq!(reason(&refused), "INVALID_FIELD");
    recovery(world).decide_undo(decide(UndoDecision::Skip, "it may stay")).await.unwrap();
    let over = watched(world, &id).await;
    assert_eq!(over.status(), RollbackStatus::Incomplete);
    let b = over.undos.iter().find(|undo| undo.step == "b").unwrap();
    assert_eq!((b.status(), b.comment.as_str()), (UndoStatus::Skipped, "it may stay"));
    assert_eq!(client.ended(&id).await.status(), RunStatus::Failure, "not all is undone");
    let again = recovery(world).decide_undo(decide(UndoDecision::Done, "")).await.unwrap_err();
    assert_eq!(reason(&again), "ROLLBACK_STATE");
}

async fn a_failure_that_was_begun_is_undone_too(world: &World) {
    use crate::support::raw::{self, RawAgent};
    let client = &world.client;
    let mut register = raw::register("half", "h-1", 4);
    let card = register.card.get_or_insert_default();
    card.actions = vec![
        v1::ActionCard {
            name: "work".into(),
            undo: Some(v1::Undo {
                way: Some(v1::undo::Way::Action("unwork".into())),
                needs_output: false,
            }),
            ..Default::default()
        },
        v1::ActionCard { name: "unwork".into(), ..Default::default() },
    ];
    let mut agent = RawAgent::connect(&world.shared.server, register).await;
    let yaml = "name: half\nerror_handling: {rollback: to_start}\nsteps:\n  \
                - {id: a, agent: half, action: work, params: {n: 1}}\n";
    let id = client.start(yaml).await;
    let task = agent.task().await;
    agent.say(raw::accepted(&task)).await;
    agent.say(raw::results(task.r#ref.clone(), failed("it broke in the middle"))).await;
    agent.ack().await;
    let undo = agent.task().await;
    assert!(undo.is_undo && undo.action == "unwork", "{undo:?}");
    assert_eq!(undo.idempotency_key, task.idempotency_key);
    agent.say(raw::accepted(&undo)).await;
    agent.say(raw::success(&undo, "{}")).await;
    assert_eq!(client.ended(&id).await.status(), RunStatus::RolledBack);
    let request = v1::GetRollbackRequest { run_id: id, number: 0 };
    let rollback = recovery(world).get_rollback(request).await.unwrap().into_inner();
    assert!(rollback.rollback.unwrap().undos[0].possibly_done);
}

async fn a_run_is_forked_from_a_checkpoint(world: &World) {
    let client = &world.client;
    let file = world.shared.folder.path().join("fork.txt");
    let id = client.start(&appends(&file)).await;
    client.ends_well(&id).await;
    let request = v1::ForkRunRequest {
        run_id: id.clone(),
        checkpoint: "one".to_owned(),
        request_id: format!("fork-{id}"),
        ..Default::default()
    };
    let fork = recovery(world).fork_run(request.clone()).await.unwrap().into_inner().run.unwrap();
    let same = recovery(world).fork_run(request).await.unwrap().into_inner().run.unwrap();
    assert_eq!(fork.run_id, same.run_id);
    client.ends_well(&fork.run_id).await;
    assert_eq!(read(&file), "l1\nl2\nl3\nl2\nl3\n");
    assert_eq!(fork.labels["forked_from"], id);
    let planned = plan(world, &fork.run_id, None).await;
    let steps: Vec<&str> = planned.undos.iter().map(|undo| undo.step.as_str()).collect();
    assert_eq!(steps, ["c", "b"], "what the other run did is the other run's");
    execute(world, &fork.run_id, planned.number).await;
    assert_eq!(client.run(&id).await.status(), RunStatus::Success);
}

async fn what_a_child_run_did_is_undone_with_its_parent(world: &World) {
    let client = &world.client;
    let file = world.shared.folder.path().join("child.txt");
    let append = |id: &str, line: &str| {
        format!(
            "  - {{id: {id}, agent: echo, action: append, params: {{file: {}, line: {line}}}}}\n",
            file.display()
        )
    };
    let name = format!("child-of-{:?}", file.parent().unwrap().file_name().unwrap());
    let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    let child = format!("name: {name}\nsteps:\n{}", append("inner", "in"));
    let definition =
        v1::Definition { yaml: child, file: "child.yml".to_owned(), ..Default::default() };
    let register =
        v1::RegisterWorkflowRequest { definition: Some(definition), ..Default::default() };
    client.runs.clone().register_workflow(register).await.unwrap();
    let yaml = format!(
        "name: above\nerror_handling: {{rollback: to_start}}\nsteps:\n{}  \
         - {{id: sub, workflow: {name}}}\n  \
         - {{id: f, agent: echo, action: fail, params: {{message: boom}}}}\n",
        append("outer", "out")
    );
    let id = client.start(&yaml).await;
    assert_eq!(client.ended(&id).await.status(), RunStatus::RolledBack);
    assert_eq!(read(&file), "");
    let rollback = watched(world, &id).await;
    let sub = rollback.undos.iter().find(|undo| undo.step == "sub").unwrap();
    assert_eq!(client.run(&sub.child_run_id).await.status(), RunStatus::RolledBack);
}

async fn wrong_requests_are_refused_and_change_nothing(world: &World) {
    let client = &world.client;
    let waiting = client.start("name: w\nsteps:\n  - {id: w, wait_for: never}\n").await;
    let request = v1::PlanRollbackRequest { run_id: waiting.clone(), ..Default::default() };
    let status = recovery(world).plan_rollback(request.clone()).await.unwrap_err();
    assert_eq!(reason(&status), "RUN_NOT_ENDED");
    let dry = v1::PlanRollbackRequest { validate_only: true, ..request };
    let status = recovery(world).plan_rollback(dry).await.unwrap_err();
    assert_eq!(reason(&status), "RUN_NOT_ENDED");
    let fork = v1::ForkRunRequest {
        run_id: waiting,
        checkpoint: "nowhere".to_owned(),
        ..Default::default()
    };
    let status = recovery(world).fork_run(fork).await.unwrap_err();
    assert_eq!(reason(&status), "CHECKPOINT_NOT_FOUND");

    let file = world.shared.folder.path().join("wrong.txt");
    let id = client.start(&appends(&file)).await;
    let before = client.ended(&id).await.version_sequence;
    let target = Some(v1::RollbackTarget {
        target: Some(v1::rollback_target::Target::BeforeStep("nothing".to_owned())),
    });
    let request = v1::PlanRollbackRequest { run_id: id.clone(), target, ..Default::default() };
    let status = recovery(world).plan_rollback(request).await.unwrap_err();
    assert_eq!(reason(&status), "STEP_NOT_FOUND");
    let target = Some(v1::RollbackTarget {
        target: Some(v1::rollback_target::Target::Checkpoint("of-another-run".to_owned())),
    });
    let request = v1::PlanRollbackRequest { run_id: id.clone(), target, ..Default::default() };
    let status = recovery(world).plan_rollback(request).await.unwrap_err();
    assert_eq!(reason(&status), "CHECKPOINT_NOT_FOUND");
    let get = v1::GetRollbackRequest { run_id: id.clone(), number: 0 };
    assert_eq!(reason(&recovery(world).get_rollback(get).await.unwrap_err()), "ROLLBACK_NOT_FOUND");
    assert_eq!(client.run(&id).await.version_sequence, before, "nothing changed");

    let request =
        v1::PlanRollbackRequest { run_id: id.clone(), needs_approval: true, ..Default::default() };
    recovery(world).plan_rollback(request.clone()).await.unwrap();
    let status = recovery(world).plan_rollback(request).await.unwrap_err();
    assert_eq!(reason(&status), "ROLLBACK_OPEN");
    let run = v1::ExecuteRollbackRequest { run_id: id.clone(), number: 1, ..Default::default() };
    let status = recovery(world).execute_rollback(run.clone()).await.unwrap_err();
    assert_eq!(reason(&status), "ROLLBACK_STATE");
    let resume = v1::RecoveryServiceResumeRunRequest { run_id: id.clone(), ..Default::default() };
    assert_eq!(reason(&recovery(world).resume_run(resume).await.unwrap_err()), "RUN_ENDED");
    let approve = v1::ApproveRollbackRequest {
        run_id: id.clone(),
        number: 1,
        approve: true,
        comment: "seen".to_owned(),
        ..Default::default()
    };
    recovery(world).approve_rollback(approve).await.unwrap();
    recovery(world).execute_rollback(run).await.unwrap();
    assert_eq!(watched(world, &id).await.approved_by, "anonymous");
    assert_eq!(read(&file), "");
}
