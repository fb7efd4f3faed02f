//! Reading and writing a project's files, each in one piece and never outside of the project.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use agent_sdk::Failure;
use project_files::durable;

/// The largest file that is edited.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;

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
            Err(error) => return Err(Failure::io("look at", &path)(error)),
            Ok(metadata) => metadata.len(),
        };
        if size > FILE_BYTES_MAX {
            let path = path.display();
            let message = format!("{path} has {size} bytes; at most {FILE_BYTES_MAX} are edited");
            return Err(Failure::permanent(message));
        }
        let bytes = fs::read(&path).map_err(Failure::io("read", &path))?;
        let text = String::from_utf8(bytes);
        text.map(Some).map_err(|_| {
            Failure::permanent(format!("{} is not UTF-8 and cannot be edited", path.display()))
        })
    }

    /// Puts a text into a file, which is there as a whole afterwards, or as it was before.
    pub fn write(&self, file: &str, text: &str) -> Result<(), Failure> {
        let path = self.path(file)?;
        // What is written first must be no link either.
        self.path(&format!("{file}.new"))?;
        durable::replace(&path, text.as_bytes()).map_err(Failure::io("write", &path))
    }

    /// Removes what a process left that was killed while it wrote this file.
    pub fn remove_unfinished(&self, file: &str) -> Result<(), Failure> {
        self.remove(&format!("{file}.new"))
    }

    /// Removes a file; nothing there is fine.
    pub fn remove(&self, file: &str) -> Result<(), Failure> {
        let path = self.path(file)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(Failure::io("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }
}
