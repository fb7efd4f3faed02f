//! What is removed, and what is not.

use std::time::Duration;

use contracts::v1::{self, start_run_request::Source};
use control_plane::retention::{self, Keep, Place, Removed};
use control_plane::testing::TestServer;

use crate::support::{definition, ended, reason, server, start, started, until};

const SHORT: &str = "name: short\nsteps:\n  - wait: 1ms\n";
const LONG: &str = "name: long\nsteps:\n  - wait: 1h\n";

async fn look(server: &TestServer, keep: Keep) -> Result<Removed, store::Error> {
    let runs = &server.control_plane.core().runs;
    retention::look(&**runs.store(), &**runs.clock(), keep, &mut Place::default()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finished_runs_go_by_count_and_age_and_others_stay() {
    let server = server().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let id = started(&server, start(SHORT)).await;
        ended(&server, &id, 0).await;
        ids.push(id);
    }
    let goes_on = started(&server, start(LONG)).await;
    let year = Duration::from_secs(365 * 24 * 3600);
    let removed = look(&server, Keep { age: year, count: 3 }).await.unwrap();
    assert_eq!(removed.runs, 0);
    let removed = look(&server, Keep { age: year, count: 1 }).await.unwrap();
    assert_eq!(removed.runs, 2);
    let left = |list: v1::ListRunsResponse| -> Vec<String> {
        list.runs.into_iter().map(|run| run.run_id).collect()
    };
    let mut client = server.orchestrator();
    let list = client.list_runs(v1::ListRunsRequest::default()).await.unwrap().into_inner();
    assert_eq!(left(list), [goes_on.clone(), ids[2].clone()], "the newest is kept");
    let removed = look(&server, Keep { age: Duration::ZERO, count: 10 }).await.unwrap();
    assert_eq!(removed.runs, 1);
    let list = client.list_runs(v1::ListRunsRequest::default()).await.unwrap().into_inner();
    assert_eq!(left(list), [goes_on]);
    let watch = v1::WatchRunRequest { run_id: ids[2].clone(), after_sequence: 0 };
    assert_eq!(reason(&client.watch_run(watch).await.unwrap_err()), "RUN_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn children_stay_with_their_root_and_go_with_it() {
    let server = server().await;
    let root = "name: root\nsteps:\n  - workflow: short\n  - wait_for: go\n";
    let mut definition = definition(root);
    definition.siblings = [("short".to_owned(), SHORT.to_owned())].into();
    let source = Some(Source::Definition(definition));
    let id = started(&server, v1::StartRunRequest { source, ..Default::default() }).await;
    let mut client = server.orchestrator();
    let filter = format!("parent_run_id={id}");
    let children = v1::ListRunsRequest { filter, ..Default::default() };
    until("the child has ended", async || {
        let found = client.list_runs(children.clone()).await.unwrap().into_inner().runs;
        found.first().is_some_and(|child| child.status() == v1::RunStatus::Success)
    })
    .await;
    let nothing = Keep { age: Duration::ZERO, count: 1_000 };
    assert_eq!(look(&server, nothing).await.unwrap().runs, 0);
    let go = v1::SignalRunRequest { run_id: id.clone(), signal: "go".into(), ..<_>::default() };
    client.signal_run(go).await.unwrap();
    ended(&server, &id, 0).await;
    assert_eq!(look(&server, nothing).await.unwrap().runs, 2);
    assert_eq!(client.list_runs(children).await.unwrap().into_inner().runs, []);
}
