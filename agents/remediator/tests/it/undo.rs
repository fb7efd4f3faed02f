//! The undo contract, for every action that changes something.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::OnceLock;

use agent_sdk::Agent;
use agent_sdk::testing::conformance::{Place, Undoable, snapshot, survives_kill, undo_contract};
use remediator_agent::tools::Tools;
use serde_json::{Value, json};
use store::testing::{self, TestDatabase};

use crate::support::{
    DOWN, UP, count, dump, manifest, on_a_runtime_of_its_own, postgres, runs, sqlite,
    start_elsewhere, tables,
};

fn agent(place: &Place) -> Agent {
    remediator_agent::agent_with(&Tools::at(&place.outside, &place.records))
}

/// What the folder looks like, and which processes run; numbers of processes are left out.
fn look_at_processes(place: &Place) -> String {
    let pid = fs::read_to_string(place.outside.join("run/worker.pid")).unwrap_or_default();
    let seen = snapshot(&place.outside);
    let seen = if pid.trim().is_empty() { seen } else { seen.replace(pid.trim(), "PID") };
    format!("{seen}{} {}", runs(&place.outside), count(&place.outside))
}

struct Edit;

impl Undoable for Edit {
    fn prepare(&self, place: &Place) {
        let file = place.outside.join("shop.conf");
        fs::write(&file, "port = 1\nname = shop").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    }

    fn agent(&self, place: &Place) -> Agent {
        agent(place)
    }

    fn action(&self) -> &'static str {
        "edit_config"
    }

    fn params(&self, _place: &Place) -> Value {
        json!({"file": "shop.conf", "set": {"port": 8080, "mode": "safe"}})
    }
}

struct Rotate;

impl Undoable for Rotate {
    fn prepare(&self, place: &Place) {
        let file = place.outside.join("api.key");
        fs::write(&file, "key = old\nexpires = 1\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn agent(&self, place: &Place) -> Agent {
        agent(place)
    }

    fn action(&self) -> &'static str {
        "rotate_key"
    }

    fn params(&self, _place: &Place) -> Value {
        json!({"file": "api.key", "valid_for": "30d"})
    }
}

struct Clear;

impl Undoable for Clear {
    fn prepare(&self, place: &Place) {
        let spool = place.outside.join("spool");
        fs::create_dir_all(spool.join("deep/er")).unwrap();
        fs::write(spool.join("deep/er/file"), "deep").unwrap();
        fs::write(spool.join(".keep"), "").unwrap();
        for number in 0..200 {
            fs::write(spool.join(format!("{number}.job")), number.to_string()).unwrap();
        }
    }

    fn agent(&self, place: &Place) -> Agent {
        agent(place)
    }

    fn action(&self) -> &'static str {
        "clear_folder"
    }

    fn params(&self, _place: &Place) -> Value {
        json!({"folder": "spool", "keep": [".keep"]})
    }
}

struct Migrate;

impl Undoable for Migrate {
    fn prepare(&self, place: &Place) {
        sqlite(&place.outside.join("shop.db"), "CREATE TABLE items (id INTEGER PRIMARY KEY)");
    }

    fn agent(&self, place: &Place) -> Agent {
        agent(place)
    }

    fn action(&self) -> &'static str {
        "apply_migration"
    }

    fn params(&self, _place: &Place) -> Value {
        json!({"database": {"sqlite": "shop.db"}, "name": "0002_orders", "up": UP, "down": DOWN})
    }

    fn look(&self, place: &Place) -> String {
        dump(&place.outside.join("shop.db"))
    }
}

/// Restart of a worker that is dead, with a pid file left behind.
struct Restart;

impl Undoable for Restart {
    fn prepare(&self, place: &Place) {
        manifest(&place.outside);
        fs::write(place.outside.join("run/worker.pid"), "999999999\n").unwrap();
    }

    fn agent(&self, place: &Place) -> Agent {
        agent(place)
    }

    fn action(&self) -> &'static str {
        "restart_process"
    }

    fn params(&self, _place: &Place) -> Value {
        json!({"manifest": "worker.json"})
    }

    fn look(&self, place: &Place) -> String {
        look_at_processes(place)
    }
}

/// Stop of a worker that somebody else has started.
struct Stop;

impl Undoable for Stop {
    fn prepare(&self, place: &Place) {
        manifest(&place.outside);
        start_elsewhere(&place.outside);
    }

    fn agent(&self, place: &Place) -> Agent {
        agent(place)
    }

    fn action(&self) -> &'static str {
        "stop_process"
    }

    fn params(&self, _place: &Place) -> Value {
        json!({"manifest": "worker.json"})
    }

    /// The new process has another number, which need not be as long.
    fn look(&self, place: &Place) -> String {
        format!("{} {}", runs(&place.outside), count(&place.outside))
    }
}

#[tokio::test]
async fn every_action_keeps_the_undo_contract() {
    undo_contract(&Edit).await;
    undo_contract(&Rotate).await;
    undo_contract(&Clear).await;
    undo_contract(&Migrate).await;
    undo_contract(&Restart).await;
    undo_contract(&Stop).await;
}

#[tokio::test]
async fn edit_config_survives_kill() {
    survives_kill("undo::edit_config_survives_kill", &Edit).await;
}

#[tokio::test]
async fn rotate_key_survives_kill() {
    survives_kill("undo::rotate_key_survives_kill", &Rotate).await;
}

#[tokio::test]
async fn clear_folder_survives_kill() {
    survives_kill("undo::clear_folder_survives_kill", &Clear).await;
}

#[tokio::test]
async fn apply_migration_survives_kill() {
    survives_kill("undo::apply_migration_survives_kill", &Migrate).await;
}

#[tokio::test]
async fn restart_process_survives_kill() {
    survives_kill("undo::restart_process_survives_kill", &Restart).await;
}

#[tokio::test]
async fn stop_process_survives_kill() {
    survives_kill("undo::stop_process_survives_kill", &Stop).await;
}

/// On a PostgreSQL, which starts when it is first asked for: the process that is to be killed
/// has its address from the records.
#[derive(Default)]
struct MigratePostgres(OnceLock<TestDatabase>);

impl Undoable for MigratePostgres {
    fn prepare(&self, place: &Place) {
        let url = self.0.get_or_init(|| on_a_runtime_of_its_own(testing::postgres())).url();
        postgres(url, "DROP TABLE IF EXISTS orders, remediator_migrations");
        fs::write(place.records.join("url"), url).unwrap();
    }

    fn agent(&self, place: &Place) -> Agent {
        let url = fs::read_to_string(place.records.join("url")).unwrap();
        let tools = Tools::at(&place.outside, &place.records).variable("SHOP_DATABASE", url);
        remediator_agent::agent_with(&tools)
    }

    fn action(&self) -> &'static str {
        "apply_migration"
    }

    fn params(&self, _place: &Place) -> Value {
        let database = json!({"postgres_env": "SHOP_DATABASE"});
        json!({"database": database, "name": "0002_orders", "up": UP, "down": DOWN})
    }

    fn look(&self, place: &Place) -> String {
        tables(&fs::read_to_string(place.records.join("url")).unwrap()).join(" ")
    }
}

#[tokio::test]
async fn apply_migration_keeps_the_undo_contract_on_postgres() {
    undo_contract(&MigratePostgres::default()).await;
}

#[tokio::test]
async fn apply_migration_survives_kill_on_postgres() {
    survives_kill("undo::apply_migration_survives_kill_on_postgres", &MigratePostgres::default())
        .await;
}
