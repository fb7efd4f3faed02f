//! A look over an expression's text before it is parsed: finds where a `${{ … }}` ends, and
//! refuses what would nest too deep for the recursive parser and evaluator.
//!
//! It knows tokens and brackets and nothing of grammar: what it lets through may still be wrong.

use super::limit::{DEPTH_MAX, NESTING_MAX};

/// What is wrong, and at which byte.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ScanError {
    pub(super) byte: usize,
    pub(super) message: String,
}

/// The byte at which the `}}` stands that closes an expression beginning at the start of `text`.
///
/// Strings and braces within the expression are respected.
pub(super) fn closing(text: &str) -> Option<usize> {
    let mut braces = 0usize;
    for token in tokens(text, true) {
        match token.kind {
            Kind::Open(b'{') => braces += 1,
            Kind::Close(b'}') if braces > 0 => braces -= 1,
            Kind::Close(b'}') if text[token.start..].starts_with("}}") => {
                return Some(token.start);
            }
            _ => {}
        }
    }
    None
}

/// Whether `word` stands in `text` as a token of its own, and where.
pub(super) fn word(text: &str, word: &str) -> Option<usize> {
    tokens(text, false).find(|token| &text[token.start..token.end] == word).map(|token| token.start)
}

/// Refuses text whose syntax tree could be deeper than the limits allow.
pub(super) fn check(text: &str) -> Result<(), ScanError> {
    let mut open = Vec::with_capacity(8);
    let mut level = Level::new(0);
    let mut after_operand = false;
    for token in tokens(text, false) {
        let at = |message: String| ScanError { byte: token.start, message };
        match token.kind {
            Kind::Open(bracket) => {
                if open.len() == NESTING_MAX {
                    return Err(at(format!("brackets nest deeper than {NESTING_MAX}")));
                }
                level.chain += u32::from(after_operand);
                open.push(std::mem::replace(&mut level, Level::new(bracket)));
                after_operand = false;
            }
            Kind::Close(bracket) => {
                let bracket = char::from(bracket);
                let Some(outer) = open.pop() else {
                    return Err(at(format!("`{bracket}` closes nothing")));
                };
                let wanted = char::from(closer(level.bracket));
                if wanted != bracket {
                    return Err(at(format!("expected `{wanted}`, found `{bracket}`")));
                }
                let depth = level.depth();
                level = outer;
                level.inner = level.inner.max(depth);
                after_operand = true;
            }
            Kind::Operand => after_operand = true,
            Kind::Dot | Kind::Unary => {
                level.chain += 1;
                after_operand = false;
            }
            Kind::Binary | Kind::Minus if after_operand => {
                level.end_operand();
                level.binary += 1;
                after_operand = false;
            }
            Kind::Binary | Kind::Minus => level.chain += 1,
            Kind::Logical | Kind::Question | Kind::Colon | Kind::Comma => {
                level.end_part(token.kind);
                after_operand = false;
            }
            Kind::Unterminated => return Err(at("this string does not end".to_owned())),
            Kind::Unknown => return Err(at(unexpected(&text[token.start..token.end]))),
        }
        if level.depth() + u32::try_from(open.len()).unwrap_or(u32::MAX) > DEPTH_MAX {
            return Err(at(format!(
                "the expression nests deeper than {DEPTH_MAX}; split it over several steps"
            )));
        }
    }
    if open.is_empty() {
        return Ok(());
    }
    Err(ScanError {
        byte: text.len(),
        message: format!("expected `{}`, found the end", char::from(closer(level.bracket))),
    })
}

fn unexpected(found: &str) -> String {
    let remedy = match found {
        "=" => "; equality is `==`",
        "&" => "; both is `&&`",
        "|" => "; either is `||`",
        _ => "",
    };
    format!("unexpected character `{}`{remedy}", found.escape_debug())
}

fn closer(bracket: u8) -> u8 {
    match bracket {
        b'(' => b')',
        b'[' => b']',
        _ => b'}',
    }
}

/// An upper bound of the depth of what stands between one pair of brackets.
///
/// `a.b + c ? d : e, f`: elements are parted by commas, an element into segments by `?`, `:`, `&&`
/// and `||`, a segment into operands by binary operators; an operand is a chain.
#[derive(Default)]
struct Level {
    bracket: u8,
    elements: u32,
    segments: u32,
    operands: u32,
    inner: u32,
    ternary: u32,
    logical: u32,
    binary: u32,
    chain: u32,
}

impl Level {
    fn new(bracket: u8) -> Level {
        Level { bracket, ..Level::default() }
    }

    fn end_operand(&mut self) {
        self.operands = self.operands.max(self.chain + self.inner);
        (self.chain, self.inner) = (0, 0);
    }

    fn end_segment(&mut self) {
        self.end_operand();
        self.segments = self.segments.max(self.binary + self.operands);
        (self.binary, self.operands) = (0, 0);
    }

    /// Ends a segment at the token that parts it from the next.
    fn end_part(&mut self, separator: Kind) {
        self.end_segment();
        match separator {
            Kind::Logical => self.logical += 1,
            Kind::Question => self.ternary += 1,
            Kind::Comma => self.end_element(),
            _ => {}
        }
    }

    fn end_element(&mut self) {
        self.elements = self.element().max(self.elements);
        (self.segments, self.ternary, self.logical) = (0, 0, 0);
    }

    /// Ternaries lean to the right; `&&` and `||` are balanced by the parser.
    fn element(&self) -> u32 {
        let balanced = 2 * (u32::BITS - self.logical.leading_zeros());
        self.segments + self.ternary + balanced
    }

    fn depth(&self) -> u32 {
        let operand = self.operands.max(self.chain + self.inner);
        let segment = self.binary + operand;
        let element = self.element() - self.segments + self.segments.max(segment);
        self.elements.max(element) + 1
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Open(u8),
    Close(u8),
    Dot,
    Comma,
    Question,
    Colon,
    Logical,
    Unary,
    Minus,
    Binary,
    Operand,
    Unterminated,
    Unknown,
}

#[derive(Clone, Copy, Debug)]
struct Token {
    kind: Kind,
    start: usize,
    end: usize,
}

/// The tokens of `text` without white space and comments. Every token ends on a character border.
/// With `in_template` a comment ends at `}}` too: a template's text may be one line.
fn tokens(text: &str, in_template: bool) -> impl Iterator<Item = Token> {
    let mut position = 0;
    std::iter::from_fn(move || {
        position = skip_blank(text, position, in_template);
        let (kind, length) = token(&text[position..])?;
        let start = position;
        position += length;
        Some(Token { kind, start, end: position })
    })
}

fn skip_blank(text: &str, mut position: usize, in_template: bool) -> usize {
    loop {
        let rest = &text[position..];
        let blank = rest.bytes().take_while(|byte| b" \t\r\n\x0b\x0c".contains(byte)).count();
        position += blank;
        if text[position..].starts_with("//") {
            let comment = &text[position..];
            let line = comment.find('\n').unwrap_or(comment.len());
            let end = if in_template { comment.find("}}") } else { None };
            position += end.map_or(line, |end| end.min(line));
        } else if blank == 0 {
            return position;
        }
        if position == text.len() {
            return position;
        }
        if in_template && text[position..].starts_with("}}") {
            return position;
        }
    }
}

fn token(rest: &str) -> Option<(Kind, usize)> {
    let bytes = rest.as_bytes();
    let second = bytes.get(1).copied();
    Some(match *bytes.first()? {
        bracket @ (b'(' | b'[' | b'{') => (Kind::Open(bracket), 1),
        bracket @ (b')' | b']' | b'}') => (Kind::Close(bracket), 1),
        b'.' if !second.is_some_and(|digit| digit.is_ascii_digit()) => (Kind::Dot, 1),
        b',' => (Kind::Comma, 1),
        b'?' => (Kind::Question, 1),
        b':' => (Kind::Colon, 1),
        b'&' if second == Some(b'&') => (Kind::Logical, 2),
        b'|' if second == Some(b'|') => (Kind::Logical, 2),
        b'=' | b'!' | b'<' | b'>' if second == Some(b'=') => (Kind::Binary, 2),
        b'!' => (Kind::Unary, 1),
        b'-' => (Kind::Minus, 1),
        b'+' | b'*' | b'/' | b'%' | b'<' | b'>' => (Kind::Binary, 1),
        b'"' | b'\'' => string(rest, 0, false),
        b'`' => match rest[1..].find('`') {
            Some(length) => (Kind::Operand, length + 2),
            None => (Kind::Unterminated, rest.len()),
        },
        b'.' | b'0'..=b'9' => (Kind::Operand, number(bytes)),
        b'_' | b'a'..=b'z' | b'A'..=b'Z' => word_or_string(rest),
        _ => (Kind::Unknown, rest.chars().next().map_or(1, char::len_utf8)),
    })
}

fn number(bytes: &[u8]) -> usize {
    let mut length = 1;
    while let Some(&byte) = bytes.get(length) {
        let sign = matches!(byte, b'+' | b'-')
            && matches!(bytes[length - 1], b'e' | b'E')
            && !bytes.starts_with(b"0x");
        let point = byte == b'.'
            && bytes[0] != b'.'
            && bytes.get(length + 1).is_some_and(u8::is_ascii_digit);
        if !(byte.is_ascii_alphanumeric() || byte == b'_' || sign || point) {
            break;
        }
        length += 1;
    }
    length
}

fn word_or_string(rest: &str) -> (Kind, usize) {
    let length =
        rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
    let word = &rest[..length];
    let quoted = rest[length..].starts_with(['"', '\'']);
    if quoted && matches!(word.to_ascii_lowercase().as_str(), "r" | "b" | "rb" | "br") {
        return string(rest, length, word.contains(['r', 'R']));
    }
    (if word == "in" { Kind::Binary } else { Kind::Operand }, length)
}

/// A string whose quote stands at `prefix`.
fn string(rest: &str, prefix: usize, raw: bool) -> (Kind, usize) {
    let bytes = rest.as_bytes();
    let quote = bytes[prefix];
    let triple = [quote; 3];
    let mark = if bytes[prefix..].starts_with(&triple) { &triple[..] } else { &triple[..1] };
    let mut position = prefix + mark.len();
    while position < bytes.len() {
        if bytes[position..].starts_with(mark) {
            return (Kind::Operand, position + mark.len());
        }
        position += if bytes[position] == b'\\' && !raw { 2 } else { 1 };
    }
    (Kind::Unterminated, rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_ends_at_the_braces_that_are_its_own() {
        let check = |text: &str, rest: &str| {
            let end = closing(text);
            assert_eq!(end.map(|end| &text[end..]), Some(rest), "{text}");
        };
        check(" a }} b", "}} b");
        check("{\"a\": {\"b\": 1}}}} tail", "}} tail");
        check("{\"a\": {\"b\": 1} } }}", "}}");
        check("'}}' + \"}}\" + '''}}''' + r'\\' }}.", "}}.");
        check("'\\'}}' }}", "}}");
        check("a // why\n + b }}", "}}");
        check("a // why }} b", "}} b");
        check("é }}", "}}");
        check("}}", "}}");
        check("(a }}", "}}");
        assert_eq!(closing("a } }"), None);
        assert_eq!(closing("'a }}"), None);
        assert_eq!(closing(""), None);
    }

    #[test]
    fn depth_is_bounded_before_parsing() {
        let refused = |text: &str| assert!(check(text).is_err(), "{:.40}", text);
        refused(&format!("{}1{}", "(".repeat(33), ")".repeat(33)));
        refused(&format!("a{}", ".b".repeat(200)));
        refused(&format!("1{}", "+1".repeat(200)));
        refused(&format!("{}1", "!-".repeat(200)));
        refused(&format!("{}1", "a?b:".repeat(200)));
        refused(&format!("a{}", "[0]".repeat(200)));
        refused(&format!("a{}", ".f()".repeat(200)));
        refused(&format!("{}1{}", "a+f(".repeat(60), ")".repeat(60)));
        assert_eq!(check(&format!("1{}", "+a.b".repeat(80))), Ok(()));
        assert_eq!(check(&format!("true{}", "&&a.b.c == 1".repeat(500))), Ok(()));
        assert_eq!(check(&format!("[{}]", "a.b.c ? 1 : -2,".repeat(500))), Ok(()));
    }

    #[test]
    fn brackets_must_match() {
        let message = |text: &str| check(text).map_err(|error| (error.byte, error.message));
        assert_eq!(message("(1]"), Err((2, "expected `)`, found `]`".to_owned())));
        assert_eq!(message("1)"), Err((1, "`)` closes nothing".to_owned())));
        assert_eq!(message("[1"), Err((2, "expected `]`, found the end".to_owned())));
        assert_eq!(message("1 + é"), Err((4, "unexpected character `é`".to_owned())));
        assert_eq!(message("'a"), Err((0, "this string does not end".to_owned())));
    }
}
