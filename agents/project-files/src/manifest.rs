//! The project's own description, `orchestrator.project.json`. It must not judge whether the
//! command that it names exists.

use std::fs;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use crate::{Error, limits};

/// The manifest's name within the project's folder.
pub const MANIFEST_NAME: &str = "orchestrator.project.json";

/// How a project says what it is and how it is started.
#[derive(Debug, Clone, Deserialize)]
pub struct Manifest {
    /// The project's name.
    pub name: String,
    /// The template that it was made from.
    #[serde(default)]
    pub template: Option<String>,
    /// The command that starts it: the program and its arguments.
    #[serde(default)]
    pub start: Vec<String>,
    /// The environment variable that takes the port; none when it is no server.
    #[serde(default)]
    pub port_env: Option<String>,
    /// The path that answers when the server is ready; none when it is no server.
    #[serde(default)]
    pub health_path: Option<String>,
    /// Its source files, relative to the folder.
    #[serde(default)]
    pub sources: Vec<String>,
}

impl Manifest {
    pub(crate) fn read(root: &Path) -> Result<Option<Self>, Error> {
        let path = root.join(MANIFEST_NAME);
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::Manifest(format!("cannot be read: {error}"))),
        };
        if !metadata.is_file() {
            return Err(Error::Manifest("is not a regular file".to_owned()));
        }
        if metadata.len() > limits::MANIFEST_BYTES_MAX {
            let most = limits::MANIFEST_BYTES_MAX;
            return Err(Error::Manifest(format!("is larger than {most} bytes")));
        }
        let mut text = String::new();
        fs::File::open(&path)
            .and_then(|file| {
                let mut bounded = file.take(limits::MANIFEST_BYTES_MAX);
                bounded.read_to_string(&mut text)
            })
            .map_err(|error| Error::Manifest(format!("cannot be read: {error}")))?;
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| Error::Manifest(format!("does not fit: {error}")))
    }

    /// Whether it starts a server that can be asked over HTTP.
    pub fn is_server(&self) -> bool {
        self.port_env.as_deref().is_some_and(|name| !name.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<Manifest>, Error> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(MANIFEST_NAME), text).unwrap();
        Manifest::read(folder.path())
    }

    #[test]
    fn a_server_names_its_port_variable() {
        let text = r#"{"name":"a","start":["node","x.js"],"port_env":"PORT","health_path":"/h"}"#;
        let manifest = read(text).unwrap().unwrap();
        assert!(manifest.is_server());
        assert_eq!(manifest.start, ["node", "x.js"]);
        let plain = read(r#"{"name":"a","port_env":null}"#).unwrap().unwrap();
        assert!(!plain.is_server());
    }

    #[test]
    fn a_wrong_manifest_is_an_error_that_says_what_is_wrong() {
        let error = read(r#"{"name":7}"#).unwrap_err().to_string();
        assert!(error.contains(MANIFEST_NAME), "{error}");
        assert!(error.contains("line 1"), "{error}");
        let size = usize::try_from(limits::MANIFEST_BYTES_MAX).unwrap() + 1;
        let error = read(&" ".repeat(size)).unwrap_err().to_string();
        assert!(error.contains("larger"), "{error}");
    }

    #[test]
    fn no_manifest_is_none() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Manifest::read(folder.path()).unwrap().is_none());
    }
}
