//! The sandbox: the one folder that the agent changes. Paths of tasks are relative to it, and
//! neither `..` nor a symbolic link leads out. Nothing here changes anything.

use std::fs;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use agent_sdk::Failure;

/// The environment variable that names the sandbox.
pub const VARIABLE: &str = "REMEDIATOR_SANDBOX";

/// The folder in the sandbox that keeps what was taken out of others.
pub const QUARANTINE: &str = ".quarantine";

/// The folder that the agent may change.
#[derive(Clone, Debug)]
pub struct Sandbox {
    root: PathBuf,
}

impl Sandbox {
    /// The sandbox in this folder.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder itself, with all links followed.
    pub fn root(&self) -> Result<PathBuf, Failure> {
        if !self.root.is_absolute() {
            let message = format!("{VARIABLE} must be an absolute path");
            return Err(Failure::permanent(message).no_effect());
        }
        self.root.canonicalize().map_err(|error| {
            let root = self.root.display();
            let message = format!(
                "the sandbox {root} cannot be used: {error}; set {VARIABLE} to the folder that \
                 the remediator may change"
            );
            Failure::permanent(message).no_effect()
        })
    }

    /// The path of a param; what it names need not be there, its folder must.
    pub fn path(&self, field: &str, given: &str) -> Result<PathBuf, Failure> {
        let mut path = self.root()?;
        let mut parts = Path::new(given).components().peekable();
        if parts.peek().is_none() {
            return Err(rejected(format!("`{field}` is empty; give a path in the sandbox")));
        }
        let mut is_first = true;
        while let Some(part) = parts.next() {
            let Component::Normal(name) = part else {
                let message = format!(
                    "`{field}` is {given:?}; give a path relative to the sandbox, without `..`"
                );
                return Err(rejected(message));
            };
            if is_first && name == QUARANTINE {
                let message = format!("`{field}` leads into {QUARANTINE}, which is the agent's");
                return Err(rejected(message));
            }
            is_first = false;
            path.push(name);
            let is_last = parts.peek().is_none();
            check(field, given, &path, is_last)?;
        }
        Ok(path)
    }

    /// The path of a param that names a folder that is there.
    pub fn folder(&self, field: &str, given: &str) -> Result<PathBuf, Failure> {
        let path = self.path(field, given)?;
        if path.is_dir() {
            return Ok(path);
        }
        Err(rejected(format!("`{field}` is {given:?}, which is no folder in the sandbox")))
    }
}

fn check(field: &str, given: &str, path: &Path, is_last: bool) -> Result<(), Failure> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_symlink() => {
            let message = format!(
                "`{field}` is {given:?}, which goes by a symbolic link; name the place itself"
            );
            Err(rejected(message))
        }
        Ok(metadata) if !is_last && !metadata.is_dir() => {
            Err(rejected(format!("`{field}` is {given:?}, which goes through a file")))
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound && is_last => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(rejected(format!("`{field}` is {given:?}, whose folder is not there")))
        }
        Err(error) => Err(Failure::io("look at", path)(error).no_effect()),
    }
}

/// The task asks for something that will not be done; nothing was changed.
pub fn rejected(message: impl Into<String>) -> Failure {
    Failure::rejected(message).code("invalid_input").no_effect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leads_out_of_the_sandbox() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("sandbox");
        fs::create_dir_all(root.join("a")).unwrap();
        fs::write(root.join("a/file"), "").unwrap();
        std::os::unix::fs::symlink(folder.path(), root.join("a/out")).unwrap();
        std::os::unix::fs::symlink("file", root.join("a/link")).unwrap();
        let sandbox = Sandbox::at(&root);
        let wrong = [
            "",
            "..",
            "/etc/passwd",
            "a/../../x",
            "a/out/x",
            "a/out",
            "a/link",
            "b/x",
            "a/file/x",
            ".quarantine/x",
            "./a",
        ];
        for given in wrong {
            let failure = sandbox.path("file", given).unwrap_err();
            assert!(failure.message().contains("`file`") && failure.had_no_effect(), "{given}");
        }
        let root = root.canonicalize().unwrap();
        assert_eq!(sandbox.path("file", "a/file").unwrap(), root.join("a/file"));
        assert_eq!(sandbox.path("file", "a/new").unwrap(), root.join("a/new"));
        assert!(sandbox.folder("folder", "a/file").is_err());
    }

    #[test]
    fn a_sandbox_that_is_not_there_is_named() {
        for wrong in ["relative", "/nowhere/at/all"] {
            let failure = Sandbox::at(wrong).path("file", "a").unwrap_err();
            assert!(failure.message().contains(VARIABLE), "{failure}");
        }
    }
}
