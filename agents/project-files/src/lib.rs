//! What the agents that work on projects share: a project's folder, its manifest and its files,
//! read within bounds; the workspace; files written durably; the spans of time in inputs.
//! Reading must never follow a symbolic link out of the folder, never go without a bound, and
//! never write.

pub mod durable;
mod manifest;
mod span;
mod walk;
pub mod workspace;

pub use manifest::{MANIFEST_NAME, Manifest};
pub use span::Span;
pub use walk::{Coverage, File, Text, Walk};

use std::path::{Path, PathBuf};

/// The bounds of reading.
pub mod limits {
    /// The largest file that is read, in bytes.
    pub const FILE_BYTES_MAX: u64 = 1024 * 1024;
    /// How many files are read.
    pub const FILE_COUNT_MAX: u64 = 20_000;
    /// How many bytes are read of all files together.
    pub const TOTAL_BYTES_MAX: u64 = 256 * 1024 * 1024;
    /// How many names are looked at, files and folders together.
    pub const ENTRY_COUNT_MAX: usize = 200_000;
    /// How deep folders may be nested.
    pub const DEPTH_MAX: usize = 64;
    /// The largest manifest, in bytes.
    pub const MANIFEST_BYTES_MAX: u64 = 64 * 1024;
    /// How much of a file is looked at to tell text from binary data.
    pub const SNIFF_BYTES: usize = 8 * 1024;
}

/// Why a project cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path depends on where the agent was started.
    #[error("project_dir: `{0}` is not an absolute path")]
    NotAbsolute(String),
    /// Nothing is there.
    #[error("project_dir: `{path}` cannot be opened: {reason}")]
    NotFound {
        /// The path as given.
        path: String,
        /// What the system said.
        reason: std::io::Error,
    },
    /// Something else is there.
    #[error("project_dir: `{0}` is not a folder")]
    NotFolder(String),
    /// The manifest is not what it should be.
    #[error("project_dir: `{MANIFEST_NAME}` {0}")]
    Manifest(String),
}

/// A project's folder.
#[derive(Debug, Clone)]
pub struct Project {
    given: String,
    root: PathBuf,
}

impl Project {
    /// Opens the folder at an absolute path.
    pub fn open(project_dir: &str) -> Result<Self, Error> {
        let path = Path::new(project_dir);
        if !path.is_absolute() {
            return Err(Error::NotAbsolute(project_dir.to_owned()));
        }
        let not_found = |reason| Error::NotFound { path: project_dir.to_owned(), reason };
        // Resolved once, so that a release's `current` link switching underway changes nothing.
        let root = path.canonicalize().map_err(not_found)?;
        if !root.is_dir() {
            return Err(Error::NotFolder(project_dir.to_owned()));
        }
        Ok(Self { given: project_dir.to_owned(), root })
    }

    /// The path as it was given, to be handed on to later steps.
    pub fn given(&self) -> &str {
        &self.given
    }

    /// The folder, with all links resolved.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The manifest, if the project has one.
    pub fn manifest(&self) -> Result<Option<Manifest>, Error> {
        Manifest::read(&self.root)
    }

    /// Its files in the order of their paths, without folders of the names to skip.
    pub fn walk<'a>(&self, skip_folders: &'a [&'a str]) -> Walk<'a> {
        Walk::new(self.root.clone(), skip_folders)
    }
}
