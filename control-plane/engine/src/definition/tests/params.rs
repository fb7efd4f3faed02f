//! Parameters given to a start against those declared.

use serde_json::{Value, json};

use super::*;
use crate::definition::check_params;

const DECLARED: &str = "
name: x
params:
  city: {type: string, required: true}
  count: {type: integer, minimum: 1, maximum: 9, default: 3}
  tags: {type: array, items: {type: string}}
  mode: {enum: [fast, safe], default: safe}
  anything:
steps:
  - action: a
    params: \"${{ params }}\"
";

fn check(given: Value) -> Result<String, Vec<String>> {
    check_params(&compiled(DECLARED), Some(&given))
        .map(|checked| Value::Object(checked).to_string())
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

#[test]
fn defaults_are_filled_in_and_the_declared_order_is_kept() {
    assert_eq!(
        check(json!({"anything": 1, "city": "Rome"})).unwrap(),
        r#"{"city":"Rome","count":3,"tags":null,"mode":"safe","anything":1}"#
    );
}

#[test]
fn all_that_does_not_fit_is_told_at_once() {
    let errors =
        check(json!({"coutn": 1, "count": 0, "tags": ["a", 1], "mode": "slow"})).unwrap_err();
    assert_eq!(
        errors,
        [
            "/coutn: unknown parameter `coutn`, did you mean `count`?",
            "/city: the parameter `city` is required",
            "/count: 0 is less than the minimum of 1",
            "/tags/1: 1 is not of type \"string\"",
            "/mode: \"slow\" is not one of \"fast\" or \"safe\"",
        ]
    );
}

#[test]
fn parameters_are_an_object() {
    let errors = check(json!([1])).unwrap_err();
    assert_eq!(errors, [": parameters must be an object of names and values"]);
}

#[test]
fn a_workflow_without_parameters_takes_none() {
    let graph = compiled("name: x\nsteps: [{action: a}]");
    assert!(check_params(&graph, None).unwrap().is_empty());
    assert!(check_params(&graph, Some(&Value::Null)).unwrap().is_empty());
    let errors = check_params(&graph, Some(&json!({"a": 1}))).unwrap_err();
    assert_eq!(errors[0].message, "unknown parameter `a`: the workflow has none");
}

#[test]
fn large_integers_keep_their_digits() {
    let graph = compiled("name: x\nparams: {n: {type: integer}}\nsteps: [{action: a}]");
    let given = json!({"n": 18_446_744_073_709_551_615_u64});
    let checked = check_params(&graph, Some(&given)).unwrap();
    assert_eq!(Value::Object(checked).to_string(), r#"{"n":18446744073709551615}"#);
}
