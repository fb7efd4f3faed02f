//! Params with expressions in them.

use serde_json::{Value, json};

use super::Fields;
use crate::expression::Template;

#[track_caller]
fn check(template: Value, expected: Value) {
    let scope = Fields::new(json!({
        "n": 9_007_199_254_740_993_i64, "s": "text", "l": [1, "a"], "m": {"b": 1, "a": null},
    }));
    let parsed = Template::parse(&template).unwrap();
    let result = parsed.evaluate(&scope).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(result.to_string(), expected.to_string(), "{template}");
}

#[test]
fn one_expression_keeps_its_type() {
    check(json!("${{ n }}"), json!(9_007_199_254_740_993_i64));
    check(json!("${{l}}"), json!([1, "a"]));
    check(json!("${{ {\"a\": {\"b\": 1}} }}"), json!({"a": {"b": 1}}));
    check(json!("${{ {\"a\": {\"b\": 1}}}}"), json!({"a": {"b": 1}}));
    check(json!("${{ '}}' + \"}}\" }}"), json!("}}}}"));
    check(json!({"z": ["${{ m }}"], "a": 1}), json!({"z": [{"b": 1, "a": null}], "a": 1}));
}

#[test]
fn longer_text_takes_strings_as_they_are_and_the_rest_as_json() {
    check(json!("n=${{ n }}, s=${{ s }}!"), json!("n=9007199254740993, s=text!"));
    check(json!("${{ l }}${{ m }}"), json!("[1,\"a\"]{\"b\":1,\"a\":null}"));
    check(json!(" ${{ true }}"), json!(" true"));
    check(json!("${{ null }}\n"), json!("null\n"));
    check(json!("at ${{ timestamp(0) }}"), json!("at 1970-01-01T00:00:00Z"));
    check(json!("é ${{ 'ü' }} €"), json!("é ü €"));
}

#[test]
fn an_escaped_opening_is_text() {
    check(json!("$${{ n }}"), json!("${{ n }}"));
    check(json!("$${{ ${{ n }} $${{"), json!("${{ 9007199254740993 ${{"));
    check(json!("$$${{ s }}"), json!("$${{ s }}"));
    check(json!("$ {{ n }} ${ { } }}"), json!("$ {{ n }} ${ { } }}"));
}

#[test]
fn what_holds_no_expression_is_literal() {
    let literal = |value: Value| Template::parse(&value).unwrap().is_literal();
    assert!(literal(json!({"a": [1, "x", "$${{ n }}"], "b": null})));
    assert!(!literal(json!({"a": [1, "${{ n }}"]})));
    check(json!({"b": [1, "$${{"], "a": {}}), json!({"b": [1, "${{"], "a": {}}));
    check(json!({"$${{ n }}": "${{ 1 }}", "$$${{": 2}), json!({"${{ n }}": 1, "$${{": 2}));
}

#[test]
fn references_of_all_strings_are_gathered_once() {
    let template = json!({"a": "${{ x.y }} ${{ z }}", "b": ["${{ x.y }}", {"c": "${{ w }}"}]});
    let found = Template::parse(&template).unwrap().references();
    let found: Vec<String> = found
        .into_iter()
        .map(|reference| [vec![reference.name], reference.fields].concat().join("."))
        .collect();
    assert_eq!(found, ["x.y", "z", "w"]);
}

#[test]
fn every_wrong_string_is_named_by_pointer_and_offset() {
    let errors = Template::parse(&json!({
        "a/b": ["ok", "é ${{ 1 + }}"],
        "c~": "${{ x",
        "d": "${{ 1 }} ${{ }}",
        "${{ key }}": 1,
        "e": "${{ a }} ${{ ] }} ${{ foo() }}",
    }))
    .unwrap_err();
    let shown: Vec<(&str, usize, &str)> = errors
        .iter()
        .map(|error| (error.pointer.as_str(), error.offset, error.message.as_str()))
        .collect();
    assert_eq!(
        shown,
        [
            ("/a~1b/1", 9, "expected a value, found the end"),
            ("/c~0", 0, "`${{` has no closing `}}`"),
            ("/d", 13, "the expression is empty"),
            ("", 0, "the key `${{ key }}` holds `${{`; only values may"),
            ("/e", 13, "`]` closes nothing"),
            ("/e", 22, "unknown function `foo`"),
        ]
    );
}

#[test]
fn an_expression_that_fails_names_itself() {
    let template = Template::parse(&json!({"a": ["x ${{ 1 / 0 }}"]})).unwrap();
    let error = template.evaluate(&Fields::new(json!({}))).unwrap_err();
    assert_eq!(error.to_string(), "`1 / 0`: division by zero");
}

#[test]
fn depth_and_size_are_bounded() {
    let mut deep = json!("${{ 1 }}");
    for _ in 0..200 {
        deep = json!([deep]);
    }
    let errors = Template::parse(&deep).unwrap_err();
    assert_eq!(errors[0].message, "nested deeper than 128");

    let scope = Fields::new(json!({"big": "x".repeat(1 << 20)}));
    let template = Template::parse(&json!(vec!["${{ big }}"; 5])).unwrap();
    let error = template.evaluate(&scope).unwrap_err();
    assert_eq!(error.message, "the result is larger than 4194304 bytes of JSON");
}
