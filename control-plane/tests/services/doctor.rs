//! How the deployment is, as `Diagnose` says it.

use contracts::v1::{self, CheckStatus};
use control_plane::testing::TestServer;

use crate::support::{echo, server, start, started, until};

const NOBODY: &str = "name: nobody\nsteps:\n  - {agent: nobody, action: nothing}\n";

async fn checks(server: &TestServer) -> Vec<v1::Check> {
    let request = v1::DiagnoseRequest {};
    server.orchestrator().diagnose(request).await.unwrap().into_inner().checks
}

async fn check(server: &TestServer, name: &str) -> v1::Check {
    let checks = checks(server).await;
    let found = checks.iter().find(|check| check.name == name);
    found.cloned().unwrap_or_else(|| panic!("no check `{name}`: {checks:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_well_says_so_of_everything() {
    let server = server().await;
    let _echo = echo(&server).await;
    let checks = checks(&server).await;
    let names: Vec<&str> = checks.iter().map(|check| check.name.as_str()).collect();
    let all = "database schema clock replicas runs agents waiting limits people disk";
    assert_eq!(names.join(" "), all);
    // How fast the database is and how full the disk is are the machine's.
    for check in checks.iter().filter(|it| it.name != "database" && it.name != "disk") {
        assert_eq!(check.status(), CheckStatus::Ok, "{check:?}");
        assert_eq!(check.remedy, "", "{check:?}");
    }
    assert!(checks[5].found.starts_with("1 connected"), "{:?}", checks[5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_that_are_missing_are_named_with_what_waits_for_them() {
    let server = server().await;
    for _ in 0..2 {
        started(&server, start(NOBODY)).await;
    }
    until("both tasks wait", async || {
        let agents = check(&server, "agents").await;
        agents.found.contains("2 tasks wait, for ")
    })
    .await;
    let agents = check(&server, "agents").await;
    assert_eq!(agents.status(), CheckStatus::Warning);
    assert!(agents.found.contains("`nobody`"), "{agents:?}");
    assert!(!agents.remedy.is_empty());
    let waiting = check(&server, "waiting").await;
    assert_eq!(waiting.status(), CheckStatus::Ok, "the server itself waits for nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bound_that_is_reached_is_a_failure_with_what_helps() {
    control_plane::server::install_metrics();
    let server = TestServer::start_with(|config| config.max_active_runs = 1).await.unwrap();
    started(&server, start(NOBODY)).await;
    let limits = check(&server, "limits").await;
    assert_eq!(limits.status(), CheckStatus::Failure, "{limits:?}");
    assert!(limits.found.contains("1 of at most 1 runs in memory"), "{limits:?}");
    assert!(limits.remedy.contains("max_active_runs"), "{limits:?}");
}
