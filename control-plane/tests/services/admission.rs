//! Back-pressure: more starts than the server can carry are refused in good form, and nothing
//! that was accepted suffers from it.

use contracts::v1;
use control_plane::testing::TestServer;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::support::{DEADLINE, echo, ended, reason, start, until};

const ASKS: &str = "name: asks\nsteps:\n  - approve: {message: Well?}\n";
const ECHOES: &str = "name: echoes\nsteps:\n  - {agent: echo, action: echo, params: {a: 1}}\n";
const RUNS_MAX: usize = 4;

async fn small() -> TestServer {
    control_plane::server::install_metrics();
    TestServer::start_with(|config| config.max_active_runs = RUNS_MAX).await.unwrap()
}

fn with_id(yaml: &str, id: &str) -> v1::StartRunRequest {
    v1::StartRunRequest { request_id: id.to_owned(), ..start(yaml) }
}

async fn try_start(server: &TestServer, request: v1::StartRunRequest) -> Result<String, Status> {
    let response = server.orchestrator().start_run(request).await?.into_inner();
    Ok(response.run.unwrap().run_id)
}

fn assert_refused(status: &Status) {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert_eq!(reason(status), "OVERLOADED");
    let details = status.get_error_details();
    assert!(details.retry_info().unwrap().retry_delay.is_some());
    assert_eq!(details.quota_failure().unwrap().violations[0].subject, "active_runs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_refuses_starts_and_still_serves_the_runs_that_there_are() {
    // Nobody takes the tasks, so that the runs stay under way.
    let server = small().await;
    let mut accepted = Vec::new();
    for number in 0..RUNS_MAX {
        let request = with_id(ECHOES, &format!("r{number}"));
        accepted.push(try_start(&server, request).await.unwrap());
    }
    let refused = try_start(&server, with_id(ECHOES, "late")).await.unwrap_err();
    assert_refused(&refused);
    // A repetition starts nothing.
    assert_eq!(try_start(&server, with_id(ECHOES, "r0")).await.unwrap(), accepted[0]);
    let checked = v1::StartRunRequest { validate_only: true, ..start(ECHOES) };
    assert!(try_start(&server, checked).await.is_ok(), "a check starts nothing");

    let cancel = v1::CancelRunRequest { run_id: accepted[0].clone(), ..Default::default() };
    server.orchestrator().cancel_run(cancel).await.unwrap();
    assert_eq!(ended(&server, &accepted[0], 0).await.1.status(), v1::RunStatus::Cancelled);
    until("there is room again", async || {
        try_start(&server, with_id(ECHOES, "late")).await.is_ok()
    })
    .await;
}

/// They cost nothing but their rows, and so stand in nobody's way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_that_only_wait_make_room_for_others() {
    let change = |config: &mut control_plane::config::Config| {
        config.max_active_runs = RUNS_MAX;
        config.park_after = DEADLINE * 100;
    };
    let server = TestServer::start_with(change).await.unwrap();
    for number in 0..3 * RUNS_MAX {
        let request = with_id(ASKS, &format!("a{number}"));
        until("the start is accepted", async || try_start(&server, request.clone()).await.is_ok())
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_storm_of_starts_some_are_refused_and_all_accepted_end() {
    const STORM: usize = 64;
    let server = small().await;
    let _echo = echo(&server).await;
    let storm = (0..STORM).map(|number| {
        let request = with_id(ECHOES, &format!("s{number}"));
        let server = &server;
        async move {
            let mut refusals = 0;
            loop {
                match try_start(server, request.clone()).await {
                    Ok(run) => return (run, refusals),
                    Err(status) => {
                        assert_refused(&status);
                        refusals += 1;
                        tokio::task::yield_now().await;
                    }
                }
            }
        }
    });
    let started = futures::future::join_all(storm).await;
    assert!(started.iter().any(|(_, refusals)| *refusals > 0), "the bound was never met");
    let mut runs: Vec<&str> = started.iter().map(|(run, _)| run.as_str()).collect();
    runs.sort_unstable();
    runs.dedup();
    assert_eq!(runs.len(), STORM, "each start has a run of its own");
    for run in runs {
        assert_eq!(ended(&server, run, 0).await.1.status(), v1::RunStatus::Success);
    }
    let listed = server.orchestrator().list_runs(v1::ListRunsRequest::default()).await.unwrap();
    assert_eq!(listed.into_inner().runs.len(), STORM, "nothing was started for a refusal");
}
