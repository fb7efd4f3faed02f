//! Through the agent: inherited fields, refusals.

use agent_sdk::Kind;
use agent_sdk::testing::Harness;
use deployment_manager_agent::agent_in;
use serde_json::{Value, json};

use crate::support::World;

#[tokio::test]
async fn project_and_target_come_from_the_steps_before() {
    let world = World::new();
    let harness = Harness::new(agent_in(world.workspace.clone()));
    let inherited = json!({"project_dir": world.project(), "name": "shop", "passed": true});
    let first = harness.task("deploy").inherited(&inherited).run().await.result.unwrap();
    assert_eq!(first["project_dir"], inherited["project_dir"]);
    assert_eq!(first["previous"], Value::Null);
    world.write("src/main.txt", "two");
    harness.task("deploy").inherited(&inherited).run().await.result.unwrap();
    assert_eq!(world.live().as_deref(), Some("two"));
    let back = harness.task("rollback").inherited(&first).run().await.result.unwrap();
    assert_eq!((&back["rolled_back"], &back["release"]), (&json!(true), &first["release"]));
    let undone = harness.call_undo("rollback", json!({}), &back).await.unwrap();
    assert_eq!(undone["switched_back"], true);
    let undone = harness.call_undo("deploy", json!({}), Value::Null).await.unwrap();
    assert_eq!(undone, json!({"switched_back": true, "release": first["release"]}));
    assert_eq!(world.live().as_deref(), Some("one"));
}

#[tokio::test]
async fn wrong_input_is_rejected_with_its_field() {
    let world = World::new();
    let harness = Harness::new(agent_in(world.workspace.clone()));
    let dir = world.project();
    let within = dir.join("releases");
    let cases: [(&str, Value, &str); 12] = [
        ("deploy", json!({}), "`project_dir` is missing"),
        ("deploy", json!({"project_dir": "here"}), "`project_dir`"),
        ("deploy", json!({"project_dir": "/nowhere/at/all"}), "`project_dir`"),
        ("deploy", json!({"project_dir": dir.join("src/main.txt")}), "`project_dir`"),
        ("deploy", json!({"project_dir": dir, "name": "../x"}), "`name`"),
        ("deploy", json!({"project_dir": dir, "target": "here"}), "`target`"),
        ("deploy", json!({"project_dir": dir, "target": within}), "`target`"),
        ("deploy", json!({"project_dir": dir, "version": "a/../b"}), "`version`"),
        ("deploy", json!({"project_dir": dir, "keep": 1}), "`keep`"),
        ("deploy", json!({"project_dir": dir, "kept": 1}), "kept"),
        ("rollback", json!({"target": "../x"}), "`target`"),
        ("rollback", json!({"steps": 2}), "steps"),
    ];
    for (action, params, part) in cases {
        let failure = harness.call(action, &params).await.unwrap_err();
        assert_eq!(failure.kind(), Kind::Rejected, "{params}: {failure}");
        assert!(failure.message().contains(part), "{params}: {failure}");
        assert!(failure.had_no_effect(), "{params}");
    }
}
