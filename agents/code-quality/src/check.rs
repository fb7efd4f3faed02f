//! The action `code_quality_check`: goes through a project, lets the other modules measure,
//! judges by the bounds and sums up. It must not change the project.

use std::collections::BTreeMap;

use project_files::{Project, Text};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duplication::Duplication;
use crate::finding::{Finding, Severity, score};
use crate::language::Language;
use crate::structure::{Function, Structure, measure};
use crate::{formatting, limits, marks};

/// Folders with code that others wrote or machines made.
const SKIP_FOLDERS: [&str; 12] = [
    ".git",
    ".hg",
    ".mypy_cache",
    ".pytest_cache",
    ".svn",
    ".venv",
    "__pycache__",
    "coverage",
    "dist",
    "node_modules",
    "target",
    "venv",
];

/// What `code_quality_check` takes.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The project's folder, an absolute path; taken from the steps before when left out.
    pub project_dir: String,
    /// How many findings the output lists, the gravest first; 200 unless given, at most 2000.
    #[serde(default)]
    pub max_findings: Option<u32>,
    /// The score that passes, 0 to 100; 70 unless given.
    #[serde(default)]
    pub min_score: Option<f64>,
}

/// What `code_quality_check` gives.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Report {
    /// The project's folder, as it came in.
    pub project_dir: String,
    /// From 0 to 100.
    pub score: f64,
    /// Whether the score is reached and no file has a syntax error.
    pub passed: bool,
    /// How many source files were measured.
    pub files: u64,
    /// How many lines they have.
    pub lines: u64,
    /// How many functions they have.
    pub functions: u64,
    /// The findings, the gravest first.
    pub findings: Vec<Finding>,
    /// How many there are, listed or not.
    pub findings_total: u64,
    /// How many there are of each rule.
    pub by_rule: BTreeMap<&'static str, u64>,
    /// Files that could not be read or are too large or too deep.
    pub passed_over: u64,
    /// Whether a bound ended the check early, so that not all was seen.
    pub truncated: bool,
}

/// Why there is no report.
#[derive(Debug)]
pub enum Error {
    /// The input is wrong.
    Input(String),
    /// It was asked to stop.
    Cancelled,
}

/// Checks a project.
pub fn check(input: &Input, cancelled: &dyn Fn() -> bool) -> Result<Report, Error> {
    let shown_max = shown_max(input.max_findings)?;
    let score_min = score_min(input.min_score)?;
    let project =
        Project::open(&input.project_dir).map_err(|error| Error::Input(error.to_string()))?;
    let mut sums = Sums::default();
    let mut walk = project.walk(&SKIP_FOLDERS);
    for file in walk.by_ref() {
        if cancelled() {
            return Err(Error::Cancelled);
        }
        sums.file(&file.path, &file.text, cancelled);
    }
    sums.duplicates(cancelled);
    if cancelled() {
        return Err(Error::Cancelled);
    }
    let coverage = walk.coverage();
    let truncated = coverage.truncated || sums.truncated;
    let passed_over = coverage.passed_over;
    Ok(sums.report(project.given(), shown_max, score_min, passed_over, truncated))
}

fn shown_max(given: Option<u32>) -> Result<usize, Error> {
    let Some(given) = given else {
        return Ok(limits::FINDINGS_SHOWN);
    };
    let most = limits::FINDINGS_SHOWN_MAX;
    match usize::try_from(given) {
        Ok(count) if count <= most => Ok(count),
        _ => Err(Error::Input(format!("max_findings: {given} is more than {most}"))),
    }
}

fn score_min(given: Option<f64>) -> Result<f64, Error> {
    let score = given.unwrap_or(limits::SCORE_MIN);
    if (0.0..=100.0).contains(&score) {
        Ok(score)
    } else {
        Err(Error::Input(format!("min_score: {score} is not between 0 and 100")))
    }
}

#[derive(Default)]
struct Sums {
    files: u64,
    lines: u64,
    functions: u64,
    findings: Vec<Finding>,
    duplication: Duplication,
    truncated: bool,
}

impl Sums {
    fn file(&mut self, path: &str, text: &Text, cancelled: &dyn Fn() -> bool) {
        let language = Language::of(path);
        let Some(content) = text.as_str() else {
            if language.is_some() && matches!(text, Text::TooLarge) {
                let most = project_files::limits::FILE_BYTES_MAX;
                let message = format!("more than {most} bytes; not measured");
                let rule = ("long-file", Severity::Warning);
                self.tell([Finding::new(rule, path, 1, message)]);
            }
            return;
        };
        if formatting::applies(path) {
            self.tell(formatting::check(path, content));
        }
        let Some(language) = language else {
            return;
        };
        if matches!(text, Text::Other(_)) {
            let message = "the text is not UTF-8".to_owned();
            let rule = ("encoding", Severity::Warning);
            self.tell([Finding::new(rule, path, 1, message)]);
        }
        self.source(path, language, content, cancelled);
    }

    fn source(&mut self, path: &str, language: Language, text: &str, cancelled: &dyn Fn() -> bool) {
        let lines = u32::try_from(text.lines().count()).unwrap_or(u32::MAX);
        self.files += 1;
        self.lines += u64::from(lines);
        if lines > limits::FILE_LINES_MAX {
            let most = limits::FILE_LINES_MAX;
            let message = format!("{lines} lines; at most {most} are easy to find one's way in");
            let rule = ("long-file", Severity::Warning);
            self.tell([Finding::new(rule, path, 1, message)]);
        }
        let Some(structure) = measure(language, text, cancelled) else {
            let message = "it could not be parsed in time; only its lines are checked".to_owned();
            let rule = ("not-parsed", Severity::Warning);
            self.tell([Finding::new(rule, path, 1, message)]);
            return;
        };
        self.functions += structure.functions.len() as u64;
        self.tell(judge(path, &structure));
        self.tell(marks::check(path, &structure.comments));
        if !self.duplication.add(path, &structure.tokens) {
            self.truncated = true;
        }
    }

    fn duplicates(&mut self, cancelled: &dyn Fn() -> bool) {
        let found = self.duplication.find(cancelled);
        self.tell(found.into_iter().map(|one| {
            let message = format!(
                "{} lines repeat those at {}:{}",
                one.lines, one.original_file, one.original_line
            );
            let rule = ("duplicate", Severity::Warning);
            Finding::new(rule, &one.file, one.line, message)
        }));
    }

    fn tell(&mut self, findings: impl IntoIterator<Item = Finding>) {
        for finding in findings {
            if self.findings.len() >= limits::FINDINGS_KEPT_MAX {
                self.truncated = true;
                return;
            }
            self.findings.push(finding);
        }
    }

    fn report(
        mut self,
        project_dir: &str,
        shown_max: usize,
        score_min: f64,
        passed_over: u64,
        truncated: bool,
    ) -> Report {
        let score = score(&self.findings, self.lines);
        let mut by_rule = BTreeMap::new();
        for finding in &self.findings {
            *by_rule.entry(finding.rule).or_insert(0) += 1;
        }
        let findings_total = self.findings.len() as u64;
        self.findings.sort_by(|left, right| {
            let order = left.severity.cmp(&right.severity);
            order.then_with(|| left.file.cmp(&right.file)).then(left.line.cmp(&right.line))
        });
        self.findings.truncate(shown_max);
        Report {
            project_dir: project_dir.to_owned(),
            score,
            passed: score >= score_min && !by_rule.contains_key(SYNTAX_ERROR),
            files: self.files,
            lines: self.lines,
            functions: self.functions,
            findings: self.findings,
            findings_total,
            by_rule,
            passed_over,
            truncated,
        }
    }
}

const SYNTAX_ERROR: &str = "syntax-error";

fn judge(path: &str, structure: &Structure) -> Vec<Finding> {
    let error = (SYNTAX_ERROR, Severity::Error);
    let syntax = structure.syntax_errors.iter().map(|line| {
        let message = "the grammar does not allow what stands here".to_owned();
        Finding::new(error, path, *line, message)
    });
    let functions = structure.functions.iter();
    syntax.chain(functions.flat_map(|function| judge_function(path, function))).collect()
}

fn judge_function(path: &str, function: &Function) -> Vec<Finding> {
    let Function { name, line, lines, complexity, nesting } = function;
    let mut findings = Vec::new();
    let mut tell = |rule, message| findings.push(Finding::new(rule, path, *line, message));
    let grave = |is_error| {
        if is_error { Severity::Error } else { Severity::Warning }
    };
    if *lines > limits::FUNCTION_LINES_MAX {
        let most = limits::FUNCTION_LINES_MAX;
        let severity = grave(*lines > limits::FUNCTION_LINES_ERROR);
        let message = format!("{name} has {lines} lines; at most {most} are easy to read");
        tell(("long-function", severity), message);
    }
    if *complexity > limits::COMPLEXITY_MAX {
        let most = limits::COMPLEXITY_MAX;
        let severity = grave(*complexity > limits::COMPLEXITY_ERROR);
        let message = format!("{complexity} ways lead through {name}; at most {most} are testable");
        tell(("complexity", severity), message);
    }
    if *nesting > limits::NESTING_MAX {
        let most = limits::NESTING_MAX;
        let message = format!("{name} nests {nesting} levels deep; at most {most} are clear");
        tell(("nesting", Severity::Warning), message);
    }
    findings
}
