//! What wakes those who watch a run, wherever it is: its journal has grown here, or the replica
//! that has it says so. Every word may be lost, so they look from time to time though nothing
//! woke them: seldom where somebody tells them, often where nobody does. Decides nothing.

use contracts::v1;
use engine::RunId;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::others::Standing;
use super::{Runs, Shared, lock};
use crate::limits;

/// What watchers are told, in place of a version, when this process has the run no more.
const LOST: i64 = -1;

/// What another replica tells of a run that it has.
#[derive(Debug)]
pub enum News {
    /// Its journal may have grown.
    Grown,
    /// What one of its tasks does.
    Update(Box<v1::TaskUpdate>),
    /// It has the run no more.
    Lost,
}

/// Why a watcher was woken.
#[derive(Debug)]
pub(crate) enum Woken {
    /// The journal may have grown.
    Journal,
    /// A task of a run that is elsewhere does something.
    Update(Box<v1::TaskUpdate>),
}

/// From whom a watcher hears.
#[derive(Debug)]
enum From {
    /// That is to be found out.
    Unknown,
    /// From this process.
    Here,
    /// From another replica.
    There(mpsc::Receiver<News>),
    /// From nobody: it only waits, or changes hands.
    Nobody,
}

/// What wakes one watcher of one run.
#[derive(Debug)]
pub(crate) struct Wakes {
    runs: Runs,
    run: RunId,
    grown: watch::Receiver<i64>,
    from: From,
    /// When it was found out from whom.
    since: Instant,
}

impl Shared {
    /// Tells watchers that this process has the run no more.
    pub(super) fn wake_lost(&self, run: RunId) {
        self.wake(run, LOST);
    }
}

impl Runs {
    /// What wakes those who watch a run from now on.
    pub(crate) fn wakes(&self, run: RunId) -> Wakes {
        let grown = self.watch(run);
        Wakes { runs: self.clone(), run, grown, from: From::Unknown, since: Instant::now() }
    }

    /// Whether somebody watches the run here, or has it watched from another replica.
    #[must_use]
    pub fn is_watched(&self, run: RunId) -> bool {
        let watchers = lock(&self.shared.watchers);
        watchers.get(&run).is_some_and(|sender| sender.receiver_count() > 0)
    }

    /// Whether this process has the run, as the store knows it.
    pub(crate) async fn owns(&self, run: RunId) -> bool {
        let row = self.shared.store.run(run).await;
        row.is_ok_and(|row| row.is_some_and(|row| row.owner == Some(self.shared.owner())))
    }

    /// Who gives tasks to agents.
    pub(crate) fn dispatcher(&self) -> &crate::dispatch::Dispatcher {
        &self.shared.dispatcher
    }

    async fn teller(&self, run: RunId) -> From {
        let shared = &self.shared;
        if shared.others.is_alone() {
            return From::Here;
        }
        let owner = match shared.store.run(run).await {
            Ok(row) => row.and_then(|row| row.owner),
            Err(_) => None,
        };
        match owner {
            Some(owner) if owner == shared.owner() => From::Here,
            Some(owner) if shared.others.standing(owner) == Standing::Live => {
                shared.others.follow(owner, run).map_or(From::Nobody, From::There)
            }
            _ => From::Nobody,
        }
    }
}

impl Wakes {
    /// The journal is about to be read: what woke before is no reason to read it again.
    pub(crate) fn reading(&mut self) {
        self.grown.mark_unchanged();
    }

    /// Returns when there is a reason to look. Nothing is lost when it is dropped before.
    pub(crate) async fn next(&mut self) -> Woken {
        if matches!(self.from, From::Unknown) {
            self.from = self.runs.teller(self.run).await;
            self.since = Instant::now();
        }
        let seldom = tokio::time::sleep(limits::WATCH_LOOK_SELDOM);
        match &mut self.from {
            From::Unknown | From::Nobody => {
                tokio::select! {
                    biased;
                    _ = self.grown.changed() => {}
                    () = tokio::time::sleep(limits::WATCH_LOOK_EVERY) => {}
                }
                self.from = From::Unknown;
            }
            From::Here => tokio::select! {
                biased;
                changed = self.grown.changed() => {
                    if changed.is_err() {
                        self.grown = self.runs.watch(self.run);
                    }
                    if *self.grown.borrow_and_update() == LOST {
                        self.from = From::Unknown;
                    }
                }
                () = seldom => self.from = From::Unknown,
            },
            From::There(news) => tokio::select! {
                biased;
                news = news.recv() => match news {
                    Some(News::Grown) => {}
                    Some(News::Update(update)) => return Woken::Update(update),
                    Some(News::Lost) | None => self.left(),
                },
                // It has come here.
                _ = self.grown.changed() => self.from = From::Unknown,
                () = seldom => {}
            },
        }
        Woken::Journal
    }

    /// Who told of the run does not any more. Another is asked for at once, unless that one was
    /// only just found: then it takes a while until the next is known.
    fn left(&mut self) {
        let lasted = self.since.elapsed() > limits::WATCH_LOOK_EVERY;
        self.from = if lasted { From::Unknown } else { From::Nobody };
    }
}
