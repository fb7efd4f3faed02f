//! Runs that start by the clock.

use contracts::v1;

use crate::support::{definition, server, until};

const EACH_SECOND: &str = "
name: tick
version: '1'
schedule: {cron: '* * * * * *', overlap: allow}
steps:
  - {id: w, wait: 1h}
";

fn register(yaml: &str) -> v1::RegisterWorkflowRequest {
    v1::RegisterWorkflowRequest { definition: Some(definition(yaml)), ..Default::default() }
}

async fn ticks(server: &control_plane::testing::TestServer) -> Vec<v1::Run> {
    let request = v1::ListRunsRequest {
        filter: "workflow=tick".into(),
        page_size: 1000,
        ..Default::default()
    };
    server.orchestrator().list_runs(request).await.unwrap().into_inner().runs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_instant_starts_one_run_over_a_restart_too() {
    let server = server().await;
    let registered = server.orchestrator().register_workflow(register(EACH_SECOND)).await.unwrap();
    let workflow = registered.into_inner().workflow.unwrap();
    assert_eq!(workflow.schedule, "* * * * * *");
    assert!(workflow.next_fire_time.is_some());
    until("two instants have come", async || ticks(&server).await.len() >= 2).await;
    let before = ticks(&server).await.len();
    let server = server.restart().await.unwrap();
    until("another has come", async || ticks(&server).await.len() > before).await;
    let runs = ticks(&server).await;
    let mut instants: Vec<&String> = runs.iter().map(|run| &run.labels["scheduled_for"]).collect();
    instants.sort_unstable();
    let count = instants.len();
    instants.dedup();
    assert_eq!(instants.len(), count, "no instant twice");
    assert!(runs.iter().all(|run| run.actor.starts_with("schedule:")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instant_is_passed_over_while_the_run_before_goes_on() {
    let server = server().await;
    let mut client = server.orchestrator();
    let skip = EACH_SECOND.replace("overlap: allow", "overlap: skip");
    client.register_workflow(register(&skip)).await.unwrap();
    until("the first has come", async || ticks(&server).await.len() == 1).await;
    let first = ticks(&server).await.remove(0);
    // Another workflow's instants show that time goes by.
    let other = EACH_SECOND.replace("name: tick", "name: tock");
    client.register_workflow(register(&other)).await.unwrap();
    until("other instants have come", async || {
        let request = v1::ListRunsRequest { filter: "workflow=tock".into(), ..Default::default() };
        let listed = server.orchestrator().list_runs(request).await.unwrap();
        listed.into_inner().runs.len() >= 2
    })
    .await;
    assert_eq!(ticks(&server).await.len(), 1);
    let cancel = v1::CancelRunRequest { run_id: first.run_id, ..Default::default() };
    client.cancel_run(cancel).await.unwrap();
    until("the next has come", async || ticks(&server).await.len() == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_without_a_schedule_ends_it() {
    let server = server().await;
    let mut client = server.orchestrator();
    client.register_workflow(register(EACH_SECOND)).await.unwrap();
    let second = "name: tick\nversion: '2'\nsteps:\n  - wait: 1h\n";
    client.register_workflow(register(second)).await.unwrap();
    let get = v1::GetWorkflowRequest { name: "tick".into(), version: "1".into() };
    let workflow = client.get_workflow(get).await.unwrap().into_inner().workflow.unwrap();
    assert_eq!(workflow.next_fire_time, None);
}
