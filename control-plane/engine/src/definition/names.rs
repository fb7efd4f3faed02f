//! Checks the names that expressions use, as far as they are certain before anything runs: what
//! is declared, and what will have settled.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::complaint::Complaints;
use super::draft::{Draft, Kind, Site, Step, Use};
use super::limit::CANDIDATES_MAX;
use super::nearest::{hint, nearest};
use crate::graph::{Repeat, Rollback};

/// The fields of `run`.
const RUN: [&str; 6] = ["id", "started_at", "workflow", "version", "priority", "labels"];
/// The fields of `failure`.
const FAILURE: [&str; 3] = ["step", "error", "code"];
/// How often the name nearest to an unknown one is looked for in one file.
const SEARCHES_MAX: usize = 1000;
/// The names that are always there.
const GLOBAL: [&str; 3] = ["params", "steps", "run"];

/// Checks all names, and what else is suspicious about the whole.
pub(super) fn check(draft: &Draft, ids: &HashMap<Arc<str>, usize>, complaints: &mut Complaints) {
    let settled = draft.lists.iter().map(|list| Settled::of(&list.groups)).collect();
    let dashed = dashed(draft);
    let names = Names { draft, ids, settled, dashed, searches_left: Cell::new(SEARCHES_MAX) };
    for used in &draft.uses {
        names.check(None, used, complaints);
    }
    for (number, step) in draft.steps.iter().enumerate() {
        for used in &step.uses {
            names.check(Some(number), used, complaints);
        }
    }
    unused_params(draft, complaints);
    checkpoints(draft, complaints);
    on_failure(draft, complaints);
}

/// Which groups of a list have certainly settled when one of them starts.
struct Settled {
    words: usize,
    bits: Vec<u64>,
}

impl Settled {
    fn of(groups: &[super::draft::Group]) -> Self {
        let words = groups.len().div_ceil(64);
        let mut settled = Self { words, bits: vec![0; words * groups.len()] };
        let mut begun = vec![false; groups.len()];
        // Depth first, without recursion: a group is finished when all it waits for are.
        for start in 0..groups.len() {
            let mut open = Vec::new();
            if !std::mem::replace(&mut begun[start], true) {
                open.push((start, 0));
            }
            while let Some((group, next)) = open.pop() {
                let Some(&before) = groups[group].depends_on.get(next) else {
                    for &before in &groups[group].depends_on {
                        settled.join(group, before);
                    }
                    continue;
                };
                open.push((group, next + 1));
                // In a circle, which is complained of elsewhere, the way back is not gone.
                if !std::mem::replace(&mut begun[before], true) {
                    open.push((before, 0));
                }
            }
        }
        settled
    }

    fn join(&mut self, group: usize, before: usize) {
        for word in 0..self.words {
            let bits = self.bits[before * self.words + word];
            self.bits[group * self.words + word] |= bits;
        }
        self.bits[group * self.words + before / 64] |= 1 << (before % 64);
    }

    fn has(&self, group: usize, before: usize) -> bool {
        self.bits[group * self.words + before / 64] & (1 << (before % 64)) != 0
    }
}

struct Names<'d> {
    draft: &'d Draft,
    ids: &'d HashMap<Arc<str>, usize>,
    /// For each list.
    settled: Vec<Settled>,
    /// The ids with `-`, by each of their parts.
    dashed: HashMap<&'d str, Vec<&'d str>>,
    /// How many more names may be compared with all others.
    searches_left: Cell<usize>,
}

fn dashed(draft: &Draft) -> HashMap<&str, Vec<&str>> {
    let mut dashed: HashMap<&str, Vec<&str>> = HashMap::new();
    for step in draft.steps.iter().filter(|step| step.id.contains('-')) {
        for part in step.id.split('-') {
            let ids = dashed.entry(part).or_default();
            if ids.len() < CANDIDATES_MAX {
                ids.push(&step.id);
            }
        }
    }
    dashed
}

impl<'d> Names<'d> {
    /// Whether the nearest name may be looked for once more.
    fn may_search(&self) -> bool {
        let left = self.searches_left.get();
        self.searches_left.set(left.saturating_sub(1));
        left > 0
    }

    fn check(&self, step: Option<usize>, used: &Use, complaints: &mut Complaints) {
        let field = used.fields.first().map(String::as_str);
        match (used.name.as_str(), field) {
            ("params", Some(field)) => self.param(used, field, complaints),
            ("run", Some(field)) => known_field(used, field, &RUN, complaints),
            ("steps", Some(id)) if used.site == Site::Start => {
                let message = format!("`steps.{id}` cannot be read here: no step has run yet");
                complaints.error(used.position, message);
            }
            ("steps", Some(id)) => match self.ids.get(id) {
                Some(&target) => self.step(step, used, target, complaints),
                None => self.unknown_step(step, used, id, complaints),
            },
            ("params" | "run" | "steps", None) => {}
            ("failure", field) if self.in_on_failure(step) => {
                if let Some(field) = field {
                    known_field(used, field, &FAILURE, complaints);
                }
            }
            (name, _) if self.loop_names(step, used.site).any(|known| known == name) => {}
            (name, _) => match self.ids.get(name) {
                Some(&target) => self.step(step, used, target, complaints),
                None => self.bare(step, used, complaints),
            },
        }
    }

    fn param(&self, used: &Use, field: &str, complaints: &mut Complaints) {
        let declared = &self.draft.param_places;
        if self.draft.params_broken || declared.contains_key(field) {
            return;
        }
        let names = self.draft.params.iter().map(|param| &*param.name);
        let meant = nearest(field, names);
        let rest = match meant {
            Some(_) => hint(meant),
            None if declared.is_empty() => ": the workflow declares no `params`".to_owned(),
            None => ": it is not declared in `params`".to_owned(),
        };
        let message = format!("unknown parameter `{}`{rest}", super::yaml::shorten(field));
        complaints.error_suggesting(used.position, message, meant.unwrap_or_default());
    }

    fn in_on_failure(&self, step: Option<usize>) -> bool {
        let Some(step) = step else { return false };
        let mut list = self.draft.steps[step].list;
        while let Some(parent) = self.draft.lists[list].parent {
            list = self.draft.steps[parent].list;
        }
        self.draft.on_failure == Some(list)
    }

    /// The steps around this one, the nearest first.
    fn around(&self, step: Option<usize>) -> impl Iterator<Item = usize> {
        let parent = |step: usize| self.draft.lists[self.draft.steps[step].list].parent;
        std::iter::successors(step.and_then(parent), move |&step| parent(step))
    }

    /// What the loops around a place give names to.
    fn loop_names(&self, step: Option<usize>, site: Site) -> impl Iterator<Item = &str> {
        let own = step.filter(|&step| {
            let step = &self.draft.steps[step];
            match site {
                Site::While => true,
                Site::Within | Site::Undo => step.is_inline_loop(),
                Site::Before | Site::Outputs | Site::Start => false,
            }
        });
        own.into_iter().chain(self.around(step)).flat_map(|step| {
            let names = match &self.draft.steps[step].repeat {
                Some(Repeat::ForEach { item_name, .. }) => [Some(&**item_name), Some("index")],
                Some(Repeat::While { .. }) => [Some("iteration"), None],
                None => [None, None],
            };
            names.into_iter().flatten()
        })
    }

    /// A step that is read must have settled, and must not stand inside another.
    fn step(&self, step: Option<usize>, used: &Use, target: usize, complaints: &mut Complaints) {
        let steps = &self.draft.steps;
        let id = &steps[target].id;
        let Some(place) = step else {
            match used.site {
                Site::Outputs if steps[target].list == 0 => {}
                Site::Outputs => {
                    complaints.error(used.position, self.outside(target, 0));
                }
                _ => {
                    let message = format!("`{id}` cannot be read here: no step has run yet");
                    complaints.error(used.position, message);
                }
            }
            return;
        };
        let on_itself = match used.site {
            Site::Undo => true,
            Site::While => steps[place].is_inline_loop(),
            _ => false,
        };
        if target == place && on_itself {
            return;
        }
        let in_body = used.site == Site::While
            && matches!(steps[place].kind, Kind::Block(body) if steps[target].list == body);
        if in_body {
            return;
        }
        if let Some(message) = self.unsettled(place, target) {
            complaints.error(used.position, message);
        }
    }

    /// Why a step may not have settled where it is read.
    fn unsettled(&self, place: usize, target: usize) -> Option<String> {
        let steps = &self.draft.steps;
        let id = &steps[target].id;
        if place == target {
            return Some(format!("`{id}` cannot read its own result: it has none yet"));
        }
        for here in std::iter::once(place).chain(self.around(Some(place))) {
            let (list, group) = (steps[here].list, steps[here].group);
            if here == target {
                return Some(format!("`{id}` is not done before the steps inside it"));
            }
            if steps[target].list != list {
                continue;
            }
            let before = steps[target].group;
            if before == group {
                return Some(format!("`{id}` runs beside this step: it may not be done yet"));
            }
            let broken = self.draft.lists[list].groups[group].broken;
            if broken || self.settled[list].has(group, before) {
                return None;
            }
            let reader = &steps[here].id;
            return Some(format!(
                "`{id}` is not certain to be done before `{reader}`: add it to the `depends_on` of \
                 `{reader}`"
            ));
        }
        // The steps of `on_failure` come after all those of the whole.
        let handling = self.in_on_failure(Some(place));
        if handling && steps[target].list == 0 {
            return None;
        }
        if !handling && self.in_on_failure(Some(target)) {
            return Some(format!("`{id}` runs on failure alone, and cannot be read before"));
        }
        Some(self.outside(target, steps[place].list))
    }

    /// A step inside a block is read from outside.
    fn outside(&self, target: usize, list: usize) -> String {
        let steps = &self.draft.steps;
        let id = &steps[target].id;
        let outer = self.around(Some(target)).find(|&step| steps[step].list == list);
        let outer = outer.or_else(|| self.around(Some(target)).last());
        match outer {
            Some(outer) => {
                let outer = &steps[outer].id;
                format!(
                    "`{id}` stands inside `{outer}`, and cannot be read from outside: read \
                     `{outer}.output`"
                )
            }
            None => format!("`{id}` runs on failure alone, and cannot be read here"),
        }
    }

    fn unknown_step(&self, step: Option<usize>, used: &Use, id: &str, complaints: &mut Complaints) {
        if complaints.full() {
            return;
        }
        let meant = nearest(id, self.readable(step));
        let shown = super::yaml::shorten(id);
        let message = format!("unknown step `{shown}`{}", hint(meant));
        complaints.error_suggesting(used.position, message, meant.unwrap_or_default());
    }

    /// The ids that could be read from here, the nearest list first.
    fn readable(&self, step: Option<usize>) -> impl Iterator<Item = &str> {
        let draft = self.draft;
        let own = step.map_or(0, |step| draft.steps[step].list);
        let outer = self.around(step).map(|step| draft.steps[step].list);
        std::iter::once(own).chain(outer).flat_map(move |list| {
            let steps = draft.lists[list].groups.iter().flat_map(|group| &group.steps);
            steps.map(|&step| &*draft.steps[step].id)
        })
    }

    /// Whether there are steps directly before, whose outputs a bare name is looked up in.
    fn any_before(&self, step: Option<usize>, site: Site) -> bool {
        if site == Site::Outputs {
            return true;
        }
        let has = |step: usize| {
            let step = &self.draft.steps[step];
            let group = &self.draft.lists[step.list].groups[step.group];
            group.broken || !group.depends_on.is_empty()
        };
        step.is_some_and(|step| has(step) || self.around(Some(step)).any(has))
    }

    /// The id with `-` of which a name is a part, and which therefore reads as a subtraction.
    fn dashed(&self, used: &Use) -> Option<&'d str> {
        let ids = self.dashed.get(used.name.as_str())?;
        ids.iter().copied().filter(|id| used.text.contains(id)).max_by_key(|id| id.len())
    }

    /// A name that nobody knows: perhaps a field of an output, perhaps a slip.
    fn bare(&self, step: Option<usize>, used: &Use, complaints: &mut Complaints) {
        if complaints.full() {
            return;
        }
        let name = used.name.as_str();
        let before = self.any_before(step, used.site);
        if used.site == Site::Start {
            let known = "here only `params` and `run` can be read";
            let message = format!("unknown name `{}`: {known}", super::yaml::shorten(name));
            complaints.error(used.position, message);
            return;
        }
        if let (Site::Before, Some(own)) = (used.site, step)
            && self.loop_names(Some(own), Site::While).take(2).any(|known| known == name)
            && self.draft.steps[own].repeat.is_some()
        {
            let message = format!(
                "`{name}` is not there yet: this is evaluated once, before the loop; to ask it of \
                 each item, put it on a step inside the loop's `steps`"
            );
            complaints.error(used.position, message);
            return;
        }
        let dashed = self.dashed(used);
        if let Some(id) = dashed {
            if !id.starts_with(name) {
                // The first part of the id brings the complaint.
                return;
            }
            let suggestion = format!("steps[\"{id}\"]");
            let message = format!("`{id}` reads as a subtraction here: write `{suggestion}`");
            if before {
                complaints.warning(used.position, message, suggestion);
            } else {
                complaints.error_suggesting(used.position, message, suggestion);
            }
            return;
        }
        if (before && used.fields.is_empty()) || !self.may_search() {
            if !before {
                let message = format!("unknown name `{}`", super::yaml::shorten(name));
                complaints.error(used.position, message);
            }
            return;
        }
        let known = self.loop_names(step, used.site).chain(GLOBAL);
        let known = known.chain(self.readable(step));
        let mut seen = HashSet::new();
        let meant = nearest(name, known.filter(|name| seen.insert(*name)));
        if !before {
            let why = match (name, meant) {
                (_, Some(_)) => hint(meant),
                ("failure", None) => ": it is there in `on_failure` alone".to_owned(),
                ("item" | "index", None) => ": it is there in a `foreach` alone".to_owned(),
                ("iteration", None) => ": it is there in a `while` alone".to_owned(),
                _ => ": no step stands before, whose output could have it".to_owned(),
            };
            let message = format!("unknown name `{}`{why}", super::yaml::shorten(name));
            let suggestion = meant.unwrap_or_default();
            complaints.error_suggesting(used.position, message, suggestion);
        } else if let Some(meant) = meant {
            let message = format!(
                "`{name}` is no step: it is looked up in the outputs of the steps directly \
                 before, did you mean `{meant}`?"
            );
            complaints.warning(used.position, message, meant);
        }
    }
}

fn known_field(used: &Use, field: &str, known: &[&str], complaints: &mut Complaints) {
    if known.contains(&field) {
        return;
    }
    let meant = nearest(field, known.iter().copied());
    let rest = match meant {
        Some(_) => hint(meant),
        None => format!(", expected {}", super::nearest::listed(known, "or")),
    };
    let message = format!("`{}` has no `{}`{rest}", used.name, super::yaml::shorten(field));
    complaints.error_suggesting(used.position, message, meant.unwrap_or_default());
}

fn all_uses(draft: &Draft) -> impl Iterator<Item = &Use> {
    draft.uses.iter().chain(draft.steps.iter().flat_map(|step: &Step| &step.uses))
}

fn unused_params(draft: &Draft, complaints: &mut Complaints) {
    let mut used = HashSet::new();
    for name in all_uses(draft).filter(|used| used.name == "params") {
        match name.fields.first() {
            Some(field) => used.insert(field.as_str()),
            // All of them are read.
            None => return,
        };
    }
    for param in &draft.params {
        if !used.contains(&*param.name)
            && let Some(place) = draft.param_places.get(&param.name)
        {
            let message = format!("the parameter `{}` is declared and never read", param.name);
            complaints.warning(*place, message, "");
        }
    }
}

fn checkpoints(draft: &Draft, complaints: &mut Complaints) {
    let mut seen: HashMap<&str, u32> = HashMap::new();
    let mut words: Vec<_> =
        draft.steps.iter().filter_map(|step| step.checkpoint.as_ref()).collect();
    words.sort_by_key(|word| word.position);
    for word in words {
        if let Some(line) = seen.get(&*word.text) {
            let message =
                format!("the checkpoint `{}` is there twice, first in line {line}", word.text);
            complaints.error(word.position, message);
        } else {
            seen.insert(&word.text, word.position.line);
        }
    }
    if let (Rollback::ToCheckpoint, Some(place), true) =
        (draft.rollback, draft.rollback_place, seen.is_empty())
    {
        let message = "no step has a `checkpoint`: this acts as `to_start`";
        complaints.warning(place, message, "to_start");
    }
}

fn on_failure(draft: &Draft, complaints: &mut Complaints) {
    let Some(list) = draft.on_failure else { return };
    for &step in draft.lists[list].groups.iter().flat_map(|group| &group.steps) {
        let step = &draft.steps[step];
        if let Kind::Action(action) = &step.kind
            && let Some(undo) = &action.compensate
        {
            let message = "steps of `on_failure` are not undone: `compensate` does nothing here";
            complaints.warning(undo.position, message, "");
        }
        if let Some(checkpoint) = &step.checkpoint {
            let message = "nothing returns to a checkpoint in `on_failure`";
            complaints.warning(checkpoint.position, message, "");
        }
    }
}
