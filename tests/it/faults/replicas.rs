//! Several servers on one PostgreSQL: one is killed, stopped for longer than its lease, or leaves.

use std::path::Path;

use store::testing::TestDatabase;
use tempfile::TempDir;

use super::load::Load;
use crate::support::{Process, Server, agent, orchestrator, until};

const RUNS: usize = 60;
/// Short, so that tests need not wait long.
const LEASE: &str = "replica_lease = '4s'\ngrace_after_adoption = '1s'\nlog = 'warn'\n";

/// Two servers, an agent that knows both, and runs of both under way.
struct World {
    load: Load,
    first: Server,
    second: Server,
    urls: Vec<String>,
    _agent: Process,
    folder: TempDir,
    _database: TestDatabase,
}

fn serve(folder: &Path, name: &str, database: &TestDatabase) -> Server {
    let config = folder.join("orchestrator.toml");
    std::fs::write(&config, LEASE).unwrap();
    let config = config.display().to_string();
    let more = ["--database-url", database.url(), "--config", &config];
    Server::start("serve", &folder.join(name), None, &more)
}

impl World {
    async fn start() -> Self {
        let database = store::testing::postgres().await;
        let folder = tempfile::tempdir().unwrap();
        let first = serve(folder.path(), "first", &database);
        let second = serve(folder.path(), "second", &database);
        let urls = vec![first.url.clone(), second.url.clone()];
        let agent = agent("echo", &urls.join(","));
        let mut load = Load::new(folder.path());
        // Half of them at each.
        for url in &urls {
            load.start(std::slice::from_ref(url), RUNS / 2).await;
        }
        Self { load, first, second, urls, _agent: agent, folder, _database: database }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_runs_of_a_killed_replica_go_on_at_the_other() {
    let mut world = World::start().await;
    world.load.reaches(30).await;
    world.first.process.kill();
    world.load.start(&world.urls, 5).await;
    world.load.judge(&world.urls).await;
    let second = std::slice::from_ref(&world.second.url);
    world.load.judge(second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_stood_still_for_longer_than_its_lease_does_no_harm() {
    let world = World::start().await;
    world.load.reaches(30).await;
    world.first.process.signal("-STOP");
    let second = std::slice::from_ref(&world.second.url);
    world.load.judge(second).await;
    world.first.process.signal("-CONT");
    let mut load = world.load;
    // It has joined anew once it takes runs again.
    load.start(std::slice::from_ref(&world.first.url), 5).await;
    load.judge(&world.urls).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_loses_nothing_and_clients_notice_nothing() {
    let mut world = World::start().await;
    world.load.reaches(20).await;
    assert_eq!(world.first.process.terminate(), 0);
    let third = serve(world.folder.path(), "third", &world._database);
    let urls = vec![world.second.url.clone(), third.url.clone()];
    world.load.start(&urls, 10).await;
    assert_eq!(world.second.process.terminate(), 0);
    let last = [third.url.clone()];
    // The agent knows the addresses that it was given; another serves the last replica.
    let _agent = agent("echo", &third.url);
    world.load.start(&last, 5).await;
    world.load.judge(&last).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_replicas_are_listed_on_the_command_line() {
    let mut world = World::start().await;
    let list = |url: &str| {
        let output = orchestrator(&["replicas", "list", "--server", url], world.folder.path());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let said = list(&world.second.url);
    assert_eq!(said.matches("serving").count(), 2, "{said}");
    assert_eq!(said.matches("answers").count(), 1, "{said}");
    world.first.process.kill();
    until("the killed one is fenced or gone", async || {
        list(&world.second.url).matches("serving").count() == 1
    })
    .await;
    world.load.judge(std::slice::from_ref(&world.second.url)).await;
}
