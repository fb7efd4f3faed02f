//! Commands for runs that another replica owns: who that is, and how they get there. How frames
//! travel is not known here.

use async_trait::async_trait;
use engine::task::TaskKey;
use engine::{Command, Rejection, RunId};
use serde::{Deserialize, Serialize};
use store::{Adoption, OwnerId};
use tokio::sync::mpsc;
use tokio::time::Instant as Deadline;

use super::slot::{Ask, Envelope, Reply};
use super::wakes::News;
use super::{Error, Runs, Shared};
use crate::limits;

/// Who else may own runs of this store.
#[async_trait]
pub trait Others: Send + Sync + 'static {
    /// What is known of an owner that is not this process.
    fn standing(&self, owner: OwnerId) -> Standing;

    /// Hands something to the owner of a run; `None` when it cannot be told what came of it.
    async fn pass(&self, owner: OwnerId, run: RunId, passed: &Passed) -> Option<Answered>;

    /// Has the owner of a run tell what happens to it, until the receiver is dropped; `None` when
    /// it cannot be asked just now.
    fn follow(&self, owner: OwnerId, run: RunId) -> Option<mpsc::Receiver<News>>;

    /// Whether nobody else lives, as far as is known.
    fn is_alone(&self) -> bool;
}

/// What is known of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It lives, and may be reached.
    Live,
    /// Nobody knows yet.
    Unknown,
    /// It owns nothing any more.
    Gone,
}

/// Nobody else.
#[derive(Debug)]
pub struct Alone;

#[async_trait]
impl Others for Alone {
    fn standing(&self, _owner: OwnerId) -> Standing {
        Standing::Gone
    }

    async fn pass(&self, _owner: OwnerId, _run: RunId, _passed: &Passed) -> Option<Answered> {
        None
    }

    fn follow(&self, _owner: OwnerId, _run: RunId) -> Option<mpsc::Receiver<News>> {
        None
    }

    fn is_alone(&self) -> bool {
        true
    }
}

/// What is handed to the owner of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Passed {
    /// Something asked of the run.
    Command(Box<Command>),
    /// Whether a task's result counts.
    Inquire(TaskKey),
}

/// What its owner says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answered {
    /// It is done, durably.
    Done,
    /// The run refuses it.
    Rejected {
        /// Why.
        rejection: Rejection,
        /// The task that it is about has settled.
        settled: bool,
    },
    /// The run is not there.
    NotFound,
    /// It is not this replica's.
    NotMine,
    /// Too much is under way.
    Overloaded(String),
    /// It is not known whether it was done.
    Unavailable(String),
    /// The run is stuck.
    Stuck(String),
}

impl Answered {
    pub(super) fn of(error: Error) -> Self {
        match error {
            Error::NotFound(_) => Self::NotFound,
            Error::Rejected(rejection) => Self::Rejected { rejection, settled: false },
            Error::RequestIdReused(id) => {
                Self::Rejected { rejection: Rejection::RequestIdReused(id), settled: false }
            }
            Error::Elsewhere(_) => Self::NotMine,
            Error::Overloaded(why) => Self::Overloaded(why),
            Error::Unavailable(why) => Self::Unavailable(why),
            Error::Stuck(_, why) => Self::Stuck(why),
        }
    }

    /// Tells whoever asked. `NotMine` is no answer: who knows it looks elsewhere.
    fn tell(self, run: RunId, reply: Reply) {
        match self {
            Self::Done => reply.done(run),
            Self::Rejected { rejection, settled } => reply.reject(rejection, settled),
            Self::NotFound => reply.refuse(Error::NotFound(run)),
            Self::NotMine => reply.refuse(Error::Unavailable("its owner is not known".to_owned())),
            Self::Overloaded(why) => reply.refuse(Error::Overloaded(why)),
            Self::Unavailable(why) => reply.refuse(Error::Unavailable(why)),
            Self::Stuck(why) => reply.refuse(Error::Stuck(run, why)),
        }
    }
}

/// Where a run is.
pub(super) enum Where {
    /// This process has it now.
    Here,
    /// Another that lives has it.
    There(OwnerId),
    /// Its owner may be dead; that is not known yet.
    Unknown,
}

/// Makes this process the owner of a run unless another that lives has it.
///
/// # Errors
/// `NotFound` or `Unavailable`.
pub(super) async fn take_over(shared: &Shared, run: RunId) -> Result<Where, Error> {
    let me = shared.owner();
    if !shared.lease.holds(shared.clock.now()) {
        return Err(Error::Unavailable("this replica has lost its lease".to_owned()));
    }
    let unreachable = |error: store::Error| {
        tracing::warn!(%run, %error, "a run cannot be taken over just now");
        Error::Unavailable("the store cannot be reached".to_owned())
    };
    // Without a row it may be that its insert, of this process, has not ended.
    let mut from = match shared.store.run(run).await.map_err(unreachable)? {
        Some(row) => row.owner,
        None => Some(me),
    };
    loop {
        match from.map(|owner| (owner, shared.others.standing(owner))) {
            Some((owner, Standing::Live)) if owner != me => return Ok(Where::There(owner)),
            Some((owner, Standing::Unknown)) if owner != me => return Ok(Where::Unknown),
            _ => {}
        }
        let at = shared.clock.now().0;
        match shared.store.take_over(run, from, me, at).await.map_err(unreachable)? {
            Adoption::Adopted(_) => return Ok(Where::Here),
            Adoption::OwnedBy(owner) => from = owner,
            Adoption::NotFound => return Err(Error::NotFound(run)),
        }
    }
}

impl Runs {
    /// Does what another replica passes on for a run of this process. It is never passed on
    /// again.
    pub async fn answer(&self, run: RunId, passed: Passed) -> Answered {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let ask = match passed {
            Passed::Command(command) => Ask::Command(command),
            Passed::Inquire(key) => Ask::Inquire(key),
        };
        let envelope = Envelope { run, ask, reply: Reply::Passed(reply) };
        if let Err(error) = self.send(envelope).await {
            return Answered::of(error);
        }
        let unknown = || Answered::Unavailable("it is not known whether it was done".to_owned());
        match tokio::time::timeout(limits::ANSWER_WAIT_MAX, answer).await {
            Ok(Ok(answered)) => answered,
            _ => unknown(),
        }
    }

    /// Passes on what waits for a run that `owner` has, and looks for it again when it does not.
    pub(super) fn pass_on(&self, envelope: Envelope, owner: OwnerId) {
        let Envelope { run, ask, reply } = envelope;
        let passed = match ask {
            Ask::Command(mut command) => {
                if let Some(origin) = command.origin_mut() {
                    // With an id it can be asked twice and is done once.
                    let mark = || self.shared.randomness.request_mark();
                    origin.request.get_or_insert_with(mark);
                }
                Passed::Command(command)
            }
            Ask::Inquire(key) => Passed::Inquire(key),
            // The run is there, and in good hands.
            Ask::Start(_) => return reply.done_before(run),
            Ask::Adopt | Ask::TakeIn(_) => return reply.done(run),
        };
        let runs = self.clone();
        tokio::spawn(async move {
            let _permit = runs.shared.passing.acquire().await;
            runs.deliver(run, passed, reply, owner).await;
        });
    }

    async fn deliver(&self, run: RunId, passed: Passed, reply: Reply, owner: OwnerId) {
        let deadline = Deadline::now() + limits::ANSWER_WAIT_MAX;
        let (mut owner, mut pause) = (Some(owner), limits::STORE_RETRY_MIN);
        loop {
            if let Some(there) = owner {
                match self.shared.others.pass(there, run, &passed).await {
                    None | Some(Answered::NotMine | Answered::Unavailable(_)) => {}
                    Some(answered) => return answered.tell(run, reply),
                }
            }
            if Deadline::now() + pause > deadline {
                let why = "the replica that has the run cannot be reached".to_owned();
                return reply.refuse(Error::Unavailable(why));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(limits::PASS_RETRY_MAX);
            owner = match take_over(&self.shared, run).await {
                Ok(Where::There(owner)) => Some(owner),
                Ok(Where::Here) => {
                    let ask = match passed {
                        Passed::Command(command) => Ask::Command(command),
                        Passed::Inquire(key) => Ask::Inquire(key),
                    };
                    // With the mailbox closed the process is about to end, and the asker with it.
                    self.inbox.send(Envelope { run, ask, reply }).await;
                    return;
                }
                Ok(Where::Unknown) | Err(Error::Unavailable(_)) => None,
                Err(error) => return reply.refuse(error),
            };
        }
    }
}
