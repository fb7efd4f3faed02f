//! The three example files as they stand, on the bundled agents.

use std::path::Path;

use agent_sdk::{Action, Agent, Context, Failure, RunConfig};
use contracts::v1::{self, RunStatus};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::support::{DEADLINE, Server, orchestrator};

fn example(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name))
        .unwrap()
}

fn execute(name: &str) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["workflows", "execute", &format!("examples/{name}"), "-o", "json"];
    let output = orchestrator(&arguments, folder.path());
    let stderr = String::from_utf8_lossy(&output.stderr);
    let result: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"));
    assert_eq!(output.status.code(), Some(0), "{result:#}\n{stderr}");
    result
}

#[test]
fn project_build_scaffolds_builds_checks_and_deploys() {
    let result = execute("project-build.yml");
    assert_eq!(result["status"], "success", "{result:#}");
    let steps = result["steps"].as_array().unwrap();
    let ids: Vec<&str> = steps.iter().map(|step| step["stepId"].as_str().unwrap()).collect();
    let expected =
        ["scaffold", "build_api", "quality_check", "security_scan", "performance_test", "deploy"];
    assert_eq!(ids, expected);
    assert!(steps.iter().all(|step| step["status"] == "success"), "{result:#}");
    let output = |id: &str| &steps[expected.iter().position(|one| *one == id).unwrap()]["output"];
    assert_eq!(output("security_scan")["passed"], true);
    assert!(output("performance_test")["requests"].as_u64().unwrap() > 0);
}

#[test]
fn continuous_monitoring_runs_once_and_rolls_nothing_back() {
    let result = execute("continuous-monitoring.yml");
    assert_eq!(result["status"], "success", "{result:#}");
    let last = result["steps"].as_array().unwrap().last().unwrap();
    assert_eq!(last["status"], "skipped", "{result:#}");
}

async fn did(context: Context, _input: Value) -> Result<Value, Failure> {
    Ok(serde_json::json!({ "did": context.action() }))
}

#[tokio::test(flavor = "multi_thread")]
async fn data_pipeline_waits_visibly_until_its_agents_come() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start("up", &folder.path().join("data"), None, &[]);
    let yaml = example("data-pipeline.yml");
    let definition = v1::Definition { yaml: yaml.clone(), ..Default::default() };
    let request = v1::ValidateWorkflowRequest { definition: Some(definition), params: None };
    let said = server.orchestrator().await.validate_workflow(request).await.unwrap();
    let said = said.into_inner();
    assert!(said.valid);
    let warns = |agent: &str| said.complaints.iter().any(|one| one.message.contains(agent));
    assert!(warns("agent16") && warns("agent11"), "{:#?}", said.complaints);

    let run_id = server.start_run(&yaml).await;
    let request = v1::DiagnoseRunRequest { run_id: run_id.clone() };
    let said = server.orchestrator().await.diagnose_run(request).await.unwrap().into_inner();
    assert!(said.findings[0].cause.contains("agent16"), "{said:#?}");

    let shutdown = CancellationToken::new();
    let mut at_work = Vec::new();
    for (name, actions) in [
        ("agent16", &["ingest_data", "transform_data", "validate_data", "export_data"][..]),
        ("agent11", &["analyze_data"][..]),
    ] {
        let mut agent = Agent::new(name, "1.0.0");
        for action in actions {
            agent = agent.action(Action::new(*action, "Says that it did.", did));
        }
        let config = RunConfig { servers: vec![server.url.clone()], ..RunConfig::default() };
        at_work.push(tokio::spawn(agent.run(config, shutdown.clone())));
    }
    let run = server.wait_for_end(&run_id).await;
    assert_eq!(run.status(), RunStatus::Success, "{}", run.error);
    shutdown.cancel();
    for one in at_work {
        tokio::time::timeout(DEADLINE, one).await.unwrap().unwrap().unwrap();
    }
}
