//! The folder of the embedded store, held by one process at a time. What is in it is its owner's
//! alone: results of tasks may be secrets.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The lock's file within the folder.
const LOCK_FILE: &str = "orchestrator.lock";
/// The database's file within the folder.
const DATABASE_FILE: &str = "orchestrator.db";
/// The mode of a folder that is made.
const PRIVATE_DIR: u32 = 0o700;
/// The mode of the files in it.
const PRIVATE_FILE: u32 = 0o600;
/// How much of the lock's file is read to tell who holds it.
const HOLDER_BYTES_MAX: u64 = 256;

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process uses it.
    #[error(
        "the data directory {path} is in use by {holder}; stop that process or give another \
         directory with --data-dir"
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who uses it.
        holder: String,
    },
    /// It cannot be made or written to.
    #[error("the data directory {path} cannot be used: {source}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

/// A data directory that this process holds. Dropping it lets it go.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// The lock lasts as long as the file is open.
    _lock: File,
}

impl DataDir {
    /// Makes the directory if it is not there, and holds it. One that is there keeps its mode; the
    /// files of the store in it are made private.
    ///
    /// # Errors
    /// [`Error::InUse`] when another process holds it, naming that process.
    pub fn hold(path: &Path) -> Result<Self, Error> {
        let io = |source| Error::Io { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(PRIVATE_DIR).create(path).map_err(io)?;
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(PRIVATE_FILE)
            .open(path.join(LOCK_FILE))
            .map_err(io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let read = lock.take(HOLDER_BYTES_MAX).read_to_string(&mut holder);
                let holder = match read {
                    Ok(count) if count > 0 => holder.trim().to_owned(),
                    _ => "another process".to_owned(),
                };
                return Err(Error::InUse { path: path.to_owned(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        let name = std::env::current_exe()
            .ok()
            .and_then(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()))
            .unwrap_or_else(|| "orchestrator".to_owned());
        lock.set_len(0).map_err(io)?;
        lock.seek(SeekFrom::Start(0)).map_err(io)?;
        write!(lock, "{name} (pid {})", std::process::id()).map_err(io)?;
        make_private(path).map_err(io)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The address of the embedded store in it.
    #[must_use]
    pub fn database_url(&self) -> String {
        database_url(&self.path)
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// An older release made its files as the process's mask has it.
fn make_private(folder: &Path) -> std::io::Result<()> {
    let database = ["", "-wal", "-shm"].map(|ending| format!("{DATABASE_FILE}{ending}"));
    for name in database.iter().map(String::as_str).chain([LOCK_FILE]) {
        match std::fs::set_permissions(folder.join(name), Permissions::from_mode(PRIVATE_FILE)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The address of the embedded store in a folder, whoever holds it.
#[must_use]
pub fn database_url(folder: &Path) -> String {
    format!("sqlite:{}", folder.join(DATABASE_FILE).display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_by_name_and_pid() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/data");
        let first = DataDir::hold(&path).unwrap();
        let refused = DataDir::hold(&path).unwrap_err().to_string();
        assert!(refused.contains(&format!("pid {}", std::process::id())), "{refused}");
        drop(first);
        DataDir::hold(&path).unwrap();
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_it_holds_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        drop(DataDir::hold(&path).unwrap());
        assert_eq!((mode(&path), mode(&path.join(LOCK_FILE))), (0o700, 0o600));
        // As another release, or a person, left it.
        let database = path.join(DATABASE_FILE);
        std::fs::write(&database, b"").unwrap();
        std::fs::set_permissions(&database, Permissions::from_mode(0o644)).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        drop(DataDir::hold(&path).unwrap());
        assert_eq!((mode(&path), mode(&database)), (0o755, 0o600));
    }
}
