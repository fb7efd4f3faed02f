//! Control planes, agents and PostgreSQL are killed, stopped and parted while many clients start
//! and signal runs. Clients note what they were promised, agents each execution; when all is
//! over, the checker compares both with the journals.

mod checker;
mod counter;
mod load;
mod one;
mod two;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use store::testing::Server as Postgres;
use tempfile::TempDir;

use super::database::behind_proxy;
use super::proxy::Proxy;
use crate::support::{Process, Server};
use load::Load;

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
        Self::Postgres(Box::new(behind_proxy().await))
    }

    /// One `serve` on it.
    fn serve(&self, folder: &TempDir, name: &str, url: Option<&str>) -> Server {
        let database = match self {
            Self::Sqlite => None,
            Self::Postgres(both) => {
                Some(format!("postgres://postgres@{}/postgres", both.1.address))
            }
        };
        let more: Vec<&str> = database.iter().flat_map(|it| ["--database-url", it]).collect();
        Server::start("serve", &folder.path().join(name), url, &more)
    }

    fn proxy(&self) -> &Proxy {
        let Self::Postgres(both) = self else { panic!("there is no way to an embedded store") };
        &both.1
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
        let file = folder.path().join("marks.txt");
        let server = place.serve(&folder, "data", None);
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

    /// Waits until nothing is done for a while: two looks at the agents' file, some time apart.
    async fn is_quiet(&self) {
        crate::support::until("the work stops", async || {
            let before = counter::read(&self.file).len();
            let mut looks = tokio::time::interval(BETWEEN_LOOKS);
            looks.tick().await;
            looks.tick().await;
            counter::read(&self.file).len() == before
        })
        .await;
    }
}

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
