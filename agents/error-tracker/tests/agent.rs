//! The agent through the harness, on a real log.
#![expect(clippy::unwrap_used, reason = "tests")]

use agent_sdk::testing::Harness;
use agent_sdk::testing::conformance::{Place, Undoable, survives_kill, undo_contract};
use agent_sdk::{Agent, Kind};
use error_tracker_agent::tracker::{TrackErrors, Tracker};
use serde_json::{Value, json};

fn harness(folder: &tempfile::TempDir) -> Harness {
    Harness::new(error_tracker_agent::agent_at(folder.path().join("log")))
}

#[tokio::test]
async fn with_nothing_logged_no_rollback_is_due() {
    let folder = tempfile::tempdir().unwrap();
    let tracked = harness(&folder).call("track_errors", json!({})).await.unwrap();
    assert_eq!(tracked["error_rate"], 0.0);
    assert_eq!(tracked["errors"], 0);
    assert_eq!(tracked["fingerprints"], json!([]));
}

#[tokio::test]
async fn a_failed_step_is_logged_without_params_and_counts() {
    let folder = tempfile::tempdir().unwrap();
    let harness = harness(&folder);
    let failure = json!({"step": "deploy", "error": "no space left on /dev/sda1"});
    let call = harness.task("log_error").run_id("run-7").inherited(failure);
    let logged = call.run().await.result.unwrap();
    assert_eq!(logged["message"], "no space left on /dev/sda1");
    assert_eq!((&logged["step"], &logged["run"]), (&json!("deploy"), &json!("run-7")));
    let tracked = harness.call("track_errors", json!({"window": "1h"})).await.unwrap();
    assert_eq!(tracked["errors"], 1);
    assert_eq!(tracked["fingerprints"][0]["fingerprint"], logged["fingerprint"]);
    let short = harness.call("track_errors", json!({})).await.unwrap();
    assert!(short["error_rate"].as_f64().unwrap() > 0.05, "{short}");
    let told = harness.call("track_errors", json!({"total": 100})).await.unwrap();
    assert_eq!(told["error_rate"], 0.01);
}

#[tokio::test]
async fn a_repeated_task_logs_once_and_its_undo_removes_that_record() {
    let folder = tempfile::tempdir().unwrap();
    let harness = harness(&folder);
    let log = |key: &'static str, message: &'static str| {
        let call = harness.task("log_error").key(key);
        call.params(json!({"message": message})).run()
    };
    let first = log("a", "one").await.result.unwrap();
    let again = log("a", "one").await.result.unwrap();
    assert_eq!(first, again);
    log("b", "two").await.result.unwrap();
    let undo =
        |key: &'static str| harness.undo_task("log_error", json!({}), Value::Null).key(key).run();
    assert_eq!(undo("a").await.result.unwrap()["removed"], true);
    assert_eq!(undo("a").await.result.unwrap()["removed"], false);
    let tracked = harness.call("track_errors", json!({})).await.unwrap();
    assert_eq!(tracked["errors"], 1);
    assert_eq!(tracked["fingerprints"][0]["message"], "two");
    assert_eq!(undo("c").await.result.unwrap()["removed"], false);
    let late = log("c", "late").await.result.unwrap_err();
    assert_eq!((late.kind(), late.code_text()), (Kind::Rejected, "undone"));
}

#[tokio::test]
async fn the_log_outlives_the_agent() {
    let folder = tempfile::tempdir().unwrap();
    let params = json!({"message": "token=abcdef123 was refused"});
    harness(&folder).call("log_error", params).await.unwrap();
    let tracked = harness(&folder).call("track_errors", json!({})).await.unwrap();
    assert_eq!(tracked["fingerprints"][0]["message"], "token=**** was refused");
    let text = std::fs::read_to_string(folder.path().join("log/errors.jsonl")).unwrap();
    assert!(!text.contains("abcdef123"), "{text}");
}

#[tokio::test]
async fn wrong_input_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let harness = harness(&folder);
    for (action, params, field) in [
        ("track_errors", json!({"window": "soon"}), "window"),
        ("track_errors", json!({"total": -1}), "total"),
        ("track_errors", json!({"oops": 1}), "oops"),
        ("log_error", json!({"message": 3}), "message"),
    ] {
        let failure = harness.call(action, params).await.unwrap_err();
        assert_eq!(failure.kind(), Kind::Rejected, "{failure}");
        assert!(failure.message().contains(field), "{failure}");
    }
}

/// The undo contract; what is outside is what `track_errors` tells.
struct LogError;

impl Undoable for LogError {
    fn prepare(&self, _place: &Place) {}

    fn agent(&self, place: &Place) -> Agent {
        error_tracker_agent::agent_at(place.outside.join("log"))
    }

    fn action(&self) -> &'static str {
        "log_error"
    }

    fn params(&self, _place: &Place) -> Value {
        json!({"message": "no space left"})
    }

    #[expect(clippy::disallowed_methods, reason = "the agent logs by the time of day")]
    fn look(&self, place: &Place) -> String {
        let tracker = Tracker::new(place.outside.join("log"));
        let window = TrackErrors { total: Some(10), ..TrackErrors::default() };
        let tracked = tracker.track_errors(&window, chrono::Utc::now()).unwrap();
        format!("{} errors", tracked.errors)
    }
}

#[tokio::test]
async fn log_error_keeps_the_undo_contract() {
    undo_contract(&LogError).await;
}

#[tokio::test]
async fn log_error_survives_kill() {
    survives_kill("log_error_survives_kill", &LogError).await;
}
