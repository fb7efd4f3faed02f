//! Through the agent: inherited fields, refusals.

use agent_sdk::Kind;
use agent_sdk::testing::Harness;
use api_gateway_agent::agent_at;
use project_builder_agent::template::Template;
use serde_json::{Value, json};

use crate::support::World;

fn harness(world: &World) -> Harness {
    Harness::new(agent_at(world.folder.path().join("records")))
}

#[tokio::test]
async fn the_project_comes_from_the_step_before() {
    let world = World::new(Template::TypescriptApi);
    let harness = harness(&world);
    let before = world.snapshot();
    let scaffolded = serde_json::to_value(&world.project).unwrap();
    let outcome = harness.task("create_api").inherited(&scaffolded).run().await;
    let output = outcome.result.unwrap();
    assert_eq!(output["project_dir"], scaffolded["project_dir"]);
    assert_eq!(output["routes"][0], json!({"method": "GET", "path": "/items"}));
    assert!(std::fs::exists(output["openapi"].as_str().unwrap()).unwrap());
    let undone = harness.call_undo("create_api", json!({}), &output).await.unwrap();
    assert_eq!(undone, json!({"removed": true, "kept": []}));
    assert_eq!(world.snapshot(), before);
}

#[tokio::test]
async fn wrong_input_is_rejected_with_its_field() {
    let world = World::new(Template::TypescriptApi);
    let rust = World::new(Template::RustCli);
    let harness = harness(&world);
    let dir = &world.project.project_dir;
    let cases: [(Value, &str); 9] = [
        (json!({}), "`project_dir` is missing"),
        (json!({"project_dir": "here"}), "`project_dir`"),
        (json!({"project_dir": format!("{dir}/../a-project")}), "`project_dir`"),
        (json!({"project_dir": "/nowhere/at/all"}), "`project_dir`"),
        (json!({"project_dir": world.folder.path()}), "orchestrator.project.json"),
        (json!({"project_dir": rust.project.project_dir}), "rust-cli"),
        (json!({"project_dir": dir, "resource": "../x"}), "`resource`"),
        (json!({"project_dir": dir, "routes": ["drop"]}), "routes"),
        (json!({"project_dir": dir, "resources": "a"}), "resources"),
    ];
    for (params, part) in cases {
        let failure = harness.call("create_api", &params).await.unwrap_err();
        assert_eq!(failure.kind(), Kind::Rejected, "{params}: {failure}");
        assert!(failure.message().contains(part), "{params}: {failure}");
        assert!(failure.had_no_effect(), "{params}");
    }
}
