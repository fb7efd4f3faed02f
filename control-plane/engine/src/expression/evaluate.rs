//! Walks the tree: names, control flow, macros, and the budget that ends every evaluation.

use std::cell::OnceCell;
use std::sync::Arc;

use serde_json::Value as Json;

use super::api::{Lookup, Resolved, Scope, shorten};
use super::compile::{Fold, Macro, Node, Program};
use super::limit::{BYTES_PER_STEP, LIST_ITEMS_MAX, STEPS_MAX};
use super::nearest::hint;
use super::operator::{self, Operator};
use super::value::{self, Kind, Value};
use super::{convert, function};

/// Why there is no value.
#[derive(Debug)]
pub(super) enum Fault {
    /// An error of CEL, which `&&` and `||` may absorb.
    Error(String),
    /// A bound was reached: nothing absorbs it, so that nothing runs on behind it.
    Exhausted(String),
}

impl Fault {
    pub(super) fn new(message: impl Into<String>) -> Fault {
        Fault::Error(message.into())
    }

    pub(super) fn exhausted(message: impl Into<String>) -> Fault {
        Fault::Exhausted(message.into())
    }

    fn message(self) -> String {
        match self {
            Fault::Error(message) | Fault::Exhausted(message) => message,
        }
    }
}

/// The steps and result bytes that are left.
#[derive(Debug)]
pub(super) struct Budget {
    steps: u64,
    pub(super) result_bytes: usize,
}

impl Budget {
    pub(super) fn new() -> Budget {
        Budget { steps: STEPS_MAX, result_bytes: 0 }
    }

    pub(super) fn pay(&mut self, steps: u64) -> Result<(), Fault> {
        self.steps = self.steps.checked_sub(steps).ok_or_else(|| {
            Fault::exhausted(format!(
                "the evaluation takes more than {STEPS_MAX} steps; work on less data"
            ))
        })?;
        Ok(())
    }

    /// Pays for making or reading so many bytes.
    pub(super) fn pay_bytes(&mut self, bytes: usize) -> Result<(), Fault> {
        self.pay(1 + (bytes / BYTES_PER_STEP) as u64)
    }

    /// Pays for making a list of so many elements.
    pub(super) fn pay_items(&mut self, items: usize) -> Result<(), Fault> {
        self.pay_bytes(items.saturating_mul(size_of::<Value<'_>>()))
    }
}

/// Evaluates a program; the error is its cause alone.
pub(super) fn run(
    program: &Program,
    scope: &dyn Scope,
    budget: &mut Budget,
) -> Result<Json, String> {
    let cells: Vec<OnceCell<Lookup>> = program.names.iter().map(|_| OnceCell::new()).collect();
    let paths: Vec<OnceCell<Option<Resolved>>> =
        (0..program.paths).map(|_| OnceCell::new()).collect();
    let mut machine =
        Machine { program, cells: &cells, paths: &paths, scope, variables: Vec::new(), budget };
    let result = machine.node(&program.root);
    result.and_then(|value| convert::to_json(&value, machine.budget)).map_err(Fault::message)
}

/// Everything an evaluation holds. Values borrow from the program and from the looked-up names.
struct Machine<'a, 'b> {
    program: &'a Program,
    cells: &'a [OnceCell<Lookup>],
    paths: &'a [OnceCell<Option<Resolved>>],
    scope: &'a dyn Scope,
    variables: Vec<Value<'a>>,
    budget: &'b mut Budget,
}

impl<'a> Machine<'a, '_> {
    /// Kept small, as it recurses: each arm of some length is a function of its own.
    fn node(&mut self, node: &'a Node) -> Result<Value<'a>, Fault> {
        self.budget.pay(1)?;
        match node {
            Node::Null => Ok(Value::Null),
            Node::Bool(value) => Ok(Value::Bool(*value)),
            Node::Int(value) => Ok(Value::Int(*value)),
            Node::Uint(value) => Ok(Value::Uint(*value)),
            Node::Double(value) => Ok(Value::Double(*value)),
            Node::Text(value) => Ok(Value::Borrowed(value)),
            Node::Bytes(value) => Ok(Value::Bytes(Arc::clone(value))),
            Node::Type(kind) => Ok(Value::Type(*kind)),
            Node::Name { index, kind } => self.name(*index, *kind),
            Node::Path { slot, index, fields } => self.path(*slot, *index, fields),
            Node::Variable(slot) => Ok(self.variables[*slot].clone()),
            Node::Select { operand, field } => self.select(operand, field),
            Node::Has { operand, field } => self.has(operand, field),
            Node::And(pair) => self.logical(pair, false),
            Node::Or(pair) => self.logical(pair, true),
            Node::Not(operand) => self.not(operand),
            Node::Negate(operand) => self.negate(operand),
            Node::Conditional(parts) => self.conditional(parts),
            Node::Binary(operator, pair) => self.binary(*operator, pair),
            Node::Call(function, args) => self.call(*function, args),
            Node::Matches(text, regex) => {
                let text = self.node(text)?;
                function::is_match(&text, regex, self.budget)
            }
            Node::List(nodes) => self.list(nodes),
            Node::Map(entries) => self.map(entries),
            Node::Fold(fold) => self.fold(fold),
        }
    }

    fn name(&mut self, index: usize, kind: Option<Kind>) -> Result<Value<'a>, Fault> {
        let name = &self.program.names[index];
        let (cells, scope) = (self.cells, self.scope);
        match (cells[index].get_or_init(|| scope.lookup(name)), kind) {
            (Lookup::Found(value), _) => Ok(Value::from_json(value)),
            (Lookup::Unknown { .. }, Some(kind)) => Ok(Value::Type(kind)),
            (Lookup::Unknown { suggestion }, None) => {
                Err(Fault::new(format!("unknown name `{name}`{}", hint(suggestion.as_deref()))))
            }
            (Lookup::Ambiguous(message), _) => Err(Fault::new(message.clone())),
        }
    }

    fn path(
        &mut self,
        slot: usize,
        index: usize,
        fields: &'a [String],
    ) -> Result<Value<'a>, Fault> {
        let (name, scope, paths) = (&self.program.names[index], self.scope, self.paths);
        let resolved = paths[slot].get_or_init(|| scope.lookup_path(name, fields));
        let (mut value, rest) = match resolved {
            None => (self.name(index, None)?, fields),
            Some(resolved) => {
                let count = resolved.fields.min(fields.len());
                let (taken, rest) = fields.split_at(count);
                match &resolved.lookup {
                    Lookup::Found(value) => (Value::from_json(value), rest),
                    Lookup::Ambiguous(message) => return Err(Fault::new(message.clone())),
                    Lookup::Unknown { suggestion } => {
                        let (what, word) = match taken.last() {
                            Some(field) => ("no such key", field),
                            None => ("unknown name", name),
                        };
                        let hint = hint(suggestion.as_deref());
                        return Err(Fault::new(format!("{what} `{word}`{hint}")));
                    }
                }
            }
        };
        for field in rest {
            self.budget.pay(1)?;
            value = operator::select(&value, field, self.budget)?;
        }
        Ok(value)
    }

    fn select(&mut self, operand: &'a Node, field: &'a str) -> Result<Value<'a>, Fault> {
        let operand = self.node(operand)?;
        operator::select(&operand, field, self.budget)
    }

    fn has(&mut self, operand: &'a Node, field: &'a str) -> Result<Value<'a>, Fault> {
        let operand = self.node(operand)?;
        if operand.kind() != Kind::Map {
            let word = operand.kind().word();
            return Err(Fault::new(format!("has() needs a map before `.{field}`, not {word}")));
        }
        let found = operand.get(&Value::Borrowed(field), self.budget)?;
        Ok(Value::Bool(found.is_some()))
    }

    /// `&&` and `||`: the side equal to `decisive` decides alone, whatever the other is.
    fn logical(&mut self, pair: &'a [Node; 2], decisive: bool) -> Result<Value<'a>, Fault> {
        let left = match self.truth(&pair[0]) {
            Ok(left) if left == decisive => return Ok(Value::Bool(decisive)),
            Err(fault @ Fault::Exhausted(_)) => return Err(fault),
            other => other,
        };
        match (left, self.truth(&pair[1])) {
            (_, Err(fault @ Fault::Exhausted(_))) => Err(fault),
            (_, Ok(right)) if right == decisive => Ok(Value::Bool(decisive)),
            (Err(fault), _) | (Ok(_), Err(fault)) => Err(fault),
            (Ok(_), Ok(right)) => Ok(Value::Bool(right)),
        }
    }

    fn truth(&mut self, node: &'a Node) -> Result<bool, Fault> {
        match self.node(node)? {
            Value::Bool(value) => Ok(value),
            other => {
                let word = other.kind().word();
                Err(Fault::new(format!("expected true or false, found {word}")))
            }
        }
    }

    fn not(&mut self, operand: &'a Node) -> Result<Value<'a>, Fault> {
        match self.node(operand)? {
            Value::Bool(value) => Ok(Value::Bool(!value)),
            other => Err(Fault::new(format!("`!` does not apply to {}", other.kind().word()))),
        }
    }

    fn negate(&mut self, operand: &'a Node) -> Result<Value<'a>, Fault> {
        match self.node(operand)? {
            Value::Double(value) => Ok(Value::Double(-value)),
            Value::Int(value) => value.checked_neg().map(Value::Int).ok_or_else(|| {
                Fault::new(format!("-({value}) is beyond the range of 64-bit integers"))
            }),
            other => Err(Fault::new(format!("`-` does not apply to {}", other.kind().word()))),
        }
    }

    fn conditional(&mut self, parts: &'a [Node; 3]) -> Result<Value<'a>, Fault> {
        let [condition, then, otherwise] = parts;
        let branch = if self.truth(condition)? { then } else { otherwise };
        self.node(branch)
    }

    fn binary(&mut self, operator: Operator, pair: &'a [Node; 2]) -> Result<Value<'a>, Fault> {
        let left = self.node(&pair[0])?;
        let right = self.node(&pair[1])?;
        operator.apply(&left, &right, self.budget)
    }

    fn call(
        &mut self,
        function: function::Function,
        nodes: &'a [Node],
    ) -> Result<Value<'a>, Fault> {
        let mut args = Vec::with_capacity(nodes.len());
        for node in nodes {
            args.push(self.node(node)?);
        }
        function.apply(&args, self.budget)
    }

    fn list(&mut self, nodes: &'a [Node]) -> Result<Value<'a>, Fault> {
        let mut items = Vec::with_capacity(nodes.len());
        for node in nodes {
            items.push(self.node(node)?);
        }
        Ok(Value::List(Arc::from(items)))
    }

    fn map(&mut self, nodes: &'a [(Node, Node)]) -> Result<Value<'a>, Fault> {
        let mut entries: Vec<(Value<'a>, Value<'a>)> = Vec::with_capacity(nodes.len());
        for (key, value) in nodes {
            let key = self.node(key)?;
            if !matches!(key.kind(), Kind::String | Kind::Int | Kind::Uint | Kind::Bool) {
                let word = key.kind().word();
                return Err(Fault::new(format!("{word} cannot be a key of a map")));
            }
            for (known, _) in &entries {
                if value::equal(known, &key, self.budget)? {
                    let shown = shorten(&convert::key(&key));
                    return Err(Fault::new(format!("the key `{shown}` stands twice in a map")));
                }
            }
            let value = self.node(value)?;
            entries.push((key, value));
        }
        Ok(Value::Map(Arc::from(entries)))
    }

    fn fold(&mut self, fold: &'a Fold) -> Result<Value<'a>, Fault> {
        let range = self.node(&fold.range)?;
        let Some(elements) = range.elements() else {
            let word = range.kind().word();
            return Err(Fault::new(format!(
                "`all`, `exists`, `map` and `filter` work on a list or a map, not on {word}"
            )));
        };
        match fold.macro_ {
            Macro::All => self.quantify(fold, elements, false),
            Macro::Exists => self.quantify(fold, elements, true),
            Macro::ExistsOne => self.exists_one(fold, elements),
            Macro::Map | Macro::Filter => self.collect(fold, elements),
        }
    }

    /// Evaluates `node` with the macro's variable bound to `element`.
    fn with<T>(
        &mut self,
        element: Value<'a>,
        evaluate: impl FnOnce(&mut Self) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.budget.pay(1)?;
        self.variables.push(element);
        let result = evaluate(self);
        self.variables.pop();
        result
    }

    /// `exists` and `all`: an element equal to `decisive` decides, even past errors of others.
    fn quantify(
        &mut self,
        fold: &'a Fold,
        elements: impl Iterator<Item = Value<'a>>,
        decisive: bool,
    ) -> Result<Value<'a>, Fault> {
        let mut first_error = None;
        for element in elements {
            match self.with(element, |machine| machine.truth(&fold.body)) {
                Ok(value) if value == decisive => return Ok(Value::Bool(decisive)),
                Ok(_) => {}
                Err(fault @ Fault::Exhausted(_)) => return Err(fault),
                Err(fault) => first_error = first_error.or(Some(fault)),
            }
        }
        first_error.map_or(Ok(Value::Bool(!decisive)), Err)
    }

    fn exists_one(
        &mut self,
        fold: &'a Fold,
        elements: impl Iterator<Item = Value<'a>>,
    ) -> Result<Value<'a>, Fault> {
        let mut count = 0_usize;
        for element in elements {
            count += usize::from(self.with(element, |machine| machine.truth(&fold.body))?);
        }
        Ok(Value::Bool(count == 1))
    }

    fn collect(
        &mut self,
        fold: &'a Fold,
        elements: impl Iterator<Item = Value<'a>>,
    ) -> Result<Value<'a>, Fault> {
        let mut items = Vec::new();
        for element in elements {
            let kept = self.with(element.clone(), |machine| {
                if fold.macro_ == Macro::Filter {
                    return Ok(machine.truth(&fold.body)?.then_some(element));
                }
                if let Some(filter) = &fold.filter
                    && !machine.truth(filter)?
                {
                    return Ok(None);
                }
                machine.node(&fold.body).map(Some)
            })?;
            if let Some(item) = kept {
                operator::grown(items.len() + 1, LIST_ITEMS_MAX, "elements of a list")?;
                items.push(item);
            }
        }
        Ok(Value::List(Arc::from(items)))
    }
}
