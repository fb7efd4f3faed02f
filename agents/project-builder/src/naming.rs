//! Which names and folders a task may ask for. Names become folders, packages and programs, so
//! they are checked before anything touches the disk.

use std::path::{Component, Path, PathBuf};

use crate::error::Error;

/// The longest project name.
pub const NAME_BYTES_MAX: usize = 64;

/// Folder names within `target/` that cargo does not let a program have, and crate names that
/// the compiler has itself.
const CARGO_NAMES: [&str; 9] =
    ["alloc", "build", "core", "deps", "examples", "incremental", "proc_macro", "std", "test"];

/// Refuses names that are not `[a-z][a-z0-9_-]*`: such a name is a folder within its parent,
/// a package for npm, pip and cargo, and nothing else.
pub fn check_name(name: &str) -> Result<(), Error> {
    let is_fit = name.len() <= NAME_BYTES_MAX
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'));
    if is_fit {
        return Ok(());
    }
    Err(Error::Rejected(format!(
        "`name` is {name:?}; it must begin with a small letter and have only small letters, \
         digits, `-` and `_`, at most {NAME_BYTES_MAX} in all"
    )))
}

/// Refuses names that cargo does not build.
pub fn check_cargo_name(name: &str) -> Result<(), Error> {
    if CARGO_NAMES.contains(&name) {
        return Err(Error::Rejected(format!("`name` is {name:?}, which cargo keeps for itself")));
    }
    Ok(())
}

/// Refuses folders that depend on where the agent runs, or that lead back up.
pub fn check_directory(directory: &str) -> Result<PathBuf, Error> {
    let path = Path::new(directory);
    let is_plain = path.components().all(|part| !matches!(part, Component::ParentDir));
    if path.is_absolute() && is_plain && !directory.contains('\0') {
        return Ok(path.to_owned());
    }
    Err(Error::Rejected(format!(
        "`directory` is {directory:?}; it must be an absolute path without `..`"
    )))
}

/// A folder name for a run's id, which is text of any kind.
pub fn folder_of_run(run: &str) -> String {
    let plain: String = run
        .chars()
        .filter(|sign| sign.is_ascii_alphanumeric() || matches!(sign, '-' | '_'))
        .take(NAME_BYTES_MAX)
        .collect();
    if plain.is_empty() { "run".to_owned() } else { plain }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_names_pass() {
        for name in ["a", "my-project", "a1_b2"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn names_that_could_leave_their_folder_are_refused() {
        let long = "a".repeat(NAME_BYTES_MAX + 1);
        for name in ["", "..", ".", "a/b", "a\\b", "../x", "/x", "A", "1a", "-a", "a\0", &long] {
            let error = check_name(name).expect_err(name).to_string();
            assert!(error.contains("`name`"), "{error}");
        }
    }

    #[test]
    fn folders_must_be_absolute_and_plain() {
        assert!(check_directory("/a/b").is_ok());
        for directory in ["", "a", "./a", "/a/../b", "/a\0"] {
            let error = check_directory(directory).expect_err(directory).to_string();
            assert!(error.contains("`directory`"), "{error}");
        }
    }

    #[test]
    fn names_that_cargo_keeps_are_refused() {
        assert!(check_cargo_name("deps").is_err());
        assert!(check_cargo_name("tool").is_ok());
    }

    #[test]
    fn a_run_id_becomes_one_folder() {
        assert_eq!(folder_of_run("../0198-ab"), "0198-ab");
        assert_eq!(folder_of_run("../.."), "run");
    }
}
