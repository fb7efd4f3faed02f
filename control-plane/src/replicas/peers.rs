//! The other replicas that share the database: who lives, and the way to each. Decides nothing
//! and asks no database; it is told who lives.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};
use store::OwnerId;
use tokio::sync::{Notify, watch};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::follow::Followed;
use crate::config::Secret;
use crate::limits;
use crate::runs::Standing;

/// The header in which a replica shows that it is one.
const SECRET_HEADER: &str = "x-orchestrator-peer";

/// A replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// Its life.
    pub id: OwnerId,
    /// Greater than that of every replica that joined before.
    pub epoch: u64,
    /// Where it is reached, HOST:PORT; empty when it cannot be.
    pub address: String,
}

/// Makes the way to an address. A channel connects by itself, when it is first used.
pub trait Connect: Send + Sync + 'static {
    /// The way to `address`; `None` when it is no address.
    fn connect(&self, address: &str) -> Option<Channel>;
}

/// Connects by TCP.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Tcp {
    /// What leads to an address, with the bounds and the clocks of connections to replicas.
    #[must_use]
    pub fn endpoint(address: &str) -> Option<Endpoint> {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?;
        let endpoint = endpoint
            .connect_timeout(limits::PEER_CONNECT_WAIT_MAX)
            .http2_keep_alive_interval(limits::PEER_PING_EVERY)
            .keep_alive_timeout(limits::PEER_PING_WAIT_MAX)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(limits::PEER_WINDOW_BYTES)
            .initial_connection_window_size(limits::PEER_WINDOW_BYTES)
            .tcp_nodelay(true);
        Some(endpoint)
    }
}

impl Connect for Tcp {
    fn connect(&self, address: &str) -> Option<Channel> {
        Self::endpoint(address).map(|endpoint| endpoint.connect_lazy())
    }
}

/// The replicas as this one knows them. Cheap to clone.
#[derive(Clone)]
pub struct Peers(Arc<Inner>);

struct Inner {
    secret: Option<Secret>,
    connect: Arc<dyn Connect>,
    own: Mutex<Option<Peer>>,
    live: watch::Sender<Arc<[Peer]>>,
    channels: Mutex<BTreeMap<OwnerId, (String, Channel)>>,
    others: Mutex<Others>,
    /// Whose runs are watched here.
    followed: Followed,
    /// Somebody wants to know more than is known.
    nudged: Notify,
}

/// Owners that are not known to live.
#[derive(Default)]
struct Others {
    /// Those that own nothing any more.
    gone: HashSet<OwnerId>,
    /// Those that were asked about since the replicas were listed last.
    asked: HashSet<OwnerId>,
}

impl Peers {
    /// Nobody yet.
    #[must_use]
    pub fn new(secret: Option<Secret>, connect: Arc<dyn Connect>) -> Self {
        Self(Arc::new(Inner {
            secret,
            connect,
            own: Mutex::default(),
            live: watch::channel(Arc::default()).0,
            channels: Mutex::default(),
            others: Mutex::default(),
            followed: Followed::default(),
            nudged: Notify::new(),
        }))
    }

    /// Nobody, for good: the database is of this process alone.
    #[must_use]
    pub fn alone() -> Self {
        Self::new(None, Arc::new(Tcp))
    }

    /// This replica; `None` while it has no place among them.
    #[must_use]
    pub fn own(&self) -> Option<Peer> {
        lock(&self.0.own).clone()
    }

    /// The others that live, as far as is known, in the order of their epochs.
    #[must_use]
    pub fn live(&self) -> watch::Receiver<Arc<[Peer]>> {
        self.0.live.subscribe()
    }

    /// Whether another replica lives, as far as is known.
    #[must_use]
    pub fn is_live(&self, id: OwnerId) -> bool {
        self.0.live.borrow().iter().any(|peer| peer.id == id)
    }

    /// What is known of an owner. One that is not known is found out about: it may have joined
    /// just now, or be gone for long.
    pub(super) fn standing_of(&self, owner: OwnerId) -> Standing {
        if self.is_live(owner) {
            return Standing::Live;
        }
        let mut others = lock(&self.0.others);
        if others.gone.contains(&owner) {
            return Standing::Gone;
        }
        if others.asked.len() < limits::OWNERS_ASKED_MAX && others.asked.insert(owner) {
            self.nudge();
        }
        Standing::Unknown
    }

    /// Those that were asked about up to now.
    pub(super) fn take_asked(&self) -> HashSet<OwnerId> {
        std::mem::take(&mut lock(&self.0.others).asked)
    }

    /// These own nothing any more.
    pub(super) fn note_gone(&self, owners: impl IntoIterator<Item = OwnerId>) {
        let mut others = lock(&self.0.others);
        if others.gone.len() > limits::OWNERS_GONE_MAX {
            others.gone.clear();
        }
        others.gone.extend(owners);
    }

    /// Has the replicas listed now.
    pub fn nudge(&self) {
        self.0.nudged.notify_one();
    }

    /// Returns when they are to be listed.
    pub(super) async fn nudged(&self) {
        self.0.nudged.notified().await;
    }

    /// The way to one that lives; `None` when it is not known or cannot be reached.
    #[must_use]
    pub fn channel(&self, id: OwnerId) -> Option<Channel> {
        let live = self.0.live.borrow().clone();
        let peer = live.iter().find(|peer| peer.id == id && !peer.address.is_empty())?;
        let mut channels = lock(&self.0.channels);
        if let Some((address, channel)) = channels.get(&id)
            && *address == peer.address
        {
            return Some(channel.clone());
        }
        let channel = self.0.connect.connect(&peer.address)?;
        channels.insert(id, (peer.address.clone(), channel.clone()));
        Some(channel)
    }

    /// The streams on which others tell of runs that are watched here.
    pub(super) fn followed(&self) -> &Followed {
        &self.0.followed
    }

    /// Shows the other side that a request comes of a replica.
    pub fn authorize<T>(&self, request: &mut Request<T>) {
        self.sign(request.metadata_mut());
    }

    /// The same for the headers by themselves.
    pub fn sign(&self, metadata: &mut MetadataMap) {
        let Some(secret) = &self.0.secret else { return };
        let shown = hex(secret.expose());
        if let Ok(value) = MetadataValue::try_from(shown) {
            metadata.insert(SECRET_HEADER, value);
        }
    }

    /// Whether a request comes of a replica. Without a secret, replicas are known to one another
    /// on this machine alone.
    ///
    /// # Errors
    /// With the answer to a request that does not.
    pub fn admit(&self, metadata: &MetadataMap) -> Result<(), Box<Status>> {
        let refuse = |text: &str| Err(Box::new(Status::permission_denied(text)));
        let shown = metadata.get(SECRET_HEADER).map(MetadataValue::as_bytes);
        match &self.0.secret {
            // What is compared is a hash, so the time it takes tells nothing of the secret.
            Some(secret) if shown == Some(hex(secret.expose()).as_bytes()) => Ok(()),
            Some(_) => refuse("replicas alone may call this, with the same peer_secret"),
            None if self.own().is_some_and(|own| is_loopback(&own.address)) => Ok(()),
            None => refuse("give all replicas the same peer_secret"),
        }
    }

    /// Who there is now. Whoever is there no more is not spoken to any longer.
    pub fn set(&self, own: Option<Peer>, live: Vec<Peer>) {
        let before = std::mem::replace(&mut *lock(&self.0.own), own.clone());
        let is_other = before.map(|own| own.id) != own.map(|own| own.id);
        lock(&self.0.channels).retain(|id, _| live.iter().any(|peer| peer.id == *id));
        self.0.live.send_if_modified(|known| {
            // Whoever watches looks at this replica again too, when that is another one.
            let is_new = **known != *live || is_other;
            if is_new {
                *known = live.into();
            }
            is_new
        });
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").field("live", &*self.0.live.borrow()).finish_non_exhaustive()
    }
}

/// Whether HOST:PORT can be reached from this machine alone.
pub(super) fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

fn hex(secret: &str) -> String {
    let digest = Sha256::new().chain_update("orchestrator peer ").chain_update(secret).finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u128, address: &str) -> Peer {
        let id = OwnerId(uuid::Uuid::from_u128(n));
        Peer { id, epoch: 1, address: address.to_owned() }
    }

    fn peers(secret: Option<&str>) -> Peers {
        Peers::new(secret.map(Secret::new), Arc::new(Tcp))
    }

    #[test]
    fn whoever_shows_the_same_secret_is_admitted() {
        let (ours, theirs) = (peers(Some("a")), peers(Some("b")));
        let mut request = Request::new(());
        ours.authorize(&mut request);
        assert!(ours.admit(request.metadata()).is_ok());
        assert!(theirs.admit(request.metadata()).is_err());
        assert!(ours.admit(Request::new(()).metadata()).is_err());
        let shown = format!("{:?}", request.metadata());
        assert!(!shown.contains("\"a\""), "{shown}");
    }

    #[test]
    fn without_a_secret_replicas_know_one_another_on_one_machine_alone() {
        let request = Request::new(());
        for (address, is_admitted) in
            [("127.0.0.1:80", true), ("[::1]:80", true), ("10.0.0.1:80", false), ("", false)]
        {
            let peers = peers(None);
            peers.set(Some(peer(1, address)), Vec::new());
            assert_eq!(peers.admit(request.metadata()).is_ok(), is_admitted, "{address}");
        }
        assert!(peers(None).admit(request.metadata()).is_err(), "it has no place yet");
    }

    #[tokio::test]
    async fn there_is_a_way_to_those_that_live_and_say_where() {
        let peers = peers(None);
        let mut live = peers.live();
        peers.set(None, vec![peer(1, "127.0.0.1:1"), peer(2, "")]);
        assert!(live.has_changed().unwrap());
        live.mark_unchanged();
        assert!(peers.channel(peer(1, "").id).is_some());
        assert!(peers.channel(peer(2, "").id).is_none());
        assert!(peers.channel(peer(3, "").id).is_none());
        peers.set(None, vec![peer(1, "127.0.0.1:1"), peer(2, "")]);
        assert!(!live.has_changed().unwrap(), "nothing is new");
        peers.set(None, Vec::new());
        assert!(peers.channel(peer(1, "").id).is_none());
        assert!(lock(&peers.0.channels).is_empty());
    }
}
