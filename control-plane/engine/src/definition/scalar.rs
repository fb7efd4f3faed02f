//! What a scalar means by the core schema of YAML 1.2: `yes` and `on` are text, `0o17` is 15.

use granit_parser::{ScalarStyle, Tag};
use serde_json::Number;

use super::yaml::{Kind, shorten};

/// The value of a scalar; with a complaint, what to go on with.
pub(super) fn resolve(
    value: String,
    style: ScalarStyle,
    tag: Option<&Tag>,
) -> Result<Kind, (String, Kind)> {
    let Some(tag) = tag else {
        return if style == ScalarStyle::Plain { plain(value) } else { Ok(Kind::Text(value)) };
    };
    let wanted = match (tag.core_suffix(), tag.original().as_str()) {
        (Some("str"), _) | (_, "!") => return Ok(Kind::Text(value)),
        (Some(wanted @ ("int" | "float" | "bool" | "null")), _) => wanted,
        _ => return Err((unknown_tag(tag), Kind::Text(value))),
    };
    let kind = plain(value.clone())?;
    let fits = match &kind {
        Kind::Number(number) => wanted == "float" || (wanted == "int" && !number.is_f64()),
        Kind::Bool(_) => wanted == "bool",
        Kind::Null => wanted == "null",
        _ => false,
    };
    if fits {
        return Ok(kind);
    }
    Err((format!("`{}` is not what its tag `!!{wanted}` says", shorten(&value)), kind))
}

/// The complaint about a tag that means nothing here.
pub(super) fn unknown_tag(tag: &Tag) -> String {
    format!("the tag `{}` is not part of the workflow language", shorten(&tag.original()))
}

fn plain(value: String) -> Result<Kind, (String, Kind)> {
    match value.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Kind::Null),
        "true" | "True" | "TRUE" => return Ok(Kind::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Kind::Bool(false)),
        _ => {}
    }
    let unsigned = value.strip_prefix(['-', '+']).unwrap_or(&value);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(&*value, ".nan" | ".NaN" | ".NAN") {
        let message = format!("`{value}` has no JSON form: put it in quotes if text is meant");
        return Err((message, Kind::Text(value)));
    }
    match number(&value, unsigned) {
        None => Ok(Kind::Text(value)),
        Some(Some(number)) => Ok(Kind::Number(number)),
        Some(None) => {
            let shown = shorten(&value);
            let message =
                format!("the number `{shown}` is too large: put it in quotes if text is meant");
            Err((message, Kind::Text(value)))
        }
    }
}

/// `None`: not a number; `Some(None)`: one that cannot be held.
fn number(value: &str, unsigned: &str) -> Option<Option<Number>> {
    let digits =
        |text: &str, radix: u32| !text.is_empty() && text.chars().all(|c| c.is_digit(radix));
    for (prefix, radix) in [("0o", 8), ("0x", 16)] {
        if let Some(rest) = value.strip_prefix(prefix)
            && digits(rest, radix)
        {
            return Some(u64::from_str_radix(rest, radix).ok().map(Number::from));
        }
    }
    if digits(unsigned, 10) {
        let text = value.strip_prefix('+').unwrap_or(value);
        let signed = text.parse::<i64>().ok().map(Number::from);
        return Some(signed.or_else(|| text.parse::<u64>().ok().map(Number::from)));
    }
    is_float(unsigned).then(|| {
        let text = value.strip_prefix('+').unwrap_or(value);
        text.parse::<f64>().ok().and_then(Number::from_f64)
    })
}

/// `( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`
fn is_float(text: &str) -> bool {
    let all_digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let mantissa = match mantissa.split_once('.') {
        Some(("", fraction)) => !fraction.is_empty() && all_digits(fraction),
        Some((whole, fraction)) => all_digits(whole) && all_digits(fraction),
        None => !mantissa.is_empty() && all_digits(mantissa),
    };
    let exponent = exponent.is_none_or(|exponent| {
        let digits = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !digits.is_empty() && all_digits(digits)
    });
    mantissa && exponent
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: &str) -> String {
        match plain(value.to_owned()) {
            Ok(Kind::Null) => "null".to_owned(),
            Ok(Kind::Bool(value)) => format!("bool {value}"),
            Ok(Kind::Number(number)) => format!("number {number}"),
            Ok(Kind::Text(value)) => format!("text {value}"),
            Ok(_) => "other".to_owned(),
            Err((message, _)) => message,
        }
    }

    #[test]
    fn the_core_schema_decides_what_is_text() {
        for text in [
            "yes",
            "on",
            "off",
            "y",
            "1.0.0",
            "1_000",
            "0b1",
            "017x",
            "1:30",
            "-",
            "+",
            ".",
            "e5",
            "1e",
            "2026-01-01",
            "0x",
            "0o9",
            "-0x1",
            "tRUE",
            "inf",
            "nan",
            "12e03x",
            "--1",
        ] {
            assert_eq!(shown(text), format!("text {text}"));
        }
    }

    #[test]
    fn numbers_keep_their_digits() {
        assert_eq!(shown("0"), "number 0");
        assert_eq!(shown("017"), "number 17");
        assert_eq!(shown("+12"), "number 12");
        assert_eq!(shown("0x1F"), "number 31");
        assert_eq!(shown("0o17"), "number 15");
        assert_eq!(shown("-9223372036854775808"), "number -9223372036854775808");
        assert_eq!(shown("18446744073709551615"), "number 18446744073709551615");
        assert_eq!(shown("1.5"), "number 1.5");
        assert_eq!(shown(".5"), "number 0.5");
        assert_eq!(shown("1."), "number 1.0");
        assert_eq!(shown("-1e3"), "number -1000.0");
    }

    #[test]
    fn what_json_cannot_hold_is_complained_of() {
        assert!(shown("18446744073709551616").contains("too large"));
        assert!(shown("1e999").contains("too large"));
        assert!(shown(".inf").contains("no JSON form"));
        assert!(shown("-.INF").contains("no JSON form"));
        assert!(shown(".nan").contains("no JSON form"));
    }
}
