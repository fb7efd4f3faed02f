//! What expressions compute.

use serde_json::json;

use super::{check, holds};
use crate::expression::{Expression, Reference};

#[test]
fn literals_become_json() {
    for (expression, expected) in [
        ("1", json!(1)),
        ("-9223372036854775808", json!(i64::MIN)),
        ("9223372036854775807", json!(i64::MAX)),
        ("18446744073709551615u", json!(u64::MAX)),
        ("0x1F", json!(31)),
        ("0xFFu", json!(255)),
        ("1.5", json!(1.5)),
        ("-2e3", json!(-2000.0)),
        ("'a\\n\\u00e9\\''", json!("a\né'")),
        ("r'a\\n'", json!("a\\n")),
        ("'''a 'b' c'''", json!("a 'b' c")),
        ("b'abc'", json!("YWJj")),
        ("b'ab'", json!("YWI=")),
        ("b'\\xff'", json!("/w==")),
        ("b''", json!("")),
        ("null", json!(null)),
        ("[1, 'a', [true,],]", json!([1, "a", [true]])),
        ("{'b': 1, 'a': {'d': 2, 'c': 3},}", json!({"b": 1, "a": {"d": 2, "c": 3}})),
        ("{1: 'int', 2u: 'uint', true: 'bool'}", json!({"1": "int", "2": "uint", "true": "bool"})),
        ("1 // a remark", json!(1)),
        ("type(1u)", json!("uint")),
    ] {
        check(expression, json!({}), expected);
    }
}

#[test]
fn all_digits_and_the_order_of_keys_are_kept() {
    let value = json!({"z": 9_007_199_254_740_993_i64, "a": u64::MAX, "m": [i64::MIN, 0.1]});
    check("x", json!({"x": value.clone()}), value.clone());
    check("{'y': x, 'b': x.a}", json!({"x": value}), json!({"y": value, "b": u64::MAX}));
    check("x.map(k, k)", json!({"x": {"z": 1, "a": 2, "m": 3}}), json!(["z", "a", "m"]));
    check("{'z': 1, 'a': 2}.map(k, k)", json!({}), json!(["z", "a"]));
}

#[test]
fn numbers_compare_by_value() {
    for expression in [
        "1 == 1.0",
        "1 == 1u",
        "1u == 1.0",
        "1 < 1.5",
        "-1 < 1u",
        "1.5 > 1",
        "-1.5 < -1",
        "9007199254740993 > 9007199254740992.0",
        "9007199254740993 != 9007199254740992.0",
        "9223372036854775807 < 9223372036854775808.0",
        "9223372036854775807 < 9223372036854775808u",
        "18446744073709551615u < 18446744073709551616.0",
        "18446744073709551615u > -1e300",
        "1 < double('inf') && 1 > double('-inf')",
        "double('nan') != double('nan')",
        "!(1 < double('nan')) && !(1 > double('nan'))",
        "0.0 == -0.0",
        "1 in [1.0]",
        "{1: 'a'}[1.0] == 'a'",
    ] {
        holds(expression);
    }
    check("rate > 0.05", json!({"rate": 1}), json!(true));
    check("n == 18446744073709551615u", json!({"n": u64::MAX}), json!(true));
}

#[test]
fn values_of_different_types_are_not_equal_and_need_not_be_ordered() {
    for expression in [
        "1 != '1'",
        "null != 0",
        "null == null",
        "[1, 2] == [1.0, 2u]",
        "[1] != [1, 2]",
        "{'a': 1, 'b': 2} == {'b': 2, 'a': 1}",
        "{'a': 1} != {'a': 2}",
        "{'a': 1} != {'b': 1}",
        "'a' < 'b' && 'B' < 'a'",
        "b'a' < b'b'",
        "false < true",
        "type(1) == int && type('') == string && type([]) == list && type({}) == map",
        "type(null) == null_type && type(int) == type && type(1.0) == double",
        "type(timestamp(0)) == google.protobuf.Timestamp",
        "type(duration('1s')) == google.protobuf.Duration",
    ] {
        holds(expression);
    }
}

#[test]
fn arithmetic_keeps_types() {
    for (expression, expected) in [
        ("1 + 2 * 3 - 4", json!(3)),
        ("(1 + 2) * 3", json!(9)),
        ("7 / 2", json!(3)),
        ("-7 / 2", json!(-3)),
        ("-7 % 3", json!(-1)),
        ("7.0 / 2.0", json!(3.5)),
        ("3u - 2u", json!(1)),
        ("-(2)", json!(-2)),
        ("--2", json!(2)),
        ("-(1.5)", json!(-1.5)),
        ("'a' + 'b'", json!("ab")),
        ("[1] + ['a']", json!([1, "a"])),
        ("b'a' + b'b'", json!("YWI=")),
    ] {
        check(expression, json!({}), expected);
    }
}

#[test]
fn logic_absorbs_errors_where_the_other_side_decides() {
    for expression in [
        "!(1 / 0 == 1 && false)",
        "!(false && 1 / 0 == 1)",
        "1 / 0 == 1 || true",
        "true || missing",
        "missing || true",
        "missing.x == 1 || true",
        "1 || true",
        "true ? true : 1 / 0 == 1",
        "false ? missing : true",
        "[0, 1].exists(x, 1 / x == 1)",
        "![0, 1].all(x, 1 / x == 2)",
        "[1, 2].all(x, x > 0) && [].all(x, false) && ![].exists(x, true)",
        "[1, 2].exists_one(x, x == 1) && ![1, 1].existsOne(x, x == 1)",
        "!true == false",
        "!!true",
    ] {
        holds(expression);
    }
}

#[test]
fn data_is_read_by_field_index_and_membership() {
    let scope = json!({
        "steps": {"any-id": {"output": {"x": [10, 20]}, "none": null}},
        "while_": {"while": 1, "with space": 2},
    });
    for (expression, expected) in [
        ("steps['any-id'].output.x[1]", json!(20)),
        ("steps['any-id'].output.x[1u]", json!(20)),
        ("steps['any-id'].output.x[1.0]", json!(20)),
        (".steps['any-id'].output['x']", json!([10, 20])),
        ("while_.while", json!(1)),
        ("while_.`with space`", json!(2)),
        ("has(steps.x)", json!(false)),
        ("has(steps['any-id'].none)", json!(true)),
        ("has(steps['any-id'].output.y)", json!(false)),
        ("'any-id' in steps", json!(true)),
        ("1 in steps", json!(false)),
        ("20 in steps['any-id'].output.x", json!(true)),
        ("2 in [1]", json!(false)),
        ("size(steps['any-id'].output.x) + size({'a': 1}) + 'é!'.size() + size(b'é')", json!(7)),
    ] {
        check(expression, scope.clone(), expected);
    }
}

#[test]
fn macros_walk_lists_and_keys() {
    let scope = json!({"items": [{"id": "a", "n": 1}, {"id": "b", "n": 2}], "x": 5});
    for (expression, expected) in [
        ("items.map(i, i.id)", json!(["a", "b"])),
        ("items.map(i, i.n > 1, i.id + '!')", json!(["b!"])),
        ("items.filter(i, i.n > 1)", json!([{"id": "b", "n": 2}])),
        ("items.map(i, [1, 2].map(j, i.n * j))", json!([[1, 2], [2, 4]])),
        ("items.map(i, [1].map(i, i))", json!([[1], [1]])),
        ("[1].map(x, x + .x)", json!([6])),
        ("[1].map(x, x > 0, x)", json!([1])),
        ("[[1, 2], [3]].map(l, l.map(n, n + 1))", json!([[2, 3], [4]])),
        ("[1, 2].map(i, {'n': i})", json!([{"n": 1}, {"n": 2}])),
        ("{'b': 1, 'a': 2}.filter(k, k != 'b')", json!(["a"])),
        ("{'b': 1}.exists(k, k == 'b')", json!(true)),
        ("[1, 2, 3].filter(i, i % 2 == 1).map(i, string(i))", json!(["1", "3"])),
    ] {
        check(expression, scope.clone(), expected);
    }
}

#[test]
fn strings_are_searched() {
    for expression in [
        "'hello'.contains('ell') && !'hello'.contains('x') && 'a'.contains('')",
        "'hello'.startsWith('he') && 'hello'.endsWith('lo') && !'a'.endsWith('b')",
        "'v1.2'.matches('^v[0-9]+\\\\.[0-9]+$') && matches('abc', 'b')",
        "'abc'.matches('a' + '.c')",
        "'agent-6'.matches('^[\\\\w-]{1,20}$')",
    ] {
        holds(expression);
    }
}

#[test]
fn conversions_follow_cel() {
    for expression in [
        "int('-5') == -5 && int(5u) == 5 && int(-1.9) == -1 && int(timestamp(7)) == 7",
        "uint('5') == 5u && uint(5) == 5u && uint(5.9) == 5u",
        "double('1e3') == 1000.0 && double(1) == 1.0 && double(1u) == 1.0",
        "string(1) == '1' && string(1u) == '1' && string(true) == 'true' && string('a') == 'a'",
        "string(1.0) == '1' && string(0.1) == '0.1' && string(1e300) == '1e300'",
        "string(1e-7) == '1e-7'",
        "string(b'abc') == 'abc' && bytes('abc') == b'abc'",
        "string(timestamp('2026-01-31T12:00:00.5+01:00')) == '2026-01-31T11:00:00.500Z'",
        "string(duration('90s')) == '90s' && string(duration('-1500ms')) == '-1.5s'",
        "string(duration('1h1m1s1ms1us1ns')) == '3661.001001001s'",
        "duration('1.5h') == duration('90m') && duration('0') == duration('0s')",
        "duration('-0.5s') == duration('-500ms')",
        "bool('true') && !bool('0') && bool(true)",
        "type(dyn(1)) == int",
        "timestamp(timestamp(0)) == timestamp('1970-01-01T00:00:00Z')",
    ] {
        holds(expression);
    }
}

#[test]
fn times_are_computed_with() {
    for expression in [
        "timestamp('2026-01-31T00:00:00Z') + duration('24h') == timestamp('2026-02-01T00:00:00Z')",
        "duration('1s') + timestamp(0) == timestamp(1)",
        "timestamp(5) - timestamp(3) == duration('2s')",
        "timestamp(5) - duration('2s') == timestamp(3)",
        "duration('3s') - duration('1s') + duration('1s') == duration('3s')",
        "timestamp(1) < timestamp(2) && duration('1s') < duration('1m')",
        "timestamp('2026-11-21T13:14:15.016Z').getFullYear() == 2026",
        "timestamp('2026-11-21T13:14:15.016Z').getMonth() == 10",
        "timestamp('2026-11-21T13:14:15.016Z').getDate() == 21",
        "timestamp('2026-11-21T13:14:15.016Z').getDayOfMonth() == 20",
        "timestamp('2026-11-21T13:14:15.016Z').getDayOfWeek() == 6",
        "timestamp('2026-01-02T13:14:15.016Z').getDayOfYear() == 1",
        "timestamp('2026-11-21T13:14:15.016Z').getHours() == 13",
        "timestamp('2026-11-21T13:14:15.016Z').getHours('Europe/Berlin') == 14",
        "timestamp('2026-11-21T13:14:15.016Z').getHours('-02:30') == 10",
        "timestamp('2026-11-21T13:14:15.016Z').getMinutes() == 14",
        "timestamp('2026-11-21T13:14:15.016Z').getSeconds() == 15",
        "timestamp('2026-11-21T13:14:15.016Z').getMilliseconds() == 16",
        "duration('1h30m').getHours() == 1 && duration('1h30m').getMinutes() == 90",
        "duration('1m1.5s').getSeconds() == 61 && duration('1.5s').getMilliseconds() == 500",
    ] {
        holds(expression);
    }
    check("[timestamp(0), duration('1500ms')]", json!({}), json!(["1970-01-01T00:00:00Z", "1.5s"]));
}

#[test]
fn a_name_of_a_type_is_first_looked_up() {
    check("type", json!({"type": "release"}), json!("release"));
    check("map.x", json!({"map": {"x": 1}}), json!(1));
    check("type(1) == int", json!({}), json!(true));
}

#[test]
fn precedence_is_that_of_cel() {
    for expression in [
        "true || false && false",
        "1 + 1 == 2 && 2 * 3 + 1 == 7",
        "!false && 1 < 2",
        "false ? false : true ? true : false",
        "1 in [1] == true",
        "-2 + 3 == 1",
    ] {
        holds(expression);
    }
}

#[test]
fn references_name_what_is_read() {
    let check = |expression: &str, expected: &[(&str, &[&str])]| {
        let found = Expression::parse(expression).unwrap().references();
        let expected: Vec<Reference> = expected
            .iter()
            .map(|(name, fields)| Reference {
                name: (*name).to_owned(),
                fields: fields.iter().map(|field| (*field).to_owned()).collect(),
            })
            .collect();
        assert_eq!(found, expected, "{expression}");
    };
    check("steps['any-id'].output.x", &[("steps", &["any-id", "output", "x"])]);
    check("a.output.b > 1 && a.output.b < c", &[("a", &["output", "b"]), ("c", &[])]);
    check("a.list[0].x + b[c.d].e", &[("a", &["list"]), ("b", &[]), ("c", &["d"])]);
    check("has(a.b.c) ? d : -e", &[("a", &["b", "c"]), ("d", &[]), ("e", &[])]);
    check("items.map(i, i.x + other)", &[("items", &[]), ("other", &[])]);
    check("items.filter(i, .i.x == i)", &[("items", &[]), ("i", &["x"])]);
    check("i.filter(i, i.x)", &[("i", &[])]);
    check("type(a) == int && type.x == 1", &[("a", &[]), ("type", &["x"])]);
    check("{a: [b, c.size()]}", &[("a", &[]), ("b", &[]), ("c", &[])]);
    check("x.matches('a') && !y", &[("x", &[]), ("y", &[])]);
    check("1 + 2", &[]);
}
