//! Effects that are made of many small ones: the plan is written down before anything changes,
//! and whoever comes again with the same idempotency key goes on by the same plan. It knows
//! nothing of what is planned.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use super::{EffectLog, Mark, UNDONE_CODE};
use crate::Failure;

/// A folder of plans: one log per idempotency key. It blocks: call it from
/// [`Context::blocking`](crate::Context::blocking).
#[derive(Clone, Debug)]
pub struct Plans {
    dir: PathBuf,
    variable: &'static str,
}

impl Plans {
    /// Plans in this folder, which need not exist yet. Failures advise to set `variable`, the
    /// environment variable by which people choose where the folder is.
    pub fn at(dir: impl Into<PathBuf>, variable: &'static str) -> Self {
        Self { dir: dir.into(), variable }
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Carries out a plan once; gives the plan as `apply` left it. An attempt that was broken off
    /// is carried on, so `apply` must leave alone what is there already.
    pub fn carry_out<Plan: Serialize + DeserializeOwned>(
        &self,
        key: &str,
        make: impl FnOnce() -> Result<Plan, Failure>,
        apply: impl FnOnce(&mut Plan) -> Result<(), Failure>,
    ) -> Result<Plan, Failure> {
        let log = self.log(key)?;
        let mut locked = log.lock().map_err(Failure::io("lock", log.path()))?;
        let (mut plan, is_new) = match locked.mark(key) {
            Some(Mark::Done(note)) => return read(note),
            Some(Mark::Begun(note)) => (read(note)?, false),
            Some(Mark::Undoing(_) | Mark::Undone) => {
                let message = "this step was undone; it is not done after its undoing";
                return Err(Failure::permanent(message).code(UNDONE_CODE).no_effect());
            }
            None => {
                let plan = make()?;
                let note = write(&plan)?;
                locked.begin(key, &note).map_err(Failure::io("write", log.path()))?;
                (plan, true)
            }
        };
        if let Err(failure) = apply(&mut plan) {
            // Whoever comes again may come with other params, and then needs another plan.
            if is_new && failure.had_no_effect() {
                locked.forget(key).map_err(Failure::io("write", log.path()))?;
            }
            return Err(failure);
        }
        locked.done(key, &write(&plan)?).map_err(Failure::io("write", log.path()))?;
        Ok(plan)
    }

    /// Takes back what was carried out under a key; `None` when there is nothing (more) to take
    /// back. `was_done` says that the step came to its end, so that a record must be there.
    pub fn take_back<Plan: DeserializeOwned, Undone>(
        &self,
        key: &str,
        was_done: bool,
        undo: impl FnOnce(&Plan) -> Result<Undone, Failure>,
    ) -> Result<Option<Undone>, Failure> {
        let log = self.log(key)?;
        let mut locked = log.lock().map_err(Failure::io("lock", log.path()))?;
        let note = match locked.mark(key).cloned() {
            Some(Mark::Undone) => return Ok(None),
            Some(Mark::Begun(note) | Mark::Done(note)) => {
                // From here on a do is refused, also when this attempt is broken off half way.
                locked.undoing_with(key, &note).map_err(Failure::io("write", log.path()))?;
                Some(note)
            }
            Some(Mark::Undoing(note)) => note,
            None if was_done => return Err(self.lost()),
            None => None,
        };
        let undone = match note {
            Some(note) => Some(undo(&read(&note)?)?),
            None => None,
        };
        locked.undone(key).map_err(Failure::io("write", log.path()))?;
        Ok(undone)
    }

    fn log(&self, key: &str) -> Result<EffectLog, Failure> {
        if !self.dir.is_absolute() {
            let message = format!("{} must be an absolute path", self.variable);
            return Err(Failure::permanent(message).no_effect());
        }
        let digest = Sha256::digest(key.as_bytes());
        let name: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = self.dir.join(name + ".jsonl");
        EffectLog::open(&path).map_err(Failure::io("open", &path))
    }

    fn lost(&self) -> Failure {
        Failure::permanent(format!(
            "the step was done, but {} has no record of it; set {} to the folder under which it \
             was done",
            self.dir.display(),
            self.variable
        ))
    }
}

fn read<Plan: DeserializeOwned>(note: &str) -> Result<Plan, Failure> {
    serde_json::from_str(note)
        .map_err(|error| Failure::permanent(format!("the record is damaged: {error}")))
}

fn write(plan: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(plan)
        .map_err(|error| Failure::permanent(format!("the record is no JSON: {error}")))
}
