//! SIGKILL in the middle of a do and of an undo: the test runs itself once more as the process
//! that is killed, at moments spread over the time that the work takes.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{KEY, Trial, Undoable, folder};

/// Tells the process that it is the one to be killed: what to do, and in which folder.
const VARIABLE: &str = "AGENT_SDK_CONFORMANCE_CHILD";
/// How many moments are tried in a do, and as many in an undo.
const MOMENTS: u32 = 8;
const READY: &str = "conformance: ready";
const DONE: &str = "conformance: done";

/// Kills the agent with SIGKILL while it does and while it undoes; whoever comes after can
/// finish the do or undo it, and ends as if nobody had been killed. `test` is the name of the
/// test that calls this, as `cargo test` prints it.
///
/// # Panics
/// When the agent does not keep the contract, with what was expected.
pub async fn survives_kill(test: &str, undoable: &impl Undoable) {
    if let Ok(order) = std::env::var(VARIABLE) {
        obey(&order, undoable).await;
        return;
    }
    let took = time_of(test, undoable);
    for moment in 0..MOMENTS {
        let after = took * moment / (MOMENTS - 1);
        killed_in_do(test, undoable, after, moment % 2 == 0).await;
        killed_in_undo(test, undoable, after).await;
    }
}

/// The part of the process that is killed.
async fn obey(order: &str, undoable: &impl Undoable) {
    let (deed, folder) = order.split_once(':').expect("the parent names deed and folder");
    let trial = Trial::again(undoable, Path::new(folder));
    say(READY);
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("the parent says when to begin");
    let done = match deed {
        "do" => trial.act(KEY).await,
        _ => trial.undo(KEY, &Value::Null).await,
    };
    done.expect("the deed succeeds unless it is killed");
    say(DONE);
}

fn say(what: &str) {
    let mut stdout = std::io::stdout();
    // The line before it may not have ended.
    let said = writeln!(stdout, "\n{what}").and_then(|()| stdout.flush());
    said.expect("the parent listens");
}

/// How long the action takes in a process of its own.
fn time_of(test: &str, undoable: &impl Undoable) -> Duration {
    let folder = folder();
    Trial::new(undoable, folder.path());
    let mut victim = Victim::start(test, "do", folder.path());
    let began = Instant::now();
    victim.go();
    victim.wait_for(DONE);
    began.elapsed()
}

async fn killed_in_do(test: &str, undoable: &impl Undoable, after: Duration, again: bool) {
    let folder = folder();
    let trial = Trial::new(undoable, folder.path());
    Victim::start(test, "do", folder.path()).kill(after);
    if again {
        trial.act(KEY).await.expect("a do that was killed can be done by the next attempt");
        assert_ne!(trial.look(), trial.before, "the next attempt does it");
    }
    if trial.undo_needs_output() {
        return;
    }
    trial.undo(KEY, &Value::Null).await.expect("a do that was killed can be undone");
    trial.is_as_before("the undo restores what was there before the do that was killed");
}

async fn killed_in_undo(test: &str, undoable: &impl Undoable, after: Duration) {
    let folder = folder();
    let trial = Trial::new(undoable, folder.path());
    if trial.undo_needs_output() {
        return;
    }
    trial.act(KEY).await.expect("the action succeeds");
    Victim::start(test, "undo", folder.path()).kill(after);
    trial.undo(KEY, &Value::Null).await.expect("an undo that was killed can be tried again");
    trial.is_as_before("the second undo finishes what the first one began");
    trial.act(KEY).await.expect_err("a do that comes after its undo is refused");
    trial.is_as_before("a refused do changes nothing");
}

/// The process that is to be killed; it is when this is dropped, too.
struct Victim {
    process: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Victim {
    fn start(test: &str, deed: &str, folder: &Path) -> Self {
        let program: PathBuf = std::env::current_exe().expect("a test has a program");
        let mut process = Command::new(program)
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env(VARIABLE, format!("{deed}:{}", folder.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the test can be run once more");
        let stdin = process.stdin.take().expect("it was piped");
        let stdout = BufReader::new(process.stdout.take().expect("it was piped"));
        let mut victim = Self { process, stdin, stdout };
        victim.wait_for(READY);
        victim
    }

    fn go(&mut self) {
        self.stdin.write_all(b"go\n").expect("it waits for the word");
    }

    fn wait_for(&mut self, word: &str) {
        let mut line = String::new();
        while self.stdout.read_line(&mut line).expect("it prints text") > 0 {
            if line.trim_end() == word {
                return;
            }
            line.clear();
        }
        panic!("the process ended before `{word}`; is the test's name right?");
    }

    fn kill(mut self, after: Duration) {
        self.go();
        // Not to wait for something: the moment is what is tried.
        std::thread::sleep(after);
        self.process.kill().expect("it is our own child");
        self.process.wait().expect("it is our own child");
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // It has ended already, or ends now.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
