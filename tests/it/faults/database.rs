//! PostgreSQL dies, stands still, cannot be reached, or is replaced by its standby.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use store::testing::Server as Postgres;

use super::proxy::Proxy;
use super::{Place, World, free_address};

/// How long it stands still, or takes no connections.
const AWAY: Duration = Duration::from_secs(4);

pub(crate) async fn started(settings: Vec<(&'static str, String)>) -> Postgres {
    let starting = tokio::task::spawn_blocking(move || {
        let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, &**value)).collect();
        Postgres::start_with(&settings).unwrap()
    });
    starting.await.unwrap()
}

/// One that is reached by TCP, so that something can stand between.
pub(crate) async fn behind_proxy() -> (Postgres, Proxy) {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_database_loses_nothing() {
    let world = World::on(Place::postgres().await).await;
    for percent in [15, 50] {
        world.load.reaches(percent).await;
        tokio::task::block_in_place(|| {
            world.place.database().kill().unwrap();
            world.place.database().start_again().unwrap();
        });
    }
    world.load.ends_well().await;
}

/// All of its processes: those that serve connections are children of one.
pub(crate) fn signal_all(postgres: &Postgres, signal: &str) {
    let main = postgres.process_id().unwrap();
    let children = Command::new("pgrep").args(["-P", &main.to_string()]).output().unwrap();
    let children = String::from_utf8(children.stdout).unwrap();
    let all = children.lines().map(|line| line.parse().unwrap()).chain([main]);
    all.for_each(|process: u32| self::signal(process, signal));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_stands_still_for_a_while_loses_nothing() {
    let world = World::on(Place::postgres().await).await;
    world.load.reaches(20).await;
    signal_all(world.place.database(), "-STOP");
    world.is_quiet().await;
    tokio::time::sleep(AWAY).await;
    signal_all(world.place.database(), "-CONT");
    world.load.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_the_database_that_break_lose_nothing() {
    let world = World::on(Place::postgres().await).await;
    for percent in [10, 20, 30, 40] {
        world.load.reaches(percent).await;
        world.place.proxy().cut();
    }
    world.place.proxy().close();
    world.is_quiet().await;
    tokio::time::sleep(AWAY).await;
    world.place.proxy().open();
    world.load.reaches(60).await;
    world.place.proxy().stall();
    world.is_quiet().await;
    world.place.proxy().open();
    world.load.ends_well().await;
}

/// Commits are carried out whose answers never come: they count once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_of_the_database_are_lost() {
    let world = World::on(Place::postgres().await).await;
    for percent in [20, 40, 60] {
        world.load.reaches(percent).await;
        world.place.proxy().stall_ways(false, true);
        world.is_quiet().await;
        world.place.proxy().cut();
        world.place.proxy().open();
    }
    world.load.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_moves_to_its_synchronous_standby_under_load() {
    let place = Place::postgres().await;
    let address = free_address();
    let standby = tokio::task::block_in_place(|| {
        let port = address.port().to_string();
        let settings = [("listen_addresses", "127.0.0.1"), ("port", &port)];
        place.database().synchronous_standby(&settings).unwrap()
    });
    let world = World::on(place).await;
    world.load.reaches(50).await;
    tokio::task::block_in_place(|| {
        world.place.database().kill().unwrap();
        standby.promote().unwrap();
    });
    world.place.proxy().lead_to(address);
    world.load.ends_well().await;
}
