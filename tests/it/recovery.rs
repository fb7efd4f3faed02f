//! Processes are killed in the middle of runs, and nothing is lost or done twice.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use contracts::v1::{self, RunStatus};

use crate::support::{Server, agent, eventually};

const PARALLEL: usize = 50;
const ROUNDS: usize = 6;

/// Rounds of fifty appends side by side.
fn appends(file: &Path) -> String {
    let mut yaml = "name: appends\nsteps:\n".to_owned();
    for round in 0..ROUNDS {
        write!(yaml, "  - id: r{round}\n    steps:\n").unwrap();
        for n in 0..PARALLEL {
            writeln!(
                yaml,
                "      - {{id: s{round}_{n}, agent: echo, action: append, depends_on: [], \
                 params: {{file: {}, line: l{round}_{n}}}}}",
                file.display()
            )
            .unwrap();
        }
    }
    yaml
}

fn lines(file: &Path) -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    for line in std::fs::read_to_string(file).unwrap_or_default().lines() {
        *lines.entry(line.to_owned()).or_default() += 1;
    }
    lines
}

fn assert_each_line_once(file: &Path) {
    let lines = lines(file);
    assert!(lines.values().all(|count| *count == 1), "a line stands twice: {lines:?}");
    assert_eq!(lines.len(), PARALLEL * ROUNDS);
}

async fn journal(server: &Server, run_id: &str) -> Vec<v1::JournalEvent> {
    let mut events = Vec::new();
    let mut page_token = String::new();
    loop {
        let request =
            v1::ListRunJournalRequest { run_id: run_id.to_owned(), page_size: 1000, page_token };
        let page = server.orchestrator().await.list_run_journal(request).await.unwrap();
        let page = page.into_inner();
        events.extend(page.events);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return events;
        }
    }
}

/// Each step ends well once in the journal, which has no gaps.
fn assert_no_step_ran_again(events: &[v1::JournalEvent]) {
    let mut ended = BTreeMap::<&str, usize>::new();
    for (at, event) in events.iter().enumerate() {
        assert_eq!(event.sequence, i64::try_from(at).unwrap() + 1);
        if event.kind() == v1::EventKind::StepSucceeded {
            *ended.entry(&event.step).or_default() += 1;
        }
    }
    assert!(ended.values().all(|count| *count == 1), "{ended:?}");
    assert_eq!(ended.len(), PARALLEL * ROUNDS + ROUNDS);
}

async fn kill_and_restart(verb: &str) {
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("lines.txt"));
    let mut server = Server::start(verb, &data, None, &[]);
    let url = server.url.clone();
    let _agent = (verb == "serve").then(|| agent("echo", &url));
    let run_id = server.start_run(&appends(&file)).await;
    for share in 1..=3 {
        let enough = PARALLEL * ROUNDS * share / 5;
        eventually(|| (lines(&file).len() >= enough).then_some(())).await;
        server.process.kill();
        server = Server::start(verb, &data, Some(&url), &[]);
    }
    let run = server.wait_for_end(&run_id).await;
    assert_eq!(run.status(), RunStatus::Success, "{}", run.error);
    assert_each_line_once(&file);
    assert_no_step_ran_again(&journal(&server, &run_id).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_control_plane_goes_on_with_its_agent_in_another_process() {
    kill_and_restart("serve").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_control_plane_goes_on_with_its_bundled_agents() {
    kill_and_restart("up").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_is_replaced_by_another() {
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("lines.txt"));
    let server = Server::start("serve", &data, None, &[]);
    let mut first = agent("echo", &server.url);
    let run_id = server.start_run(&appends(&file)).await;
    eventually(|| (lines(&file).len() >= PARALLEL).then_some(())).await;
    first.kill();
    let _second = agent("echo", &server.url);
    let run = server.wait_for_end(&run_id).await;
    assert_eq!(run.status(), RunStatus::Success, "{}", run.error);
    assert_each_line_once(&file);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_data_is_refused_by_name_and_pid() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start("serve", &data, None, &[]);
    let data = data.to_str().unwrap();
    let second = ["serve", "--listen", "127.0.0.1:0", "--data-dir", data];
    let output = crate::support::orchestrator(&second, folder.path());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("in use by orchestrator (pid "), "{said}");
    assert_eq!(server.process.terminate(), 0, "SIGTERM ends it well");
}
