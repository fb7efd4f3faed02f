//! Faults around one control plane.

use super::{Place, Proxy, World, counter, free_address};

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
async fn an_agent_is_killed_under_load() {
    let mut world = World::on(Place::Sqlite).await;
    for percent in [20, 45, 70] {
        world.load.reaches(percent).await;
        world.kill_agent();
    }
    world.load.ends_well().await;
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

/// Results are on their way when the connection goes; the agent tells them again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_and_its_server_are_parted_in_each_direction() {
    let mut world = World::on(Place::Sqlite).await;
    let address = world.server.url.trim_start_matches("http://").parse().unwrap();
    let proxy = Proxy::to(address).await;
    world.agent.kill();
    world.agent = counter::start(&world.file, &format!("http://{}", proxy.address));
    for (percent, to_server, to_agent) in [(20, true, false), (40, false, true), (60, true, true)] {
        world.load.reaches(percent).await;
        proxy.stall_ways(to_server, to_agent);
        world.is_quiet().await;
        proxy.cut();
        proxy.open();
    }
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
    let Place::Postgres(both) = &place else { unreachable!("it is PostgreSQL") };
    let standby = tokio::task::block_in_place(|| {
        let port = address.port().to_string();
        let settings = [("listen_addresses", "127.0.0.1"), ("port", &port)];
        both.0.synchronous_standby(&settings).unwrap()
    });
    let world = World::on(place).await;
    world.load.reaches(50).await;
    let Place::Postgres(both) = &world.place else { unreachable!("it is PostgreSQL") };
    tokio::task::block_in_place(|| {
        both.0.kill().unwrap();
        standby.promote().unwrap();
    });
    both.1.lead_to(address);
    world.load.ends_well().await;
}
