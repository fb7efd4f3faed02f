//! A workspace with a project.

use std::fs;
use std::path::{Path, PathBuf};

use agent_sdk::Failure;
use deployment_manager_agent::deploy::{self, Deploy, Deployed, Undeployed};
use deployment_manager_agent::rollback::{self, Rollback, RolledBack};
use deployment_manager_agent::workspace::Workspace;
use tempfile::TempDir;

pub(crate) struct World {
    _folder: TempDir,
    pub(crate) root: PathBuf,
    pub(crate) workspace: Workspace,
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let workspace = Workspace::at(root.join("workspace"));
        let world = Self { _folder: folder, root, workspace };
        world.write("orchestrator.project.json", r#"{"name": "shop", "version": "1.2.3"}"#);
        world.write("src/main.txt", "one");
        world
    }

    pub(crate) fn project(&self) -> PathBuf {
        self.root.join("project")
    }

    pub(crate) fn target(&self) -> PathBuf {
        self.root.join("workspace/releases/shop")
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.project().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn wish(&self) -> Deploy {
        Deploy { project_dir: Some(self.project().display().to_string()), ..Deploy::default() }
    }

    /// Deploys the project with this text in it.
    pub(crate) fn deploy(&self, key: &str, text: &str) -> Result<Deployed, Failure> {
        self.write("src/main.txt", text);
        deploy::deploy(&self.workspace, key, &self.wish(), &|| false)
    }

    pub(crate) fn undo_deploy(&self, key: &str) -> Result<Undeployed, Failure> {
        deploy::undo(&self.workspace, key, false)
    }

    pub(crate) fn rollback(&self, key: &str) -> Result<RolledBack, Failure> {
        rollback::rollback(&self.workspace, key, &Rollback::default())
    }

    /// What users of the target see.
    pub(crate) fn live(&self) -> Option<String> {
        fs::read_to_string(self.target().join("current/src/main.txt")).ok()
    }

    /// Names in the folder of releases, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        names(&self.target().join("releases"))
    }
}

pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
