//! Through the agent: what a step gives on, refusals.

use std::path::Path;

use agent_sdk::Kind;
use agent_sdk::testing::Harness;
use project_builder_agent::agent_in;
use project_builder_agent::workspace::Workspace;
use serde_json::{Value, json};

#[tokio::test]
async fn a_step_makes_a_project_and_its_undo_removes_it() {
    let folder = tempfile::tempdir().unwrap();
    let harness = Harness::new(agent_in(Workspace::at(folder.path())));
    let params = json!({"template": "typescript-api", "name": "my-project"});
    let output = harness.call("scaffold_project", &params).await.unwrap();
    let project = Path::new(output["project_dir"].as_str().unwrap()).to_owned();
    assert!(project.ends_with("run-1/my-project"), "{output}");
    assert_eq!((&output["name"], &output["template"]), (&params["name"], &params["template"]));
    for file in output["files"].as_array().unwrap() {
        assert!(project.join(file.as_str().unwrap()).is_file(), "{file}");
    }
    let undone = harness.call_undo("scaffold_project", &params, &output).await.unwrap();
    assert_eq!((&undone["removed"], &undone["kept"]), (&json!(true), &json!([])));
    assert!(!project.exists());
}

#[tokio::test]
async fn wrong_input_is_rejected_with_its_field() {
    let folder = tempfile::tempdir().unwrap();
    let harness = Harness::new(agent_in(Workspace::at(folder.path())));
    let cases: [(Value, &str); 7] = [
        (json!({"name": "a"}), "template"),
        (json!({"template": "cobol", "name": "a"}), "template"),
        (json!({"template": "rust-cli"}), "name"),
        (json!({"template": "rust-cli", "name": "../a"}), "`name`"),
        (json!({"template": "rust-cli", "name": "deps"}), "cargo"),
        (json!({"template": "rust-cli", "name": "a", "directory": "here"}), "`directory`"),
        (json!({"template": "rust-cli", "name": "a", "folder": "/here"}), "folder"),
    ];
    for (params, part) in cases {
        let failure = harness.call("scaffold_project", &params).await.unwrap_err();
        assert_eq!(failure.kind(), Kind::Rejected, "{params}: {failure}");
        assert!(failure.message().contains(part), "{params}: {failure}");
        assert!(failure.had_no_effect(), "{params}");
    }
    assert!(!folder.path().join("run-1").exists());
}
