//! The undo contract.

use agent_sdk::Agent;
use agent_sdk::testing::conformance::{Place, Undoable, survives_kill, undo_contract};
use project_builder_agent::workspace::Workspace;
use serde_json::{Value, json};

struct ScaffoldProject;

impl Undoable for ScaffoldProject {
    fn prepare(&self, place: &Place) {
        std::fs::write(place.outside.join("mine"), "there before").unwrap();
    }

    fn agent(&self, place: &Place) -> Agent {
        project_builder_agent::agent_in(Workspace::at(&place.records))
    }

    fn action(&self) -> &'static str {
        "scaffold_project"
    }

    fn params(&self, place: &Place) -> Value {
        json!({"template": "rust-cli", "name": "shop", "directory": place.outside})
    }
}

#[tokio::test]
async fn scaffold_project_keeps_the_undo_contract() {
    undo_contract(&ScaffoldProject).await;
}

#[tokio::test]
async fn scaffold_project_survives_kill() {
    survives_kill("undo::scaffold_project_survives_kill", &ScaffoldProject).await;
}
