//! The action `security_scan`: goes through a project, lets the other modules look, and sums
//! up. It must not change the project, nor repeat what it found secret.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::Read;
use std::path::Path;

use project_files::{Project, Text};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::advisory::{Advisories, Advisory};
use crate::dependency::{self, Dependency, Kind};
use crate::finding::{Finding, Severity};
use crate::mask::Language;
use crate::version::{Wanted, lowest};
use crate::{danger, limits, secret};

/// Folders that are not the project's own, or made from what is.
const SKIP_FOLDERS: [&str; 9] = [
    ".git",
    ".hg",
    ".mypy_cache",
    ".svn",
    ".venv",
    "__pycache__",
    "node_modules",
    "target",
    "venv",
];

/// What `security_scan` takes.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The project's folder, an absolute path; taken from the steps before when left out.
    pub project_dir: String,
    /// The absolute path of an advisory file; the one that ships with the agent unless given.
    #[serde(default)]
    pub advisories: Option<String>,
    /// What is accepted: a rule or an advisory (`unsafe-code`, `CVE-2021-23337`), or one of
    /// them in one file or folder (`unsafe-code:src/ffi.rs`, `secret-entropy:tests/`).
    #[serde(default)]
    pub allow: Vec<String>,
}

/// What `security_scan` gives.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Report {
    /// The project's folder, as it came in.
    pub project_dir: String,
    /// Whether nothing critical or high was found, and all was seen.
    pub passed: bool,
    /// The findings, the gravest first; at most 500.
    pub findings: Vec<Finding>,
    /// How many there are.
    pub counts: Counts,
    /// How many files were looked at.
    pub files: u64,
    /// How many dependencies were looked up.
    pub dependencies: u64,
    /// Whether a bound ended the scan early, so that not all was seen.
    pub truncated: bool,
}

/// How many findings there are.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct Counts {
    /// Critical ones.
    pub critical: u64,
    /// High ones.
    pub high: u64,
    /// Medium ones.
    pub medium: u64,
    /// Low ones.
    pub low: u64,
    /// All of these.
    pub total: u64,
    /// Those that `allow` took away.
    pub allowed: u64,
    /// How many there are of each rule.
    pub by_rule: BTreeMap<&'static str, u64>,
}

/// Why there is no report.
#[derive(Debug)]
pub enum Error {
    /// The input is wrong.
    Input(String),
    /// It was asked to stop.
    Cancelled,
}

/// Scans a project.
pub fn scan(input: &Input, cancelled: &dyn Fn() -> bool) -> Result<Report, Error> {
    let advisories = Advisories::open(input.advisories.as_deref()).map_err(Error::Input)?;
    let allow = Allow::parse(&input.allow).map_err(Error::Input)?;
    let project =
        Project::open(&input.project_dir).map_err(|error| Error::Input(error.to_string()))?;
    let mut sums =
        Sums { allow, findings: Vec::new(), counts: Counts::default(), truncated: false };
    let mut files = HashSet::new();
    let mut manifests = Vec::new();
    let mut walk = project.walk(&SKIP_FOLDERS);
    for file in walk.by_ref() {
        if cancelled() {
            return Err(Error::Cancelled);
        }
        sums.file(&file.path, &file.text);
        if let Some(kind) = Kind::of(&file.path) {
            if manifests.len() < limits::MANIFEST_COUNT_MAX {
                manifests.push((file.path.clone(), kind));
            } else {
                sums.truncated = true;
            }
            files.insert(file.path);
        }
    }
    let mut dependencies = 0;
    for (path, kind) in manifests {
        if cancelled() {
            return Err(Error::Cancelled);
        }
        if kind.is_lock() || !dependency::is_locked(&path, kind, &files) {
            dependencies += sums.manifest(project.root(), &path, kind, &advisories);
        }
    }
    sums.truncated |= walk.coverage().truncated;
    let looked_at = walk.coverage().files;
    Ok(sums.report(project.given(), looked_at, dependencies))
}

/// What is accepted.
struct Allow(Vec<(String, Option<String>)>);

impl Allow {
    fn parse(entries: &[String]) -> Result<Self, String> {
        if entries.len() > limits::ALLOW_COUNT_MAX {
            let most = limits::ALLOW_COUNT_MAX;
            return Err(format!("allow: more than {most} entries"));
        }
        let parse = |(index, entry): (usize, &String)| {
            let (what, place) = match entry.split_once(':') {
                Some((what, place)) => (what, Some(place.trim_start_matches("./"))),
                None => (entry.as_str(), None),
            };
            if what.is_empty() || place == Some("") {
                return Err(format!("allow[{index}]: `{entry}` is neither `rule` nor `rule:path`"));
            }
            Ok((what.to_owned(), place.map(str::to_owned)))
        };
        let entries: Result<_, _> = entries.iter().enumerate().map(parse).collect();
        entries.map(Self)
    }

    fn takes(&self, finding: &Finding) -> bool {
        self.0.iter().any(|(what, place)| {
            let named = what == finding.rule || finding.advisory.as_ref() == Some(what);
            let there = match place {
                None => true,
                Some(folder) if folder.ends_with('/') => finding.file.starts_with(folder),
                Some(file) => finding.file == *file,
            };
            named && there
        })
    }
}

struct Sums {
    allow: Allow,
    findings: Vec<Finding>,
    counts: Counts,
    truncated: bool,
}

impl Sums {
    fn file(&mut self, path: &str, text: &Text) {
        let Some(content) = text.as_str() else {
            let what = match text {
                Text::TooLarge if Kind::of(path).is_some_and(Kind::is_lock) => return,
                Text::TooLarge => "it is too large".to_owned(),
                Text::Unreadable(reason) => reason.clone(),
                _ => return,
            };
            let message = format!("not looked at: {what}");
            self.tell(finding(("not-scanned", Severity::Low), path, message));
            return;
        };
        for found in secret::scan(path, content) {
            self.tell(found);
        }
        if let Some(language) = Language::of(path) {
            let found = danger::scan(path, language, content);
            for one in found.into_iter().take(limits::FINDINGS_PER_FILE_MAX) {
                self.tell(one);
            }
        }
    }

    /// How many dependencies the file lists.
    fn manifest(&mut self, root: &Path, path: &str, kind: Kind, advisories: &Advisories) -> u64 {
        let text = read_bounded(&root.join(path));
        let dependencies = text.and_then(|text| dependency::read(kind, &text));
        let dependencies = match dependencies {
            Ok(dependencies) => dependencies,
            Err(reason) => {
                let message = format!("its dependencies cannot be read: {reason}");
                self.tell(finding(("not-scanned", Severity::Medium), path, message));
                return 0;
            }
        };
        for dependency in &dependencies {
            for advisory in advisories.of(dependency.ecosystem, &dependency.package) {
                if let Some((severity, how)) = judge(&dependency.wanted, advisory) {
                    self.tell(vulnerable(path, dependency, advisory, severity, &how));
                }
            }
        }
        dependencies.len() as u64
    }

    fn tell(&mut self, finding: Finding) {
        if self.allow.takes(&finding) {
            self.counts.allowed += 1;
            return;
        }
        match finding.severity {
            Severity::Critical => self.counts.critical += 1,
            Severity::High => self.counts.high += 1,
            Severity::Medium => self.counts.medium += 1,
            Severity::Low => self.counts.low += 1,
        }
        self.counts.total += 1;
        *self.counts.by_rule.entry(finding.rule).or_insert(0) += 1;
        if self.findings.len() < limits::FINDINGS_KEPT_MAX || finding.severity.fails() {
            self.findings.push(finding);
        }
    }

    fn report(mut self, project_dir: &str, files: u64, dependencies: u64) -> Report {
        self.findings.sort_by(|left, right| {
            let order = left.severity.cmp(&right.severity);
            order.then_with(|| left.file.cmp(&right.file)).then(left.line.cmp(&right.line))
        });
        self.findings.truncate(limits::FINDINGS_SHOWN_MAX);
        Report {
            project_dir: project_dir.to_owned(),
            // A gate that did not see all must stay shut.
            passed: self.counts.critical == 0 && self.counts.high == 0 && !self.truncated,
            findings: self.findings,
            counts: self.counts,
            files,
            dependencies,
            truncated: self.truncated,
        }
    }
}

fn finding((rule, severity): (&'static str, Severity), file: &str, message: String) -> Finding {
    Finding { rule, severity, file: file.to_owned(), line: 1, message, advisory: None }
}

/// How grave an advisory is for what is wanted, and why; none when it does not concern it.
fn judge(wanted: &Wanted, advisory: &Advisory) -> Option<(Severity, String)> {
    match wanted {
        Wanted::Exactly(version) => {
            advisory.concerns(version).then(|| (advisory.severity, version.to_string()))
        }
        Wanted::Range(range) => {
            let lowest = lowest(range)?;
            if !advisory.concerns(&lowest) {
                return None;
            }
            let is_mendable = advisory.patched.iter().any(|patch| range.matches(patch));
            Some(if is_mendable {
                // An install today takes a mended version; only nothing holds it there.
                let severity = advisory.severity.max(Severity::Medium);
                (severity, format!("{range}, which admits {lowest}"))
            } else {
                (advisory.severity, range.to_string())
            })
        }
    }
}

fn vulnerable(
    path: &str,
    dependency: &Dependency,
    advisory: &Advisory,
    severity: Severity,
    how: &str,
) -> Finding {
    let patched: Vec<String> = advisory.patched.iter().map(ToString::to_string).collect();
    let remedy = if patched.is_empty() {
        "no release mends it".to_owned()
    } else {
        format!("mended in {}", patched.join(", "))
    };
    Finding {
        rule: "vulnerable-dependency",
        severity,
        file: path.to_owned(),
        line: dependency.line,
        message: format!(
            "{} {how}: {} ({}); {remedy}",
            dependency.package, advisory.title, advisory.id
        ),
        advisory: Some(advisory.id.clone()),
    }
}

fn read_bounded(path: &Path) -> Result<String, String> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = fs::File::open(path)?;
        file.take(limits::LOCK_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error| error.to_string())?;
    if bytes.len() as u64 > limits::LOCK_BYTES_MAX {
        return Err(format!("more than {} bytes", limits::LOCK_BYTES_MAX));
    }
    String::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned())
}
