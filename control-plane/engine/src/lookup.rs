//! What expressions see of a run: names and their values at one place of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::expression::{Expression, Lookup, Reference, Scope};
use crate::graph::{NodeKind, Repeat};
use crate::id::InstanceId;
use crate::instance::{ScopeId, Status};
use crate::state::State;

/// The words for a step's status in expressions and results.
pub(crate) fn status_word(status: Status) -> &'static str {
    match status {
        Status::Pending => "pending",
        Status::Blocked | Status::Queued => "queued",
        Status::Open | Status::Cancelling => "running",
        Status::Waiting => "waiting",
        Status::Success => "success",
        Status::Failure => "failure",
        Status::Skipped | Status::NotStarted => "skipped",
        Status::Cancelled => "cancelled",
    }
}

/// The names visible from one place of a run.
pub(crate) struct Names<'a> {
    state: &'a State,
    /// The list that the expression stands in.
    scope: ScopeId,
    /// The step it belongs to; `None`: it belongs to the list as a whole.
    instance: Option<InstanceId>,
    /// The last iteration's scope, whose ids a `while` condition sees.
    last_iteration: Option<Option<ScopeId>>,
    iteration: Option<u32>,
    /// Which of `steps` are read; `None`: any.
    steps: Option<Vec<String>>,
}

impl<'a> Names<'a> {
    /// The names that a step's expressions see.
    pub(crate) fn of_step(state: &'a State, n: InstanceId) -> Self {
        let scope = state.instances[n.index()].scope;
        Self { state, scope, instance: Some(n), last_iteration: None, iteration: None, steps: None }
    }

    /// The names that the outputs of the whole see.
    pub(crate) fn of_outputs(state: &'a State) -> Self {
        let scope = ScopeId(0);
        Self { state, scope, instance: None, last_iteration: None, iteration: None, steps: None }
    }

    /// The names that a `while` condition sees before iteration `iteration`.
    pub(crate) fn of_while(state: &'a State, n: InstanceId, iteration: u32) -> Self {
        let last = state.instances[n.index()].detail().and_then(|d| d.scopes.last().copied());
        Self { last_iteration: Some(last), iteration: Some(iteration), ..Self::of_step(state, n) }
    }

    /// Reads only those of `steps` that these references name.
    pub(crate) fn reading(mut self, references: &[Reference]) -> Self {
        let mut names = Vec::new();
        for reference in references.iter().filter(|reference| reference.name == "steps") {
            match reference.fields.first() {
                Some(field) => names.push(field.clone()),
                None => return self,
            }
        }
        self.steps = Some(names);
        self
    }

    /// The same for one expression.
    pub(crate) fn reading_of(self, expression: &Expression) -> Self {
        self.reading(&expression.references())
    }

    /// Walks the scopes from the inner to the outer.
    fn scopes(&self) -> impl Iterator<Item = ScopeId> + '_ {
        let inner = self.last_iteration.flatten();
        let mut next = Some(self.scope);
        let outward = std::iter::from_fn(move || {
            let scope = next?;
            let parent = self.state.scopes[scope.index()].parent;
            next = match parent {
                Some(parent) => Some(self.state.instances[parent.index()].scope),
                // The steps of `on_failure` see those of the whole.
                None if self.state.handler == Some(scope) => Some(ScopeId(0)),
                None => None,
            };
            Some(scope)
        });
        inner.into_iter().chain(outward)
    }

    fn find_step(&self, id: &str) -> Option<InstanceId> {
        self.scopes().find_map(|scope| {
            let scope = &self.state.scopes[scope.index()];
            let graph = &self.state.graph;
            let nodes = &graph.list(scope.list).nodes;
            let at = nodes.iter().position(|&node| &*graph.node(node).id == id)?;
            Some(InstanceId(scope.first + u32::try_from(at).ok()?))
        })
    }

    /// The ids of a loop's body before its first iteration, when all of them are null.
    fn unborn_body(&self) -> impl Iterator<Item = &'a Arc<str>> {
        let graph = &self.state.graph;
        let body = match (self.last_iteration, self.instance) {
            (Some(None), Some(n)) => match &self.state.node(n).kind {
                NodeKind::Loop { body, .. } => graph.list(*body).nodes.as_slice(),
                _ => &[],
            },
            _ => &[],
        };
        body.iter().map(|&node| &graph.node(node).id)
    }

    fn loop_value(&self, name: &str) -> Option<Value> {
        if name == "iteration"
            && let Some(iteration) = self.iteration
        {
            return Some(json!(iteration));
        }
        let mut scope = self.scope;
        loop {
            let here = &self.state.scopes[scope.index()];
            let parent = here.parent?;
            if let (NodeKind::Loop { repeat, .. }, Some(index)) =
                (&self.state.node(parent).kind, here.iteration)
            {
                match repeat {
                    Repeat::ForEach { item_name, .. } => {
                        if name == &**item_name {
                            return here.item.as_deref().cloned();
                        }
                        if name == "index" {
                            return Some(json!(index));
                        }
                    }
                    Repeat::While { .. } if name == "iteration" => return Some(json!(index)),
                    Repeat::While { .. } => {}
                }
            }
            scope = self.state.instances[parent.index()].scope;
        }
    }

    /// A step's object, as expressions see it.
    fn step_object(&self, n: InstanceId) -> Value {
        let instance = &self.state.instances[n.index()];
        let output = self
            .state
            .output(n)
            .and_then(|json| serde_json::from_str(&json).ok())
            .unwrap_or(Value::Null);
        let error = match (instance.status, instance.error()) {
            (Status::Failure, Some(error)) => Value::String(error.message.clone()),
            _ => Value::Null,
        };
        let mut object = Map::new();
        object.insert("status".to_owned(), json!(status_word(instance.status)));
        object.insert("success".to_owned(), json!(instance.status == Status::Success));
        object.insert("error".to_owned(), error);
        object.insert("attempts".to_owned(), json!(self.state.attempts(n)));
        if let Value::Object(fields) = &output {
            for (name, value) in fields {
                if name != "output" && !object.contains_key(name) {
                    object.insert(name.clone(), value.clone());
                }
            }
        }
        object.insert("output".to_owned(), output);
        Value::Object(object)
    }

    fn all_steps(&self) -> Value {
        let mut object = Map::new();
        let wanted = |id: &str| self.steps.as_ref().is_none_or(|ids| ids.iter().any(|w| w == id));
        for id in self.unborn_body().filter(|id| wanted(id)) {
            object.insert(id.to_string(), Value::Null);
        }
        for scope in self.scopes() {
            let scope = &self.state.scopes[scope.index()];
            let nodes = &self.state.graph.list(scope.list).nodes;
            for (at, &node) in nodes.iter().enumerate() {
                let id = &self.state.graph.node(node).id;
                if wanted(id) && !object.contains_key(&**id) {
                    let n = InstanceId(scope.first + u32::try_from(at).unwrap_or(u32::MAX));
                    object.insert(id.to_string(), self.step_object(n));
                }
            }
        }
        Value::Object(object)
    }

    fn bare(&self, name: &str) -> Lookup {
        let before = match self.instance {
            Some(n) => self.state.directly_before(n),
            None => self.state.last_steps(),
        };
        let mut found: BTreeMap<Arc<str>, Value> = BTreeMap::new();
        for n in before {
            let Some(json) = self.state.output(n) else { continue };
            let Ok(Value::Object(mut fields)) = serde_json::from_str::<Value>(&json) else {
                continue;
            };
            if let Some(value) = fields.remove(name) {
                found.insert(Arc::clone(&self.state.node(n).id), value);
            }
        }
        if found.len() > 1 {
            let ids: Vec<String> = found.keys().map(|id| format!("`{id}`")).collect();
            return Lookup::Ambiguous(format!(
                "`{name}` is in the outputs of {}; write which, as `{}.{name}`",
                ids.join(" and "),
                found.keys().next().map_or("", |id| &**id),
            ));
        }
        match found.into_values().next() {
            Some(value) => Lookup::Found(Arc::new(value)),
            None => Lookup::Unknown { suggestion: self.suggestion(name) },
        }
    }

    fn suggestion(&self, name: &str) -> Option<String> {
        let ids = self.scopes().flat_map(|scope| {
            let list = self.state.scopes[scope.index()].list;
            let graph = &self.state.graph;
            graph.list(list).nodes.iter().map(move |&node| &*graph.node(node).id)
        });
        ids.chain(["params", "steps", "run"])
            .map(|id| (strsim::damerau_levenshtein(id, name), id))
            .filter(|(distance, _)| *distance <= 2)
            .min()
            .map(|(_, id)| id.to_owned())
    }
}

impl Scope for Names<'_> {
    fn lookup(&self, name: &str) -> Lookup {
        let state = self.state;
        match name {
            "params" => return Lookup::Found(Arc::clone(&state.params)),
            "steps" => return Lookup::Found(Arc::new(self.all_steps())),
            "run" => {
                return Lookup::Found(Arc::new(json!({
                    "id": state.id.to_string(),
                    "started_at": state.started_at.to_rfc3339(),
                    "workflow": &*state.graph.name,
                    "version": state.graph.version,
                    "priority": state.started.priority,
                    "labels": state.started.labels,
                })));
            }
            "failure" => {
                if let Some(failure) = &state.failure {
                    return Lookup::Found(Arc::new(json!({
                        "step": &*failure.step,
                        "error": failure.error.message,
                        "code": failure.error.code,
                    })));
                }
            }
            _ => {}
        }
        if let Some(value) = self.loop_value(name) {
            return Lookup::Found(Arc::new(value));
        }
        // A loop over one step shares its id with that step, and the step is what is meant.
        if self.unborn_body().any(|id| &**id == name) {
            return Lookup::Found(Arc::new(Value::Null));
        }
        if let Some(n) = self.find_step(name) {
            return Lookup::Found(Arc::new(self.step_object(n)));
        }
        self.bare(name)
    }
}
