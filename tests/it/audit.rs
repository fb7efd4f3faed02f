//! The audit log: what people decide is in it, and what is changed by hand is found, by the server
//! and by the command line, on both databases.

use std::path::Path;

use contracts::v1::audit_service_client::AuditServiceClient;
use contracts::v1::{self, EventKind};
use tonic::transport::Channel;

use crate::support::client::{Client, reason, text};
use crate::support::{Server, orchestrator};

struct World {
    server: Server,
    client: Client,
    audit: AuditServiceClient<Channel>,
    folder: tempfile::TempDir,
    database: Option<store::testing::TestDatabase>,
}

impl World {
    async fn start(database: Option<store::testing::TestDatabase>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let more: Vec<&str> = match &database {
            Some(database) => vec!["--database-url", database.url()],
            None => Vec::new(),
        };
        let server = Server::start("serve", &folder.path().join("data"), None, &more);
        let client = Client::of(&server).await;
        let audit = AuditServiceClient::new(server.channel().await);
        Self { server, client, audit, folder, database }
    }

    async fn entries(&self, filter: &str, order_by: &str) -> Vec<v1::AuditEntry> {
        let mut entries = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = v1::ListAuditEntriesRequest {
                page_size: 2,
                page_token,
                filter: filter.to_owned(),
                order_by: order_by.to_owned(),
            };
            let page = self.audit.clone().list_audit_entries(request).await.unwrap().into_inner();
            entries.extend(page.entries);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return entries;
            }
        }
    }

    /// What server and command line say of the first broken place; none: all is whole.
    async fn broken(&self, resource: &str) -> Option<(String, i64)> {
        let resource_of = resource.to_owned();
        let request = v1::VerifyAuditRequest { resource: resource_of, ..Default::default() };
        let said = self.audit.clone().verify_audit(request).await.unwrap().into_inner().broken;
        let mut arguments = vec!["audit", "verify", "--server", &self.server.url, "-o", "json"];
        arguments.extend(Some(resource).filter(|resource| !resource.is_empty()));
        let output = orchestrator(&arguments, self.folder.path());
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let code = output.status.code();
        assert_eq!(code, Some(if said.is_some() { 1 } else { 0 }), "{found}");
        let said = said.map(|broken| (broken.resource, broken.number));
        let number = |broken: &serde_json::Value| broken["number"].as_str().unwrap().to_owned();
        let here = found.get("broken").filter(|broken| !broken.is_null()).map(|broken| {
            (broken["resource"].as_str().unwrap().to_owned(), number(broken).parse().unwrap())
        });
        assert_eq!(said, here, "server and command line agree");
        said
    }

    /// Does something behind the server's back.
    async fn execute(&self, sql: &str) {
        let url = match &self.database {
            Some(database) => database.url().to_owned(),
            None => {
                let file = sqlite_file(&self.folder.path().join("data"));
                format!("sqlite:{}", file.display())
            }
        };
        store::testing::execute_on(&url, sql).await.unwrap();
    }
}

fn sqlite_file(folder: &Path) -> std::path::PathBuf {
    let mut files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.find(|path| path.extension().is_some_and(|ending| ending == "db")).unwrap()
}

const GATED: &str = "name: gated\nsteps:\n  - {id: ok, approve: {message: 'Go on?'}}\n  \
                     - {id: w, wait_for: go}\n";

async fn decisions_are_in_the_log_and_changes_are_found(world: World) {
    let client = &world.client;
    let id = client.start(GATED).await;
    let resource = format!("run/{id}");
    client.event(&id, EventKind::StepWaiting, "ok").await;
    assert!(world.entries(&format!("resource={resource}"), "").await.is_empty());
    let pause = v1::PauseRunRequest {
        run_id: id.clone(),
        reason: "lunch".to_owned(),
        request_id: "p1".to_owned(),
    };
    client.runs.clone().pause_run(pause.clone()).await.unwrap();
    client.runs.clone().pause_run(pause).await.unwrap();
    let resume = v1::ResumeRunRequest { run_id: id.clone(), ..Default::default() };
    client.runs.clone().resume_run(resume).await.unwrap();
    client.decide(&id, "ok", true, "fine").await.unwrap();
    client.signal(&id, "other", "\"a secret\"").await.unwrap();
    client.cancel(&id).await.unwrap();
    client.ended(&id).await;
    let chain = world.entries(&format!("resource={resource}"), "number").await;
    let actions: Vec<_> = chain.iter().map(|entry| entry.action.as_str()).collect();
    let all = ["run.pause", "run.resume", "run.decide", "run.signal", "run.cancel"];
    assert_eq!(actions, all, "each once");
    assert!(text(chain[0].body.as_ref()).contains("lunch") && chain[0].actor == "anonymous");
    assert!(!chain.iter().any(|entry| text(entry.body.as_ref()).contains("secret")));
    let newest = world.entries("action=run.cancel", "").await;
    assert_eq!(newest[0], chain[4]);
    assert_eq!(world.entries("actor=nobody", "").await, []);
    assert_eq!(world.broken("").await, None);
    assert_eq!(world.broken(&resource).await, None);

    world.execute("UPDATE audit SET actor = 'mallory' WHERE number = 2").await;
    assert_eq!(world.broken("").await, Some((resource.clone(), 2)));
    world.execute("UPDATE audit SET actor = 'anonymous' WHERE number = 2").await;
    assert_eq!(world.broken("").await, None, "as it was");
    world.execute("DELETE FROM audit WHERE number = 4").await;
    assert_eq!(world.broken(&resource).await, Some((resource, 4)));
}

async fn what_the_log_cannot_be_asked_is_refused(world: &World) {
    for (filter, order_by, what) in [
        ("who=ann", "", "INVALID_FILTER"),
        ("ann", "", "INVALID_FILTER"),
        ("", "number", "INVALID_FILTER"),
        ("resource=a AND actor=b", "number", "INVALID_FILTER"),
        ("", "actor", "INVALID_FILTER"),
    ] {
        let (filter, order_by) = (filter.to_owned(), order_by.to_owned());
        let request = v1::ListAuditEntriesRequest { filter, order_by, ..Default::default() };
        let refused = world.audit.clone().list_audit_entries(request).await.unwrap_err();
        assert_eq!(reason(&refused), what);
    }
}

/// A run in nobody's memory goes on with its chain where it stood.
async fn a_chain_goes_on_after_a_restart(world: World) {
    let id = world.client.start(GATED).await;
    world.client.signal(&id, "one", "1").await.unwrap();
    let World { server, folder, database, .. } = world;
    let url = server.url.clone();
    drop(server);
    let more: Vec<&str> = match &database {
        Some(database) => vec!["--database-url", database.url()],
        None => Vec::new(),
    };
    let server = Server::start("serve", &folder.path().join("data"), Some(&url), &more);
    let client = Client::of(&server).await;
    let audit = AuditServiceClient::new(server.channel().await);
    client.signal(&id, "two", "2").await.unwrap();
    let world = World { server, client, audit, folder, database };
    let chain = world.entries(&format!("resource=run/{id}"), "number").await;
    assert_eq!(chain.len(), 2);
    assert_eq!(chain[1].previous_hash, chain[0].hash);
    assert_eq!(world.broken("").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decisions_on_sqlite_are_in_the_log_and_changes_are_found() {
    let world = World::start(None).await;
    what_the_log_cannot_be_asked_is_refused(&world).await;
    decisions_are_in_the_log_and_changes_are_found(world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decisions_on_postgresql_are_in_the_log_and_changes_are_found() {
    let database = store::testing::postgres().await;
    decisions_are_in_the_log_and_changes_are_found(World::start(Some(database)).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_on_sqlite_goes_on_after_a_restart() {
    a_chain_goes_on_after_a_restart(World::start(None).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_on_postgresql_goes_on_after_a_restart() {
    let database = store::testing::postgres().await;
    a_chain_goes_on_after_a_restart(World::start(Some(database)).await).await;
}
