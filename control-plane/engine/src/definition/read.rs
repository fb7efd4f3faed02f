//! Reads single values: text, numbers, durations, words, expressions. Complains of what does not
//! fit, at its place, and says what was found and what is expected.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::complaint::Complaints;
use super::draft::{Draft, Site, Step, Use, Word};
use super::duration::{self, parse_duration};
use super::limit::{EXPRESSIONS_MAX, NAME_CHARS_MAX};
use super::locate::{self, Places, Words};
use super::nearest::{self, hint, listed};
use super::yaml::{Key, Kind, Node, shorten};
use crate::expression::{Expression, Reference, Template, template_key};
use crate::graph::{Position, Retry};

/// Reads a tree into a draft.
pub(super) struct Reader<'t> {
    pub(super) text: &'t str,
    pub(super) complaints: &'t mut Complaints,
    pub(super) draft: Draft,
    /// The steps of the draft while they are read, in the order in which they begin.
    pub(super) steps: Vec<Option<Step>>,
    /// More steps than a definition may have were found.
    pub(super) too_many_steps: bool,
    /// `error_handling.retry`.
    pub(super) retry: Option<Retry>,
    /// The names used by the step that is being read.
    pub(super) uses: Vec<Use>,
}

/// The fields of an object.
#[derive(Clone, Copy)]
pub(super) struct Fields<'n> {
    entries: &'n [(Key, Node)],
    known: &'n [&'static str],
    pub(super) position: Position,
}

impl<'n> Fields<'n> {
    /// Whether an unknown field was probably meant to be one of these: it is complained of, and
    /// that they are missing is no news.
    pub(super) fn mistyped(self, names: &[&str]) -> bool {
        let unknown = self.entries.iter().map(|(key, _)| key.text.as_str());
        unknown.filter(|key| !self.known.contains(key)).any(|key| {
            key == "<<"
                || nearest::field(key, self.known).is_some_and(|meant| names.contains(&meant))
        })
    }

    pub(super) fn get(self, name: &str) -> Option<&'n Node> {
        self.entry(name).map(|(_, node)| node)
    }

    pub(super) fn entry(self, name: &str) -> Option<(&'n Key, &'n Node)> {
        self.entries.iter().find(|(key, _)| key.text == name).map(|(key, node)| (key, node))
    }

    /// The first of these fields that is there, in the order of the file.
    pub(super) fn any_of(self, names: &[&str]) -> Option<&'n Key> {
        self.entries.iter().map(|(key, _)| key).find(|key| names.contains(&key.text.as_str()))
    }
}

impl Reader<'_> {
    /// A value of the wrong type, at its place.
    pub(super) fn wrong(&mut self, node: &Node, what: &str, expected: &str) {
        let found = node.describe(self.text);
        self.complaints.error(node.position, format!("{what} must be {expected}, found {found}"));
    }

    fn wrong_suggesting(&mut self, node: &Node, what: &str, expected: &str, suggestion: String) {
        let found = node.describe(self.text);
        let mut message = format!("{what} must be {expected}, found {found}");
        if !suggestion.is_empty() {
            message = format!("{message}, did you mean `{suggestion}`?");
        }
        self.complaints.error_suggesting(node.position, message, suggestion);
    }

    /// An object that has no other fields than these.
    pub(super) fn object<'n>(
        &mut self,
        node: &'n Node,
        what: &str,
        known: &'n [&'static str],
    ) -> Option<Fields<'n>> {
        let Kind::Map(entries) = &node.kind else {
            self.wrong(node, what, "an object");
            return None;
        };
        for (key, _) in entries {
            if !known.contains(&key.text.as_str()) {
                self.unknown_field(key, known);
            }
        }
        Some(Fields { entries, known, position: node.position })
    }

    /// A field without which an object means nothing.
    pub(super) fn lacks(&mut self, fields: Fields<'_>, what: &str, field: &str, example: &str) {
        if !fields.mistyped(&[field]) {
            let message = format!("{what} lacks `{field}`, as in {example}");
            self.complaints.error_suggesting(fields.position, message, field);
        }
    }

    fn unknown_field(&mut self, key: &Key, known: &[&'static str]) {
        let shown = shorten(&key.text);
        if key.text == "<<" {
            let message = "unknown field `<<`: YAML 1.2 has no merge keys, write the fields out";
            self.complaints.error(key.position, message);
            return;
        }
        let meant = nearest::field(&key.text, known);
        let hint = match meant {
            Some(_) => hint(meant),
            None if known.len() <= 8 => format!(", expected {}", listed(known, "or")),
            None => String::new(),
        };
        let message = format!("unknown field `{shown}`{hint}");
        self.complaints.error_suggesting(key.position, message, meant.unwrap_or_default());
    }

    /// Any text.
    pub(super) fn text(&mut self, node: &Node, what: &str) -> Option<String> {
        if let Kind::Text(value) = &node.kind {
            return Some(value.clone());
        }
        let quoted = match (&node.kind, node.written(self.text)) {
            (Kind::Number(_) | Kind::Bool(_), Some(written)) => format!("\"{written}\""),
            _ => {
                self.wrong(node, what, "text");
                return None;
            }
        };
        let found = node.describe(self.text);
        let message = format!("{what} must be text, found {found}: put it in quotes, `{quoted}`");
        self.complaints.error_suggesting(node.position, message, quoted);
        None
    }

    /// A name: text on one line that nothing computes.
    pub(super) fn name(&mut self, node: &Node, what: &str) -> Option<Word> {
        let text = self.text(node, what)?;
        let complaint = if text.trim().is_empty() {
            "must not be empty".to_owned()
        } else if text.contains("${{") {
            "cannot be computed: it is a plain name, without `${{ }}`".to_owned()
        } else if text.chars().any(char::is_control) || text.trim() != text {
            "must stand on one line, without white space around it".to_owned()
        } else if text.chars().count() > NAME_CHARS_MAX {
            format!("must not be longer than {NAME_CHARS_MAX} characters")
        } else {
            return Some(Word { text: text.into(), position: node.position });
        };
        self.complaints.error(node.position, format!("{what} {complaint}"));
        None
    }

    /// A list of names; a single name stands for a list of one.
    pub(super) fn names(&mut self, node: &Node, what: &str, of: &str) -> Option<Vec<Word>> {
        match &node.kind {
            Kind::List(items) => {
                let item_name = format!("an entry of {what}");
                let names: Vec<_> = items.iter().map(|item| self.name(item, &item_name)).collect();
                names.into_iter().collect()
            }
            Kind::Text(_) => self.name(node, what).map(|name| vec![name]),
            _ => {
                self.wrong(node, what, &format!("a list of {of}"));
                None
            }
        }
    }

    pub(super) fn boolean(&mut self, node: &Node, what: &str) -> Option<bool> {
        match &node.kind {
            Kind::Bool(value) => Some(*value),
            Kind::Text(text) => {
                let suggestion = match text.to_lowercase().as_str() {
                    "yes" | "y" | "on" | "true" => "true",
                    "no" | "n" | "off" | "false" => "false",
                    _ => "",
                };
                let expected = "`true` or `false`";
                self.wrong_suggesting(node, what, expected, suggestion.to_owned());
                None
            }
            _ => {
                self.wrong(node, what, "`true` or `false`");
                None
            }
        }
    }

    pub(super) fn integer(
        &mut self,
        node: &Node,
        what: &str,
        range: RangeInclusive<u32>,
    ) -> Option<u32> {
        let value = match &node.kind {
            Kind::Number(number) => number.as_u64().and_then(|value| u32::try_from(value).ok()),
            _ => None,
        };
        if let Some(value) = value
            && range.contains(&value)
        {
            return Some(value);
        }
        let expected = if *range.end() == u32::MAX {
            format!("a whole number, at least {}", range.start())
        } else {
            format!("a whole number from {} to {}", range.start(), range.end())
        };
        self.wrong(node, what, &expected);
        None
    }

    pub(super) fn duration(&mut self, node: &Node, what: &str) -> Option<Duration> {
        let Kind::Text(text) = &node.kind else {
            let suggestion = match &node.kind {
                Kind::Number(_) => duration::suggest(node.written(self.text).unwrap_or_default()),
                _ => String::new(),
            };
            self.wrong_suggesting(node, what, "a duration like `30s`", suggestion);
            return None;
        };
        if text.contains("${{") {
            let message = format!("{what} cannot be computed: it is a duration like `30s`");
            self.complaints.error(node.position, message);
            return None;
        }
        parse_duration(text).map_err(|why| self.bad_duration(node, what, text, &why)).ok()
    }

    pub(super) fn bad_duration(&mut self, node: &Node, what: &str, text: &str, why: &str) {
        let suggestion = duration::suggest(text);
        let hint = hint(Some(suggestion.as_str()).filter(|suggestion| !suggestion.is_empty()));
        let message = format!("{what}: {why}{hint}");
        self.complaints.error_suggesting(node.position, message, suggestion);
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        node: &Node,
        what: &str,
        choices: &[(&'static str, T)],
    ) -> Option<T> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let expected = listed(&words, "or");
        let Kind::Text(text) = &node.kind else {
            self.wrong(node, what, &expected);
            return None;
        };
        let found = choices.iter().find(|(word, _)| word == text).map(|(_, value)| *value);
        if found.is_none() {
            let unified = text.to_lowercase().replace(['-', ' '], "_");
            let meant = words.iter().copied().find(|word| *word == unified);
            let meant = meant.or_else(|| nearest::nearest(text, words.iter().copied()));
            let suggestion = meant.unwrap_or_default().to_owned();
            self.wrong_suggesting(node, what, &expected, suggestion);
        }
        found
    }

    /// A CEL expression, with or without `${{ }}` around it.
    pub(super) fn expression(&mut self, node: &Node, what: &str, site: Site) -> Option<Expression> {
        let source = match &node.kind {
            Kind::Null | Kind::List(_) | Kind::Map(_) => {
                self.wrong(node, what, "an expression");
                return None;
            }
            _ => node.written(self.text).unwrap_or_default().to_owned(),
        };
        match Expression::parse(&source) {
            Ok(expression) => {
                self.note_uses(node, &source, expression.references(), site, false);
                Some(expression)
            }
            Err(error) => {
                let place = locate::place(node, self.text, error.offset);
                self.bad_expression(place, what, &error.message);
                None
            }
        }
    }

    /// An expression that is true or false.
    pub(super) fn condition(&mut self, node: &Node, what: &str, site: Site) -> Option<Expression> {
        if matches!(node.kind, Kind::Number(_)) {
            self.wrong(node, what, "an expression that is true or false");
            return None;
        }
        self.expression(node, what, site)
    }

    fn bad_expression(&mut self, place: Position, what: &str, message: &str) {
        let Some(word) = message.strip_prefix("reserved identifier: ") else {
            self.complaints.error(place, format!("{what}: {message}"));
            return;
        };
        let suggestion = format!("steps[\"{word}\"]");
        let message = format!(
            "{what}: `{word}` is a reserved word of expressions; a step of that name is read as \
             `{suggestion}`"
        );
        self.complaints.error_suggesting(place, message, suggestion);
    }

    fn note_uses(
        &mut self,
        node: &Node,
        text: &str,
        references: Vec<Reference>,
        site: Site,
        template: bool,
    ) {
        if references.is_empty() {
            return;
        }
        let shared: Arc<str> = text.into();
        let words = Words::of(text, template);
        let places = Places::of(node, self.text);
        for Reference { name, fields } in references {
            let position = places.at(words.find(&name, &fields));
            let text = Arc::clone(&shared);
            self.uses.push(Use { name, fields, position, site, text });
        }
    }

    /// Data whose strings may hold `${{ expression }}`.
    pub(super) fn template(&mut self, node: &Node, what: &str, site: Site) -> Option<Template> {
        let mut sound = true;
        let mut open = vec![node];
        let mut expressions = 0;
        while let Some(node) = open.pop() {
            match &node.kind {
                Kind::Text(text) if text.contains("${{") => {
                    expressions += text.matches("${{").count();
                    if expressions > EXPRESSIONS_MAX {
                        let message = format!("{what} holds more than {EXPRESSIONS_MAX} `${{{{`");
                        self.complaints.error(node.position, message);
                        return None;
                    }
                    sound &= self.template_text(node, what, text, site);
                }
                Kind::List(items) => open.extend(items),
                Kind::Map(entries) => {
                    for (key, value) in entries {
                        sound &= self.template_key(key, what);
                        open.push(value);
                    }
                }
                _ => {}
            }
        }
        if !sound {
            return None;
        }
        let parsed = Template::parse(&node.to_json());
        parsed.map_err(|errors| self.template_errors(node, what, &errors)).ok()
    }

    fn template_errors(
        &mut self,
        node: &Node,
        what: &str,
        errors: &[crate::expression::TemplateError],
    ) {
        for error in errors {
            self.complaints.error(node.position, format!("{what}: {}", error.message));
        }
    }

    fn template_text(&mut self, node: &Node, what: &str, text: &str, site: Site) -> bool {
        match Template::parse(&Value::String(text.to_owned())) {
            Ok(template) => {
                self.note_uses(node, text, template.references(), site, true);
                true
            }
            Err(errors) => {
                for error in errors {
                    let place = locate::place(node, self.text, error.offset);
                    self.bad_expression(place, what, &error.message);
                }
                false
            }
        }
    }

    fn template_key(&mut self, key: &Key, what: &str) -> bool {
        if template_key(&key.text).is_none() {
            let message = format!(
                "{what}: a key cannot be computed, only values may hold `${{{{`; write `$${{{{` \
                 for one that means itself"
            );
            self.complaints.error(key.position, message);
            return false;
        }
        if key.text == "<<" {
            let message = "`<<` is a key like any other here: YAML 1.2 has no merge keys";
            self.complaints.warning(key.position, message, "");
        }
        true
    }

    /// Text that may hold `${{ expression }}`.
    pub(super) fn text_template(
        &mut self,
        node: &Node,
        what: &str,
        site: Site,
    ) -> Option<Template> {
        let text = self.text(node, what)?;
        if text.trim().is_empty() {
            self.complaints.error(node.position, format!("{what} must not be empty"));
            return None;
        }
        self.template(node, what, site)
    }

    /// An object whose strings may hold expressions, or one expression that gives it.
    pub(super) fn params(&mut self, node: &Node, what: &str, site: Site) -> Option<Template> {
        match &node.kind {
            Kind::Null => None,
            Kind::Map(_) => self.template(node, what, site),
            Kind::Text(text) if text.trim_start().starts_with("${{") => {
                self.template(node, what, site)
            }
            _ => {
                self.wrong(node, what, "an object");
                None
            }
        }
    }
}
