//! `examples/recovery` as a user runs it: the shop is installed, broken for real, and recovered;
//! or one action fails for good, and everything is as it was before, byte for byte.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use agent_sdk::testing::conformance::snapshot;
use serde_json::Value;
use store::testing::TestDatabase;

use crate::support::{Server, binary};

/// A shop, and the control plane that its scripts ask; without one each script has its own.
struct Shop {
    _folder: tempfile::TempDir,
    place: PathBuf,
    server: Option<Server>,
    /// The shop's own database, where it is no file.
    database: Option<TestDatabase>,
}

impl Shop {
    /// On the embedded store, with a control plane for each run.
    fn embedded() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().canonicalize().unwrap().join("shop");
        Self { _folder: folder, place, server: None, database: None }
    }

    /// The shop's own database is on PostgreSQL.
    async fn with_database() -> Self {
        let mut shop = Self::embedded();
        shop.database = Some(store::testing::postgres().await);
        shop
    }

    /// On a control plane that keeps its journal in this PostgreSQL.
    fn on_postgres(database: &TestDatabase) -> Self {
        Self::embedded().served(database)
    }

    fn served(self, database: &TestDatabase) -> Self {
        let mut shop = self;
        let data = shop.place.with_file_name("data");
        fs::create_dir_all(&shop.place).unwrap();
        let mut command = Command::new(binary());
        command.env("REMEDIATOR_SANDBOX", &shop.place);
        if let Some(database) = &shop.database {
            command.env("SHOP_DATABASE_URL", database.url());
        }
        let more = ["--database-url", database.url()];
        shop.server = Some(Server::start_by(command, "up", &data, None, &more));
        shop
    }

    fn script(&self, name: &str, more: &[&str]) -> Output {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/recovery");
        let mut command = Command::new(examples.join(name));
        command
            .arg(&self.place)
            .args(more)
            .env("ORCHESTRATOR", binary())
            .env_remove("ORCHESTRATOR_URL")
            .env_remove("SHOP_DATABASE_URL");
        if let Some(database) = &self.database {
            command.env("SHOP_DATABASE_URL", database.url());
        }
        if let Some(server) = &self.server {
            command.env("ORCHESTRATOR_URL", &server.url);
        }
        command.output().unwrap()
    }

    /// Runs a script that must succeed; gives what it printed.
    fn run(&self, name: &str, more: &[&str]) -> String {
        let output = self.script(name, more);
        let shown = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{name}: {shown}");
        text(&output.stdout)
    }

    /// The ids of what is wrong, sorted.
    fn issues(&self) -> Vec<String> {
        let output = self.script("check.sh", &[]);
        let printed = text(&output.stdout);
        let found: Value = serde_json::from_str(&printed)
            .unwrap_or_else(|error| panic!("{error}: {printed}{}", text(&output.stderr)));
        let issues = found["issues"].as_array().unwrap();
        assert_eq!(output.status.success(), issues.is_empty(), "{printed}");
        let mut ids: Vec<String> =
            issues.iter().map(|issue| issue["id"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids
    }

    /// All files but the database with bytes and modes, the database as a dump, and whether the
    /// worker runs.
    async fn look(&self) -> String {
        if let Some(database) = &self.database {
            let dump = store::testing::pg_dump(database.url()).unwrap();
            assert!(dump.contains("items"), "the dump has the shop's tables: {dump}");
            let files = snapshot(&self.place);
            return format!("{files}{dump}worker runs: {}", self.worker().is_some());
        }
        let database = self.place.join("data/shop.db");
        let dump = store::testing::dump(&format!("sqlite:{}", database.display())).await.unwrap();
        let aside = self.place.with_file_name("aside.db");
        fs::rename(&database, &aside).unwrap();
        let files = snapshot(&self.place);
        fs::rename(&aside, &database).unwrap();
        format!("{files}{dump}worker runs: {}", self.worker().is_some())
    }

    fn worker(&self) -> Option<String> {
        let pid = fs::read_to_string(self.place.join("run/worker.pid")).ok()?;
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).ok()?;
        (!stat.contains(") Z ")).then(|| pid.trim().to_owned())
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        // The worker outlives agents and control planes.
        if let Some(pid) = self.worker() {
            drop(Command::new("kill").args(["-KILL", &pid]).status());
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const ALL: [&str; 5] =
    ["dead-worker", "expired-key", "full-disk", "missing-migration", "wrong-port"];

fn is_recovered(shop: &Shop, script: &str) {
    shop.run("install.sh", &[]);
    assert!(shop.issues().is_empty(), "a new shop is healthy");
    shop.run("break.sh", &[]);
    assert_eq!(shop.issues(), ALL);
    shop.run(script, &[]);
    assert!(shop.issues().is_empty(), "the shop is healthy again");
    assert!(shop.worker().is_some());
}

async fn is_as_before(shop: &Shop, script: &str, more: &[&str]) {
    shop.run("install.sh", &[]);
    shop.run("break.sh", &["for-good"]);
    assert_eq!(shop.issues(), ALL);
    let before = shop.look().await;
    let output = shop.script(script, more);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert_eq!(shop.look().await, before);
    assert_eq!(shop.issues(), ALL, "what was broken is broken still");
}

#[test]
fn the_shop_is_recovered_on_the_embedded_store() {
    is_recovered(&Shop::embedded(), "recover.sh");
    is_recovered(&Shop::embedded(), "triage.sh");
}

#[tokio::test]
async fn everything_is_as_before_on_the_embedded_store() {
    is_as_before(&Shop::embedded(), "recover.sh", &[]).await;
    is_as_before(&Shop::embedded(), "triage.sh", &["--rollback-all"]).await;
}

#[tokio::test]
async fn the_shop_is_recovered_on_postgres() {
    let database = store::testing::postgres().await;
    is_recovered(&Shop::on_postgres(&database), "recover.sh");
    is_recovered(&Shop::on_postgres(&database), "triage.sh");
}

#[tokio::test]
async fn everything_is_as_before_on_postgres() {
    let database = store::testing::postgres().await;
    is_as_before(&Shop::on_postgres(&database), "recover.sh", &[]).await;
    is_as_before(&Shop::on_postgres(&database), "triage.sh", &["--rollback-all"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_with_its_database_on_postgres_is_recovered() {
    let database = store::testing::postgres().await;
    is_recovered(&Shop::with_database().await, "recover.sh");
    is_recovered(&Shop::with_database().await.served(&database), "triage.sh");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_with_its_database_on_postgres_is_as_before() {
    let database = store::testing::postgres().await;
    is_as_before(&Shop::with_database().await, "recover.sh", &[]).await;
    let served = Shop::with_database().await.served(&database);
    is_as_before(&served, "triage.sh", &["--rollback-all"]).await;
}
