//! Replicas that share one database lend each other agents. Here is what goes over the links
//! between them, and the links themselves; who lends what is the matcher's business.

pub(super) mod convert;
pub(super) mod link;

use std::collections::BTreeMap;
use std::sync::Arc;

use contracts::v1::{connect_request, connect_response};
use engine::Instant;
use engine::task::TaskKey;

use super::card::Registration;
use super::lease::LeaseToken;
use super::registry::Needs;
use super::session::{Incoming, Outgoing};

/// A replica's life, as the database knows it.
pub type Replica = store::OwnerId;

/// Tasks and the leases under which agents hold them.
pub(super) type Held = Vec<(TaskKey, LeaseToken)>;

/// Tasks of equal needs that wait at a borrower.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Want {
    pub(super) needs: Needs,
    pub(super) waiting: u32,
    /// The level of priority of the first.
    pub(super) level: u8,
    /// Since when the first waits.
    pub(super) since: Instant,
}

/// A frame on its way to the other side of a link. The lender numbers agents by their sessions.
#[derive(Clone, Debug)]
pub(super) enum LinkFrame {
    // To the lender.
    Wants { wants: Vec<Want>, seen: u64 },
    Seen(u64),
    Deliver { agent: u64, frame: Outgoing },
    Held { agent: u64, tasks: Held },
    // To the borrower.
    Offered { agent: u64, registration: Arc<Registration>, claims: Held, closed: bool },
    Changed { agent: u64, closed: bool },
    Withdrawn { agent: u64 },
    Lent { agent: u64, serial: u64, total: u32, per_action: BTreeMap<Arc<str>, u32> },
    Spoke { agent: u64, frame: Box<connect_request::Frame> },
    Claims { agent: u64, tasks: Held },
}

impl LinkFrame {
    /// Whether it makes an agent do something for a run: only the run's owner may.
    pub(super) fn acts(&self) -> bool {
        matches!(self, Self::Deliver { frame, .. } if frame.acts())
    }
}

/// What a borrower says, understood.
#[derive(Clone, Debug)]
pub(super) enum FromBorrower {
    Wants { wants: Vec<Want>, seen: u64 },
    Seen(u64),
    Deliver { agent: u64, frame: connect_response::Frame },
    Held { agent: u64, tasks: Held },
}

/// What a lender says, understood.
#[derive(Clone, Debug)]
pub(super) enum FromLender {
    Offered { agent: u64, registration: Box<Registration>, closed: bool },
    Changed { agent: u64, closed: bool },
    Withdrawn { agent: u64 },
    Lent { agent: u64, serial: u64, total: u32, per_action: Vec<(Arc<str>, u32)> },
    Spoke { agent: u64, frames: Vec<Incoming> },
    Claims { agent: u64, tasks: Held },
}
