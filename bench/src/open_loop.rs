//! The open loop: runs come at a fixed rate, whether the server keeps up or not. For loads beyond
//! what it can carry, and for steady ones over hours.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use contracts::v1::orchestrator_service_client::OrchestratorServiceClient;
use contracts::v1::{
    self, RunStatus, RunToStart, StartRunsRequest, start_runs_request, start_runs_response::Item,
};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Streaming};

use crate::host::server::connect;
use crate::load::setup;
use crate::workload::Workload;

/// How many streams, each on a connection of its own.
const STREAMS: usize = 4;
/// How often runs are sent: so many at once as the rate makes due.
const TICK: Duration = Duration::from_millis(5);
/// How many requests wait for a connection that does not take them; then they are not offered.
const REQUESTS_WAITING: usize = 1024;
/// How long the last runs may take to end behind the load.
const DRAIN_WAIT_MAX: Duration = Duration::from_secs(300);

/// What has happened so far.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Starts that were due and could not even be sent.
    pub(crate) held_back: u64,
    /// Starts that were sent.
    pub(crate) sent: u64,
    /// Starts that were acknowledged.
    pub(crate) accepted: u64,
    /// Starts that were refused for a while, with the time to come back.
    pub(crate) refused: u64,
    /// Runs that ended, all of them successes.
    pub(crate) ended: u64,
    /// From being sent to the end, in microseconds; taken away by whoever looks.
    pub(crate) micros: Vec<u64>,
}

/// A load at a fixed rate.
#[derive(Clone, Debug)]
pub(crate) struct OpenLoop {
    pub(crate) workload: Workload,
    pub(crate) runs_per_second: f64,
    pub(crate) counts: Arc<Mutex<Counts>>,
    pub(crate) stop: CancellationToken,
}

impl OpenLoop {
    /// What has happened so far; latencies are handed out once.
    pub(crate) fn look(&self) -> Counts {
        let mut counts = self.lock();
        let micros = std::mem::take(&mut counts.micros);
        Counts { micros, ..*counts }
    }

    /// Keeps the load up until it is stopped, then waits for what was accepted to end.
    pub(crate) async fn run(self, server: String) -> anyhow::Result<()> {
        let streams: Vec<_> =
            (0..STREAMS).map(|_| tokio::spawn(self.clone().stream(server.clone()))).collect();
        for stream in streams {
            stream.await??;
        }
        let counts = self.lock();
        let (accepted, ended) = (counts.accepted, counts.ended);
        if accepted != ended {
            bail!("{accepted} runs were accepted, and {ended} ended");
        }
        Ok(())
    }

    async fn stream(self, server: String) -> anyhow::Result<()> {
        let mut client = OrchestratorServiceClient::new(connect(&server).await?);
        let (frames, requests) = mpsc::channel(REQUESTS_WAITING);
        frames.send(setup(self.workload)).await?;
        let answers = client.start_runs(ReceiverStream::new(requests)).await?.into_inner();
        let since = Arc::new(Mutex::new(HashMap::new()));
        let sending = tokio::spawn(self.clone().send(frames, Arc::clone(&since)));
        let stop = self.stop.clone();
        let following = self.follow(answers, since);
        tokio::pin!(following);
        tokio::select! {
            followed = &mut following => followed?,
            () = stop.cancelled() => match tokio::time::timeout(DRAIN_WAIT_MAX, following).await {
                Ok(followed) => followed?,
                Err(_) => bail!("not all runs ended within {DRAIN_WAIT_MAX:?}"),
            },
        }
        sending.await?;
        Ok(())
    }

    async fn send(
        self,
        frames: mpsc::Sender<StartRunsRequest>,
        since: Arc<Mutex<HashMap<i64, Instant>>>,
    ) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let each = self.runs_per_second / STREAMS as f64 * TICK.as_secs_f64();
        let (mut due, mut tag) = (0.0, 0);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = ticks.tick() => due += each,
            }
            while due >= 1.0 {
                due -= 1.0;
                let run = RunToStart { tag, params: None, request_id: String::new() };
                let item = Some(start_runs_request::Item::Run(run));
                let now = Instant::now();
                lock(&since).insert(tag, now);
                match frames.try_send(StartRunsRequest { item }) {
                    Ok(()) => self.lock().sent += 1,
                    Err(mpsc::error::TrySendError::Full(_)) => {
                        lock(&since).remove(&tag);
                        self.lock().held_back += 1;
                    }
                    Err(mpsc::error::TrySendError::Closed(_)) => return,
                }
                tag += 1;
            }
        }
    }

    async fn follow(
        &self,
        mut answers: Streaming<v1::StartRunsResponse>,
        since: Arc<Mutex<HashMap<i64, Instant>>>,
    ) -> anyhow::Result<()> {
        while let Some(answer) = answers.message().await? {
            match answer.item.context("an answer says something")? {
                Item::Started(_) => self.lock().accepted += 1,
                Item::Refused(status) => {
                    if Code::from(status.code) != Code::ResourceExhausted {
                        bail!("a start was refused for good: {}", status.message);
                    }
                    lock(&since).remove(&answer.tag);
                    self.lock().refused += 1;
                }
                Item::Ended(ended) => {
                    let run = ended.run.context("an end tells the run")?;
                    if run.status() != RunStatus::Success {
                        bail!("run {} ended as {:?}: {}", run.run_id, run.status(), run.error);
                    }
                    let sent = lock(&since).remove(&answer.tag).context("a run ended twice")?;
                    let micros = u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX);
                    let mut counts = self.lock();
                    counts.ended += 1;
                    counts.micros.push(micros);
                }
            }
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        lock(&self.counts)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
