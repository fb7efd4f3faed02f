//! The closed loop: so many runs at a time, a new one for each that ends, over `StartRuns`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use contracts::v1::orchestrator_service_client::OrchestratorServiceClient;
use contracts::v1::{
    self, RunStatus, RunToStart, StartRunsRequest, StartRunsSetup, start_runs_request,
    start_runs_response::Item, start_runs_setup::Source,
};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Streaming};

use crate::host::server::connect;
use crate::workload::Workload;

/// How many connections the runs are spread over, each with one stream.
const CONNECTIONS: u32 = 2;
/// How long the last runs may take to end behind the window.
const DRAIN_WAIT_MAX: Duration = Duration::from_secs(120);
/// When a start is sent again that was refused for a while, as its refusal says.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How many ids of runs are kept for a look into their journals, for each stream.
const IDS_KEPT: usize = 2_000;

/// What is asked of the loop.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// Which runs.
    pub(crate) workload: Workload,
    /// How many at a time, over all connections.
    pub(crate) concurrency: u32,
    /// From when on and until when ends are counted.
    pub(crate) window: (Instant, Instant),
    /// Gives each start a request id, which is kept in a row of its own.
    pub(crate) request_ids: bool,
    /// Ends the load before the window does.
    pub(crate) stop: CancellationToken,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Loaded {
    /// Starts that were acknowledged, warm-up and drain included.
    pub(crate) accepted: u64,
    /// Runs whose end was told, all of them successes.
    pub(crate) ended: u64,
    /// Starts that were refused for a while, and sent again.
    pub(crate) refused: u64,
    /// Of the runs that ended in the window: from start to end as the client saw it, in
    /// microseconds.
    pub(crate) micros: Vec<u64>,
    /// Ids of some of them.
    pub(crate) run_ids: Vec<String>,
}

impl Loaded {
    fn add(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.ended += other.ended;
        self.refused += other.refused;
        self.micros.extend(other.micros);
        self.run_ids.extend(other.run_ids);
    }
}

impl Load {
    /// Keeps the load up until the window is over and all runs have ended. The runs are spread
    /// over the servers evenly.
    pub(crate) async fn run(&self, servers: &[String]) -> anyhow::Result<Loaded> {
        let mut streams = Vec::new();
        let count = CONNECTIONS.max(u32::try_from(servers.len())?).min(self.concurrency);
        for n in 0..count {
            let server = servers[n as usize % servers.len()].clone();
            let share = self.concurrency / count + u32::from(n < self.concurrency % count);
            let stream = OneStream { load: self.clone(), number: n, share };
            streams.push(tokio::spawn(stream.run(server)));
        }
        let mut sum = Loaded::default();
        for stream in streams {
            sum.add(stream.await??);
        }
        Ok(sum)
    }
}

struct OneStream {
    load: Load,
    number: u32,
    share: u32,
}

impl OneStream {
    async fn run(self, server: String) -> anyhow::Result<Loaded> {
        let mut client = OrchestratorServiceClient::new(connect(&server).await?);
        let share = self.share as usize;
        // Never full: there are as many places as runs at a time, and the setup.
        let (frames, requests) = mpsc::channel(share + 1);
        frames.send(setup(self.load.workload)).await?;
        let answers = client.start_runs(ReceiverStream::new(requests)).await?.into_inner();
        let mut running = Running {
            load: &self.load,
            stream: self.number,
            frames: Some(frames),
            next_tag: 0,
            since: HashMap::with_capacity(share),
            again: FuturesUnordered::new(),
            loaded: Loaded::default(),
        };
        for _ in 0..share {
            running.start().await?;
        }
        let until = self.load.window.1 + DRAIN_WAIT_MAX;
        match tokio::time::timeout_at(until.into(), running.follow(answers)).await {
            Ok(followed) => followed?,
            Err(_) => bail!(
                "{} of {} runs have not ended {DRAIN_WAIT_MAX:?} behind the window",
                running.since.len(),
                running.loaded.accepted
            ),
        }
        Ok(running.loaded)
    }
}

struct Running<'a> {
    load: &'a Load,
    stream: u32,
    /// Closed once no more runs are wanted.
    frames: Option<mpsc::Sender<StartRunsRequest>>,
    next_tag: i64,
    since: HashMap<i64, Instant>,
    /// Starts to be sent again.
    again: FuturesUnordered<BoxFuture<'static, i64>>,
    loaded: Loaded,
}

impl Running<'_> {
    async fn follow(
        &mut self,
        mut answers: Streaming<v1::StartRunsResponse>,
    ) -> anyhow::Result<()> {
        loop {
            let answer = tokio::select! {
                answer = answers.message() => answer?,
                Some(tag) = self.again.next() => {
                    self.send(tag).await?;
                    continue;
                }
            };
            let Some(answer) = answer else { break };
            let tag = answer.tag;
            match answer.item.context("an answer says something")? {
                Item::Started(_) => self.loaded.accepted += 1,
                Item::Refused(status) => {
                    if Code::from(status.code) != Code::ResourceExhausted {
                        bail!("a start was refused for good: {}", status.message);
                    }
                    self.loaded.refused += 1;
                    if self.is_over() {
                        self.since.remove(&tag);
                        continue;
                    }
                    self.again.push(Box::pin(async move {
                        tokio::time::sleep(RETRY_AFTER).await;
                        tag
                    }));
                }
                Item::Ended(ended) => {
                    let run = ended.run.context("an end tells the run")?;
                    self.ended(tag, &run)?;
                    self.start().await?;
                }
            }
        }
        if !self.since.is_empty() || self.loaded.accepted != self.loaded.ended {
            let Loaded { accepted, ended, .. } = self.loaded;
            bail!("the stream ended with {accepted} runs accepted and {ended} ended");
        }
        Ok(())
    }

    fn ended(&mut self, tag: i64, run: &v1::Run) -> anyhow::Result<()> {
        let since = self.since.remove(&tag).context("a run ended twice")?;
        if run.status() != RunStatus::Success {
            bail!("run {} ended as {:?}: {}", run.run_id, run.status(), run.error);
        }
        self.loaded.ended += 1;
        let now = Instant::now();
        let (from, until) = self.load.window;
        if now >= from && now < until {
            let micros = now.duration_since(since).as_micros();
            self.loaded.micros.push(u64::try_from(micros).unwrap_or(u64::MAX));
            if self.loaded.run_ids.len() < IDS_KEPT {
                self.loaded.run_ids.push(run.run_id.clone());
            }
        }
        Ok(())
    }

    /// Starts another one, unless the window is over.
    async fn start(&mut self) -> anyhow::Result<()> {
        if self.is_over() {
            return Ok(());
        }
        let tag = self.next_tag;
        self.next_tag += 1;
        self.since.insert(tag, Instant::now());
        self.send(tag).await
    }

    /// Whether no more runs are to be started; then the stream is told so, unless starts wait to
    /// be sent again.
    fn is_over(&mut self) -> bool {
        let over = Instant::now() >= self.load.window.1 || self.load.stop.is_cancelled();
        if over && self.again.is_empty() {
            self.frames = None;
        }
        over
    }

    async fn send(&mut self, tag: i64) -> anyhow::Result<()> {
        if self.is_over() {
            // What was refused so far needs not come any more.
            self.since.remove(&tag);
            return Ok(());
        }
        let Some(frames) = &self.frames else { return Ok(()) };
        let request_id = match self.load.request_ids {
            true => format!("bench-{}-{tag}", self.stream),
            false => String::new(),
        };
        let run = RunToStart { tag, params: None, request_id };
        let item = Some(start_runs_request::Item::Run(run));
        frames.send(StartRunsRequest { item }).await.context("the stream is closed")
    }
}

/// What all runs of a stream have in common.
pub(crate) fn setup(workload: Workload) -> StartRunsRequest {
    let yaml = workload.yaml();
    let definition = v1::Definition { yaml, file: "bench.yml".to_owned(), ..Default::default() };
    let setup = StartRunsSetup {
        source: Some(Source::Definition(definition)),
        require_agents: workload.steps() > 0,
        await_end: true,
        ..Default::default()
    };
    StartRunsRequest { item: Some(start_runs_request::Item::Setup(setup)) }
}
