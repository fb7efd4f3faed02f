//! Clearing a full folder: what is in it moves into a quarantine folder of the sandbox, by
//! renaming, and back again.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use agent_sdk::{Failure, JsonSchema};
use project_files::durable;
use serde::{Deserialize, Serialize};

use crate::config::Restored;
use crate::files::{CHANGED_CODE, hash};
use crate::limits;
use crate::sandbox::{QUARANTINE, rejected};
use crate::tools::Tools;

/// What `clear_folder` takes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClearFolder {
    /// The folder, relative to the sandbox.
    pub folder: String,
    /// Names in it that stay.
    #[serde(default)]
    pub keep: Vec<String>,
    /// Only names with this ending go, as `.tmp`; all unless given.
    pub ending: Option<String>,
}

/// What `clear_folder` gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Cleared {
    /// The folder, relative to the sandbox.
    pub folder: String,
    /// Where its contents are now, relative to the sandbox.
    pub quarantine: String,
    /// How many files and folders went there.
    pub moved: usize,
}

#[derive(Serialize, Deserialize)]
struct Plan {
    given: String,
    folder: PathBuf,
    quarantine: PathBuf,
    names: Vec<String>,
}

/// Clears the folder, or finds that it was cleared under this key.
pub fn clear(tools: &Tools, key: &str, wish: &ClearFolder) -> Result<Cleared, Failure> {
    let folder = tools.sandbox.folder("folder", &wish.folder)?;
    let root = tools.sandbox.root()?;
    let _alone = tools.alone(&root.join(QUARANTINE))?;
    let shown = format!("{QUARANTINE}/{}", &hash(key.as_bytes())[..16]);
    let make = || {
        let names = names(&folder, wish)?;
        let quarantine = root.join(&shown);
        Ok(Plan { given: wish.folder.clone(), folder: folder.clone(), quarantine, names })
    };
    let plan = tools.plans.carry_out(key, make, |plan| apply(plan))?;
    Ok(Cleared { folder: plan.given, quarantine: shown, moved: plan.names.len() })
}

/// Moves everything back.
pub fn undo(tools: &Tools, key: &str, was_done: bool) -> Result<Restored, Failure> {
    let _alone = tools.alone(&tools.sandbox.root()?.join(QUARANTINE))?;
    let restored = tools.plans.take_back(key, was_done, move_back)?;
    Ok(Restored { restored: restored.unwrap_or_default() })
}

fn names(folder: &Path, wish: &ClearFolder) -> Result<Vec<String>, Failure> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(Failure::io("read the folder", folder))? {
        let entry = entry.map_err(Failure::io("read the folder", folder))?;
        let Ok(name) = entry.file_name().into_string() else {
            let message = format!("`folder` has a name that is not UTF-8 in {}", folder.display());
            return Err(rejected(message));
        };
        let is_kept = wish.keep.contains(&name)
            || wish.ending.as_ref().is_some_and(|ending| !name.ends_with(ending));
        if !is_kept {
            names.push(name);
        }
        if names.len() > limits::NAMES_MAX {
            let max = limits::NAMES_MAX;
            return Err(rejected(format!(
                "`folder` has more than {max} names; clear a part of it"
            )));
        }
    }
    names.sort();
    Ok(names)
}

fn apply(plan: &Plan) -> Result<(), Failure> {
    let quarantine = &plan.quarantine;
    fs::create_dir_all(quarantine).map_err(Failure::io("make the folder", quarantine))?;
    for name in &plan.names {
        let (from, to) = (plan.folder.join(name), quarantine.join(name));
        // One that somebody else removed meanwhile need not go any more.
        if !is_there(&to)? && is_there(&from)? {
            fs::rename(&from, &to).map_err(Failure::io("move", &from))?;
        }
    }
    sync(plan)
}

fn move_back(plan: &Plan) -> Result<bool, Failure> {
    if !is_there(&plan.quarantine)? {
        remove_empty(&plan.quarantine)?;
        return Ok(false);
    }
    for name in &plan.names {
        let (from, to) = (plan.quarantine.join(name), plan.folder.join(name));
        if !is_there(&from)? {
            continue;
        }
        if is_there(&to)? {
            let message = format!(
                "{} is there anew; what was moved away is kept in {}",
                to.display(),
                plan.quarantine.display()
            );
            return Err(Failure::permanent(message).code(CHANGED_CODE));
        }
        fs::rename(&from, &to).map_err(Failure::io("move", &from))?;
    }
    sync(plan)?;
    remove_empty(&plan.quarantine)?;
    Ok(true)
}

/// Removes the quarantine, and the folder of all of them when it was the last.
fn remove_empty(quarantine: &Path) -> Result<(), Failure> {
    for folder in quarantine.ancestors().take(2) {
        match fs::remove_dir(folder) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => return Ok(()),
            Err(error) => return Err(Failure::io("remove the folder", folder)(error)),
        }
    }
    Ok(())
}

fn sync(plan: &Plan) -> Result<(), Failure> {
    for folder in [&plan.quarantine, &plan.folder] {
        durable::sync_folder(folder).map_err(Failure::io("sync", folder))?;
    }
    Ok(())
}

fn is_there(path: &Path) -> Result<bool, Failure> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Failure::io("look at", path)(error)),
    }
}
