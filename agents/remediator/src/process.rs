//! Processes of the system: which ones run, and how they are started and stopped. A process is
//! known by the manifest that it was started by, or by its command line, never by its number
//! alone: numbers are given out again. It must not decide whether one is to run.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use agent_sdk::Failure;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde::{Deserialize, Serialize};

use crate::limits;
use crate::sandbox::{Sandbox, rejected};

/// Tells, in a process's environment, under which task's key it was started.
const KEY_VARIABLE: &str = "REMEDIATOR_STARTED_UNDER";
/// Tells by which manifest.
const MANIFEST_VARIABLE: &str = "REMEDIATOR_MANIFEST";
/// What a process may know of the agent's environment, which may hold secrets.
const PASSED_ON: [&str; 7] = ["PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR"];

/// How one process is run, as its manifest in the sandbox says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    command: Vec<String>,
    directory: Option<String>,
    pid_file: String,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    stop_timeout_seconds: Option<f64>,
}

/// A manifest, read and checked: all paths are absolute.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    path: PathBuf,
    command: Vec<String>,
    directory: PathBuf,
    /// Where the number of the process is written.
    pub pid_file: PathBuf,
    environment: BTreeMap<String, String>,
    stop_timeout: Duration,
}

/// One running process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    /// Its number.
    pub pid: i32,
    leads_group: bool,
    started: u64,
}

impl Manifest {
    /// Reads a manifest.
    pub fn read(sandbox: &Sandbox, field: &str, given: &str) -> Result<Self, Failure> {
        let path = sandbox.path(field, given)?;
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(rejected(format!("`{field}` is {given:?}, which is not there")));
            }
            Err(error) => return Err(Failure::io("read", &path)(error).no_effect()),
        };
        let written: Written = serde_json::from_slice(&text)
            .map_err(|error| rejected(format!("the manifest {given} is wrong: {error}")))?;
        if written.command.is_empty() {
            return Err(rejected(format!("the manifest {given} has an empty `command`")));
        }
        let stop_timeout = match written.stop_timeout_seconds.map(Duration::try_from_secs_f64) {
            None => limits::STOP_TIMEOUT,
            Some(Ok(timeout)) if timeout <= limits::STOP_TIMEOUT_MAX => timeout,
            Some(_) => {
                let max = limits::STOP_TIMEOUT_MAX.as_secs();
                return Err(rejected(format!(
                    "the manifest {given} has a `stop_timeout_seconds` that is not 0 to {max}"
                )));
            }
        };
        let directory = match &written.directory {
            Some(directory) => sandbox.folder("directory", directory)?,
            None => sandbox.root()?,
        };
        Ok(Self {
            path,
            command: written.command,
            directory,
            pid_file: sandbox.path("pid_file", &written.pid_file)?,
            environment: written.environment,
            stop_timeout,
        })
    }

    /// The process that runs by this manifest, if one does: the one of the pid file, or one that
    /// was started and whose number was never written.
    pub fn running(&self) -> Result<Option<Running>, Failure> {
        if let Some(running) = self.of_pid_file()? {
            return Ok(Some(running));
        }
        self.find(|environment| has(environment, MANIFEST_VARIABLE, &self.shown()))
    }

    /// The process that was started by this manifest under a task's key.
    pub fn started_under(&self, mark: &str) -> Result<Option<Running>, Failure> {
        let manifest = self.shown();
        self.find(|environment| {
            has(environment, KEY_VARIABLE, mark) && has(environment, MANIFEST_VARIABLE, &manifest)
        })
    }

    /// The same, after an agent that may have been killed while it started one: until such a
    /// process has become its program, nothing tells what it will be.
    pub fn left_under(&self, mark: &str) -> Result<Option<Running>, Failure> {
        std::thread::sleep(limits::SETTLE_TIME);
        self.started_under(mark)
    }

    fn of_pid_file(&self) -> Result<Option<Running>, Failure> {
        let text = match fs::read_to_string(&self.pid_file) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::io("read", &self.pid_file)(error)),
        };
        let running = text.trim().parse().ok().and_then(Running::look);
        Ok(running.filter(|running| self.is_ours(running.pid)))
    }

    /// Whether the process is of this manifest: started by it, or by the same command.
    fn is_ours(&self, pid: i32) -> bool {
        let read = |what: &str| fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
        let command: Vec<u8> =
            self.command.iter().flat_map(|part| part.bytes().chain([0])).collect();
        read("cmdline") == command || has(&read("environ"), MANIFEST_VARIABLE, &self.shown())
    }

    fn find(&self, is_it: impl Fn(&[u8]) -> bool) -> Result<Option<Running>, Failure> {
        let folder = Path::new("/proc");
        let entries = fs::read_dir(folder).map_err(Failure::io("look at", folder))?;
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let found = pids
            .filter(|pid: &i32| {
                fs::read(format!("/proc/{pid}/environ")).is_ok_and(|text| is_it(&text))
            })
            .filter_map(Running::look);
        // What it has started itself has the same environment, but does not lead a group; it may
        // outlive it for a while.
        let leaders = found.filter(|running| running.leads_group);
        Ok(leaders.min_by_key(|running| (running.started, running.pid)))
    }

    /// Starts the process in a group of its own, so that it outlives the agent.
    pub fn start(&self, mark: &str) -> Result<Running, Failure> {
        let [program, arguments @ ..] = self.command.as_slice() else {
            return Err(rejected("the manifest's `command` is empty"));
        };
        let passed_on = PASSED_ON.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(&self.directory)
            .env_clear()
            .envs(passed_on)
            .envs(&self.environment)
            .env(MANIFEST_VARIABLE, &self.path)
            .env(KEY_VARIABLE, mark)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        let mut child = command.spawn().map_err(|error| {
            let message = format!("`{program}` cannot be started: {error}");
            match error.kind() {
                ErrorKind::NotFound | ErrorKind::PermissionDenied => Failure::permanent(message),
                _ => Failure::retryable(message),
            }
            .code("io")
        })?;
        let pid = i32::try_from(child.id())
            .map_err(|_| Failure::permanent("the process has a number that is too large"))?;
        let running = Running::look(pid);
        // Without somebody who waits for its end it would stay in the table of processes.
        std::thread::spawn(move || child.wait());
        running.ok_or_else(|| {
            Failure::retryable(format!("`{program}` ended as soon as it was started"))
        })
    }

    /// Asks a process to end, kills it when it does not, and waits until it is gone.
    pub fn stop(&self, running: Running) -> Result<(), Failure> {
        running.signal(Signal::TERM);
        if running.is_gone_within(self.stop_timeout) {
            return Ok(());
        }
        running.signal(Signal::KILL);
        if running.is_gone_within(limits::KILL_TIMEOUT) {
            return Ok(());
        }
        Err(Failure::retryable(format!("process {} does not end", running.pid)))
    }

    fn shown(&self) -> String {
        self.path.display().to_string()
    }
}

impl Running {
    /// The process of this number, unless it has ended.
    fn look(pid: i32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name of the program, in parentheses, may have spaces in it.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let is_over = matches!(*fields.first()?, "Z" | "X");
        let group: i32 = fields.get(2)?.parse().ok()?;
        let started = fields.get(19)?.parse().ok()?;
        (!is_over).then_some(Self { pid, leads_group: group == pid, started })
    }

    fn signal(self, signal: Signal) {
        let Some(pid) = Pid::from_raw(self.pid) else { return };
        // An error means that it has ended; whether it has is looked at afterwards.
        let _ = if self.leads_group {
            kill_process_group(pid, signal)
        } else {
            kill_process(pid, signal)
        };
    }

    fn is_gone_within(self, timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        loop {
            if Self::look(self.pid) != Some(self) {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            // A process that is not the agent's child says nothing when it ends.
            std::thread::sleep(limits::LOOK_EVERY);
        }
    }
}

fn has(environment: &[u8], name: &str, value: &str) -> bool {
    let wanted = format!("{name}={value}");
    environment.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes())
}
