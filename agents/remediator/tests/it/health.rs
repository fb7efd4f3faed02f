//! What is wrong is told as issues.

use agent_sdk::Kind;
use serde_json::json;

use crate::support::{World, manifest, sqlite, start_elsewhere};

fn checks() -> String {
    let issue = |id: &str| json!({"id": id, "title": format!("{id} is wrong"), "severity": "HIGH"});
    json!([
        {"kind": "setting", "file": "a.conf", "key": "port", "equals": "80", "issue": issue("port")},
        {"kind": "process", "manifest": "worker.json", "issue": issue("worker")},
        {"kind": "folder", "folder": "spool", "max_bytes": 5, "issue": issue("spool")},
        {"kind": "key", "file": "api.key", "issue": issue("key")},
        {
            "kind": "sql", "database": {"sqlite": "a.db"},
            "query": "SELECT count(*) FROM orders", "equals": "0", "issue": issue("orders"),
        },
    ])
    .to_string()
}

fn broken() -> World {
    let world = World::new();
    world.write("checks.json", &checks());
    world.write("a.conf", "port = 1\n");
    world.write("spool/full", "more than five");
    world.write("api.key", "key = a\nexpires = 1\n");
    manifest(&world.root());
    sqlite(&world.root().join("a.db"), "CREATE TABLE items (id INT)");
    world
}

#[tokio::test]
async fn everything_that_is_wrong_is_an_issue() {
    let world = broken();
    let health = world.harness.call("check_health", json!({"checks": "checks.json"})).await;
    let health = health.unwrap();
    assert_eq!((&health["healthy"], &health["checked"]), (&json!(false), &json!(5)));
    let issues = health["issues"].as_array().unwrap();
    let ids: Vec<&str> = issues.iter().map(|issue| issue["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["port", "worker", "spool", "key", "orders"]);
    let evidence = |at: usize| issues[at]["evidence"][0].as_str().unwrap();
    assert!(evidence(2).contains("14 bytes"), "{}", evidence(2));
    assert!(evidence(4).contains("no such table"), "{}", evidence(4));
    let expecting = json!({"checks": "checks.json", "expect_healthy": true});
    let failure = world.harness.call("check_health", expecting).await.unwrap_err();
    assert_eq!((failure.kind(), failure.code_text()), (Kind::Permanent, "unhealthy"));
    assert!(failure.had_no_effect() && failure.message().contains("orders is wrong"), "{failure}");
}

#[tokio::test]
async fn what_is_mended_is_no_issue() {
    let world = broken();
    world.write("a.conf", "port = 80\n");
    world.write("spool/full", "");
    world.write("api.key", "key = a\nexpires = 99999999999\n");
    sqlite(&world.root().join("a.db"), "CREATE TABLE orders (id INT)");
    start_elsewhere(&world.root());
    let health = world.harness.call("check_health", json!({"checks": "checks.json"})).await;
    assert_eq!(health.unwrap(), json!({"healthy": true, "checked": 5, "issues": []}));
}
