//! The runs of other replicas that are watched here: one stream to each of these replicas, for as
//! long as something of it is watched. What it tells wakes watchers, who read the store: a word
//! that is lost costs time, never an event.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use contracts::v1;
use contracts::v1::follow_response::News as Wire;
use contracts::v1::peer_service_client::PeerServiceClient;
use engine::RunId;
use store::OwnerId;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::Peers;
use crate::limits;
use crate::runs::News;

/// The streams that are open, by the replicas that they lead to.
#[derive(Debug, Default)]
pub(super) struct Followed(Mutex<BTreeMap<OwnerId, mpsc::Sender<Wish>>>);

/// A watch wants to be told of a run.
#[derive(Debug)]
pub(super) struct Wish {
    run: RunId,
    news: mpsc::Sender<News>,
}

impl Peers {
    /// Has a replica tell of a run that it has, until the receiver is dropped; `None` when it
    /// cannot be asked just now.
    pub(super) fn follow_run(&self, owner: OwnerId, run: RunId) -> Option<mpsc::Receiver<News>> {
        let channel = self.channel(owner)?;
        let (news, told) = mpsc::channel(limits::FOLLOW_NEWS_WAITING);
        let mut wish = Wish { run, news };
        let mut followed = self.followed().lock();
        if let Some(wishes) = followed.get(&owner) {
            match wishes.try_send(wish) {
                Ok(()) => return Some(told),
                Err(mpsc::error::TrySendError::Full(_)) => return None,
                // That stream has ended.
                Err(mpsc::error::TrySendError::Closed(again)) => wish = again,
            }
        }
        let (wishes, wished) = mpsc::channel(limits::FOLLOWS_QUEUED_MAX);
        wishes.try_send(wish).ok()?;
        followed.insert(owner, wishes);
        tokio::spawn(follow_all(self.clone(), owner, channel, wished));
        Some(told)
    }
}

impl Followed {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<OwnerId, mpsc::Sender<Wish>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a stream for as long as something is watched on it, or until it breaks: then each watch
/// finds its channel closed.
async fn follow_all(
    peers: Peers,
    owner: OwnerId,
    channel: Channel,
    mut wished: mpsc::Receiver<Wish>,
) {
    if let Err(status) = follow(&peers, owner, channel, &mut wished).await {
        let code = status.code();
        tracing::debug!(?code, %owner, "a replica does not tell of its runs any more");
    }
    // What came meanwhile is closed too, and asked for again.
    wished.close();
}

async fn follow(
    peers: &Peers,
    owner: OwnerId,
    channel: Channel,
    wished: &mut mpsc::Receiver<Wish>,
) -> Result<(), Status> {
    let (asks, requests) = mpsc::channel(limits::FOLLOWS_QUEUED_MAX);
    let mut request = Request::new(ReceiverStream::new(requests));
    peers.authorize(&mut request);
    let mut client =
        PeerServiceClient::new(channel).max_decoding_message_size(limits::LINK_MESSAGE_BYTES_MAX);
    let opened = tokio::time::timeout(limits::PASS_WAIT_MAX, client.follow(request)).await;
    let slow = |_| Status::deadline_exceeded("the replica did not answer in time");
    let mut stream = opened.map_err(slow)??.into_inner();
    let mut following = Following { asks, runs: BTreeMap::new() };
    let mut sweeps = tokio::time::interval(limits::FOLLOW_SWEEP_EVERY);
    sweeps.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    sweeps.reset();
    loop {
        tokio::select! {
            biased;
            wish = wished.recv() => match wish {
                Some(wish) => following.add(wish)?,
                None => return Ok(()),
            },
            response = stream.message() => match response? {
                Some(response) => following.tell(response)?,
                None => return Ok(()),
            },
            _ = sweeps.tick() => {
                following.sweep()?;
                let mut followed = peers.followed().lock();
                if following.runs.is_empty() && wished.is_empty() {
                    // Whoever comes next opens another one; under the lock nobody comes.
                    followed.remove(&owner);
                    return Ok(());
                }
            }
        }
    }
}

/// What is watched on one stream.
struct Following {
    asks: mpsc::Sender<v1::FollowRequest>,
    runs: BTreeMap<RunId, Vec<mpsc::Sender<News>>>,
}

impl Following {
    /// Asks for a run; asked again, the other side tells anew how its tasks are.
    fn add(&mut self, wish: Wish) -> Result<(), Status> {
        // What was told to another watch before is not told to this one.
        drop(wish.news.try_send(News::Grown));
        self.runs.entry(wish.run).or_default().push(wish.news);
        self.ask(wish.run, false)
    }

    fn ask(&self, run: RunId, stop: bool) -> Result<(), Status> {
        let request = v1::FollowRequest { run_id: run.to_string(), stop };
        let full = |_| Status::resource_exhausted("the replica does not take what it is asked");
        self.asks.try_send(request).map_err(full)
    }

    fn tell(&mut self, response: v1::FollowResponse) -> Result<(), Status> {
        let (Ok(run), Some(news)) = (response.run_id.parse(), response.news) else {
            // Words of a newer release.
            return Ok(());
        };
        if let Wire::NotOwned(_) = news {
            let watches = self.runs.remove(&run).unwrap_or_default();
            watches.iter().for_each(|watch| drop(watch.try_send(News::Lost)));
            return self.ask(run, true);
        }
        let Some(watches) = self.runs.get(&run) else { return Ok(()) };
        for watch in watches {
            let news = match &news {
                Wire::Grown(_) | Wire::NotOwned(_) => News::Grown,
                Wire::Update(update) => News::Update(Box::new(update.clone())),
            };
            // One whose channel is full has reason enough to look.
            drop(watch.try_send(news));
        }
        Ok(())
    }

    /// Gives up what nobody watches any more.
    fn sweep(&mut self) -> Result<(), Status> {
        let mut over = Vec::new();
        self.runs.retain(|run, watches| {
            watches.retain(|watch| !watch.is_closed());
            if watches.is_empty() {
                over.push(*run);
            }
            !watches.is_empty()
        });
        over.into_iter().try_for_each(|run| self.ask(run, true))
    }
}
