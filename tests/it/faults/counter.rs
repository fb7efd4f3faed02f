//! An agent in a process of its own that marks each beginning and each end of an execution in a
//! file, outside of everything that the control plane keeps. The process is this test binary.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use agent_sdk::{Action, Agent, Context, Failure, Json, RunConfig, Undo};
use tokio_util::sync::CancellationToken;

use super::checker::Mark;
use crate::support::Process;

const FILE_VARIABLE: &str = "FAULTS_COUNTER_FILE";
const URL_VARIABLE: &str = "FAULTS_COUNTER_URL";
/// How long a task takes: long enough to be hit by a fault.
const WORK: Duration = Duration::from_millis(3);

/// Starts the agent at one of these addresses, parted by commas; it is killed when this is dropped.
pub(crate) fn start(file: &Path, url: &str) -> Process {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["faults::counter::a_counting_agent", "--exact", "--include-ignored"])
        .env(FILE_VARIABLE, file)
        .env(URL_VARIABLE, url)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Process::of(child)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "no test: the process that other tests start as their agent"]
async fn a_counting_agent() {
    let Some(file) = std::env::var_os(FILE_VARIABLE) else { return };
    let urls = std::env::var(URL_VARIABLE).unwrap();
    let servers = urls.split(',').map(ToOwned::to_owned).collect();
    let count = move |context: Context, params: Json| {
        let file = file.clone();
        async move {
            mark(Path::new(&file), "began", &context)?;
            tokio::time::sleep(WORK).await;
            mark(Path::new(&file), "ended", &context)?;
            Ok::<_, Failure>(params)
        }
    };
    let agent = Agent::new("counter", "1.0.0")
        .slots(16)
        .action(Action::new("count", "Marks that it was done.", count).undo(Undo::Nothing));
    let config = RunConfig { servers, ..RunConfig::default() };
    agent.run(config, CancellationToken::new()).await.unwrap();
}

/// One write with O_APPEND: lines of several processes never mix.
fn mark(file: &Path, what: &str, context: &Context) -> Result<(), Failure> {
    let line = format!(
        "{what} {} {} {}\n",
        context.idempotency_key(),
        context.attempt(),
        context.task_id()
    );
    let written = OpenOptions::new()
        .create(true)
        .append(true)
        .open(file)
        .and_then(|mut file| file.write_all(line.as_bytes()));
    written.map_err(|error| Failure::retryable(error.to_string()))
}

/// What stands in the file.
pub(crate) fn read(file: &Path) -> Vec<Mark> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines()
        .map(|line| {
            let mut words = line.split(' ');
            let began = words.next() == Some("began");
            let (run, step) = words.next().unwrap().split_once('/').unwrap();
            Mark { began, run: run.to_owned(), step: step.to_owned() }
        })
        .collect()
}
