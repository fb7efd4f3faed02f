//! What waits for what: resolves `depends_on` to groups, and refuses circles.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::complaint::Complaints;
use super::draft::{Draft, Word};
use super::limit::DEPENDENCIES_MAX;
use super::nearest::{hint, nearest};
use crate::graph::Position;

/// Circles of one list that are complained of.
const CIRCLES_MAX: usize = 100;

/// Sets what each group waits for.
pub(super) fn resolve(
    draft: &mut Draft,
    ids: &HashMap<Arc<str>, usize>,
    complaints: &mut Complaints,
) {
    let mut total = 0_usize;
    for list in 0..draft.lists.len() {
        for group in 0..draft.lists[list].groups.len() {
            let depends_on = match draft.lists[list].groups[group].named.take() {
                None => group.checked_sub(1).into_iter().collect(),
                Some(named) => {
                    let found = named_groups(draft, ids, complaints, (list, group), &named);
                    draft.lists[list].groups[group].named = Some(named);
                    found
                }
            };
            let groups = &mut draft.lists[list].groups;
            let size = groups[group].steps.len();
            let before: usize = depends_on.iter().map(|&before| groups[before].steps.len()).sum();
            total = total.saturating_add(size.saturating_mul(before));
            groups[group].depends_on = depends_on;
            if total > DEPENDENCIES_MAX {
                let position = draft.steps[draft.lists[list].groups[group].steps[0]].position;
                let message = format!(
                    "the steps wait for one another in more than {DEPENDENCIES_MAX} ways: put a \
                     single step between large groups"
                );
                complaints.error(position, message);
                return;
            }
        }
        circles(draft, list, complaints);
    }
}

/// The groups that the words name, each once.
fn named_groups(
    draft: &Draft,
    ids: &HashMap<Arc<str>, usize>,
    complaints: &mut Complaints,
    (list, group): (usize, usize),
    named: &[Word],
) -> Vec<usize> {
    let mut seen: HashMap<&str, ()> = HashMap::new();
    let mut found = Vec::new();
    for word in named {
        let id = &*word.text;
        if seen.insert(id, ()).is_some() {
            let message = format!("`{id}` is named twice in `depends_on`");
            complaints.warning(word.position, message, "");
            continue;
        }
        let Some(&step) = ids.get(id) else {
            unknown(draft, list, complaints, word);
            continue;
        };
        let target = &draft.steps[step];
        if target.list != list {
            complaints.error(word.position, elsewhere(draft, list, step, id));
        } else if target.group == group {
            let message = if draft.lists[list].groups[group].steps[0] == step {
                format!("`{id}` cannot wait for itself")
            } else {
                format!("`{id}` runs beside this step, which cannot wait for it")
            };
            complaints.error(word.position, message);
        } else {
            found.push(target.group);
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn unknown(draft: &Draft, list: usize, complaints: &mut Complaints, word: &Word) {
    let id = &word.text;
    if complaints.full() {
        complaints.error(word.position, String::new());
        return;
    }
    let steps = draft.lists[list].groups.iter().flat_map(|group| &group.steps);
    let meant = nearest(id, steps.map(|&step| &*draft.steps[step].id));
    let shown = super::yaml::shorten(id);
    let message = format!("`depends_on` names an unknown step `{shown}`{}", hint(meant));
    complaints.error_suggesting(word.position, message, meant.unwrap_or_default());
}

/// Why a step that stands in another list cannot be waited for.
fn elsewhere(draft: &Draft, list: usize, step: usize, id: &str) -> String {
    // Up from the named step: does it stand in a block of this list?
    let mut at = draft.steps[step].list;
    while let Some(parent) = draft.lists[at].parent {
        at = draft.steps[parent].list;
        if at == list {
            let outer = &draft.steps[parent].id;
            return format!(
                "`{id}` stands inside `{outer}`, and cannot be waited for from outside: depend on \
                 `{outer}`"
            );
        }
    }
    format!(
        "`{id}` stands in another list of steps: `depends_on` names steps of its own list alone"
    )
}

/// Complains of each circle once, at its first step.
fn circles(draft: &Draft, list: usize, complaints: &mut Complaints) {
    let groups = &draft.lists[list].groups;
    // Take away what waits for nothing, and again; and from the other end. What is left stands in
    // circles or between them.
    let mut left: Vec<bool> = vec![true; groups.len()];
    let dependents = turned(groups.iter().map(|group| group.depends_on.as_slice()));
    let forward: Vec<&[usize]> = groups.iter().map(|group| group.depends_on.as_slice()).collect();
    let backward: Vec<&[usize]> = dependents.iter().map(Vec::as_slice).collect();
    peel(&mut left, &forward, &backward);
    peel(&mut left, &backward, &forward);
    for _ in 0..CIRCLES_MAX {
        let Some(start) = left.iter().position(|left| *left) else { return };
        if let Some(circle) = shortest_circle(start, &forward, &left) {
            complain(draft, list, &circle, complaints);
            for group in circle {
                left[group] = false;
            }
        } else {
            left[start] = false;
        }
        peel(&mut left, &forward, &backward);
        peel(&mut left, &backward, &forward);
    }
}

fn turned<'a>(edges: impl Iterator<Item = &'a [usize]> + Clone) -> Vec<Vec<usize>> {
    let mut turned = vec![Vec::new(); edges.clone().count()];
    for (from, targets) in edges.enumerate() {
        for &to in targets {
            turned[to].push(from);
        }
    }
    turned
}

/// Takes away whatever has no edge left, until all that is left has one.
fn peel(left: &mut [bool], edges: &[&[usize]], turned: &[&[usize]]) {
    let mut counts: Vec<usize> = edges
        .iter()
        .map(|targets| targets.iter().filter(|&&target| left[target]).count())
        .collect();
    let mut free: VecDeque<usize> =
        (0..left.len()).filter(|&group| left[group] && counts[group] == 0).collect();
    while let Some(group) = free.pop_front() {
        left[group] = false;
        for &other in turned[group] {
            if left[other] {
                counts[other] -= 1;
                if counts[other] == 0 {
                    free.push_back(other);
                }
            }
        }
    }
}

/// The shortest way from `start` back to it.
fn shortest_circle(start: usize, edges: &[&[usize]], left: &[bool]) -> Option<Vec<usize>> {
    let mut came_from: HashMap<usize, usize> = HashMap::new();
    let mut open = VecDeque::from([start]);
    while let Some(group) = open.pop_front() {
        for &next in edges[group] {
            if next == start {
                let mut circle = vec![group];
                while let Some(&before) = came_from.get(circle.last().unwrap_or(&start)) {
                    circle.push(before);
                }
                circle.reverse();
                return Some(circle);
            }
            if left[next] && !came_from.contains_key(&next) {
                came_from.insert(next, group);
                open.push_back(next);
            }
        }
    }
    None
}

fn complain(draft: &Draft, list: usize, circle: &[usize], complaints: &mut Complaints) {
    const SHOWN_MAX: usize = 10;
    let groups = &draft.lists[list].groups;
    let head = |group: usize| &draft.steps[groups[group].steps[0]];
    let mut names: Vec<&str> = circle.iter().map(|&group| &*head(group).id).collect();
    if names.len() > SHOWN_MAX {
        names.truncate(SHOWN_MAX);
        names.push("…");
    }
    names.push(names[0]);
    let implied = circle.iter().find(|&&group| groups[group].named.is_none());
    let hint = implied.map_or_else(String::new, |&group| {
        format!(" (`{}` has no `depends_on`, so it waits for the step before it)", head(group).id)
    });
    let position: Position = head(circle[0]).position;
    let circle = names.join(" -> ");
    complaints.error(position, format!("steps wait for one another in a circle: `{circle}`{hint}"));
}
