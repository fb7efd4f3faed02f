//! Nothing runs without end, grows without end, or panics.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Fields, fails, refused};
use crate::expression::limit::{SOURCE_BYTES_MAX, STEPS_MAX};
use crate::expression::{Expression, Lookup, Resolved, Scope, Template};

fn steps_message() -> String {
    format!("the evaluation takes more than {STEPS_MAX} steps; work on less data")
}

#[test]
fn time_is_bounded_and_nothing_absorbs_the_bound() {
    let list: Vec<u32> = (0..2000).collect();
    let scope = json!({"l": list});
    let message = steps_message();
    for expression in [
        "l.map(a, l.map(b, a + b))",
        "l.all(a, l.all(b, a != b || true))",
        "l.exists(a, l.exists(b, l.exists(c, false))) || true",
        "true && l.all(a, l.all(b, true)) || true",
        "l.all(a, l.all(b, true)) && false",
        "l.exists(a, l.all(b, l.all(c, true))) || l.exists(a, true)",
    ] {
        fails(expression, scope.clone(), &message);
    }
}

#[test]
fn memory_is_bounded() {
    let scope = json!({"s": "x".repeat(1 << 20), "l": (0..60_000).collect::<Vec<u32>>()});
    fails(
        "s + s + s + s + s",
        scope.clone(),
        "5242880 bytes of a string, more than the 4194304 allowed",
    );
    fails("[s, s, s, s, s]", scope.clone(), "the result is larger than 4194304 bytes of JSON");
    fails("l + l", scope.clone(), "120000 elements of a list, more than the 100000 allowed");
    fails("l.map(i, s + s)", scope.clone(), &steps_message());
    fails("l.map(i, bytes(s) + b'x')", scope.clone(), &steps_message());
    let doubling = format!("[1]{}", ".map(x, [x, x])".repeat(40));
    fails(&doubling, json!({}), "the result is larger than 4194304 bytes of JSON");
    let compared = format!("{doubling} == {doubling}");
    fails(&compared, json!({}), &steps_message());
    let control = json!({"c": "\u{1}".repeat(1 << 20)});
    fails("c", control, "the result is larger than 4194304 bytes of JSON");
}

#[test]
fn patterns_are_bounded() {
    let long = format!("'a'.matches('{}')", "a".repeat(2000));
    refused(&long, 4, "the pattern is 2000 bytes long, more than the 1024 allowed");
    refused("'a'.matches('((a{100}){100}){100}')", 4, "the pattern is too large once compiled");
    let deep = format!("'a'.matches('{}a{}')", "(".repeat(100), ")".repeat(100));
    assert!(Expression::parse(&deep).is_err());
    let list: Vec<String> = (0..200).map(|i| format!("a{i}")).collect();
    fails("l.map(p, 'a'.matches(p))", json!({"l": list}), &steps_message());
}

#[test]
fn sources_are_bounded() {
    let long = "1".repeat(SOURCE_BYTES_MAX + 1);
    let message = "the expression is 16385 bytes long, more than the 16384 allowed";
    refused(&long, 0, message);
    refused(
        "a.map(a, a.map(b, a.map(c, a.map(d, a.map(e, e)))))",
        42,
        "macros (`all`, `map`, …) nest deeper than 4",
    );
    let deep = format!("{}1{}", "(".repeat(33), ")".repeat(33));
    refused(&deep, 32, "brackets nest deeper than 32");
}

/// The deepest text let through still fits a thread's stack, in a debug build.
#[test]
fn the_deepest_expressions_fit_a_small_stack() {
    let deepest = [
        format!("{}1{}", "[".repeat(32), "]".repeat(32)),
        format!("{}1{}", "size([".repeat(16), "])".repeat(16)),
        format!("{}1{}", "{'a': ".repeat(32), "}".repeat(32)),
        format!("{}1{}", "-(1 + ".repeat(24), ")".repeat(24)),
        format!("1{}", " + 1".repeat(90)),
        format!("a{}", ".b".repeat(90)),
        format!("{}true", "false ? 1 : ".repeat(90)),
        format!("{}true", "!-".repeat(45)),
        format!("[1]{}", ".map(x, [x])".repeat(60)),
        format!("{}1{}", "x(".repeat(2000), ")".repeat(2000)),
        format!("a{}", ".b".repeat(8000)),
        format!("1{}", "+1".repeat(8000)),
        "!".repeat(16_000),
        "-(".repeat(8000),
        "a?b:".repeat(4000),
        "a?".repeat(8000),
        "{a:".repeat(5000),
        "[".repeat(16_000),
        "a&&b||".repeat(2700),
        format!("true{}", "&&true".repeat(2700)),
    ];
    let run = move || {
        for text in &deepest {
            if let Ok(expression) = Expression::parse(text) {
                let _ = expression.evaluate(&Fields::new(json!({"a": {"b": 1}})));
                let _ = expression.references();
            }
        }
    };
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(run).unwrap();
    thread.join().unwrap();
}

#[test]
fn deep_data_is_refused_and_does_not_overflow() {
    let mut deep = json!(1);
    for _ in 0..1000 {
        deep = json!([deep]);
    }
    let run = move || {
        let scope = json!({"x": deep, "y": deep});
        fails("x", scope.clone(), "the result nests too deep");
        fails("x == y", scope, "the data nests too deep to be compared");
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
}

/// A scope that counts how often it is asked.
struct Counting(std::cell::Cell<u32>, Arc<Value>);

impl Scope for Counting {
    fn lookup(&self, _name: &str) -> Lookup {
        self.0.set(self.0.get() + 1);
        Lookup::Found(Arc::clone(&self.1))
    }
}

#[test]
fn names_are_looked_up_once_and_only_when_needed() {
    let count = |expression: &str| {
        let scope = Counting(std::cell::Cell::new(0), Arc::new(json!({"x": 1})));
        Expression::parse(expression).unwrap().evaluate(&scope).unwrap();
        scope.0.get()
    };
    assert_eq!(count("a.x + a.x + a.x"), 1);
    assert_eq!(count("[1, 2, 3].map(i, i + a.x)"), 1);
    assert_eq!(count("true || a.x == 1"), 0);
    assert_eq!(count("true ? a.x : b.x"), 1);
}

/// A scope whose steps are kept apart and cannot be had as a whole.
struct Steps;

impl Scope for Steps {
    fn lookup(&self, name: &str) -> Lookup {
        panic!("`{name}` must not be put together")
    }

    fn lookup_path(&self, name: &str, fields: &[String]) -> Option<Resolved> {
        assert_eq!(name, "steps");
        let lookup = match fields[0].as_str() {
            "a-b" => Lookup::Found(Arc::new(json!({"x": {"y": 7}}))),
            "both" => Lookup::Ambiguous("`both` is two".to_owned()),
            other => Lookup::unknown(other, ["a-b"]),
        };
        Some(Resolved { fields: if fields.len() > 1 { 2 } else { 1 }, lookup })
    }
}

#[test]
fn a_scope_in_parts_answers_paths() {
    let run = |expression: &str| {
        let result = Expression::parse(expression).unwrap().evaluate(&Steps);
        result.map_or_else(|error| error.message, |value| value.to_string())
    };
    assert_eq!(run("steps['a-b'].output.x.y"), "7");
    assert_eq!(run("steps['a-b'].output"), r#"{"x":{"y":7}}"#);
    assert_eq!(run("has(steps['a-b'].output.x) && !has(steps['a-b'].output.z)"), "true");
    assert_eq!(run("[1].map(i, steps['a-b'].output['x'].y + i)"), "[8]");
    assert_eq!(run("steps['a-b'].output.y"), "no such key `y`, did you mean `x`?");
    assert_eq!(run("steps.a_b"), "no such key `a_b`, did you mean `a-b`?");
    assert_eq!(run("steps.both.output"), "`both` is two");
}

#[test]
fn expressions_cross_threads() {
    fn crosses<T: Send + Sync + Clone + 'static>() {}
    crosses::<Expression>();
    crosses::<Template>();
}

fn world() -> Fields {
    Fields::new(json!({
        "a": {"b": {"c": [1, 2.5, "x", null, true]}, "text": "a, b", "big": u64::MAX},
        "n": i64::MAX, "l": [[1], [2, 3], {"k": "v"}], "s": "2026-01-01T00:00:00Z",
    }))
}

/// Parsing and evaluating ends in a value or an error; the same one twice.
fn exercise(text: &str) {
    let Ok(expression) = Expression::parse(text) else {
        return;
    };
    let _ = expression.references();
    let first = expression.evaluate(&world());
    let again = Expression::parse(text).unwrap().evaluate(&world());
    assert_eq!(format!("{first:?}"), format!("{again:?}"));
}

/// Words that make sense together more often than arbitrary characters do.
const WORDS: &[&str] = &[
    "a",
    "b",
    "n",
    "l",
    "s",
    "x",
    ".",
    ".b",
    ".c",
    "[",
    "]",
    "(",
    ")",
    "{",
    "}",
    ",",
    ":",
    "?",
    "+",
    "-",
    "*",
    "/",
    "%",
    "!",
    "==",
    "!=",
    "<",
    ">=",
    "in",
    "&&",
    "||",
    "0",
    "1",
    "2.5",
    "7u",
    "'x'",
    "\"é\"",
    "r'\\'",
    "b'\\xff'",
    "'''",
    "`",
    "null",
    "true",
    "has(",
    ".map(x,",
    ".filter(x,",
    ".all(x,",
    ".exists(x,",
    "size(",
    "int(",
    "string(",
    "duration('1s')",
    "timestamp(",
    ".getHours(",
    ".matches(",
    ".contains(",
    "\n",
    "//",
    "${{",
    "}}",
    "\\",
    "é",
    "if",
    "Foo{",
    "@result",
    "\u{0}",
    "-9223372036854775808",
    "0x",
    "1e9",
    ".?",
    "[?",
];

fn words() -> impl Strategy<Value = String> {
    let word = proptest::sample::select(WORDS);
    proptest::collection::vec(word, 0..24).prop_map(|words| words.join(" "))
}

/// Texts that parse.
fn expressions() -> impl Strategy<Value = String> {
    let leaf = proptest::sample::select(vec![
        "a.b.c",
        "n",
        "l",
        "s",
        "a.big",
        "a.text",
        "missing",
        "0",
        "-1",
        "9223372036854775807",
        "1.5",
        "3u",
        "'x'",
        "b'x'",
        "null",
        "true",
        "[]",
        "{}",
        "duration('90m')",
        "timestamp(s)",
        "x",
        "int",
        "[1, 2, 3]",
        "{'a': 1, 2: 'b'}",
    ])
    .prop_map(str::to_owned);
    leaf.prop_recursive(5, 40, 3, |inner| {
        let binary = proptest::sample::select(vec![
            "+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "in", "&&", "||",
        ]);
        let function = proptest::sample::select(vec![
            "size",
            "int",
            "uint",
            "double",
            "string",
            "bool",
            "bytes",
            "type",
            "dyn",
            "timestamp",
            "duration",
            "!",
            "-",
        ]);
        let method = proptest::sample::select(vec![
            "contains",
            "startsWith",
            "endsWith",
            "matches",
            "getHours",
            "getMonth",
        ]);
        let fold = proptest::sample::select(vec!["map", "filter", "all", "exists", "exists_one"]);
        let pair = (inner.clone(), inner.clone());
        prop_oneof![
            (pair.clone(), binary).prop_map(|((l, r), o)| format!("({l} {o} {r})")),
            (inner.clone(), function).prop_map(|(e, f)| format!("{f}({e})")),
            (pair.clone(), method).prop_map(|((l, r), m)| format!("({l}).{m}({r})")),
            (pair.clone(), fold).prop_map(|((l, r), f)| format!("({l}).{f}(x, {r})")),
            (pair.clone(), inner.clone()).prop_map(|((c, t), e)| format!("({c} ? {t} : {e})")),
            pair.clone().prop_map(|(l, i)| format!("({l})[{i}]")),
            pair.clone().prop_map(|(k, v)| format!("{{{k}: {v}}}")),
            pair.prop_map(|(l, r)| format!("[{l}, {r}]")),
            inner.prop_map(|e| format!("({e}).b")),
        ]
    })
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        exercise(&text);
        let _ = Template::parse(&json!({ "a": text }));
    }

    #[test]
    fn arbitrary_words_never_panic(text in words()) {
        exercise(&text);
        let template = json!([text, format!("${{{{ {text} }}}}")]);
        if let Ok(template) = Template::parse(&template) {
            let _ = template.evaluate(&world());
        }
    }

    #[test]
    fn arbitrary_expressions_give_the_same_twice(text in expressions()) {
        exercise(&text);
    }

    /// What is not an expression stays as it is.
    #[test]
    fn literal_templates_come_back_unchanged(text in "[^$]*") {
        let template = Template::parse(&json!([text])).unwrap();
        prop_assert_eq!(template.evaluate(&world()).unwrap(), json!([text]));
    }
}
