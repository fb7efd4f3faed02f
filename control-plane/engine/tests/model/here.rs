//! What an expression sees from one place of the model.

use serde_json::{Value, json};

use crate::expression::Names;
use crate::interpret::{Is, Model};
use crate::language::Key;

/// What an expression of a step reads. `next`: it is the condition of a `while`, before the
/// iteration of this number.
pub(crate) struct Here<'m, 'w> {
    pub(crate) model: &'m Model<'w>,
    pub(crate) live: usize,
    pub(crate) next: Option<usize>,
}

impl Here<'_, '_> {
    /// The scopes around the step, the nearest first.
    fn around(&self) -> Vec<usize> {
        let mut scopes = vec![self.model.lives[self.live].scope];
        while let Some(parent) = self.model.scopes[scopes[scopes.len() - 1]].parent {
            scopes.push(self.model.lives[parent].scope);
        }
        scopes
    }

    fn result(&self, at: usize) -> Value {
        let live = &self.model.lives[at];
        let mut result = live.output.as_object().cloned().unwrap_or_default();
        result.insert("status".to_owned(), json!(live.is.word()));
        result.insert("success".to_owned(), json!(live.is == Is::Success));
        result.insert("output".to_owned(), live.output.clone());
        result.insert("error".to_owned(), json!(live.error));
        result.insert("attempts".to_owned(), json!(live.attempt));
        Value::Object(result)
    }

    fn found_in(&self, scope: usize, key: Key) -> Option<usize> {
        let mut lives = self.model.scopes[scope].lives.iter();
        lives.find(|live| self.model.node(**live).step.key == key).copied()
    }
}

impl Names for Here<'_, '_> {
    fn step(&self, key: Key) -> Value {
        if self.next.is_some() {
            // The body's ids mean the last iteration, and are null before the first.
            let last = self.model.lives[self.live].scopes.last();
            let list = self.model.node(self.live).inner[0];
            let nodes = &self.model.plan.lists[list].nodes;
            if nodes.iter().any(|node| node.step.key == key) {
                let found = last.and_then(|scope| self.found_in(*scope, key));
                return found.map_or(Value::Null, |at| self.result(at));
            }
        }
        let found = self.around().into_iter().find_map(|scope| self.found_in(scope, key));
        // At the end of the whole, the steps of the whole.
        let found = found.or_else(|| self.found_in(0, key));
        found.map_or(Value::Null, |at| self.result(at))
    }

    fn bare(&self, name: &str) -> Option<Value> {
        let mut at = self.live;
        loop {
            let on = &self.model.node(at).on;
            if on.is_empty() {
                // What stands first in a block has before it what the block has before it.
                at = self.model.parent(at)?;
                continue;
            }
            let lives = &self.model.scopes[self.model.lives[at].scope].lives;
            let mut found =
                on.iter().filter_map(|on| self.model.lives[lives[*on]].output.get(name).cloned());
            let first = found.next();
            // In two outputs it is ambiguous.
            return first.filter(|_| found.next().is_none());
        }
    }

    fn item(&self) -> Value {
        let item = self.around().into_iter().find_map(|scope| self.model.scopes[scope].item);
        json!(item)
    }

    fn index(&self) -> Value {
        let each = |scope: usize| {
            let scope = &self.model.scopes[scope];
            scope.item.and(scope.iteration)
        };
        json!(self.around().into_iter().find_map(each))
    }

    fn iteration(&self) -> Value {
        if let Some(next) = self.next {
            return json!(next);
        }
        let each = |scope: usize| {
            let scope = &self.model.scopes[scope];
            if scope.item.is_some() { None } else { scope.iteration }
        };
        json!(self.around().into_iter().find_map(each))
    }

    fn failure(&self) -> (String, String) {
        self.model.failure.clone().unwrap_or_default()
    }
}
