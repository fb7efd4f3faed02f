//! Finds what a project depends on in its manifests and lock files. It must not judge
//! versions.

use std::collections::HashSet;

use serde_json::Value;

use crate::advisory::Ecosystem;
use crate::finding::line_at;
use crate::version::{self, Wanted};

/// One dependency.
#[derive(Debug, PartialEq, Eq)]
pub struct Dependency {
    /// Where the package comes from.
    pub ecosystem: Ecosystem,
    /// Its name.
    pub package: String,
    /// Which versions.
    pub wanted: Wanted,
    /// The line that says so.
    pub line: u32,
}

/// A file that lists dependencies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `package.json`.
    PackageJson,
    /// `package-lock.json` or `npm-shrinkwrap.json`.
    PackageLock,
    /// `requirements.txt` and its like.
    Requirements,
    /// `pyproject.toml`.
    Pyproject,
    /// `Cargo.toml`.
    CargoToml,
    /// `Cargo.lock`.
    CargoLock,
}

impl Kind {
    /// The kind of a file, by its name.
    pub fn of(path: &str) -> Option<Self> {
        let name = path.rsplit('/').next().unwrap_or(path);
        match name {
            "package.json" => Some(Self::PackageJson),
            "package-lock.json" | "npm-shrinkwrap.json" => Some(Self::PackageLock),
            "pyproject.toml" => Some(Self::Pyproject),
            "Cargo.toml" => Some(Self::CargoToml),
            "Cargo.lock" => Some(Self::CargoLock),
            _ if name.starts_with("requirements") && name.ends_with(".txt") => {
                Some(Self::Requirements)
            }
            _ => None,
        }
    }

    /// Whether it says exactly what is installed.
    pub fn is_lock(self) -> bool {
        matches!(self, Self::PackageLock | Self::CargoLock)
    }

    /// The lock files beside which, or below which, this file's ranges say nothing more.
    pub fn locks(self) -> &'static [&'static str] {
        match self {
            Self::PackageJson => &["package-lock.json", "npm-shrinkwrap.json"],
            Self::CargoToml => &["Cargo.lock"],
            _ => &[],
        }
    }
}

/// The dependencies that a file lists; the error says what is wrong with the file.
pub fn read(kind: Kind, text: &str) -> Result<Vec<Dependency>, String> {
    match kind {
        Kind::PackageJson => package_json(&json(text)?, text),
        Kind::PackageLock => package_lock(&json(text)?, text),
        Kind::Requirements => Ok(requirements(text)),
        Kind::Pyproject => Ok(pyproject(&toml(text)?, text)),
        Kind::CargoToml => Ok(cargo_toml(&toml(text)?, text)),
        Kind::CargoLock => Ok(cargo_lock(&toml(text)?, text)),
    }
}

fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn toml(text: &str) -> Result<toml::Table, String> {
    text.parse::<toml::Table>().map_err(|error| error.message().to_owned())
}

fn line_of(text: &str, needle: &str) -> u32 {
    text.find(needle).map_or(1, |offset| line_at(text, offset))
}

fn package_json(document: &Value, text: &str) -> Result<Vec<Dependency>, String> {
    if !document.is_object() {
        return Err("the top is not an object".to_owned());
    }
    let groups = ["dependencies", "devDependencies", "optionalDependencies", "peerDependencies"];
    let entries = groups.into_iter().filter_map(|group| document.get(group)?.as_object()).flatten();
    let read = |(name, range): (&String, &Value)| {
        let range = range.as_str()?;
        let line = line_of(text, &format!("\"{name}\""));
        let (package, range) = match range.strip_prefix("npm:").map(|alias| alias.rsplit_once('@'))
        {
            Some(Some((package, range))) => (package, range),
            _ => (name.as_str(), range),
        };
        Some(Dependency {
            ecosystem: Ecosystem::Npm,
            package: package.to_owned(),
            wanted: version::npm(range)?,
            line,
        })
    };
    Ok(entries.filter_map(read).collect())
}

fn package_lock(document: &Value, text: &str) -> Result<Vec<Dependency>, String> {
    let mut found = Vec::new();
    let mut add = |name: &str, entry: &Value, needle: &str| {
        let version = entry.get("version").and_then(Value::as_str);
        if let Some(version) = version.and_then(version::version) {
            found.push(Dependency {
                ecosystem: Ecosystem::Npm,
                package: name.to_owned(),
                wanted: Wanted::Exactly(version),
                line: line_of(text, needle),
            });
        }
    };
    if let Some(packages) = document.get("packages").and_then(Value::as_object) {
        for (path, entry) in packages {
            let Some((_, folder)) = path.rsplit_once("node_modules/") else {
                continue;
            };
            // An alias says which package it really is.
            let name = entry.get("name").and_then(Value::as_str).unwrap_or(folder);
            add(name, entry, &format!("\"{path}\""));
        }
        return Ok(found);
    }
    let Some(dependencies) = document.get("dependencies").and_then(Value::as_object) else {
        return match document.is_object() {
            true => Ok(found),
            false => Err("the top is not an object".to_owned()),
        };
    };
    // The first form nests; the JSON reader bounds how deep.
    let mut pending = vec![dependencies];
    while let Some(dependencies) = pending.pop() {
        for (name, entry) in dependencies {
            add(name, entry, &format!("\"{name}\""));
            pending.extend(entry.get("dependencies").and_then(Value::as_object));
        }
    }
    Ok(found)
}

fn requirements(text: &str) -> Vec<Dependency> {
    let lines = text.lines().zip(1u32..);
    lines.filter_map(|(line, number)| requirement(line, number)).collect()
}

/// One requirement as pip writes it: `name[extra]>=1.2,<2; marker  # remark`.
fn requirement(line: &str, number: u32) -> Option<Dependency> {
    let line = line.split(" #").next()?.split(';').next()?.trim();
    let line = line.split(" --").next()?.trim_end_matches('\\').trim();
    if line.is_empty() || line.starts_with(['#', '-']) || line.contains('@') {
        return None;
    }
    let end = line.find(['[', '=', '<', '>', '~', '!', ' ', '('])?;
    let (name, rest) = line.split_at(end);
    let rest = match rest.strip_prefix('[') {
        Some(extras) => extras.split_once(']')?.1,
        None => rest,
    };
    Some(Dependency {
        ecosystem: Ecosystem::Pypi,
        package: name.to_owned(),
        wanted: version::python(rest.trim().trim_matches(['(', ')']))?,
        line: number,
    })
}

fn pyproject(document: &toml::Table, text: &str) -> Vec<Dependency> {
    let Some(project) = document.get("project").and_then(toml::Value::as_table) else {
        return Vec::new();
    };
    let main = project.get("dependencies").and_then(toml::Value::as_array);
    let optional = project.get("optional-dependencies").and_then(toml::Value::as_table);
    let groups =
        optional.into_iter().flat_map(|groups| groups.values().filter_map(toml::Value::as_array));
    main.into_iter()
        .chain(groups)
        .flatten()
        .filter_map(toml::Value::as_str)
        .filter_map(|entry| requirement(entry, line_of(text, entry)))
        .collect()
}

fn cargo_toml(document: &toml::Table, text: &str) -> Vec<Dependency> {
    let groups = ["dependencies", "dev-dependencies", "build-dependencies"];
    let mut tables = vec![document];
    tables.extend(document.get("workspace").and_then(toml::Value::as_table));
    if let Some(targets) = document.get("target").and_then(toml::Value::as_table) {
        tables.extend(targets.values().filter_map(toml::Value::as_table));
    }
    let entries = tables.into_iter().flat_map(|table| {
        groups.iter().filter_map(|group| table.get(*group)?.as_table()).flatten()
    });
    let read = |(name, entry): (&String, &toml::Value)| {
        let field = |field| entry.get(field).and_then(toml::Value::as_str);
        let range = entry.as_str().or_else(|| field("version"))?;
        Some(Dependency {
            ecosystem: Ecosystem::Crates,
            package: field("package").unwrap_or(name).to_owned(),
            wanted: version::cargo(range)?,
            line: line_of_key(text, name),
        })
    };
    entries.filter_map(read).collect()
}

fn line_of_key(text: &str, key: &str) -> u32 {
    let is_key = |line: &str| {
        let line = line.trim_start().trim_start_matches('"');
        let rest = line.strip_prefix(key);
        rest.is_some_and(|rest| rest.starts_with([' ', '=', '.', '"']))
            || line.trim_end().ends_with(&format!(".{key}]"))
    };
    let found = text.lines().zip(1u32..).find(|(line, _)| is_key(line));
    found.map_or(1, |(_, number)| number)
}

fn cargo_lock(document: &toml::Table, text: &str) -> Vec<Dependency> {
    let packages = document.get("package").and_then(toml::Value::as_array);
    let read = |entry: &toml::Value| {
        let name = entry.get("name")?.as_str()?;
        let version = entry.get("version")?.as_str()?;
        // What has no source is the project's own.
        let source = entry.get("source")?.as_str()?;
        source.starts_with("registry+").then_some(())?;
        let needle = format!("name = \"{name}\"\nversion = \"{version}\"");
        Some(Dependency {
            ecosystem: Ecosystem::Crates,
            package: name.to_owned(),
            wanted: Wanted::Exactly(version::version(version)?),
            line: line_of(text, &needle),
        })
    };
    packages.into_iter().flatten().filter_map(read).collect()
}

/// Whether a lock file of the right name stands in the file's folder or one above it.
pub fn is_locked(path: &str, kind: Kind, files: &HashSet<String>) -> bool {
    let mut folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    loop {
        let beside = |name: &&str| {
            let place =
                if folder.is_empty() { (*name).to_owned() } else { format!("{folder}/{name}") };
            files.contains(&place)
        };
        if kind.locks().iter().any(beside) {
            return true;
        }
        match folder.rsplit_once('/') {
            Some((above, _)) => folder = above,
            None if folder.is_empty() => return false,
            None => folder = "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, text: &str, expect: &[(&str, &str, u32)]) {
        let kind = Kind::of(path).unwrap();
        let found = read(kind, text).unwrap();
        let shown: Vec<(&str, String, u32)> = found
            .iter()
            .map(|one| {
                let wanted = match &one.wanted {
                    Wanted::Exactly(version) => format!("{version}"),
                    Wanted::Range(range) => format!("in {range}"),
                };
                (one.package.as_str(), wanted, one.line)
            })
            .collect();
        let expect: Vec<_> = expect
            .iter()
            .map(|(name, wanted, line)| (*name, (*wanted).to_owned(), *line))
            .collect();
        assert_eq!(shown, expect);
    }

    #[test]
    fn npm_files() {
        let manifest = "{\n \"dependencies\": {\n  \"lodash\": \"4.17.20\",\n  \
                        \"x\": \"npm:ws@^8.0.0\",\n  \
                        \"y\": \"file:../y\"\n },\n \"devDependencies\": {\"@a/b\": \"~1.2.3\"}\n}";
        let expect = [("lodash", "4.17.20", 3), ("ws", "in ^8.0.0", 4), ("@a/b", "in ~1.2.3", 7)];
        check("package.json", manifest, &expect);
        let lock = "{\"packages\": {\"\": {\"version\": \"1.0.0\"},\n\
                    \"node_modules/a/node_modules/@b/c\": \
                    {\"version\": \"1.2.3\"}}}";
        check("x/package-lock.json", lock, &[("@b/c", "1.2.3", 2)]);
        let old = "{\"dependencies\": {\"a\": {\"version\": \"1.0.0\", \"dependencies\": \
                   {\"b\": {\"version\": \"2.0.0\"}}}}}";
        check("package-lock.json", old, &[("a", "1.0.0", 1), ("b", "2.0.0", 1)]);
    }

    #[test]
    fn python_files() {
        let text = "# remark\n-r other.txt\nPyYAML==5.3  # old\n\
                    requests[socks]>=2.0,<3; python_version > '3'\n\
                    unbound\nx @ https://e.org/x.whl\nflask (>=1.0)\n";
        let expect = [
            ("PyYAML", "5.3.0", 3),
            ("requests", "in >=2.0.0, <3.0.0", 4),
            ("flask", "in >=1.0.0", 7),
        ];
        check("requirements-dev.txt", text, &expect);
        let project = "[project]\nname = 'a'\ndependencies = [\n  'pyyaml==5.3',\n]\n";
        check("pyproject.toml", project, &[("pyyaml", "5.3.0", 4)]);
    }

    #[test]
    fn cargo_files() {
        let text = "[dependencies]\ntime = '0.1'\n\
                    old = { package = 'hyper', version = '=0.14.1' }\n\
                    mine = { path = '../mine' }\n[target.'cfg(unix)'.dependencies]\nregex = '1'\n";
        let expect = [("hyper", "0.14.1", 3), ("time", "in ^0.1", 2), ("regex", "in ^1", 6)];
        check("Cargo.toml", text, &expect);
        let lock = "[[package]]\nname = \"mine\"\nversion = \"0.1.0\"\n\n\
                    [[package]]\nname = \"time\"\n\
                    version = \"0.1.45\"\nsource = \"registry+https://example.org\"\n";
        check("Cargo.lock", lock, &[("time", "0.1.45", 6)]);
    }

    #[test]
    fn broken_files_are_errors() {
        assert!(read(Kind::PackageJson, "{").is_err());
        assert!(read(Kind::PackageJson, "[]").is_err());
        assert!(read(Kind::PackageLock, "3").is_err());
        assert!(read(Kind::CargoToml, "[").is_err());
        assert_eq!(read(Kind::Requirements, "???\n==\n").unwrap(), []);
    }

    #[test]
    fn a_lock_file_above_counts() {
        let files = HashSet::from(["Cargo.lock".to_owned()]);
        assert!(is_locked("Cargo.toml", Kind::CargoToml, &files));
        assert!(is_locked("a/b/Cargo.toml", Kind::CargoToml, &files));
        assert!(!is_locked("a/package.json", Kind::PackageJson, &files));
    }
}
