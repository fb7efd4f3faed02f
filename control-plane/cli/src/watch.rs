//! A run's events as they come, over broken connections: none is missed and none comes twice.

use std::time::Duration;

use contracts::v1::{JournalEvent, WatchRunResponse};
use contracts::v1::{Run, TaskUpdate, WatchRunRequest, watch_run_response::Item};
use futures::stream::{self, Stream};
use tokio::time::Instant;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::connection::{Client, is_transient, orchestrator};
use crate::error::Error;

/// For how long a watch that brings nothing is taken up again before it is given up.
pub(crate) const RECONNECT_TIME_MAX: Duration = Duration::from_secs(30);
const RECONNECT_DELAY_MIN: Duration = Duration::from_millis(100);
const RECONNECT_DELAY_MAX: Duration = Duration::from_secs(2);
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// One thing seen.
#[derive(Debug)]
pub(crate) enum Seen {
    /// A journal event.
    Event(JournalEvent),
    /// Progress of a running task.
    Update(TaskUpdate),
    /// The run ended; nothing follows.
    Ended(Box<Run>),
    /// The connection broke; the watch goes on by itself.
    Broken,
}

/// Watches a run from behind `after_sequence` until it ends; one that brings nothing for
/// `patience` is given up. Dropping the future of `next` loses nothing.
pub(crate) fn watch(
    client: Client,
    run_id: String,
    after_sequence: i64,
    patience: Duration,
) -> impl Stream<Item = Result<Seen, Error>> {
    let watch = Watch {
        client,
        run_id,
        after_sequence,
        patience,
        stream: None,
        broken_since: None,
        delay: RECONNECT_DELAY_MIN,
        is_over: false,
    };
    stream::unfold(watch, |mut watch| async move {
        if watch.is_over {
            return None;
        }
        let seen = watch.next().await;
        watch.is_over = matches!(seen, Err(_) | Ok(Seen::Ended(_)));
        Some((seen, watch))
    })
}

struct Watch {
    client: Client,
    run_id: String,
    after_sequence: i64,
    patience: Duration,
    stream: Option<Streaming<WatchRunResponse>>,
    broken_since: Option<Instant>,
    delay: Duration,
    is_over: bool,
}

impl Watch {
    async fn next(&mut self) -> Result<Seen, Error> {
        loop {
            let received = match &mut self.stream {
                Some(stream) => stream.message().await,
                None => match self.open().await {
                    Ok(stream) => {
                        self.stream = Some(stream);
                        continue;
                    }
                    Err(status) => Err(status),
                },
            };
            match received {
                Ok(Some(response)) => {
                    if let Some(seen) = self.seen(response) {
                        return Ok(seen);
                    }
                }
                Ok(None) => {
                    return self.broke(Status::unavailable("the server ended the watch")).await;
                }
                Err(status) => return self.broke(status).await,
            }
        }
    }

    async fn open(&self) -> Result<Streaming<WatchRunResponse>, Status> {
        let request =
            WatchRunRequest { run_id: self.run_id.clone(), after_sequence: self.after_sequence };
        let mut client = orchestrator(self.client.channel());
        match tokio::time::timeout(OPEN_TIMEOUT, client.watch_run(request)).await {
            Ok(response) => Ok(response?.into_inner()),
            Err(_) => Err(Status::deadline_exceeded("the server gave no answer")),
        }
    }

    fn seen(&mut self, response: WatchRunResponse) -> Option<Seen> {
        self.broken_since = None;
        self.delay = RECONNECT_DELAY_MIN;
        match response.item? {
            Item::Event(event) if event.sequence <= self.after_sequence => None,
            Item::Event(event) => {
                self.after_sequence = event.sequence;
                Some(Seen::Event(event))
            }
            Item::Update(update) => Some(Seen::Update(update)),
            Item::Ended(ended) => ended.run.map(|run| Seen::Ended(Box::new(run))),
        }
    }

    /// Waits a moment and lets the caller ask again, at the next address; gives up after a time.
    async fn broke(&mut self, status: Status) -> Result<Seen, Error> {
        self.stream = None;
        if let Some(earliest) = earliest_sequence(&status)
            && earliest > self.after_sequence + 1
        {
            self.after_sequence = earliest - 1;
            return Ok(Seen::Broken);
        }
        let may_pass = is_transient(&status)
            || matches!(status.code(), Code::Cancelled | Code::Aborted | Code::ResourceExhausted);
        if !may_pass {
            return Err(Error::refused(status));
        }
        let since = *self.broken_since.get_or_insert_with(Instant::now);
        if since.elapsed() > self.patience {
            let cause = Box::new(self.client.unreachable(&status));
            return Err(Error::WatchLost { run_id: self.run_id.clone(), cause });
        }
        self.client.next_address();
        tokio::time::sleep(self.delay).await;
        self.delay = (self.delay * 2).min(RECONNECT_DELAY_MAX);
        Ok(Seen::Broken)
    }
}

/// Where a journal begins whose older part retention has removed.
fn earliest_sequence(status: &Status) -> Option<i64> {
    if status.code() != Code::OutOfRange {
        return None;
    }
    let info = status.get_details_error_info()?;
    info.metadata.get("earliest_sequence")?.parse().ok()
}
