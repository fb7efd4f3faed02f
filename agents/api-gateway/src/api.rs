//! Adding an API to a project and taking it out again. The plan says which files are new, which
//! lines and which parts of the OpenAPI document are added; both ways go by it, and each part
//! is done only where it is not done yet.

use std::fs::{self, File};

use agent_sdk::effect_log::Plans;
use agent_sdk::{Failure, JsonSchema};
use project_files::durable;
use serde::{Deserialize, Serialize};

use crate::files::Folder;
use crate::openapi;
use crate::project::{Kind, Project};
use crate::registry::Entry;
use crate::resource::{Field, Operation, Resource};

/// What `create_api` takes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateApi {
    /// The project's folder, an absolute path. Unless given, that of the steps before.
    pub project_dir: Option<String>,
    /// The resource's name, as in `/items`; `items` unless given.
    pub resource: Option<String>,
    /// The fields of its records besides `id`; a name and a description unless given.
    pub fields: Option<Vec<Field>>,
    /// What can be done with it; everything unless given.
    pub routes: Option<Vec<Operation>>,
}

/// What `create_api` gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Api {
    /// The project's folder.
    pub project_dir: String,
    /// The resource's name.
    pub resource: String,
    /// Its routes.
    pub routes: Vec<Route>,
    /// The OpenAPI document, an absolute path.
    pub openapi: String,
    /// The files that are new, relative to the project's folder.
    pub files: Vec<String>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Route {
    /// The HTTP method.
    pub method: String,
    /// The path, as `/items/{id}`.
    pub path: String,
}

/// What `remove_api` gives.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RemovedApi {
    /// Whether this call took something out.
    pub removed: bool,
    /// Files of the API that were changed since and therefore stay, though nothing uses them.
    pub kept: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Plan {
    project_dir: String,
    kind: Kind,
    resource: Resource,
    files: Vec<NewFile>,
    entries: Vec<Entry>,
    /// The OpenAPI document before and after.
    openapi_before: String,
    openapi_after: String,
}

#[derive(Serialize, Deserialize)]
struct NewFile {
    path: String,
    text: String,
}

/// Adds the API, or finds that it was added under this key.
pub fn create(records: &Plans, key: &str, wish: &CreateApi) -> Result<Api, Failure> {
    let make = || {
        let resource = Resource::new(
            wish.resource.as_deref(),
            wish.fields.as_deref(),
            wish.routes.as_deref(),
        )?;
        plan(&Project::find(wish.project_dir.as_deref())?, resource)
    };
    let _alone = alone(records)?;
    records.carry_out(key, make, |plan| apply(plan)).map(|plan| outcome(&plan))
}

/// Takes out what was added under this key.
pub fn remove(records: &Plans, key: &str, was_done: bool) -> Result<RemovedApi, Failure> {
    let _alone = alone(records)?;
    Ok(records.take_back(key, was_done, take_out)?.unwrap_or_default())
}

/// Waits until no other task of this agent changes a project.
fn alone(records: &Plans) -> Result<File, Failure> {
    let path = records.dir().join("lock");
    fs::create_dir_all(records.dir()).map_err(Failure::io("make the folder", records.dir()))?;
    durable::lock(&path).map_err(Failure::io("lock", &path))
}

/// The plan, once everything that can be found out beforehand speaks for it.
fn plan(project: &Project, resource: Resource) -> Result<Plan, Failure> {
    let (files, entries) = match project.kind {
        Kind::TypescriptApi => typescript(&resource),
        Kind::PythonService => python(&resource),
    };
    for file in &files {
        if project.folder.read(&file.path)?.is_some() {
            return Err(taken(&file.path));
        }
    }
    for entry in &entries {
        entry.add_to(&there(&project.folder, &entry.file)?)?;
    }
    let openapi_before = there(&project.folder, openapi::FILE)?;
    let openapi_after = openapi::add(&openapi_before, &resource)?;
    let (project_dir, kind) = (project.dir.clone(), project.kind);
    Ok(Plan { project_dir, kind, resource, files, entries, openapi_before, openapi_after })
}

/// The registries come last: until then the server does not know of the resource.
fn apply(plan: &Plan) -> Result<(), Failure> {
    let folder = Project::known(&plan.project_dir, plan.kind).folder;
    for file in &plan.files {
        match folder.read(&file.path)? {
            None => folder.write(&file.path, &file.text)?,
            Some(text) if text == file.text => {}
            Some(_) => return Err(taken(&file.path)),
        }
    }
    edit(&folder, openapi::FILE, |text| openapi::add(text, &plan.resource))?;
    for entry in &plan.entries {
        edit(&folder, &entry.file, |text| entry.add_to(text))?;
    }
    Ok(())
}

fn take_out(plan: &Plan) -> Result<RemovedApi, Failure> {
    let folder = Project::known(&plan.project_dir, plan.kind).folder;
    let new = plan.files.iter().map(|file| &*file.path);
    let edited = plan.entries.iter().map(|entry| &*entry.file);
    for file in new.chain(edited).chain([openapi::FILE]) {
        folder.remove_unfinished(file)?;
    }
    for entry in &plan.entries {
        edit_if_there(&folder, &entry.file, |text| Ok(entry.remove_from(text)))?;
    }
    edit_if_there(&folder, openapi::FILE, |text| {
        if text == plan.openapi_before || text == plan.openapi_after {
            return Ok(plan.openapi_before.clone());
        }
        openapi::remove(text, &plan.resource)
    })?;
    let mut kept = Vec::new();
    for file in &plan.files {
        match folder.read(&file.path)? {
            Some(text) if text == file.text => folder.remove(&file.path)?,
            Some(_) => kept.push(file.path.clone()),
            None => {}
        }
    }
    Ok(RemovedApi { removed: true, kept })
}

fn typescript(resource: &Resource) -> (Vec<NewFile>, Vec<Entry>) {
    let (name, routes) = (&resource.name, resource.typescript_name());
    let file = |path, with_types| NewFile { path, text: resource.typescript(with_types) };
    let entry = |file: &str| Entry {
        file: file.to_owned(),
        import: format!("import {{ {routes} }} from \"./{name}.js\";"),
        list_start: "export const routes".to_owned(),
        list_end: "];".to_owned(),
        item: format!("  ...{routes},"),
    };
    (
        vec![
            file(format!("src/routes/{name}.ts"), true),
            file(format!("dist/routes/{name}.js"), false),
        ],
        vec![entry("src/routes/index.ts"), entry("dist/routes/index.js")],
    )
}

fn python(resource: &Resource) -> (Vec<NewFile>, Vec<Entry>) {
    let name = resource.python_name();
    let file = NewFile { path: format!("app/routes/{name}.py"), text: resource.python() };
    let entry = Entry {
        file: "app/routes/__init__.py".to_owned(),
        import: format!("from app.routes.{name} import ROUTES as {name}"),
        list_start: "ROUTES".to_owned(),
        list_end: "]".to_owned(),
        item: format!("    *{name},"),
    };
    (vec![file], vec![entry])
}

/// Changes a file's text; what stays the same is not written.
fn edit(
    folder: &Folder,
    file: &str,
    change: impl FnOnce(&str) -> Result<String, Failure>,
) -> Result<(), Failure> {
    let old = there(folder, file)?;
    let new = change(&old)?;
    if new == old { Ok(()) } else { folder.write(file, &new) }
}

fn edit_if_there(
    folder: &Folder,
    file: &str,
    change: impl FnOnce(&str) -> Result<String, Failure>,
) -> Result<(), Failure> {
    if folder.read(file)?.is_none() {
        return Ok(());
    }
    edit(folder, file, change)
}

fn there(folder: &Folder, file: &str) -> Result<String, Failure> {
    folder.read(file)?.ok_or_else(|| {
        Failure::permanent(format!("the project has no {file}; scaffold it anew")).no_effect()
    })
}

fn taken(path: &str) -> Failure {
    Failure::permanent(format!("the project has a {path} already; choose another `resource`"))
}

fn outcome(plan: &Plan) -> Api {
    let Plan { project_dir, resource, .. } = plan;
    let route = |operation: &Operation| Route {
        method: operation.method().to_owned(),
        path: resource.path(*operation),
    };
    Api {
        project_dir: project_dir.clone(),
        resource: resource.name.clone(),
        routes: resource.operations.iter().map(route).collect(),
        openapi: format!("{project_dir}/{}", openapi::FILE),
        files: plan.files.iter().map(|file| file.path.clone()).collect(),
    }
}
