//! The other commands, whole.

use contracts::v1::payload::Data;
use contracts::v1::{
    ActionCard, ActionMetrics, Agent, AgentCard, AgentHealth, Check, CheckStatus, DeadLetter,
    EventKind, Finding, Payload, Run, RunMetrics, RunStatus, StepResult, Workflow,
};

use super::fake::{Fake, dead_url, locked};
use super::orchestrator;
use crate::exit::Exit;

fn run() -> Run {
    Run {
        run_id: "run-1".into(),
        workflow: "Build".into(),
        version: "1.0".into(),
        status: RunStatus::Waiting.into(),
        metrics: Some(RunMetrics { total_steps: 2, successful_steps: 1, ..Default::default() }),
        ..Default::default()
    }
}

fn agent() -> Agent {
    Agent {
        agent_id: "echo/host-1".into(),
        agent_type: "echo".into(),
        aliases: vec!["agent1".into()],
        version: "0.1.0".into(),
        health: AgentHealth::Draining.into(),
        slots: 4,
        tasks_in_flight: 1,
        card: Some(AgentCard {
            actions: vec![ActionCard { name: "say".into(), ..Default::default() }],
            ..Default::default()
        }),
        ..Default::default()
    }
}

async fn text(fake: Fake, arguments: &[&str]) -> String {
    let server = fake.serve().await;
    let outcome = orchestrator(&server.url, arguments).await;
    assert_eq!(outcome.exit, Exit::Success, "{arguments:?}: {outcome:?}");
    outcome.stdout
}

async fn document(fake: Fake, arguments: &[&str]) -> serde_json::Value {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["-o", "json"]).collect();
    serde_json::from_str(&text(fake, &arguments).await).unwrap()
}

#[tokio::test]
async fn empty_lists_say_what_to_do_next_and_leave_stdout_empty() {
    let server = Fake::new().serve().await;
    for (arguments, expected) in [
        (&["workflows", "list"][..], "orchestrator workflows register"),
        (&["runs", "list"], "orchestrator workflows execute"),
        (&["runs", "list", "--status", "running"], "no run matches"),
        (&["agents", "list"], "orchestrator up"),
        (&["agents", "health"], "orchestrator up"),
        (&["metrics"], "no agent did anything within 1h 00m"),
        (&["dead-letters", "list"], "no task was given up"),
    ] {
        let outcome = orchestrator(&server.url, arguments).await;
        assert_eq!((outcome.exit, outcome.stdout.as_str()), (Exit::Success, ""));
        assert!(outcome.stderr.contains(expected), "{arguments:?}: {}", outcome.stderr);
    }
}

#[tokio::test]
async fn lists_are_tables() {
    let workflow = Workflow {
        name: "Build".into(),
        version: "1.0".into(),
        description: "builds".into(),
        ..Default::default()
    };
    let fake = Fake { registered: Some(workflow), ..Fake::new() };
    assert_eq!(
        text(fake, &["workflows", "list"]).await,
        "NAME   VERSION  SCHEDULE  NEXT  REGISTERED  DESCRIPTION\n\
         Build  1.0      -         -     -           builds\n"
    );
    let fake = Fake { run: run(), ..Fake::new() };
    assert_eq!(
        text(fake, &["runs", "list"]).await,
        "RUN    WORKFLOW   STATUS   STEPS  STARTED  TIME\n\
         run-1  Build@1.0  waiting  1/2    -        -\n"
    );
    let fake = Fake { agents: vec![agent(), agent(), agent()], ..Fake::new() };
    assert_eq!(
        text(fake, &["agents", "list"]).await,
        format!(
            "AGENT        ALIASES  VERSION  HEALTH    TASKS  ACTIONS\n{}",
            "echo/host-1  agent1   0.1.0    draining  1/4    say\n".repeat(3)
        )
    );
}

#[tokio::test]
async fn agents_of_several_replicas_are_told_apart() {
    let at = |replica: &str| Agent { replica_id: replica.into(), ..agent() };
    let fake = Fake { agents: vec![at("r-1"), at("r-2")], ..Fake::new() };
    assert_eq!(
        text(fake, &["agents", "list"]).await,
        "AGENT        ALIASES  VERSION  HEALTH    TASKS  ACTIONS  REPLICA\n\
         echo/host-1  agent1   0.1.0    draining  1/4    say      r-1\n\
         echo/host-1  agent1   0.1.0    draining  1/4    say      r-2\n"
    );
}

#[tokio::test]
async fn metrics_and_dead_letters_are_tables() {
    let metrics = ActionMetrics {
        agent_type: "echo".into(),
        action: "say".into(),
        executions: 1000,
        failures: 1,
        latency_p50: Some(prost_types::Duration { seconds: 0, nanos: 2_000_000 }),
        latency_p99: Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }),
        ..Default::default()
    };
    let fake = Fake { metrics: vec![metrics], ..Fake::new() };
    assert_eq!(
        text(fake, &["metrics", "--range", "15m"]).await,
        "AGENT  ACTION  DONE  FAILED  SUCCESS  P50  P99   QUEUED  RUNNING\n\
         echo   say     1000  1       99.9%    2ms  1.5s  0       0\n"
    );
    let letter = DeadLetter {
        dead_letter_id: "run-1/a".into(),
        workflow: "Build".into(),
        agent: "echo".into(),
        action: "fail".into(),
        attempts: 3,
        error: "no\nspace".into(),
        input: Some(Payload { data: Some(Data::Json("[1]".into())), ..Default::default() }),
        ..Default::default()
    };
    let fake = || Fake { letters: vec![letter.clone()], run: run(), ..Fake::new() };
    assert_eq!(
        text(fake(), &["dead-letters", "list"]).await,
        "DEAD LETTER  WORKFLOW  AGENT  ACTION  ATTEMPTS  WHEN  ERROR\n\
         run-1/a      Build     echo   fail    3         -     no space\n"
    );
    let shown = document(fake(), &["dead-letters", "show", "run-1/a"]).await;
    assert_eq!(shown["deadLetter"]["input"], serde_json::json!([1]));
    let replayed = text(fake(), &["dead-letters", "replay", "run-1/a"]).await;
    assert_eq!(replayed, "run run-1 is taken up again (status: waiting)\n");
    let discarded = document(fake(), &["dead-letters", "discard", "run-1/a"]).await;
    assert_eq!(discarded, serde_json::json!({}));
}

#[tokio::test]
async fn json_is_the_response_in_canonical_form() {
    let fake = || Fake { run: run(), agents: vec![agent()], ..Fake::new() };
    let runs = document(fake(), &["runs", "list"]).await;
    assert_eq!(runs["runs"][0]["runId"], "run-1");
    assert_eq!(runs["runs"][0]["status"], "RUN_STATUS_WAITING");
    let agents = document(fake(), &["agents", "list"]).await;
    assert_eq!(agents["agents"][0]["health"], "AGENT_HEALTH_DRAINING");
    let agent = document(fake(), &["agents", "health", "echo"]).await;
    assert_eq!(agent["agent"]["tasksInFlight"], 1);
    let status = document(fake(), &["workflows", "status", "run-1"]).await;
    assert_eq!(status["status"], "waiting");
    let journal = document(fake(), &["runs", "journal", "run-1"]).await;
    assert_eq!(journal["events"].as_array().unwrap().len(), 3);
    assert_eq!(journal["events"][2]["sequence"], "3");
}

#[tokio::test]
async fn a_run_is_shown_with_its_steps() {
    let step = StepResult {
        step_id: "a".into(),
        agent: "echo".into(),
        status: "waiting".into(),
        waiting_reason: "for a decision".into(),
        ..Default::default()
    };
    let fake = || Fake { run: run(), steps: vec![step.clone(); 3], ..Fake::new() };
    let text = text(fake(), &["runs", "get", "run-1"]).await;
    assert!(
        text.starts_with("Run       run-1\nWorkflow  Build@1.0\nStatus    waiting\n"),
        "{text}"
    );
    assert_eq!(text.matches("for a decision").count(), 3);
    let document = document(fake(), &["runs", "get", "run-1"]).await;
    assert_eq!(document["run"]["result"]["steps"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn filters_are_joined() {
    let server = Fake::new().serve().await;
    let list = ["runs", "list", "--workflow", "My Build", "--status", "rolled_back"];
    orchestrator(&server.url, &list).await;
    assert_eq!(locked(&server.seen.filters), ["workflow=My Build AND status=rolled_back"]);
}

#[tokio::test]
async fn changes_say_what_they_did() {
    for (arguments, expected) in [
        (&["runs", "cancel", "run-1"][..], "is asked to stop"),
        (&["runs", "pause", "run-1"], "starts nothing new"),
        (&["runs", "resume", "run-1"], "goes on"),
        (&["runs", "retry", "run-1"], "is taken up again"),
        (&["runs", "approve", "run-1", "a"], "has `a` approved"),
        (&["runs", "reject", "run-1", "a"], "has `a` rejected"),
        (&["runs", "signal", "run-1", "go"], "has the signal `go`"),
    ] {
        let fake = || Fake { run: run(), ..Fake::new() };
        let expected = format!("run run-1 {expected} (status: waiting)\n");
        assert_eq!(text(fake(), arguments).await, expected);
        assert_eq!(document(fake(), arguments).await["run"]["runId"], "run-1");
    }
}

#[tokio::test]
async fn a_signal_carries_json_and_nothing_else() {
    let server = Fake { run: run(), ..Fake::new() }.serve().await;
    let signal = ["runs", "signal", "run-1", "go", "--payload", r#"{"n":1.10}"#];
    assert_eq!(orchestrator(&server.url, &signal).await.exit, Exit::Success);
    let sent = locked(&server.seen.signals).remove(0);
    assert_eq!(sent.payload.unwrap().data, Some(Data::Json(r#"{"n":1.10}"#.into())));
    assert!(!sent.request_id.is_empty());
    let signal = ["runs", "signal", "run-1", "go", "--payload", "text"];
    let outcome = orchestrator(&server.url, &signal).await;
    assert_eq!(outcome.exit, Exit::BadRequest);
    assert!(outcome.stderr.contains("text needs quotes"), "{}", outcome.stderr);
    assert_eq!(locked(&server.seen.signals).len(), 1);
}

#[tokio::test]
async fn a_watch_as_json_is_one_line_an_event() {
    let run = Run { status: RunStatus::Success.into(), ..run() };
    let fake = Fake::with_run(run, Vec::new());
    let text = text(fake, &["runs", "watch", "run-1", "-o", "json"]).await;
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["event"]["kind"], EventKind::RunStarted.as_str_name());
    assert_eq!(lines[1]["ended"]["run"]["status"], "RUN_STATUS_SUCCESS");
}

#[tokio::test]
async fn the_doctor_says_what_waits_and_how_servers_and_agents_are() {
    let finding = Finding {
        step: "a".into(),
        cause: "no agent offers `say`".into(),
        remedy: "connect one".into(),
        since: Some(prost_types::Duration { seconds: 90, nanos: 0 }),
    };
    let fake = || Fake {
        run: run(),
        agents: vec![agent()],
        findings: vec![finding.clone()],
        ..Fake::new()
    };
    let one = text(fake(), &["doctor", "run-1"]).await;
    let expected = "status: waiting\n  a: no agent offers `say` (for 1m 30s)\n    connect one\n";
    assert_eq!(one, expected);
    let all = text(fake(), &["doctor"]).await;
    assert!(all.starts_with("✓ server http://127.0.0.1:"), "{all}");
    assert!(all.contains("agents: 0 of 1 healthy; echo/host-1 (draining)"), "{all}");
    assert!(all.contains("  a: no agent offers `say` (for 1m 30s)\n    connect one"), "{all}");
    let document = document(fake(), &["doctor"]).await;
    assert_eq!(document["runs"][0]["findings"][0]["since"], "90s");
    assert_eq!(document["servers"][0]["reachable"], true);
}

#[tokio::test]
async fn the_doctor_says_what_is_broken_and_exits_with_1_for_it() {
    let check = |name: &str, status: CheckStatus, remedy: &str| Check {
        name: name.to_owned(),
        status: status.into(),
        found: format!("how {name} is"),
        remedy: remedy.to_owned(),
    };
    let (well, warns) = (CheckStatus::Ok, CheckStatus::Warning);
    let checks = vec![check("schema", well, "nothing"), check("clock", warns, "use NTP")];
    let all = text(Fake { checks: checks.clone(), ..Fake::new() }, &["doctor"]).await;
    let expected = "\n  ✓ schema: how schema is\n  ! clock: how clock is\n    use NTP\n";
    assert!(all.contains(expected), "{all}");
    let mut checks = checks;
    checks.push(check("database", CheckStatus::Failure, "start it"));
    let server = Fake { checks, ..Fake::new() }.serve().await;
    let outcome = orchestrator(&server.url, &["doctor", "-o", "json"]).await;
    assert_eq!((outcome.exit, outcome.exit.code()), (Exit::Unwell, 1));
    let document: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    let broken = &document["servers"][0]["checks"][2];
    assert_eq!((&broken["status"], &broken["remedy"]), (&"failure".into(), &"start it".into()));
}

#[tokio::test]
async fn the_doctor_tells_a_dead_server_from_a_live_one() {
    let server = Fake::new().serve().await;
    let dead = dead_url().await;
    let outcome = orchestrator(&format!("{dead},{}", server.url), &["doctor"]).await;
    assert_eq!(outcome.exit, Exit::Success, "{outcome:?}");
    assert!(
        outcome.stdout.contains(&format!("✗ server {dead}: Connection refused")),
        "{outcome:?}"
    );
    assert!(outcome.stdout.contains("runs: none waits"), "{}", outcome.stdout);
    let outcome = orchestrator(&dead, &["doctor"]).await;
    assert_eq!(outcome.exit, Exit::Unavailable);
}

#[tokio::test]
async fn what_is_no_orchestrator_is_told() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 16];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\n\r\n").await;
        }
    });
    let outcome = orchestrator(&url, &["runs", "list"]).await;
    assert_eq!(outcome.exit, Exit::Unavailable);
    assert!(outcome.stderr.contains(&format!("cannot reach {url}")), "{}", outcome.stderr);
}

#[tokio::test]
async fn wrong_addresses_are_told() {
    for url in ["", ",", "ftp://x", "http://", "http://a b", "https://x"] {
        let outcome = orchestrator(url, &["runs", "list"]).await;
        assert_eq!(outcome.exit, Exit::BadRequest, "{url}");
        assert!(outcome.stderr.contains("--server"), "{url}: {}", outcome.stderr);
    }
}

#[tokio::test]
async fn an_address_needs_no_scheme() {
    let server = Fake { run: run(), ..Fake::new() }.serve().await;
    let address = server.url.trim_start_matches("http://");
    assert_eq!(orchestrator(address, &["runs", "list"]).await.exit, Exit::Success);
}

#[tokio::test]
async fn many_starts_go_on_over_another_stream_under_the_same_request_ids() {
    let lines = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(lines.path(), "{}\n{\"n\": 1.10}\n{}\n").unwrap();
    let run = Run { status: RunStatus::Success.into(), ..run() };
    let server = Fake { run, ..Fake::new() }.serve().await;
    let path = lines.path().to_str().unwrap();
    let arguments = ["runs", "start-many", "Build", "--params-lines", path, "-o", "json"];
    let outcome = orchestrator(&server.url, &arguments).await;
    assert_eq!(outcome.exit, Exit::Success, "{outcome:?}");
    let ended: Vec<serde_json::Value> =
        outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let numbers: Vec<i64> = ended.iter().map(|line| line["line"].as_i64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert!(ended.iter().all(|line| line["status"] == "success"), "{ended:?}");
    let streams = locked(&server.seen.streams);
    assert_eq!(streams.iter().map(Vec::len).collect::<Vec<_>>(), [3, 2], "only what was open");
    assert_eq!(streams[0][1..], streams[1], "the same params under the same request ids");
    let json = Some(Data::Json("{\"n\": 1.10}".to_owned()));
    assert_eq!(streams[1][0].params.as_ref().unwrap().data, json);
}
