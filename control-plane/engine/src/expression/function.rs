//! The functions of CEL's standard library: their signatures and what they do.

use std::sync::Arc;

use regex::{Regex, RegexBuilder};

use super::convert;
use super::evaluate::{Budget, Fault};
use super::limit::{
    PATTERN_BYTES_MAX, PATTERN_COMPILED_BYTES_MAX, PATTERN_NESTING_MAX, PATTERN_STEPS,
};
use super::time::{self, Part};
use super::value::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Size,
    Contains,
    StartsWith,
    EndsWith,
    Matches,
    ToInt,
    ToUint,
    ToDouble,
    ToString,
    ToBool,
    ToBytes,
    ToTimestamp,
    ToDuration,
    Type,
    Dyn,
    Get(Part),
}

/// How a function is called. The target of a member call is not among the counted arguments.
#[derive(Debug)]
pub(super) struct Signature {
    pub(super) name: &'static str,
    pub(super) member: bool,
    pub(super) least: usize,
    pub(super) most: usize,
    pub(super) function: Function,
}

const fn global(name: &'static str, arguments: usize, function: Function) -> Signature {
    Signature { name, member: false, least: arguments, most: arguments, function }
}

const fn member(name: &'static str, arguments: usize, function: Function) -> Signature {
    Signature { name, member: true, least: arguments, most: arguments, function }
}

/// A part of a time, with an optional time zone.
const fn part(name: &'static str, part: Part) -> Signature {
    Signature { name, member: true, least: 0, most: 1, function: Function::Get(part) }
}

pub(super) const SIGNATURES: [Signature; 27] = [
    global("size", 1, Function::Size),
    member("size", 0, Function::Size),
    member("contains", 1, Function::Contains),
    member("startsWith", 1, Function::StartsWith),
    member("endsWith", 1, Function::EndsWith),
    member("matches", 1, Function::Matches),
    global("matches", 2, Function::Matches),
    global("int", 1, Function::ToInt),
    global("uint", 1, Function::ToUint),
    global("double", 1, Function::ToDouble),
    global("string", 1, Function::ToString),
    global("bool", 1, Function::ToBool),
    global("bytes", 1, Function::ToBytes),
    global("timestamp", 1, Function::ToTimestamp),
    global("duration", 1, Function::ToDuration),
    global("type", 1, Function::Type),
    global("dyn", 1, Function::Dyn),
    part("getFullYear", Part::FullYear),
    part("getMonth", Part::Month),
    part("getDate", Part::Date),
    part("getDayOfMonth", Part::DayOfMonth),
    part("getDayOfWeek", Part::DayOfWeek),
    part("getDayOfYear", Part::DayOfYear),
    part("getHours", Part::Hours),
    part("getMinutes", Part::Minutes),
    part("getSeconds", Part::Seconds),
    part("getMilliseconds", Part::Milliseconds),
];

/// The macros, which the parser takes away where they are used rightly.
pub(super) const MACROS: [(&str, &str); 7] = [
    ("has", "has(value.field)"),
    ("all", "list.all(x, condition)"),
    ("exists", "list.exists(x, condition)"),
    ("exists_one", "list.exists_one(x, condition)"),
    ("existsOne", "list.existsOne(x, condition)"),
    ("map", "list.map(x, value)` or `list.map(x, condition, value)"),
    ("filter", "list.filter(x, condition)"),
];

impl Function {
    fn name(self) -> &'static str {
        let signature = SIGNATURES.iter().find(|signature| signature.function == self);
        signature.map_or("?", |signature| signature.name)
    }

    pub(super) fn apply<'a>(
        self,
        args: &[Value<'a>],
        budget: &mut Budget,
    ) -> Result<Value<'a>, Fault> {
        match (self, args) {
            (Function::Size, [value]) => size(value, budget),
            (Function::Type, [value]) => Ok(Value::Type(value.kind())),
            (Function::Dyn, [value]) => Ok(value.clone()),
            (Function::Contains | Function::StartsWith | Function::EndsWith, [text, part]) => {
                self.search(text, part, budget)
            }
            (Function::Matches, [text, pattern_text]) => {
                let Some(source) = pattern_text.text() else {
                    return Err(self.mismatch(args));
                };
                budget.pay(PATTERN_STEPS)?;
                let regex = pattern(source).map_err(Fault::new)?;
                is_match(text, &regex, budget)
            }
            (Function::Get(part), [value, zone @ ..]) => {
                let zone = match zone.first() {
                    Some(zone) => Some(zone.text().ok_or_else(|| self.mismatch(args))?),
                    None => None,
                };
                time::part(value, part, zone).unwrap_or_else(|| Err(self.mismatch(args)))
            }
            (_, [value]) => {
                budget.pay_bytes(value.text().map_or(0, str::len))?;
                let converted = match self {
                    Function::ToInt => convert::to_int(value),
                    Function::ToUint => convert::to_uint(value),
                    Function::ToDouble => convert::to_double(value),
                    Function::ToString => convert::to_string(value, budget),
                    Function::ToBool => convert::to_bool(value),
                    Function::ToBytes => convert::to_bytes(value),
                    Function::ToTimestamp => convert::to_timestamp(value),
                    Function::ToDuration => convert::to_duration(value),
                    _ => None,
                };
                converted.unwrap_or_else(|| Err(self.mismatch(args)))
            }
            _ => Err(self.mismatch(args)),
        }
    }

    fn search<'a>(
        self,
        text: &Value<'_>,
        part: &Value<'_>,
        budget: &mut Budget,
    ) -> Result<Value<'a>, Fault> {
        let (Some(whole), Some(needle)) = (text.text(), part.text()) else {
            return Err(self.mismatch(&[text.clone(), part.clone()]));
        };
        Ok(Value::Bool(match self {
            Function::Contains => {
                budget.pay_bytes(whole.len())?;
                whole.contains(needle)
            }
            Function::StartsWith => whole.starts_with(needle),
            _ => whole.ends_with(needle),
        }))
    }

    fn mismatch(self, args: &[Value<'_>]) -> Fault {
        let kinds: Vec<&str> = args.iter().map(|arg| arg.kind().word()).collect();
        Fault::new(format!("`{}` does not apply to {}", self.name(), kinds.join(" and ")))
    }
}

/// Characters of a string, bytes, elements or entries.
fn size<'a>(value: &Value<'_>, budget: &mut Budget) -> Result<Value<'a>, Fault> {
    let size = match value {
        Value::Bytes(bytes) => bytes.len(),
        other => match (other.text(), other.length()) {
            (Some(text), _) => {
                budget.pay_bytes(text.len())?;
                text.chars().count()
            }
            (None, Some(length)) => length,
            (None, None) => return Err(Function::Size.mismatch(std::slice::from_ref(value))),
        },
    };
    Ok(Value::Int(i64::try_from(size).unwrap_or(i64::MAX)))
}

/// Compiles a pattern within the bounds.
pub(super) fn pattern(source: &str) -> Result<Regex, String> {
    if source.len() > PATTERN_BYTES_MAX {
        let length = source.len();
        return Err(format!(
            "the pattern is {length} bytes long, more than the {PATTERN_BYTES_MAX} allowed"
        ));
    }
    RegexBuilder::new(source)
        .size_limit(PATTERN_COMPILED_BYTES_MAX)
        .dfa_size_limit(PATTERN_COMPILED_BYTES_MAX)
        .nest_limit(PATTERN_NESTING_MAX)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "the pattern is too large once compiled".to_owned(),
            other => {
                // The library draws the pattern over several lines; the last one has the cause.
                let text = other.to_string();
                let cause = text.lines().last().unwrap_or_default();
                format!("invalid pattern: {}", cause.trim_start_matches("error: "))
            }
        })
}

/// Whether the pattern is found anywhere in the text.
pub(super) fn is_match<'a>(
    text: &Value<'_>,
    regex: &Regex,
    budget: &mut Budget,
) -> Result<Value<'a>, Fault> {
    let Some(text_) = text.text() else {
        return Err(Function::Matches.mismatch(std::slice::from_ref(text)));
    };
    // A search costs more than a copy: at worst the text's length times the pattern's.
    budget.pay_bytes(text_.len().saturating_mul(1 + regex.as_str().len() / 8))?;
    Ok(Value::Bool(regex.is_match(text_)))
}

/// A string value, owned.
pub(super) fn owned<'a>(text: String) -> Value<'a> {
    Value::Owned(Arc::from(text))
}
