//! Gives every step its id: those that name themselves first, then the rest in file order.

use std::collections::HashMap;
use std::sync::Arc;

use super::complaint::Complaints;
use super::draft::Draft;

/// Names that expressions know already; a step of that name is reached by `steps["…"]` alone.
const SHADOWED: [&str; 4] = ["params", "steps", "run", "failure"];

/// Sets the ids and tells which step has which.
pub(super) fn assign(draft: &mut Draft, complaints: &mut Complaints) -> HashMap<Arc<str>, usize> {
    let mut order: Vec<usize> = (0..draft.steps.len()).collect();
    order.sort_by_key(|&step| draft.steps[step].position);
    let mut ids: HashMap<Arc<str>, usize> = HashMap::with_capacity(order.len());
    for &step in &order {
        let Some(word) = &draft.steps[step].given_id else { continue };
        let id = Arc::clone(&word.text);
        if let Some(&first) = ids.get(&id) {
            let line = draft.steps[first].given_id.as_ref().map_or(0, |word| word.position.line);
            let message =
                format!("the id `{id}` is given twice, first in line {line}: ids are unique");
            complaints.error(word.position, message);
        } else {
            if SHADOWED.contains(&&*id) {
                let message = format!(
                    "expressions know `{id}` as something else: they reach this step as \
                     `steps[\"{id}\"]`"
                );
                complaints.warning(word.position, message, "");
            }
            ids.insert(Arc::clone(&id), step);
        }
        draft.steps[step].id = id;
    }
    // The next number of each name, so that a thousand like-named steps are not counted a
    // thousand times.
    let mut numbers: HashMap<String, u32> = HashMap::new();
    for &step in &order {
        if draft.steps[step].given_id.is_some() {
            continue;
        }
        let base = std::mem::take(&mut draft.steps[step].default_id);
        let base = if base.is_empty() { "step".to_owned() } else { base };
        let number = numbers.entry(base.clone()).or_insert(1);
        let id: Arc<str> = loop {
            let id = if *number == 1 { base.clone() } else { format!("{base}_{number}") };
            *number += 1;
            if !ids.contains_key(id.as_str()) {
                break id.into();
            }
        };
        ids.insert(Arc::clone(&id), step);
        draft.steps[step].id = id;
    }
    ids
}
