//! What expressions mean, as tables: expression, scope, result.

mod errors;
mod limits;
mod meaning;
mod templates;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Expression, Lookup, Scope};

/// The members of an object as names.
pub(super) struct Fields(BTreeMap<String, Arc<Value>>);

impl Fields {
    pub(super) fn new(scope: Value) -> Fields {
        let Value::Object(fields) = scope else { panic!("the scope must be an object") };
        Fields(fields.into_iter().map(|(name, value)| (name, Arc::new(value))).collect())
    }
}

impl Scope for Fields {
    fn lookup(&self, name: &str) -> Lookup {
        if name == "ambiguous" {
            return Lookup::Ambiguous("`ambiguous` is in the outputs of `a` and `b`".to_owned());
        }
        match self.0.get(name) {
            Some(value) => Lookup::Found(Arc::clone(value)),
            None => Lookup::unknown(name, self.0.keys().map(String::as_str)),
        }
    }
}

/// `expression` over `scope` gives `expected`, the same twice, with the same text.
#[track_caller]
pub(super) fn check(expression: &str, scope: Value, expected: Value) {
    let scope = Fields::new(scope);
    let parsed = Expression::parse(expression).unwrap_or_else(|e| panic!("{expression}: {e:?}"));
    let result = parsed.evaluate(&scope).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(result.to_string(), expected.to_string(), "{expression}");
    assert_eq!(parsed.evaluate(&scope).unwrap().to_string(), result.to_string(), "{expression}");
}

/// `expression` is true with an empty scope.
#[track_caller]
pub(super) fn holds(expression: &str) {
    check(expression, json!({}), json!(true));
}

/// `expression` over `scope` fails with `message`.
#[track_caller]
pub(super) fn fails(expression: &str, scope: Value, message: &str) {
    let scope = Fields::new(scope);
    let parsed = Expression::parse(expression).unwrap_or_else(|e| panic!("{expression}: {e:?}"));
    match parsed.evaluate(&scope) {
        Ok(value) => panic!("{expression} gave {value}, expected the error `{message}`"),
        Err(error) => assert_eq!(error.message, message, "{expression}"),
    }
}

/// `expression` is refused at `offset` with `message`.
#[track_caller]
pub(super) fn refused(expression: &str, offset: usize, message: &str) {
    let error = Expression::parse(expression).expect_err(expression);
    assert_eq!((error.offset, error.message.as_str()), (offset, message), "{expression}");
}
