//! Expressions: CEL over JSON, for conditions, outputs and `${{ … }}` in params.
//!
//! Only the grammar comes from the crate `cel`: its parser and its syntax tree. The evaluator is
//! our own, because `cel`'s values sit in hash maps (the order of keys is lost, iteration order is
//! random) and its evaluation has no step budget. Here the order of keys is kept, the same
//! expression over the same values gives the same result on every machine, and whatever the
//! expression and the values, evaluation ends within [`limit::STEPS_MAX`] steps and within a
//! bounded amount of memory.
//!
//! The way of an expression: `scan` bounds the text before any recursion, the parser makes
//! a tree, `compile` resolves functions and names, `evaluate` computes.
//!
//! This module must not read a clock, the environment or anything else but the [`Scope`] it is
//! given, and must not panic or overflow the stack on any text or value.

mod api;
mod compile;
mod convert;
mod evaluate;
mod function;
mod nearest;
mod operator;
mod scan;
mod template;
mod time;
mod value;

pub mod limit;

pub use api::{EvaluateError, Expression, Lookup, ParseError, Reference, Resolved, Scope};
pub(crate) use template::key as template_key;
pub use template::{Template, TemplateError};

#[cfg(test)]
mod tests;
