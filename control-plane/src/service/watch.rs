//! `WatchRun`: the journal of a run as it grows, with news of its tasks between.
//!
//! The journal is read from the store by its sequence, so nothing is missed and nothing comes
//! twice, whatever happens to the notifications, which only wake the watch. A watch that is not
//! read stops at its bound and holds up nothing else.

use contracts::v1::{self, task_update::Update, watch_run_response::Item};
use engine::{RunId, State};
use tokio::sync::{OwnedSemaphorePermit, broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::auth::Principal;
use super::status::Refusal;
use super::{Context, convert, run};
use crate::dispatch::{Progress, TaskUpdate};
use crate::limits;
use crate::runs::{Runs, Woken};

/// What a watch gives.
pub type Items = ReceiverStream<Result<v1::WatchRunResponse, Status>>;

/// The kinds of events behind which a run may be over: its end, and what is planned later.
const MAY_BE_OVER: [i32; 4] = [
    v1::EventKind::RunEnded as i32,
    v1::EventKind::RollbackPlanned as i32,
    v1::EventKind::RollbackApproved as i32,
    v1::EventKind::RollbackAbandoned as i32,
];

/// `WatchRun`.
pub async fn watch(
    context: &Context,
    _who: &Principal,
    request: v1::WatchRunRequest,
) -> Result<Items, Refusal> {
    let id = convert::run_id(&request.run_id, "run_id")?;
    if request.after_sequence < 0 {
        return Err(Refusal::field("after_sequence", "must not be negative"));
    }
    run::row(context, id).await?;
    let permit = std::sync::Arc::clone(&context.watches).try_acquire_owned().map_err(|_| {
        let max = limits::WATCHES_MAX;
        Refusal::overloaded(format!("{max} watches are open already"))
    })?;
    let (items, stream) = mpsc::channel(limits::WATCH_ITEMS_WAITING);
    let watch = Watch {
        context: context.clone(),
        run: id,
        after: request.after_sequence,
        may_have_ended: true,
        items,
        _permit: permit,
    };
    tokio::spawn(watch.run());
    Ok(ReceiverStream::new(stream))
}

struct Watch {
    context: Context,
    run: RunId,
    after: i64,
    may_have_ended: bool,
    items: mpsc::Sender<Result<v1::WatchRunResponse, Status>>,
    _permit: OwnedSemaphorePermit,
}

/// Why a watch goes no further.
enum Stop {
    /// The client is gone, or has been told all.
    Over,
    /// The client must be told why.
    Refused(Refusal),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Watch {
    async fn run(mut self) {
        let stopping = self.context.stopping.clone();
        let items = self.items.clone();
        let stop = tokio::select! {
            stop = self.follow() => stop,
            () = stopping.cancelled() => Stop::Refused(Refusal::unavailable(
                "the server stops; watch again with the sequence of the last event seen",
            )),
            () = items.closed() => Stop::Over,
        };
        if let Stop::Refused(refusal) = stop {
            // With the channel full the reader has long stopped reading; it sees the stream end.
            drop(self.items.try_send(Err(refusal.into())));
        }
    }

    async fn follow(&mut self) -> Stop {
        let mut wakes = self.context.runs.wakes(self.run);
        let mut updates = self.context.dispatcher.watch(self.run);
        // The events first: news of a step means nothing before the step is known.
        if let Err(stop) = self.read_on().await {
            return stop;
        }
        if let Err(stop) = self.latest_progress().await {
            return stop;
        }
        loop {
            wakes.reading();
            if let Err(stop) = self.read_on().await {
                return stop;
            }
            tokio::select! {
                biased;
                woken = wakes.next() => if let Woken::Update(update) = woken
                    && let Err(stop) = self.send(Item::Update(*update)).await
                {
                    return stop;
                },
                update = updates.recv() => match update {
                    Ok(update) => {
                        if let Err(stop) = self.tell(update).await {
                            return stop;
                        }
                        if let Err(stop) = self.tell_rest(&mut updates).await {
                            return stop;
                        }
                    }
                    // What a slow watcher misses of these is not kept.
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => {
                        updates = self.context.dispatcher.watch(self.run);
                    }
                },
            }
        }
    }

    /// Sends what the journal has by now.
    async fn read_on(&mut self) -> Result<(), Stop> {
        let limit = u32::try_from(limits::JOURNAL_ROWS_READ).unwrap_or(u32::MAX);
        loop {
            let store = self.context.runs.store();
            let rows = store.journal(self.run, self.after, limit).await;
            let rows = match rows {
                Ok(rows) => rows,
                // The store may be back at the next look.
                Err(store::Error::Unavailable(_)) => return Ok(()),
                Err(error) => return Err(Refusal::from(error).into()),
            };
            let is_last = rows.len() < limits::JOURNAL_ROWS_READ;
            for row in rows {
                if row.seq > self.after + 1 {
                    return Err(gone(self.after, row.seq).into());
                }
                self.after = row.seq;
                let event = convert::journal_event(self.run, &row);
                self.may_have_ended = MAY_BE_OVER.contains(&event.kind);
                self.send(Item::Event(event)).await?;
            }
            if is_last {
                break;
            }
        }
        if self.may_have_ended { self.end_if_over().await } else { Ok(()) }
    }

    /// Ends the watch when the run has ended and all its events were sent.
    async fn end_if_over(&mut self) -> Result<(), Stop> {
        let row = run::row(&self.context, self.run).await?;
        if row.ended_at.is_none() {
            self.may_have_ended = false;
            return Ok(());
        }
        if row.version > self.after {
            return Ok(());
        }
        let run = run::basic(&self.context, &row).await?;
        self.send(Item::Ended(v1::RunEnded { run: Some(run) })).await?;
        Err(Stop::Over)
    }

    /// How each running task is, for who comes late.
    async fn latest_progress(&mut self) -> Result<(), Stop> {
        // A run that cannot be folded is still watched for its events.
        let Ok((_, state)) = self.context.folded(self.run).await else { return Ok(()) };
        if state.ended_at().is_some() {
            return Ok(());
        }
        if state.version() > self.after {
            self.read_on().await?;
        }
        for update in updates_of(&self.context.runs, &state) {
            self.send(Item::Update(update)).await?;
        }
        Ok(())
    }

    /// Tells all updates that wait, so that the journal is not read once for each.
    async fn tell_rest(
        &mut self,
        updates: &mut broadcast::Receiver<TaskUpdate>,
    ) -> Result<(), Stop> {
        for _ in 0..limits::UPDATES_KEPT {
            let Ok(update) = updates.try_recv() else { break };
            self.tell(update).await?;
        }
        Ok(())
    }

    async fn tell(&mut self, update: TaskUpdate) -> Result<(), Stop> {
        self.send(Item::Update(convert::task_update(update))).await
    }

    async fn send(&mut self, item: Item) -> Result<(), Stop> {
        let response = v1::WatchRunResponse { item: Some(item) };
        self.items.send(Ok(response)).await.map_err(|_| Stop::Over)
    }
}

/// How each running task of a run of this replica is, for who comes late.
pub(super) async fn under_way(runs: &Runs, run: RunId) -> Vec<v1::TaskUpdate> {
    match runs.read(run).await {
        Ok((_, state)) if state.ended_at().is_none() => updates_of(runs, &state),
        // A run that cannot be folded is still watched for its events.
        _ => Vec::new(),
    }
}

fn updates_of(runs: &Runs, state: &State) -> Vec<v1::TaskUpdate> {
    let (dispatcher, now) = (runs.dispatcher(), runs.clock().now());
    let update = |view: engine::StepView| {
        let Some(engine::Waiting::Agent(key)) = view.waiting else { return None };
        if dispatcher.why(&key).is_some() {
            return None;
        }
        let told = match dispatcher.progress(&key) {
            Some(Progress { fraction, message, .. }) => {
                Update::Progress(v1::TaskProgress { fraction, message })
            }
            None => Update::Accepted(v1::TaskAccepted {}),
        };
        Some(v1::TaskUpdate {
            step: view.path.to_string(),
            agent: view.agent.to_string(),
            attempt: i32::try_from(view.attempts).unwrap_or(i32::MAX),
            time: Some(convert::timestamp(now)),
            update: Some(told),
            ..v1::TaskUpdate::default()
        })
    };
    state.steps().into_iter().filter_map(update).collect()
}

fn gone(after: i64, earliest: i64) -> Refusal {
    let message = format!(
        "the events behind {after} were removed by retention; the earliest that is there is \
         {earliest}"
    );
    Refusal::new(v1::Reason::SequenceGone, message)
        .metadata("earliest_sequence", earliest.to_string())
}
