//! Deploying a project, and taking a deployment back.

use std::path::Path;

use agent_sdk::{Failure, JsonSchema};
use serde::{Deserialize, Serialize};

use crate::files;
use crate::input::{self, rejected};
use crate::target::{self, Release, Target};
use crate::workspace::Workspace;

/// How many releases a target keeps unless a task says otherwise.
pub const KEEP: u32 = 5;
/// The bounds of that: the current release and the one before it are always kept.
pub const KEEP_MIN: u32 = 2;
pub const KEEP_MAX: u32 = 1_000;

/// What `deploy` takes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Deploy {
    /// The project's folder, an absolute path. Unless given, that of the steps before.
    pub project_dir: Option<String>,
    /// The project's name. Unless given, that of the steps before, else as the project says.
    pub name: Option<String>,
    /// Where releases go, an absolute path; `releases/<name>` in the workspace unless given.
    pub target: Option<String>,
    /// The version; unless given, as the project says.
    pub version: Option<String>,
    /// How many releases are kept, 2 to 1000; 5 unless given.
    pub keep: Option<u32>,
}

/// What `deploy` gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Deployed {
    /// The new release.
    pub release: String,
    /// Its version.
    pub version: String,
    /// The release that was current before; `null` when there was none.
    pub previous: Option<String>,
    /// The link that leads to the current release.
    pub current: String,
    /// The project's folder.
    pub project_dir: String,
    /// Where the releases are.
    pub target: String,
}

/// What `undo_deploy` gives.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Undeployed {
    /// Whether this call switched `current` back. It does not when another release has become
    /// current since.
    pub switched_back: bool,
    /// The release that is current now; `null` when there is none.
    pub release: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Plan {
    target: String,
    release: String,
    version: String,
    project_dir: String,
    keep: u32,
    /// Known once it is done.
    previous: Option<String>,
}

/// Deploys, or finds that it was done under this key.
pub fn deploy(
    workspace: &Workspace,
    key: &str,
    wish: &Deploy,
    is_cancelled: &dyn Fn() -> bool,
) -> Result<Deployed, Failure> {
    let make = || plan(workspace, key, wish);
    let plan = workspace.plans().carry_out(key, make, |plan| {
        let target = Target::lock(Path::new(&plan.target))?;
        // Waiting for the target may have taken long.
        if is_cancelled() {
            return Err(files::cancelled());
        }
        plan.previous = put_in_place(&target, plan, is_cancelled)?;
        files::replace(&workspace.last_target(), plan.target.as_bytes())
    })?;
    let current = Path::new(&plan.target).join("current").display().to_string();
    let Plan { target, release, version, project_dir, previous, .. } = plan;
    Ok(Deployed { release, version, previous, current, project_dir, target })
}

/// Takes back what was deployed under this key: switches to what was current before, if the
/// release is current still, and removes it.
pub fn undo(workspace: &Workspace, key: &str, was_done: bool) -> Result<Undeployed, Failure> {
    let undone = workspace.plans().take_back(key, was_done, |plan: &Plan| {
        let target = Target::lock(Path::new(&plan.target))?;
        let mut switched_back = false;
        if target.current()?.as_ref() == Some(&plan.release) {
            let release = target.release(&plan.release)?;
            let previous = release.and_then(|release| release.previous);
            check_kept(&target, previous.as_deref())?;
            target.switch(previous.as_deref())?;
            switched_back = true;
        }
        target.remove(&plan.release)?;
        Ok(Undeployed { switched_back, release: target.current()? })
    })?;
    Ok(undone.unwrap_or_default())
}

/// Refuses to switch to a release that is not kept any more.
pub(crate) fn check_kept(target: &Target, release: Option<&str>) -> Result<(), Failure> {
    let Some(id) = release else { return Ok(()) };
    if target.release(id)?.is_some() && target.release_path(id).is_dir() {
        return Ok(());
    }
    Err(Failure::permanent(format!("the release before, {id}, is not kept any more")).no_effect())
}

fn plan(workspace: &Workspace, key: &str, wish: &Deploy) -> Result<Plan, Failure> {
    let keep = wish.keep.unwrap_or(KEEP);
    if !(KEEP_MIN..=KEEP_MAX).contains(&keep) {
        return Err(rejected(format!("`keep` is {keep}; {KEEP_MIN} to {KEEP_MAX} can be")));
    }
    let project = input::project(wish.project_dir.as_deref())?;
    let description = input::description(&project)?;
    let name = input::name(wish.name.as_deref(), &description, &project)?;
    let version = input::version(wish.version.as_deref(), &description)?;
    let target = input::target(wish.target.as_deref(), workspace, &name)?;
    input::check_apart(&project, &target)?;
    Ok(Plan {
        target: target.display().to_string(),
        release: target::id(&version, key),
        version,
        project_dir: project.display().to_string(),
        keep,
        previous: None,
    })
}

/// Copies, switches, prunes; leaves out what an attempt before has done. Gives the release that
/// was current before.
fn put_in_place(
    target: &Target,
    plan: &Plan,
    is_cancelled: &dyn Fn() -> bool,
) -> Result<Option<String>, Failure> {
    let current = target.current()?;
    let releases = target.releases()?;
    let known = releases.iter().find(|release| release.id == plan.release);
    if let Some(known) = known {
        let was_current = |other: &Release| other.previous.as_ref() == Some(&plan.release);
        if current.as_ref() == Some(&plan.release) || releases.iter().any(was_current) {
            return Ok(known.previous.clone());
        }
    }
    let mut release = Release {
        id: plan.release.clone(),
        version: plan.version.clone(),
        project_dir: plan.project_dir.clone(),
        previous: current.clone(),
        sequence: releases.last().map_or(1, |last| last.sequence + 1),
    };
    match known {
        Some(known) => {
            release.sequence = known.sequence;
            target.record(&release)?;
        }
        None => {
            target.prepare(&release, is_cancelled)?;
        }
    }
    if is_cancelled() {
        return Err(files::cancelled());
    }
    target.switch(Some(&release.id))?;
    target.prune(usize::try_from(plan.keep).unwrap_or(usize::MAX))?;
    Ok(current)
}
