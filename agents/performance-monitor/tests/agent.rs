//! The agent through the harness, on real servers and processes.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use agent_sdk::testing::Harness;
use agent_sdk::{CancellationToken, Failure, Kind};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

fn harness() -> Harness {
    Harness::new(performance_monitor_agent::agent())
}

async fn test(params: Value) -> Result<Value, Failure> {
    harness().call("performance_test", params).await
}

/// A server whose path `/fail` answers 500 and whose path `/close` closes without an answer.
async fn server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    format!("http://{address}")
}

async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut lines = BufReader::new(reader).lines();
    let mut path = None;
    while let Some(line) = lines.next_line().await? {
        path = path.or_else(|| line.split(' ').nth(1).map(str::to_owned));
        if !line.is_empty() {
            continue;
        }
        let status = match path.take().as_deref() {
            Some("/close") => return Ok(()),
            Some("/fail") => "500 Wrong",
            _ => "200 OK",
        };
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nok");
        writer.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_running_server_is_measured() {
    let url = server().await;
    let report = test(json!({"url": url, "requests": 50, "concurrency": 4})).await.unwrap();
    assert_eq!((&report["requests"], &report["errors"]), (&json!(50), &json!(0)));
    assert_eq!(report["passed"], true);
    assert_eq!(report["statuses"], json!({"200": 50}));
    let latency = |name: &str| report["latency_ms"][name].as_f64().unwrap();
    assert!(latency("p50") > 0.0 && latency("p50") <= latency("p90"), "{report}");
    assert!(latency("p90") <= latency("p99") && latency("p99") <= latency("max"), "{report}");
    assert!(report["throughput_rps"].as_f64().unwrap() > 0.0);
}

#[tokio::test]
async fn errors_are_counted_and_fail_the_test() {
    let url = server().await;
    let params = json!({"url": url, "path": "/fail", "requests": 10});
    let report = test(params).await.unwrap();
    assert_eq!((&report["error_rate"], &report["passed"]), (&json!(1.0), &json!(false)));
    assert_eq!(report["statuses"], json!({"500": 10}));
    let params = json!({"url": format!("{url}/close"), "requests": 10});
    let report = test(params).await.unwrap();
    assert_eq!((&report["errors"], &report["latency_ms"]), (&json!(10), &Value::Null));
    let lenient = json!({"url": format!("{url}/fail"), "requests": 5, "max_error_rate": 1});
    assert_eq!(test(lenient).await.unwrap()["passed"], true);
    let fast = json!({"url": url, "requests": 5, "max_p99_ms": 0.000_001});
    assert_eq!(test(fast).await.unwrap()["passed"], false);
}

#[tokio::test]
async fn nobody_listening_is_all_errors() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let report = test(json!({"url": url, "requests": 5})).await.unwrap();
    assert_eq!((&report["errors"], &report["passed"]), (&json!(5), &json!(false)));
}

#[tokio::test]
async fn wrong_input_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let url = "http://127.0.0.1:1";
    for (params, field) in [
        (json!({}), "project_dir"),
        (json!({"project_dir": "a"}), "project_dir"),
        (json!({"project_dir": folder.path()}), "orchestrator.project.json"),
        (json!({"url": "http://192.0.2.1/"}), "allow_remote"),
        (json!({"url": url, "path": "x"}), "path"),
        (json!({"url": url, "requests": 0}), "requests"),
        (json!({"url": url, "concurrency": 65}), "concurrency"),
        (json!({"url": url, "duration": "soon"}), "duration"),
        (json!({"url": url, "duration": "1h"}), "duration"),
        (json!({"url": url, "max_error_rate": 2}), "max_error_rate"),
        (json!({"url": url, "oops": 1}), "oops"),
    ] {
        let failure = test(params).await.unwrap_err();
        assert_eq!(failure.kind(), Kind::Rejected, "{failure}");
        assert!(failure.message().contains(field), "{field}: {failure}");
    }
}

fn project(folder: &Path, start: &[&str], is_server: bool) -> Value {
    let port = is_server.then_some("PORT");
    let manifest = json!({"name": "my-project", "start": start, "port_env": port});
    fs::write(folder.join("orchestrator.project.json"), manifest.to_string()).unwrap();
    json!({"project_dir": folder})
}

#[tokio::test]
async fn what_cannot_be_started_is_said_clearly() {
    let folder = tempfile::tempdir().unwrap();
    let missing = project(folder.path(), &["no-such-runtime", "x.js"], true);
    let failure = test(missing).await.unwrap_err();
    assert_eq!(failure.kind(), Kind::Permanent);
    assert!(failure.message().contains("`no-such-runtime`"), "{failure}");
    assert!(failure.message().contains("not installed"), "{failure}");
    for is_server in [true, false] {
        let script = "echo no such module; exit 3";
        let ends = project(folder.path(), &["sh", "-c", script], is_server);
        let failure = test(ends).await.unwrap_err();
        assert!(failure.message().contains("no such module"), "{failure}");
        assert!(failure.message().contains('3'), "{failure}");
    }
}

#[tokio::test]
async fn the_starts_of_a_command_are_measured() {
    let folder = tempfile::tempdir().unwrap();
    let mut params = project(folder.path(), &["sh", "-c", "echo x >> runs"], false);
    params["requests"] = json!(3);
    let report = test(params).await.unwrap();
    assert_eq!((&report["kind"], &report["url"]), (&json!("command"), &Value::Null));
    assert_eq!((&report["requests"], &report["passed"]), (&json!(3), &json!(true)));
    let runs = fs::read_to_string(folder.path().join("runs")).unwrap();
    assert_eq!(runs.lines().count(), 4);
}

#[tokio::test]
async fn a_cancelled_test_leaves_no_process() {
    let folder = tempfile::tempdir().unwrap();
    let script = "echo $$ > pid.new; mv pid.new pid; sleep 1000; true";
    let params = project(folder.path(), &["sh", "-c", script], true);
    let token = CancellationToken::new();
    let harness = harness();
    let call = harness.task("performance_test").cancelled_by(token.clone());
    let started = folder.path().join("pid");
    let cancel = async {
        while !started.exists() {
            tokio::task::yield_now().await;
        }
        token.cancel();
    };
    let both = futures::future::join(call.params(params).run(), cancel);
    let (outcome, ()) = tokio::time::timeout(Duration::from_secs(10), both).await.unwrap();
    assert_eq!(outcome.result.unwrap_err().kind(), Kind::Cancelled);
    let id = fs::read_to_string(started).unwrap();
    let status = format!("/proc/{}/status", id.trim());
    let gone = async {
        // It may be a zombie until somebody asks how it ended.
        while fs::read_to_string(&status).is_ok_and(|text| !text.contains("State:\tZ")) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
}

#[tokio::test]
async fn scaffolded_projects_are_measured() {
    let folder = tempfile::tempdir().unwrap();
    let workspace = project_builder_agent::workspace::Workspace::at(folder.path());
    let builder = Harness::new(project_builder_agent::agent_in(workspace));
    let gateway = Harness::new(api_gateway_agent::agent_at(folder.path().join("records")));
    for (template, kind) in
        [("typescript-api", "server"), ("python-service", "server"), ("rust-cli", "command")]
    {
        let params = json!({"template": template, "name": template});
        let project = builder.call("scaffold_project", params).await.unwrap();
        if kind == "server" {
            let call = gateway.task("create_api").inherited(&project);
            call.run().await.result.unwrap();
        }
        let files = || fs::read_dir(project["project_dir"].as_str().unwrap()).unwrap().count();
        let before = files();
        let harness = harness();
        let call = harness.task("performance_test").inherited(&project);
        let report = call.run().await.result.unwrap();
        assert_eq!(report["kind"], kind);
        assert_eq!(report["passed"], true, "{template}: {report:#}");
        assert_eq!(report["project_dir"], project["project_dir"]);
        assert_eq!(files(), before, "it leaves no file");
    }
}

#[tokio::test]
async fn metrics_are_collected() {
    let metrics = harness().call("collect_metrics", json!({})).await.unwrap();
    assert!(metrics["memory"]["total_bytes"].as_u64().unwrap() > 0);
    assert!(metrics["collected_at"].as_str().unwrap().ends_with('Z'));
}
