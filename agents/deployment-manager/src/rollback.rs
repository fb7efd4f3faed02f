//! Going back to the release before the current one, and forward again.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use agent_sdk::{Failure, JsonSchema};
use serde::{Deserialize, Serialize};

use crate::deploy::{Undeployed, check_kept};
use crate::input;
use crate::target::Target;
use crate::workspace::Workspace;

/// What `rollback` takes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// Where the releases are, an absolute path. Unless given, that of the steps before, else
    /// the target that was deployed to last.
    pub target: Option<String>,
}

/// What `rollback` gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RolledBack {
    /// Always true: with nothing to go back to, the action fails.
    pub rolled_back: bool,
    /// The release that was current.
    pub from: String,
    /// The release that is current now.
    pub release: String,
    /// The link that leads to it.
    pub current: String,
    /// Where the releases are.
    pub target: String,
}

#[derive(Serialize, Deserialize)]
struct Plan {
    target: String,
    from: String,
    to: String,
}

/// Goes back one release, or finds that it was done under this key.
pub fn rollback(workspace: &Workspace, key: &str, wish: &Rollback) -> Result<RolledBack, Failure> {
    let make = || {
        let path = find_target(workspace, wish.target.as_deref())?;
        let target = Target::lock(&path)?;
        let (from, to) = step_back(&target, &path)?;
        Ok(Plan { target: path.display().to_string(), from, to })
    };
    let plan = workspace.plans().carry_out(key, make, |plan| {
        let target = Target::lock(Path::new(&plan.target))?;
        switch(&target, &plan.from, &plan.to)
    })?;
    let current = Path::new(&plan.target).join("current").display().to_string();
    let Plan { target, from, to } = plan;
    Ok(RolledBack { rolled_back: true, from, release: to, current, target })
}

/// Goes forward again, if the release gone back to is current still.
pub fn undo(workspace: &Workspace, key: &str, was_done: bool) -> Result<Undeployed, Failure> {
    let undone = workspace.plans().take_back(key, was_done, |plan: &Plan| {
        let target = Target::lock(Path::new(&plan.target))?;
        let is_current = target.current()?.as_ref() == Some(&plan.to);
        if is_current {
            check_kept(&target, Some(&plan.from))?;
            target.switch(Some(&plan.from))?;
        }
        Ok(Undeployed { switched_back: is_current, release: target.current()? })
    })?;
    Ok(undone.unwrap_or_default())
}

fn find_target(workspace: &Workspace, given: Option<&str>) -> Result<PathBuf, Failure> {
    let path = match given {
        Some(given) => input::absolute("target", given)?,
        None => {
            let file = workspace.last_target();
            match fs::read_to_string(&file) {
                Ok(path) => PathBuf::from(path),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let message = "nothing was ever deployed from this workspace; there is no \
                                   release to go back to";
                    return Err(nothing(message.to_owned()));
                }
                Err(error) => return Err(Failure::io("read", &file)(error)),
            }
        }
    };
    if !path.join("releases").is_dir() {
        let path = path.display();
        let message = format!("{path} has no releases; there is nothing to go back to");
        return Err(nothing(message));
    }
    path.canonicalize().map_err(Failure::io("find", &path))
}

fn step_back(target: &Target, path: &Path) -> Result<(String, String), Failure> {
    let path = path.display();
    let Some(from) = target.current()? else {
        let message = format!("no release is current in {path}; there is nothing to go back from");
        return Err(nothing(message));
    };
    let Some(to) = target.release(&from)?.and_then(|release| release.previous) else {
        let message = format!("{from} is the first release in {path}; none is there to go back to");
        return Err(nothing(message));
    };
    check_kept(target, Some(&to))?;
    Ok((from, to))
}

fn switch(target: &Target, from: &str, to: &str) -> Result<(), Failure> {
    match target.current()?.as_deref() {
        Some(current) if current == to => Ok(()),
        Some(current) if current == from => {
            check_kept(target, Some(to))?;
            target.switch(Some(to))
        }
        other => Err(Failure::permanent(format!(
            "{} has become current meanwhile in place of {from}; nothing was switched",
            other.unwrap_or("no release")
        ))),
    }
}

fn nothing(message: String) -> Failure {
    Failure::permanent(message).code("nothing_to_roll_back").no_effect()
}
