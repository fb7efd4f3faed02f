//! `PeerService`: what other replicas ask. A shim over `runs` and `replicas`.

use contracts::v1;
use contracts::v1::peer_service_server::PeerService;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{convert, follow, look};
use crate::replicas::Replicas;
use crate::runs::{Answered, Passed, Runs};

/// Serves `PeerService`.
#[derive(Clone, Debug)]
pub struct PeerApi {
    runs: Runs,
    replicas: Replicas,
    /// The server stops: streams end.
    stopping: CancellationToken,
}

impl PeerApi {
    /// Answers for `runs` until `stopping`.
    #[must_use]
    pub fn new(runs: Runs, replicas: Replicas, stopping: CancellationToken) -> Self {
        Self { runs, replicas, stopping }
    }

    fn admit<T>(&self, request: &Request<T>) -> Result<(), Status> {
        self.replicas.peers().admit(request.metadata()).map_err(|refused| *refused)
    }
}

#[tonic::async_trait]
impl PeerService for PeerApi {
    type FollowStream = follow::Told;

    async fn pass(
        &self,
        request: Request<v1::PassRequest>,
    ) -> Result<Response<v1::PassResponse>, Status> {
        self.admit(&request)?;
        let v1::PassRequest { run_id, commands } = request.into_inner();
        let run = convert::run_id(&run_id, "run_id")?;
        let mut answers = Vec::with_capacity(commands.len());
        for command in commands {
            let passed: Passed = serde_json::from_slice(&command).map_err(|error| {
                Status::invalid_argument(format!("a command is not understood: {error}"))
            })?;
            let answered = self.runs.answer(run, passed).await;
            if answered == Answered::NotMine {
                // What was done before is known as a repetition when it comes again.
                return Ok(Response::new(v1::PassResponse { answers: vec![], not_owned: true }));
            }
            let written = serde_json::to_vec(&answered);
            answers.push(written.map_err(|error| Status::internal(error.to_string()))?);
        }
        Ok(Response::new(v1::PassResponse { answers, not_owned: false }))
    }

    async fn take_over(
        &self,
        request: Request<v1::TakeOverRequest>,
    ) -> Result<Response<v1::TakeOverResponse>, Status> {
        self.admit(&request)?;
        self.replicas.nudge();
        Ok(Response::new(v1::TakeOverResponse {}))
    }

    async fn follow(
        &self,
        request: Request<Streaming<v1::FollowRequest>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        self.admit(&request)?;
        let (runs, stopping) = (self.runs.clone(), self.stopping.clone());
        Ok(Response::new(follow::follow(runs, request.into_inner(), stopping)))
    }

    async fn look(
        &self,
        request: Request<v1::LookRequest>,
    ) -> Result<Response<v1::LookResponse>, Status> {
        self.admit(&request)?;
        let v1::LookRequest { run_id, window } = request.into_inner();
        let run = match run_id.is_empty() {
            true => None,
            false => Some(convert::run_id(&run_id, "run_id")?),
        };
        let window = window.and_then(|window| std::time::Duration::try_from(window).ok());
        Ok(Response::new(look::answer(self.runs.dispatcher(), run, window)))
    }
}
