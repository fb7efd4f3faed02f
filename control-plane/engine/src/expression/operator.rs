//! Binary operators on values: arithmetic, order, membership, indexing.

use std::cmp::Ordering;
use std::sync::Arc;

use cel::common::ast::operators;

use super::evaluate::{Budget, Fault};
use super::limit::{LIST_ITEMS_MAX, STRING_BYTES_MAX};
use super::nearest::{hint, nearest};
use super::time;
use super::value::{self, Kind, Value};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Index,
}

/// Each operator with the parser's name and its own sign.
const OPERATORS: [(Operator, &str, &str); 13] = [
    (Operator::Add, operators::ADD, "+"),
    (Operator::Subtract, operators::SUBSTRACT, "-"),
    (Operator::Multiply, operators::MULTIPLY, "*"),
    (Operator::Divide, operators::DIVIDE, "/"),
    (Operator::Remainder, operators::MODULO, "%"),
    (Operator::Equal, operators::EQUALS, "=="),
    (Operator::NotEqual, operators::NOT_EQUALS, "!="),
    (Operator::Less, operators::LESS, "<"),
    (Operator::LessOrEqual, operators::LESS_EQUALS, "<="),
    (Operator::Greater, operators::GREATER, ">"),
    (Operator::GreaterOrEqual, operators::GREATER_EQUALS, ">="),
    (Operator::In, operators::IN, "in"),
    (Operator::Index, operators::INDEX, "[]"),
];

impl Operator {
    pub(super) fn from_call(name: &str) -> Option<Operator> {
        OPERATORS.iter().find(|(_, call, _)| *call == name).map(|(operator, ..)| *operator)
    }

    fn sign(self) -> &'static str {
        OPERATORS.iter().find(|(operator, ..)| *operator == self).map_or("?", |(.., sign)| sign)
    }

    pub(super) fn apply<'a>(
        self,
        left: &Value<'a>,
        right: &Value<'a>,
        budget: &mut Budget,
    ) -> Result<Value<'a>, Fault> {
        let order = |wanted: fn(Ordering) -> bool, budget: &mut Budget| {
            let order = self.order(left, right, budget)?;
            Ok(Value::Bool(order.is_some_and(wanted)))
        };
        match self {
            Operator::Equal => value::equal(left, right, budget).map(Value::Bool),
            Operator::NotEqual => {
                value::equal(left, right, budget).map(|equal| Value::Bool(!equal))
            }
            Operator::Less => order(Ordering::is_lt, budget),
            Operator::LessOrEqual => order(Ordering::is_le, budget),
            Operator::Greater => order(Ordering::is_gt, budget),
            Operator::GreaterOrEqual => order(Ordering::is_ge, budget),
            Operator::In => contains(left, right, budget),
            Operator::Index => index(left, right, budget),
            _ => self.arithmetic(left, right, budget),
        }
    }

    /// The order of two values of comparable types; none where a NaN is among them.
    fn order(
        self,
        left: &Value<'_>,
        right: &Value<'_>,
        budget: &mut Budget,
    ) -> Result<Option<Ordering>, Fault> {
        let (kind, other) = (left.kind(), right.kind());
        let ordered = !matches!(kind, Kind::Null | Kind::List | Kind::Map | Kind::Type);
        if (kind == other && ordered) || (is_number(kind) && is_number(other)) {
            return value::compare(left, right, budget);
        }
        Err(self.mismatch(left, right))
    }

    fn arithmetic<'a>(
        self,
        left: &Value<'a>,
        right: &Value<'a>,
        budget: &mut Budget,
    ) -> Result<Value<'a>, Fault> {
        match (left, right) {
            (Value::Int(left), Value::Int(right)) => self.int(*left, *right).map(Value::Int),
            (Value::Uint(left), Value::Uint(right)) => self.uint(*left, *right).map(Value::Uint),
            (Value::Double(left_number), Value::Double(right_number)) => {
                let result = match self {
                    Operator::Add => left_number + right_number,
                    Operator::Subtract => left_number - right_number,
                    Operator::Multiply => left_number * right_number,
                    Operator::Divide => left_number / right_number,
                    _ => return Err(self.mismatch(left, right)),
                };
                Ok(Value::Double(result))
            }
            _ if self == Operator::Add => self.add(left, right, budget),
            _ if self == Operator::Subtract => {
                time::subtract(left, right).unwrap_or_else(|| Err(self.mismatch(left, right)))
            }
            _ => Err(self.mismatch(left, right)),
        }
    }

    fn int(self, left: i64, right: i64) -> Result<i64, Fault> {
        self.check_divisor(right == 0)?;
        let result = match self {
            Operator::Add => left.checked_add(right),
            Operator::Subtract => left.checked_sub(right),
            Operator::Multiply => left.checked_mul(right),
            Operator::Divide => left.checked_div(right),
            _ => left.checked_rem(right),
        };
        result.ok_or_else(|| self.overflow(left, right))
    }

    fn uint(self, left: u64, right: u64) -> Result<u64, Fault> {
        self.check_divisor(right == 0)?;
        let result = match self {
            Operator::Add => left.checked_add(right),
            Operator::Subtract => left.checked_sub(right),
            Operator::Multiply => left.checked_mul(right),
            Operator::Divide => left.checked_div(right),
            _ => left.checked_rem(right),
        };
        result.ok_or_else(|| self.overflow(left, right))
    }

    fn check_divisor(self, zero: bool) -> Result<(), Fault> {
        match self {
            Operator::Divide if zero => Err(Fault::new("division by zero")),
            Operator::Remainder if zero => Err(Fault::new("remainder of a division by zero")),
            _ => Ok(()),
        }
    }

    fn overflow(self, left: impl std::fmt::Display, right: impl std::fmt::Display) -> Fault {
        let sign = self.sign();
        Fault::new(format!("{left} {sign} {right} is beyond the range of 64-bit integers"))
    }

    fn add<'a>(
        self,
        left: &Value<'a>,
        right: &Value<'a>,
        budget: &mut Budget,
    ) -> Result<Value<'a>, Fault> {
        if let (Some(left), Some(right)) = (left.text(), right.text()) {
            let length = grown(left.len() + right.len(), STRING_BYTES_MAX, "bytes of a string")?;
            budget.pay_bytes(length)?;
            return Ok(Value::Owned(Arc::from([left, right].concat())));
        }
        match (left.kind(), right.kind()) {
            (Kind::List, Kind::List) => {
                let length = left.length().unwrap_or(0) + right.length().unwrap_or(0);
                budget.pay_items(grown(length, LIST_ITEMS_MAX, "elements of a list")?)?;
                let items = left.elements().into_iter().chain(right.elements()).flatten();
                Ok(Value::List(items.collect()))
            }
            (Kind::Bytes, Kind::Bytes) => {
                let (Value::Bytes(left), Value::Bytes(right)) = (left, right) else {
                    return Err(self.mismatch(left, right));
                };
                let length = grown(left.len() + right.len(), STRING_BYTES_MAX, "bytes")?;
                budget.pay_bytes(length)?;
                Ok(Value::Bytes(Arc::from([&**left, &**right].concat())))
            }
            _ => time::add(left, right).unwrap_or_else(|| Err(self.mismatch(left, right))),
        }
    }

    fn mismatch(self, left: &Value<'_>, right: &Value<'_>) -> Fault {
        let (sign, kind, other) = (self.sign(), left.kind(), right.kind());
        let remedy = if is_number(kind) && is_number(other) && kind != other {
            "; convert one, as in `double(x)`"
        } else if self == Operator::Add && (kind == Kind::String || other == Kind::String) {
            "; convert to text with `string(x)`"
        } else {
            ""
        };
        Fault::new(format!(
            "`{sign}` does not apply to {} and {}{remedy}",
            kind.word(),
            other.word()
        ))
    }
}

fn is_number(kind: Kind) -> bool {
    matches!(kind, Kind::Int | Kind::Uint | Kind::Double)
}

/// Refuses a value that would grow beyond its bound.
pub(super) fn grown(length: usize, length_max: usize, what: &str) -> Result<usize, Fault> {
    if length > length_max {
        return Err(Fault::exhausted(format!(
            "{length} {what}, more than the {length_max} allowed"
        )));
    }
    Ok(length)
}

fn contains<'a>(
    needle: &Value<'a>,
    container: &Value<'a>,
    budget: &mut Budget,
) -> Result<Value<'a>, Fault> {
    match container.kind() {
        Kind::Map => container.get(needle, budget).map(|found| Value::Bool(found.is_some())),
        Kind::List => {
            for item in container.elements().into_iter().flatten() {
                if value::equal(needle, &item, budget)? {
                    return Ok(Value::Bool(true));
                }
            }
            Ok(Value::Bool(false))
        }
        other => {
            let word = other.word();
            Err(Fault::new(format!("`in` needs a list or a map on its right, not {word}")))
        }
    }
}

fn index<'a>(
    container: &Value<'a>,
    key: &Value<'a>,
    budget: &mut Budget,
) -> Result<Value<'a>, Fault> {
    match container.kind() {
        Kind::Map => container.get(key, budget)?.ok_or_else(|| missing(container, key)),
        Kind::List => {
            let length = container.length().unwrap_or(0);
            let position = position(key).ok_or_else(|| {
                Fault::new(format!("a list is indexed by whole numbers, not {}", key.kind().word()))
            })?;
            let item = usize::try_from(position).ok().and_then(|index| container.item(index));
            item.ok_or_else(|| {
                Fault::new(format!("index {position} is outside a list of {length} element(s)"))
            })
        }
        other => Err(Fault::new(format!("{} cannot be indexed", other.word()))),
    }
}

/// The whole number a key is, if it is one.
fn position(key: &Value<'_>) -> Option<i128> {
    match key {
        Value::Int(index) => Some(i128::from(*index)),
        Value::Uint(index) => Some(i128::from(*index)),
        Value::Double(index) if index.fract() == 0.0 => Some(*index as i128),
        _ => None,
    }
}

/// A field of a map.
pub(super) fn select<'a>(
    operand: &Value<'a>,
    field: &str,
    budget: &mut Budget,
) -> Result<Value<'a>, Fault> {
    if operand.kind() != Kind::Map {
        let word = operand.kind().word();
        return Err(Fault::new(format!("no field `{field}` in {word}: only maps have fields")));
    }
    let key = Value::Borrowed(field);
    let found = match operand {
        // The key's life is shorter than the map's; an object needs the key only to look.
        Value::Object(fields) => {
            budget.pay_bytes(field.len())?;
            fields.get(field).map(Value::from_json)
        }
        other => other.get(&key, budget)?,
    };
    found.ok_or_else(|| missing(operand, &key))
}

fn missing(container: &Value<'_>, key: &Value<'_>) -> Fault {
    let shown = match key {
        Value::Int(key) => key.to_string(),
        Value::Uint(key) => format!("{key}u"),
        Value::Double(key) => key.to_string(),
        Value::Bool(key) => key.to_string(),
        other => match other.text() {
            Some(text) => super::api::shorten(text),
            None => format!("of type {}", other.kind().word()),
        },
    };
    let keys: Vec<Value<'_>> = container.elements().into_iter().flatten().take(256).collect();
    let near = key.text().and_then(|text| nearest(text, keys.iter().filter_map(Value::text)));
    Fault::new(format!("no such key `{shown}`{}", hint(near)))
}
