//! The undo contract.

use agent_sdk::Agent;
use agent_sdk::testing::conformance::{Place, Undoable, survives_kill, undo_contract};
use project_builder_agent::scaffold::{Builder, Scaffold};
use project_builder_agent::template::Template;
use project_builder_agent::workspace::Workspace;
use serde_json::{Value, json};

struct CreateApi;

impl Undoable for CreateApi {
    fn prepare(&self, place: &Place) {
        let workspace = Workspace::at(place.records.join("workspace"));
        let wish = Scaffold {
            template: Template::PythonService,
            name: "shop".to_owned(),
            directory: Some(place.outside.display().to_string()),
        };
        Builder::new(&workspace).unwrap().scaffold("scaffold", "run", &wish).unwrap();
    }

    fn agent(&self, place: &Place) -> Agent {
        api_gateway_agent::agent_at(place.records.join("api-gateway"))
    }

    fn action(&self) -> &'static str {
        "create_api"
    }

    fn params(&self, place: &Place) -> Value {
        json!({"project_dir": place.outside.join("shop"), "resource": "orders"})
    }
}

#[tokio::test]
async fn create_api_keeps_the_undo_contract() {
    undo_contract(&CreateApi).await;
}

#[tokio::test]
async fn create_api_survives_kill() {
    survives_kill("undo::create_api_survives_kill", &CreateApi).await;
}
