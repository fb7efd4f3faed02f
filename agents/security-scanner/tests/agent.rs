//! The agent through the harness, on real folders.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;

use agent_sdk::testing::Harness;
use agent_sdk::{CancellationToken, Failure, Kind};
use serde_json::{Value, json};

fn write(folder: &Path, path: &str, text: impl AsRef<[u8]>) {
    let path = folder.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

async fn scan(folder: &Path, mut params: Value) -> Result<Value, Failure> {
    params["project_dir"] = json!(folder);
    let harness = Harness::new(security_scanner_agent::agent());
    harness.call("security_scan", params).await
}

fn found(report: &Value) -> Vec<String> {
    let findings = report["findings"].as_array().unwrap();
    let show = |finding: &Value| {
        let text = |field: &str| finding[field].as_str().unwrap().to_owned();
        let (rule, severity) = (text("rule"), text("severity"));
        format!("{severity} {rule} {}:{}", text("file"), finding["line"])
    };
    findings.iter().map(show).collect()
}

/// Put together, so that this file bears none itself.
fn aws_key() -> String {
    ["AKIA", "IOSFODNN7EXAMPLE"].concat()
}

#[tokio::test]
async fn all_three_kinds_are_found_and_no_secret_is_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write(path, "src/a.ts", format!("const x = 1;\nconst key = '{}';\n", aws_key()));
    write(path, "src/b.py", "import pickle\nx = pickle.loads(data)\n");
    let manifest = "{\n  \"dependencies\": {\n    \"lodash\": \"4.17.20\"\n  }\n}\n";
    write(path, "package.json", manifest);
    write(path, "requirements.txt", "pyyaml==5.3\nrequests>=2.0\n");
    write(path, "node_modules/x/index.js", "eval(x)\n");
    let report = scan(path, json!({})).await.unwrap();
    let expect = [
        "critical vulnerable-dependency requirements.txt:1",
        "high vulnerable-dependency package.json:3",
        "high secret-aws-key src/a.ts:2",
        "high dangerous-unpickling src/b.py:2",
    ];
    let found = found(&report);
    assert_eq!(found[..4], expect, "{report:#}");
    assert_eq!(report["passed"], false);
    assert_eq!(report["counts"]["critical"], 1);
    assert_eq!(report["counts"]["high"], 3);
    assert_eq!(report["project_dir"], json!(path));
    assert!(!report.to_string().contains(&aws_key()));
}

#[tokio::test]
async fn a_lock_file_decides_over_ranges() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write(path, "package.json", "{\"dependencies\": {\"lodash\": \"^4.17.0\"}}");
    let report = scan(path, json!({})).await.unwrap();
    assert_eq!(found(&report), ["medium vulnerable-dependency package.json:1"]);
    assert_eq!(report["passed"], true);
    let lock = |version: &str| {
        json!({"packages": {"node_modules/lodash": {"version": version}}}).to_string()
    };
    write(path, "package-lock.json", lock("4.17.21"));
    assert_eq!(found(&scan(path, json!({})).await.unwrap()), [""; 0]);
    write(path, "package-lock.json", lock("4.17.20"));
    let report = scan(path, json!({})).await.unwrap();
    assert_eq!(found(&report), ["high vulnerable-dependency package-lock.json:1"]);
    assert_eq!(report["findings"][0]["advisory"], "CVE-2021-23337");
}

#[tokio::test]
async fn what_is_allowed_is_counted_and_not_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write(path, "a/x.js", "eval(x)\n");
    write(path, "b/y.js", "eval(x)\n");
    write(path, "package.json", "{\"dependencies\": {\"lodash\": \"4.17.20\"}}");
    let allow = json!({"allow": ["dangerous-eval:a/", "CVE-2021-23337"]});
    let report = scan(path, allow).await.unwrap();
    assert_eq!(found(&report), ["high dangerous-eval b/y.js:1"]);
    assert_eq!(report["counts"]["allowed"], 2);
    let allow = json!({"allow": ["dangerous-eval", "CVE-2021-23337:package.json"]});
    assert_eq!(scan(path, allow).await.unwrap()["passed"], true);
}

#[tokio::test]
async fn advisories_of_ones_own_take_the_place_of_the_shipped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write(path, "requirements.txt", "ours==1.0\npyyaml==5.3\n");
    let advisory = json!({
        "id": "OURS-1", "ecosystem": "pypi", "package": "Ours", "vulnerable": ["<1.1.0"],
        "severity": "high", "title": "it leaks",
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), json!({"advisories": [advisory]}).to_string()).unwrap();
    let report = scan(path, json!({"advisories": file.path()})).await.unwrap();
    assert_eq!(found(&report), ["high vulnerable-dependency requirements.txt:1"]);
    let message = report["findings"][0]["message"].as_str().unwrap();
    assert!(message.contains("OURS-1") && message.contains("no release"), "{message}");
}

#[tokio::test]
async fn odd_files_are_survived_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write(path, "latin.py", b"# caf\xe9\neval(x)\n");
    write(path, "binary.js", b"\0eval(x)");
    write(path, "huge.js", vec![b'a'; 2 * 1024 * 1024]);
    write(path, "package.json", "{ broken");
    #[cfg(unix)]
    std::os::unix::fs::symlink(path, path.join("loop")).unwrap();
    let report = scan(path, json!({})).await.unwrap();
    let expect = [
        "high dangerous-eval latin.py:2",
        "medium not-scanned package.json:1",
        "low not-scanned huge.js:1",
    ];
    assert_eq!(found(&report), expect);
}

#[tokio::test]
async fn wrong_input_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    for (params, field) in [
        (json!({"advisories": "a.json"}), "advisories"),
        (json!({"advisories": "/no/such.json"}), "advisories"),
        (json!({"allow": [":x"]}), "allow[0]"),
        (json!({"allow": "all"}), "allow"),
        (json!({"oops": 1}), "oops"),
    ] {
        let failure = scan(folder.path(), params).await.unwrap_err();
        assert_eq!(failure.kind(), Kind::Rejected, "{failure}");
        assert!(failure.message().contains(field), "{failure}");
    }
    let harness = Harness::new(security_scanner_agent::agent());
    let failure = harness.call("security_scan", json!({})).await.unwrap_err();
    assert!(failure.message().contains("project_dir"), "{failure}");
}

#[tokio::test]
async fn a_cancelled_scan_stops() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.py", "x = 1\n");
    let token = CancellationToken::new();
    token.cancel();
    let harness = Harness::new(security_scanner_agent::agent());
    let call = harness.task("security_scan").cancelled_by(token);
    let outcome = call.params(json!({"project_dir": folder.path()})).run().await;
    assert!(outcome.result.is_err());
}

#[tokio::test]
async fn scaffolded_projects_pass_with_and_without_an_api() {
    let folder = tempfile::tempdir().unwrap();
    let workspace = project_builder_agent::workspace::Workspace::at(folder.path());
    let builder = Harness::new(project_builder_agent::agent_in(workspace));
    let gateway = Harness::new(api_gateway_agent::agent_at(folder.path().join("records")));
    let scanner = Harness::new(security_scanner_agent::agent());
    for template in ["typescript-api", "python-service", "rust-cli"] {
        let params = json!({"template": template, "name": template});
        let project = builder.call("scaffold_project", params).await.unwrap();
        if template != "rust-cli" {
            let call = gateway.task("create_api").inherited(&project);
            call.run().await.result.unwrap();
        }
        let call = scanner.task("security_scan").inherited(&project);
        let report = call.run().await.result.unwrap();
        assert_eq!(report["passed"], true, "{report:#}");
        assert!(report["files"].as_u64().unwrap() > 0);
        assert_eq!(report["project_dir"], project["project_dir"]);
    }
}
