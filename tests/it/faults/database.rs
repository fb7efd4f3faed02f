//! PostgreSQL dies, stands still, or cannot be reached.

use std::net::SocketAddr;
use std::process::Command;

use store::testing::Server as Postgres;
use tempfile::TempDir;

use super::load::Load;
use super::proxy::Proxy;
use crate::support::{Process, Server, agent};

const RUNS: usize = 40;

/// A database of its own, a server, an agent, and runs under way.
struct World {
    load: Load,
    urls: Vec<String>,
    _agent: Process,
    _server: Server,
    postgres: Postgres,
    _folder: TempDir,
}

impl World {
    async fn start(postgres: Postgres, url: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server =
            Server::start("serve", &folder.path().join("data"), None, &["--database-url", url]);
        let agent = agent("echo", &server.url);
        let urls = vec![server.url.clone()];
        let mut load = Load::new(folder.path());
        load.start(&urls, RUNS).await;
        Self { load, urls, _agent: agent, _server: server, postgres, _folder: folder }
    }

    async fn judge(mut self) {
        self.load.start(&self.urls, 5).await;
        self.load.judge(&self.urls).await;
    }
}

async fn started(settings: Vec<(&'static str, String)>) -> Postgres {
    let starting = tokio::task::spawn_blocking(move || {
        let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, &**value)).collect();
        Postgres::start_with(&settings).unwrap()
    });
    starting.await.unwrap()
}

/// One that is reached by TCP, so that something can stand between.
pub(super) async fn behind_proxy() -> (Postgres, Proxy) {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = free.local_addr().unwrap();
    drop(free);
    let settings =
        vec![("listen_addresses", "127.0.0.1".to_owned()), ("port", address.port().to_string())];
    let postgres = started(settings).await;
    (postgres, Proxy::to(address).await)
}

fn signal(process: u32, signal: &str) {
    let done = Command::new("kill").args([signal, &process.to_string()]).status().unwrap();
    assert!(done.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_database_loses_nothing() {
    let postgres = started(Vec::new()).await;
    let url = postgres.url();
    let world = World::start(postgres, &url).await;
    for percent in [15, 50] {
        world.load.reaches(percent).await;
        world.postgres.kill().unwrap();
        world.postgres.start_again().unwrap();
    }
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_stands_still_for_a_while_loses_nothing() {
    let postgres = started(Vec::new()).await;
    let url = postgres.url();
    let world = World::start(postgres, &url).await;
    world.load.reaches(20).await;
    // All of it: the processes that serve connections are its children.
    let main = world.postgres.process_id().unwrap();
    let children = Command::new("pgrep").args(["-P", &main.to_string()]).output().unwrap();
    let children = String::from_utf8(children.stdout).unwrap();
    let all: Vec<u32> = children.lines().map(|line| line.parse().unwrap()).chain([main]).collect();
    all.iter().for_each(|process| signal(*process, "-STOP"));
    let before = world.load.done();
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    let between = world.load.done();
    all.iter().for_each(|process| signal(*process, "-CONT"));
    // What was given out already may take effect; nothing new is given out.
    assert!(between <= before + RUNS, "{before} {between}");
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_the_database_that_break_lose_nothing() {
    let (postgres, proxy) = behind_proxy().await;
    let url = format!("postgres://postgres@{}/postgres", proxy.address);
    let world = World::start(postgres, &url).await;
    for percent in [10, 20, 30, 40] {
        world.load.reaches(percent).await;
        proxy.cut();
    }
    proxy.close();
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    proxy.open();
    world.load.reaches(60).await;
    proxy.stall();
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    proxy.open();
    world.judge().await;
}
