//! What is wrong with a definition, told with the line and a caret, or as JSON.

use std::collections::HashMap;

use contracts::v1::{Complaint, Severity};
use serde::Serialize;

use crate::output::{Output, Paint};

/// The widest part of a source line that is shown.
const EXCERPT_CHARS_MAX: usize = 160;
const COMPLAINTS_SHOWN_MAX: usize = 200;

/// The texts that were sent, by the name that complaints give them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    texts: HashMap<String, String>,
}

impl Sources {
    /// Keeps a text under a name.
    pub(crate) fn add(&mut self, file: &str, text: &str) {
        self.texts.insert(file.to_owned(), text.to_owned());
    }

    fn line(&self, file: &str, line: i32) -> Option<&str> {
        let index = usize::try_from(line).ok()?.checked_sub(1)?;
        self.texts.get(file)?.lines().nth(index)
    }
}

/// An error at a place in a file.
pub(crate) fn error_at(file: &str, line: usize, column: usize, message: String) -> Complaint {
    Complaint {
        file: file.to_owned(),
        line: i32::try_from(line).unwrap_or(i32::MAX),
        column: i32::try_from(column).unwrap_or(i32::MAX),
        message,
        suggestion: String::new(),
        severity: Severity::Error.into(),
    }
}

/// Tells complaints: JSON on stdout where that is asked for, else text on stderr.
pub(crate) fn report(complaints: &[Complaint], sources: &Sources, output: &mut Output) {
    if output.is_json() {
        // Stdout that cannot be written leaves nothing else to tell it by.
        if let Err(error) = output.data(&json(complaints)) {
            output.note(&format!("error: cannot write to stdout: {error}"));
        }
    } else {
        notes(complaints, sources, output);
    }
}

/// Tells complaints on stderr.
pub(crate) fn notes(complaints: &[Complaint], sources: &Sources, output: &mut Output) {
    for complaint in complaints.iter().take(COMPLAINTS_SHOWN_MAX) {
        let text = text(complaint, sources, output.note_paint());
        output.note(&text);
    }
    if complaints.len() > COMPLAINTS_SHOWN_MAX {
        output.note(&format!("… and {} more", complaints.len() - COMPLAINTS_SHOWN_MAX));
    }
}

/// The document for scripts.
pub(crate) fn json(complaints: &[Complaint]) -> String {
    #[derive(Serialize)]
    struct Document<'a> {
        complaints: Vec<Entry<'a>>,
    }
    #[derive(Serialize)]
    struct Entry<'a> {
        file: &'a str,
        line: i32,
        column: i32,
        message: &'a str,
        suggestion: &'a str,
    }
    let complaints = complaints
        .iter()
        .map(|complaint| Entry {
            file: &complaint.file,
            line: complaint.line,
            column: complaint.column,
            message: &complaint.message,
            suggestion: &complaint.suggestion,
        })
        .collect();
    serde_json::to_string_pretty(&Document { complaints }).expect("plain data is always JSON")
}

/// `file:line:column: error: message (did you mean …)`, the line and a caret under the column.
fn text(complaint: &Complaint, sources: &Sources, paint: Paint) -> String {
    let word = match complaint.severity() {
        Severity::Warning => paint.yellow("warning:"),
        _ => paint.red("error:"),
    };
    let mut place = complaint.file.clone();
    if complaint.line > 0 {
        let separator = if place.is_empty() { "" } else { ":" };
        place = format!("{place}{separator}{}:{}", complaint.line, complaint.column);
    }
    let separator = if place.is_empty() { "" } else { ": " };
    let mut text = format!("{}{separator}{word} {}", paint.bold(place), complaint.message);
    text.push_str(&suggestion(complaint));
    if let Some(line) = sources.line(&complaint.file, complaint.line) {
        let column = usize::try_from(complaint.column).unwrap_or(1).max(1);
        let (excerpt, caret) = excerpt(line, column);
        let number = complaint.line.to_string();
        let bar = paint.dim("|");
        text.push_str(&format!("\n  {number} {bar} {excerpt}"));
        let blank = " ".repeat(number.len());
        text.push_str(&format!("\n  {blank} {bar} {caret}{}", paint.red("^")));
    }
    text
}

/// A bare name is asked for; a sentence stands as it is.
fn suggestion(complaint: &Complaint) -> String {
    let suggestion = complaint.suggestion.trim();
    // What the message has said is not said again.
    let said = format!("`{}`", suggestion.trim_matches('`'));
    if suggestion.is_empty() || complaint.message.contains(&said) {
        String::new()
    } else if suggestion.contains(' ') {
        format!(" ({suggestion})")
    } else {
        format!(" (did you mean {said}?)")
    }
}

/// The line, cut to what can be shown around the column, and the blanks before the caret.
/// Tabs become single blanks, so that the caret stands right.
fn excerpt(line: &str, column: usize) -> (String, String) {
    let skipped = column.saturating_sub(EXCERPT_CHARS_MAX / 2);
    let skipped = if line.chars().count() > EXCERPT_CHARS_MAX { skipped } else { 0 };
    let excerpt: String = line
        .chars()
        .skip(skipped)
        .take(EXCERPT_CHARS_MAX)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    // A column behind the end points just behind it.
    let before = (column - 1 - skipped).min(excerpt.chars().count());
    let blanks = excerpt.chars().take(before).map(|c| if is_wide(c) { "  " } else { " " });
    let caret = blanks.collect();
    (excerpt.trim_end().to_owned(), caret)
}

/// Whether a terminal gives a character two cells: the East Asian blocks and emoji.
fn is_wide(c: char) -> bool {
    matches!(
        c,
        '\u{1100}'..='\u{115f}'
            | '\u{2e80}'..='\u{a4cf}'
            | '\u{ac00}'..='\u{d7a3}'
            | '\u{f900}'..='\u{faff}'
            | '\u{fe30}'..='\u{fe6f}'
            | '\u{ff00}'..='\u{ff60}'
            | '\u{1f300}'..='\u{1faff}'
            | '\u{20000}'..='\u{3fffd}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(complaint: &Complaint, source: &str) -> String {
        let mut sources = Sources::default();
        sources.add(&complaint.file, source);
        text(complaint, &sources, Paint::default())
    }

    #[test]
    fn a_complaint_shows_its_place_and_line() {
        let mut complaint = error_at("a.yml", 2, 3, "unknown field `depend_on`".into());
        complaint.suggestion = "depends_on".into();
        let expected = "\
a.yml:2:3: error: unknown field `depend_on` (did you mean `depends_on`?)
  2 |   depend_on: [a]
    |   ^";
        assert_eq!(rendered(&complaint, "steps:\n  depend_on: [a]\n"), expected);
    }

    #[test]
    fn a_suggestion_that_the_message_has_made_is_not_repeated() {
        let mut complaint = error_at("a.yml", 1, 1, "`name` is a number: write `\"5\"`".into());
        complaint.suggestion = "\"5\"".into();
        assert_eq!(rendered(&complaint, ""), "a.yml:1:1: error: `name` is a number: write `\"5\"`");
    }

    #[test]
    fn a_caret_stands_right_behind_wide_letters_and_at_the_end() {
        let complaint = error_at("a.yml", 1, 3, "here".into());
        let expected = "a.yml:1:3: error: here\n  1 | 日本x\n    |     ^";
        assert_eq!(rendered(&complaint, "日本x"), expected);
        let complaint = error_at("a.yml", 1, 99, "here".into());
        assert!(rendered(&complaint, "ab").ends_with("\n    |   ^"));
    }

    #[test]
    fn a_long_line_is_cut_around_the_column() {
        let line = format!("{}x{}", "a".repeat(500), "b".repeat(500));
        let (excerpt, caret) = excerpt(&line, 501);
        assert_eq!(excerpt.chars().count(), EXCERPT_CHARS_MAX);
        assert_eq!(excerpt.chars().nth(caret.len()), Some('x'));
    }

    #[test]
    fn a_place_that_is_not_in_the_text_shows_no_line() {
        let complaint = error_at("a.yml", 9, 1, "here".into());
        assert_eq!(rendered(&complaint, "ab"), "a.yml:9:1: error: here");
        let complaint = Complaint { message: "here".into(), ..Default::default() };
        assert_eq!(rendered(&complaint, "ab"), "error: here");
    }

    #[test]
    fn the_document_has_the_five_fields() {
        let complaint = error_at("a.yml", 2, 3, "no".into());
        let expected = r#"{
  "complaints": [
    {
      "file": "a.yml",
      "line": 2,
      "column": 3,
      "message": "no",
      "suggestion": ""
    }
  ]
}"#;
        assert_eq!(json(&[complaint]), expected);
    }
}
