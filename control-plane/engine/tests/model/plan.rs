//! A definition laid out: every step and list with a number.

use crate::language::{Key, Kind, Repeat, Step, Workflow};

/// A list of steps: the members of a group stand behind their head.
#[derive(Debug, Default)]
pub(crate) struct List {
    pub(crate) nodes: Vec<Node>,
}

/// A step in its list.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) step: Step,
    /// The places, in the same list, of what it waits for.
    pub(crate) on: Vec<usize>,
    /// The lists of its inner steps: a block's or a loop's one, or `then` and `else`.
    pub(crate) inner: Vec<usize>,
    /// A loop that stands on one action.
    pub(crate) inline: bool,
}

#[derive(Debug)]
pub(crate) struct Plan {
    /// The steps of the whole come first, those of `on_failure` second.
    pub(crate) lists: Vec<List>,
}

impl Plan {
    pub(crate) fn new(workflow: &Workflow) -> Self {
        let mut plan = Self { lists: vec![List::default(), List::default()] };
        plan.fill(0, &workflow.steps);
        plan.fill(1, &workflow.on_failure);
        plan
    }

    fn add(&mut self, steps: &[Step]) -> usize {
        self.lists.push(List::default());
        let number = self.lists.len() - 1;
        self.fill(number, steps);
        number
    }

    fn fill(&mut self, list: usize, steps: &[Step]) {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        let mut keys: Vec<Vec<Key>> = Vec::new();
        for step in steps {
            let on: Vec<usize> = match &step.depends_on {
                // Without `depends_on` a step waits for the one before it.
                None => groups.last().cloned().unwrap_or_default(),
                Some(names) => (0..groups.len())
                    .filter(|group| names.iter().any(|name| keys[*group].contains(name)))
                    .flat_map(|group| groups[group].clone())
                    .collect(),
            };
            let mut group = Vec::new();
            for step in std::iter::once(step).chain(&step.members) {
                let node = self.node(step, on.clone());
                group.push(self.lists[list].nodes.len());
                self.lists[list].nodes.push(node);
            }
            groups.push(group);
            keys.push(
                std::iter::once(step.key).chain(step.members.iter().map(|m| m.key)).collect(),
            );
        }
    }

    fn node(&mut self, step: &Step, on: Vec<usize>) -> Node {
        let mut inner = Vec::new();
        let mut inline = false;
        match (&step.kind, &step.repeat) {
            (Kind::Block(steps), _) => inner.push(self.add(steps)),
            (Kind::Choice { then, otherwise }, _) => {
                inner.push(self.add(then));
                inner.extend(otherwise.as_ref().map(|steps| self.add(steps)));
            }
            (_, Some(_)) => {
                // What stands on a loop concerns the whole; the body is the bare action.
                let body = Step {
                    condition: None,
                    repeat: None,
                    held: false,
                    checkpoint: false,
                    deadline: None,
                    depends_on: None,
                    members: Vec::new(),
                    ..step.clone()
                };
                inner.push(self.add(&[body]));
                inline = true;
            }
            _ => {}
        }
        Node { step: step.clone(), on, inner, inline }
    }
}

impl Node {
    pub(crate) fn loops(&self) -> Option<&Repeat> {
        self.step.repeat.as_ref()
    }
}
