//! Where projects are put unless a task says otherwise, and where this agent keeps its records.

use std::path::{Path, PathBuf};

use crate::error::Error;

/// The environment variable that names the workspace.
pub const VARIABLE: &str = "ORCHESTRATOR_WORKSPACE";

/// The folder for projects and releases.
#[derive(Clone, Debug)]
pub struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// What `ORCHESTRATOR_WORKSPACE` says; `orchestrator/workspace` in the system's folder for
    /// temporary files when it is not set.
    pub fn from_env() -> Self {
        let root = std::env::var_os(VARIABLE).filter(|value| !value.is_empty());
        Self::at(root.map_or_else(
            || std::env::temp_dir().join("orchestrator").join("workspace"),
            PathBuf::from,
        ))
    }

    /// The workspace in this folder, which need not exist yet.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder; it must be absolute, since agents run in different folders.
    pub fn root(&self) -> Result<&Path, Error> {
        if self.root.is_absolute() {
            return Ok(&self.root);
        }
        let root = self.root.display();
        Err(Error::Permanent(format!("{VARIABLE} must be an absolute path, not `{root}`")))
    }

    /// Where the agent `agent` keeps its records.
    pub fn records_of(&self, agent: &str) -> Result<PathBuf, Error> {
        Ok(self.root()?.join(".orchestrator").join(agent))
    }
}
