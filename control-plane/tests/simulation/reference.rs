//! What the model of the language says of a definition, where that hangs on nothing but the
//! definition: a run that met no fault of its own must have come to the same.

use std::collections::BTreeMap;

use engine::{Event, State};
use serde_json::Value;

use crate::interpret::Model;
use crate::language::Workflow;

/// What a run comes to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reference {
    /// Status and output by path.
    steps: BTreeMap<String, (&'static str, Value)>,
    /// All entries, those that went well, failed and were skipped.
    counts: [u32; 4],
    outputs: Value,
}

const MOMENTS_MAX: usize = 5_000;

/// Lives a life without faults. `None` when what comes of it hangs on time, on answers, or on
/// which of several things fails first.
pub(crate) fn of(workflow: &Workflow, text: &str) -> Option<Reference> {
    if ["\"deadline\"", "\"timeout\""].iter().any(|word| text.contains(word)) {
        return None;
    }
    let mut model = Model::new(workflow);
    for _ in 0..MOMENTS_MAX {
        if model.ended.is_some() {
            break;
        }
        if let Some((path, _, _)) = model.answerable().first() {
            model.answered(path);
            continue;
        }
        let out = model.out();
        let ready = out.iter().find(|(_, _, at)| at.is_none_or(|at| at <= model.now));
        match ready {
            Some((path, _, _)) => model.report(path),
            None => model.tick(model.next_time()?),
        }
    }
    let entries = model.entries();
    let smooth = entries.values().all(|entry| matches!(entry.status, "success" | "skipped"));
    let entry =
        |(path, entry): (String, crate::outcome::Entry)| (path, (entry.status, entry.output));
    (model.ended == Some("success") && smooth).then(|| Reference {
        steps: entries.into_iter().map(entry).collect(),
        counts: model.counts(),
        outputs: model.outputs(),
    })
}

/// Whether the run met nothing that the definition does not know.
fn is_plain(events: &[Event]) -> bool {
    let mut codes = events.iter().filter_map(|event| match event {
        Event::AttemptFailed { error, .. } | Event::StepFailed { error, .. } => Some(&error.code),
        _ => None,
    });
    let asked = events.iter().any(|event| {
        matches!(event, Event::RunCancelRequested { .. } | Event::StepCancelRequested { .. })
    });
    !asked && codes.all(|code| ["", "busy", "other"].contains(&code.as_str()))
}

/// Holds a run that has ended against its reference.
pub(crate) fn check(reference: &Reference, state: &State, events: &[Event]) -> Result<(), String> {
    if !is_plain(events) {
        return Ok(());
    }
    let value = |text: &engine::task::Json| serde_json::from_str(text).unwrap_or_default();
    let entry = |step: engine::StepView| {
        let output = step.output.as_ref().map_or(Value::Null, value);
        (step.path.to_string(), (step.status, output))
    };
    let counts = state.counts();
    let found = Reference {
        steps: state.steps().into_iter().map(entry).collect(),
        counts: [counts.total, counts.successful, counts.failed, counts.skipped],
        // Without declared outputs there may be none, or no names.
        outputs: state.outputs().map_or_else(|| serde_json::json!({}), value),
    };
    if found == *reference {
        return Ok(());
    }
    Err(format!("it came to {found:?}, the model to {reference:?}"))
}
