//! What the simulated agents offer, and what comes of it.

use std::time::Duration;

use contracts::v1::{self, task_result};
use serde_json::Value;

use crate::random::Random;
use crate::world::World;

/// What an agent says of itself.
pub(crate) fn register(instance: &str, slots: i32) -> v1::Register {
    let nothing = || v1::undo::Way::NothingToUndo(v1::NothingToUndo {});
    let by = |action: &str| v1::undo::Way::Action(action.to_owned());
    let actions = [
        ("echo", nothing()),
        ("append", by("remove_line")),
        ("fail", nothing()),
        ("sweep", nothing()),
        ("remove_line", nothing()),
    ];
    let action = |(name, way): (&str, v1::undo::Way)| v1::ActionCard {
        name: name.to_owned(),
        undo: Some(v1::Undo { way: Some(way), needs_output: false }),
        ..v1::ActionCard::default()
    };
    let actions = actions.into_iter().map(action).collect();
    v1::Register {
        agent_type: "echo".to_owned(),
        instance: instance.to_owned(),
        version: "1".to_owned(),
        card: Some(v1::AgentCard { description: String::new(), actions }),
        slots,
        ..v1::Register::default()
    }
}

fn failure(kind: v1::FailureKind, code: &str, message: &str) -> task_result::Outcome {
    task_result::Outcome::Failure(v1::TaskFailure {
        kind: kind.into(),
        code: code.to_owned(),
        message: message.to_owned(),
        retry_after: None,
        no_effect: true,
    })
}

/// What comes of a task, and how long it takes.
pub(crate) fn perform(
    task: &v1::Task,
    world: &World,
    random: &mut Random,
) -> (task_result::Outcome, Duration) {
    let time = if random.permille(world.plan.slow_tasks) {
        random.millis(3_000, 40_000)
    } else {
        random.millis(0, 60)
    };
    (outcome(task, world, random), time)
}

fn outcome(task: &v1::Task, world: &World, random: &mut Random) -> task_result::Outcome {
    let text = match task.input.as_ref().and_then(|input| input.data.as_ref()) {
        Some(v1::payload::Data::Json(text)) => text.clone(),
        _ => "{}".to_owned(),
    };
    let input: Value = serde_json::from_str(&text).unwrap();
    let after = input["succeed_after"].as_i64();
    if task.action == "fail" && after.is_none_or(|after| i64::from(task.attempt) < after) {
        let kind = match input["kind"] == "permanent" {
            true => v1::FailureKind::Permanent,
            false => v1::FailureKind::Retryable,
        };
        let code = input["code"].as_str().unwrap_or_default();
        return failure(kind, code, input["message"].as_str().unwrap_or("no"));
    }
    if !task.is_undo && random.permille(world.plan.failing_tasks) {
        return failure(v1::FailureKind::Retryable, "flaky", "it does at times");
    }
    let data = Some(v1::payload::Data::Json(text));
    let output = Some(v1::Payload { data, media_type: String::new() });
    task_result::Outcome::Success(v1::TaskSuccess { output, confidence: None })
}
