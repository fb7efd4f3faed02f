//! Editing a configuration file, and putting back the bytes and the mode that it had.

use std::collections::BTreeMap;

use agent_sdk::{Failure, JsonSchema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::files::{Content, Replacement, clear_staging};
use crate::limits;
use crate::sandbox::rejected;
use crate::settings;
use crate::tools::Tools;

/// The mode of a file that was not there.
const NEW_FILE_MODE: u32 = 0o644;

/// What `edit_config` takes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EditConfig {
    /// The file, relative to the sandbox; made when it is not there.
    pub file: String,
    /// Settings of the form `key = value` or `key: value`, and their new values: text, numbers
    /// or truth values. One that is not there is added at the end.
    #[serde(default)]
    pub set: BTreeMap<String, Value>,
    /// Settings to take out.
    #[serde(default)]
    pub unset: Vec<String>,
    /// The whole new text, in place of `set` and `unset`.
    pub content: Option<String>,
}

/// What `edit_config` gives. Values are left out: they may be secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Edited {
    /// The file, relative to the sandbox.
    pub file: String,
    /// The settings that were to change.
    pub changed: Vec<String>,
    /// SHA-256 of the file as it is now.
    pub sha256: String,
}

/// What the undo of a change to a file gives.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Restored {
    /// Whether this call put something back.
    pub restored: bool,
}

#[derive(Serialize, Deserialize)]
struct Plan {
    file: String,
    changed: Vec<String>,
    replacement: Replacement,
}

/// Edits the file, or finds that it was edited under this key.
pub fn edit(tools: &Tools, key: &str, wish: &EditConfig) -> Result<Edited, Failure> {
    let path = tools.sandbox.path("file", &wish.file)?;
    let _alone = tools.alone(&path)?;
    let make = || {
        clear_staging(&path)?;
        let before = Content::read(&path)?;
        let text = match &before {
            Some(content) => content.text(&path)?,
            None => "",
        };
        let bytes = new_text(wish, text)?.into_bytes();
        let mode = before.as_ref().map_or(NEW_FILE_MODE, |content| content.mode);
        let changed = wish.set.keys().chain(&wish.unset).cloned().collect();
        let replacement = Replacement::new(path.clone(), before, Content { bytes, mode });
        Ok(Plan { file: wish.file.clone(), changed, replacement })
    };
    let plan = tools.plans.carry_out(key, make, |plan| plan.replacement.apply())?;
    let sha256 = plan.replacement.after_hash();
    Ok(Edited { file: plan.file, changed: plan.changed, sha256 })
}

/// Puts back what was there before the edit under this key.
pub fn undo(tools: &Tools, key: &str, file: &str, was_done: bool) -> Result<Restored, Failure> {
    let _alone = tools.alone(&tools.sandbox.path("file", file)?)?;
    let restored =
        tools.plans.take_back(key, was_done, |plan: &Plan| plan.replacement.take_back())?;
    Ok(Restored { restored: restored.unwrap_or_default() })
}

fn new_text(wish: &EditConfig, old: &str) -> Result<String, Failure> {
    let count = wish.set.len() + wish.unset.len();
    if let Some(content) = &wish.content {
        if count > 0 {
            return Err(rejected("`content` is the whole text; leave out `set` and `unset`"));
        }
        return Ok(content.clone());
    }
    if count == 0 || count > limits::SETTINGS_MAX {
        let max = limits::SETTINGS_MAX;
        return Err(rejected(format!("give 1 to {max} settings in `set` and `unset`")));
    }
    let mut text = old.to_owned();
    for (key, value) in &wish.set {
        check_key(key)?;
        text = settings::set(&text, key, &shown(key, value)?);
    }
    for key in &wish.unset {
        check_key(key)?;
        text = settings::unset(&text, key);
    }
    Ok(text)
}

/// Refuses what would not be read as the key of a setting.
pub fn check_key(key: &str) -> Result<(), Failure> {
    let is_fit = |letter: char| letter.is_ascii_alphanumeric() || "_-.".contains(letter);
    if !key.is_empty() && key.chars().all(is_fit) {
        return Ok(());
    }
    Err(rejected(format!(
        "{key:?} is no key of a setting: letters, digits, `_`, `-`, `.` make one"
    )))
}

fn shown(key: &str, value: &Value) -> Result<String, Failure> {
    match value {
        Value::String(text) if !text.contains(['\n', '\r', '\0']) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(truth) => Ok(truth.to_string()),
        _ => {
            Err(rejected(format!("`set.{key}` must be text on one line, a number, true or false")))
        }
    }
}
