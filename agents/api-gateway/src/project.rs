//! The project to which an API is added: where it is and of which kind.

use std::path::{Component, Path};

use agent_sdk::Failure;
use serde::{Deserialize, Serialize};

use crate::files::Folder;

/// What every project says about itself.
pub const PROJECT_FILE: &str = "orchestrator.project.json";

/// The kinds of projects that can have an API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// TypeScript in `src/`, the same as JavaScript in `dist/`.
    TypescriptApi,
    /// Python in `app/`.
    PythonService,
}

/// A project that can have an API.
#[derive(Clone, Debug)]
pub struct Project {
    /// Its folder, absolute, all links followed.
    pub dir: String,
    /// Its kind.
    pub kind: Kind,
    /// Its files.
    pub folder: Folder,
}

#[derive(Deserialize)]
struct Description {
    template: String,
}

impl Project {
    /// Finds the project and its kind.
    pub fn find(project_dir: Option<&str>) -> Result<Self, Failure> {
        let Some(project_dir) = project_dir else {
            return Err(rejected(
                "is missing; give it, or put the step behind one that makes a project",
            ));
        };
        let path = Path::new(project_dir);
        let climbs = path.components().any(|part| part == Component::ParentDir);
        if !path.is_absolute() || climbs || project_dir.contains('\0') {
            return Err(rejected(&format!(
                "is {project_dir:?}; it must be an absolute path without `..`"
            )));
        }
        let path = path.canonicalize().map_err(|error| {
            rejected(&format!("is {project_dir:?}, which is not there: {error}"))
        })?;
        let Some(dir) = path.to_str().map(ToOwned::to_owned) else {
            return Err(rejected("leads to a folder whose name is not UTF-8"));
        };
        let folder = Folder::new(path);
        let Some(text) = folder.read(PROJECT_FILE)? else {
            return Err(rejected(&format!("is {dir:?}, which has no {PROJECT_FILE}")));
        };
        let description: Description = serde_json::from_str(&text)
            .map_err(|error| rejected(&format!("has a {PROJECT_FILE} that is wrong: {error}")))?;
        let kind = kind_of(&description.template)?;
        Ok(Self { dir, kind, folder })
    }

    /// The project of a plan, which was found before.
    pub fn known(dir: &str, kind: Kind) -> Self {
        Self { dir: dir.to_owned(), kind, folder: Folder::new(dir.into()) }
    }
}

fn kind_of(template: &str) -> Result<Kind, Failure> {
    match template {
        "typescript-api" => Ok(Kind::TypescriptApi),
        "python-service" => Ok(Kind::PythonService),
        "rust-cli" => Err(rejected(
            "is a command-line program (rust-cli), which serves no API; use a project of the \
             template typescript-api or python-service",
        )),
        other => Err(rejected(&format!(
            "is of the template {other:?}; an API can be added to typescript-api and \
             python-service"
        ))),
    }
}

fn rejected(message: &str) -> Failure {
    Failure::rejected(format!("`project_dir` {message}")).code("invalid_input").no_effect()
}
