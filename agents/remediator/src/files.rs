//! A file's contents put in place of others in one step, and back again. It must not decide
//! what is written.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use agent_sdk::Failure;
use project_files::durable;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::limits;
use crate::sandbox::rejected;

/// The code of a failure that finds somebody else's change where its own should be.
pub const CHANGED_CODE: &str = "changed_since";

/// What a file holds, and its mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    #[serde(with = "hex")]
    pub(crate) bytes: Vec<u8>,
    pub(crate) mode: u32,
}

/// One file's contents before and after a change. A file that was not there has none before.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Replacement {
    path: PathBuf,
    before: Option<Content>,
    after: Content,
}

impl Content {
    /// What is in a file; `None` when it is not there.
    pub fn read(path: &Path) -> Result<Option<Self>, Failure> {
        let metadata = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::io("look at", path)(error)),
        };
        if !metadata.is_file() {
            return Err(rejected(format!("{} is no file", path.display())));
        }
        if metadata.len() > limits::FILE_BYTES_MAX {
            let max = limits::FILE_BYTES_MAX;
            return Err(rejected(format!("{} has more than {max} bytes", path.display())));
        }
        let bytes = fs::read(path).map_err(Failure::io("read", path))?;
        Ok(Some(Self { bytes, mode: metadata.permissions().mode() & 0o7777 }))
    }

    /// The contents as text.
    pub fn text(&self, path: &Path) -> Result<&str, Failure> {
        std::str::from_utf8(&self.bytes)
            .map_err(|_| rejected(format!("{} is no text in UTF-8", path.display())))
    }
}

impl Replacement {
    /// What is to be done to this file, as it is now.
    pub fn new(path: PathBuf, before: Option<Content>, after: Content) -> Self {
        Self { path, before, after }
    }

    /// SHA-256 of the contents after it.
    pub fn after_hash(&self) -> String {
        hash(&self.after.bytes)
    }

    /// Puts the new contents in place, unless they are there.
    pub fn apply(&self) -> Result<(), Failure> {
        clear_staging(&self.path)?;
        let now = Content::read(&self.path)?;
        if now.as_ref() == Some(&self.after) {
            return Ok(());
        }
        if now != self.before {
            return Err(changed(&self.path, "nothing was written"));
        }
        put(&self.path, &self.after)
    }

    /// Puts the old contents back, unless they are there; says whether it did.
    pub fn take_back(&self) -> Result<bool, Failure> {
        clear_staging(&self.path)?;
        let now = Content::read(&self.path)?;
        if now == self.before {
            return Ok(false);
        }
        if now.as_ref() != Some(&self.after) {
            return Err(changed(&self.path, "it was not put back"));
        }
        restore(&self.path, self.before.as_ref())?;
        Ok(true)
    }
}

/// Puts contents in place, or removes the file where there were none.
pub fn restore(path: &Path, content: Option<&Content>) -> Result<(), Failure> {
    match content {
        Some(content) => put(path, content),
        None => remove(path),
    }
}

/// Writes a file so that it is there as a whole with its mode, or as it was before.
pub fn put(path: &Path, content: &Content) -> Result<(), Failure> {
    let staging = staging(path);
    let write = || {
        let mut options = OpenOptions::new();
        let mut file: File =
            options.write(true).create(true).truncate(true).mode(0o600).open(&staging)?;
        file.write_all(&content.bytes)?;
        file.set_permissions(fs::Permissions::from_mode(content.mode))?;
        file.sync_all()?;
        fs::rename(&staging, path)?;
        durable::sync_folder(path.parent().unwrap_or(Path::new("/")))
    };
    write().map_err(Failure::io("write", path))
}

/// Removes a file, durably.
pub fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(Failure::io("remove", path)(error));
        }
        _ => {}
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    durable::sync_folder(folder).map_err(Failure::io("sync", folder))
}

/// Removes what a process left that was killed while it wrote.
pub fn clear_staging(path: &Path) -> Result<(), Failure> {
    let staging = staging(path);
    match fs::remove_file(&staging) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Failure::io("remove", &staging)(error))
        }
        _ => Ok(()),
    }
}

/// SHA-256 in hexadecimal digits.
pub fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Somebody else has changed what the task changed, or was to change.
pub fn changed(path: &Path, outcome: &str) -> Failure {
    let message = format!("{} was changed by somebody else; {outcome}", path.display());
    Failure::permanent(message).code(CHANGED_CODE).no_effect()
}

fn staging(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".remediator-new");
    path.with_file_name(name)
}

/// Bytes as hexadecimal digits in JSON.
mod hex {
    use std::fmt::Write as _;

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(bytes.len() * 2);
        for byte in bytes {
            // Writing into a `String` cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        to.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        let wrong = || D::Error::custom("no hexadecimal digits");
        let pair = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
        (0..text.len()).step_by(2).map(|at| pair(at).ok_or_else(wrong)).collect()
    }
}
