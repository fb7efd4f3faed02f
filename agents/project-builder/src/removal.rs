//! Removing a project: the files that were made under a key, as long as they are as they were
//! made, and the folders that are empty then. What somebody changed or added stays.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::ledger::hash;
use crate::scaffold::{Builder, Owner, Plan, Record, STAMP, clear, owner, staging};

/// What `remove_project` gives.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Removed {
    /// The project's folder; not there when nothing was ever made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project_dir: Option<String>,
    /// Whether the project's folder is gone.
    pub removed: bool,
    /// Files of the project that were changed since and therefore stay.
    pub kept: Vec<String>,
}

impl Builder<'_> {
    /// Removes what was made under this key. `was_done` says that the step came to its end, so
    /// that a record must be there.
    pub fn remove(&self, key: &str, was_done: bool) -> Result<Removed, Error> {
        let (plan, was_moved) = match self.ledger.read::<Record>(key)? {
            None if was_done => {
                return Err(Error::Permanent(
                    "the step was done, but this workspace has no record of it; set \
                     ORCHESTRATOR_WORKSPACE to the folder under which it was done"
                        .to_owned(),
                ));
            }
            None => return self.undone(key, Removed::default()),
            Some(Record::Undone { removed }) => return Ok(removed),
            Some(Record::Planned { plan }) => (plan, false),
            Some(Record::Done { plan } | Record::Removing { plan }) => (plan, true),
        };
        clear(&staging(key, &plan))?;
        let is_ours = match owner(&plan, key) {
            Owner::Us => true,
            Owner::Other => false,
            // Of what was moved into its place the stamp is removed last, or by somebody else;
            // each file is still known by its hash.
            Owner::Unknown => was_moved,
        };
        if !is_ours {
            return self.undone(key, Removed::default());
        }
        self.ledger.write(key, &Record::Removing { plan: plan.clone() })?;
        remove_files(&plan)?;
        remove_folders(&plan)?;
        self.undone(key, outcome(&plan))
    }

    fn undone(&self, key: &str, removed: Removed) -> Result<Removed, Error> {
        self.ledger.write(key, &Record::Undone { removed: removed.clone() })?;
        Ok(removed)
    }
}

fn remove_files(plan: &Plan) -> Result<(), Error> {
    for (path, made) in &plan.files {
        if state(&plan.project_dir, path, made)? == State::AsMade {
            let path = plan.project_dir.join(path);
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
    }
    let stamp = plan.project_dir.join(STAMP);
    match fs::remove_file(&stamp) {
        Err(error) if !is_absent(&error) => Err(Error::io("remove", &stamp)(error)),
        _ => Ok(()),
    }
}

/// Removes the folders that the project brought, the deepest first, where they are empty.
fn remove_folders(plan: &Plan) -> Result<(), Error> {
    let mut folders = BTreeSet::new();
    for path in plan.files.keys().map(String::as_str).chain([STAMP]) {
        folders.extend(Path::new(path).ancestors().skip(1).map(Path::to_path_buf));
    }
    if plan.folder_was_there {
        folders.remove(&PathBuf::new());
    }
    // A folder sorts before what is in it.
    for folder in folders.iter().rev() {
        let folder = plan.project_dir.join(folder);
        match fs::remove_dir(&folder) {
            Err(error) if !is_absent(&error) && !is_in_use(&error) => {
                return Err(Error::io("remove the folder", &folder)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn outcome(plan: &Plan) -> Removed {
    let is_kept = |(path, made): &(&String, &String)| {
        matches!(state(&plan.project_dir, path, made), Ok(State::Changed) | Err(_))
    };
    Removed {
        project_dir: Some(plan.project_dir.display().to_string()),
        removed: !plan.project_dir.exists(),
        kept: plan.files.iter().filter(is_kept).map(|(path, _)| path.clone()).collect(),
    }
}

#[derive(PartialEq)]
enum State {
    AsMade,
    Changed,
    Absent,
}

fn state(project_dir: &Path, file: &str, made: &str) -> Result<State, Error> {
    let mut path = project_dir.to_owned();
    for part in Path::new(file) {
        path.push(part);
        match fs::symlink_metadata(&path) {
            Err(error) if is_absent(&error) => return Ok(State::Absent),
            Err(error) => return Err(Error::io("look at", &path)(error)),
            // A link in the place of a file or folder is somebody's change; what it leads to
            // is not ours.
            Ok(metadata) if metadata.is_symlink() => return Ok(State::Changed),
            Ok(_) => {}
        }
    }
    if !path.is_file() {
        return Ok(State::Changed);
    }
    let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
    Ok(if hash(&bytes) == made { State::AsMade } else { State::Changed })
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn is_in_use(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::DirectoryNotEmpty
}
