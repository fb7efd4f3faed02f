//! What every action works with: the sandbox, the records of what was done under which key, and
//! a lock for each thing that is changed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use agent_sdk::Failure;
use agent_sdk::effect_log::Plans;
use project_files::{durable, workspace};

use crate::files::hash;
use crate::sandbox::{self, Sandbox};

/// The sandbox and the records.
#[derive(Clone)]
pub struct Tools {
    /// What may be changed.
    pub sandbox: Sandbox,
    /// What was done under which key; it may hold secrets, so that it is the owner's alone.
    pub plans: Plans,
    /// Whether somebody has said what may be changed. Otherwise no issue is for this agent.
    pub takes_issues: bool,
    variables: BTreeMap<String, String>,
}

impl Tools {
    /// The sandbox that `REMEDIATOR_SANDBOX` names, `sandbox` in the workspace when it is not
    /// set; the records are in the workspace.
    pub fn from_env() -> Self {
        let workspace = workspace::from_env();
        let named = std::env::var_os(sandbox::VARIABLE).filter(|value| !value.is_empty());
        let takes_issues = named.is_some();
        let sandbox = named.map_or_else(|| workspace.join("sandbox"), PathBuf::from);
        let records = workspace::records_of(&workspace, "remediator");
        Self { takes_issues, ..Self::at(sandbox, records) }
    }

    /// The sandbox and the records in these folders.
    pub fn at(sandbox: impl Into<PathBuf>, records: impl Into<PathBuf>) -> Self {
        Self {
            sandbox: Sandbox::at(sandbox),
            plans: Plans::at(records.into(), workspace::VARIABLE),
            takes_issues: true,
            variables: BTreeMap::new(),
        }
    }

    /// A variable that counts as one of the environment, in place of what that says.
    #[must_use]
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// What a variable says that a task names; `None` when it is empty or not set.
    pub fn named(&self, name: &str) -> Option<String> {
        let value = self.variables.get(name).cloned().or_else(|| std::env::var(name).ok());
        value.filter(|value| !value.is_empty())
    }

    /// Waits until no other task changes what is at this path, and keeps others out until the
    /// lock is dropped.
    pub fn alone(&self, path: &Path) -> Result<File, Failure> {
        let folder = self.plans.dir().join("locks");
        fs::create_dir_all(&folder).map_err(Failure::io("make the folder", &folder))?;
        let lock = folder.join(&hash(path.as_os_str().as_encoded_bytes())[..16]);
        durable::lock(&lock).map_err(Failure::io("lock", &lock))
    }
}
