//! The expressions that the model knows: how they are written, and what they mean.

use serde_json::{Value, json};

use crate::language::Key;

#[derive(Clone, Debug)]
pub(crate) enum Expr {
    Literal(Value),
    /// A field of a step's result.
    Of(Key, &'static str),
    /// A bare name, looked up in the outputs of the steps directly before.
    Bare(&'static str),
    Item(&'static str),
    Index,
    Iteration,
    FailureStep,
    FailureError,
    Not(Box<Expr>),
    Below(Box<Expr>, i64),
    Is(Box<Expr>, &'static str),
    /// `a && b` or `a || b`.
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    /// The body's step in a `while`: null before the first iteration, or its `n` is below.
    Body(Key, i64),
    /// Never has a value.
    Broken,
}

/// What an expression may read.
pub(crate) trait Names {
    fn step(&self, key: Key) -> Value;
    fn bare(&self, name: &str) -> Option<Value>;
    fn item(&self) -> Value;
    fn index(&self) -> Value;
    fn iteration(&self) -> Value;
    fn failure(&self) -> (String, String);
}

impl Expr {
    pub(crate) fn written(&self, ids: &[String]) -> String {
        match self {
            Self::Literal(value) => value.to_string(),
            Self::Of(key, field) => format!("{}.{field}", step(&ids[*key])),
            Self::Bare(name) | Self::Item(name) => (*name).to_owned(),
            Self::Index => "index".to_owned(),
            Self::Iteration => "iteration".to_owned(),
            Self::FailureStep => "failure.step".to_owned(),
            Self::FailureError => "failure.error".to_owned(),
            Self::Not(inner) => format!("!({})", inner.written(ids)),
            Self::Below(inner, bound) => format!("{} < {bound}", inner.written(ids)),
            Self::Is(inner, word) => format!("{} == '{word}'", inner.written(ids)),
            Self::And(a, b) => format!("({} && {})", a.written(ids), b.written(ids)),
            Self::Or(a, b) => format!("({} || {})", a.written(ids), b.written(ids)),
            Self::Body(key, bound) => {
                let id = step(&ids[*key]);
                format!("{id} == null || {id}.n < {bound}")
            }
            Self::Broken => "1 / 0 > 1".to_owned(),
        }
    }

    /// The value; `None`: there is none.
    pub(crate) fn value(&self, names: &dyn Names) -> Option<Value> {
        let truth = |expr: &Self| expr.value(names).and_then(|value| value.as_bool());
        Some(match self {
            Self::Literal(value) => value.clone(),
            Self::Of(key, field) => names.step(*key).get(field)?.clone(),
            Self::Bare(name) => names.bare(name)?,
            Self::Item(_) => names.item(),
            Self::Index => names.index(),
            Self::Iteration => names.iteration(),
            Self::FailureStep => json!(names.failure().0),
            Self::FailureError => json!(names.failure().1),
            Self::Not(inner) => json!(!truth(inner)?),
            Self::Below(inner, bound) => json!(inner.value(names)?.as_i64()? < *bound),
            Self::Is(inner, word) => json!(inner.value(names)? == json!(word)),
            // Either side may lack a value when the other decides.
            Self::And(a, b) => match (truth(a), truth(b)) {
                (Some(false), _) | (_, Some(false)) => json!(false),
                (Some(true), Some(true)) => json!(true),
                _ => return None,
            },
            Self::Or(a, b) => match (truth(a), truth(b)) {
                (Some(true), _) | (_, Some(true)) => json!(true),
                (Some(false), Some(false)) => json!(false),
                _ => return None,
            },
            Self::Body(key, bound) => match names.step(*key) {
                Value::Null => json!(true),
                result => json!(result.get("n")?.as_i64()? < *bound),
            },
            Self::Broken => return None,
        })
    }
}

/// A step by its id: as a bare name where that is one.
fn step(id: &str) -> String {
    let reserved = ["if", "while", "for", "foreach", "wait", "in"];
    let plain = !id.contains('-') && !reserved.iter().any(|word| id.starts_with(word));
    // Both ways of naming a step are used.
    if plain && id.len().is_multiple_of(2) { id.to_owned() } else { format!("steps[\"{id}\"]") }
}
