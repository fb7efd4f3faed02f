//! What both databases need to know of a batch before they write it: which transitions break no
//! rule, in which order they go, and which bodies become blobs. No SQL here.

use std::collections::{BTreeMap, HashSet};

use engine::{ContentHash, RunId};

use crate::document::{check_audit, check_document, check_once};
use crate::limits::{
    BATCH_BYTES_MAX, BATCH_EVENTS_MAX, BATCH_TRANSITIONS_MAX, BLOB_BYTES_MAX, PARENT_WAKES_AFTER,
    STEP_BYTES_MAX, TEXT_BYTES_MAX,
};
use crate::pack::{PACKED, Stored, pack};
use crate::{Commit, Error, Micros, Outcome, RequestRow};

/// A checked batch. What is refused has its outcome; the rest is in `transitions`, by run id.
pub(crate) struct Batch<'a> {
    pub(crate) transitions: Vec<Transition<'a>>,
    outcomes: Vec<Outcome>,
}

/// One transition that breaks no rule.
pub(crate) struct Transition<'a> {
    /// Its place in the batch as it was given.
    pub(crate) place: usize,
    pub(crate) commit: &'a Commit,
    /// What goes into its journal.
    pub(crate) rows: Vec<Stored<'a>>,
}

impl Transition<'_> {
    pub(crate) fn is_insert(&self) -> bool {
        self.commit.expected_version == 0
    }

    pub(crate) fn request(&self) -> Option<&RequestRow> {
        self.commit.request.as_ref()
    }

    /// When it happened: what its blobs are touched with.
    pub(crate) fn at(&self) -> Micros {
        let last = self.commit.events.iter().map(|event| event.at).max();
        last.unwrap_or(self.commit.row.created_at)
    }

    /// The run whose child ends by this, and when it is to wake if it is parked.
    pub(crate) fn parent_to_wake(&self) -> Option<(RunId, Micros)> {
        let row = &self.commit.row;
        let wakes = |at: Micros| at.saturating_add(PARENT_WAKES_AFTER);
        row.parent.zip(row.ended_at.map(wakes))
    }

    /// Every blob that the run needs from now on.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = ContentHash> + '_ {
        let bodies = self.rows.iter().filter_map(|row| row.blob);
        bodies.chain(self.commit.blobs.iter().copied())
    }
}

impl<'a> Batch<'a> {
    /// Checks `commits`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the batch as a whole is over a limit.
    pub(crate) fn new(commits: &'a [Commit]) -> Result<Self, Error> {
        check_size(commits)?;
        let mut outcomes = vec![Outcome::Conflict; commits.len()];
        let mut transitions = Vec::with_capacity(commits.len());
        // In the same order everywhere, so that two replicas never wait for one another.
        let mut places: Vec<(RunId, usize)> =
            commits.iter().enumerate().map(|(place, commit)| (commit.run, place)).collect();
        places.sort_unstable();
        let mut last = None;
        for (run, place) in places {
            let commit = &commits[place];
            let checked = if last.replace(run) == Some(run) {
                Err("the run is in the batch already".to_owned())
            } else {
                check(commit)
            };
            match checked {
                Ok(()) => {
                    transitions.push(Transition { place, commit, rows: pack(&commit.events) });
                }
                Err(reason) => outcomes[place] = Outcome::Refused { reason },
            }
        }
        Ok(Self { transitions, outcomes })
    }

    /// Gives the transition at `place` its outcome; without one it is a conflict.
    pub(crate) fn settle(&mut self, place: usize, outcome: Outcome) {
        self.outcomes[place] = outcome;
    }

    /// Takes those out of the batch that `outcome` has one for.
    pub(crate) fn drop(&mut self, mut outcome: impl FnMut(&Transition<'a>) -> Option<Outcome>) {
        let Self { transitions, outcomes } = self;
        transitions.retain(|transition| match outcome(transition) {
            Some(outcome) => {
                outcomes[transition.place] = outcome;
                false
            }
            None => true,
        });
    }

    /// Takes those whose blobs are in `missing` out of the batch.
    pub(crate) fn refuse_missing(&mut self, missing: &HashSet<ContentHash>) {
        self.drop(|transition| {
            let lacking = transition.commit.blobs.iter().find(|hash| missing.contains(hash))?;
            let reason = format!("blob {lacking} is not stored; put it first");
            Some(Outcome::Refused { reason })
        });
    }

    /// The bodies that become blobs, each content once, with the time they are touched.
    pub(crate) fn contents(&self) -> BTreeMap<ContentHash, (Micros, &'a [u8])> {
        let mut contents = BTreeMap::new();
        for transition in &self.transitions {
            let at = transition.at();
            for (hash, body) in transition.rows.iter().filter_map(Stored::blob_body) {
                let entry = contents.entry(hash).or_insert((at, body));
                entry.0 = entry.0.max(at);
            }
        }
        contents
    }

    /// The blobs that payloads refer to and that must be stored, with the time they are touched.
    pub(crate) fn references(&self) -> BTreeMap<ContentHash, Micros> {
        let mut references = BTreeMap::new();
        for transition in &self.transitions {
            let at = transition.at();
            for hash in &transition.commit.blobs {
                let touched = references.entry(*hash).or_insert(at);
                *touched = at.max(*touched);
            }
        }
        references
    }

    pub(crate) fn into_outcomes(self) -> Vec<Outcome> {
        self.outcomes
    }
}

fn check_size(commits: &[Commit]) -> Result<(), Error> {
    let over = |what: &str, found: usize, max: usize| {
        Err(Error::Invalid(format!("a batch may have {max} {what}, this one has {found}")))
    };
    if commits.len() > BATCH_TRANSITIONS_MAX {
        return over("transitions", commits.len(), BATCH_TRANSITIONS_MAX);
    }
    let events: usize = commits.iter().map(|commit| commit.events.len()).sum();
    if events > BATCH_EVENTS_MAX {
        return over("events", events, BATCH_EVENTS_MAX);
    }
    let bytes = commits.iter().map(bytes).sum();
    if bytes > BATCH_BYTES_MAX {
        return over("bytes", bytes, BATCH_BYTES_MAX);
    }
    Ok(())
}

/// What is without a limit of its own.
fn bytes(commit: &Commit) -> usize {
    let events = commit.events.iter().map(|event| event.body.len());
    let letters = commit.dead_letters.iter().map(|letter| letter.body.len());
    let response = commit.request.as_ref().and_then(|request| request.response.as_ref());
    let rest = commit.row.labels.len() + commit.row.summary.len() + response.map_or(0, Vec::len);
    let documents = commit.documents.iter().map(|row| row.body.len());
    let audit = commit.audit.iter().map(|row| row.body.len());
    events.chain(letters).chain(documents).chain(audit).sum::<usize>() + rest
}

/// Whether `commit` can be written at all.
fn check(commit: &Commit) -> Result<(), String> {
    let row = &commit.row;
    if row.run_id != commit.run {
        return Err(format!("the row is run {}'s, not {}'s", row.run_id, commit.run));
    }
    check_id(Some(commit.run), "the run's id")?;
    check_id(row.parent, "the parent's id")?;
    check_id(row.owner.map(|owner| RunId(owner.0)), "the owner's id")?;
    check_sequence(commit)?;
    let texts =
        [("tenant", &row.tenant), ("workflow", &row.workflow), ("version name", &row.version_name)];
    texts.iter().try_for_each(|(what, text)| check_text(what, text, TEXT_BYTES_MAX))?;
    if let Some(request) = &commit.request {
        check_text("tenant of the request", &request.tenant, TEXT_BYTES_MAX)?;
        check_text("request id", &request.request_id, TEXT_BYTES_MAX)?;
    }
    for letter in &commit.dead_letters {
        check_text("tenant of the dead letter", &letter.tenant, TEXT_BYTES_MAX)?;
        check_text("dead letter's id", &letter.id, TEXT_BYTES_MAX)?;
        check_text("dead letter's workflow", &letter.workflow, TEXT_BYTES_MAX)?;
        check_text("dead letter's step", &letter.step, STEP_BYTES_MAX)?;
        if commit.remove_dead_letters.contains(&letter.id) {
            return Err(format!("dead letter `{}` is both added and removed", letter.id));
        }
    }
    check_once(commit.documents.iter())?;
    commit.documents.iter().try_for_each(check_document)?;
    commit.audit.iter().try_for_each(check_audit)?;
    let mut removed = commit.remove_dead_letters.iter();
    removed.try_for_each(|id| check_text("dead letter's id", id, TEXT_BYTES_MAX))
}

/// The nil id stands for "none" in places.
fn check_id(id: Option<RunId>, what: &str) -> Result<(), String> {
    if id.is_some_and(|id| id.0.is_nil()) {
        return Err(format!("{what} is nil"));
    }
    Ok(())
}

fn check_sequence(commit: &Commit) -> Result<(), String> {
    if commit.expected_version < 0 {
        return Err(format!("the expected version is {}", commit.expected_version));
    }
    let mut seq = commit.expected_version;
    for event in &commit.events {
        seq = seq.saturating_add(1);
        if event.seq != seq {
            return Err(format!("the next event is number {seq}, found {}", event.seq));
        }
        if event.kind == PACKED {
            return Err(format!("event {seq} is of kind {PACKED}, which is the store's own"));
        }
        if event.body.len() > BLOB_BYTES_MAX {
            let found = event.body.len();
            return Err(format!("event {seq} has {found} bytes, allowed are {BLOB_BYTES_MAX}"));
        }
    }
    if commit.row.version != seq {
        return Err(format!("the last event is number {seq}, the row's {}", commit.row.version));
    }
    if seq == 0 {
        return Err("a run begins with an event at least".to_owned());
    }
    Ok(())
}

/// Texts in columns of their own: no NUL, which PostgreSQL has no text for, and short enough for
/// an index.
pub(crate) fn check_text(what: &str, text: &str, bytes_max: usize) -> Result<(), String> {
    if text.len() > bytes_max {
        return Err(format!("the {what} has {} bytes, allowed are {bytes_max}", text.len()));
    }
    if let Some(place) = text.find('\0') {
        return Err(format!("the {what} has a NUL character at byte {place}; leave it out"));
    }
    Ok(())
}
