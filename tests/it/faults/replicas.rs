//! Several control planes on one PostgreSQL: one is killed, stands still, leaves, or is parted from
//! the database or from the others, and the rest goes on with the runs of all.

use std::net::SocketAddr;
use std::path::Path;

use store::testing::Server as Postgres;
use tempfile::TempDir;

use super::proxy::Proxy;
use super::{Load, Place, counter, free_address, url_of};
use crate::support::{Process, Server, orchestrator, until};

/// Short, so that tests need not wait long.
const CONFIG: &str = "replica_lease = '4s'\ngrace_after_adoption = '1s'\nlog = 'warn'\n";

/// One of several servers, with what stands between it and the others.
pub(crate) struct Replica {
    pub(crate) server: Server,
    /// Its way to the database, which is not the others'.
    pub(crate) database: Proxy,
    /// The others' way to it.
    pub(crate) peers: Proxy,
}

impl Replica {
    /// One that listens at `address`.
    pub(crate) async fn start(folder: &Path, name: &str, at: SocketAddr, base: SocketAddr) -> Self {
        let database = Proxy::to(base).await;
        let peers = Proxy::to(at).await;
        let (url, way) = (url_of(database.address), peers.address);
        let server = tokio::task::block_in_place(|| serve(folder, name, at, &url, way));
        Self { server, database, peers }
    }

    /// A new process in place of the one that ended, at the same address.
    pub(crate) fn start_again(&mut self, folder: &Path, name: &str) {
        let at = super::address_of(&self.server.url);
        let (url, way) = (url_of(self.database.address), self.peers.address);
        self.server = tokio::task::block_in_place(|| serve(folder, name, at, &url, way));
    }
}

fn serve(folder: &Path, name: &str, at: SocketAddr, url: &str, advertise: SocketAddr) -> Server {
    let config = folder.join("orchestrator.toml");
    std::fs::write(&config, CONFIG).unwrap();
    let (config, advertise) = (config.display().to_string(), advertise.to_string());
    let more = ["--database-url", url, "--config", &config, "--advertise", &advertise];
    Server::start("serve", &folder.join(name), Some(&format!("http://{at}")), &more)
}

/// Two servers, an agent at each, and runs of both under way.
struct Two {
    first: Replica,
    second: Replica,
    _agents: Vec<Process>,
    load: Load,
    /// Where a third may be started.
    third: SocketAddr,
    postgres: SocketAddr,
    folder: TempDir,
    _postgres: Postgres,
}

impl Two {
    /// With agents at the first alone, the second borrows them.
    async fn start(agents_at_both: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let Place::Postgres(both) = Place::postgres().await else {
            unreachable!("it is PostgreSQL")
        };
        let (_postgres, postgres) = (both.0, both.1.target());
        let path = folder.path();
        let first = Replica::start(path, "first", free_address(), postgres).await;
        let second = Replica::start(path, "second", free_address(), postgres).await;
        let third = free_address();
        let file = folder.path().join("marks.txt");
        let urls = [&first.server.url, &second.server.url, &format!("http://{third}")];
        let all = urls.map(String::as_str).join(",");
        let at = if agents_at_both { vec![urls[0], urls[1]] } else { vec![urls[0]] };
        let mut agents: Vec<Process> = at.iter().map(|url| counter::start(&file, url)).collect();
        if agents_at_both {
            // This one goes on wherever there is somebody.
            agents.push(counter::start(&file, &all));
        }
        let load = Load::start(&urls.map(String::as_str), &file);
        Self { first, second, _agents: agents, load, third, postgres, folder, _postgres }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_runs_of_a_killed_replica_go_on_at_the_other() {
    let mut two = Two::start(true).await;
    two.load.reaches(40).await;
    two.first.server.process.kill();
    two.load.ends_well().await;
}

/// It comes back when its lease is long over and its runs have gone on elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_stood_still_for_longer_than_its_lease_writes_nothing() {
    let two = Two::start(true).await;
    two.load.reaches(40).await;
    two.first.server.process.signal("-STOP");
    two.load.reaches(100).await;
    two.first.server.process.signal("-CONT");
    two.load.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_runs_of_a_replica_without_its_database_go_on_at_the_other() {
    let two = Two::start(true).await;
    two.load.reaches(40).await;
    two.first.database.stall();
    two.load.reaches(100).await;
    two.first.database.cut();
    two.first.database.open();
    two.load.ends_well().await;
}

/// Both reach the database and neither the other: each goes on with what it has, and what one has
/// no agent for waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_do_not_reach_one_another_lose_and_repeat_nothing() {
    let two = Two::start(false).await;
    for (percent, in_both_ways) in [(20, false), (45, true)] {
        two.load.reaches(percent).await;
        two.first.peers.stall();
        if in_both_ways {
            two.second.peers.stall();
        }
        two.load.reaches(percent + 15).await;
        two.first.peers.cut();
        two.second.peers.cut();
        two.first.peers.open();
        two.second.peers.open();
    }
    two.load.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_loses_nothing() {
    let two = Two::start(true).await;
    two.load.reaches(20).await;
    let code = tokio::task::block_in_place(|| two.first.server.process.terminate());
    assert_eq!(code, 0);
    let third = Replica::start(two.folder.path(), "third", two.third, two.postgres).await;
    two.load.reaches(50).await;
    let code = tokio::task::block_in_place(|| two.second.server.process.terminate());
    assert_eq!(code, 0);
    two.load.ends_well().await;
    drop(third);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_replicas_are_listed_on_the_command_line() {
    let mut two = Two::start(true).await;
    let list = |url: &str| {
        let output = orchestrator(&["replicas", "list", "--server", url], two.folder.path());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let said = list(&two.second.server.url);
    assert_eq!(said.matches("serving").count(), 2, "{said}");
    assert_eq!(said.matches("answers").count(), 1, "{said}");
    two.first.server.process.kill();
    until("the killed one is fenced or gone", async || {
        list(&two.second.server.url).matches("serving").count() == 1
    })
    .await;
    two.load.ends_well().await;
}
