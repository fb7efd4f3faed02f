//! Rotating a key file: a new random key and a new time of expiry in place of the old ones. The
//! key itself goes into the file and nowhere else but the agent's own record.

use std::time::Duration;

use agent_sdk::{Failure, JsonSchema};
use project_files::Span;
use serde::{Deserialize, Serialize};

use crate::config::{Restored, check_key};
use crate::files::{Content, Replacement, clear_staging, hash};
use crate::limits;
use crate::sandbox::rejected;
use crate::settings;
use crate::tools::Tools;

/// The mode of a key file that was not there.
const KEY_FILE_MODE: u32 = 0o600;
/// How many digits of a key's hash tell it from others.
const FINGERPRINT_DIGITS: usize = 16;

/// What `rotate_key` takes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateKey {
    /// The key file, relative to the sandbox: lines `key = …` and `expires = …` (seconds since
    /// 1970). Made when it is not there.
    pub file: String,
    /// The name of the key in the file; `key` unless given.
    pub key_field: Option<String>,
    /// The name of its time of expiry; `expires` unless given.
    pub expires_field: Option<String>,
    /// How long the new key is good; `90d` unless given.
    pub valid_for: Option<Span>,
    /// How many random bytes it has, 16 to 1024; 32 unless given.
    pub bytes: Option<usize>,
}

/// What `rotate_key` gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rotated {
    /// The key file, relative to the sandbox.
    pub file: String,
    /// The beginning of the new key's SHA-256, to tell it from others.
    pub fingerprint: String,
    /// When it expires, in seconds since 1970.
    pub expires: u64,
}

#[derive(Serialize, Deserialize)]
struct Plan {
    rotated: Rotated,
    replacement: Replacement,
}

/// What is handed in: the time since 1970, and random bytes.
pub struct Means<'a> {
    /// The time since 1970.
    pub now: Duration,
    /// Fills a buffer with random bytes.
    pub random: &'a dyn Fn(&mut [u8]),
}

/// Rotates the key, or finds that it was rotated under this key of the task.
pub fn rotate(
    tools: &Tools,
    key: &str,
    wish: &RotateKey,
    means: &Means<'_>,
) -> Result<Rotated, Failure> {
    let path = tools.sandbox.path("file", &wish.file)?;
    let _alone = tools.alone(&path)?;
    let make = || {
        let (secret, expires) = (new_key(wish, means)?, expiry(wish, means.now)?);
        let [key_field, expires_field] = fields(wish)?;
        clear_staging(&path)?;
        let before = Content::read(&path)?;
        let text = match &before {
            Some(content) => content.text(&path)?,
            None => "",
        };
        let text = settings::set(text, key_field, &secret);
        let bytes = settings::set(&text, expires_field, &expires.to_string()).into_bytes();
        let mode = before.as_ref().map_or(KEY_FILE_MODE, |content| content.mode);
        let fingerprint = hash(secret.as_bytes())[..FINGERPRINT_DIGITS].to_owned();
        let rotated = Rotated { file: wish.file.clone(), fingerprint, expires };
        let replacement = Replacement::new(path.clone(), before, Content { bytes, mode });
        Ok(Plan { rotated, replacement })
    };
    let plan = tools.plans.carry_out(key, make, |plan| plan.replacement.apply())?;
    Ok(plan.rotated)
}

/// Puts the old key back.
pub fn undo(tools: &Tools, key: &str, file: &str, was_done: bool) -> Result<Restored, Failure> {
    let _alone = tools.alone(&tools.sandbox.path("file", file)?)?;
    let restored =
        tools.plans.take_back(key, was_done, |plan: &Plan| plan.replacement.take_back())?;
    Ok(Restored { restored: restored.unwrap_or_default() })
}

fn fields(wish: &RotateKey) -> Result<[&str; 2], Failure> {
    let fields = [
        wish.key_field.as_deref().unwrap_or("key"),
        wish.expires_field.as_deref().unwrap_or("expires"),
    ];
    for field in fields {
        check_key(field)?;
    }
    Ok(fields)
}

fn new_key(wish: &RotateKey, means: &Means<'_>) -> Result<String, Failure> {
    let (min, usual, max) = limits::KEY_BYTES;
    let count = wish.bytes.unwrap_or(usual);
    if !(min..=max).contains(&count) {
        return Err(rejected(format!("`bytes` is {count}; {min} to {max} are allowed")));
    }
    let mut bytes = vec![0; count];
    (means.random)(&mut bytes);
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn expiry(wish: &RotateKey, now: Duration) -> Result<u64, Failure> {
    let valid_for = match &wish.valid_for {
        Some(span) => span.duration().map_err(|error| rejected(format!("`valid_for`: {error}")))?,
        None => limits::KEY_VALID_FOR,
    };
    Ok(now.saturating_add(valid_for).as_secs())
}
