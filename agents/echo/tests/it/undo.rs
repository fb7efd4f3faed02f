//! The undo contract.

use std::fs;

use agent_sdk::Agent;
use agent_sdk::testing::conformance::{Place, Undoable, survives_kill, undo_contract};
use serde_json::{Value, json};

struct Append;

impl Undoable for Append {
    fn prepare(&self, place: &Place) {
        fs::write(place.outside.join("f"), "there before\n").unwrap();
    }

    fn agent(&self, _place: &Place) -> Agent {
        echo_agent::agent()
    }

    fn action(&self) -> &'static str {
        "append"
    }

    fn params(&self, place: &Place) -> Value {
        json!({"file": place.outside.join("f"), "line": "new"})
    }

    fn look(&self, place: &Place) -> String {
        fs::read_to_string(place.outside.join("f")).unwrap()
    }
}

#[tokio::test]
async fn append_keeps_the_undo_contract() {
    undo_contract(&Append).await;
}

#[tokio::test]
async fn append_survives_kill() {
    survives_kill("undo::append_survives_kill", &Append).await;
}
