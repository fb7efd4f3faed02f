//! Control planes, agents and PostgreSQL are killed, stopped and parted while many clients start
//! and signal runs. Clients note what they were promised, agents each execution; when all is
//! over, the checker compares both with the journals. What is believed is what stands outside.

mod agents;
mod chaos;
mod checker;
mod counter;
mod database;
mod disk;
mod load;
mod proxy;
mod replicas;
mod server;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use store::testing::Server as Postgres;
use tempfile::TempDir;

use crate::support::{Process, Server, until};
use load::Load;
use proxy::Proxy;

/// How long nothing may be done before it counts as quiet.
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

/// Where a control plane keeps its runs.
#[derive(Debug)]
enum Place {
    Sqlite,
    /// By way of a proxy.
    Postgres(Box<(Postgres, Proxy)>),
}

impl Place {
    async fn postgres() -> Self {
        Self::Postgres(Box::new(database::behind_proxy().await))
    }

    /// One `serve` on it.
    fn serve(&self, folder: &TempDir, name: &str, url: Option<&str>) -> Server {
        let database = match self {
            Self::Sqlite => None,
            Self::Postgres(both) => Some(url_of(both.1.address)),
        };
        let more: Vec<&str> = database.iter().flat_map(|it| ["--database-url", it]).collect();
        Server::start("serve", &folder.path().join(name), url, &more)
    }

    fn proxy(&self) -> &Proxy {
        let Self::Postgres(both) = self else { panic!("there is no way to an embedded store") };
        &both.1
    }

    fn database(&self) -> &Postgres {
        let Self::Postgres(both) = self else { panic!("the store is embedded") };
        &both.0
    }
}

/// One control plane with one agent under load.
#[derive(Debug)]
struct World {
    server: Server,
    agent: Process,
    load: Load,
    place: Place,
    file: PathBuf,
    folder: TempDir,
}

impl World {
    async fn on(place: Place) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = place.serve(&folder, "data", None);
        Self::with(server, place, folder)
    }

    fn with(server: Server, place: Place, folder: TempDir) -> Self {
        let file = folder.path().join("marks.txt");
        let agent = counter::start(&file, &server.url);
        let load = Load::start(&[&server.url], &file);
        Self { server, agent, load, place, file, folder }
    }

    /// SIGKILL, and a new process on the same address.
    fn kill_server(&mut self) {
        self.server.process.kill();
        self.server = self.place.serve(&self.folder, "data", Some(&self.server.url));
    }

    /// SIGKILL, and a new process.
    fn kill_agent(&mut self) {
        self.agent.kill();
        self.agent = counter::start(&self.file, &self.server.url);
    }

    /// Another agent takes the place of the one there is, by a way that may break.
    async fn agent_by_proxy(&mut self) -> Proxy {
        let proxy = Proxy::to(address_of(&self.server.url)).await;
        self.agent.kill();
        self.agent = counter::start(&self.file, &format!("http://{}", proxy.address));
        proxy
    }

    /// Waits until nothing is done for a while: two looks at the agents' file, some time apart.
    async fn is_quiet(&self) {
        until("the work stops", async || {
            let before = counter::read(&self.file).len();
            let mut looks = tokio::time::interval(BETWEEN_LOOKS);
            looks.tick().await;
            looks.tick().await;
            counter::read(&self.file).len() == before
        })
        .await;
    }

    /// Waits until something is done again.
    async fn goes_on(&self) {
        let before = counter::read(&self.file).len();
        until("the work goes on", async || counter::read(&self.file).len() > before).await;
    }
}

/// The database of a server that is reached at `address`.
fn url_of(address: SocketAddr) -> String {
    format!("postgres://postgres@{address}/postgres")
}

fn address_of(url: &str) -> SocketAddr {
    url.trim_start_matches("http://").parse().unwrap()
}

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
