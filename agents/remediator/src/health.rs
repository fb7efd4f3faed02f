//! Checking the health of a service by a list of checks in the sandbox, and telling what is
//! wrong as issues that can be triaged. It must not change anything.

mod size;

use std::time::Duration;

use agent_sdk::{Failure, JsonSchema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::runtime::Handle;

use crate::files::Content;
use crate::limits;
use crate::migration::{Connection, Database};
use crate::process::Manifest;
use crate::sandbox::rejected;
use crate::settings;
use crate::tools::Tools;

/// What `check_health` takes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckHealth {
    /// The list of checks, relative to the sandbox.
    pub checks: String,
    /// Fail when something is wrong, in place of telling it.
    #[serde(default)]
    pub expect_healthy: bool,
}

/// What `check_health` gives.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Health {
    /// Whether nothing is wrong.
    pub healthy: bool,
    /// How many checks there are.
    pub checked: usize,
    /// An issue for each check that found something wrong, as triage takes them.
    pub issues: Vec<Value>,
}

/// One check: what is looked at, and the issue that it is when that is wrong.
#[derive(Clone, Debug)]
struct Check {
    look: Look,
    /// Fields of the issue; `id` and `title` are required.
    issue: Map<String, Value>,
}

/// What is looked at.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum Look {
    /// A setting of a file has a value.
    Setting { file: String, key: String, equals: String },
    /// A process runs.
    Process { manifest: String },
    /// A folder holds no more than so many bytes.
    Folder { folder: String, max_bytes: u64 },
    /// The key in a file has not expired.
    Key { file: String, expires_field: Option<String> },
    /// A query succeeds, and gives this where something is said.
    Sql { database: Database, query: String, equals: Option<String> },
}

/// Makes all checks.
pub fn check(tools: &Tools, input: &CheckHealth, now: Duration) -> Result<Health, Failure> {
    let checks = read(tools, &input.checks)?;
    let mut issues = Vec::new();
    for check in &checks {
        if let Some(evidence) = look(tools, &check.look, now)? {
            let mut issue = check.issue.clone();
            issue.entry("source").or_insert("check_health".into());
            issue.insert("evidence".to_owned(), vec![evidence].into());
            issues.push(Value::Object(issue));
        }
    }
    if input.expect_healthy && !issues.is_empty() {
        let wrong: Vec<&str> =
            issues.iter().filter_map(|issue| issue.get("title")?.as_str()).collect();
        let message = format!("not healthy: {}", wrong.join("; "));
        return Err(Failure::permanent(message).code("unhealthy").no_effect());
    }
    Ok(Health { healthy: issues.is_empty(), checked: checks.len(), issues })
}

fn read(tools: &Tools, given: &str) -> Result<Vec<Check>, Failure> {
    let path = tools.sandbox.path("checks", given)?;
    let content = Content::read(&path)?
        .ok_or_else(|| rejected(format!("`checks` is {given:?}, which is not there")))?;
    let wrong = |error: &dyn std::fmt::Display| {
        rejected(format!("the checks in {given} are wrong: {error}"))
    };
    let listed: Vec<Map<String, Value>> =
        serde_json::from_slice(&content.bytes).map_err(|error| wrong(&error))?;
    if listed.len() > limits::CHECKS_MAX {
        return Err(wrong(&format!("there are more than {}", limits::CHECKS_MAX)));
    }
    let checks = listed.into_iter().enumerate().map(|(number, one)| {
        Check::read(one).map_err(|error| wrong(&format!("[{number}]: {error}")))
    });
    checks.collect()
}

impl Check {
    fn read(mut fields: Map<String, Value>) -> Result<Self, String> {
        let Some(Value::Object(issue)) = fields.remove("issue") else {
            return Err("`issue` is missing, or is no object".to_owned());
        };
        for field in ["id", "title"] {
            if !issue.get(field).is_some_and(Value::is_string) {
                return Err(format!("`issue.{field}` is missing, or is no text"));
            }
        }
        let look =
            serde_json::from_value(Value::Object(fields)).map_err(|error| error.to_string())?;
        Ok(Self { look, issue })
    }
}

/// What is wrong; `None` when nothing is.
fn look(tools: &Tools, look: &Look, now: Duration) -> Result<Option<String>, Failure> {
    match look {
        Look::Setting { file, key, equals } => setting(tools, file, key, equals),
        Look::Process { manifest } => {
            let read = Manifest::read(&tools.sandbox, "manifest", manifest)?;
            let is_running = read.running()?.is_some();
            Ok((!is_running).then(|| format!("no process runs by {manifest}")))
        }
        Look::Folder { folder, max_bytes } => {
            let bytes = size::of_folder(&tools.sandbox.folder("folder", folder)?)?;
            let is_full = bytes > *max_bytes;
            Ok(is_full.then(|| format!("{folder} holds {bytes} bytes, more than {max_bytes}")))
        }
        Look::Key { file, expires_field } => {
            let field = expires_field.as_deref().unwrap_or("expires");
            key(tools, file, field, now)
        }
        Look::Sql { database, query, equals } => {
            let place = database.place(&tools.sandbox)?;
            let found = Handle::current().block_on(async {
                let mut connection = Connection::open(&place, tools).await?;
                connection.begin_to_read().await?;
                Ok::<_, Failure>(connection.first(query).await)
            })?;
            Ok(match (found, equals) {
                (Err(failure), _) => Some(failure.message().to_owned()),
                (Ok(found), Some(equals)) if found.as_ref() != Some(equals) => Some(format!(
                    "the query gave {}, not {equals:?}",
                    found.map_or("nothing".to_owned(), |found| format!("{found:?}"))
                )),
                (Ok(_), _) => None,
            })
        }
    }
}

/// The value that is there may be secret: only that it differs is told.
fn setting(tools: &Tools, file: &str, key: &str, equals: &str) -> Result<Option<String>, Failure> {
    let path = tools.sandbox.path("file", file)?;
    let Some(content) = Content::read(&path)? else {
        return Ok(Some(format!("{file} is not there")));
    };
    Ok(match settings::get(content.text(&path)?, key) {
        Some(value) if value == equals => None,
        Some(_) => Some(format!("`{key}` in {file} is not what it should be")),
        None => Some(format!("{file} has no `{key}`")),
    })
}

fn key(tools: &Tools, file: &str, field: &str, now: Duration) -> Result<Option<String>, Failure> {
    let path = tools.sandbox.path("file", file)?;
    let Some(content) = Content::read(&path)? else {
        return Ok(Some(format!("{file} is not there")));
    };
    let expires = settings::get(content.text(&path)?, field).map(str::parse::<u64>);
    Ok(match expires {
        Some(Ok(expires)) if expires > now.as_secs() => None,
        Some(Ok(expires)) => Some(format!("the key in {file} expired at {expires}")),
        _ => Some(format!("{file} does not say when its key expires (`{field}`)")),
    })
}
