//! Reads steps and lists of steps: what every step may say, and which one thing it does.

use super::draft::{Group, Kind, List, Site, Step, Word};
use super::limit::NAME_CHARS_MAX;
use super::nearest::listed;
use super::read::{Fields, Reader};
use super::yaml::{Kind as Yaml, Node};
use crate::expression::Template;
use crate::graph::Repeat;
use crate::limits::{DEFINITION_STEPS_MAX, NESTING_MAX, WHILE_ITERATIONS_DEFAULT};

/// All fields of a step.
const STEP: &[&str] = &[
    "id",
    "agent",
    "action",
    "params",
    "requires",
    "depends_on",
    "parallel",
    "condition",
    "then",
    "else",
    "steps",
    "foreach",
    "as",
    "max_parallel",
    "while",
    "max_iterations",
    "workflow",
    "wait",
    "wait_for",
    "approve",
    "notify",
    "timeout",
    "deadline",
    "queue_timeout",
    "retry",
    "fallback",
    "continue_on_error",
    "compensate",
    "checkpoint",
    "delivery",
    "priority",
    "concurrency",
    "rate_limit",
];
/// The fields that say what a step does; `then` and `else` are one thing.
const THINGS: [&str; 9] =
    ["action", "workflow", "steps", "then", "else", "wait", "wait_for", "approve", "notify"];
/// The fields that only an action can have.
const ACTION_ONLY: [&str; 8] = [
    "agent",
    "requires",
    "queue_timeout",
    "retry",
    "fallback",
    "compensate",
    "delivery",
    "priority",
];
/// Names that an item of a loop cannot have.
const TAKEN_NAMES: [&str; 6] = ["params", "steps", "run", "failure", "index", "iteration"];
/// Words that CEL keeps for itself, and its types.
const CEL_WORDS: [&str; 32] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "null",
    "package",
    "return",
    "true",
    "var",
    "void",
    "while",
    "bool",
    "bytes",
    "double",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "type",
    "uint",
    "dyn",
];

/// Where a list of steps stands.
#[derive(Clone, Copy)]
pub(super) struct Within {
    /// The step whose body it is.
    pub(super) parent: Option<usize>,
    /// How many blocks there are around it.
    pub(super) depth: usize,
}

impl Reader<'_> {
    /// Reads a list of steps and gives its number.
    pub(super) fn list(&mut self, node: &Node, what: &str, within: Within, empty: bool) -> usize {
        let number = self.draft.lists.len();
        self.draft.lists.push(List { parent: within.parent, groups: Vec::new() });
        let Yaml::List(items) = &node.kind else {
            self.wrong(node, what, "a list of steps, each on a line that begins with `-`");
            return number;
        };
        if within.depth > NESTING_MAX {
            let message = format!("step blocks nest deeper than {NESTING_MAX}");
            self.complaints.error(node.position, message);
            return number;
        }
        if items.is_empty() && !empty {
            self.complaints.error(node.position, format!("{what} must have at least one step"));
        }
        for item in items {
            if let Some(group) = self.group(item, number, within.depth) {
                self.draft.lists[number].groups.push(group);
            }
        }
        number
    }

    /// Reads a step and the members that run beside it.
    fn group(&mut self, node: &Node, list: usize, depth: usize) -> Option<Group> {
        let group = self.draft.lists[list].groups.len();
        let (head, fields) = self.step(node, list, group, depth)?;
        let mut steps = vec![head];
        let (named, broken) = match fields.get("depends_on") {
            None => (None, false),
            Some(node) => {
                let named = self.names(node, "`depends_on`", "step ids");
                let broken = named.is_none();
                (Some(named.unwrap_or_default()), broken)
            }
        };
        if let Some(parallel) = fields.get("parallel") {
            self.members(parallel, &mut steps, list, depth);
        }
        Some(Group { steps, named, broken, depends_on: Vec::new() })
    }

    fn members(&mut self, node: &Node, steps: &mut Vec<usize>, list: usize, depth: usize) {
        let Yaml::List(items) = &node.kind else {
            self.wrong(node, "`parallel`", "a list of steps, each on a line that begins with `-`");
            return;
        };
        let group = self.draft.lists[list].groups.len();
        for item in items {
            let Some((member, fields)) = self.step(item, list, group, depth) else { continue };
            steps.push(member);
            if let Some(key) = fields.any_of(&["depends_on"]) {
                let message = "a member of `parallel` has no `depends_on` of its own: it starts \
                               with its group";
                self.complaints.error(key.position, message);
            }
            if let Some(key) = fields.any_of(&["parallel"]) {
                let message = "a member of `parallel` has no `parallel` of its own: list all \
                               members side by side";
                self.complaints.error(key.position, message);
            }
        }
    }

    /// Reads one step, without what it waits for and what runs beside it.
    fn step<'n>(
        &mut self,
        node: &'n Node,
        list: usize,
        group: usize,
        depth: usize,
    ) -> Option<(usize, Fields<'n>)> {
        if self.steps.len() >= DEFINITION_STEPS_MAX {
            if !self.too_many_steps {
                self.too_many_steps = true;
                let message = format!(
                    "a definition has at most {DEFINITION_STEPS_MAX} steps, here is one more"
                );
                self.complaints.error(node.position, message);
            }
            return None;
        }
        let fields = self.object(node, "a step", STEP)?;
        let number = self.steps.len();
        self.steps.push(None);
        let outer_uses = std::mem::take(&mut self.uses);
        let mut step = self.common(fields, list, group);
        self.thing(fields, number, depth, &mut step);
        step.uses = std::mem::replace(&mut self.uses, outer_uses);
        self.steps[number] = Some(step);
        Some((number, fields))
    }

    /// What every step may say.
    fn common(&mut self, fields: Fields<'_>, list: usize, group: usize) -> Step {
        let repeat = self.repeat(fields);
        let inline = repeat.is_some() && fields.get("steps").is_none();
        let key_site = if inline { Site::Within } else { Site::Before };
        Step {
            position: fields.position,
            given_id: fields.get("id").and_then(|node| self.id(node)),
            default_id: String::new(),
            id: "".into(),
            list,
            group,
            condition: fields
                .get("condition")
                .and_then(|node| self.condition(node, "`condition`", Site::Before)),
            repeat,
            kind: Kind::Broken,
            deadline: fields.get("deadline").and_then(|node| self.duration(node, "`deadline`")),
            continue_on_error: fields
                .get("continue_on_error")
                .and_then(|node| self.boolean(node, "`continue_on_error`"))
                .unwrap_or(false),
            checkpoint: fields
                .get("checkpoint")
                .and_then(|node| self.name(node, "the name of a `checkpoint`")),
            concurrency: fields
                .get("concurrency")
                .and_then(|node| self.concurrency(node, key_site)),
            rate_limit: fields.get("rate_limit").and_then(|node| self.rate_limit(node, key_site)),
            uses: Vec::new(),
        }
    }

    fn id(&mut self, node: &Node) -> Option<Word> {
        let text = self.text(node, "`id`")?;
        let id = Word { text: text.as_str().into(), position: node.position };
        let suggestion = default_id(&text);
        if suggestion == text && !text.is_empty() && text.chars().count() <= NAME_CHARS_MAX {
            return Some(id);
        }
        let shown = super::yaml::shorten(&text);
        let hint = super::nearest::hint(Some(suggestion.as_str()).filter(|id| !id.is_empty()));
        let message = format!(
            "the id `{shown}` must be made of letters, digits, `_` and `-`, at most \
             {NAME_CHARS_MAX}{hint}"
        );
        self.complaints.error_suggesting(node.position, message, suggestion);
        // Others may name it: they are not to be complained of.
        Some(id)
    }

    /// `foreach` or `while`.
    fn repeat(&mut self, fields: Fields<'_>) -> Option<Repeat> {
        let (foreach, cycle) = (fields.entry("foreach"), fields.entry("while"));
        if let (Some((first, _)), Some((second, _))) = (foreach, cycle) {
            let later = first.position.max(second.position);
            let message = "`foreach` and `while` cannot stand on one step: put one into the \
                           `steps` of the other";
            self.complaints.error(later, message);
        }
        for (field, of) in
            [("as", "foreach"), ("max_parallel", "foreach"), ("max_iterations", "while")]
        {
            if let Some(key) = fields.any_of(&[field])
                && fields.get(of).is_none()
            {
                let message = format!("`{field}` belongs to a `{of}`, and there is none");
                self.complaints.error(key.position, message);
            }
        }
        if let Some((_, node)) = foreach {
            return self.for_each(fields, node);
        }
        let condition = self.condition(cycle?.1, "`while`", Site::While);
        let max_iterations = match fields.get("max_iterations") {
            Some(node) => self.integer(node, "`max_iterations`", 1..=u32::MAX)?,
            None => WHILE_ITERATIONS_DEFAULT,
        };
        Some(Repeat::While { condition: condition?, max_iterations })
    }

    fn for_each(&mut self, fields: Fields<'_>, node: &Node) -> Option<Repeat> {
        let items = match &node.kind {
            Yaml::List(_) => self.template(node, "`foreach`", Site::Before),
            Yaml::Text(text) => {
                let wrapped = if text.trim_start().starts_with("${{") {
                    text.trim().to_owned()
                } else {
                    // On a line of its own, so that a comment does not swallow the end.
                    format!("${{{{ {text}\n}}}}")
                };
                let expression = self.expression(node, "`foreach`", Site::Before);
                let wrapped = serde_json::Value::String(wrapped);
                let template = expression.map(|_| Template::parse(&wrapped));
                template.and_then(|template| {
                    template.map_err(|_| self.wrong(node, "`foreach`", "an expression")).ok()
                })
            }
            _ => {
                self.wrong(node, "`foreach`", "a list or an expression that gives one");
                None
            }
        };
        let item_name = match fields.get("as") {
            Some(node) => self.item_name(node),
            None => Some("item".into()),
        };
        let max_parallel = match fields.get("max_parallel") {
            Some(node) => Some(self.integer(node, "`max_parallel`", 1..=u32::MAX)?),
            None => None,
        };
        Some(Repeat::ForEach { items: items?, item_name: item_name?, max_parallel })
    }

    fn item_name(&mut self, node: &Node) -> Option<std::sync::Arc<str>> {
        let name = self.name(node, "`as`")?;
        let shown = &name.text;
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let message = if !shown.chars().all(word) || shown.starts_with(|c: char| c.is_ascii_digit())
        {
            format!("`as` must be a name of letters, digits and `_`, found `{shown}`")
        } else if TAKEN_NAMES.contains(&&**shown) || CEL_WORDS.contains(&&**shown) {
            format!("`as` cannot be `{shown}`: expressions know that name already")
        } else {
            return Some(name.text);
        };
        self.complaints.error(node.position, message);
        None
    }

    /// The one thing that a step does.
    fn thing(&mut self, fields: Fields<'_>, number: usize, depth: usize, step: &mut Step) {
        self.check_things(fields);
        let thing = fields.any_of(&THINGS).map(|key| key.text.as_str());
        if thing != Some("action") {
            self.refuse_fields(fields, thing);
        }
        let within = Within { parent: Some(number), depth: depth + 1 };
        let (kind, default_id) = match thing {
            None => {
                // What it does is mistyped or left out; its other fields are looked at all the
                // same, so that all complaints come at once.
                self.action_fields(fields);
                (Kind::Broken, String::new())
            }
            Some("action") => self.action(fields),
            Some("workflow") => self.sub_workflow(fields),
            Some("steps") => {
                let name = match (fields.get("foreach"), fields.get("while")) {
                    (Some(_), _) => "foreach",
                    (None, Some(_)) => "while",
                    (None, None) if fields.get("condition").is_some() => "if",
                    (None, None) => "block",
                };
                let body =
                    fields.get("steps").map(|node| self.list(node, "`steps`", within, false));
                (body.map_or(Kind::Broken, Kind::Block), name.to_owned())
            }
            Some("then" | "else") => (self.branches(fields, within), "if".to_owned()),
            Some(other) => (self.waiting(fields, other), other.to_owned()),
        };
        if matches!(
            kind,
            Kind::Block(_) | Kind::Choice { .. } | Kind::Wait { .. } | Kind::Notify { .. }
        ) && let Some(timeout) = fields.get("timeout")
            && let Some(timeout) = self.duration(timeout, "`timeout`")
        {
            // They have no attempts: a time-out bounds the whole step.
            step.deadline = Some(step.deadline.map_or(timeout, |deadline| deadline.min(timeout)));
        }
        step.kind = kind;
        step.default_id = default_id;
    }

    /// Exactly one thing.
    fn check_things(&mut self, fields: Fields<'_>) {
        let Some(first) = fields.any_of(&THINGS) else {
            if fields.mistyped(&THINGS) {
                return;
            }
            let message = if fields.get("agent").is_some() {
                "the step names an `agent` but no `action`".to_owned()
            } else if fields.get("foreach").is_some() || fields.get("while").is_some() {
                "there is nothing to repeat: the step needs an `action`, or a block of `steps`"
                    .to_owned()
            } else if fields.get("condition").is_some() {
                "the step needs something to do under its `condition`: an `action`, `steps` or \
                 `then`"
                    .to_owned()
            } else if fields.get("parallel").is_some() {
                "the step does nothing itself: move the first member of `parallel` up into it"
                    .to_owned()
            } else {
                let things: Vec<&str> =
                    THINGS.into_iter().filter(|thing| *thing != "else").collect();
                format!("the step does nothing, expected one of {}", listed(&things, "or"))
            };
            let suggestion = if fields.get("agent").is_some() { "action" } else { "" };
            self.complaints.error_suggesting(fields.position, message, suggestion);
            return;
        };
        let branch = |name: &str| matches!(name, "then" | "else");
        let others: Vec<&str> = THINGS
            .into_iter()
            .filter(|thing| *thing != first.text)
            .filter(|thing| !(branch(thing) && branch(&first.text)))
            .collect();
        if let Some(second) = fields.any_of(&others) {
            let message = format!(
                "a step does one thing, found `{}` and `{}`: make two steps of it",
                first.text, second.text
            );
            self.complaints.error(second.position, message);
        }
        if let Some(key) = fields.any_of(&["then", "else"]) {
            if fields.get("condition").is_none() {
                let message = format!("`{}` needs a `condition`", key.text);
                self.complaints.error_suggesting(key.position, message, "condition");
            }
            if let Some(repeat) = fields.any_of(&["foreach", "while"]) {
                let message = format!(
                    "`{}` cannot stand on a step with `{}`: put it into `steps`",
                    repeat.text, key.text
                );
                self.complaints.error(repeat.position, message);
            }
        }
    }

    /// Fields that mean nothing on this kind of step.
    fn refuse_fields(&mut self, fields: Fields<'_>, thing: Option<&str>) {
        let Some(thing) = thing else { return };
        for field in ACTION_ONLY {
            if let Some(key) = fields.any_of(&[field]) {
                let remedy = match thing {
                    "steps" | "then" | "else" => ": put it on the steps inside",
                    _ => "",
                };
                let message =
                    format!("`{field}` belongs to an `action`, this step has `{thing}`{remedy}");
                self.complaints.error(key.position, message);
            }
        }
        if thing != "workflow"
            && let Some(key) = fields.any_of(&["params"])
        {
            let message =
                format!("`params` belongs to an `action` or a `workflow`, this step has `{thing}`");
            self.complaints.error(key.position, message);
        }
    }

    fn branches(&mut self, fields: Fields<'_>, within: Within) -> Kind {
        let mut branch = |name: &str| {
            let node = fields.get(name)?;
            Some(self.list(node, &format!("`{name}`"), within, false))
        };
        Kind::Choice { then: branch("then"), otherwise: branch("else") }
    }
}

/// A name as an id: other characters become `_`.
pub(super) fn default_id(name: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let id: String = name.trim().chars().map(|c| if fits(c) { c } else { '_' }).collect();
    if id.chars().all(|c| c == '_') { String::new() } else { id }
}
