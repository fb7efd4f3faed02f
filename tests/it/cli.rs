//! The command line from outside: what it prints, and with what it exits.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::support::orchestrator;

const CHAIN: &str = "
name: chain
version: 1.0.0
params:
  start: {type: integer, default: 1}
  who: {type: string}
steps:
  - {id: a, agent: echo, action: echo, params: {n: '${{ params.start }}', who: '${{ params.who }}'}}
  - {id: b, agent: echo, action: echo, params: {big: 9007199254740993, z: 1, a: '${{ a.n + 1 }}'}}
outputs: {n: b.a, who: a.who}
";

fn execute(yaml: &str, more: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("flow.yml");
    std::fs::write(&file, yaml).unwrap();
    let mut arguments = vec!["workflows", "execute", file.to_str().unwrap()];
    arguments.extend(more);
    orchestrator(&arguments, folder.path())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_run_gives_one_result_in_json_and_nothing_else() {
    let output = execute(CHAIN, &["--param", "start=41", "--param", "who=7", "-o", "json"]);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let result: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(result["status"], "success");
    assert_eq!(result["outputs"], json!({"n": 42, "who": "7"}));
    assert_eq!(result["metrics"]["totalSteps"], 2);
    assert_eq!(result["metrics"]["successfulSteps"], 2);
    assert_eq!(result["steps"][1]["stepId"], "b");
    assert_eq!(result["steps"][1]["agent"], "echo");
    assert!(result["duration"].as_str().unwrap().ends_with('s'));
    assert!(result["startTime"].as_str().unwrap().ends_with('Z'));
    assert!(stdout.contains(r#"{"big":9007199254740993,"z":1,"a":42}"#), "{stdout}");
}

#[test]
fn a_failed_run_exits_with_1_and_says_which_step_and_why() {
    let yaml = CHAIN.replace(
        "echo, action: echo, params: {big: 9007199254740993, z: 1, a: '${{ a.n + 1 }}'}",
        "echo, action: fail, params: {message: boom}",
    );
    let yaml = yaml.replace("n: b.a", "n: a.n");
    let output = execute(&yaml, &[]);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("boom") && said.contains('b'), "{said}");
}

#[test]
fn a_wrong_file_exits_with_2_and_tells_every_complaint_at_its_place() {
    let yaml =
        "name: wrong\nsteps:\n  - id: a\n    agent: echo\n    actoin: echo\n    timeout: soon\n";
    let output = execute(yaml, &["-o", "json"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    let said: Value = serde_json::from_str(&text(&output.stdout)).unwrap();
    let complaints = said["complaints"].as_array().unwrap();
    let typo = complaints.iter().find(|one| one["line"] == 5).unwrap();
    assert_eq!(typo["column"], 5);
    assert_eq!(typo["suggestion"], "action");
    assert!(complaints.iter().any(|one| one["line"] == 6 && one["column"] == 14), "{said}");
    let shown = text(&execute(yaml, &[]).stderr);
    assert!(shown.contains("flow.yml:5:5"), "{shown}");
}

#[test]
fn a_wrong_parameter_exits_with_2_and_names_its_path() {
    let output = execute(CHAIN, &["--param", "start=soon"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("start"), "{said}");
    assert_eq!(execute(CHAIN, &["--param", "strat=1"]).status.code(), Some(2));
}

#[test]
fn an_unknown_agent_fails_at_once_and_is_named() {
    let yaml = "name: t\nsteps:\n  - {agent: agent16, action: ingest_data}\n";
    let output = execute(yaml, &[]);
    let said = text(&output.stderr);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{said}");
    assert!(said.contains("agent16"), "{said}");
}

#[test]
fn a_server_that_is_not_there_exits_with_3() {
    let arguments = ["runs", "list", "--server", "http://127.0.0.1:1"];
    let output = orchestrator(&arguments, Path::new("/tmp"));
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
}

#[test]
fn an_unknown_word_exits_with_2() {
    let output = orchestrator(&["runs", "lsit"], Path::new("/tmp"));
    assert_eq!(output.status.code(), Some(2));
}
