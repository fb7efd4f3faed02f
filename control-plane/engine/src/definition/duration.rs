//! Durations: one or more of number and unit, as `1m30s`.

use std::time::Duration;

use super::limit::DURATION_DAYS_MAX;

/// The units, longest name first where one begins another.
const UNITS: [(&str, u64); 5] = [
    ("ms", 1_000_000),
    ("s", NANOS),
    ("m", 60 * NANOS),
    ("h", 3600 * NANOS),
    ("d", 86_400 * NANOS),
];
const NANOS: u64 = 1_000_000_000;
/// The units in which a duration is shown, the largest first, in seconds.
const SHOWN: [(&str, u64); 3] = [("d", 86_400), ("h", 3600), ("m", 60)];
/// Digits of a fraction: more would be below a nanosecond.
const FRACTION_DIGITS_MAX: usize = 9;

/// Reads a duration: one or more of number and unit (`ms`, `s`, `m`, `h`, `d`), as `1m30s` or
/// `1.5s`; positive.
///
/// # Errors
/// A sentence that says what is wrong with the text.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let shown = shorten(text);
    let wrong =
        |why: &str| Err(format!("`{shown}` is not a duration like `30s` or `1m30s`: {why}"));
    let mut rest = text;
    let mut nanos: u128 = 0;
    if text.is_empty() {
        return Err("a duration like `30s` or `1m30s` is expected, found empty text".to_owned());
    }
    while !rest.is_empty() {
        if rest.starts_with('-') {
            return wrong("it must be positive");
        }
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (whole, after) = rest.split_at(digits);
        let Ok(whole) = whole.parse::<u64>() else {
            let why = if digits == 0 { "a number is expected" } else { "it is too long" };
            return wrong(why);
        };
        let (fraction, after) = match after.strip_prefix('.') {
            None => ("", after),
            Some(after) => {
                let digits =
                    after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
                if digits == 0 || digits > FRACTION_DIGITS_MAX {
                    return wrong("one to nine digits are expected after the point");
                }
                after.split_at(digits)
            }
        };
        let unit_length = after.len() - after.trim_start_matches(|c: char| c.is_alphabetic()).len();
        let (unit, after) = after.split_at(unit_length);
        let Some(&(_, factor)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return wrong(&if unit.is_empty() {
                "it lacks a unit, one of `ms`, `s`, `m`, `h`, `d`".to_owned()
            } else {
                format!("`{}` is not one of the units `ms`, `s`, `m`, `h`, `d`", shorten(unit))
            });
        };
        nanos += u128::from(whole) * u128::from(factor) + part(fraction, factor);
        if nanos > u128::from(DURATION_DAYS_MAX) * 86_400 * u128::from(NANOS) {
            return wrong(&format!("it is longer than {DURATION_DAYS_MAX} days"));
        }
        rest = after;
    }
    let seconds = u64::try_from(nanos / u128::from(NANOS)).unwrap_or(u64::MAX);
    let below = u32::try_from(nanos % u128::from(NANOS)).unwrap_or(0);
    match Duration::new(seconds, below) {
        Duration::ZERO => wrong("it must be positive"),
        duration => Ok(duration),
    }
}

/// A duration in the words in which definitions have it, as `1m30s` or `1.5s`, to the millisecond
/// unless it is shorter.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        return format!("{duration:?}");
    }
    let (mut rest, mut shown) = (duration.as_secs(), String::new());
    for (unit, seconds) in SHOWN {
        if rest >= seconds {
            shown.push_str(&format!("{}{unit}", rest / seconds));
            rest %= seconds;
        }
    }
    match duration.subsec_millis() {
        0 if rest == 0 => {}
        0 => shown.push_str(&format!("{rest}s")),
        millis => {
            let fraction = format!("{millis:03}");
            shown.push_str(&format!("{rest}.{}s", fraction.trim_end_matches('0')));
        }
    }
    shown
}

/// The digits behind the point, as nanoseconds of the unit.
fn part(fraction: &str, factor: u64) -> u128 {
    let digits: u128 = fraction.parse().unwrap_or(0);
    let scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(0));
    digits * u128::from(factor) / scale
}

/// What was probably meant by a text that is no duration.
pub(super) fn suggest(text: &str) -> String {
    let compact: String = text.to_lowercase().split_whitespace().collect();
    let number = compact.trim_end_matches(|c: char| c.is_alphabetic());
    let unit = match &compact[number.len()..] {
        "" | "sec" | "secs" | "second" | "seconds" | "s" => "s",
        "min" | "mins" | "minute" | "minutes" | "m" => "m",
        "hr" | "hrs" | "hour" | "hours" | "h" => "h",
        "day" | "days" | "d" => "d",
        "msec" | "millis" | "milliseconds" | "ms" => "ms",
        _ => return String::new(),
    };
    let candidate = format!("{number}{unit}");
    if parse_duration(&candidate).is_ok() { candidate } else { String::new() }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_units_add_up() {
        let check = |text: &str, millis: u64| {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        };
        check("30s", 30_000);
        check("1m30s", 90_000);
        check("250ms", 250);
        check("1.5s", 1500);
        check("2h", 7_200_000);
        check("1d", 86_400_000);
        check("1d2h3m4s5ms", 93_784_005);
        assert_eq!(parse_duration("0.000000001s").unwrap(), Duration::from_nanos(1));
    }

    #[test]
    fn what_is_shown_is_what_definitions_say() {
        for text in ["1ms", "250ms", "30s", "1m30s", "1.5s", "2h", "1d2h3m4.005s", "90d"] {
            assert_eq!(show_duration(parse_duration(text).unwrap()), text);
        }
        assert_eq!(show_duration(Duration::from_secs(90)), "1m30s");
        assert_eq!(show_duration(Duration::from_micros(1_000_900)), "1s");
        assert_eq!(show_duration(Duration::from_micros(5)), "5µs");
    }

    #[test]
    fn what_is_no_duration_is_refused_with_the_reason() {
        let check = |text: &str, part: &str| {
            let message = parse_duration(text).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        };
        check("", "found empty text");
        check("30", "lacks a unit");
        check("s", "a number is expected");
        check("0s", "must be positive");
        check("-5s", "must be positive");
        check("30 s", "lacks a unit");
        check("5 minutes", "lacks a unit");
        check("5minutes", "`minutes` is not one of the units");
        check("1.s", "digits are expected");
        check("99999999999999999999s", "too long");
        check("18446744073709551615d", "longer than");
        check("1m30", "lacks a unit");
        check("1é", "`é` is not one of the units");
    }

    #[test]
    fn what_was_meant_is_suggested() {
        assert_eq!(suggest("30"), "30s");
        assert_eq!(suggest("5 minutes"), "5m");
        assert_eq!(suggest("2Hours"), "2h");
        assert_eq!(suggest("soon"), "");
    }
}
