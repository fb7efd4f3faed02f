//! One second of load from end to end: the real binary, agents in processes of their own, and the
//! checks that nothing is lost or done twice, which fail the measurement.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The binary `orchestrator`, built once; where cargo puts it is a setting of whoever builds, so
/// it is asked.
fn orchestrator() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let built = Command::new(env!("CARGO"))
            .args(["build", "--package", "orchestrator"])
            .arg("--message-format=json-render-diagnostics")
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        let messages = String::from_utf8(built.stdout).unwrap();
        let messages = messages.lines().filter_map(|line| serde_json::from_str(line).ok());
        let mut executables = messages.filter_map(|message: serde_json::Value| {
            message["executable"].as_str().map(PathBuf::from)
        });
        executables.next_back().expect("the binary is built")
    })
}

fn bench(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(arguments)
        .arg("--orchestrator")
        .arg(orchestrator())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_second_of_chains_gives_whole_figures() {
    let told = bench(&[
        "run",
        "--workload",
        "chain",
        "--concurrency",
        "8",
        "--store",
        "sqlite",
        "--seconds",
        "1",
        "--warm-up",
        "0.2",
        "--agents",
        "2",
        "--json",
    ]);
    let all: serde_json::Value = serde_json::from_str(&told).unwrap();
    let figures = &all[0];
    assert_eq!(figures["workload"], "chain");
    for field in ["steps_per_second", "runs_per_second", "server_rss_mb"] {
        assert!(figures[field].as_f64().unwrap() > 0.0, "{field}: {figures}");
    }
    assert!(figures["step"]["count"].as_u64().unwrap() > 0, "{figures}");
    let (p50, p99) = (&figures["run"]["p50_ms"], &figures["run"]["p99_ms"]);
    assert!(p50.as_f64().unwrap() <= p99.as_f64().unwrap(), "{figures}");
}

#[test]
fn the_limit_is_taken_with_the_rows_of_a_run_on_postgresql() {
    let told = bench(&[
        "run",
        "--workload",
        "fan-out",
        "--concurrency",
        "2",
        "--store",
        "postgres",
        "--seconds",
        "1",
        "--warm-up",
        "0.2",
        "--limit",
        "--request-ids",
    ]);
    let line = told.lines().find(|line| line.trim().starts_with("fan-out")).unwrap();
    let limit: f64 = line.split_whitespace().nth(5).unwrap().parse().unwrap();
    assert!(limit > 0.0, "{told}");
}

#[test]
fn a_steady_load_is_looked_at_and_judged() {
    let told = bench(&["soak", "--minutes", "0.2", "--runs-per-second", "20", "--store", "sqlite"]);
    assert!(told.contains("none lost and none twice"), "{told}");
}
