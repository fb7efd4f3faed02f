//! The actions `append` and `remove_line`: what a task says, checked, and then done by `lines`
//! on a thread that may block.

mod lines;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use agent_sdk::effect_log::{EffectLog, UNDONE_CODE};
use agent_sdk::{Context, Failure, JsonSchema};
use serde::{Deserialize, Serialize};

use lines::Lines;
pub use lines::Step;

/// How long a line may be, in bytes.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
/// How many effect logs are kept open.
const LOGS_OPEN_MAX: usize = 64;

/// Params of `append`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Append {
    /// The file, by its absolute path. It is made when it is not there; its folder is not.
    pub file: String,
    /// The line, without a line break.
    pub line: String,
}

/// Output of `append`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Appended {
    /// The file.
    pub file: String,
    /// The line.
    pub line: String,
}

/// Output of `remove_line`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Removed {
    /// Whether there was a line to remove; `false` when there was none, or none any more.
    pub removed: bool,
}

/// Appends lines and removes them. It keeps effect logs open, so that each is read once.
#[derive(Debug, Default)]
pub struct Appender {
    logs: Mutex<HashMap<PathBuf, EffectLog>>,
}

impl Appender {
    /// Appends a line once for the task's idempotency key.
    pub async fn append(
        self: std::sync::Arc<Self>,
        context: Context,
        input: Append,
    ) -> Result<Appended, Failure> {
        check_line(&input.line)?;
        let path = place(&input.file)?;
        let key = key(&context)?;
        let line = input.line.clone();
        let appended = context
            .blocking(move || self.lines(&path)?.append(&key, &line))
            .await?
            .map_err(|error| name_file(&input.file, &error))?;
        if !appended {
            return Err(Failure::permanent(
                "the line was removed under this idempotency key: it is not written any more",
            )
            .code(UNDONE_CODE)
            .no_effect());
        }
        Ok(Appended { file: input.file, line: input.line })
    }

    /// Removes the line that was written under the task's idempotency key, and no other.
    pub async fn remove_line(
        self: std::sync::Arc<Self>,
        context: Context,
        params: Append,
    ) -> Result<Removed, Failure> {
        let path = place(&params.file)?;
        let key = key(&context)?;
        let removed = context
            .blocking(move || self.lines(&path)?.remove(&key))
            .await?
            .map_err(|error| name_file(&params.file, &error))?;
        Ok(Removed { removed })
    }

    fn lines(&self, path: &Path) -> io::Result<Lines> {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(log) = logs.get(path) {
            return Ok(Lines::new(path, log.clone()));
        }
        if logs.len() >= LOGS_OPEN_MAX {
            logs.clear();
        }
        let log = EffectLog::open(lines::log_path(path))?;
        logs.insert(path.to_owned(), log.clone());
        Ok(Lines::new(path, log))
    }
}

fn key(context: &Context) -> Result<String, Failure> {
    match context.idempotency_key() {
        "" => Err(rejected("the task has no idempotency key: it could not be done just once")),
        key => Ok(key.to_owned()),
    }
}

fn check_line(line: &str) -> Result<(), Failure> {
    if line.contains(['\n', '\r', '\0']) {
        return Err(rejected("`line` has a line break or a NUL in it: one line is one append"));
    }
    if line.len() > LINE_BYTES_MAX {
        return Err(rejected(&format!(
            "`line` has {} bytes; at most {LINE_BYTES_MAX} are allowed",
            line.len()
        )));
    }
    Ok(())
}

/// The file's one path: two names of a file must lead to the same effect log.
fn place(file: &str) -> Result<PathBuf, Failure> {
    let path = Path::new(file);
    if !path.is_absolute() {
        return Err(rejected(&format!("`file` must be an absolute path; `{file}` is none")));
    }
    let Some(name) = path.file_name() else {
        return Err(rejected(&format!("`file` names no file: `{file}`")));
    };
    let folder = path.parent().unwrap_or(Path::new("/"));
    let folder = folder.canonicalize().map_err(|error| {
        rejected(&format!(
            "`file` is in a folder that cannot be used: {}: {error}",
            folder.display()
        ))
    })?;
    let path = match path.canonicalize() {
        Ok(path) => path,
        Err(_) => folder.join(name),
    };
    if path.is_dir() {
        return Err(rejected(&format!("`file` is a folder: `{file}`")));
    }
    Ok(path)
}

fn rejected(message: &str) -> Failure {
    Failure::rejected(message).code("invalid_input").no_effect()
}

/// A file system that says no may say yes later.
fn name_file(file: &str, error: &io::Error) -> Failure {
    Failure::retryable(format!("{file}: {error}"))
}
