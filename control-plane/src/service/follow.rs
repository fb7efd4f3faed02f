//! `Follow`: tells another replica what happens to runs of this one, for those who watch them
//! there. What waits for a slow reader is bounded; what is lost of it is found in the store.

use std::collections::BTreeMap;

use contracts::v1::{self, follow_response::News};
use engine::RunId;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Status, Streaming};

use super::{convert, watch};
use crate::limits;
use crate::runs::Runs;

/// What a replica is told.
pub(super) type Told = ReceiverStream<Result<v1::FollowResponse, Status>>;

type Ways = mpsc::Sender<Result<v1::FollowResponse, Status>>;

/// Tells of the runs that `frames` name until these end, or `stopping`.
pub(super) fn follow(
    runs: Runs,
    frames: Streaming<v1::FollowRequest>,
    stopping: CancellationToken,
) -> Told {
    let (told, stream) = mpsc::channel(limits::FOLLOW_NEWS_WAITING);
    tokio::spawn(async move {
        tokio::select! {
            biased;
            () = stopping.cancelled() => {}
            () = told.closed() => {}
            () = listen(&runs, frames, &told) => {}
        }
    });
    ReceiverStream::new(stream)
}

async fn listen(runs: &Runs, mut frames: Streaming<v1::FollowRequest>, told: &Ways) {
    // Dropped, they end what they stand for.
    let mut following: BTreeMap<RunId, DropGuard> = BTreeMap::new();
    while let Ok(Some(request)) = frames.message().await {
        let Ok(run) = request.run_id.parse() else { continue };
        following.remove(&run);
        if request.stop {
            continue;
        }
        if following.len() >= limits::FOLLOWS_MAX {
            if send(told, run, News::NotOwned(v1::follow_response::NotOwned {})).await.is_err() {
                return;
            }
            continue;
        }
        let stop = CancellationToken::new();
        following.insert(run, stop.clone().drop_guard());
        let (runs, told) = (runs.clone(), told.clone());
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                // With the stream gone nobody is to be told.
                _ = tell(&runs, run, &told) => {}
            }
        });
    }
}

/// Tells of one run for as long as it is this replica's.
async fn tell(runs: &Runs, run: RunId, told: &Ways) -> Result<(), ()> {
    let mut wakes = runs.watch(run);
    let mut updates = runs.dispatcher().watch(run);
    while runs.owns(run).await {
        send(told, run, News::Grown(v1::follow_response::Grown {})).await?;
        for update in watch::under_way(runs, run).await {
            send(told, run, News::Update(update)).await?;
        }
        loop {
            tokio::select! {
                biased;
                changed = wakes.changed() => {
                    if changed.is_err() || *wakes.borrow_and_update() < 0 {
                        break;
                    }
                    send(told, run, News::Grown(v1::follow_response::Grown {})).await?;
                }
                update = updates.recv() => match update {
                    Ok(update) => {
                        send(told, run, News::Update(convert::task_update(update))).await?;
                    }
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => break,
                },
            }
        }
    }
    send(told, run, News::NotOwned(v1::follow_response::NotOwned {})).await
}

async fn send(told: &Ways, run: RunId, news: News) -> Result<(), ()> {
    let response = v1::FollowResponse { run_id: run.to_string(), news: Some(news) };
    told.send(Ok(response)).await.map_err(drop)
}
