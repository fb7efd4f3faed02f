//! Timestamps and durations: reading, writing, arithmetic and their parts.

use chrono::{DateTime, Datelike, FixedOffset, SecondsFormat, TimeDelta, TimeZone, Timelike, Utc};

use super::evaluate::Fault;
use super::value::Value;

/// The first and the last second of CEL's timestamps: 0001-01-01 and 9999-12-31.
const TIMESTAMP_SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
/// The longest duration of protobuf, about 10,000 years.
const DURATION_SECONDS_MAX: i64 = 315_576_000_000;
const NANOS_PER_SECOND: i128 = 1_000_000_000;

/// A part of a timestamp or of a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    FullYear,
    Month,
    Date,
    DayOfMonth,
    DayOfWeek,
    DayOfYear,
    Hours,
    Minutes,
    Seconds,
    Milliseconds,
}

/// The sum, or nothing where the types have none.
pub(super) fn add<'a>(left: &Value<'_>, right: &Value<'_>) -> Option<Result<Value<'a>, Fault>> {
    Some(match (left, right) {
        (Value::Timestamp(time), Value::Duration(delta))
        | (Value::Duration(delta), Value::Timestamp(time)) => {
            timestamp(time.checked_add_signed(*delta))
        }
        (Value::Duration(left), Value::Duration(right)) => duration(left.checked_add(right)),
        _ => return None,
    })
}

/// The difference, or nothing where the types have none.
pub(super) fn subtract<'a>(
    left: &Value<'_>,
    right: &Value<'_>,
) -> Option<Result<Value<'a>, Fault>> {
    Some(match (left, right) {
        (Value::Timestamp(time), Value::Duration(delta)) => {
            timestamp(time.checked_sub_signed(*delta))
        }
        (Value::Timestamp(left), Value::Timestamp(right)) => {
            duration(Some(left.signed_duration_since(*right)))
        }
        (Value::Duration(left), Value::Duration(right)) => duration(left.checked_sub(right)),
        _ => return None,
    })
}

/// A timestamp within the range, or an error.
pub(super) fn timestamp<'a>(time: Option<DateTime<Utc>>) -> Result<Value<'a>, Fault> {
    time.filter(|time| TIMESTAMP_SECONDS.contains(&time.timestamp()))
        .map(Value::Timestamp)
        .ok_or_else(|| Fault::new("the timestamp is outside the years 1 to 9999"))
}

/// A duration within the range, or an error.
pub(super) fn duration<'a>(delta: Option<TimeDelta>) -> Result<Value<'a>, Fault> {
    delta
        .filter(|delta| delta.num_seconds().abs() <= DURATION_SECONDS_MAX)
        .map(Value::Duration)
        .ok_or_else(|| Fault::new("the duration is longer than 10,000 years"))
}

pub(super) fn read_timestamp<'a>(text: &str) -> Result<Value<'a>, Fault> {
    match DateTime::parse_from_rfc3339(text) {
        Ok(time) => timestamp(Some(time.with_timezone(&Utc))),
        Err(_) => {
            Err(Fault::new("this text is not an RFC 3339 time such as `2026-01-31T12:00:00Z`"))
        }
    }
}

pub(super) fn write_timestamp(time: &DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// Reads numbers and units: `1h30m`, `-1.5s`, `250ms`.
pub(super) fn read_duration<'a>(text: &str) -> Result<Value<'a>, Fault> {
    let nanos = duration_nanos(text).ok_or_else(|| {
        Fault::new("this text is not a duration such as `1h30m`, `1.5s` or `250ms`")
    })?;
    let seconds = i64::try_from(nanos.div_euclid(NANOS_PER_SECOND)).ok();
    let rest = u32::try_from(nanos.rem_euclid(NANOS_PER_SECOND)).unwrap_or(0);
    duration(seconds.and_then(|seconds| TimeDelta::new(seconds, rest)))
}

fn duration_nanos(text: &str) -> Option<i128> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0_i128;
    while !rest.is_empty() || total == 0 && text.is_empty() {
        let number_end = rest.find(|char: char| !char.is_ascii_digit() && char != '.')?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|char: char| char.is_ascii_digit() || char == '.');
        let (unit, tail) = tail.split_at(unit_end.unwrap_or(tail.len()));
        total = total.checked_add(nanos_of(number, unit)?)?;
        rest = tail;
    }
    // A sign alone is no duration.
    text.ends_with(|char: char| char.is_alphabetic()).then_some(sign * total)
}

fn nanos_of(number: &str, unit: &str) -> Option<i128> {
    let scale: i128 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => NANOS_PER_SECOND,
        "m" => 60 * NANOS_PER_SECOND,
        "h" => 3_600 * NANOS_PER_SECOND,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut nanos = whole.checked_mul(scale)?;
    let mut place = scale;
    for digit in fraction.bytes() {
        place /= 10;
        nanos = nanos.checked_add(i128::from(digit - b'0') * place)?;
    }
    Some(nanos)
}

/// Seconds with as many decimals as are needed: `1.5s`.
pub(super) fn write_duration(delta: &TimeDelta) -> String {
    let (seconds, nanos) = (delta.num_seconds(), delta.subsec_nanos());
    let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
    let whole = format!("{sign}{}", seconds.unsigned_abs());
    if nanos == 0 {
        return format!("{whole}s");
    }
    let fraction = format!("{:09}", nanos.unsigned_abs());
    format!("{whole}.{}s", fraction.trim_end_matches('0'))
}

/// A part of a time or of a duration, or nothing where the value has no such part.
pub(super) fn part<'a>(
    value: &Value<'_>,
    part: Part,
    zone: Option<&str>,
) -> Option<Result<Value<'a>, Fault>> {
    match (value, zone) {
        (Value::Timestamp(time), None) => Some(Ok(Value::Int(part_of_time(time, part)))),
        (Value::Timestamp(time), Some(zone)) => {
            Some(part_in_zone(time, part, zone).map(Value::Int))
        }
        (Value::Duration(delta), None) => part_of_duration(delta, part).map(Value::Int).map(Ok),
        _ => None,
    }
}

fn part_of_time<Z: TimeZone>(time: &DateTime<Z>, part: Part) -> i64 {
    i64::from(match part {
        Part::FullYear => return i64::from(time.year()),
        Part::Month => time.month0(),
        Part::Date => time.day(),
        Part::DayOfMonth => time.day0(),
        Part::DayOfWeek => time.weekday().num_days_from_sunday(),
        Part::DayOfYear => time.ordinal0(),
        Part::Hours => time.hour(),
        Part::Minutes => time.minute(),
        Part::Seconds => time.second(),
        Part::Milliseconds => time.timestamp_subsec_millis().min(999),
    })
}

fn part_in_zone(time: &DateTime<Utc>, part: Part, zone: &str) -> Result<i64, Fault> {
    if let Ok(zone) = zone.parse::<chrono_tz::Tz>() {
        return Ok(part_of_time(&time.with_timezone(&zone), part));
    }
    let offset = offset(zone).ok_or_else(|| {
        Fault::new("unknown time zone: expected a name such as `Europe/Berlin` or `+02:00`")
    })?;
    Ok(part_of_time(&time.with_timezone(&offset), part))
}

/// An offset from UTC: `+02:00`, `-08:30`, `02:00`.
fn offset(zone: &str) -> Option<FixedOffset> {
    let (sign, rest) = match zone.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, zone.strip_prefix('+').unwrap_or(zone)),
    };
    let (hours, minutes) = rest.split_once(':')?;
    let two = |digits: &str| {
        let right = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_digit());
        right.then(|| digits.parse::<i32>().ok()).flatten()
    };
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    FixedOffset::east_opt(sign * (hours * 3600 + minutes * 60))
}

/// As CEL has it: the whole duration in hours, minutes or seconds, but the milliseconds beside the
/// seconds.
fn part_of_duration(delta: &TimeDelta, part: Part) -> Option<i64> {
    Some(match part {
        Part::Hours => delta.num_hours(),
        Part::Minutes => delta.num_minutes(),
        Part::Seconds => delta.num_seconds(),
        Part::Milliseconds => i64::from(delta.subsec_nanos() / 1_000_000),
        _ => return None,
    })
}
