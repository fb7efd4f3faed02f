//! What is refused, and in which words.

use serde_json::json;

use super::{Fields, fails, refused};
use crate::expression::Expression;

#[test]
fn names_and_keys_suggest_the_nearest() {
    let scope = json!({"error_rate": 1, "build": {"status": "ok", "output": {}}});
    for (expression, message) in [
        ("eror_rate > 0.05", "unknown name `eror_rate`, did you mean `error_rate`?"),
        ("latency", "unknown name `latency`"),
        ("ambiguous", "`ambiguous` is in the outputs of `a` and `b`"),
        ("build.stats", "no such key `stats`, did you mean `status`?"),
        ("build['x']", "no such key `x`"),
        ("build.output.passed", "no such key `passed`"),
        ("{1: 2}[3]", "no such key `3`"),
        ("{1: 2}[3u]", "no such key `3u`"),
        ("{1: 2}[true]", "no such key `true`"),
        ("{1: 2}[[]]", "no such key `of type list`"),
        ("build.status.x", "no field `x` in string: only maps have fields"),
        ("has(error_rate.x)", "has() needs a map before `.x`, not int"),
        ("has(build.nothing.x)", "no such key `nothing`"),
    ] {
        fails(expression, scope.clone(), message);
    }
}

#[test]
fn arithmetic_errors_say_why() {
    for (expression, message) in [
        (
            "9223372036854775807 + 1",
            "9223372036854775807 + 1 is beyond the range of 64-bit integers",
        ),
        (
            "-9223372036854775807 - 2",
            "-9223372036854775807 - 2 is beyond the range of 64-bit integers",
        ),
        (
            "4611686018427387904 * 2",
            "4611686018427387904 * 2 is beyond the range of 64-bit integers",
        ),
        (
            "-9223372036854775808 / -1",
            "-9223372036854775808 / -1 is beyond the range of 64-bit integers",
        ),
        (
            "-(-9223372036854775808)",
            "-(-9223372036854775808) is beyond the range of 64-bit integers",
        ),
        ("1u - 2u", "1 - 2 is beyond the range of 64-bit integers"),
        ("1 / 0", "division by zero"),
        ("1u / 0u", "division by zero"),
        ("1 % 0", "remainder of a division by zero"),
        ("1.0 / 0.0", "the result is inf, which JSON has not"),
        ("1 + 1.0", "`+` does not apply to int and double; convert one, as in `double(x)`"),
        ("1.5 % 1.0", "`%` does not apply to double and double"),
        ("'a' + 1", "`+` does not apply to string and int; convert to text with `string(x)`"),
        ("'a' - 'b'", "`-` does not apply to string and string"),
        ("null + 1", "`+` does not apply to null and int"),
        ("-'a'", "`-` does not apply to string"),
        ("-(1u)", "`-` does not apply to uint"),
        ("!1", "`!` does not apply to int"),
        ("1 < 'a'", "`<` does not apply to int and string"),
        ("[] < []", "`<` does not apply to list and list"),
        ("null >= null", "`>=` does not apply to null and null"),
    ] {
        fails(expression, json!({}), message);
    }
}

#[test]
fn control_flow_needs_booleans() {
    for (expression, message) in [
        ("1 && true", "expected true or false, found int"),
        ("true && 'a'", "expected true or false, found string"),
        ("false || null", "expected true or false, found null"),
        ("1 / 0 == 1 || false", "division by zero"),
        ("1 / 0 == 1 && 1 % 0 == 1", "division by zero"),
        ("1 ? 2 : 3", "expected true or false, found int"),
        ("missing ? 2 : 3", "unknown name `missing`"),
        ("[1, 2].all(x, x)", "expected true or false, found int"),
        ("[0, 1].exists(x, 1 / x == 2)", "division by zero"),
        ("[0, 1].exists_one(x, 1 / x == 1)", "division by zero"),
        ("[0].map(x, 1 / x)", "division by zero"),
        ("[1].filter(x, x)", "expected true or false, found int"),
        ("1.map(x, x)", "`all`, `exists`, `map` and `filter` work on a list or a map, not on int"),
    ] {
        fails(expression, json!({}), message);
    }
}

#[test]
fn lists_and_maps_refuse_wrong_keys() {
    for (expression, message) in [
        ("[1][1]", "index 1 is outside a list of 1 element(s)"),
        ("[1][-1]", "index -1 is outside a list of 1 element(s)"),
        ("[1]['a']", "a list is indexed by whole numbers, not string"),
        ("[1][0.5]", "a list is indexed by whole numbers, not double"),
        ("1[0]", "int cannot be indexed"),
        ("1 in 2", "`in` needs a list or a map on its right, not int"),
        ("'a' in 'abc'", "`in` needs a list or a map on its right, not string"),
        ("{1.5: 1}", "double cannot be a key of a map"),
        ("{null: 1}", "null cannot be a key of a map"),
        ("{'a': 1, 'a': 2}", "the key `a` stands twice in a map"),
        ("{1: 1, 1u: 2}", "the key `1` stands twice in a map"),
        ("{1: 1, '1': 2}", "two keys of a map are `1` in JSON"),
    ] {
        fails(expression, json!({}), message);
    }
}

#[test]
fn conversions_refuse_what_does_not_fit() {
    for (expression, message) in [
        ("int('x')", "this text is not an int: a whole number of 64 bits"),
        ("int('1.5')", "this text is not an int: a whole number of 64 bits"),
        ("int(9223372036854775808u)", "9223372036854775808 is beyond the range of int"),
        ("int(1e19)", "10000000000000000000 is beyond the range of int"),
        ("int(double('nan'))", "NaN is beyond the range of int"),
        ("uint(-1)", "-1 is beyond the range of uint"),
        ("uint(-1.0)", "-1 is beyond the range of uint"),
        ("uint('-1')", "this text is not a uint: a whole number of 64 bits, not negative"),
        ("double('x')", "this text is not a double"),
        ("bool('yes')", "this text is not `true` or `false`"),
        ("int([])", "`int` does not apply to list"),
        ("string([])", "`string` does not apply to list"),
        ("string(null)", "`string` does not apply to null"),
        ("string(b'\\xff')", "these bytes are not UTF-8 text"),
        ("size(1)", "`size` does not apply to int"),
        ("1.contains('a')", "`contains` does not apply to int and string"),
        ("'a'.startsWith(1)", "`startsWith` does not apply to string and int"),
        ("1.matches('a')", "`matches` does not apply to int"),
        ("'a'.matches(string(1) + '[')", "invalid pattern: unclosed character class"),
        ("'a'.matches(x)", "`matches` does not apply to string and int"),
    ] {
        fails(expression, json!({"x": 1}), message);
    }
}

#[test]
fn times_refuse_what_is_out_of_range() {
    let not_a_time = "this text is not an RFC 3339 time such as `2026-01-31T12:00:00Z`";
    let not_a_duration = "this text is not a duration such as `1h30m`, `1.5s` or `250ms`";
    let years = "the timestamp is outside the years 1 to 9999";
    let long = "the duration is longer than 10,000 years";
    let zone = "unknown time zone: expected a name such as `Europe/Berlin` or `+02:00`";
    for (expression, message) in [
        ("timestamp('tomorrow')", not_a_time),
        ("timestamp(9223372036854775807)", years),
        ("timestamp('9999-12-31T23:59:59Z') + duration('1s')", years),
        ("timestamp('0001-01-01T00:00:00Z') - duration('1s')", years),
        ("duration('')", not_a_duration),
        ("duration('-')", not_a_duration),
        ("duration('5')", not_a_duration),
        ("duration('s')", not_a_duration),
        ("duration('.s')", not_a_duration),
        ("duration('1d')", not_a_duration),
        ("duration('1.2.3s')", not_a_duration),
        ("duration('99999999999999999999999999999999999999h')", not_a_duration),
        ("duration('99999999999h')", long),
        ("duration('87660000h') + duration('87660000h')", long),
        ("timestamp(0).getHours('Mars/Olympus')", zone),
        ("timestamp(0).getHours('+24:00')", zone),
        ("timestamp(0).getHours(1)", "`getHours` does not apply to timestamp and int"),
        ("duration('1s').getFullYear()", "`getFullYear` does not apply to duration"),
        ("duration('1s').getHours('UTC')", "`getHours` does not apply to duration and string"),
    ] {
        fails(expression, json!({}), message);
    }
}

#[test]
fn texts_that_are_no_expressions_are_refused_with_their_place() {
    for (expression, offset, message) in [
        ("", 0, "the expression is empty"),
        ("   ", 3, "the expression is empty"),
        ("${{ }}", 4, "the expression is empty"),
        ("${{ a", 0, "`${{` has no closing `}}`"),
        ("${{ a }} b", 8, "nothing may follow the closing `}}` of an expression"),
        ("1 +", 3, "expected a value, found the end"),
        ("é + 1", 0, "unexpected character `é`"),
        ("'é' + ]", 6, "`]` closes nothing"),
        ("  'é' + * 1", 8, "expected a value here"),
        ("${{ 'é' + * 1 }}", 10, "expected a value here"),
        ("a b", 2, "found 'b' where the expression should end"),
        ("a = b", 2, "unexpected character `=`; equality is `==`"),
        ("a & b", 2, "unexpected character `&`; both is `&&`"),
        ("'a", 0, "this string does not end"),
        ("'\\q'", 0, "unable to unescape string"),
        ("99999999999999999999", 0, "invalid int literal"),
        ("1e999", 0, "invalid double literal"),
        ("if", 0, "reserved identifier: if"),
        ("a ? b", 5, "expected ':' in conditional expression"),
        ("a.", 2, "expected identifier after '.'"),
        ("a.?b", 1, "unsupported syntax '.?'"),
        ("1 +\n  foo(2)", 6, "unknown function `foo`"),
        ("sise(a)", 0, "unknown function `sise`, did you mean `size`?"),
        ("a.startswith('b')", 2, "unknown function `startswith`, did you mean `startsWith`?"),
        ("contains(a, b)", 0, "`contains` is called as `value.contains(…)`"),
        ("a.int()", 2, "`int` is called as `int(…)`"),
        ("size(1, 2)", 0, "`size` takes 1 argument(s), 2 given"),
        ("x.getHours(1, 2)", 2, "`getHours` takes 0 or 1 argument(s), 2 given"),
        ("a.all(x)", 2, "`all` is used as `list.all(x, condition)`"),
        ("has(a)", 4, "invalid argument to has() macro"),
        ("a.map(1, 2)", 6, "argument must be a simple name"),
        ("'a'.matches('(')", 4, "invalid pattern: unclosed group"),
        ("Foo{a: 1}", 0, "message `Foo{…}` is not supported; a map is written `{\"key\": value}`"),
    ] {
        refused(expression, offset, message);
    }
}

#[test]
fn errors_show_the_text_and_the_cause() {
    let error = |expression: &str| {
        let scope = Fields::new(json!({"n": 1, "token": "s3cret"}));
        Expression::parse(expression).unwrap().evaluate_bool(&scope).unwrap_err().to_string()
    };
    assert_eq!(error("error_rate > 0.05"), "`error_rate > 0.05`: unknown name `error_rate`");
    assert_eq!(error("${{ n }}"), "`n`: a condition must be true or false, this is the number 1");
    assert_eq!(error("token"), "`token`: a condition must be true or false, this is a string");
    assert_eq!(error("[1]"), "`[1]`: a condition must be true or false, this is a list");
    assert_eq!(error("{}"), "`{}`: a condition must be true or false, this is a map");
    assert_eq!(error("null"), "`null`: a condition must be true or false, this is null");
    let long = error(&format!("{} == b", "a".repeat(300)));
    assert!(long.starts_with(&format!("`{}…`: unknown name", "a".repeat(200))), "{long}");
}
