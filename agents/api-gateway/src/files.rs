//! Reading and writing a project's files, each in one piece and never outside of the project.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use agent_sdk::Failure;

/// The largest file that is edited.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Turns an I/O error into a failure that says what was to be done, and with which file.
pub fn io<'a>(deed: &'a str, path: &'a Path) -> impl FnOnce(std::io::Error) -> Failure + 'a {
    move |error| Failure::retryable(format!("cannot {deed} {}: {error}", path.display())).code("io")
}

/// A project's folder; files are named relative to it, with `/`.
#[derive(Clone, Debug)]
pub struct Folder {
    root: PathBuf,
}

impl Folder {
    /// The folder itself, with all links followed.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The absolute path of a file. A file or folder that is a link is refused: what it leads
    /// to may be somebody else's.
    pub fn path(&self, file: &str) -> Result<PathBuf, Failure> {
        let mut path = self.root.clone();
        for part in file.split('/') {
            path.push(part);
            if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_symlink()) {
                let path = path.display();
                return Err(Failure::permanent(format!("{path} is a link, not a file or folder")));
            }
        }
        Ok(path)
    }

    /// The text of a file; `None` when it is not there.
    pub fn read(&self, file: &str) -> Result<Option<String>, Failure> {
        let path = self.path(file)?;
        let size = match fs::metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io("look at", &path)(error)),
            Ok(metadata) => metadata.len(),
        };
        if size > FILE_BYTES_MAX {
            let path = path.display();
            let message = format!("{path} has {size} bytes; at most {FILE_BYTES_MAX} are edited");
            return Err(Failure::permanent(message));
        }
        let bytes = fs::read(&path).map_err(io("read", &path))?;
        let text = String::from_utf8(bytes);
        text.map(Some).map_err(|_| {
            Failure::permanent(format!("{} is not UTF-8 and cannot be edited", path.display()))
        })
    }

    /// Puts a text into a file, which is there as a whole afterwards, or as it was before.
    pub fn write(&self, file: &str, text: &str) -> Result<(), Failure> {
        let path = self.path(file)?;
        let new = self.path(&format!("{file}.new"))?;
        let folder = path.parent().unwrap_or(&self.root);
        let mut out = File::create(&new).map_err(io("make", &new))?;
        out.write_all(text.as_bytes()).map_err(io("write", &new))?;
        out.sync_all().map_err(io("save", &new))?;
        fs::rename(&new, &path).map_err(io("replace", &path))?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io("save", folder))
    }

    /// Removes a file; nothing there is fine.
    pub fn remove(&self, file: &str) -> Result<(), Failure> {
        let path = self.path(file)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(io("remove", &path)(error)),
            _ => Ok(()),
        }
    }
}
