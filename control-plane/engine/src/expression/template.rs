//! Templates: JSON whose strings may hold `${{ expression }}`, as a step's `params`.
//!
//! A string that is exactly one expression keeps the value's type. In a longer text, strings go in
//! as they are and everything else as compact JSON. `$${{` is a literal `${{`, also in a key.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::api::{EvaluateError, Expression, ParseError, Reference, Scope};
use super::evaluate::Budget;
use super::limit::{RESULT_BYTES_MAX, TEMPLATE_DEPTH_MAX};
use super::scan;

const OPENING: &str = "${{";
const CLOSING: &str = "}}";

/// A parsed template. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Template {
    root: Arc<Part>,
}

/// What is wrong with one string of a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at `{pointer}`: {message}")]
pub struct TemplateError {
    /// JSON pointer to the string; empty for the whole.
    pub pointer: String,
    /// Where in the string: code points.
    pub offset: usize,
    /// What was found and what was expected.
    pub message: String,
}

#[derive(Debug)]
enum Part {
    /// Without expressions, escapes already resolved.
    Literal(Value),
    Expression(Expression),
    Text(Vec<Piece>),
    List(Vec<Part>),
    Map(Vec<(String, Part)>),
}

#[derive(Debug)]
enum Piece {
    Literal(String),
    Expression(Expression),
}

impl Template {
    /// Parses every string; all complaints come at once.
    pub fn parse(value: &Value) -> Result<Template, Vec<TemplateError>> {
        let mut parser = Parser { pointer: String::new(), errors: Vec::new() };
        let root = parser.part(value, TEMPLATE_DEPTH_MAX);
        if parser.errors.is_empty() {
            return Ok(Template { root: Arc::new(root) });
        }
        Err(parser.errors)
    }

    /// Whether it holds no expression.
    pub fn is_literal(&self) -> bool {
        matches!(*self.root, Part::Literal(_))
    }

    /// The free names of all expressions, as [`Expression::references`].
    pub fn references(&self) -> Vec<Reference> {
        let mut found = Vec::new();
        self.root.visit(&mut |expression| {
            for reference in expression.references() {
                if !found.contains(&reference) {
                    found.push(reference);
                }
            }
        });
        found
    }

    /// The JSON with every expression replaced by its value. All expressions share one budget.
    pub fn evaluate(&self, scope: &dyn Scope) -> Result<Value, EvaluateError> {
        self.root.evaluate(scope, &mut Budget::new())
    }
}

impl Part {
    fn visit(&self, visitor: &mut dyn FnMut(&Expression)) {
        match self {
            Part::Literal(_) => {}
            Part::Expression(expression) => visitor(expression),
            Part::Text(pieces) => {
                for piece in pieces {
                    if let Piece::Expression(expression) = piece {
                        visitor(expression);
                    }
                }
            }
            Part::List(parts) => parts.iter().for_each(|part| part.visit(visitor)),
            Part::Map(parts) => parts.iter().for_each(|(_, part)| part.visit(visitor)),
        }
    }

    fn evaluate(&self, scope: &dyn Scope, budget: &mut Budget) -> Result<Value, EvaluateError> {
        match self {
            Part::Literal(value) => Ok(value.clone()),
            Part::Expression(expression) => expression.evaluate_within(scope, budget),
            Part::Text(pieces) => text(pieces, scope, budget).map(Value::String),
            Part::List(parts) => {
                let items = parts.iter().map(|part| part.evaluate(scope, budget));
                items.collect::<Result<_, _>>().map(Value::Array)
            }
            Part::Map(parts) => {
                let mut fields = Map::new();
                for (name, part) in parts {
                    fields.insert(name.clone(), part.evaluate(scope, budget)?);
                }
                Ok(Value::Object(fields))
            }
        }
    }
}

/// What a key of a template says, its escapes resolved; `None` when it holds an expression: only
/// values may.
pub(crate) fn key(written: &str) -> Option<String> {
    let mut key = String::with_capacity(written.len());
    let mut rest = written;
    while let Some((before, behind)) = rest.split_once(OPENING) {
        key.push_str(before.strip_suffix('$')?);
        key.push_str(OPENING);
        rest = behind;
    }
    key.push_str(rest);
    Some(key)
}

fn text(pieces: &[Piece], scope: &dyn Scope, budget: &mut Budget) -> Result<String, EvaluateError> {
    let mut text = String::new();
    for piece in pieces {
        match piece {
            Piece::Literal(literal) => text.push_str(literal),
            Piece::Expression(expression) => {
                match expression.evaluate_within(scope, budget)? {
                    Value::String(value) => text.push_str(&value),
                    other => text.push_str(&other.to_string()),
                }
                if text.len() > RESULT_BYTES_MAX {
                    let message = format!("the text grows beyond {RESULT_BYTES_MAX} bytes");
                    return Err(expression.error(message));
                }
            }
        }
    }
    Ok(text)
}

struct Parser {
    pointer: String,
    errors: Vec<TemplateError>,
}

impl Parser {
    fn error(&mut self, offset: usize, message: impl Into<String>) {
        let (pointer, message) = (self.pointer.clone(), message.into());
        self.errors.push(TemplateError { pointer, offset, message });
    }

    fn part(&mut self, value: &Value, depth: usize) -> Part {
        let Some(depth) = depth.checked_sub(1) else {
            self.error(0, format!("nested deeper than {TEMPLATE_DEPTH_MAX}"));
            return Part::Literal(Value::Null);
        };
        match value {
            Value::String(text) => self.string(text),
            Value::Array(items) => {
                let parts: Vec<Part> = items
                    .iter()
                    .enumerate()
                    .map(|(index, item)| self.below(&index.to_string(), item, depth))
                    .collect();
                if parts.iter().all(|part| matches!(part, Part::Literal(_))) {
                    return Part::Literal(parts.into_iter().filter_map(Part::literal).collect());
                }
                Part::List(parts)
            }
            Value::Object(fields) => {
                let mut parts = Vec::with_capacity(fields.len());
                for (name, field) in fields {
                    let part = self.below(name, field, depth);
                    match key(name) {
                        Some(name) => parts.push((name, part)),
                        None => {
                            let shown = super::api::shorten(name);
                            let message =
                                format!("the key `{shown}` holds `{OPENING}`; only values may");
                            self.error(0, message);
                        }
                    }
                }
                if parts.iter().all(|(_, part)| matches!(part, Part::Literal(_))) {
                    let fields = parts.into_iter();
                    let fields = fields.filter_map(|(name, part)| Some((name, part.literal()?)));
                    return Part::Literal(Value::Object(fields.collect()));
                }
                Part::Map(parts)
            }
            other => Part::Literal(other.clone()),
        }
    }

    fn below(&mut self, step: &str, value: &Value, depth: usize) -> Part {
        let length = self.pointer.len();
        self.pointer.push('/');
        self.pointer.push_str(&step.replace('~', "~0").replace('/', "~1"));
        let part = self.part(value, depth);
        self.pointer.truncate(length);
        part
    }

    fn string(&mut self, text: &str) -> Part {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut position = 0;
        while let Some(found) = text[position..].find(OPENING) {
            let opening = position + found;
            let inner = opening + OPENING.len();
            if let Some(before) = text[position..opening].strip_suffix('$') {
                literal.push_str(before);
                literal.push_str(OPENING);
                position = inner;
                continue;
            }
            literal.push_str(&text[position..opening]);
            let Some(closing) = scan::closing(&text[inner..]) else {
                let offset = text[..opening].chars().count();
                self.error(offset, format!("`{OPENING}` has no closing `{CLOSING}`"));
                return Part::Literal(Value::Null);
            };
            let end = inner + closing;
            match Expression::parse(&text[inner..end]) {
                Ok(expression) => {
                    if !literal.is_empty() {
                        pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                    }
                    pieces.push(Piece::Expression(expression));
                }
                Err(ParseError { message, offset }) => {
                    self.error(text[..inner].chars().count() + offset, message);
                }
            }
            position = end + CLOSING.len();
        }
        literal.push_str(&text[position..]);
        if pieces.is_empty() {
            return Part::Literal(Value::String(literal));
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        } else if pieces.len() == 1
            && let Some(Piece::Expression(expression)) = pieces.pop()
        {
            return Part::Expression(expression);
        }
        Part::Text(pieces)
    }
}

impl Part {
    fn literal(self) -> Option<Value> {
        match self {
            Part::Literal(value) => Some(value),
            _ => None,
        }
    }
}
