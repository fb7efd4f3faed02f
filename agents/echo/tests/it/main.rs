//! The echo agent's actions through the harness and over the wire.
#![expect(clippy::unwrap_used, reason = "tests")]

mod undo; // the undo contract

use std::fs;
use std::sync::Arc;

use agent_sdk::testing::v1::{payload::Data, task_result::Outcome};
use agent_sdk::testing::{ControlPlane, Harness, task};
use agent_sdk::{CancellationToken, Kind};
use serde_json::{Value, json};

fn harness() -> Harness {
    Harness::new(echo_agent::agent())
}

#[tokio::test]
async fn echo_keeps_all_digits_and_the_order_of_keys() {
    let text = r#"{"z":1.50000000000000000001,"a":123456789012345678901234567890,"m":[null,1e3]}"#;
    let harness = harness();
    let outcome = harness.task("echo").params_text(text).run().await;
    assert_eq!(outcome.output_text.as_deref(), Some(text));
    for value in [json!("text"), json!(null), json!([1, {}]), json!(true)] {
        assert_eq!(harness.call("echo", &value).await.unwrap(), value);
    }
}

#[tokio::test]
async fn sleep_takes_text_and_seconds() {
    let harness = harness();
    let slept = |duration: Value| harness.call("sleep", json!({"duration": duration}));
    assert_eq!(slept(json!("1ms")).await.unwrap(), json!({"slept": 0.001}));
    assert_eq!(slept(json!(0.002)).await.unwrap(), json!({"slept": 0.002}));
    assert_eq!(slept(json!(0)).await.unwrap(), json!({"slept": 0.0}));
    for wrong in [
        json!("soon"),
        json!("1"),
        json!("1s5"),
        json!(""),
        json!("-1s"),
        json!(-1),
        json!("9d"),
        json!("99999999999d"),
    ] {
        let failure = slept(wrong.clone()).await.unwrap_err();
        assert_eq!(failure.kind(), Kind::Rejected, "{wrong}");
        assert!(failure.message().contains("`duration`"), "{wrong}: {}", failure.message());
    }
}

#[tokio::test]
async fn sleep_stops_when_it_is_cancelled() {
    let harness = harness();
    let token = CancellationToken::new();
    let sleeping = harness.task("sleep").params(json!({"duration": "1h"}));
    let sleeping = sleeping.cancelled_by(token.clone()).run();
    token.cancel();
    assert_eq!(sleeping.await.result.unwrap_err().kind(), Kind::Cancelled);
}

#[tokio::test]
async fn fail_fails_as_told_until_the_attempt_that_succeeds() {
    let harness = harness();
    let failure = harness.call("fail", json!({})).await.unwrap_err();
    assert_eq!((failure.kind(), failure.message()), (Kind::Retryable, "failed as told"));
    let kinds = [
        ("retryable", Kind::Retryable),
        ("permanent", Kind::Permanent),
        ("rejected", Kind::Rejected),
        ("needs_person", Kind::NeedsPerson),
    ];
    for (name, kind) in kinds {
        let params = json!({"kind": name, "message": "m", "code": "c"});
        let failure = harness.call("fail", params).await.unwrap_err();
        assert_eq!((failure.kind(), failure.message()), (kind, "m"));
        assert_eq!(failure.code_text(), "c");
    }
    let params = json!({"succeed_after": 3});
    for attempt in 1..=4 {
        let outcome = harness.task("fail").params(&params).attempt(attempt).run().await;
        assert_eq!(outcome.result.is_ok(), attempt >= 3, "attempt {attempt}");
    }
}

#[tokio::test]
async fn append_and_its_undo() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("f");
    let harness = harness();
    let params = json!({"file": file, "line": "one"});
    let output = harness.call("append", &params).await.unwrap();
    assert_eq!(output, params);
    assert_eq!(fs::read_to_string(&file).unwrap(), "one\n");
    let undone = harness.call_undo("append", &params, &output).await.unwrap();
    assert_eq!(undone, json!({"removed": true}));
    assert_eq!(fs::read_to_string(&file).unwrap(), "");
    let undone = harness.call_undo("append", &params, Value::Null).await.unwrap();
    assert_eq!(undone, json!({"removed": false}));
    let late = harness.task("append").params(&params).key("key-1").run().await;
    assert_eq!(late.result.unwrap_err().code_text(), "undone");
    assert_eq!(fs::read_to_string(&file).unwrap(), "");
}

#[tokio::test]
async fn append_says_which_param_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let harness = harness();
    let there = folder.path().join("f");
    let cases = [
        (json!({"file": "relative", "line": "x"}), "`file` must be an absolute path"),
        (json!({"file": folder.path(), "line": "x"}), "`file` is a folder"),
        (json!({"file": "/nowhere/at/all/f", "line": "x"}), "`file` is in a folder that cannot"),
        (json!({"file": there, "line": "a\nb"}), "`line` has a line break"),
        (json!({"file": there, "line": "x".repeat(70_000)}), "`line` has 70000 bytes"),
        (json!({"file": there}), "missing field `line`"),
        (json!({"file": there, "line": "x", "more": 1}), "unknown field `more`"),
    ];
    for (params, message) in cases {
        let failure = harness.call("append", &params).await.unwrap_err();
        assert_eq!(failure.kind(), Kind::Rejected, "{params}");
        assert!(failure.message().contains(message), "{}", failure.message());
    }
    assert!(!there.exists());
}

#[tokio::test]
async fn fifty_appends_side_by_side_are_fifty_lines() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("f");
    let harness = Arc::new(harness());
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..50 {
        let harness = Arc::clone(&harness);
        let params = json!({"file": file, "line": format!("line {number}")});
        tasks.spawn(async move { harness.call("append", params).await.unwrap() });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let content = fs::read_to_string(&file).unwrap();
    let mut lines: Vec<&str> = content.lines().collect();
    lines.sort_unstable();
    lines.dedup();
    assert_eq!((content.lines().count(), lines.len()), (50, 50));
}

#[tokio::test]
async fn two_names_of_a_file_are_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let (file, link) = (folder.path().join("f"), folder.path().join("link"));
    fs::write(&file, "").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let harness = harness();
    for name in [&file, &link] {
        let params = json!({"file": name, "line": "one"});
        harness.task("append").params(params).key("k").run().await.result.unwrap();
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "one\n");
}

#[tokio::test]
async fn it_works_over_the_wire() {
    let mut control_plane = ControlPlane::start();
    let shutdown = CancellationToken::new();
    let run = control_plane.run(echo_agent::agent(), shutdown.clone());
    let mut peer = control_plane.accept_and_welcome().await;
    assert_eq!((peer.register.agent_type.as_str(), peer.register.aliases.len()), ("echo", 0));
    let params = json!({"b": 1, "a": [2.50]});
    peer.assign(task("t1", "echo", &params)).await;
    let Some(Outcome::Success(success)) = peer.expect_result("t1").await.outcome else {
        panic!("it succeeds");
    };
    assert_eq!(success.output.unwrap().data, Some(Data::Json(params.to_string())));
    peer.acknowledge("t1", false).await;
    shutdown.cancel();
    run.await.unwrap().unwrap();
}
