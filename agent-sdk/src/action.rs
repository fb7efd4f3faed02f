//! One action of an agent: its name, its card and its handler.

use std::fmt;
use std::time::Duration;

use contracts::v1;
use schemars::{JsonSchema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::handler::{self, Erased};
use crate::{Handler, payload};

/// One thing that an agent can do.
#[derive(Clone)]
pub struct Action {
    pub(crate) name: String,
    pub(crate) handler: Erased,
    pub(crate) inherits: Vec<String>,
    pub(crate) undo: Undo,
    description: String,
    input_schema: String,
    output_schema: String,
    undo_needs_output: bool,
    expected_duration: Option<Duration>,
    expected_cost: f64,
    handles: Option<Handles>,
}

/// How an action is undone. An action that does not say counts as not undoable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undo {
    /// By this action of the same agent, which takes an [`UndoInput`].
    Action(String),
    /// Not at all.
    NotUndoable,
    /// It changes nothing: there is nothing to undo.
    Nothing,
}

impl Undo {
    /// By this action of the same agent, which takes an [`UndoInput`].
    pub fn action(name: impl Into<String>) -> Self {
        Self::Action(name.into())
    }
}

/// The input of an action that undoes another one.
///
/// Undo what was done under [`Context::idempotency_key`](crate::Context::idempotency_key) and
/// only that. Where nothing was done, succeed, and leave a mark so that a late do is refused
/// ([`EffectLog`](crate::EffectLog) keeps such marks).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct UndoInput<Params, Output> {
    /// The params of the task to undo.
    pub params: Params,
    /// Its output, when it came to one.
    pub output: Option<Output>,
}

/// Which issues an action takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handles {
    /// Components, as `database`.
    pub components: Vec<String>,
    /// Words in title or description.
    pub keywords: Vec<String>,
    /// Labels.
    pub labels: Vec<String>,
    /// Categories.
    pub categories: Vec<String>,
}

impl Action {
    /// An action with this name, done by `handler`; the schemas come from the handler's types.
    pub fn new<Input, Output, H>(
        name: impl Into<String>,
        description: impl Into<String>,
        handler: H,
    ) -> Self
    where
        H: Handler<Input, Output>,
        Input: DeserializeOwned + JsonSchema + Send + 'static,
        Output: Serialize + JsonSchema + Send + 'static,
    {
        Self {
            name: name.into(),
            handler: handler::erase(handler),
            inherits: Vec::new(),
            undo: Undo::NotUndoable,
            description: description.into(),
            input_schema: schema::<Input>(true),
            output_schema: schema::<Output>(false),
            undo_needs_output: false,
            expected_duration: None,
            expected_cost: 0.0,
            handles: None,
        }
    }

    /// How it is undone.
    #[must_use]
    pub fn undo(mut self, undo: Undo) -> Self {
        self.undo = undo;
        self
    }

    /// Its undo cannot work without the task's output.
    #[must_use]
    pub fn undo_needs_output(mut self) -> Self {
        self.undo_needs_output = true;
        self
    }

    /// Fields of the input that, where a step's params leave them out, are taken from the
    /// outputs of the steps before it, the nearest first.
    #[must_use]
    pub fn inherits<Name: Into<String>>(mut self, fields: impl IntoIterator<Item = Name>) -> Self {
        self.inherits.extend(fields.into_iter().map(Into::into));
        self
    }

    /// How long one task takes as a rule.
    #[must_use]
    pub fn expected_duration(mut self, duration: Duration) -> Self {
        self.expected_duration = Some(duration);
        self
    }

    /// What one task costs as a rule, in the operator's currency.
    #[must_use]
    pub fn expected_cost(mut self, cost: f64) -> Self {
        self.expected_cost = cost;
        self
    }

    /// Which issues it takes.
    #[must_use]
    pub fn handles(mut self, handles: Handles) -> Self {
        self.handles = Some(handles);
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its card, but for `inherits`, which hangs on the agent's other actions as well.
    pub(crate) fn card(&self) -> v1::ActionCard {
        let way = match &self.undo {
            Undo::Action(name) => v1::undo::Way::Action(name.clone()),
            Undo::NotUndoable => v1::undo::Way::NotUndoable(v1::NotUndoable {}),
            Undo::Nothing => v1::undo::Way::NothingToUndo(v1::NothingToUndo {}),
        };
        v1::ActionCard {
            name: self.name.clone(),
            description: self.description.clone(),
            input_schema: Some(payload::json(self.input_schema.clone())),
            output_schema: Some(payload::json(self.output_schema.clone())),
            undo: Some(v1::Undo { way: Some(way), needs_output: self.undo_needs_output }),
            expected_cost: self.expected_cost,
            expected_duration: self.expected_duration.map(payload::duration),
            handles: self.handles.clone().map(|handles| v1::Handles {
                components: handles.components,
                keywords: handles.keywords,
                labels: handles.labels,
                categories: handles.categories,
            }),
            inherits: Vec::new(),
        }
    }
}

impl fmt::Debug for Action {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Action")
            .field("name", &self.name)
            .field("undo", &self.undo)
            .field("inherits", &self.inherits)
            .finish_non_exhaustive()
    }
}

/// The JSON Schema of a type, as it is read (inputs) or as it is written (outputs): a field
/// with a default may be left out of the one and is always in the other.
fn schema<Type: JsonSchema>(read: bool) -> String {
    let settings = schemars::generate::SchemaSettings::draft2020_12();
    let settings = if read { settings.for_deserialize() } else { settings.for_serialize() };
    let schema = SchemaGenerator::new(settings).into_root_schema_for::<Type>();
    serde_json::to_string(&schema).expect("a schema is a JSON value with text keys")
}
