//! The hello-world agent has at most 25 lines, and works.

use agent_sdk::CancellationToken;
use agent_sdk::testing::{ControlPlane, Harness, task};
use contracts::v1::{payload::Data, task_result::Outcome};
use serde_json::json;

#[expect(dead_code, reason = "its main is not called")]
#[path = "../../examples/hello.rs"]
mod example;

#[test]
fn it_has_at_most_25_lines() {
    let lines = include_str!("../../examples/hello.rs").lines().count();
    assert!(lines <= 25, "{lines} lines");
}

#[tokio::test]
async fn it_greets_over_the_wire() {
    let mut control_plane = ControlPlane::start();
    let shutdown = CancellationToken::new();
    let run = control_plane.run(example::agent(), shutdown.clone());
    let mut peer = control_plane.accept_and_welcome().await;
    assert_eq!(peer.register.agent_type, "greeter");
    let card = peer.register.card.clone().unwrap();
    assert_eq!(card.actions[0].name, "greet");
    let Some(Data::Json(schema)) = card.actions[0].input_schema.clone().unwrap().data else {
        panic!("the schema is JSON");
    };
    assert!(schema.contains(r#""required":["name"]"#), "{schema}");

    peer.assign(task("t1", "greet", &json!({"name": "Ada"}))).await;
    let result = peer.expect_result("t1").await;
    let Some(Outcome::Success(success)) = result.outcome else { panic!("{result:?}") };
    let Some(Data::Json(output)) = success.output.unwrap().data else { panic!("JSON") };
    assert_eq!(output, r#"{"text":"Hello, Ada!"}"#);
    peer.acknowledge("t1", false).await;
    shutdown.cancel();
    run.await.unwrap().unwrap();
}

#[tokio::test]
async fn it_names_the_field_that_is_wrong() {
    let harness = Harness::new(example::agent());
    let failure = harness.call("greet", json!({"name": 7})).await.unwrap_err();
    assert_eq!(failure.kind(), agent_sdk::Kind::Rejected);
    assert_eq!(
        failure.message(),
        "the input is wrong at `name`: invalid type: integer `7`, expected a string"
    );
}
