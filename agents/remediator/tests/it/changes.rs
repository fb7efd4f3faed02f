//! Each action does what it says, and refuses what it must.

use std::fs;

use agent_sdk::Kind;
use serde_json::{Value, json};

use crate::support::wait_until;
use crate::support::{DOWN, UP, World, count, dump, manifest, runs, sqlite, start_elsewhere};

#[tokio::test]
async fn editing_changes_the_named_settings_alone() {
    let world = World::new();
    world.write("shop/shop.conf", "# port = 1\nport = 1\nname: \"a\"\nold = 1\n");
    let params = json!({
        "file": "shop/shop.conf",
        "set": {"port": 8080, "name": "b", "on": true},
        "unset": ["old"],
    });
    let output = world.harness.call("edit_config", &params).await.unwrap();
    assert_eq!(output["changed"], json!(["name", "on", "port", "old"]));
    let expected = "# port = 1\nport = 8080\nname: \"b\"\non = true\n";
    assert_eq!(world.read("shop/shop.conf"), expected);
    let whole = json!({"file": "shop/new.conf", "content": "a=1\n"});
    world.harness.call("edit_config", &whole).await.unwrap();
    assert_eq!(world.read("shop/new.conf"), "a=1\n");
}

#[tokio::test]
async fn an_undo_does_not_write_over_what_somebody_else_changed() {
    let world = World::new();
    world.write("a.conf", "a=1\n");
    let params = json!({"file": "a.conf", "set": {"a": "2"}});
    let output = world.harness.call("edit_config", &params).await.unwrap();
    world.write("a.conf", "mine\n");
    let failure = world.harness.call_undo("edit_config", &params, &output).await.unwrap_err();
    assert_eq!((failure.kind(), failure.code_text()), (Kind::Permanent, "changed_since"));
    assert_eq!(world.read("a.conf"), "mine\n");
    world.write("a.conf", "a=2\n");
    world.harness.call_undo("edit_config", &params, &output).await.unwrap();
    assert_eq!(world.read("a.conf"), "a=1\n");
}

#[tokio::test]
async fn what_is_wrong_is_refused_by_name_and_changes_nothing() {
    let world = World::new();
    world.write("a.conf", "a=1\n");
    sqlite(&world.root().join("a.db"), "CREATE TABLE a (b INT)");
    let database = json!({"sqlite": "a.db"});
    let cases = [
        ("edit_config", json!({"file": "../a", "set": {"a": 1}}), "`file`"),
        ("edit_config", json!({"file": "a.conf"}), "`set`"),
        ("edit_config", json!({"file": "a.conf", "set": {"a": "1\n2"}}), "`set.a`"),
        ("edit_config", json!({"file": "a.conf", "set": {"a b": 1}}), "\"a b\""),
        ("edit_config", json!({"file": "a.conf", "set": {"a": 1}, "content": ""}), "`content`"),
        ("rotate_key", json!({"file": "a.key", "bytes": 4}), "`bytes`"),
        ("rotate_key", json!({"file": "a.key", "valid_for": "soon"}), "`valid_for`"),
        ("clear_folder", json!({"folder": "nowhere"}), "`folder`"),
        ("clear_folder", json!({"folder": ".quarantine"}), "`folder`"),
        ("restart_process", json!({"manifest": "nowhere.json"}), "`manifest`"),
        ("restart_process", json!({"manifest": "a.conf"}), "manifest a.conf"),
        ("apply_migration", json!({"database": {}, "name": "a", "up": "x", "down": "y"}), "sqlite"),
        ("apply_migration", json!({"database": database, "name": "a", "up": "x"}), "`down`"),
        (
            "apply_migration",
            json!({"database": database, "name": "a", "up": "commit", "down": "x"}),
            "COMMIT",
        ),
        (
            "apply_migration",
            json!({"database": {"postgres_env": "NOT_SET"}, "name": "a", "up": "x", "down": "y"}),
            "NOT_SET",
        ),
        ("check_health", json!({"checks": "a.conf"}), "a.conf"),
    ];
    for (action, params, part) in cases {
        let failure = world.harness.call(action, &params).await.unwrap_err();
        assert_eq!(failure.kind(), Kind::Rejected, "{action} {params}: {failure}");
        assert!(failure.message().contains(part), "{action} {params}: {failure}");
        assert!(failure.had_no_effect(), "{action} {params}");
    }
    assert_eq!(world.read("a.conf"), "a=1\n");
}

#[tokio::test]
async fn a_new_key_goes_into_the_file_and_nowhere_else() {
    let world = World::new();
    world.write("api.key", "key = old\nexpires = 1\n");
    let outcome = world.harness.task("rotate_key").params(json!({"file": "api.key"})).run().await;
    let text = world.read("api.key");
    let key = text.lines().next().unwrap().strip_prefix("key = ").unwrap();
    assert_eq!(key.len(), 64);
    assert!(!outcome.output_text.as_ref().unwrap().contains(key));
    assert!(outcome.logs.is_empty() && outcome.progress.is_empty());
    let expires = outcome.result.unwrap()["expires"].as_u64().unwrap();
    assert!(text.contains(&format!("expires = {expires}")) && expires > 1_000_000_000);
}

#[tokio::test]
async fn a_cleared_folder_is_in_quarantine() {
    let world = World::new();
    for name in ["a.tmp", "b.tmp", "c"] {
        world.write(&format!("spool/{name}"), name);
    }
    let params = json!({"folder": "spool", "ending": ".tmp", "keep": ["b.tmp"]});
    let output = world.harness.call("clear_folder", &params).await.unwrap();
    assert_eq!(output["moved"], 1);
    assert!(!world.root().join("spool/a.tmp").exists());
    assert!(world.root().join("spool/b.tmp").exists() && world.root().join("spool/c").exists());
    let quarantine = output["quarantine"].as_str().unwrap();
    assert_eq!(world.read(&format!("{quarantine}/a.tmp")), "a.tmp");
    world.write("spool/a.tmp", "new");
    let failure = world.harness.call_undo("clear_folder", &params, &output).await.unwrap_err();
    assert_eq!(failure.code_text(), "changed_since");
    assert_eq!(world.read("spool/a.tmp"), "new");
}

#[tokio::test]
async fn a_migration_that_fails_leaves_no_trace() {
    let world = World::new();
    let file = world.root().join("shop.db");
    sqlite(&file, "CREATE TABLE items (id INTEGER PRIMARY KEY)");
    let before = dump(&file);
    let migration = |up: &str| json!({"database": {"sqlite": "shop.db"}, "name": "orders", "up": up, "down": DOWN});
    let wrong = migration("CREATE TABLE orders (id INT); nonsense");
    let failure = world.harness.call("apply_migration", &wrong).await.unwrap_err();
    assert_eq!((failure.kind(), failure.code_text()), (Kind::Permanent, "database"));
    assert!(failure.had_no_effect());
    assert_eq!(dump(&file), before);
    world.harness.call("apply_migration", &migration(UP)).await.unwrap();
    let again = world.harness.call("apply_migration", &migration(UP)).await.unwrap_err();
    assert_eq!(again.code_text(), "already_applied");
}

#[tokio::test]
async fn the_address_of_a_database_is_not_told() {
    let world = World::new();
    // Nobody listens on port 1; the variable is set by `cargo` for the package's own tests.
    let params = json!({
        "database": {"postgres_env": "CARGO_PKG_NAME"},
        "name": "a", "up": "SELECT 1", "down": "SELECT 1",
    });
    let failure = world.harness.call("apply_migration", &params).await.unwrap_err();
    assert!(failure.message().contains("CARGO_PKG_NAME"), "{failure}");
    assert!(!failure.message().contains("remediator-agent"), "{failure}");
    assert!(!world.records().contains("remediator-agent"));
}

#[tokio::test]
async fn processes_are_started_stopped_and_restarted() {
    let world = World::new();
    let root = world.root();
    manifest(&root);
    let params = json!({"manifest": "worker.json"});
    let started = world.harness.call("start_process", &params).await.unwrap();
    assert_eq!((&started["was_running"], &started["is_running"]), (&json!(false), &json!(true)));
    assert!(runs(&root));
    let again = world.harness.call("start_process", &params).await.unwrap();
    assert_eq!(again["pid"], started["pid"]);
    let new = world.harness.call("restart_process", &params).await.unwrap();
    assert_ne!(new["pid"], started["pid"]);
    // Until it has become the program, a new process looks like the old one.
    wait_until(|| count(&root) == 1);
    world.harness.call("stop_process", &params).await.unwrap();
    assert_eq!((runs(&root), count(&root)), (false, 0));
    assert!(!root.join("run/worker.pid").exists());
}

#[tokio::test]
async fn a_process_of_another_is_not_touched_for_its_number() {
    let world = World::new();
    let root = world.root();
    manifest(&root);
    // The test's own number stands in the pid file, as if it had been given out again.
    fs::write(root.join("run/worker.pid"), std::process::id().to_string()).unwrap();
    let params = json!({"manifest": "worker.json"});
    let output = world.harness.call("restart_process", &params).await.unwrap();
    assert_eq!(output["was_running"], false);
    world.harness.call_undo("restart_process", &params, &output).await.unwrap();
    assert_eq!(world.read("run/worker.pid"), std::process::id().to_string());
}

#[tokio::test]
async fn an_undo_leaves_a_process_alone_that_ran_before() {
    let world = World::new();
    let root = world.root();
    manifest(&root);
    let pid = start_elsewhere(&root);
    wait_until(|| count(&root) == 1);
    let params = json!({"manifest": "worker.json"});
    let output = world.harness.call("start_process", &params).await.unwrap();
    assert_eq!((&output["was_running"], &output["pid"]), (&json!(true), &json!(pid)));
    let undone = world.harness.call_undo("start_process", &params, Value::Null).await.unwrap();
    assert_eq!(undone, json!({"restored": false}));
    assert!(runs(&root));
    assert_eq!(world.read("run/worker.pid"), pid.to_string());
}
