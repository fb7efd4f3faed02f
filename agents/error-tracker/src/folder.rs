//! Where the error log lies. It must not make anything.

use std::ffi::OsString;
use std::path::PathBuf;

/// The folder of the log, by the environment: `ORCHESTRATOR_DATA_DIR`, else the user's folder
/// for states, else the system's folder for temporary files.
pub fn from_env() -> PathBuf {
    choose(|name| std::env::var_os(name))
}

fn choose(variable: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    // A relative one would mean another place for each process.
    let folder = |name: &str| {
        let path = PathBuf::from(variable(name)?);
        path.is_absolute().then_some(path)
    };
    if let Some(data) = folder("ORCHESTRATOR_DATA_DIR") {
        return data.join("error-tracker");
    }
    folder("XDG_STATE_HOME")
        .or_else(|| Some(folder("HOME")?.join(".local/state")))
        .unwrap_or_else(std::env::temp_dir)
        .join("master-orchestrator/error-tracker")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_absolute_folder_counts() {
        let check = |variables: &[(&str, &str)], expect: &str| {
            let folder = choose(|name| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| OsString::from(value))
            });
            assert_eq!(folder, PathBuf::from(expect));
        };
        let home = ("HOME", "/home/a");
        check(&[("ORCHESTRATOR_DATA_DIR", "/data"), home], "/data/error-tracker");
        let state = "/home/a/.local/state/master-orchestrator/error-tracker";
        check(&[("ORCHESTRATOR_DATA_DIR", "data"), home], state);
        check(&[("XDG_STATE_HOME", "/s"), home], "/s/master-orchestrator/error-tracker");
    }
}
