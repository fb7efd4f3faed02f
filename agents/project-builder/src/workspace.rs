//! Where projects are put unless a task says otherwise, and where this agent keeps its records.

use std::path::{Path, PathBuf};

use project_files::workspace::{VARIABLE, from_env, records_of};

use crate::error::Error;

/// The folder for projects and releases.
#[derive(Clone, Debug)]
pub struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// The workspace that the environment names.
    pub fn from_env() -> Self {
        Self::at(from_env())
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
        Ok(records_of(self.root()?, agent))
    }
}
