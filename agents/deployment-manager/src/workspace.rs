//! Where releases go unless a task says otherwise, and where this agent keeps its records.

use std::path::PathBuf;

use agent_sdk::effect_log::Plans;
use project_files::workspace::{VARIABLE, from_env, records_of};

/// The workspace: releases, and what was done under which idempotency key.
#[derive(Clone, Debug)]
pub struct Workspace {
    root: PathBuf,
    plans: Plans,
}

impl Workspace {
    /// The workspace that the environment names.
    pub fn from_env() -> Self {
        Self::at(from_env())
    }

    /// The workspace in this folder, which need not exist yet.
    pub fn at(root: PathBuf) -> Self {
        let plans = Plans::at(records_of(&root, "deployment-manager"), VARIABLE);
        Self { root, plans }
    }

    /// Where releases of the project `name` go unless a task says otherwise.
    pub fn target(&self, name: &str) -> PathBuf {
        self.root.join("releases").join(name)
    }

    /// The file that names the target that was deployed to last.
    pub fn last_target(&self) -> PathBuf {
        self.plans.dir().join("last-target")
    }

    /// What was and is to be done, by idempotency key.
    pub fn plans(&self) -> &Plans {
        &self.plans
    }
}
