//! What this agent did under which idempotency key. Before anything changes the plan is written
//! down; whoever comes again with the key goes on by the same plan. It knows nothing of plans.

use std::path::PathBuf;

use agent_sdk::effect_log::{Mark, UNDONE_CODE};
use agent_sdk::{EffectLog, Failure};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::files::io;

/// The environment variable that names the workspace.
pub const VARIABLE: &str = "ORCHESTRATOR_WORKSPACE";

/// The workspace: where releases go unless a task says otherwise, and where the records are, one
/// file per idempotency key.
#[derive(Clone, Debug)]
pub struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// What `ORCHESTRATOR_WORKSPACE` says; `orchestrator/workspace` in the system's folder for
    /// temporary files when it is not set.
    pub fn from_env() -> Self {
        let root = std::env::var_os(VARIABLE).filter(|value| !value.is_empty());
        let root = root.map_or_else(
            || std::env::temp_dir().join("orchestrator").join("workspace"),
            PathBuf::from,
        );
        Self::at(root)
    }

    /// The workspace in this folder, which need not exist yet.
    pub fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// Where releases of the project `name` go unless a task says otherwise.
    pub fn target(&self, name: &str) -> PathBuf {
        self.root.join("releases").join(name)
    }

    /// The file that names the target that was deployed to last.
    pub fn last_target(&self) -> PathBuf {
        self.records().join("last-target")
    }

    fn records(&self) -> PathBuf {
        self.root.join(".orchestrator").join("deployment-manager")
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
        let mut locked = log.lock().map_err(io("lock", log.path()))?;
        let (mut plan, is_new) = match locked.mark(key) {
            Some(Mark::Done(note)) => return read(note),
            Some(Mark::Begun(note)) => (read(note)?, false),
            Some(Mark::Undoing(_) | Mark::Undone) => {
                let message = "this step was undone; it is not done after its undoing";
                return Err(Failure::permanent(message).code(UNDONE_CODE).no_effect());
            }
            None => {
                let plan = make()?;
                locked.begin(key, &write(&plan)?).map_err(io("write", log.path()))?;
                (plan, true)
            }
        };
        if let Err(failure) = apply(&mut plan) {
            // Whoever comes again may come with other params, and then needs another plan.
            if is_new && failure.had_no_effect() {
                locked.forget(key).map_err(io("write", log.path()))?;
            }
            return Err(failure);
        }
        locked.done(key, &write(&plan)?).map_err(io("write", log.path()))?;
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
        let mut locked = log.lock().map_err(io("lock", log.path()))?;
        let undone = match locked.mark(key) {
            Some(Mark::Undone) => return Ok(None),
            Some(Mark::Begun(note) | Mark::Done(note) | Mark::Undoing(Some(note))) => {
                Some(undo(&read(note)?)?)
            }
            None if was_done => return Err(self.lost()),
            None | Some(Mark::Undoing(None)) => None,
        };
        locked.undone(key).map_err(io("write", log.path()))?;
        Ok(undone)
    }

    fn log(&self, key: &str) -> Result<EffectLog, Failure> {
        if !self.root.is_absolute() {
            let message = format!("{VARIABLE} must be an absolute path");
            return Err(Failure::permanent(message).no_effect());
        }
        let path = self.records().join(hash(key) + ".jsonl");
        EffectLog::open(&path).map_err(io("open", &path))
    }

    fn lost(&self) -> Failure {
        Failure::permanent(format!(
            "the step was done, but {} has no record of it; set {VARIABLE} to the folder under \
             which it was done",
            self.records().display()
        ))
    }
}

/// SHA-256 in hexadecimal digits.
pub fn hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read<Plan: DeserializeOwned>(note: &str) -> Result<Plan, Failure> {
    serde_json::from_str(note)
        .map_err(|error| Failure::permanent(format!("the record is damaged: {error}")))
}

fn write(plan: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(plan)
        .map_err(|error| Failure::permanent(format!("the record is no JSON: {error}")))
}
