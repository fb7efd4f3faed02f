//! What is removed, and what is not.

use std::time::Duration;

use contracts::v1;
use control_plane::retention::{Keep, look};

use crate::support::{ended, reason, server, start, started};

const SHORT: &str = "name: short\nsteps:\n  - wait: 1ms\n";
const LONG: &str = "name: long\nsteps:\n  - wait: 1h\n";

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
    let runs = &server.control_plane.core().runs;
    let (store, clock) = (&**runs.store(), &**runs.clock());
    let year = Duration::from_secs(365 * 24 * 3600);
    let removed = look(store, clock, Keep { age: year, count: 3 }).await.unwrap();
    assert_eq!(removed.runs, 0);
    let removed = look(store, clock, Keep { age: year, count: 1 }).await.unwrap();
    assert_eq!(removed.runs, 2);
    let left = |list: v1::ListRunsResponse| -> Vec<String> {
        list.runs.into_iter().map(|run| run.run_id).collect()
    };
    let mut client = server.orchestrator();
    let list = client.list_runs(v1::ListRunsRequest::default()).await.unwrap().into_inner();
    assert_eq!(left(list), [goes_on.clone(), ids[2].clone()], "the newest is kept");
    let removed = look(store, clock, Keep { age: Duration::ZERO, count: 10 }).await.unwrap();
    assert_eq!(removed.runs, 1);
    let list = client.list_runs(v1::ListRunsRequest::default()).await.unwrap().into_inner();
    assert_eq!(left(list), [goes_on]);
    let watch = v1::WatchRunRequest { run_id: ids[2].clone(), after_sequence: 0 };
    assert_eq!(reason(&client.watch_run(watch).await.unwrap_err()), "RUN_NOT_FOUND");
}
