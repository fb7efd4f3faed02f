//! Processes as a user starts them: the binary, a control plane on a free port, agents, clients.

pub(crate) mod client;
pub(crate) mod http;
pub(crate) mod raw;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use contracts::v1::agent_service_client::AgentServiceClient;
use contracts::v1::orchestrator_service_client::OrchestratorServiceClient;
use contracts::v1::{self, start_run_request::Source};
use tonic::transport::Channel;

/// How long anything may take that is waited for.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The binary `orchestrator`, built once; where that fails it is not tried for every test.
pub(crate) fn binary() -> &'static Path {
    static BINARY: OnceLock<Option<PathBuf>> = OnceLock::new();
    let built = BINARY.get_or_init(|| {
        // What is measured in a release build is one.
        let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
        let built = Command::new(env!("CARGO"))
            .args(["build", "--package", "orchestrator", "--profile", profile])
            .arg("--message-format=json-render-diagnostics")
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        let messages = String::from_utf8(built.stdout).unwrap();
        let messages = messages.lines().filter_map(|line| serde_json::from_str(line).ok());
        // Where cargo puts it is a setting of whoever builds, so it is asked.
        let mut executables = messages
            .filter_map(|message: serde_json::Value| Some(message["executable"].as_str()?.into()));
        executables.next_back()
    });
    built.as_deref().expect("the binary is built")
}

/// A process that is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn of(child: Child) -> Self {
        Self(child)
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Sends a signal, as `-STOP`.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// SIGKILL, and waits for the end.
    pub(crate) fn kill(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }

    /// Waits for the end.
    pub(crate) fn wait(&mut self) {
        drop(self.0.wait());
    }

    /// SIGTERM, and waits for the end.
    pub(crate) fn terminate(mut self) -> i32 {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let began = Instant::now();
        while began.elapsed() < DEADLINE {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            std::thread::yield_now();
        }
        panic!("the process does not stop");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A control plane in a process of its own.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) url: String,
}

impl Server {
    /// Starts `orchestrator VERB` on a free port, or on the port of `url`.
    pub(crate) fn start(verb: &str, data_dir: &Path, url: Option<&str>, more: &[&str]) -> Self {
        Self::start_by(Command::new(binary()), verb, data_dir, url, more)
    }

    /// The same by a command that runs the binary.
    pub(crate) fn start_by(
        mut command: Command,
        verb: &str,
        data_dir: &Path,
        url: Option<&str>,
        more: &[&str],
    ) -> Self {
        let listen = url.map_or("127.0.0.1:0", |url| url.trim_start_matches("http://"));
        let mut child = command
            .args([verb, "--listen", listen, "--data-dir"])
            .arg(data_dir)
            .args(more)
            .env("ORCHESTRATOR_WORKSPACE", data_dir.join("workspace"))
            .env("ORCHESTRATOR_DATA_DIR", data_dir)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        let process = Process(child);
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let mut said = String::new();
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some(url) = line.strip_prefix("ready ") {
                    drop(tell.send(Ok(url.to_owned())));
                }
                said.push_str(&line);
                said.push('\n');
            }
            drop(tell.send(Err(said)));
        });
        match told.recv_timeout(DEADLINE) {
            Ok(Ok(url)) => Self { process, url },
            Ok(Err(said)) => panic!("the server ended before it was ready:\n{said}"),
            Err(_) => panic!("the server is not ready in time"),
        }
    }

    pub(crate) async fn channel(&self) -> Channel {
        Channel::from_shared(self.url.clone()).unwrap().connect().await.unwrap()
    }

    pub(crate) async fn orchestrator(&self) -> OrchestratorServiceClient<Channel> {
        OrchestratorServiceClient::new(self.channel().await)
    }

    pub(crate) async fn agents(&self) -> AgentServiceClient<Channel> {
        AgentServiceClient::new(self.channel().await)
    }

    /// Starts a run of a definition and gives its id.
    pub(crate) async fn start_run(&self, yaml: &str) -> String {
        let definition = v1::Definition { yaml: yaml.to_owned(), ..Default::default() };
        let request = v1::StartRunRequest {
            source: Some(Source::Definition(definition)),
            ..Default::default()
        };
        let started = self.orchestrator().await.start_run(request).await.unwrap();
        started.into_inner().run.unwrap().run_id
    }

    /// Watches a run to its end.
    pub(crate) async fn wait_for_end(&self, run_id: &str) -> v1::Run {
        let watching = async {
            let request = v1::WatchRunRequest { run_id: run_id.to_owned(), after_sequence: 0 };
            let stream = self.orchestrator().await.watch_run(request).await.unwrap();
            let mut stream = stream.into_inner();
            let mut last = 0;
            while let Some(seen) = stream.message().await.unwrap() {
                match seen.item.unwrap() {
                    v1::watch_run_response::Item::Event(event) => {
                        assert_eq!(event.sequence, last + 1, "no event is missed or repeated");
                        last = event.sequence;
                    }
                    v1::watch_run_response::Item::Ended(ended) => return ended.run.unwrap(),
                    v1::watch_run_response::Item::Update(_) => {}
                }
            }
            panic!("a watch ends with the run's end");
        };
        tokio::time::timeout(DEADLINE, watching).await.expect("the run ends in time")
    }
}

/// An agent of the binary in a process of its own.
pub(crate) fn agent(name: &str, url: &str) -> Process {
    let child = Command::new(binary())
        .args(["agent", name, "--server", url])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Process(child)
}

/// Runs the binary to its end.
pub(crate) fn orchestrator(arguments: &[&str], workspace: &Path) -> Output {
    let mut child = Command::new(binary())
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("ORCHESTRATOR_WORKSPACE", workspace)
        // The error tracker's log too is the test's own: others' errors are not its errors.
        .env("ORCHESTRATOR_DATA_DIR", workspace)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let reading = std::thread::spawn(move || {
        let mut text = Vec::new();
        stderr.read_to_end(&mut text).unwrap();
        text
    });
    let mut output = child.wait_with_output().unwrap();
    output.stderr = reading.join().unwrap();
    output
}

/// What is at a place now, polled until it is as wished.
pub(crate) async fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < DEADLINE, "what was waited for does not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The same for what must be asked.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, wait).await.is_ok(), "not in time: {what}");
}
