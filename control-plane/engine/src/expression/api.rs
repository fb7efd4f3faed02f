//! What the rest of the engine sees of an expression.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::compile::{self, Program};
use super::evaluate::{self, Budget};
use super::limit::SOURCE_BYTES_MAX;
use super::{nearest, scan};

/// How much of an expression's text is repeated in a message.
const SHOWN_CHARS_MAX: usize = 200;

/// A parsed expression. Cloning is cheap.
#[derive(Clone)]
pub struct Expression {
    source: Arc<str>,
    program: Arc<Program>,
}

impl Expression {
    /// Parses CEL; `${{ … }}` around the whole is allowed.
    pub fn parse(source: &str) -> Result<Expression, ParseError> {
        let (start, end) = body(source)?;
        let text = &source[start..end];
        let at = |byte: usize, message: String| ParseError {
            message,
            offset: source[..source.floor_char_boundary(start + byte)].chars().count(),
        };
        if text.is_empty() {
            return Err(at(0, "the expression is empty".to_owned()));
        }
        if text.len() > SOURCE_BYTES_MAX {
            let length = text.len();
            let message = format!(
                "the expression is {length} bytes long, more than the {SOURCE_BYTES_MAX} allowed"
            );
            return Err(at(0, message));
        }
        scan::check(text).map_err(|error| at(error.byte, error.message))?;
        let program = compile::compile(text).map_err(|error| at(error.byte, error.message))?;
        Ok(Expression { source: Arc::from(text), program: Arc::new(program) })
    }

    /// The CEL text, without `${{ }}` and white space around it.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The free names it uses, each once for each chain of constant fields that follows it.
    /// Variables of macros and the names of types standing alone (`type(x) == int`) are not names.
    pub fn references(&self) -> Vec<Reference> {
        self.program.references()
    }

    /// Computes the value, as JSON.
    pub fn evaluate(&self, scope: &dyn Scope) -> Result<Value, EvaluateError> {
        self.evaluate_within(scope, &mut Budget::new())
    }

    /// Computes the value, which must be a boolean.
    pub fn evaluate_bool(&self, scope: &dyn Scope) -> Result<bool, EvaluateError> {
        match self.evaluate(scope)? {
            Value::Bool(value) => Ok(value),
            other => {
                // The value itself is not shown, unless it is a number: it may be a secret.
                let what = match other {
                    Value::Null => "null".to_owned(),
                    Value::Bool(_) => "a boolean".to_owned(),
                    Value::Number(number) => format!("the number {number}"),
                    Value::String(_) => "a string".to_owned(),
                    Value::Array(_) => "a list".to_owned(),
                    Value::Object(_) => "a map".to_owned(),
                };
                Err(self.error(format!("a condition must be true or false, this is {what}")))
            }
        }
    }

    pub(super) fn evaluate_within(
        &self,
        scope: &dyn Scope,
        budget: &mut Budget,
    ) -> Result<Value, EvaluateError> {
        evaluate::run(&self.program, scope, budget).map_err(|message| self.error(message))
    }

    pub(super) fn error(&self, message: String) -> EvaluateError {
        EvaluateError { expression: Arc::clone(&self.source), message }
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Expression").field(&self.source).finish()
    }
}

/// Two expressions are equal when their texts are: the text determines the rest.
impl PartialEq for Expression {
    fn eq(&self, other: &Expression) -> bool {
        self.source == other.source
    }
}

impl Eq for Expression {}

/// The bytes of `source` that are CEL.
fn body(source: &str) -> Result<(usize, usize), ParseError> {
    let trim = |start: usize, end: usize| {
        let text = &source[start..end];
        let start = start + (text.len() - text.trim_start().len());
        (start, start + text.trim().len())
    };
    let (start, end) = trim(0, source.len());
    if !source[start..end].starts_with("${{") {
        return Ok((start, end));
    }
    let inner = start + 3;
    let offset = |byte: usize| source[..byte].chars().count();
    let Some(closing) = scan::closing(&source[inner..end]) else {
        let message = "`${{` has no closing `}}`".to_owned();
        return Err(ParseError { message, offset: offset(start) });
    };
    let closing = inner + closing;
    if closing + 2 != end {
        let message = "nothing may follow the closing `}}` of an expression".to_owned();
        return Err(ParseError { message, offset: offset(closing + 2) });
    }
    Ok(trim(inner, closing))
}

/// A free name and the constant fields read from it: `steps["a-b"].output.x` is the name `steps`
/// with the fields `a-b`, `output`, `x`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// The name.
    pub name: String,
    /// The chain of constant fields, up to the first that is computed.
    pub fields: Vec<String>,
}

/// What an expression may read.
pub trait Scope {
    /// The value of a free name. Asked at most once per name and evaluation, and only when the
    /// value is needed.
    fn lookup(&self, name: &str) -> Lookup;

    /// The value at the end of `name` and some of the constant `fields` that follow it, for scopes
    /// whose values are kept in parts: `steps["a"].output.x` may be answered with the output of
    /// `a` and 2 fields, and nothing needs to be put together. `None`: `name` is looked up and the
    /// fields are read from its value; so the answer must be what that would give.
    fn lookup_path(&self, _name: &str, _fields: &[String]) -> Option<Resolved> {
        None
    }
}

/// What a scope says of a name and the fields after it.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// How many of the fields led to the value, from 0; the others are read from it.
    pub fields: usize,
    /// The value.
    pub lookup: Lookup,
}

/// What a scope says of a name.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// Its value: shared, so that reading one field of a large value copies nothing.
    Found(Arc<Value>),
    /// There is no such name; perhaps one like it.
    Unknown {
        /// The nearest name there is.
        suggestion: Option<String>,
    },
    /// The name could mean several things: the message says which.
    Ambiguous(String),
}

impl Lookup {
    /// `Unknown`, with the nearest of the names there are.
    pub fn unknown<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Lookup {
        Lookup::Unknown { suggestion: nearest::nearest(name, names).map(str::to_owned) }
    }
}

/// Why a text is not an expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParseError {
    /// What was found and what was expected.
    pub message: String,
    /// Where: code points into the text given to [`Expression::parse`].
    pub offset: usize,
}

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvaluateError {
    /// The expression's text.
    pub expression: Arc<str>,
    /// The cause.
    pub message: String,
}

impl fmt::Display for EvaluateError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "`{}`: {}", shorten(&self.expression), self.message)
    }
}

impl std::error::Error for EvaluateError {}

/// At most so many characters of a text as a message bears.
pub(super) fn shorten(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
