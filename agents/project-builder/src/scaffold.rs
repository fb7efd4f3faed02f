//! Making a project. It is put together aside and moved into its place in one step, so that it
//! is there as a whole or not at all; what stands there already is never written over.
//!
//! The order on disk: the record `planned`, the staged files, the move, the record `done`. The
//! stamp in the project says under which key it was made, so that an attempt after a crash
//! between the move and `done` knows its own work from a stranger's.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use project_files::durable::{replace, sync_folder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::ledger::{Ledger, hash};
use crate::naming;
use crate::removal::Removed;
use crate::template::{RenderedFile, Template};
use crate::workspace::Workspace;

/// Where a project says by whom it was made.
pub const STAMP: &str = ".orchestrator/scaffold.json";
/// What every project of this agent says about itself.
pub const PROJECT_FILE: &str = "orchestrator.project.json";

/// What `scaffold_project` takes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scaffold {
    /// Which kind of project.
    pub template: Template,
    /// The project's name: `[a-z][a-z0-9_-]*`, at most 64 characters. Its folder has it too.
    pub name: String,
    /// The folder in which the project's folder is made, an absolute path. Unless given, a
    /// folder of the run's own in the workspace, so that each run makes a project anew.
    pub directory: Option<String>,
}

/// What `scaffold_project` gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Project {
    /// The project's folder.
    pub project_dir: String,
    /// Which kind of project.
    pub template: Template,
    /// The project's name.
    pub name: String,
    /// Its files, relative to its folder.
    pub files: Vec<String>,
    /// The file in which the program begins.
    pub entry: String,
    /// How it is started, from its folder.
    pub start: Vec<String>,
    /// Where it says that it is up; not there when it is no service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_path: Option<String>,
}

/// What is known of one key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum Record {
    /// It is about to be made, or was broken off while it was made.
    Planned { plan: Plan },
    /// It was made.
    Done { plan: Plan },
    /// It is about to be removed, or was broken off while it was removed.
    Removing { plan: Plan },
    /// It was removed, or was undone before it was made.
    Undone { removed: Removed },
}

/// What is to be made, and therefore what may be removed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) project_dir: PathBuf,
    pub(crate) template: Template,
    pub(crate) name: String,
    /// The files and the SHA-256 of each.
    pub(crate) files: BTreeMap<String, String>,
    /// The project's folder was there before, empty.
    pub(crate) folder_was_there: bool,
}

#[derive(Serialize, Deserialize)]
struct Stamp {
    key_sha256: String,
}

/// Makes and removes projects; one at a time, whatever the number of processes.
#[derive(Debug)]
pub struct Builder<'a> {
    workspace: &'a Workspace,
    pub(crate) ledger: Ledger,
}

impl<'a> Builder<'a> {
    /// Waits until nobody else makes or removes a project in this workspace.
    pub fn new(workspace: &'a Workspace) -> Result<Self, Error> {
        let ledger = Ledger::open(workspace.records_of("project-builder")?)?;
        Ok(Self { workspace, ledger })
    }

    /// Makes the project, or finds that it was made under this key.
    pub fn scaffold(&self, key: &str, run: &str, wish: &Scaffold) -> Result<Project, Error> {
        naming::check_name(&wish.name)?;
        if wish.template == Template::RustCli {
            naming::check_cargo_name(&wish.name)?;
        }
        let plan = match self.ledger.read::<Record>(key)? {
            Some(Record::Done { plan }) if owner(&plan, key) == Owner::Us => {
                return Ok(outcome(&plan));
            }
            Some(Record::Done { plan }) => return Err(gone(&plan)),
            Some(Record::Planned { plan }) if owner(&plan, key) == Owner::Us => plan,
            Some(Record::Planned { plan }) => {
                // Nothing came of it, and the step may ask for something else by now.
                clear(&staging(key, &plan))?;
                self.plan(run, wish)?
            }
            Some(Record::Removing { .. } | Record::Undone { .. }) => return Err(Error::Undone),
            None => self.plan(run, wish)?,
        };
        if owner(&plan, key) != Owner::Us {
            check_free(&plan.project_dir)?;
            self.ledger.write(key, &Record::Planned { plan: plan.clone() })?;
            self.stage(key, &plan)?;
            self.publish(key, &plan)?;
        }
        self.ledger.write(key, &Record::Done { plan: plan.clone() })?;
        Ok(outcome(&plan))
    }

    fn plan(&self, run: &str, wish: &Scaffold) -> Result<Plan, Error> {
        let parent = match &wish.directory {
            Some(directory) => naming::check_directory(directory)?,
            None => self.workspace.root()?.join(naming::folder_of_run(run)),
        };
        fs::create_dir_all(&parent).map_err(Error::io("make the folder", &parent))?;
        // Links in the parent's path are followed once and for all, here.
        let parent = parent.canonicalize().map_err(Error::io("find", &parent))?;
        if parent.to_str().is_none() {
            let parent = parent.display();
            return Err(Error::Rejected(format!("`directory` {parent} is not UTF-8")));
        }
        let project_dir = parent.join(&wish.name);
        let files = wish.template.render(&wish.name);
        Ok(Plan {
            folder_was_there: project_dir.is_dir(),
            project_dir,
            template: wish.template,
            name: wish.name.clone(),
            files: files.iter().map(|f| (f.path.clone(), hash(f.text.as_bytes()))).collect(),
        })
    }

    /// Writes the project aside, on the file system on which it will stand.
    fn stage(&self, key: &str, plan: &Plan) -> Result<(), Error> {
        let staging = staging(key, plan);
        clear(&staging)?;
        let stamp = serde_json::to_string(&Stamp { key_sha256: hash(key.as_bytes()) });
        let stamp = stamp.expect("a stamp is a JSON object with one text");
        let stamp = RenderedFile { path: STAMP.to_owned(), text: stamp + "\n" };
        let files = plan.template.render(&plan.name);
        for file in files.iter().chain([&stamp]) {
            let path = staging.join(&file.path);
            let folder = path.parent().unwrap_or(&staging);
            fs::create_dir_all(folder).map_err(Error::io("make the folder", folder))?;
            replace(&path, file.text.as_bytes()).map_err(Error::io("write", &path))?;
        }
        sync_folder(&staging).map_err(Error::io("save", &staging))
    }

    /// Moves the project into its place. The system refuses it when anything stands there.
    fn publish(&self, key: &str, plan: &Plan) -> Result<(), Error> {
        let staging = staging(key, plan);
        match fs::rename(&staging, &plan.project_dir) {
            Ok(()) => {}
            Err(error) if is_taken(&error) => {
                clear(&staging)?;
                return Err(taken(&plan.project_dir));
            }
            Err(error) => return Err(Error::io("make the project", &plan.project_dir)(error)),
        }
        let parent = plan.project_dir.parent().unwrap_or(Path::new("/"));
        sync_folder(parent).map_err(Error::io("save", parent))
    }
}

/// Whose project stands in the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// It was made under this key.
    Us,
    /// It was made under another one.
    Other,
    /// No stamp says so, or nothing is there.
    Unknown,
}

pub(crate) fn owner(plan: &Plan, key: &str) -> Owner {
    let stamp = fs::read(plan.project_dir.join(STAMP)).ok();
    match stamp.and_then(|bytes| serde_json::from_slice::<Stamp>(&bytes).ok()) {
        Some(stamp) if stamp.key_sha256 == hash(key.as_bytes()) => Owner::Us,
        Some(_) => Owner::Other,
        None => Owner::Unknown,
    }
}

/// Where a project is put together: beside its place, under a name that no project can have.
pub(crate) fn staging(key: &str, plan: &Plan) -> PathBuf {
    let name = format!(".{}.{}.staging", plan.name, &hash(key.as_bytes())[..16]);
    plan.project_dir.with_file_name(name)
}

/// Removes what an attempt left that was broken off.
pub(crate) fn clear(staging: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(staging) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove", staging)(error))
        }
        _ => Ok(()),
    }
}

fn check_free(project_dir: &Path) -> Result<(), Error> {
    let metadata = match fs::symlink_metadata(project_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("look at", project_dir)(error)),
        Ok(metadata) => metadata,
    };
    if !metadata.is_dir() {
        return Err(taken(project_dir));
    }
    let mut entries = fs::read_dir(project_dir).map_err(Error::io("read", project_dir))?;
    if entries.next().is_some() { Err(taken(project_dir)) } else { Ok(()) }
}

fn is_taken(error: &io::Error) -> bool {
    use io::ErrorKind::{AlreadyExists, DirectoryNotEmpty, NotADirectory};
    matches!(error.kind(), AlreadyExists | DirectoryNotEmpty | NotADirectory)
}

fn taken(project_dir: &Path) -> Error {
    Error::Permanent(format!(
        "{} is there already and is not this step's; choose another `name` or `directory`",
        project_dir.display()
    ))
}

fn gone(plan: &Plan) -> Error {
    Error::Permanent(format!(
        "this step made {} once, and somebody has removed or replaced it since",
        plan.project_dir.display()
    ))
}

fn outcome(plan: &Plan) -> Project {
    Project {
        project_dir: plan.project_dir.display().to_string(),
        template: plan.template,
        name: plan.name.clone(),
        files: plan.files.keys().cloned().collect(),
        entry: plan.template.entry().to_owned(),
        start: plan.template.start(),
        health_path: plan.template.health_path().map(ToOwned::to_owned),
    }
}
