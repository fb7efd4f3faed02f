//! Child processes that do not outlive what they were started for.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long a process may take to say that it is ready.
const READY_WAIT_MAX: Duration = Duration::from_secs(60);
/// How long it may take to end when it is asked to.
const END_WAIT_MAX: Duration = Duration::from_secs(60);
/// How many of its last lines are shown when it fails.
const LINES_KEPT: usize = 20;

/// A process that is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    lines: mpsc::Receiver<String>,
    said: Vec<String>,
}

impl Process {
    /// Starts one; what it says on stderr is kept.
    pub(crate) fn start(program: &Path, arguments: &[String]) -> anyhow::Result<Self> {
        let name = program.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.unwrap_or_default();
        let mut child = Command::new(program)
            .args(arguments)
            .env("ORCHESTRATOR_LOG", "warn")
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let errors = child.stderr.take().context("the child has a stderr")?;
        let (sender, lines) = mpsc::channel();
        // Read to the end, so that the process never waits for its reader.
        std::thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { name, child, lines, said: Vec::new() })
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line that begins so; gives the rest of it.
    pub(crate) fn wait_for(&mut self, prefix: &str) -> anyhow::Result<String> {
        loop {
            let Ok(line) = self.lines.recv_timeout(READY_WAIT_MAX) else {
                bail!("{} did not say `{prefix}`; it said:\n{}", self.name, self.said.join("\n"));
            };
            if let Some(rest) = line.strip_prefix(prefix) {
                return Ok(rest.trim().to_owned());
            }
            self.said.push(line);
            if self.said.len() > LINES_KEPT {
                self.said.remove(0);
            }
        }
    }

    /// What it said on stderr lately.
    pub(crate) fn said(&mut self) -> String {
        self.said.extend(self.lines.try_iter());
        let from = self.said.len().saturating_sub(LINES_KEPT);
        self.said[from..].join("\n")
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = i32::try_from(self.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("a process has a number")?, signal)
            .with_context(|| format!("cannot signal {}", self.name))
    }

    /// Asks it to end, waits until it has, and gives what it said on stdout.
    pub(crate) async fn end(mut self) -> anyhow::Result<String> {
        self.signal(Signal::TERM)?;
        let output = self.child.stdout.take();
        let output = tokio::task::spawn_blocking(move || match output {
            Some(output) => std::io::read_to_string(output),
            None => Ok(String::new()),
        });
        let Ok(output) = tokio::time::timeout(END_WAIT_MAX, output).await else {
            let said = self.said();
            bail!("{} did not end when it was asked to; it said:\n{said}", self.name);
        };
        self.child.wait()?;
        Ok(output??)
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
