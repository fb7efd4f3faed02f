//! From text to a tree of values that know their places. YAML 1.2, core schema.
//!
//! Knows nothing of workflows. It must not recurse deeper than [`YAML_NESTING_MAX`] nor copy more
//! than the budget of aliases allows, whatever the text.

use std::collections::HashMap;
use std::ops::Range;

use granit_parser::{ErrorKind, Event, Marker, Parser, ScalarStyle, ScanError, Span};
use serde_json::{Map, Number, Value};

use super::complaint::Complaints;
use super::limit::{ALIAS_BYTES_MAX, ALIAS_NODES_MAX, YAML_NESTING_MAX};
use super::scalar;
use crate::graph::Position;

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) position: Position,
    /// For scalars: the bytes of the text they were read from, and how they are written.
    pub(super) source: Option<(Range<usize>, ScalarStyle)>,
}

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// The key of an entry and its place.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) text: String,
    pub(super) position: Position,
}

impl Node {
    /// What stands there, for people: "found a list".
    pub(super) fn describe(&self, text: &str) -> String {
        let written = || match &self.source {
            Some((range, _)) => shorten(text.get(range.clone()).unwrap_or_default()),
            None => String::new(),
        };
        match &self.kind {
            Kind::Null => "nothing".to_owned(),
            Kind::Bool(value) => format!("`{value}`"),
            Kind::Number(_) => format!("the number `{}`", written()),
            Kind::Text(value) if value.is_empty() => "empty text".to_owned(),
            Kind::Text(value) => format!("the text `{}`", shorten(value)),
            Kind::List(_) => "a list".to_owned(),
            Kind::Map(_) => "an object".to_owned(),
        }
    }

    /// A scalar as it is written, without quotes; `None` for lists and objects.
    pub(super) fn written<'t>(&'t self, text: &'t str) -> Option<&'t str> {
        match (&self.kind, &self.source) {
            (Kind::Text(value), _) => Some(value),
            (Kind::List(_) | Kind::Map(_), _) => None,
            (_, Some((range, _))) => text.get(range.clone()),
            (_, None) => None,
        }
    }

    /// The value as JSON: the order of keys and all digits of integers are kept.
    pub(super) fn to_json(&self) -> Value {
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Number(number) => Value::Number(number.clone()),
            Kind::Text(value) => Value::String(value.clone()),
            Kind::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Kind::Map(entries) => {
                let entry = |(key, node): &(Key, Self)| (key.text.clone(), node.to_json());
                Value::Object(entries.iter().map(entry).collect::<Map<_, _>>())
            }
        }
    }
}

/// At most so much of a text as a message bears, on one line.
pub(super) fn shorten(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 60;
    let line = text.trim_end().lines().next().unwrap_or_default();
    let cut = line.char_indices().nth(SHOWN_CHARS_MAX).map_or(line.len(), |(end, _)| end);
    let mut shown: String =
        line[..cut].chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if shown.len() < text.trim_end().len() {
        shown.push('…');
    }
    shown
}

/// Reads one document. `None` after a complaint that leaves nothing to go on with.
pub(super) fn read(text: &str, complaints: &mut Complaints) -> Option<Node> {
    let mut options = granit_parser::options! {
        flow_nesting_limit: YAML_NESTING_MAX,
        block_nesting_limit: YAML_NESTING_MAX,
    };
    options.set_emit_comments(false);
    let mut builder = Builder {
        text,
        complaints,
        frames: Vec::new(),
        anchors: HashMap::new(),
        nodes_left: ALIAS_NODES_MAX,
        bytes_left: ALIAS_BYTES_MAX,
        documents: 0,
        root: None,
    };
    for event in Parser::new_from_str_with_options(text, options) {
        let result = match event {
            Ok((event, span)) => builder.take(event, &span),
            Err(error) => Err(Fault::of(&error)),
        };
        if let Err(Fault { position, message }) = result {
            builder.complaints.error(position, message);
            return None;
        }
    }
    let root = builder.root.take();
    match root {
        Some(root) if !matches!(root.kind, Kind::Null) => Some(root),
        _ => {
            let start = Position { line: 1, column: 1 };
            let message = "the file is empty, expected a workflow: an object with `name` and \
                           `steps`";
            complaints.error(start, message);
            None
        }
    }
}

/// What ends the reading.
struct Fault {
    position: Position,
    message: String,
}

impl Fault {
    fn of(error: &ScanError) -> Self {
        Self { position: position(error.marker()), message: reworded(error) }
    }
}

fn position(marker: &Marker) -> Position {
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    Position { line: number(marker.line().max(1)), column: number(marker.col() + 1) }
}

/// An unfinished list or object.
struct Frame {
    kind: FrameKind,
    position: Position,
    anchor: usize,
}

enum FrameKind {
    List(Vec<Node>),
    Map {
        entries: Vec<(Key, Node)>,
        /// In which line each key was given first.
        lines: HashMap<String, u32>,
        /// The key that waits for its value, and whether it was there before.
        key: Option<(Key, bool)>,
    },
}

struct Builder<'t, 'c> {
    text: &'t str,
    complaints: &'c mut Complaints,
    frames: Vec<Frame>,
    anchors: HashMap<usize, Node>,
    nodes_left: usize,
    bytes_left: usize,
    documents: usize,
    root: Option<Node>,
}

impl Builder<'_, '_> {
    fn take(&mut self, event: Event<'_>, span: &Span) -> Result<(), Fault> {
        let place = position(&span.start);
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    let message = "a file holds one workflow, here a second document begins";
                    return Err(Fault { position: place, message: message.to_owned() });
                }
                Ok(())
            }
            Event::Scalar(value, style, anchor, tag) => {
                let source = self.bytes(span);
                let tag = tag.as_ref().map(|tag| tag.as_ref());
                let kind = scalar::resolve(value.into_owned(), style, tag).unwrap_or_else(
                    |(message, kind)| {
                        self.complaints.error(place, message);
                        kind
                    },
                );
                let node = Node { kind, position: place, source: Some((source, style)) };
                self.complete(node, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.check_tag(tag.as_deref(), "seq", place);
                self.open(FrameKind::List(Vec::new()), place, anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.check_tag(tag.as_deref(), "map", place);
                let (entries, lines) = (Vec::new(), HashMap::new());
                self.open(FrameKind::Map { entries, lines, key: None }, place, anchor)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => self.alias(anchor, span),
            _ => Ok(()),
        }
    }

    /// The bytes of a scalar. The parser counts them; characters are the fallback.
    fn bytes(&self, span: &Span) -> Range<usize> {
        let byte = |marker: &Marker| {
            marker.byte_offset().unwrap_or_else(|| {
                self.text.char_indices().nth(marker.index()).map_or(self.text.len(), |(at, _)| at)
            })
        };
        let (start, end) = (byte(&span.start), byte(&span.end));
        start..end.max(start)
    }

    fn check_tag(&mut self, tag: Option<&granit_parser::Tag>, wanted: &str, place: Position) {
        if let Some(tag) = tag
            && tag.core_suffix() != Some(wanted)
        {
            self.complaints.error(place, scalar::unknown_tag(tag));
        }
    }

    fn open(&mut self, kind: FrameKind, position: Position, anchor: usize) -> Result<(), Fault> {
        if self.frames.len() >= YAML_NESTING_MAX {
            return Err(Fault { position, message: too_deep() });
        }
        self.frames.push(Frame { kind, position, anchor });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Fault> {
        let Some(frame) = self.frames.pop() else { return Ok(()) };
        let kind = match frame.kind {
            FrameKind::List(items) => Kind::List(items),
            FrameKind::Map { entries, .. } => Kind::Map(entries),
        };
        self.complete(Node { kind, position: frame.position, source: None }, frame.anchor)
    }

    /// Puts a finished value where it belongs, and aside if it has an anchor.
    fn complete(&mut self, node: Node, anchor: usize) -> Result<(), Fault> {
        if anchor > 0 {
            self.charge(&node, node.position, 0)?;
            self.anchors.insert(anchor, node.clone());
        }
        self.put(node)
    }

    fn put(&mut self, mut node: Node) -> Result<(), Fault> {
        let Some(frame) = self.frames.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut frame.kind {
            FrameKind::List(items) => items.push(node),
            FrameKind::Map { entries, lines, key } => match key.take() {
                None => {
                    let Some(text) = node.written(self.text).map(str::to_owned) else {
                        let found = node.describe(self.text);
                        let message = format!("a key must be text, found {found}");
                        return Err(Fault { position: node.position, message });
                    };
                    let first = lines.get(&text).copied();
                    if let Some(first) = first {
                        let shown = shorten(&text);
                        let message = format!("`{shown}` is given twice, first in line {first}");
                        self.complaints.error(node.position, message);
                    } else {
                        lines.insert(text.clone(), node.position.line);
                    }
                    let twice = first.is_some();
                    *key = Some((Key { text, position: node.position }, twice));
                }
                Some((key, twice)) => {
                    // Nothing written: the complaint belongs to the key.
                    if matches!(&node.source, Some((range, _)) if range.is_empty()) {
                        node.position = key.position;
                    }
                    if !twice {
                        entries.push((key, node));
                    }
                }
            },
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize, span: &Span) -> Result<(), Fault> {
        let place = position(&span.start);
        let Some(node) = self.anchors.remove(&anchor) else {
            let name = self.text.get(self.bytes(span)).unwrap_or("*").to_owned();
            let message = format!("the alias `{}` stands within its own anchor", shorten(&name));
            return Err(Fault { position: place, message });
        };
        self.charge(&node, place, self.frames.len())?;
        let copy = node.clone();
        self.anchors.insert(anchor, node);
        self.put(copy)
    }

    /// Takes a copy of `node` from the budget of aliases.
    fn charge(&mut self, node: &Node, position: Position, depth: usize) -> Result<(), Fault> {
        let mut open = vec![(node, depth)];
        while let Some((node, depth)) = open.pop() {
            if depth > YAML_NESTING_MAX {
                return Err(Fault { position, message: too_deep() });
            }
            let bytes = match &node.kind {
                Kind::Text(value) => value.len(),
                Kind::Map(entries) => entries.iter().map(|(key, _)| key.text.len()).sum(),
                _ => 0,
            };
            let left = (self.nodes_left.checked_sub(1), self.bytes_left.checked_sub(bytes));
            let (Some(nodes_left), Some(bytes_left)) = left else {
                let message = format!(
                    "aliases without end: anchors and aliases copy more than {ALIAS_NODES_MAX} \
                     values or {ALIAS_BYTES_MAX} bytes"
                );
                return Err(Fault { position, message });
            };
            (self.nodes_left, self.bytes_left) = (nodes_left, bytes_left);
            match &node.kind {
                Kind::List(items) => open.extend(items.iter().map(|item| (item, depth + 1))),
                Kind::Map(entries) => {
                    open.extend(entries.iter().map(|(_, value)| (value, depth + 1)));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn too_deep() -> String {
    format!("lists and objects nest deeper than {YAML_NESTING_MAX}")
}

/// The parser's complaint as a person would put it.
fn reworded(error: &ScanError) -> String {
    use ErrorKind as E;
    let said = match error.kind() {
        E::TabNotAllowed | E::TabInBlockIndentation | E::TabInIndentation => {
            "a tab cannot indent YAML, use spaces"
        }
        E::TabInPlainScalar | E::TabAtBlockScalarStart => "a tab cannot stand here, use spaces",
        E::UnclosedQuotedScalar => "this quoted text is not closed",
        E::UnclosedFlowCollection { open } => {
            return format!("this `{open}` is not closed");
        }
        E::MismatchedFlowCollectionEnd { open, close } => {
            return format!("`{open}` is closed by `{close}`");
        }
        E::UnexpectedEofFlowSequence => "the file ends within a list: `]` is missing",
        E::UnexpectedEofFlowMapping | E::UnexpectedEofImplicitFlowMapping => {
            "the file ends within an object: `}` is missing"
        }
        E::RecursionLimitExceeded => return too_deep(),
        E::UnknownAnchor => "this alias names no anchor that stands before it",
        E::MappingValueNotAllowed | E::InvalidColonPlacement => {
            "`:` cannot stand here: check the indentation, or put the text in quotes"
        }
        E::ExpectedBlockMappingKey => {
            "a key is expected here: check the indentation of this line and the one before"
        }
        E::ExpectedBlockSequenceEntry => {
            "`-` is expected here: the entries of a list stand in one column"
        }
        E::SimpleKeyExpected | E::InvalidSimpleKey => {
            "`:` is expected after the key: check the indentation, or put the text in quotes"
        }
        E::InvalidQuotedScalarIndent => {
            "the quoted text before is not closed, or its next line is not indented"
        }
        E::InvalidIndentation | E::InvalidFlowScalarIndent => {
            "the indentation fits nothing that stands before"
        }
        E::BlockSequenceEntryNotAllowed | E::BlockEntryInFlowCollection => {
            "`-` cannot begin an entry here: a list stands on lines of its own"
        }
        E::ExpectedFlowSequenceSeparator => "`,` or `]` is expected here",
        E::ExpectedFlowMappingSeparator => "`,` or `}` is expected here",
        E::UnexpectedCharacter { character: '`' } => {
            "a backtick cannot begin a value: put the text in quotes"
        }
        E::UnexpectedCharacter { character } => {
            let shown = character.escape_default();
            return format!("`{shown}` cannot begin a value: put the text in quotes");
        }
        E::InvalidTrailingSingleQuotedScalar | E::InvalidTrailingDoubleQuotedScalar => {
            "nothing may follow the closing quote"
        }
        E::UnknownQuotedScalarEscape => {
            "there is no such escape in double quotes: write `\\\\` for a backslash, or use \
             single quotes"
        }
        E::InvalidDocumentEnd => "nothing may follow the end of the document",
        E::CommentNotSeparated => "a comment needs a space before its `#`",
        E::UndeclaredTagHandle => "this tag is not part of the workflow language",
        _ => return format!("this is not YAML: {}", error.info().trim_end_matches('.')),
    };
    said.to_owned()
}
