//! Files and folders: copied as a whole and durably, written in one piece.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use agent_sdk::Failure;
use project_files::durable;

/// How many files and folders a release has at most.
pub const ENTRIES_MAX: usize = 100_000;
/// How many bytes a release has at most.
pub const BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// How deep folders lie at most.
pub const DEPTH_MAX: usize = 64;

/// What of a project is not deployed: its history, and what agents keep about it.
const LEFT_OUT: [&str; 2] = [".git", ".orchestrator"];

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Files, folders and links.
    pub entries: usize,
    /// Bytes of files.
    pub bytes: u64,
}

/// Copies the contents of a folder into a new one and makes them durable. Links stay links as
/// long as they lead to a place within the folder.
pub fn copy_folder(
    from: &Path,
    to: &Path,
    is_cancelled: &dyn Fn() -> bool,
) -> Result<Copied, Failure> {
    let mut copied = Copied::default();
    fs::create_dir(to).map_err(Failure::io("make the folder", to))?;
    let mut open = vec![(PathBuf::new(), 0)];
    while let Some((folder, depth)) = open.pop() {
        if depth > DEPTH_MAX {
            let folder = folder.display();
            return Err(unfit(format!("{folder} lies more than {DEPTH_MAX} folders deep")));
        }
        let source = from.join(&folder);
        for entry in fs::read_dir(&source).map_err(Failure::io("read", &source))? {
            if is_cancelled() {
                return Err(cancelled());
            }
            let name = entry.map_err(Failure::io("read", &source))?.file_name();
            if depth == 0 && LEFT_OUT.iter().any(|left_out| name == *left_out) {
                continue;
            }
            let path = folder.join(&name);
            if copy_entry(from, to, &path, &mut copied)? {
                open.push((path, depth + 1));
            }
        }
        // Its names are all there; what its folders hold is made durable with each of them.
        sync(&to.join(&folder))?;
    }
    Ok(copied)
}

/// The task was cancelled before it switched anything.
pub fn cancelled() -> Failure {
    Failure::cancelled("nothing was switched").no_effect()
}

/// Copies one entry; says whether it is a folder, whose contents are still to come.
fn copy_entry(from: &Path, to: &Path, path: &Path, copied: &mut Copied) -> Result<bool, Failure> {
    let (source, goal) = (from.join(path), to.join(path));
    let metadata = fs::symlink_metadata(&source).map_err(Failure::io("look at", &source))?;
    copied.entries += 1;
    if copied.entries > ENTRIES_MAX {
        return Err(unfit(format!("the project has more than {ENTRIES_MAX} files and folders")));
    }
    if metadata.is_symlink() {
        let leads_to = fs::read_link(&source).map_err(Failure::io("read the link", &source))?;
        if !stays_within(path, &leads_to) {
            let path = path.display();
            let message = format!("{path} is a link that leads out of the project; replace it");
            return Err(unfit(message));
        }
        std::os::unix::fs::symlink(&leads_to, &goal)
            .map_err(Failure::io("make the link", &goal))?;
    } else if metadata.is_dir() {
        fs::create_dir(&goal).map_err(Failure::io("make the folder", &goal))?;
        return Ok(true);
    } else if metadata.is_file() {
        // The file may have grown; what counts is what was copied.
        copied.bytes += fs::copy(&source, &goal).map_err(Failure::io("copy", &source))?;
        if copied.bytes > BYTES_MAX {
            return Err(unfit(format!("the project has more than {BYTES_MAX} bytes")));
        }
        File::open(&goal).and_then(|file| file.sync_all()).map_err(Failure::io("save", &goal))?;
    } else {
        let path = path.display();
        return Err(unfit(format!("{path} is neither a file nor a folder nor a link")));
    }
    Ok(false)
}

/// Whether a link at `path` (relative to the project) leads to a place within the project,
/// judged by its text alone: a copy of it then leads to the same place within the copy.
fn stays_within(path: &Path, leads_to: &Path) -> bool {
    let mut depth = path.components().count().saturating_sub(1);
    for part in leads_to.components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            _ => return false,
        }
    }
    true
}

/// Writes a file so that it is there as a whole, or as it was before.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    durable::replace(path, bytes).map_err(Failure::io("write", path))
}

/// Makes the entries of a folder durable.
pub fn sync(folder: &Path) -> Result<(), Failure> {
    durable::sync_folder(folder).map_err(Failure::io("save", folder))
}

/// Removes a folder with all that is in it; nothing there is fine.
pub fn remove_folder(path: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Failure::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Removes a file; nothing there is fine.
pub fn remove_file(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Failure::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// The project cannot be copied as it is; the target is as it was.
fn unfit(message: String) -> Failure {
    Failure::permanent(message).no_effect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_within_the_project_stay_within_it() {
        for (path, leads_to) in [("a", "b"), ("a/b", "../c"), ("a/b/c", "../../d"), ("a", "./b/..")]
        {
            assert!(stays_within(Path::new(path), Path::new(leads_to)), "{path} -> {leads_to}");
        }
        for (path, leads_to) in [("a", "/etc"), ("a", ".."), ("a/b", "../../c"), ("a", "b/../..")] {
            assert!(!stays_within(Path::new(path), Path::new(leads_to)), "{path} -> {leads_to}");
        }
    }
}
