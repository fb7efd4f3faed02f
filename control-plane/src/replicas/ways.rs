//! What the write path asks of the replicas: who owns what, and how a command gets there.

use async_trait::async_trait;
use contracts::v1;
use contracts::v1::peer_service_client::PeerServiceClient;
use engine::RunId;
use store::OwnerId;
use tokio::sync::mpsc;
use tonic::Request;

use super::Peers;
use crate::limits;
use crate::runs::{Answered, News, Others, Passed, Standing};

/// A command with its envelope, which is a little larger than what came from the client.
const PASSED_BYTES_MAX: usize = 2 * limits::MESSAGE_BYTES_MAX;

#[async_trait]
impl Others for Peers {
    fn standing(&self, owner: OwnerId) -> Standing {
        self.standing_of(owner)
    }

    async fn pass(&self, owner: OwnerId, run: RunId, passed: &Passed) -> Option<Answered> {
        let channel = self.channel(owner)?;
        let mut client = PeerServiceClient::new(channel)
            .max_encoding_message_size(PASSED_BYTES_MAX)
            .max_decoding_message_size(PASSED_BYTES_MAX);
        let command = serde_json::to_vec(passed).ok()?;
        let message = v1::PassRequest { run_id: run.to_string(), commands: vec![command] };
        let mut request = Request::new(message);
        self.authorize(&mut request);
        let answer = tokio::time::timeout(limits::PASS_WAIT_MAX, client.pass(request)).await;
        let response = match answer.ok()? {
            Ok(response) => response.into_inner(),
            Err(status) => {
                tracing::debug!(%status, %run, "a command could not be passed on");
                return None;
            }
        };
        if response.not_owned {
            return Some(Answered::NotMine);
        }
        serde_json::from_slice(response.answers.first()?).ok()
    }

    fn follow(&self, owner: OwnerId, run: RunId) -> Option<mpsc::Receiver<News>> {
        self.follow_run(owner, run)
    }

    fn is_alone(&self) -> bool {
        self.live().borrow().is_empty()
    }
}
