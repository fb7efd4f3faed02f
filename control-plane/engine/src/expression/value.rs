//! CEL values during evaluation: borrowed from the scope's JSON where they can be.
//!
//! Cloning is cheap: what is large is borrowed or shared.

use std::cmp::Ordering;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value as Json};

use super::evaluate::{Budget, Fault};
use super::limit::DATA_DEPTH_MAX;

/// A value. JSON arrays and objects stay as they are until an element is asked for.
#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Borrowed(&'a str),
    Owned(Arc<str>),
    Bytes(Arc<[u8]>),
    Array(&'a [Json]),
    List(Arc<[Value<'a>]>),
    Object(&'a Map<String, Json>),
    Map(Arc<[(Value<'a>, Value<'a>)]>),
    Timestamp(DateTime<Utc>),
    Duration(TimeDelta),
    Type(Kind),
}

/// The type of a value, as `type()` gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    List,
    Map,
    Timestamp,
    Duration,
    Type,
}

impl Kind {
    const ALL: [Kind; 12] = [
        Kind::Null,
        Kind::Bool,
        Kind::Int,
        Kind::Uint,
        Kind::Double,
        Kind::String,
        Kind::Bytes,
        Kind::List,
        Kind::Map,
        Kind::Timestamp,
        Kind::Duration,
        Kind::Type,
    ];

    /// The name of the type in CEL.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Null => "null_type",
            Kind::Bool => "bool",
            Kind::Int => "int",
            Kind::Uint => "uint",
            Kind::Double => "double",
            Kind::String => "string",
            Kind::Bytes => "bytes",
            Kind::List => "list",
            Kind::Map => "map",
            Kind::Timestamp => "google.protobuf.Timestamp",
            Kind::Duration => "google.protobuf.Duration",
            Kind::Type => "type",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The word used in messages.
    pub(super) fn word(self) -> &'static str {
        match self {
            Kind::Null => "null",
            Kind::Timestamp => "timestamp",
            Kind::Duration => "duration",
            other => other.name(),
        }
    }
}

impl<'a> Value<'a> {
    pub(super) fn from_json(json: &'a Json) -> Value<'a> {
        match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => {
                let integer = number.as_i64().map(Value::Int);
                let integer = integer.or_else(|| number.as_u64().map(Value::Uint));
                integer.unwrap_or_else(|| Value::Double(number.as_f64().unwrap_or(f64::NAN)))
            }
            Json::String(text) => Value::Borrowed(text),
            Json::Array(items) => Value::Array(items),
            Json::Object(fields) => Value::Object(fields),
        }
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Value::Null => Kind::Null,
            Value::Bool(_) => Kind::Bool,
            Value::Int(_) => Kind::Int,
            Value::Uint(_) => Kind::Uint,
            Value::Double(_) => Kind::Double,
            Value::Borrowed(_) | Value::Owned(_) => Kind::String,
            Value::Bytes(_) => Kind::Bytes,
            Value::Array(_) | Value::List(_) => Kind::List,
            Value::Object(_) | Value::Map(_) => Kind::Map,
            Value::Timestamp(_) => Kind::Timestamp,
            Value::Duration(_) => Kind::Duration,
            Value::Type(_) => Kind::Type,
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Value::Borrowed(text) => Some(text),
            Value::Owned(text) => Some(text),
            _ => None,
        }
    }

    /// The number of elements of a list or entries of a map.
    pub(super) fn length(&self) -> Option<usize> {
        match self {
            Value::Array(items) => Some(items.len()),
            Value::List(items) => Some(items.len()),
            Value::Object(fields) => Some(fields.len()),
            Value::Map(entries) => Some(entries.len()),
            _ => None,
        }
    }

    /// The element of a list.
    pub(super) fn item(&self, index: usize) -> Option<Value<'a>> {
        match self {
            Value::Array(items) => items.get(index).map(Value::from_json),
            Value::List(items) => items.get(index).cloned(),
            _ => None,
        }
    }

    /// The elements of a list or the keys of a map, in order, each made when it is asked for.
    pub(super) fn elements(&self) -> Option<Box<dyn Iterator<Item = Value<'a>> + 'a>> {
        match self {
            Value::Array(items) => Some(Box::new(items.iter().map(Value::from_json))),
            Value::Object(fields) => Some(Box::new(fields.keys().map(|key| Value::Borrowed(key)))),
            Value::List(items) => {
                let items = Arc::clone(items);
                Some(Box::new((0..items.len()).map(move |index| items[index].clone())))
            }
            Value::Map(entries) => {
                let entries = Arc::clone(entries);
                Some(Box::new((0..entries.len()).map(move |index| entries[index].0.clone())))
            }
            _ => None,
        }
    }

    /// The value of a map under `key`.
    pub(super) fn get(
        &self,
        key: &Value<'_>,
        budget: &mut Budget,
    ) -> Result<Option<Value<'a>>, Fault> {
        match self {
            Value::Object(fields) => {
                budget.pay_bytes(key.text().map_or(0, str::len))?;
                Ok(key.text().and_then(|key| fields.get(key)).map(Value::from_json))
            }
            Value::Map(entries) => {
                for (candidate, value) in entries.iter() {
                    if equal(candidate, key, budget)? {
                        return Ok(Some(value.clone()));
                    }
                }
                Ok(None)
            }
            _ => Ok(None),
        }
    }
}

/// Whether two values are equal: numbers by their value whatever their type, values of different
/// types never.
pub(super) fn equal(
    left: &Value<'_>,
    right: &Value<'_>,
    budget: &mut Budget,
) -> Result<bool, Fault> {
    equal_within(left, right, budget, DATA_DEPTH_MAX)
}

fn equal_within(
    left: &Value<'_>,
    right: &Value<'_>,
    budget: &mut Budget,
    depth: usize,
) -> Result<bool, Fault> {
    budget.pay(1)?;
    let Some(depth) = depth.checked_sub(1) else {
        return Err(Fault::exhausted("the data nests too deep to be compared"));
    };
    match (left.kind(), right.kind()) {
        (Kind::List, Kind::List) => {
            if left.length() != right.length() {
                return Ok(false);
            }
            let pairs = left.elements().into_iter().flatten();
            for (left, right) in pairs.zip(right.elements().into_iter().flatten()) {
                if !equal_within(&left, &right, budget, depth)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        (Kind::Map, Kind::Map) => {
            if left.length() != right.length() {
                return Ok(false);
            }
            for key in left.elements().into_iter().flatten() {
                let (left, right) = (left.get(&key, budget)?, right.get(&key, budget)?);
                let (Some(left), Some(right)) = (left, right) else {
                    return Ok(false);
                };
                if !equal_within(&left, &right, budget, depth)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        (Kind::Null, Kind::Null) => Ok(true),
        (Kind::Type, Kind::Type) => {
            Ok(matches!((left, right), (Value::Type(left), Value::Type(right)) if left == right))
        }
        _ => Ok(compare(left, right, budget)? == Some(Ordering::Equal)),
    }
}

/// The order of two values, `None` if they have none (other types, or NaN).
pub(super) fn compare(
    left: &Value<'_>,
    right: &Value<'_>,
    budget: &mut Budget,
) -> Result<Option<Ordering>, Fault> {
    if let (Some(left), Some(right)) = (left.text(), right.text()) {
        budget.pay_bytes(left.len().min(right.len()))?;
        return Ok(Some(left.cmp(right)));
    }
    Ok(match (left, right) {
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        (Value::Bytes(left), Value::Bytes(right)) => {
            budget.pay_bytes(left.len().min(right.len()))?;
            Some(left.cmp(right))
        }
        (Value::Timestamp(left), Value::Timestamp(right)) => Some(left.cmp(right)),
        (Value::Duration(left), Value::Duration(right)) => Some(left.cmp(right)),
        (Value::Double(left), Value::Double(right)) => left.partial_cmp(right),
        (Value::Double(left), right) => {
            integer(right).and_then(|right| compare_exactly(right, *left)).map(Ordering::reverse)
        }
        (left, Value::Double(right)) => {
            integer(left).and_then(|left| compare_exactly(left, *right))
        }
        (left, right) => match (integer(left), integer(right)) {
            (Some(left), Some(right)) => Some(left.cmp(&right)),
            _ => None,
        },
    })
}

fn integer(value: &Value<'_>) -> Option<i128> {
    match value {
        Value::Int(value) => Some(i128::from(*value)),
        Value::Uint(value) => Some(i128::from(*value)),
        _ => None,
    }
}

/// Compares without rounding the integer to a double: 2^53 and 2^53 + 1 stay different.
fn compare_exactly(integer: i128, double: f64) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    // A cast saturates, and every integer here is far within the bounds of i128.
    let whole = integer.cmp(&(double.trunc() as i128));
    let fraction = double.fract();
    Some(whole.then_with(|| 0.0_f64.partial_cmp(&fraction).unwrap_or(Ordering::Equal)))
}
