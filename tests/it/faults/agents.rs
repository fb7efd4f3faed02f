//! Agents die, fall silent, are slow, or lose their connection.

use std::time::Duration;

use super::{Place, World, counter};

/// How long a way is silent: longer than pings may be unanswered.
const SILENT: Duration = Duration::from_secs(5);
/// How much a slow way lets through, in bytes a second.
const SLOW_BYTES: u32 = 4 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_is_killed_under_load() {
    let mut world = World::on(Place::Sqlite).await;
    for percent in [20, 45, 70] {
        world.load.reaches(percent).await;
        world.kill_agent();
    }
    world.load.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_whose_connection_breaks_lose_and_repeat_nothing() {
    let mut world = World::on(Place::Sqlite).await;
    let proxy = world.agent_by_proxy().await;
    for percent in [10, 25, 40, 55, 70] {
        world.load.reaches(percent).await;
        proxy.cut();
    }
    world.load.ends_well().await;
}

/// Results are on their way when the connection goes; the agent tells them again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_and_its_server_are_parted_in_each_direction() {
    let mut world = World::on(Place::Sqlite).await;
    let proxy = world.agent_by_proxy().await;
    for (percent, to_server, to_agent) in [(20, true, false), (40, false, true), (60, true, true)] {
        world.load.reaches(percent).await;
        proxy.stall_ways(to_server, to_agent);
        world.is_quiet().await;
        proxy.cut();
        proxy.open();
    }
    world.load.ends_well().await;
}

/// Nobody cuts the way: both sides find out by themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_way_to_an_agent_is_noticed_and_mended() {
    let mut world = World::on(Place::Sqlite).await;
    let proxy = world.agent_by_proxy().await;
    world.load.reaches(30).await;
    proxy.stall();
    world.is_quiet().await;
    tokio::time::sleep(SILENT).await;
    proxy.open();
    world.load.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deaf_agent_loses_its_tasks_to_another_and_does_no_harm_when_it_wakes() {
    let world = World::on(Place::Sqlite).await;
    world.load.reaches(30).await;
    world.agent.signal("-STOP");
    world.is_quiet().await;
    let _other = counter::start(&world.file, &world.server.url);
    world.load.reaches(100).await;
    world.is_quiet().await;
    // What is left is the deaf one's, until its leases are over.
    world.goes_on().await;
    world.agent.signal("-CONT");
    world.load.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_behind_a_slow_way_loses_and_repeats_nothing() {
    let mut world = World::on(Place::Sqlite).await;
    let proxy = world.agent_by_proxy().await;
    world.load.reaches(30).await;
    proxy.slow_down(SLOW_BYTES);
    world.load.reaches(60).await;
    world.goes_on().await;
    proxy.open();
    world.load.ends_well().await;
}
