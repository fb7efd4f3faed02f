//! `LendingService`: other replicas borrow agents of this one. Shims over `dispatch`.

#[cfg(test)]
mod tests;

use contracts::v1::lending_service_server::LendingService;
use contracts::v1::{self, borrower_frame};
use tonic::{Request, Response, Status, Streaming};

use crate::dispatch::{Dispatcher, LinkStream, Replica};
use crate::limits;

/// Serves `LendingService`.
#[derive(Clone, Debug)]
pub struct LendingApi {
    dispatcher: Dispatcher,
}

impl LendingApi {
    /// Lends what `dispatcher` has.
    #[must_use]
    pub fn new(dispatcher: Dispatcher) -> Self {
        Self { dispatcher }
    }
}

#[tonic::async_trait]
impl LendingService for LendingApi {
    type LendStream = LinkStream<v1::LendResponse>;

    async fn lend(
        &self,
        request: Request<Streaming<v1::LendRequest>>,
    ) -> Result<Response<Self::LendStream>, Status> {
        let peers = self.dispatcher.peers();
        let peers =
            peers.ok_or_else(|| Status::failed_precondition("this replica is the only one"))?;
        peers.admit(request.metadata()).map_err(|status| *status)?;
        let mut frames = request.into_inner();
        let (borrower, epoch) = first_frame(&mut frames).await?;
        if !peers.is_live(borrower) {
            // It may have come a moment ago, and comes again.
            let what = format!("no live replica {borrower} is known here yet");
            return Err(Status::unavailable(what));
        }
        let stream = self.dispatcher.lend_to(borrower, epoch);
        tokio::spawn(stream.inbox().run(frames));
        Ok(Response::new(stream))
    }
}

async fn first_frame(frames: &mut Streaming<v1::LendRequest>) -> Result<(Replica, u64), Status> {
    let first = tokio::time::timeout(limits::REGISTER_WAIT_MAX, frames.message()).await;
    let Ok(first) = first else {
        return Err(Status::invalid_argument("no frame came in time"));
    };
    let frame = first?.and_then(|request| request.frames.into_iter().next()?.frame);
    let Some(borrower_frame::Frame::Borrower(borrower)) = frame else {
        return Err(Status::invalid_argument("the first frame must be `Borrower`"));
    };
    let id = borrower.replica_id.parse();
    let id = id.map_err(|_| Status::invalid_argument("`replica_id` is not the id of a replica"))?;
    Ok((store::OwnerId(id), borrower.epoch))
}
