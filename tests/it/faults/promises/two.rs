//! Two control planes on one PostgreSQL, each with an agent: one of them stands still or is parted
//! from the database, and the other goes on with the runs of both.

use std::net::SocketAddr;

use tempfile::TempDir;

use super::{Load, Place, Postgres, Proxy, Server, counter};
use crate::support::Process;

struct Two {
    first: Server,
    _second: Server,
    _agents: [Process; 2],
    load: Load,
    /// The first one's way to the database, which is not the second one's.
    way: Proxy,
    _postgres: Postgres,
    _folder: TempDir,
}

impl Two {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("marks.txt");
        let Place::Postgres(both) = Place::postgres().await else {
            unreachable!("it is PostgreSQL")
        };
        let (postgres, way) = *both;
        let serve = |name: &str, address: SocketAddr| {
            let url = format!("postgres://postgres@{address}/postgres");
            Server::start("serve", &folder.path().join(name), None, &["--database-url", &url])
        };
        let first = serve("first", way.address);
        let second = serve("second", way.target());
        let agents = [&first, &second].map(|server| counter::start(&file, &server.url));
        let load = Load::start(&[&first.url, &second.url], &file);
        let (_agents, _second, _postgres, _folder) = (agents, second, postgres, folder);
        Self { first, _second, _agents, load, way, _postgres, _folder }
    }
}

/// It comes back when its lease is long over and its runs have gone on elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_stood_still_for_longer_than_its_lease_writes_nothing() {
    let two = Two::start().await;
    two.load.reaches(40).await;
    two.first.process.signal("-STOP");
    two.load.reaches(100).await;
    two.first.process.signal("-CONT");
    two.load.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_runs_of_a_replica_without_its_database_go_on_at_the_other() {
    let two = Two::start().await;
    two.load.reaches(40).await;
    two.way.stall();
    two.load.reaches(100).await;
    two.way.cut();
    two.way.open();
    two.load.ends_well().await;
}
