//! The other replicas are asked what they see of agents, all at once.

use contracts::v1;
use contracts::v1::peer_service_client::PeerServiceClient;
use store::OwnerId;
use tonic::Request;

use super::Peers;
use crate::limits;

impl Peers {
    /// What each of the others that live sees; `None` of one that does not say so in time, or is
    /// of a release that cannot.
    pub async fn look(
        &self,
        request: &v1::LookRequest,
    ) -> Vec<(OwnerId, Option<v1::LookResponse>)> {
        let live = self.live().borrow().clone();
        let looks = live.iter().map(async |peer| (peer.id, self.look_at(peer.id, request).await));
        futures::future::join_all(looks).await
    }

    async fn look_at(
        &self,
        replica: OwnerId,
        request: &v1::LookRequest,
    ) -> Option<v1::LookResponse> {
        let channel = self.channel(replica)?;
        let mut request = Request::new(request.clone());
        self.authorize(&mut request);
        let mut client = PeerServiceClient::new(channel)
            .max_decoding_message_size(limits::LINK_MESSAGE_BYTES_MAX);
        match tokio::time::timeout(limits::LOOK_WAIT_MAX, client.look(request)).await {
            Ok(Ok(response)) => Some(response.into_inner()),
            Ok(Err(status)) => {
                tracing::debug!(%status, %replica, "a replica does not say what it sees of agents");
                None
            }
            Err(_) => None,
        }
    }
}
