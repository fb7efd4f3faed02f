//! The expression language on any text: `EXPRESSION`, or `EXPRESSION`, a line `---` and the JSON
//! object that it is evaluated against.

use std::sync::Arc;

use engine::expression::{Expression, Lookup, Scope, Template};
use serde_json::{Map, Value, json};

/// Evaluates the bytes. Gives whether they have a value.
pub(crate) fn expression(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let (source, names) = match text.split_once("\n---\n") {
        Some((source, scope)) => (source, serde_json::from_str(scope).ok()),
        None => (&*text, None),
    };
    let names = Names(names.unwrap_or_else(|| own_names(source)));
    template(source, &names);
    let expression = match Expression::parse(source) {
        Ok(expression) => expression,
        Err(error) => {
            assert!(!error.message.is_empty());
            assert!(error.offset <= source.chars().count(), "{error} at {}", error.offset);
            return false;
        }
    };
    // The text that it keeps is the text that it was made from.
    let again = Expression::parse(expression.source()).expect("what was parsed can be parsed");
    assert_eq!(again.source(), expression.source());
    assert_eq!(again.references(), expression.references());
    let value = expression.evaluate(&names);
    assert_eq!(value, again.evaluate(&names), "the same text has the same value");
    if let Err(error) = &value {
        assert!(!error.message.is_empty());
        assert!(!error.to_string().is_empty());
    }
    value.is_ok()
}

fn template(source: &str, names: &Names) {
    let value = json!({"whole": source, "list": [source, 1], "text": format!("a {source} b")});
    match Template::parse(&value) {
        Ok(template) => {
            let first = template.evaluate(names);
            if template.is_literal() {
                assert_eq!(template.references(), []);
                assert_eq!(first, template.evaluate(&Names(Map::new())), "literals read nothing");
            }
            assert_eq!(first, template.evaluate(names), "the same data have the same value");
        }
        Err(errors) => {
            assert!(!errors.is_empty());
            for error in errors {
                assert!(value.pointer(&error.pointer).is_some(), "{error}");
            }
        }
    }
}

/// What a text reads when it brings no values: each word in it is a name, with some value.
fn own_names(source: &str) -> Map<String, Value> {
    let words = source.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words
        .filter(|word| !word.is_empty())
        .map(|word| {
            let value = match word.len() % 7 {
                0 => json!(word),
                1 => json!(word.len()),
                2 => json!([1, 2.5, "x", null]),
                3 => json!({"a": {"b": true}, "output": [1]}),
                4 => json!(i64::MAX),
                5 => json!(u64::MAX),
                _ => json!(-0.0),
            };
            (word.to_owned(), value)
        })
        .collect()
}

struct Names(Map<String, Value>);

impl Scope for Names {
    fn lookup(&self, name: &str) -> Lookup {
        match self.0.get(name) {
            Some(value) => Lookup::Found(Arc::new(value.clone())),
            None => Lookup::unknown(name, self.0.keys().map(String::as_str)),
        }
    }
}
