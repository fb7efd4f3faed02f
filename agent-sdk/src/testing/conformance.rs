//! The undo contract, tried on an agent: every action that declares how it is undone runs
//! through [`undo_contract`] and [`survives_kill`] in its agent's own tests. It looks at what is
//! outside the agent alone, never at the agent's records, and never asks the agent what it did.

mod kill;
mod snapshot;

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Harness;
use crate::effect_log::UNDONE_CODE;
use crate::{Agent, Failure};

pub use kill::survives_kill;
pub use snapshot::snapshot;

/// The key under which the suite does and undoes.
const KEY: &str = "run-1/step#1";
/// Another one, of which nothing was done.
const OTHER_KEY: &str = "run-1/step#2";

/// Where one trial happens; a fresh place for each.
#[derive(Clone, Debug)]
pub struct Place {
    /// The folder that the action changes.
    pub outside: PathBuf,
    /// The folder for the agent's own records.
    pub records: PathBuf,
}

/// An action that is undone by another one, and a world in which it can be tried.
pub trait Undoable: Sync {
    /// Puts into the place what is there before the action.
    fn prepare(&self, place: &Place);

    /// The agent as a newly started process would have it.
    fn agent(&self, place: &Place) -> Agent;

    /// The action's name.
    fn action(&self) -> &str;

    /// Its params. The action must change something with them.
    fn params(&self, place: &Place) -> Value;

    /// What others see of the place: all files with bytes and modes, unless told otherwise.
    fn look(&self, place: &Place) -> String {
        snapshot(&place.outside)
    }
}

impl Place {
    pub(super) fn at(folder: &Path) -> Self {
        Self { outside: folder.join("outside"), records: folder.join("records") }
    }

    pub(super) fn make(folder: &Path, undoable: &dyn Undoable) -> Self {
        let place = Self::at(folder);
        std::fs::create_dir_all(&place.outside).expect("a new folder can be written to");
        std::fs::create_dir_all(&place.records).expect("a new folder can be written to");
        undoable.prepare(&place);
        place
    }
}

/// Tries the contract: do, do again, undo, undo again, do after the undo; undo without a do and
/// before it; undo when the answer was lost; undo under another key.
///
/// # Panics
/// When the agent does not keep the contract, with what was expected.
pub async fn undo_contract(undoable: &impl Undoable) {
    once_and_undone_once(undoable).await;
    undo_before_do(undoable).await;
    undo_of_the_possibly_done(undoable).await;
    undo_of_another_key(undoable).await;
}

async fn once_and_undone_once(undoable: &impl Undoable) {
    let folder = folder();
    let trial = Trial::new(undoable, folder.path());
    let output = trial.act(KEY).await.expect("the action succeeds");
    let done = trial.look();
    assert_ne!(done, trial.before, "the action changes something, else there is nothing to try");
    let again = trial.act(KEY).await.expect("a do that comes again succeeds");
    assert_eq!(again, output, "a do that comes again gives the first one's output");
    assert_eq!(trial.look(), done, "a do that comes again changes nothing");
    trial.undo(KEY, &output).await.expect("the undo succeeds");
    trial.is_as_before("the undo restores what was there");
    trial.undo(KEY, &output).await.expect("a second undo succeeds");
    trial.is_as_before("a second undo changes nothing");
    trial.refuses_late_do().await;
}

async fn undo_before_do(undoable: &impl Undoable) {
    let folder = folder();
    let trial = Trial::new(undoable, folder.path());
    trial.undo(KEY, &Value::Null).await.expect("an undo succeeds where nothing was done");
    trial.is_as_before("an undo changes nothing where nothing was done");
    trial.refuses_late_do().await;
}

/// The action came to its end, but nobody knows its output.
async fn undo_of_the_possibly_done(undoable: &impl Undoable) {
    let folder = folder();
    let trial = Trial::new(undoable, folder.path());
    if trial.undo_needs_output() {
        return;
    }
    trial.act(KEY).await.expect("the action succeeds");
    trial.undo(KEY, &Value::Null).await.expect("an undo without the output succeeds");
    trial.is_as_before("an undo without the output restores what was there");
    trial.refuses_late_do().await;
}

async fn undo_of_another_key(undoable: &impl Undoable) {
    let folder = folder();
    let trial = Trial::new(undoable, folder.path());
    let output = trial.act(KEY).await.expect("the action succeeds");
    let done = trial.look();
    trial.undo(OTHER_KEY, &Value::Null).await.expect("an undo succeeds where nothing was done");
    assert_eq!(trial.look(), done, "an undo touches what was done under its own key alone");
    trial.undo(KEY, &output).await.expect("the undo succeeds");
    trial.is_as_before("the undo restores what was there");
}

pub(super) fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder for temporary files can be made")
}

/// One place, and what it looked like at first. Each call is made by a fresh agent: nothing is
/// kept but what is on disk.
pub(super) struct Trial<'a> {
    undoable: &'a dyn Undoable,
    pub(super) place: Place,
    pub(super) before: String,
}

impl<'a> Trial<'a> {
    pub(super) fn new(undoable: &'a dyn Undoable, folder: &Path) -> Self {
        let place = Place::make(folder, undoable);
        let before = undoable.look(&place);
        Self { undoable, place, before }
    }

    /// The place that another process has made.
    pub(super) fn again(undoable: &'a dyn Undoable, folder: &Path) -> Self {
        Self { undoable, place: Place::at(folder), before: String::new() }
    }

    pub(super) async fn act(&self, key: &str) -> Result<Value, Failure> {
        let harness = Harness::new(self.undoable.agent(&self.place));
        let params = self.undoable.params(&self.place);
        harness.task(self.undoable.action()).params(params).key(key).run().await.result
    }

    pub(super) async fn undo(&self, key: &str, output: &Value) -> Result<Value, Failure> {
        let harness = Harness::new(self.undoable.agent(&self.place));
        let params = self.undoable.params(&self.place);
        harness.undo_task(self.undoable.action(), params, output).key(key).run().await.result
    }

    pub(super) fn look(&self) -> String {
        self.undoable.look(&self.place)
    }

    pub(super) fn is_as_before(&self, law: &str) {
        assert_eq!(self.look(), self.before, "{law}");
    }

    pub(super) fn undo_needs_output(&self) -> bool {
        let agent = self.undoable.agent(&self.place);
        let cards = agent.card().actions;
        let card = cards.iter().find(|card| card.name == self.undoable.action());
        card.and_then(|card| card.undo.as_ref()).is_some_and(|undo| undo.needs_output)
    }

    async fn refuses_late_do(&self) {
        let failure = self.act(KEY).await.expect_err("a do that comes after its undo is refused");
        assert_eq!(failure.code_text(), UNDONE_CODE, "the refusal has the code `{UNDONE_CODE}`");
        assert!(failure.had_no_effect(), "the refusal says that nothing was changed");
        self.is_as_before("a refused do changes nothing");
    }
}
