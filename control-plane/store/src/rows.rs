//! What goes in and comes out: plain data, one type a row. No behaviour, no SQL.

use std::fmt;
use std::sync::Arc;

use engine::{ContentHash, RunId};
use uuid::Uuid;

use crate::{AuditRow, DocumentRow};

/// A point in time: microseconds since the Unix epoch, UTC.
pub type Micros = i64;

/// One life of one replica: whoever holds runs. A replica that starts again is another owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerId(pub Uuid);

impl fmt::Display for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// One transition of one run.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Which run.
    pub run: RunId,
    /// The version it was decided on; 0 inserts the run.
    pub expected_version: i64,
    /// The row as it is afterwards. Of a run that is there, tenant, workflow, version name,
    /// definition, creation time and parent stay as they are, and `owner` must be the stored one.
    pub row: RunRow,
    /// What happened: sequence numbers from `expected_version + 1` to `row.version`, without gaps.
    pub events: Vec<JournalRow>,
    /// The request behind it; one that is known already makes the transition lose.
    pub request: Option<RequestRow>,
    /// Dead letters that came to be.
    pub dead_letters: Vec<DeadLetterRow>,
    /// Ids of dead letters of this run that are settled; none of those that came to be.
    pub remove_dead_letters: Vec<String>,
    /// Blobs that the events' payloads refer to, beyond the bodies that the store itself puts into
    /// blobs. They must be stored; they are kept as long as the run.
    pub blobs: Vec<ContentHash>,
    /// Documents that follow from the run, each once. They are guarded by the run's own version:
    /// one that is there is replaced when its version is less.
    pub documents: Vec<DocumentRow>,
    /// Entries of the audit log. One whose number is taken makes the transition lose.
    pub audit: Vec<AuditRow>,
}

/// What became of one transition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is written.
    Committed,
    /// The version or the owner is another than expected; or the run to insert, or an entry of the
    /// audit log, is there.
    Conflict,
    /// The request is known: this is what it led to.
    DuplicateRequest {
        /// The run it led to, if it was about one.
        run_id: Option<RunId>,
        /// The hash of the body it came with.
        body_hash: ContentHash,
    },
    /// The transition can never be written: it breaks a rule of [`Commit`] or a limit.
    Refused {
        /// What is wrong with it.
        reason: String,
    },
}

/// A run as lists show it and as its next transition finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRow {
    /// Its id.
    pub run_id: RunId,
    /// Whose it is.
    pub tenant: String,
    /// The name of its workflow.
    pub workflow: String,
    /// The version of its workflow.
    pub version_name: String,
    /// What it runs.
    pub definition_hash: ContentHash,
    /// Its status, as the caller numbers them.
    pub status: i16,
    /// The sequence number of the last event in its journal.
    pub version: i64,
    /// Who holds it.
    pub owner: Option<OwnerId>,
    /// When it was made.
    pub created_at: Micros,
    /// When it ended, if it has.
    pub ended_at: Option<Micros>,
    /// The run that started it.
    pub parent: Option<RunId>,
    /// Greater goes first.
    pub priority: i16,
    /// Small JSON of the caller's.
    pub labels: Vec<u8>,
    /// Small JSON of the caller's: what lists show.
    pub summary: Vec<u8>,
    /// When it wants to be woken.
    pub wake_at: Option<Micros>,
}

/// One event of a run's journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalRow {
    /// Its place, from 1.
    pub seq: i64,
    /// When it happened.
    pub at: Micros,
    /// What kind of event it is, as the caller numbers them; 0 is none.
    pub kind: i16,
    /// The version of that kind's body.
    pub schema: i16,
    /// JSON text.
    pub body: Arc<[u8]>,
}

/// A place between two rows of a list that is ordered by time and id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor<Id> {
    /// The time of the last row seen.
    pub at: Micros,
    /// Its id.
    pub id: Id,
}

/// What came of looking for finished runs to remove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// How many were removed.
    pub runs: u64,
    /// Where to go on; `None`: there are no more.
    pub next: Option<Cursor<RunId>>,
}

/// What came of looking for blobs that nothing needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// How many were removed.
    pub blobs: u64,
    /// Where to go on; `None`: there are no more.
    pub next: Option<Cursor<ContentHash>>,
}

/// What was done for the journal's room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tended {
    /// Partitions made ahead.
    pub made: u64,
    /// Partitions that went.
    pub dropped: u64,
    /// Runs that were moved out of those.
    pub moved: u64,
}

/// Which runs; what is not given does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Of this tenant.
    pub tenant: Option<String>,
    /// Of this workflow.
    pub workflow: Option<String>,
    /// In this status.
    pub status: Option<i16>,
    /// Started by this run.
    pub parent: Option<RunId>,
}

/// A version of a workflow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkflowRow {
    /// Whose it is.
    pub tenant: String,
    /// Its name.
    pub name: String,
    /// The name of the version.
    pub version: String,
    /// What it says.
    pub definition_hash: ContentHash,
    /// Changes with every replacement; made by the caller.
    pub etag: String,
    /// When it was registered, or replaced.
    pub registered_at: Micros,
    /// Small JSON of the caller's: what lists show.
    pub summary: Vec<u8>,
}

/// What became of a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registration {
    /// It stands.
    Registered,
    /// The version is there and was not to be replaced: this is it.
    Exists(WorkflowRow),
    /// The stored etag is another, or the version is not there.
    EtagMismatch {
        /// The stored one.
        stored: Option<String>,
    },
    /// A number of the audit log is there already: nothing was written.
    AuditTaken,
}

/// What became of the removal of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discarded {
    /// It is gone.
    Done,
    /// It was not there.
    NotThere,
    /// A number of the audit log is there already: nothing was written.
    AuditTaken,
}

/// What a schedule is known by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScheduleId {
    /// Whose it is.
    pub tenant: String,
    /// The workflow it starts.
    pub workflow: String,
    /// The schedule as it is written.
    pub schedule: String,
}

/// How far a schedule has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleRow {
    /// Which one.
    pub id: ScheduleId,
    /// Small JSON of the caller's: time zone, overlap and such.
    pub spec: Vec<u8>,
    /// Rises with every change; from 1.
    pub version: i64,
    /// The last instant that was taken.
    pub last_instant: Option<Micros>,
    /// Who took it.
    pub owner: Option<OwnerId>,
}

/// A request that must not be carried out twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRow {
    /// Whose it is.
    pub tenant: String,
    /// The id that the client gave it.
    pub request_id: String,
    /// The run it led to. In a commit: that commit's run, whatever stands here.
    pub run_id: Option<RunId>,
    /// The hash of what was asked, to tell a repetition from another request of the same id.
    pub body_hash: ContentHash,
    /// When it came.
    pub at: Micros,
    /// What was answered, if that is not made from the run.
    pub response: Option<Vec<u8>>,
}

/// A task that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterRow {
    /// Its id, unique among all; derived by the caller.
    pub id: String,
    /// Whose it is.
    pub tenant: String,
    /// The run it belongs to. In a commit: that commit's run, whatever stands here.
    pub run_id: RunId,
    /// The workflow of that run.
    pub workflow: String,
    /// The step's path.
    pub step: String,
    /// When it was given up.
    pub at: Micros,
    /// JSON of the caller's.
    pub body: Vec<u8>,
}

/// Which dead letters; what is not given does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetterFilter {
    /// Of this tenant.
    pub tenant: Option<String>,
    /// Of this workflow.
    pub workflow: Option<String>,
    /// Of this run.
    pub run_id: Option<RunId>,
}

/// A replica that joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewReplica {
    /// Its id, never used before.
    pub id: OwnerId,
    /// Where other replicas reach it; empty when they cannot.
    pub address: String,
    /// The version of its program.
    pub version: String,
    /// The highest kind of event that it understands.
    pub kinds: i16,
}

/// What a replica is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaStatus {
    /// It takes new runs.
    Serving,
    /// It is about to leave.
    Draining,
    /// It owns nothing any more, and others may take over what it held.
    Fenced,
}

impl ReplicaStatus {
    pub(crate) fn number(self) -> i16 {
        match self {
            Self::Serving => 1,
            Self::Draining => 2,
            Self::Fenced => 3,
        }
    }

    pub(crate) fn from_number(number: i16) -> Option<Self> {
        let all = [Self::Serving, Self::Draining, Self::Fenced];
        all.into_iter().find(|status| status.number() == number)
    }
}

/// A replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaRow {
    /// Its id.
    pub id: OwnerId,
    /// Greater than that of every replica that joined before.
    pub epoch: i64,
    /// Where other replicas reach it; empty when they cannot.
    pub address: String,
    /// The version of its program.
    pub version: String,
    /// The highest kind of event that it understands.
    pub kinds: i16,
    /// Counts its heartbeats.
    pub lease: i64,
    /// What it is about.
    pub status: ReplicaStatus,
    /// When it joined, by its own clock.
    pub started_at: Micros,
    /// What its own clock said at its last heartbeat.
    pub seen_at: Micros,
}

/// What a replica learns from a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// It is not fenced, and its counter was raised.
    pub alive: bool,
    /// All replicas; the counters may be those from just before.
    pub replicas: Vec<ReplicaRow>,
    /// When the first parked run wakes.
    pub next_wake: Option<Micros>,
}

/// What became of taking a run over.
#[derive(Clone, Debug, PartialEq)]
pub enum Adoption {
    /// It was done; the row as it is now.
    Adopted(Box<RunRow>),
    /// It is owned by another than was expected.
    OwnedBy(Option<OwnerId>),
    /// There is no such run.
    NotFound,
}

/// A run to be parked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parking {
    /// Which.
    pub run: RunId,
    /// It is parked only if it still has this version.
    pub version: i64,
    /// When it is to be taken up again by itself.
    pub wake_at: Option<Micros>,
    /// The child runs whose ends it waits for: it is parked only if all of them are there and
    /// none has ended. From then on the commit of such an end sees to it that it wakes.
    pub children: Vec<RunId>,
}

/// Who has a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Which.
    pub run_id: RunId,
    /// Its owner; none when it is parked.
    pub owner: Option<OwnerId>,
    /// How many events its journal has.
    pub version: i64,
    /// It has ended.
    pub ended: bool,
}

/// The row of a key that spans runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// The kind of key, as the caller numbers them.
    pub kind: i16,
    /// The key.
    pub key: String,
    /// Compared and swapped.
    pub version: i64,
    /// What the caller keeps in it.
    pub body: Vec<u8>,
}

/// A change of such a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyChange {
    /// The kind of key.
    pub kind: i16,
    /// The key.
    pub key: String,
    /// The version that it has; 0: it is not there.
    pub expected_version: i64,
    /// The version that it gets: one that the row never had, also before it was removed.
    pub version: i64,
    /// What it says from now on; `None` removes it.
    pub body: Option<Vec<u8>>,
}

/// What a database says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What time it is by its own clock; `None` where it has none.
    pub now: Option<Micros>,
    /// The number of the newest step of its schema.
    pub schema: i64,
    /// The version of the server, or of the library.
    pub version: String,
    /// How large it is on its disk, in bytes.
    pub bytes: i64,
}
