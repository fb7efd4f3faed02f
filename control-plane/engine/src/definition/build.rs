//! From a checked draft to the graph that the engine runs.

use std::sync::Arc;

use serde_json::Value;

use super::draft::{self, Draft, Group, Kind, Step};
use crate::expression::Template;
use crate::graph::{Concurrency, Graph, List, ListId, Node, NodeId, NodeKind, RateLimit, Repeat};
use crate::id::ContentHash;
use crate::limits::PRIORITY_DEFAULT;

/// Builds the graph of a draft without errors.
pub(super) fn graph(draft: Draft, hash: ContentHash) -> Graph {
    let Draft { name, steps, lists, .. } = draft;
    let first_inline = lists.len();
    let mut builder = Builder {
        workflow: Arc::clone(&name),
        numbers: numbers(&steps),
        places: places(&lists, steps.len()),
        nodes: Vec::new(),
        lists: Vec::new(),
        inline: Vec::new(),
        first_inline,
    };
    builder.lists = lists.iter().map(|list| builder.list(list)).collect();
    let groups: Vec<Vec<Group>> = lists.into_iter().map(|list| list.groups).collect();
    let edges = edges(&groups, &builder.places);
    for (number, (step, edges)) in steps.into_iter().zip(edges).enumerate() {
        builder.step(number, step, edges);
    }
    let Builder { nodes, mut lists, inline, .. } = builder;
    lists.extend(inline);
    Graph {
        version: draft.version,
        description: draft.description,
        hash,
        params: draft.params,
        outputs: draft.outputs,
        nodes,
        lists,
        on_failure: draft.on_failure.map(list_id),
        rollback: draft.rollback,
        scope: draft.scope,
        rollback_approval: draft.rollback_approval,
        fail_fast: draft.fail_fast,
        deadline: draft.deadline,
        priority: draft.priority.unwrap_or(PRIORITY_DEFAULT),
        concurrency: draft.concurrency.map(concurrency),
        rate_limit: draft.rate_limit.map(|limit| rate_limit(limit, &name)),
        schedule: draft.schedule,
        name,
    }
}

fn list_id(number: usize) -> ListId {
    ListId(u32::try_from(number).expect("a definition has at most a few ten thousand lists"))
}

fn node_id(number: usize) -> NodeId {
    NodeId(u32::try_from(number).expect("a definition has at most twenty thousand nodes"))
}

/// The node of each step: an inline loop takes two, itself and what it repeats.
fn numbers(steps: &[Step]) -> Vec<NodeId> {
    let mut next = 0;
    let mut numbers = Vec::with_capacity(steps.len());
    for step in steps {
        numbers.push(node_id(next));
        next += if step.is_inline_loop() { 2 } else { 1 };
    }
    numbers
}

/// The place of each step in its list, groups spelled out.
fn places(lists: &[draft::List], steps: usize) -> Vec<u32> {
    let mut places = vec![0; steps];
    for list in lists {
        let members = list.groups.iter().flat_map(|group| &group.steps);
        for (place, &step) in (0..).zip(members) {
            places[step] = place;
        }
    }
    places
}

/// What a step waits for and what waits for it.
#[derive(Clone, Default)]
struct Edges {
    depends_on: Vec<u32>,
    dependents: Vec<u32>,
}

fn edges(lists: &[Vec<Group>], places: &[u32]) -> Vec<Edges> {
    let mut edges = vec![Edges::default(); places.len()];
    for groups in lists {
        for group in groups {
            let before = group.depends_on.iter().flat_map(|&before| &groups[before].steps);
            for &before in before {
                for &step in &group.steps {
                    edges[step].depends_on.push(places[before]);
                    edges[before].dependents.push(places[step]);
                }
            }
        }
    }
    for step in &mut edges {
        step.depends_on.sort_unstable();
        step.dependents.sort_unstable();
    }
    edges
}

struct Builder {
    workflow: Arc<str>,
    numbers: Vec<NodeId>,
    places: Vec<u32>,
    nodes: Vec<Node>,
    lists: Vec<List>,
    /// The bodies of inline loops, which come behind all other lists.
    inline: Vec<List>,
    first_inline: usize,
}

impl Builder {
    fn list(&self, list: &draft::List) -> List {
        let steps = list.groups.iter().flat_map(|group| &group.steps);
        List {
            nodes: steps.map(|&step| self.numbers[step]).collect(),
            parent: list.parent.map(|parent| self.numbers[parent]),
        }
    }

    fn step(&mut self, number: usize, step: Step, edges: Edges) {
        let inline = step.is_inline_loop();
        let own_rate_key = format!("{}/{}", self.workflow, step.id);
        let (list, index) = (list_id(step.list), self.places[number]);
        let kind = kind(step.kind, &step.id);
        let mut outer = Node {
            id: step.id,
            position: step.position,
            list,
            index,
            depends_on: edges.depends_on,
            dependents: edges.dependents,
            condition: step.condition,
            kind,
            deadline: step.deadline,
            continue_on_error: step.continue_on_error,
            checkpoint: step.checkpoint.map(|word| word.text),
            concurrency: step.concurrency.map(concurrency),
            rate_limit: step.rate_limit.map(|limit| rate_limit(limit, &own_rate_key)),
        };
        let Some(repeat) = step.repeat else {
            self.nodes.push(outer);
            return;
        };
        if !inline {
            if let NodeKind::Block { body } = outer.kind {
                outer.kind = NodeKind::Loop { repeat, body, inline: false };
            }
            self.nodes.push(outer);
            return;
        }
        let body = list_id(self.first_inline + self.inline.len());
        let inner = self.repeated(&mut outer, repeat, body);
        let number = self.numbers[number];
        self.inline
            .push(List { nodes: vec![node_id(number.0 as usize + 1)], parent: Some(number) });
        self.nodes.push(outer);
        self.nodes.push(inner);
    }

    /// Makes a loop of a step, and gives what it repeats.
    fn repeated(&self, outer: &mut Node, repeat: Repeat, body: ListId) -> Node {
        let looped = NodeKind::Loop { repeat, body, inline: true };
        Node {
            id: Arc::clone(&outer.id),
            position: outer.position,
            list: body,
            index: 0,
            depends_on: Vec::new(),
            dependents: Vec::new(),
            condition: None,
            kind: std::mem::replace(&mut outer.kind, looped),
            deadline: None,
            continue_on_error: false,
            checkpoint: None,
            concurrency: outer.concurrency.take(),
            rate_limit: outer.rate_limit.take(),
        }
    }
}

fn kind(kind: Kind, id: &str) -> NodeKind {
    match kind {
        Kind::Action(action) => NodeKind::Action(action),
        Kind::Workflow(workflow) => NodeKind::Workflow(*workflow),
        Kind::Block(body) => NodeKind::Block { body: list_id(body) },
        Kind::Choice { then, otherwise } => {
            NodeKind::Choice { then: then.map(list_id), otherwise: otherwise.map(list_id) }
        }
        Kind::Wait { until } => NodeKind::Wait { until },
        Kind::WaitFor { signal, timeout } => NodeKind::WaitFor { signal, timeout },
        Kind::Approve { message, timeout } => {
            let asked = || literal(&format!("May the step `{id}` be passed?"));
            NodeKind::Approve { message: message.unwrap_or_else(asked), timeout }
        }
        Kind::Notify { channels, message } => NodeKind::Notify { channels, message },
        Kind::Broken => unreachable!("a broken step is an error, and errors build no graph"),
    }
}

/// A template that says what it is.
fn literal(text: &str) -> Template {
    // Dollar signs before braces would begin an expression; names are never computed.
    let escaped = text.replace("${{", "$${{");
    Template::parse(&Value::String(escaped)).expect("a text without expressions is a template")
}

fn concurrency(draft: draft::Concurrency) -> Concurrency {
    let draft::Concurrency { key, limit, on_conflict } = draft;
    Concurrency { key, limit, on_conflict }
}

fn rate_limit(draft: draft::RateLimit, own_key: &str) -> RateLimit {
    let draft::RateLimit { key, limit, per } = draft;
    RateLimit { key: key.unwrap_or_else(|| literal(own_key)), limit, per }
}
