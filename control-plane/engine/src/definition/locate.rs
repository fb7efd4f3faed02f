//! Where a character of a scalar's value stands in the file, and where a name stands in an
//! expression. For complaints only: what cannot be told exactly is told as nearly as possible.

use std::collections::HashMap;

use granit_parser::ScalarStyle;

use super::yaml::{Kind, Node};
use crate::graph::Position;

/// Where the code points of a scalar's value stand, found in one pass.
pub(super) struct Places {
    start: Position,
    /// One for each code point of the value, and one for the end; fewer if they cannot be told.
    places: Vec<Position>,
}

impl Places {
    /// Those of a text node.
    pub(super) fn of(node: &Node, text: &str) -> Self {
        let mut found = Self { start: node.position, places: Vec::new() };
        let (Kind::Text(value), Some((range, style))) = (&node.kind, &node.source) else {
            return found;
        };
        let Some(raw) = text.get(range.clone()) else { return found };
        let mut cursor = Cursor { rest: raw, position: node.position };
        cursor.skip_opening(*style);
        for wanted in value.chars() {
            // Stand on the character itself, behind folds and indentation.
            if !cursor.find(wanted, *style) {
                return found;
            }
            found.places.push(cursor.position);
            cursor.step(wanted, *style);
        }
        found.places.push(cursor.position);
        found
    }

    /// The place of the `offset`th code point.
    pub(super) fn at(&self, offset: usize) -> Position {
        self.places.get(offset).copied().unwrap_or(self.start)
    }
}

/// The place of the `offset`th code point of a text node's value.
pub(super) fn place(node: &Node, text: &str, offset: usize) -> Position {
    Places::of(node, text).at(offset)
}

struct Cursor<'t> {
    rest: &'t str,
    position: Position,
}

impl Cursor<'_> {
    fn advance(&mut self) -> Option<char> {
        let next = self.rest.chars().next()?;
        self.rest = &self.rest[next.len_utf8()..];
        let lone_return = next == '\r' && !self.rest.starts_with('\n');
        if next == '\n' || lone_return {
            self.position.line += 1;
            self.position.column = 1;
        } else {
            self.position.column += 1;
        }
        Some(next)
    }

    /// Goes behind the opening quote, or behind the header of a block.
    fn skip_opening(&mut self, style: ScalarStyle) {
        match style {
            ScalarStyle::Plain => {}
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => {
                if self.rest.starts_with(['"', '\'']) {
                    self.advance();
                }
            }
            ScalarStyle::Literal | ScalarStyle::Folded => {
                if self.rest.starts_with(['|', '>']) {
                    while let Some(c) = self.advance()
                        && c != '\n'
                    {}
                }
            }
        }
    }

    /// Goes on to where the next character of the value stands, over folds and indentation.
    fn find(&mut self, wanted: char, style: ScalarStyle) -> bool {
        loop {
            let Some(next) = self.rest.chars().next() else { return false };
            if style == ScalarStyle::DoubleQuoted && next == '\\' {
                let mut after = self.rest[1..].chars();
                if !matches!(after.next(), Some('\n' | '\r')) {
                    return true;
                }
                // An escaped line break stands for nothing.
                self.advance();
                self.advance();
                continue;
            }
            if next == wanted || (wanted == ' ' && next == '\n') {
                return true;
            }
            if !next.is_whitespace() {
                return false;
            }
            self.advance();
        }
    }

    /// Goes behind one character of the value.
    fn step(&mut self, wanted: char, style: ScalarStyle) {
        let first = self.advance();
        match (style, first) {
            (ScalarStyle::SingleQuoted, Some('\'')) => {
                self.advance();
            }
            (ScalarStyle::DoubleQuoted, Some('\\')) => {
                let digits = match self.advance() {
                    Some('x') => 2,
                    Some('u') if u32::from(wanted) > 0xffff => 10,
                    Some('u') => 4,
                    Some('U') => 8,
                    _ => 0,
                };
                for _ in 0..digits {
                    self.advance();
                }
            }
            _ => {}
        }
    }
}

/// The words of an expression, or of the `${{ }}` in a text, and where they stand.
pub(super) struct Words<'t> {
    text: &'t str,
    /// For each word: at which byte and at which code point it begins.
    places: HashMap<&'t str, Vec<(usize, usize)>>,
}

impl<'t> Words<'t> {
    pub(super) fn of(text: &'t str, template: bool) -> Self {
        let mut places: HashMap<&str, Vec<(usize, usize)>> = HashMap::new();
        let (mut byte_before, mut chars) = (0, 0);
        for (byte, word) in words(text, template) {
            chars += text[byte_before..byte].chars().count();
            byte_before = byte;
            places.entry(word).or_default().push((byte, chars));
        }
        Self { text, places }
    }

    /// The code point at which `name`, followed by the first of `fields`, stands first.
    pub(super) fn find(&self, name: &str, fields: &[String]) -> usize {
        let Some(places) = self.places.get(name) else { return 0 };
        let followed = |&&(byte, _): &&(usize, usize)| {
            let after = self.text[byte + name.len()..].trim_start();
            fields.first().is_none_or(|field| begins_with_field(after, field))
        };
        let found = places.iter().find(followed).or_else(|| places.first());
        found.map_or(0, |(_, chars)| *chars)
    }
}

/// Whether `.field` or `["field"]` stands at the start.
fn begins_with_field(text: &str, field: &str) -> bool {
    if let Some(rest) = text.strip_prefix('.') {
        let rest = rest.trim_start().strip_prefix(field);
        return rest.is_some_and(|rest| !rest.starts_with(is_word));
    }
    let Some(rest) = text.strip_prefix('[') else { return false };
    let rest = rest.trim_start().strip_prefix(['"', '\'']);
    rest.is_some_and(|rest| rest.starts_with(field))
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The words of an expression that stand neither in strings nor behind a point, with their bytes.
fn words(text: &str, template: bool) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut inside = !template;
    let mut at = 0;
    let mut after_point = false;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        if !inside {
            if rest.starts_with("$${{") {
                at += 4;
            } else if rest.starts_with("${{") {
                inside = true;
                at += 3;
            } else {
                at += c.len_utf8();
            }
            continue;
        }
        if template && rest.starts_with("}}") {
            inside = false;
            at += 2;
        } else if c == '"' || c == '\'' {
            at += string(rest, c);
            after_point = false;
        } else if is_word(c) {
            let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            if !after_point && !c.is_ascii_digit() {
                found.push((at, &rest[..length]));
            }
            at += length;
            after_point = false;
        } else {
            if !c.is_whitespace() {
                after_point = c == '.';
            }
            at += c.len_utf8();
        }
    }
    found
}

/// The length of the string literal at the start of `text`.
fn string(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if c == quote && !escaped {
            return at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::complaint::Complaints;
    use crate::definition::yaml;

    /// The line and column of the first `#` in the value of the list's only item.
    fn check(text: &str, line: u32, column: u32) {
        let root = yaml::read(text, &mut Complaints::new("test"));
        let Some(Node { kind: Kind::List(items), .. }) = root else { panic!("{text}") };
        let Kind::Text(value) = &items[0].kind else { panic!("{text}") };
        let offset = value.chars().position(|c| c == '#').expect("a mark");
        assert_eq!(place(&items[0], text, offset), Position { line, column }, "{text}");
    }

    #[test]
    fn characters_are_found_in_each_style() {
        check("- ab#c", 1, 5);
        check("- äb#c", 1, 5);
        check("- 'a''b#'", 1, 8);
        check("- \"a\\n\\u00e4#\"", 1, 13);
        check("- \"a\n   b #\"", 2, 6);
        check("- \"a\\\n   b #\"", 2, 6);
        check("- a\n  b#", 2, 4);
        check("- |\n  ab\n  c#", 3, 4);
        check("- |-  # note\n   ab\n     c#", 3, 7);
        check("- >\n  ab\n  cd\n\n  e#", 5, 4);
        check("- |\r\n  ab\r\n  c#", 3, 4);
    }

    #[test]
    fn names_are_found_outside_of_strings_and_fields() {
        let none: &[String] = &[];
        let name = |text: &str, name: &str, fields: &[String], template: bool| {
            Words::of(text, template).find(name, fields)
        };
        assert_eq!(name("a == 'b' && x.b || b", "b", none, false), 19);
        assert_eq!(name("p.a + p.b", "p", &["b".to_owned()], false), 6);
        assert_eq!(name("p['a'] + p[\"b\"]", "p", &["b".to_owned()], false), 9);
        assert_eq!(name("b $${{ b }} ${{ b }}", "b", none, true), 16);
    }
}
