//! What tasks ask for, checked: which project, which target, which version.

use std::fs;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use agent_sdk::Failure;
use serde::Deserialize;

use crate::target::is_version;
use crate::workspace::Workspace;

/// What every project says about itself.
const PROJECT_FILE: &str = "orchestrator.project.json";
/// The largest such file.
const PROJECT_FILE_BYTES_MAX: u64 = 1024 * 1024;
/// The longest name of a project.
const NAME_BYTES_MAX: usize = 64;

/// What a project says about itself, as far as it matters here.
#[derive(Debug, Default, Deserialize)]
pub struct Description {
    /// Its name.
    pub name: Option<String>,
    /// Its version.
    pub version: Option<String>,
}

/// The project's folder, with all links followed.
pub fn project(given: Option<&str>) -> Result<PathBuf, Failure> {
    let Some(given) = given else {
        let message = "`project_dir` is missing; give it, or put the step behind one that makes a \
                       project";
        return Err(rejected(message.to_owned()));
    };
    let path = absolute("project_dir", given)?;
    let path = path.canonicalize().map_err(|error| {
        rejected(format!("`project_dir` is {given:?}, which is not there: {error}"))
    })?;
    if !path.is_dir() {
        return Err(rejected(format!("`project_dir` is {given:?}, which is no folder")));
    }
    if path.to_str().is_none() {
        return Err(rejected("`project_dir` leads to a name that is not UTF-8".to_owned()));
    }
    Ok(path)
}

/// What the project says about itself; nothing when it has no such file.
pub fn description(project: &Path) -> Result<Description, Failure> {
    let path = project.join(PROJECT_FILE);
    match fs::metadata(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Description::default()),
        Err(error) => return Err(Failure::io("look at", &path)(error)),
        Ok(metadata) if metadata.len() > PROJECT_FILE_BYTES_MAX => {
            return Err(rejected(format!("`project_dir` has a {PROJECT_FILE} that is too large")));
        }
        Ok(_) => {}
    }
    let bytes = fs::read(&path).map_err(Failure::io("read", &path))?;
    serde_json::from_slice(&bytes).map_err(|error| {
        rejected(format!("`project_dir` has a {PROJECT_FILE} that is wrong: {error}"))
    })
}

/// The project's name: given, else as it says, else its folder's.
pub fn name(
    given: Option<&str>,
    description: &Description,
    project: &Path,
) -> Result<String, Failure> {
    let folder = project.file_name().and_then(|name| name.to_str());
    let name = given.or(description.name.as_deref()).or(folder).unwrap_or_default();
    let is_fit = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && !name.starts_with('.');
    if is_fit {
        return Ok(name.to_owned());
    }
    Err(rejected(format!(
        "`name` is {name:?}; it must have only letters, digits, `-`, `_` and `.`, not begin with \
         `.`, and have at most {NAME_BYTES_MAX} characters"
    )))
}

/// The version: given, else as the project says, else 0.
pub fn version(given: Option<&str>, description: &Description) -> Result<String, Failure> {
    let version = given.or(description.version.as_deref()).unwrap_or("0");
    if is_version(version) {
        return Ok(version.to_owned());
    }
    Err(rejected(format!(
        "`version` is {version:?}; it must begin with a letter or digit and have only letters, \
         digits, `.`, `-`, `_` and `+`, at most 64 in all"
    )))
}

/// The target: given, else the one of this name in the workspace. It is made, and all links
/// that lead to it are followed.
pub fn target(given: Option<&str>, workspace: &Workspace, name: &str) -> Result<PathBuf, Failure> {
    let path = match given {
        Some(given) => absolute("target", given)?,
        None => workspace.target(name),
    };
    fs::create_dir_all(&path).map_err(Failure::io("make the folder", &path))?;
    let path = path.canonicalize().map_err(Failure::io("find", &path))?;
    if path.to_str().is_none() {
        return Err(rejected("`target` leads to a name that is not UTF-8".to_owned()));
    }
    Ok(path)
}

/// Refuses a target that would be copied into itself, or that a project lives in.
pub fn check_apart(project: &Path, target: &Path) -> Result<(), Failure> {
    if target.starts_with(project) || project.starts_with(target) {
        let (project, target) = (project.display(), target.display());
        return Err(rejected(format!(
            "`target` is {target} and `project_dir` is {project}; neither may lie in the other"
        )));
    }
    Ok(())
}

/// A path that does not depend on where the agent runs, and does not lead back up.
pub fn absolute(field: &str, given: &str) -> Result<PathBuf, Failure> {
    let path = Path::new(given);
    let climbs = path.components().any(|part| part == Component::ParentDir);
    if path.is_absolute() && !climbs && !given.contains('\0') {
        return Ok(path.to_owned());
    }
    let message = format!("`{field}` is {given:?}; it must be an absolute path without `..`");
    Err(rejected(message))
}

/// A refusal of the input.
pub fn rejected(message: String) -> Failure {
    Failure::rejected(message).code("invalid_input").no_effect()
}
