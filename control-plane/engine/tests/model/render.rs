//! The text of a definition; JSON, which is YAML.

use serde_json::{Map, Value, json};

use crate::expression::Expr;
use crate::language::{Kind, Repeat, Retry, Step, Workflow};

pub(crate) fn text(workflow: &Workflow) -> String {
    let ids = &workflow.ids;
    let mut whole = Map::new();
    whole.insert("name".to_owned(), json!("model"));
    whole.insert("fail_fast".to_owned(), json!(workflow.fail_fast));
    if let Some(deadline) = workflow.deadline {
        whole.insert("deadline".to_owned(), json!(millis(deadline)));
    }
    whole.insert("steps".to_owned(), list(&workflow.steps, ids));
    let mut handling = Map::new();
    handling.insert("rollback".to_owned(), json!(workflow.rollback));
    let scope = if workflow.branch { "branch" } else { "run" };
    handling.insert("scope".to_owned(), json!(scope));
    if let Some(policy) = &workflow.retry {
        handling.insert("retry".to_owned(), retry(policy));
    }
    if !workflow.on_failure.is_empty() {
        handling.insert("on_failure".to_owned(), list(&workflow.on_failure, ids));
    }
    whole.insert("error_handling".to_owned(), Value::Object(handling));
    let outputs: Map<String, Value> = workflow
        .outputs
        .iter()
        .map(|(name, expr)| (name.clone(), json!(expr.written(ids))))
        .collect();
    whole.insert("outputs".to_owned(), Value::Object(outputs));
    serde_json::to_string_pretty(&whole).unwrap()
}

fn millis(value: i64) -> String {
    format!("{value}ms")
}

fn list(steps: &[Step], ids: &[String]) -> Value {
    Value::Array(steps.iter().map(|one| step(one, ids)).collect())
}

fn whole(expr: &Expr, ids: &[String]) -> Value {
    match expr {
        Expr::Literal(value) => value.clone(),
        expr => json!(format!("${{{{ {} }}}}", expr.written(ids))),
    }
}

fn step(step: &Step, ids: &[String]) -> Value {
    let mut fields = Map::new();
    if step.named {
        fields.insert("id".to_owned(), json!(ids[step.key]));
    }
    if let Some(on) = &step.depends_on {
        let on: Vec<&String> = on.iter().map(|key| &ids[*key]).collect();
        fields.insert("depends_on".to_owned(), json!(on));
    }
    if let Some(condition) = &step.condition {
        fields.insert("condition".to_owned(), json!(condition.written(ids)));
    }
    match &step.repeat {
        Some(Repeat::Each { items, name, max_parallel }) => {
            fields.insert("foreach".to_owned(), json!(json!(items).to_string()));
            if *name != "item" {
                fields.insert("as".to_owned(), json!(name));
            }
            if let Some(most) = max_parallel {
                fields.insert("max_parallel".to_owned(), json!(most));
            }
        }
        Some(Repeat::While { condition, max_iterations }) => {
            fields.insert("while".to_owned(), json!(condition.written(ids)));
            fields.insert("max_iterations".to_owned(), json!(max_iterations));
        }
        None => {}
    }
    if step.held {
        fields.insert("continue_on_error".to_owned(), json!(true));
    }
    if step.checkpoint {
        fields.insert("checkpoint".to_owned(), json!(format!("after-{}", step.key)));
    }
    if let Some(deadline) = step.deadline {
        fields.insert("deadline".to_owned(), json!(millis(deadline)));
    }
    kind(step, ids, &mut fields);
    if !step.members.is_empty() {
        fields.insert("parallel".to_owned(), list(&step.members, ids));
    }
    Value::Object(fields)
}

fn kind(step: &Step, ids: &[String], fields: &mut Map<String, Value>) {
    let mut put = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
    match &step.kind {
        Kind::Echo { params, compensate } => {
            put("agent", json!("echo"));
            put("action", json!("echo"));
            let params = params.iter().map(|(name, expr)| (name.clone(), whole(expr, ids)));
            put("params", Value::Object(params.collect()));
            if *compensate {
                put("compensate", json!("sweep"));
            }
        }
        Kind::Append => put("action", json!("append")),
        Kind::Fail(fail) => {
            put("action", json!("fail"));
            let mut params = json!({"message": message(step.key)});
            if let Some(after) = fail.succeed_after {
                params["succeed_after"] = json!(after);
            }
            if fail.permanent {
                params["kind"] = json!("permanent");
            }
            if !fail.code.is_empty() {
                params["code"] = json!(fail.code);
            }
            put("params", params);
            if let Some(policy) = &fail.retry {
                put("retry", retry(policy));
            }
        }
        Kind::Wait(time) => put("wait", json!(millis(*time))),
        Kind::WaitFor { timeout, .. } => {
            let signal = format!("signal-{}", step.key);
            put("wait_for", json!({"signal": signal, "timeout": millis(*timeout)}));
        }
        Kind::Approve { timeout, .. } => {
            put("approve", json!({"message": "sure?", "timeout": millis(*timeout)}));
        }
        Kind::Block(steps) => put("steps", list(steps, ids)),
        Kind::Choice { then, otherwise } => {
            put("then", list(then, ids));
            if let Some(otherwise) = otherwise {
                put("else", list(otherwise, ids));
            }
        }
    }
}

/// What a failing step says.
pub(crate) fn message(key: usize) -> String {
    format!("boom {key}")
}

fn retry(policy: &Retry) -> Value {
    let mut retry = json!({
        "max_attempts": policy.max_attempts,
        "backoff": policy.backoff,
        "delay": millis(policy.delay),
        "jitter": 0,
    });
    if let Some(most) = policy.max_delay {
        retry["max_delay"] = json!(millis(most));
    }
    if !policy.retry_on.is_empty() {
        retry["retry_on"] = json!(policy.retry_on);
    }
    if !policy.no_retry_on.is_empty() {
        retry["no_retry_on"] = json!(policy.no_retry_on);
    }
    retry
}
