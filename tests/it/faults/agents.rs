//! Agents die, fall silent, or lose their connection.

use super::load::Load;
use super::proxy::Proxy;
use crate::support::{Server, agent};

const RUNS: usize = 40;

#[tokio::test(flavor = "multi_thread")]
async fn agents_whose_connection_breaks_lose_and_repeat_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start("serve", &folder.path().join("data"), None, &[]);
    let address = server.url.trim_start_matches("http://").parse().unwrap();
    let proxy = Proxy::to(address).await;
    let _agent = agent("echo", &format!("http://{}", proxy.address));
    let urls = [server.url.clone()];
    let mut load = Load::new(folder.path());
    load.start(&urls, RUNS).await;
    for percent in [10, 25, 40, 55, 70] {
        load.reaches(percent).await;
        proxy.cut();
    }
    load.judge(&urls).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_way_to_an_agent_is_noticed_and_mended() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start("serve", &folder.path().join("data"), None, &[]);
    let address = server.url.trim_start_matches("http://").parse().unwrap();
    let proxy = Proxy::to(address).await;
    let _agent = agent("echo", &format!("http://{}", proxy.address));
    let urls = [server.url.clone()];
    let mut load = Load::new(folder.path());
    load.start(&urls, RUNS).await;
    load.reaches(30).await;
    proxy.stall();
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    proxy.open();
    load.judge(&urls).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "stopped in the middle of an append, the agent holds the lock of the file for good"]
async fn a_deaf_agent_loses_its_tasks_to_another_and_does_no_harm_when_it_wakes() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start("serve", &folder.path().join("data"), None, &[]);
    let deaf = agent("echo", &server.url);
    let urls = [server.url.clone()];
    let mut load = Load::new(folder.path());
    load.start(&urls, RUNS).await;
    load.reaches(30).await;
    deaf.signal("-STOP");
    let _other = agent("echo", &server.url);
    load.judge(&urls).await;
    deaf.signal("-CONT");
    load.start(&urls, 5).await;
    load.judge(&urls).await;
}
