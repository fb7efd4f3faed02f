//! The undo contract. What counts as outside is the release that users see and the releases
//! that there are; the target's lock stays.

use std::fs;
use std::path::PathBuf;

use agent_sdk::Agent;
use agent_sdk::testing::conformance::{Place, Undoable, survives_kill, undo_contract};
use deployment_manager_agent::deploy::{self, Deploy};
use deployment_manager_agent::workspace::Workspace;
use serde_json::{Value, json};

use crate::support::names;

/// Two releases are there before.
fn prepare(place: &Place) {
    let project = place.records.join("project");
    fs::create_dir_all(&project).unwrap();
    let manifest = r#"{"name": "shop", "version": "1.2.3"}"#;
    fs::write(project.join("orchestrator.project.json"), manifest).unwrap();
    for text in ["one", "two"] {
        fs::write(project.join("main.txt"), text).unwrap();
        let wish = Deploy {
            project_dir: Some(project.display().to_string()),
            target: Some(target(place).display().to_string()),
            ..Deploy::default()
        };
        deploy::deploy(&workspace(place), text, &wish, &|| false).unwrap();
    }
    fs::write(project.join("main.txt"), "three").unwrap();
}

fn workspace(place: &Place) -> Workspace {
    Workspace::at(place.records.join("workspace"))
}

fn target(place: &Place) -> PathBuf {
    place.outside.join("shop")
}

fn look(place: &Place) -> String {
    let live = fs::read_to_string(target(place).join("current/main.txt")).unwrap();
    format!("{live} of {:?}", names(&target(place).join("releases")))
}

struct DeployProject;

impl Undoable for DeployProject {
    fn prepare(&self, place: &Place) {
        prepare(place);
    }

    fn agent(&self, place: &Place) -> Agent {
        deployment_manager_agent::agent_in(workspace(place))
    }

    fn action(&self) -> &'static str {
        "deploy"
    }

    fn params(&self, place: &Place) -> Value {
        json!({"project_dir": place.records.join("project"), "target": target(place)})
    }

    fn look(&self, place: &Place) -> String {
        look(place)
    }
}

struct GoBack;

impl Undoable for GoBack {
    fn prepare(&self, place: &Place) {
        prepare(place);
    }

    fn agent(&self, place: &Place) -> Agent {
        deployment_manager_agent::agent_in(workspace(place))
    }

    fn action(&self) -> &'static str {
        "rollback"
    }

    fn params(&self, place: &Place) -> Value {
        json!({"target": target(place)})
    }

    fn look(&self, place: &Place) -> String {
        look(place)
    }
}

#[tokio::test]
async fn deploy_keeps_the_undo_contract() {
    undo_contract(&DeployProject).await;
}

#[tokio::test]
async fn rollback_keeps_the_undo_contract() {
    undo_contract(&GoBack).await;
}

#[tokio::test]
async fn deploy_survives_kill() {
    survives_kill("undo::deploy_survives_kill", &DeployProject).await;
}

#[tokio::test]
async fn rollback_survives_kill() {
    survives_kill("undo::rollback_survives_kill", &GoBack).await;
}
