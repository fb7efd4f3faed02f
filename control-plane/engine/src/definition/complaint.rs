//! Complaints: what is wrong with a definition, where, and what was probably meant.

use std::fmt;

use super::limit::COMPLAINTS_MAX;
use crate::graph::Position;

/// Whether a definition can be run in spite of a complaint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can, but probably does not do what was meant.
    Warning,
}

/// One complaint about a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// The file's name, as it was given.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1, in code points.
    pub column: u32,
    /// What was found and what was expected, for people.
    pub message: String,
    /// What to write instead, where that is known; else empty.
    pub suggestion: String,
    /// Whether the definition can be run all the same.
    pub severity: Severity,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, message, .. } = self;
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{file}:{line}:{column}: {severity}: {message}")
    }
}

/// The complaints about one file, as they are found.
#[derive(Debug)]
pub(super) struct Complaints {
    file: String,
    errors: Vec<Complaint>,
    warnings: Vec<Complaint>,
    errors_left_out: usize,
}

impl Complaints {
    pub(super) fn new(file: &str) -> Self {
        Self { file: file.to_owned(), errors: Vec::new(), warnings: Vec::new(), errors_left_out: 0 }
    }

    /// Whether more errors would be left out: then nobody needs to look for suggestions.
    pub(super) fn full(&self) -> bool {
        self.errors.len() >= COMPLAINTS_MAX
    }

    pub(super) fn any_error(&self) -> bool {
        !self.errors.is_empty()
    }

    pub(super) fn error(&mut self, position: Position, message: impl Into<String>) {
        self.error_suggesting(position, message, "");
    }

    pub(super) fn error_suggesting(
        &mut self,
        position: Position,
        message: impl Into<String>,
        suggestion: impl Into<String>,
    ) {
        if self.full() {
            self.errors_left_out += 1;
            return;
        }
        let complaint = self.make(position, message.into(), suggestion.into(), Severity::Error);
        // A value that several aliases share is complained of once.
        if !self.errors.iter().rev().take(16).any(|earlier| *earlier == complaint) {
            self.errors.push(complaint);
        }
    }

    pub(super) fn warning(
        &mut self,
        position: Position,
        message: impl Into<String>,
        suggestion: impl Into<String>,
    ) {
        if self.warnings.len() < COMPLAINTS_MAX {
            let severity = Severity::Warning;
            let complaint = self.make(position, message.into(), suggestion.into(), severity);
            self.warnings.push(complaint);
        }
    }

    fn make(
        &self,
        position: Position,
        message: String,
        suggestion: String,
        severity: Severity,
    ) -> Complaint {
        let Position { line, column } = position;
        Complaint { file: self.file.clone(), line, column, message, suggestion, severity }
    }

    /// All errors, in the order of the file.
    pub(super) fn into_errors(mut self) -> Vec<Complaint> {
        sort(&mut self.errors);
        if let (1.., Some(last)) = (self.errors_left_out, self.errors.last()) {
            let left_out = self.errors_left_out;
            let message = format!("{left_out} further complaints are left out");
            self.errors.push(Complaint { message, suggestion: String::new(), ..last.clone() });
        }
        self.errors
    }

    /// All warnings, in the order of the file.
    pub(super) fn into_warnings(mut self) -> Vec<Complaint> {
        sort(&mut self.warnings);
        self.warnings
    }
}

fn sort(complaints: &mut [Complaint]) {
    complaints.sort_by_key(|complaint| (complaint.line, complaint.column));
}
