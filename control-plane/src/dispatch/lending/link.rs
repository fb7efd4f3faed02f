//! The streams between two replicas: one task borrows of each live replica, and a stream for
//! each end takes what the matcher has for the other one.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::task::{Context, Poll};

use contracts::v1::lending_service_client::LendingServiceClient;
use contracts::v1::{self, borrower_frame};
use futures::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::super::Dispatcher;
use super::super::session::SessionId;
use super::{LinkFrame, Replica, convert};
use crate::limits;
use crate::replicas::{Peer, Peers};

impl Dispatcher {
    /// Borrows agents of all other replicas, and lends them to those only that live, until
    /// `shutdown`.
    pub async fn share(self, peers: Peers, shutdown: CancellationToken) {
        // Only the first call counts: there is one place among the replicas.
        if self.0.peers.set(peers.clone()).is_err() {
            return;
        }
        let mut live = peers.live();
        let mut borrowing: HashMap<Peer, CancellationToken> = HashMap::new();
        loop {
            let now = live.borrow_and_update().clone();
            let gone = borrowing.extract_if(|peer, _| !now.contains(peer));
            let mut gone: Vec<_> = gone.collect();
            gone.sort_unstable_by_key(|(peer, _)| peer.epoch);
            gone.into_iter().for_each(|(_, stop)| stop.cancel());
            let ids: Vec<Replica> = now.iter().map(|peer| peer.id).collect();
            self.with(|matcher| matcher.lend_only_to(&ids));
            for peer in now.iter() {
                borrowing.entry(peer.clone()).or_insert_with(|| {
                    let stop = shutdown.child_token();
                    let borrow = borrow(self.clone(), peers.clone(), peer.id, stop.clone());
                    tokio::spawn(borrow);
                    stop
                });
            }
            tokio::select! {
                biased;
                changed = live.changed() => if changed.is_err() { break },
                () = shutdown.cancelled() => break,
            }
        }
        borrowing.into_values().for_each(|stop| stop.cancel());
    }

    /// A replica opens its stream to borrow of this one.
    pub(crate) fn lend_to(&self, replica: Replica, epoch: u64) -> LinkStream<v1::LendResponse> {
        let link = self.with(|matcher| matcher.borrower_joined(replica, epoch));
        let make: Make<v1::LendResponse> = |_, frames| convert::responses(frames).into();
        LinkStream::new(self.clone(), link, make)
    }
}

/// Borrows of one replica for as long as it lives.
async fn borrow(dispatcher: Dispatcher, peers: Peers, replica: Replica, stop: CancellationToken) {
    let mut pause = limits::LINK_RETRY_MIN;
    loop {
        let began = dispatcher.0.clock.now();
        let borrowed = tokio::select! {
            biased;
            borrowed = borrow_once(&dispatcher, &peers, replica) => borrowed,
            () = stop.cancelled() => return,
        };
        if let Err(status) = borrowed {
            let code = status.code();
            tracing::debug!(?code, %replica, "the link to a replica broke");
        }
        if dispatcher.0.clock.now().since(began) > limits::LINK_RETRY_MAX {
            pause = limits::LINK_RETRY_MIN;
        }
        let nap = pause.mul_f64(0.5 + dispatcher.0.randomness.share() / 2.0);
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(nap) => {}
        }
        pause = (pause * 2).min(limits::LINK_RETRY_MAX);
    }
}

async fn borrow_once(
    dispatcher: &Dispatcher,
    peers: &Peers,
    replica: Replica,
) -> Result<(), Status> {
    let unknown = || Status::unavailable("the replica is not known just now");
    let own = peers.own().ok_or_else(unknown)?;
    let channel = peers.channel(replica).ok_or_else(unknown)?;
    let mut client = LendingServiceClient::new(channel)
        .max_decoding_message_size(limits::LINK_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(limits::LINK_MESSAGE_BYTES_MAX);
    let link = dispatcher.with(|matcher| matcher.lender_joined(replica));
    let make: Make<v1::LendRequest> = |dispatcher, frames| {
        let now = dispatcher.0.clock.now();
        convert::requests(frames, dispatcher.clocks(), now).into()
    };
    let mut stream = LinkStream::new(dispatcher.clone(), link, make);
    stream.ready.push_back(hello(&own));
    // When nobody reads any more what comes back, nothing is to be sent either.
    let _end = Ending { dispatcher, link };
    let mut request = tonic::Request::new(stream.map(Result::unwrap_or_default));
    peers.authorize(&mut request);
    let mut frames = client.lend(request).await?.into_inner();
    while let Some(response) = frames.message().await? {
        let heard = convert::from_lender(response);
        if !dispatcher.with(|matcher| matcher.hear_lender(link, heard)) {
            break;
        }
    }
    Ok(())
}

/// Ends a link when its reader is gone.
struct Ending<'a> {
    dispatcher: &'a Dispatcher,
    link: SessionId,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.dispatcher.with(|matcher| matcher.link_gone(self.link));
    }
}

fn hello(own: &Peer) -> v1::LendRequest {
    let borrower = v1::Borrower { replica_id: own.id.to_string(), epoch: own.epoch };
    let frame = Some(borrower_frame::Frame::Borrower(borrower));
    v1::LendRequest { frames: vec![v1::BorrowerFrame { frame }] }
}

type Make<M> = fn(&Dispatcher, Vec<LinkFrame>) -> VecDeque<M>;

/// What goes to the other side of a link. The link ends when this is dropped.
pub struct LinkStream<M> {
    dispatcher: Dispatcher,
    link: SessionId,
    make: Make<M>,
    ready: VecDeque<M>,
    ended: CancellationToken,
}

/// What comes from a borrower.
pub(crate) struct LinkInbox {
    dispatcher: Dispatcher,
    link: SessionId,
    ended: CancellationToken,
}

impl<M> LinkStream<M> {
    fn new(dispatcher: Dispatcher, link: SessionId, make: Make<M>) -> Self {
        let ended = CancellationToken::new();
        Self { dispatcher, link, make, ready: VecDeque::new(), ended }
    }

    pub(crate) fn inbox(&self) -> LinkInbox {
        LinkInbox {
            dispatcher: self.dispatcher.clone(),
            link: self.link,
            ended: self.ended.clone(),
        }
    }
}

impl LinkInbox {
    /// Takes the borrower's frames until its stream, or the link, ends.
    pub(crate) async fn run<S>(self, mut frames: S)
    where
        S: Stream<Item = Result<v1::LendRequest, Status>> + Unpin,
    {
        loop {
            let next = tokio::select! {
                biased;
                next = frames.next() => next,
                () = self.ended.cancelled() => break,
            };
            let Some(Ok(request)) = next else { break };
            let now = self.dispatcher.0.clock.now();
            let heard = convert::from_borrower(request, now);
            if !self.dispatcher.with(|matcher| matcher.hear_borrower(self.link, heard)) {
                break;
            }
        }
        self.dispatcher.with(|matcher| matcher.link_gone(self.link));
    }
}

impl<M: Unpin> Stream for LinkStream<M> {
    type Item = Result<M, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(message) = self.ready.pop_front() {
            return Poll::Ready(Some(Ok(message)));
        }
        let link = self.link;
        let may_act = self.dispatcher.may_act();
        let taken = self.dispatcher.with_locked(|locked| {
            let taken = locked.matcher.take_link(link, may_act);
            if taken.as_ref().is_some_and(Vec::is_empty) {
                Dispatcher::wake_for(locked, link, cx.waker());
            }
            taken
        });
        let Some(frames) = taken else { return Poll::Ready(None) };
        let was_there = !frames.is_empty();
        self.ready = (self.make)(&self.dispatcher, frames);
        match self.ready.pop_front() {
            Some(message) => Poll::Ready(Some(Ok(message))),
            None => {
                if was_there {
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
        }
    }
}

impl<M> Drop for LinkStream<M> {
    fn drop(&mut self) {
        self.ended.cancel();
        self.dispatcher.with(|matcher| matcher.link_gone(self.link));
        self.dispatcher.forget_wakers(self.link);
    }
}
