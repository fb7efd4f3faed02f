//! Where the bundled agents work unless a task says otherwise. It must not make the folder.

use std::path::{Path, PathBuf};

/// The environment variable that names the workspace.
pub const VARIABLE: &str = "ORCHESTRATOR_WORKSPACE";

/// What `ORCHESTRATOR_WORKSPACE` says; `orchestrator/workspace` in the system's folder for
/// temporary files when it is not set.
pub fn from_env() -> PathBuf {
    std::env::var_os(VARIABLE)
        .filter(|value| !value.is_empty())
        .map_or_else(|| std::env::temp_dir().join("orchestrator").join("workspace"), PathBuf::from)
}

/// Where the agent `agent` keeps its records in a workspace.
pub fn records_of(workspace: &Path, agent: &str) -> PathBuf {
    workspace.join(".orchestrator").join(agent)
}
