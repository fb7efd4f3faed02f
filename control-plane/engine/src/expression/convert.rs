//! Conversions between CEL's types, and to the JSON of a result.

use std::sync::Arc;

use chrono::DateTime;
use serde_json::{Map, Number, Value as Json};

use super::api::shorten;
use super::evaluate::{Budget, Fault};
use super::function::owned;
use super::limit::{DATA_DEPTH_MAX, RESULT_BYTES_MAX};
use super::time;
use super::value::{Kind, Value};

/// A conversion's result, or nothing where the type has no such conversion.
type Converted<'a> = Option<Result<Value<'a>, Fault>>;

/// 2^63 and 2^64: the first doubles beyond the integers.
const INT_END: f64 = 9_223_372_036_854_775_808.0;
const UINT_END: f64 = 18_446_744_073_709_551_616.0;

fn beyond(shown: impl std::fmt::Display, target: &str) -> Fault {
    Fault::new(format!("{shown} is beyond the range of {target}"))
}

fn unreadable(target: &str) -> Fault {
    Fault::new(format!("this text is not {target}"))
}

pub(super) fn to_int<'a>(value: &Value<'_>) -> Converted<'a> {
    Some(match value {
        Value::Int(value) => Ok(Value::Int(*value)),
        Value::Uint(value) => {
            i64::try_from(*value).map(Value::Int).map_err(|_| beyond(value, "int"))
        }
        Value::Double(value) if *value >= -INT_END && *value < INT_END => {
            Ok(Value::Int(*value as i64))
        }
        Value::Double(value) => Err(beyond(value, "int")),
        Value::Timestamp(time) => Ok(Value::Int(time.timestamp())),
        other => {
            let parsed = other.text()?.parse::<i64>();
            parsed.map(Value::Int).map_err(|_| unreadable("an int: a whole number of 64 bits"))
        }
    })
}

pub(super) fn to_uint<'a>(value: &Value<'_>) -> Converted<'a> {
    Some(match value {
        Value::Uint(value) => Ok(Value::Uint(*value)),
        Value::Int(value) => {
            u64::try_from(*value).map(Value::Uint).map_err(|_| beyond(value, "uint"))
        }
        Value::Double(value) if *value >= 0.0 && *value < UINT_END => {
            Ok(Value::Uint(*value as u64))
        }
        Value::Double(value) => Err(beyond(value, "uint")),
        other => {
            let parsed = other.text()?.parse::<u64>();
            let message = "a uint: a whole number of 64 bits, not negative";
            parsed.map(Value::Uint).map_err(|_| unreadable(message))
        }
    })
}

#[expect(clippy::cast_precision_loss, reason = "CEL's double() rounds to the nearest double")]
pub(super) fn to_double<'a>(value: &Value<'_>) -> Converted<'a> {
    Some(match value {
        Value::Double(value) => Ok(Value::Double(*value)),
        Value::Int(value) => Ok(Value::Double(*value as f64)),
        Value::Uint(value) => Ok(Value::Double(*value as f64)),
        other => {
            let parsed = other.text()?.parse::<f64>();
            parsed.map(Value::Double).map_err(|_| unreadable("a double"))
        }
    })
}

pub(super) fn to_bool<'a>(value: &Value<'_>) -> Converted<'a> {
    Some(match value {
        Value::Bool(value) => Ok(Value::Bool(*value)),
        other => match other.text()? {
            "true" | "True" | "TRUE" | "t" | "1" => Ok(Value::Bool(true)),
            "false" | "False" | "FALSE" | "f" | "0" => Ok(Value::Bool(false)),
            _ => Err(unreadable("`true` or `false`")),
        },
    })
}

pub(super) fn to_bytes<'a>(value: &Value<'_>) -> Converted<'a> {
    Some(match value {
        Value::Bytes(bytes) => Ok(Value::Bytes(Arc::clone(bytes))),
        other => Ok(Value::Bytes(Arc::from(other.text()?.as_bytes()))),
    })
}

pub(super) fn to_timestamp<'a>(value: &Value<'_>) -> Converted<'a> {
    Some(match value {
        Value::Timestamp(time) => Ok(Value::Timestamp(*time)),
        Value::Int(seconds) => time::timestamp(DateTime::from_timestamp(*seconds, 0)),
        other => time::read_timestamp(other.text()?),
    })
}

pub(super) fn to_duration<'a>(value: &Value<'_>) -> Converted<'a> {
    Some(match value {
        Value::Duration(delta) => Ok(Value::Duration(*delta)),
        other => time::read_duration(other.text()?),
    })
}

pub(super) fn to_string<'a>(value: &Value<'a>, budget: &mut Budget) -> Converted<'a> {
    Some(Ok(match value {
        Value::Borrowed(_) | Value::Owned(_) => value.clone(),
        Value::Bool(value) => owned(value.to_string()),
        Value::Int(value) => owned(value.to_string()),
        Value::Uint(value) => owned(value.to_string()),
        Value::Double(value) => owned(write_double(*value)),
        Value::Timestamp(time) => owned(time::write_timestamp(time)),
        Value::Duration(delta) => owned(time::write_duration(delta)),
        Value::Type(kind) => owned(kind.name().to_owned()),
        Value::Bytes(bytes) => {
            if let Err(fault) = budget.pay_bytes(bytes.len()) {
                return Some(Err(fault));
            }
            match std::str::from_utf8(bytes) {
                Ok(text) => owned(text.to_owned()),
                Err(_) => return Some(Err(Fault::new("these bytes are not UTF-8 text"))),
            }
        }
        _ => return None,
    }))
}

/// Plain digits for numbers of everyday size, an exponent for the others.
fn write_double(value: f64) -> String {
    let plain = value == 0.0 || !value.is_finite() || (1e-5..1e21).contains(&value.abs());
    if plain { value.to_string() } else { format!("{value:e}") }
}

/// A key of a map as the text it has in JSON.
pub(super) fn key(key: &Value<'_>) -> String {
    match key {
        Value::Bool(key) => key.to_string(),
        Value::Int(key) => key.to_string(),
        Value::Uint(key) => key.to_string(),
        other => other.text().unwrap_or_default().to_owned(),
    }
}

/// The JSON of a result: times and durations as text, bytes as base64, keys in their order.
pub(super) fn to_json(value: &Value<'_>, budget: &mut Budget) -> Result<Json, Fault> {
    to_json_within(value, budget, DATA_DEPTH_MAX)
}

fn to_json_within(value: &Value<'_>, budget: &mut Budget, depth: usize) -> Result<Json, Fault> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(Fault::exhausted("the result nests too deep"));
    };
    match value.kind() {
        Kind::List => {
            weigh(budget, 2)?;
            let mut items = Vec::new();
            for item in value.elements().into_iter().flatten() {
                weigh(budget, 1)?;
                items.push(to_json_within(&item, budget, depth)?);
            }
            Ok(Json::Array(items))
        }
        Kind::Map => {
            weigh(budget, 2)?;
            let mut fields = Map::new();
            match value {
                Value::Object(entries) => {
                    for (name, field) in *entries {
                        weigh(budget, text_bytes(name) + 2)?;
                        let field = to_json_within(&Value::from_json(field), budget, depth)?;
                        fields.insert(name.clone(), field);
                    }
                }
                Value::Map(entries) => {
                    for (name, field) in entries.iter() {
                        let name = key(name);
                        weigh(budget, text_bytes(&name) + 2)?;
                        let field = to_json_within(field, budget, depth)?;
                        if fields.contains_key(&name) {
                            let message =
                                format!("two keys of a map are `{}` in JSON", shorten(&name));
                            return Err(Fault::new(message));
                        }
                        fields.insert(name, field);
                    }
                }
                _ => {}
            }
            Ok(Json::Object(fields))
        }
        _ => scalar(value, budget),
    }
}

fn scalar(value: &Value<'_>, budget: &mut Budget) -> Result<Json, Fault> {
    let json = match value {
        Value::Bool(value) => Json::Bool(*value),
        Value::Int(value) => Json::Number(Number::from(*value)),
        Value::Uint(value) => Json::Number(Number::from(*value)),
        Value::Double(value) => Json::Number(
            Number::from_f64(*value)
                .ok_or_else(|| Fault::new(format!("the result is {value}, which JSON has not")))?,
        ),
        Value::Bytes(bytes) => Json::String(base64(bytes)),
        Value::Timestamp(time) => Json::String(time::write_timestamp(time)),
        Value::Duration(delta) => Json::String(time::write_duration(delta)),
        Value::Type(kind) => Json::String(kind.name().to_owned()),
        other => match other.text() {
            Some(text) => {
                // Weighed before it is copied.
                weigh(budget, text_bytes(text))?;
                return Ok(Json::String(text.to_owned()));
            }
            None => Json::Null,
        },
    };
    let bytes = match &json {
        Json::String(text) => text_bytes(text),
        Json::Number(number) => number.to_string().len(),
        _ => 4,
    };
    weigh(budget, bytes)?;
    Ok(json)
}

/// Counts bytes of the result against their bound.
fn weigh(budget: &mut Budget, bytes: usize) -> Result<(), Fault> {
    budget.result_bytes = budget.result_bytes.saturating_add(bytes);
    if budget.result_bytes > RESULT_BYTES_MAX {
        return Err(Fault::exhausted(format!(
            "the result is larger than {RESULT_BYTES_MAX} bytes of JSON"
        )));
    }
    Ok(())
}

/// The length of a text in JSON, quotes and escapes included.
fn text_bytes(text: &str) -> usize {
    let escapes = text.bytes().map(|byte| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 1,
        0..=0x1f => 5,
        _ => 0,
    });
    text.len() + 2 + escapes.sum::<usize>()
}

/// Standard base64 with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            if digit <= chunk.len() {
                let index = (bits >> (18 - 6 * digit)) & 63;
                text.push(char::from(DIGITS[index as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}
