//! Runs under way: chains whose steps append to a file each, started by a client that asks again,
//! with the same request id, for as long as it is told that nobody is there.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use contracts::v1::orchestrator_service_client::OrchestratorServiceClient;
use contracts::v1::{self, RunStatus, start_run_request::Source};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::history::{History, violations};
use crate::support::{DEADLINE, eventually};

/// The steps of each run.
const STEPS: usize = 5;

/// Where runs are asked for: any of these.
pub(crate) type Urls = [String];

/// Runs and what the outside knows of them.
pub(crate) struct Load {
    folder: PathBuf,
    acknowledged: Vec<String>,
}

impl Load {
    /// Appends into files in `folder`.
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), acknowledged: Vec::new() }
    }

    fn file(&self, number: usize) -> PathBuf {
        self.folder.join(format!("run-{number}.txt"))
    }

    fn yaml(&self, number: usize) -> String {
        let file = self.file(number).display().to_string();
        let mut yaml = format!("name: load-{number}\nsteps:\n");
        for step in 0..STEPS {
            let params = format!("{{file: {file}, line: s{step}}}");
            writeln!(yaml, "  - {{id: s{step}, agent: echo, action: append, params: {params}}}")
                .unwrap();
        }
        yaml
    }

    /// Starts so many more runs; returns once each is acknowledged.
    pub(crate) async fn start(&mut self, urls: &Urls, count: usize) {
        for _ in 0..count {
            let number = self.acknowledged.len();
            let definition = v1::Definition { yaml: self.yaml(number), ..Default::default() };
            let request = v1::StartRunRequest {
                source: Some(Source::Definition(definition)),
                request_id: format!("load-{}-{number}", self.folder.display()),
                ..Default::default()
            };
            let started = asked(urls, async |mut client| {
                client.start_run(request.clone()).await.map(tonic::Response::into_inner)
            });
            self.acknowledged.push(started.await.run.unwrap().run_id);
        }
    }

    /// How many steps have taken effect.
    pub(crate) fn done(&self) -> usize {
        (0..self.acknowledged.len()).map(|number| self.outside(number).len()).sum()
    }

    /// Waits until this part of all steps, in hundredths, has taken effect.
    pub(crate) async fn reaches(&self, percent: usize) {
        let enough = self.acknowledged.len() * STEPS * percent / 100;
        eventually(|| (self.done() >= enough).then_some(())).await;
    }

    fn outside(&self, number: usize) -> Vec<String> {
        let text = std::fs::read_to_string(self.file(number)).unwrap_or_default();
        text.lines().map(ToOwned::to_owned).collect()
    }

    /// Waits until all runs are over, and judges them.
    pub(crate) async fn judge(&self, urls: &Urls) {
        let mut found = Vec::new();
        for (number, run) in self.acknowledged.iter().enumerate() {
            let status = ended(urls, run).await;
            let history = History {
                run: run.clone(),
                status,
                journal: journal(urls, run).await,
                chain: (0..STEPS).map(|step| format!("s{step}")).collect(),
                outside: self.outside(number),
            };
            found.extend(violations(&history));
        }
        assert_eq!(found, Vec::<String>::new());
    }
}

/// Asks until somebody answers who is there.
async fn asked<T>(
    urls: &Urls,
    ask: impl AsyncFn(OrchestratorServiceClient<Channel>) -> Result<T, Status>,
) -> T {
    let began = Instant::now();
    loop {
        for url in urls {
            let endpoint = Channel::from_shared(url.clone()).unwrap();
            let endpoint = endpoint.connect_timeout(Duration::from_secs(1));
            let endpoint = endpoint.timeout(Duration::from_secs(10));
            let Ok(channel) = endpoint.connect().await else { continue };
            match ask(OrchestratorServiceClient::new(channel)).await {
                Ok(answer) => return answer,
                Err(status) if passes(&status) => {}
                Err(status) => panic!("refused: {status}"),
            }
        }
        assert!(began.elapsed() < DEADLINE * 2, "nobody answers");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Whether the same may be asked again.
fn passes(status: &Status) -> bool {
    // A connection that breaks in an answer is told as unknown or cancelled by the client itself.
    let codes = [Code::Unavailable, Code::Unknown, Code::Cancelled, Code::DeadlineExceeded];
    codes.contains(&status.code()) || status.code() == Code::ResourceExhausted
}

/// How a run ended, once it has; `None` when it is not there.
async fn ended(urls: &Urls, run: &str) -> Option<RunStatus> {
    let began = Instant::now();
    loop {
        let request = v1::GetRunRequest { run_id: run.to_owned(), ..Default::default() };
        let found = asked(urls, async |mut client| match client.get_run(request.clone()).await {
            Ok(answer) => Ok(answer.into_inner().run),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status),
        });
        let found = found.await?;
        if found.end_time.is_some() {
            return Some(found.status());
        }
        assert!(began.elapsed() < DEADLINE * 2, "run {run} does not end: {found:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn journal(urls: &Urls, run: &str) -> Vec<v1::JournalEvent> {
    let request =
        v1::ListRunJournalRequest { run_id: run.to_owned(), page_size: 1000, ..Default::default() };
    let page = asked(urls, async |mut client| {
        client.list_run_journal(request.clone()).await.map(tonic::Response::into_inner)
    });
    page.await.events
}
