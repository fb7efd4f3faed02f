//! Faults around one control plane.

use super::{Place, World};

async fn the_server_is_killed_three_times(mut world: World) {
    for percent in [20, 45, 70] {
        world.load.reaches(percent).await;
        world.kill_server();
    }
    world.load.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_on_sqlite_is_killed_under_load() {
    the_server_is_killed_three_times(World::on(Place::Sqlite).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_on_postgresql_is_killed_under_load() {
    the_server_is_killed_three_times(World::on(Place::postgres().await).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_and_its_agent_are_killed_at_once() {
    let mut world = World::on(Place::postgres().await).await;
    for percent in [30, 60] {
        world.load.reaches(percent).await;
        world.agent.kill();
        world.kill_server();
        world.kill_agent();
    }
    world.load.ends_well().await;
}
