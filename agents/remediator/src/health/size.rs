//! How much a folder holds. Links are not followed.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use agent_sdk::Failure;

use crate::limits;
use crate::sandbox::rejected;

/// The bytes of all files below a folder together.
pub(super) fn of_folder(folder: &Path) -> Result<u64, Failure> {
    let mut open = vec![(folder.to_owned(), 0)];
    let (mut bytes, mut names) = (0_u64, 0_u64);
    while let Some((path, depth)) = open.pop() {
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            // Removed meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(Failure::io("read the folder", &path)(error).no_effect()),
        };
        for entry in entries.flatten() {
            names += 1;
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() && depth < limits::DEPTH_MAX {
                open.push((entry.path(), depth + 1));
            } else if metadata.is_file() {
                bytes = bytes.saturating_add(metadata.len());
            }
        }
        if names > limits::WALK_NAMES_MAX {
            let max = limits::WALK_NAMES_MAX;
            return Err(rejected(format!("`folder` has more than {max} names below it")));
        }
    }
    Ok(bytes)
}
