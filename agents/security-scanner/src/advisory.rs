//! Reads advisory files: which versions of which packages are vulnerable. It must not know
//! where versions are found.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use semver::{Version, VersionReq};
use serde::Deserialize;

use crate::finding::Severity;
use crate::limits;

/// The advisories that ship with the agent.
const SHIPPED: &str = include_str!("../advisories.json");

/// Where packages come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
pub enum Ecosystem {
    /// npm.
    #[serde(rename = "npm")]
    Npm,
    /// The Python Package Index.
    #[serde(rename = "pypi")]
    Pypi,
    /// crates.io.
    #[serde(rename = "crates.io")]
    Crates,
}

/// One advisory.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Advisory {
    /// Its id, as `CVE-2021-23337`.
    pub id: String,
    /// Where the package comes from.
    pub ecosystem: Ecosystem,
    /// The package's name.
    pub package: String,
    /// The vulnerable versions; a version in any of the ranges is.
    pub vulnerable: Vec<VersionReq>,
    /// The versions that mend it.
    #[serde(default)]
    pub patched: Vec<Version>,
    /// How grave it is.
    pub severity: Severity,
    /// What it is, in a few words.
    pub title: String,
}

impl Advisory {
    /// Whether a version is vulnerable. A pre-release counts as its release.
    pub fn concerns(&self, version: &Version) -> bool {
        let release = Version::new(version.major, version.minor, version.patch);
        self.vulnerable.iter().any(|range| range.matches(&release))
    }
}

/// All advisories of a file, by package.
#[derive(Debug)]
pub struct Advisories {
    by_package: HashMap<(Ecosystem, String), Vec<Advisory>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    advisories: Vec<Advisory>,
}

impl Advisories {
    /// Those of a file, or the shipped ones. The error is for the one who named the file.
    pub fn open(path: Option<&str>) -> Result<Self, String> {
        let Some(path) = path else {
            return Self::parse(SHIPPED);
        };
        let wrong = |what: String| format!("advisories: `{path}` {what}");
        if !Path::new(path).is_absolute() {
            return Err(wrong("is not an absolute path".to_owned()));
        }
        let text = read(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
        Self::parse(&text).map_err(wrong)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let document: Document =
            serde_json::from_str(text).map_err(|error| format!("does not fit: {error}"))?;
        let mut by_package: HashMap<_, Vec<Advisory>> = HashMap::new();
        for advisory in document.advisories {
            let key = (advisory.ecosystem, normalised(advisory.ecosystem, &advisory.package));
            by_package.entry(key).or_default().push(advisory);
        }
        Ok(Self { by_package })
    }

    /// Those of one package.
    pub fn of(&self, ecosystem: Ecosystem, package: &str) -> &[Advisory] {
        let key = (ecosystem, normalised(ecosystem, package));
        self.by_package.get(&key).map_or(&[], Vec::as_slice)
    }
}

fn read(path: &str) -> std::io::Result<String> {
    let too_large =
        || std::io::Error::other(format!("more than {} bytes", limits::ADVISORY_BYTES_MAX));
    let file = fs::File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    let mut text = String::new();
    file.take(limits::ADVISORY_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > limits::ADVISORY_BYTES_MAX {
        return Err(too_large());
    }
    Ok(text)
}

/// The name as its registry compares it.
fn normalised(ecosystem: Ecosystem, package: &str) -> String {
    match ecosystem {
        Ecosystem::Npm => package.to_owned(),
        Ecosystem::Crates => package.replace('_', "-"),
        Ecosystem::Pypi => {
            let lower = package.to_ascii_lowercase();
            let parts = lower.split(['-', '_', '.']).filter(|part| !part.is_empty());
            parts.collect::<Vec<_>>().join("-")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_advisory_is_mended_by_its_patches() {
        let advisories = Advisories::open(None).unwrap();
        let mut count = 0;
        for advisory in advisories.by_package.values().flatten() {
            assert!(!advisory.vulnerable.is_empty(), "{}", advisory.id);
            for patch in &advisory.patched {
                assert!(!advisory.concerns(patch), "{} {patch}", advisory.id);
            }
            count += 1;
        }
        assert!(count >= 30, "{count}");
    }

    #[test]
    fn ranges_and_names_are_compared_as_registries_do() {
        let advisories = Advisories::open(None).unwrap();
        let lodash = &advisories.of(Ecosystem::Npm, "lodash")[0];
        assert!(lodash.concerns(&Version::new(4, 17, 20)));
        assert!(!lodash.concerns(&Version::new(4, 17, 21)));
        assert!(!advisories.of(Ecosystem::Pypi, "PyYAML").is_empty());
        assert!(advisories.of(Ecosystem::Crates, "lodash").is_empty());
    }

    #[test]
    fn a_wrong_file_is_named_with_the_place() {
        let relative = Advisories::open(Some("a.json")).unwrap_err();
        assert!(relative.starts_with("advisories: `a.json`"), "{relative}");
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "{\"advisories\": [{\"id\": 1}]}").unwrap();
        let wrong = Advisories::open(file.path().to_str()).unwrap_err();
        assert!(wrong.contains("line 1 column"), "{wrong}");
        assert!(Advisories::open(Some("/no/such.json")).is_err());
    }
}
