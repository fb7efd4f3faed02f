//! Recovery plans: made, edited, approved, executed; and how far they are.

use contracts::v1::create_recovery_plan_request::Source;
use contracts::v1::recovery_service_client::RecoveryServiceClient;
use contracts::v1::triage_service_client::TriageServiceClient;
use contracts::v1::watch_progress_request::Of;
use contracts::v1::{self, IssueStatus, PlanStatus, RunStatus, UndoKind};
use tonic::transport::Channel;

use super::{World, on_both_stores};
use crate::support::client::{fields, reason};
use crate::support::until;

on_both_stores!(
    a_plan_is_edited_approved_and_executed_once,
    issues_are_triaged_planned_and_mended,
    a_failing_branch_is_undone_and_the_rest_is_mended,
    a_rollback_is_told_until_its_last_undo,
    progress_goes_on_behind_the_last_report_seen,
    wrong_plans_are_refused_with_their_place_and_change_nothing,
    what_cannot_be_undone_is_done_only_where_the_plan_allows_it,
    idle_and_missing_agents_are_told,
);

fn recovery(world: &World) -> RecoveryServiceClient<Channel> {
    world.client.recovery.clone()
}

/// Appends a line for each issue, as (id, what it waits for).
fn mends(file: &std::path::Path, issues: &[(&str, &str)]) -> String {
    let mut text =
        "name: mend\nerror_handling: {scope: branch, rollback: to_start}\nsteps:\n".to_owned();
    for (id, on) in issues {
        let file = file.display();
        text.push_str(&format!(
            "  - {{id: {id}, agent: echo, action: append, params: {{file: {file}, line: {id}}}, \
             depends_on: [{on}], checkpoint: after-{id}}}\n"
        ));
    }
    text
}

async fn create(world: &World, text: &str, request_id: &str) -> v1::RecoveryPlan {
    let definition = v1::Definition { yaml: text.to_owned(), ..Default::default() };
    let request = v1::CreateRecoveryPlanRequest {
        source: Some(Source::Definition(definition)),
        request_id: request_id.to_owned(),
        ..Default::default()
    };
    let made = recovery(world).create_recovery_plan(request).await.unwrap().into_inner();
    made.plan.unwrap()
}

async fn get(world: &World, plan_id: &str) -> v1::RecoveryPlan {
    let request = v1::GetRecoveryPlanRequest { plan_id: plan_id.to_owned() };
    recovery(world).get_recovery_plan(request).await.unwrap().into_inner().plan.unwrap()
}

/// Waits until it is written how a plan ended.
async fn closed(world: &World, plan_id: &str) -> v1::RecoveryPlan {
    until("the plan is closed", async || get(world, plan_id).await.end_time.is_some()).await;
    get(world, plan_id).await
}

async fn approve(world: &World, plan: &v1::RecoveryPlan) -> v1::RecoveryPlan {
    let request = v1::ApproveRecoveryPlanRequest {
        plan_id: plan.plan_id.clone(),
        etag: plan.etag.clone(),
        comment: "seen".to_owned(),
        request_id: String::new(),
    };
    recovery(world).approve_recovery_plan(request).await.unwrap().into_inner().plan.unwrap()
}

fn execution(plan: &v1::RecoveryPlan, request_id: &str) -> v1::ExecuteRecoveryRequest {
    v1::ExecuteRecoveryRequest {
        plan_id: plan.plan_id.clone(),
        request_id: request_id.to_owned(),
        ..Default::default()
    }
}

/// Approves and executes a plan; gives the run's id.
async fn execute(world: &World, text: &str) -> (v1::RecoveryPlan, String) {
    let plan = create(world, text, "").await;
    approve(world, &plan).await;
    let done = recovery(world).execute_recovery(execution(&plan, "")).await.unwrap().into_inner();
    (plan, done.run.unwrap().run_id)
}

/// All reports behind a sequence.
async fn reports(world: &World, of: Of, after_sequence: i64) -> Vec<v1::ProgressReport> {
    let request = v1::WatchProgressRequest { of: Some(of), after_sequence, once: false };
    let watching = async {
        let mut stream = recovery(world).watch_progress(request).await.unwrap().into_inner();
        let mut reports = Vec::new();
        while let Some(item) = stream.message().await.unwrap() {
            reports.push(item.report.unwrap());
        }
        reports
    };
    tokio::time::timeout(crate::support::DEADLINE, watching).await.expect("it ends in time")
}

async fn issues_are_triaged_planned_and_mended(world: &World) {
    use crate::support::raw::{self, RawAgent};
    let mut register = raw::register("cooler", "c-1", 4);
    let card = register.card.get_or_insert_default();
    card.description = "Cares for chillers: compressors, coolant, fans.".to_owned();
    card.actions[0].handles = Some(v1::Handles {
        components: vec!["chiller".to_owned()],
        keywords: vec!["compressor".to_owned(), "coolant".to_owned()],
        ..Default::default()
    });
    card.actions[0].undo =
        Some(v1::Undo { way: Some(v1::undo::Way::Action("more".to_owned())), needs_output: false });
    let mut agent = RawAgent::connect(&world.shared.server, register).await;
    let issue = |id: &str, on: &[&str]| v1::Issue {
        issue_id: id.to_owned(),
        title: format!("Compressor {id} runs without coolant"),
        component: "chiller".to_owned(),
        severity: v1::IssueSeverity::High.into(),
        depends_on: on.iter().map(ToString::to_string).collect(),
        ..Default::default()
    };
    let request = v1::TriageIssuesRequest {
        issues: vec![issue("second", &["first"]), issue("first", &[])],
        ..Default::default()
    };
    let mut triages = TriageServiceClient::new(world.shared.server.channel().await);
    let triage = triages.triage_issues(request).await.unwrap().into_inner().triage.unwrap();
    assert!(triage.assignments.iter().all(|it| it.agent_type == "cooler"), "{triage:?}");
    let request = v1::CreateRecoveryPlanRequest {
        source: Some(Source::TriageId(triage.triage_id.clone())),
        ..Default::default()
    };
    let made = recovery(world).create_recovery_plan(request).await.unwrap().into_inner();
    let plan = made.plan.unwrap();
    approve(world, &plan).await;
    let done = recovery(world).execute_recovery(execution(&plan, "")).await.unwrap().into_inner();
    for _ in 0..2 {
        let task = agent.task().await;
        assert_eq!(task.action, "work");
        agent.say(raw::accepted(&task)).await;
        agent.finish(&task, "{}").await;
    }
    let run = world.client.ended(&done.run.unwrap().run_id).await;
    assert_eq!(run.status(), RunStatus::Success, "{}", run.error);
    let plan = closed(world, &plan.plan_id).await;
    for issue in &plan.issues {
        assert_eq!((issue.status(), &*issue.mended_by), (IssueStatus::Resolved, "cooler"));
        assert!(issue.took.is_some(), "{issue:?}");
    }
    // How long it took is known from now on.
    let minutes = triage.assignments[0].estimated_duration.unwrap().seconds;
    assert_eq!(minutes, 300, "nothing was known before");
    until("it is learned from", async || {
        let issues = vec![issue("third", &[])];
        let request = v1::TriageIssuesRequest { issues, ..Default::default() };
        let mut triages = TriageServiceClient::new(world.shared.server.channel().await);
        let triage = triages.triage_issues(request).await.unwrap().into_inner().triage.unwrap();
        triage.assignments[0].estimated_duration.unwrap().seconds < minutes
    })
    .await;
    let unknown = v1::CreateRecoveryPlanRequest {
        source: Some(Source::TriageId("nothing".to_owned())),
        ..Default::default()
    };
    let status = recovery(world).create_recovery_plan(unknown).await.unwrap_err();
    assert_eq!(reason(&status), "TRIAGE_NOT_FOUND");
}

async fn a_plan_is_edited_approved_and_executed_once(world: &World) {
    let file = world.shared.folder.path().join("plan.txt");
    let request_id = format!("create-{}", file.display());
    let plan = create(world, &mends(&file, &[("a", ""), ("b", "a")]), &request_id).await;
    let again = create(world, &mends(&file, &[("a", ""), ("b", "a")]), &request_id).await;
    assert_eq!(plan, again, "a repetition makes no second plan");
    assert_eq!(plan.status(), PlanStatus::Draft);
    let issues: Vec<&str> = plan.issues.iter().map(|issue| &*issue.issue_id).collect();
    assert_eq!(issues, ["a", "b"]);

    let status = recovery(world).execute_recovery(execution(&plan, "")).await.unwrap_err();
    assert_eq!(reason(&status), "PLAN_STATE", "it is not approved");
    assert_eq!(approve(world, &plan).await.status(), PlanStatus::Approved);
    let edit = v1::EditRecoveryPlanRequest {
        plan_id: plan.plan_id.clone(),
        definition: mends(&file, &[("a", ""), ("b", "a"), ("c", "b")]),
        etag: plan.etag.clone(),
        ..Default::default()
    };
    let status = recovery(world).edit_recovery_plan(edit.clone()).await.unwrap_err();
    assert_eq!(reason(&status), "ETAG_MISMATCH", "it was approved since");
    let edit = v1::EditRecoveryPlanRequest { etag: String::new(), ..edit };
    let edited = recovery(world).edit_recovery_plan(edit).await.unwrap().into_inner();
    let edited = edited.plan.unwrap();
    assert_eq!(edited.status(), PlanStatus::Draft, "what was approved is another text");
    approve(world, &edited).await;

    let dry = v1::ExecuteRecoveryRequest { validate_only: true, ..execution(&plan, "") };
    let would = recovery(world).execute_recovery(dry).await.unwrap().into_inner();
    let undone: Vec<UndoKind> = would.changes.iter().map(|change| change.undo_kind()).collect();
    assert_eq!(undone, [UndoKind::Action; 3], "{:?}", would.changes);
    assert!(would.run.is_none() && !file.exists());

    let request_id = format!("execute-{}", plan.plan_id);
    let first = recovery(world).execute_recovery(execution(&plan, &request_id)).await.unwrap();
    let run = first.into_inner().run.unwrap();
    let again = recovery(world).execute_recovery(execution(&plan, &request_id)).await.unwrap();
    assert_eq!(again.into_inner().run.unwrap().run_id, run.run_id);
    let status = recovery(world).execute_recovery(execution(&plan, "")).await.unwrap_err();
    assert_eq!(reason(&status), "PLAN_STATE", "a plan is executed once");
    world.client.ends_well(&run.run_id).await;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "a\nb\nc\n");
    let plan = get(world, &plan.plan_id).await;
    assert_eq!((plan.status(), &plan.run_id), (PlanStatus::Executed, &run.run_id));
    let list = v1::ListRecoveryPlansRequest { page_size: 1000, ..Default::default() };
    let listed = recovery(world).list_recovery_plans(list).await.unwrap().into_inner();
    assert!(listed.plans.iter().any(|listed| listed.plan_id == plan.plan_id));
}

async fn a_failing_branch_is_undone_and_the_rest_is_mended(world: &World) {
    let file = world.shared.folder.path().join("branch.txt");
    let mut text = mends(&file, &[("good", ""), ("bad", "")]);
    text.push_str(
        "  - {id: worse, agent: echo, action: fail, params: {kind: permanent}, \
         depends_on: [bad]}\n  - {id: never, agent: echo, action: echo, depends_on: [worse]}\n",
    );
    let (plan, run) = execute(world, &text).await;
    let reports = reports(world, Of::PlanId(plan.plan_id), 0).await;
    let last = reports.last().unwrap();
    assert_eq!((&*last.run_id, last.status()), (&*run, RunStatus::Failure));
    let standing = |issue: &str| {
        let found = last.issues.iter().find(|found| found.issue_id == issue).unwrap();
        found.status()
    };
    assert_eq!(standing("good"), IssueStatus::Resolved);
    assert!(matches!(standing("worse"), IssueStatus::Failed | IssueStatus::Undone));
    assert_eq!(standing("never"), IssueStatus::Skipped);
    assert_eq!(
        last.resolved,
        if standing("bad") == IssueStatus::Resolved {
            vec!["good".to_owned(), "bad".to_owned()]
        } else {
            vec!["good".to_owned()]
        }
    );
    assert!(last.remaining.is_empty());
    assert!((last.completion_percent - 100.0).abs() < 1e-9);
    let (before, phase) = (&reports[..reports.len() - 1], v1::RecoveryPhase::Over);
    assert!(before.iter().all(|report| report.completion_percent < 100.0), "{before:#?}");
    assert!(before.iter().all(|report| report.phase() != phase) && last.phase() == phase);
    assert_eq!((last.undos_done, last.undos_stuck), (last.undos, 0));
    assert!(last.overhead_percent.is_some() && last.wall_time.is_some());
    assert!(std::fs::read_to_string(&file).unwrap().contains("good\n"));
}

async fn a_rollback_is_told_until_its_last_undo(world: &World) {
    let file = world.shared.folder.path().join("undone.txt");
    let mut text = mends(&file, &[("a", ""), ("b", "a")]);
    text = text.replace("scope: branch, ", "");
    text.push_str(
        "  - {id: worse, agent: echo, action: fail, params: {kind: permanent}, depends_on: [b]}\n",
    );
    let (_, run) = execute(world, &text).await;
    let reports = reports(world, Of::RunId(run), 0).await;
    let (last, before) = reports.split_last().unwrap();
    assert_eq!((last.status(), last.phase()), (RunStatus::RolledBack, v1::RecoveryPhase::Over));
    assert_eq!((last.undos, last.undos_done, last.undos_stuck), (2, 2, 0), "{last:#?}");
    assert!(before.iter().all(|report| report.completion_percent < 100.0), "{before:#?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap_or_default(), "");
}

async fn progress_goes_on_behind_the_last_report_seen(world: &World) {
    let file = world.shared.folder.path().join("progress.txt");
    let (_, run) = execute(world, &mends(&file, &[("a", ""), ("b", "a"), ("c", "b")])).await;
    let all = reports(world, Of::RunId(run.clone()), 0).await;
    assert!(all.iter().map(|report| report.sequence).is_sorted());
    let end = all.last().unwrap();
    assert_eq!(end.status(), RunStatus::Success);
    assert_eq!(end.resolved, ["a", "b", "c"]);
    // The same again from the middle: only what is new, and the same end.
    let rest = reports(world, Of::RunId(run.clone()), end.sequence - 1).await;
    assert_eq!(rest.last(), Some(end));
    assert_eq!(reports(world, Of::RunId(run), end.sequence).await, []);
}

async fn wrong_plans_are_refused_with_their_place_and_change_nothing(world: &World) {
    let file = world.shared.folder.path().join("wrong-plan.txt");
    let plan = create(world, &mends(&file, &[("a", "")]), "").await;
    for (text, place) in [
        ("name: x\nsteps:\n  - {action: mend, agent: nobody}\n", "definition:3:27"),
        (
            "name: x\nsteps:\n  - {id: a, action: echo, depends_on: [b]}\n  \
             - {id: b, action: echo, depends_on: [a]}\n",
            "definition:3:5",
        ),
    ] {
        let edit = v1::EditRecoveryPlanRequest {
            plan_id: plan.plan_id.clone(),
            definition: text.to_owned(),
            ..Default::default()
        };
        let status = recovery(world).edit_recovery_plan(edit).await.unwrap_err();
        assert_eq!(reason(&status), "INVALID_DEFINITION");
        assert_eq!(fields(&status).first().map(String::as_str), Some(place), "{status:?}");
    }
    assert_eq!(get(world, &plan.plan_id).await, plan, "nothing changed");
    let missing = v1::GetRecoveryPlanRequest { plan_id: "nothing".to_owned() };
    let status = recovery(world).get_recovery_plan(missing).await.unwrap_err();
    assert_eq!(reason(&status), "PLAN_NOT_FOUND");
    let watch = v1::WatchProgressRequest {
        of: Some(Of::PlanId(plan.plan_id.clone())),
        ..Default::default()
    };
    let status = recovery(world).watch_progress(watch).await.unwrap_err();
    assert_eq!(reason(&status), "PLAN_STATE", "nothing carries it out");
}

async fn what_cannot_be_undone_is_done_only_where_the_plan_allows_it(world: &World) {
    let text = "name: x\nsteps:\n  - {id: a, agent: echo, action: remove_line}\n";
    let plan = create(world, text, "").await;
    let request = v1::ValidateRecoveryPlanRequest { plan_id: plan.plan_id.clone() };
    let checked = recovery(world).validate_recovery_plan(request).await.unwrap().into_inner();
    let kind = checked.changes.first().map(|change| change.undo_kind());
    assert_eq!(kind, Some(UndoKind::Impossible), "the test needs such an action");
    assert!(!checked.valid);
    approve(world, &plan).await;
    let status = recovery(world).execute_recovery(execution(&plan, "")).await.unwrap_err();
    assert_eq!(reason(&status), "PLAN_NOT_UNDOABLE");
    let edit = v1::EditRecoveryPlanRequest {
        plan_id: plan.plan_id.clone(),
        allow_not_undoable: Some(true),
        ..Default::default()
    };
    let edited = recovery(world).edit_recovery_plan(edit).await.unwrap().into_inner();
    approve(world, &edited.plan.unwrap()).await;
    let done = recovery(world).execute_recovery(execution(&plan, "")).await.unwrap().into_inner();
    let run = world.client.ended(&done.run.unwrap().run_id).await;
    assert_eq!(run.labels.get("plan"), Some(&plan.plan_id));
}

async fn idle_and_missing_agents_are_told(world: &World) {
    let request = v1::OptimizeResourcesRequest::default();
    let advised = recovery(world).optimize_resources(request).await.unwrap().into_inner();
    let echo = advised.loads.iter().find(|load| load.agent == "echo").unwrap();
    assert!(echo.slots > 0 && echo.busy_percent <= 100.0, "{echo:?}");
    let window = Some(prost_types::Duration { seconds: 7200, nanos: 0 });
    let request = v1::OptimizeResourcesRequest { window };
    let status = recovery(world).optimize_resources(request).await.unwrap_err();
    assert_eq!((reason(&status), fields(&status)), ("INVALID_FIELD".into(), vec!["window".into()]));
}

/// What the orchestrator may add to a recovery of fifty issues, in percent of its longest chain of
/// agent times.
const OVERHEAD_MAX: f64 = 10.0;
/// How busy agents must be while there is enough to do for all their slots, in percent.
const UTILISATION_MIN: f64 = 80.0;

/// A workflow of so many steps of 200 ms, in chains of this length next to each other.
fn sleeps(count: usize, chain: usize) -> String {
    let mut text =
        "name: sleeps\nerror_handling: {scope: branch, rollback: to_start}\nsteps:\n".to_owned();
    for n in 0..count {
        let on = if n % chain == 0 { String::new() } else { format!("i{}", n - 1) };
        text.push_str(&format!(
            "  - {{id: i{n}, agent: echo, action: sleep, params: {{duration: 200ms}}, \
             depends_on: [{on}]}}\n"
        ));
    }
    text
}

/// A measurement that fails when its goals are missed: what a recovery of fifty issues costs beyond
/// the agents' own work, and how busy agents were, both as progress reports have them from the
/// journal. In a release build on a quiet machine:
/// `cargo test --release --package contracts --test it fifty_issues -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, for a release build on a quiet machine"]
async fn what_a_recovery_of_fifty_issues_costs() {
    for kind in [super::Kind::Sqlite, super::Kind::Postgres] {
        let world = World::of(kind).await;
        let (_, run) = execute(&world, &sleeps(50, 5)).await;
        let last = reports(&world, Of::RunId(run), 0).await.pop().unwrap();
        assert_eq!((last.status(), last.resolved.len()), (RunStatus::Success, 50));
        let seconds = |span: Option<prost_types::Duration>| {
            std::time::Duration::try_from(span.unwrap()).unwrap().as_secs_f64()
        };
        let (wall, chain) = (seconds(last.wall_time), seconds(last.longest_chain));
        assert!(chain >= 5.0 * 0.2, "five steps of 200 ms stand in a chain: {chain:.3} s");
        let overhead = last.overhead_percent.unwrap();
        println!("{kind:?}: wall {wall:.3} s, chain {chain:.3} s, overhead {overhead:.2}%");
        assert!(overhead < OVERHEAD_MAX, "{overhead:.2}% of overhead");

        // More than the agent has slots for, so that there is enough to do.
        let (_, run) = execute(&world, &sleeps(300, 1)).await;
        let last = reports(&world, Of::RunId(run), 0).await.pop().unwrap();
        let used = last.utilisation_percent.unwrap();
        println!("{kind:?}: utilisation of 64 slots by 300 steps: {used:.1}%");
        assert!(used > UTILISATION_MIN, "{used:.1}% of utilisation");
    }
}
