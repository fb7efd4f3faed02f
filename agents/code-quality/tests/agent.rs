//! The agent through the harness, on real folders.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;

use agent_sdk::testing::Harness;
use agent_sdk::{CancellationToken, Failure};
use serde_json::{Value, json};

fn write(folder: &Path, path: &str, text: impl AsRef<[u8]>) {
    let path = folder.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

async fn check(folder: &Path, mut params: Value) -> Result<Value, Failure> {
    params["project_dir"] = json!(folder);
    let harness = Harness::new(code_quality_agent::agent());
    harness.call("code_quality_check", params).await
}

fn rules(report: &Value) -> Vec<String> {
    let findings = report["findings"].as_array().unwrap();
    let show = |finding: &Value| {
        let text = |field: &str| finding[field].as_str().unwrap().to_owned();
        format!("{} {}:{}", text("rule"), text("file"), finding["line"])
    };
    findings.iter().map(show).collect()
}

#[tokio::test]
async fn each_measure_is_reported_at_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let branches = "  if (a) { b(); }\n".repeat(16);
    write(path, "complex.ts", format!("function f(a: number) {{\n{branches}}}\n"));
    let lines = "    x = 1\n".repeat(71);
    write(path, "long.py", format!("# {}: later\ndef f():\n{lines}", concat!("TO", "DO")));
    let deep = "fn f() { if a { if b { if c { if d { if e { g() } } } } } }\n";
    write(path, "deep.rs", deep);
    write(path, "broken.js", "function (\n");
    let body: String = (0..20).map(|number| format!("call_{number}(a, {number});\n")).collect();
    write(path, "one.js", &body);
    write(path, "two.js", format!("const own = 1;\n{body}"));
    write(path, "latin.py", b"x = '\xe9' \n");
    write(path, "node_modules/x/bad.js", "function (\n");
    let report = check(path, json!({})).await.unwrap();
    let rules = rules(&report);
    for expect in [
        "syntax-error broken.js:1",
        "complexity complex.ts:1",
        "nesting deep.rs:1",
        "long-function long.py:2",
        "duplicate two.js:2",
        "encoding latin.py:1",
        "trailing-blanks latin.py:1",
        "open-mark long.py:1",
    ] {
        assert!(rules.iter().any(|rule| rule == expect), "{expect}: {rules:?}");
    }
    assert!(!rules.iter().any(|rule| rule.contains("node_modules")), "{rules:?}");
    assert_eq!(report["passed"], false);
    assert_eq!(report["files"], 7);
    assert_eq!(report["project_dir"], json!(path));
}

#[tokio::test]
async fn the_score_to_reach_and_the_number_of_findings_are_told() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.py", "x = 1 \ny = 2");
    let report = check(folder.path(), json!({"max_findings": 1})).await.unwrap();
    assert_eq!(report["score"], 99.0);
    assert_eq!(report["passed"], true);
    assert_eq!(report["findings"].as_array().unwrap().len(), 1);
    assert_eq!(report["findings_total"], 2);
    let strict = check(folder.path(), json!({"min_score": 99.5})).await.unwrap();
    assert_eq!(strict["passed"], false);
}

#[tokio::test]
async fn an_empty_project_and_odd_files_are_survived() {
    let folder = tempfile::tempdir().unwrap();
    let report = check(folder.path(), json!({})).await.unwrap();
    assert_eq!((&report["score"], &report["files"]), (&json!(100.0), &json!(0)));
    let path = folder.path();
    write(path, "binary.ts", [0, 159, 146, 150]);
    write(path, "huge.rs", vec![b'x'; 2 * 1024 * 1024]);
    write(path, "one-line.js", format!("var a = [{}];", "1,".repeat(200_000)));
    write(path, "deep.py", format!("x = {}", "[".repeat(100_000)));
    #[cfg(unix)]
    std::os::unix::fs::symlink(path, path.join("loop")).unwrap();
    let report = check(path, json!({})).await.unwrap();
    assert_eq!(report["files"], 2);
    assert!(rules(&report).contains(&"long-file huge.rs:1".to_owned()));
    assert_eq!(report["passed_over"], 1);
}

#[tokio::test]
async fn wrong_input_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    for (params, field) in [
        (json!({"min_score": 101}), "min_score"),
        (json!({"max_findings": 5000}), "max_findings"),
        (json!({"max_findings": "all"}), "max_findings"),
        (json!({"oops": 1}), "oops"),
    ] {
        let failure = check(folder.path(), params).await.unwrap_err();
        assert_eq!(failure.kind(), agent_sdk::Kind::Rejected, "{failure}");
        assert!(failure.message().contains(field), "{failure}");
    }
    let harness = Harness::new(code_quality_agent::agent());
    for params in [json!({}), json!({"project_dir": "a/b"}), json!({"project_dir": "/no/such"})] {
        let failure = harness.call("code_quality_check", params).await.unwrap_err();
        assert!(failure.message().contains("project_dir"), "{failure}");
    }
}

#[tokio::test]
async fn a_cancelled_check_stops() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.py", "x = 1\n");
    let token = CancellationToken::new();
    token.cancel();
    let harness = Harness::new(code_quality_agent::agent());
    let call = harness.task("code_quality_check").cancelled_by(token);
    let outcome = call.params(json!({"project_dir": folder.path()})).run().await;
    assert!(outcome.result.is_err());
}

#[tokio::test]
async fn scaffolded_projects_pass_with_what_they_hand_on() {
    let workspace = tempfile::tempdir().unwrap();
    let workspace = project_builder_agent::workspace::Workspace::at(workspace.path());
    let builder = Harness::new(project_builder_agent::agent_in(workspace));
    let checker = Harness::new(code_quality_agent::agent());
    for template in ["typescript-api", "python-service", "rust-cli"] {
        let params = json!({"template": template, "name": template});
        let project = builder.call("scaffold_project", params).await.unwrap();
        let call = checker.task("code_quality_check").inherited(&project);
        let report = call.run().await.result.unwrap();
        assert_eq!(report["passed"], true, "{report:#}");
        assert!(report["files"].as_u64().unwrap() > 0);
        assert_eq!(report["project_dir"], project["project_dir"]);
    }
}
