//! Parameters: how they are declared (a JSON Schema each), and whether what is given fits.

use std::fmt;
use std::sync::Arc;

use jsonschema::{PatternOptions, Validator};
use serde_json::{Map, Value};

use super::limit::SCHEMA_NESTING_MAX;
use super::nearest::{self, hint, listed};
use super::read::Reader;
use super::step::default_id;
use super::yaml::{Key, Kind, Node, shorten};
use crate::graph::{Graph, Param};

/// The types of JSON Schema.
const TYPES: [&str; 7] = ["string", "number", "integer", "boolean", "array", "object", "null"];
/// What a declaration may say: the keywords of JSON Schema, `default` and `required` among them.
const KEYWORDS: &[&str] = &[
    "type",
    "description",
    "default",
    "required",
    "enum",
    "const",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "items",
    "prefixItems",
    "contains",
    "minContains",
    "maxContains",
    "minItems",
    "maxItems",
    "uniqueItems",
    "unevaluatedItems",
    "properties",
    "patternProperties",
    "additionalProperties",
    "propertyNames",
    "minProperties",
    "maxProperties",
    "dependentRequired",
    "dependentSchemas",
    "unevaluatedProperties",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "if",
    "then",
    "else",
    "title",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
    "$comment",
];
/// Keywords that lead out of a declaration, or round in circles.
const REFERENCES: [&str; 9] = [
    "$ref",
    "$dynamicRef",
    "$recursiveRef",
    "$id",
    "$schema",
    "$anchor",
    "$dynamicAnchor",
    "$defs",
    "definitions",
];
/// Keywords whose values are data and not schemas.
const DATA: [&str; 4] = ["enum", "const", "default", "examples"];
/// Misfits of one parameter that are told.
const MISFITS_MAX: usize = 20;

/// Why given parameters do not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamError {
    /// The parameter, and where within its value, as `/replicas` or `/targets/0/name`.
    pub path: String,
    /// What was found and what was expected.
    pub message: String,
}

impl fmt::Display for ParamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

impl std::error::Error for ParamError {}

/// Checks the parameters given to a start against those declared, and fills in the defaults: the
/// result has every declared parameter, in the order of their declaration.
///
/// # Errors
/// Everything that does not fit.
pub fn check_params(
    graph: &Graph,
    given: Option<&Value>,
) -> Result<Map<String, Value>, Vec<ParamError>> {
    let none = Map::new();
    let given = match given {
        None | Some(Value::Null) => &none,
        Some(Value::Object(given)) => given,
        Some(_) => {
            let message = "parameters must be an object of names and values".to_owned();
            return Err(vec![ParamError { path: String::new(), message }]);
        }
    };
    let mut errors = Vec::new();
    for name in given.keys() {
        if !graph.params.iter().any(|param| *param.name == **name) {
            errors.push(unknown(graph, name));
        }
    }
    let mut checked = Map::new();
    for param in &graph.params {
        let path = pointer(&param.name);
        let value = match (given.get(&*param.name), &param.default) {
            (Some(value), _) => {
                errors.extend(misfits(param, value).into_iter().map(|(below, message)| {
                    ParamError { path: format!("{path}{below}"), message }
                }));
                value.clone()
            }
            (None, Some(default)) => default.clone(),
            (None, None) if param.required => {
                let message = format!("the parameter `{}` is required", param.name);
                errors.push(ParamError { path, message });
                continue;
            }
            (None, None) => Value::Null,
        };
        checked.insert(param.name.to_string(), value);
    }
    if errors.is_empty() { Ok(checked) } else { Err(errors) }
}

fn unknown(graph: &Graph, name: &str) -> ParamError {
    let names: Vec<&str> = graph.params.iter().map(|param| &*param.name).collect();
    let hint = match nearest::nearest(name, names.iter().copied()) {
        Some(meant) => hint(Some(meant)),
        None if names.is_empty() => ": the workflow has none".to_owned(),
        None if names.len() <= 8 => format!(", expected {}", listed(&names, "or")),
        None => String::new(),
    };
    let message = format!("unknown parameter `{}`{hint}", shorten(name));
    ParamError { path: pointer(name), message }
}

fn pointer(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// Where and how a value does not fit a parameter's schema.
fn misfits(param: &Param, value: &Value) -> Vec<(String, String)> {
    match validator(&param.schema) {
        Ok(validator) => misfits_of(&validator, value),
        // A compiled definition's schemas are valid.
        Err((path, message)) => vec![(path, message)],
    }
}

fn misfits_of(validator: &Validator, value: &Value) -> Vec<(String, String)> {
    validator
        .iter_errors(value)
        .take(MISFITS_MAX)
        .map(|error| (error.instance_path().to_string(), shorten(&error.to_string())))
        .collect()
}

/// Patterns are matched in linear time. Nothing is fetched: references are refused before.
fn validator(schema: &Value) -> Result<Validator, (String, String)> {
    jsonschema::draft202012::options()
        .should_validate_formats(true)
        .with_pattern_options(PatternOptions::regex())
        .build(schema)
        .map_err(|error| (error.instance_path().to_string(), shorten(&error.to_string())))
}

impl Reader<'_> {
    /// The declarations of the parameters.
    pub(super) fn declarations(&mut self, node: &Node) {
        let entries = match &node.kind {
            Kind::Map(entries) => entries,
            Kind::Null => return,
            _ => {
                let expected = "an object of names and schemas, like `{city: {type: string}}`";
                self.wrong(node, "`params`", expected);
                self.draft.params_broken = true;
                return;
            }
        };
        for (key, node) in entries {
            let name: Arc<str> = key.text.as_str().into();
            self.draft.param_places.insert(Arc::clone(&name), key.position);
            if default_id(&key.text) != key.text || key.text.is_empty() {
                let message = format!(
                    "the name of a parameter must be made of letters, digits, `_` and `-`, found \
                     `{}`",
                    shorten(&key.text)
                );
                self.complaints.error(key.position, message);
            }
            let param = self.declaration(key, node, Arc::clone(&name));
            let undeclared =
                Param { name, schema: Value::Object(Map::new()), default: None, required: false };
            self.draft.params.push(param.unwrap_or(undeclared));
        }
    }

    fn declaration(&mut self, key: &Key, node: &Node, name: Arc<str>) -> Option<Param> {
        let what = format!("the parameter `{}`", shorten(&key.text));
        let mut param =
            Param { name, schema: Value::Object(Map::new()), default: None, required: false };
        let entries = match &node.kind {
            Kind::Null => return Some(param),
            Kind::Map(entries) => entries,
            Kind::Text(text) if TYPES.contains(&text.as_str()) => {
                let meant = format!("{{type: {text}}}");
                let message = format!("{what} must be an object, did you mean `{meant}`?");
                self.complaints.error_suggesting(node.position, message, meant);
                return None;
            }
            _ => {
                self.wrong(node, &what, "a JSON Schema, like `{type: string}`");
                return None;
            }
        };
        let sound = self.schema(node, &what, 0) & self.keywords(entries);
        let mut schema = Map::new();
        let mut default = None;
        for (keyword, value) in entries {
            match (keyword.text.as_str(), &value.kind) {
                ("default", _) => default = Some(value),
                ("required", Kind::Bool(required)) => param.required = *required,
                // The keyword of JSON Schema for the fields of an object.
                ("required", Kind::List(_)) => {
                    schema.insert(keyword.text.clone(), value.to_json());
                }
                ("required", _) => {
                    self.boolean(value, "`required`");
                }
                _ => {
                    schema.insert(keyword.text.clone(), value.to_json());
                }
            }
        }
        param.default = default.map(Node::to_json);
        param.schema = Value::Object(schema);
        if sound {
            self.check_schema(&param, node, default, &what);
        }
        if let (Some(default), true) = (default, param.required) {
            let message = format!("{what} has a default, so `required` asks for nothing");
            self.complaints.warning(default.position, message, "");
        }
        Some(param)
    }

    fn keywords(&mut self, entries: &[(Key, Node)]) -> bool {
        let mut sound = true;
        for (keyword, _) in entries {
            let text = keyword.text.as_str();
            if KEYWORDS.contains(&text) || REFERENCES.contains(&text) || text.starts_with("x-") {
                continue;
            }
            sound = false;
            let meant = nearest::field(text, KEYWORDS);
            let message = format!("unknown field `{}`{}", shorten(text), hint(meant));
            let suggestion = meant.unwrap_or_default();
            self.complaints.error_suggesting(keyword.position, message, suggestion);
        }
        sound
    }

    /// What the validator must not meet: references, depth; and mistyped types, told nicely.
    fn schema(&mut self, node: &Node, what: &str, depth: usize) -> bool {
        if depth > SCHEMA_NESTING_MAX {
            let message = format!("{what} nests deeper than {SCHEMA_NESTING_MAX}");
            self.complaints.error(node.position, message);
            return false;
        }
        let mut sound = true;
        match &node.kind {
            Kind::List(items) => {
                for item in items {
                    sound &= self.schema(item, what, depth + 1);
                }
            }
            Kind::Map(entries) => {
                for (key, value) in entries {
                    if REFERENCES.contains(&key.text.as_str()) {
                        let message = format!(
                            "{what}: `{}` is not supported, write the schema out",
                            key.text
                        );
                        self.complaints.error(key.position, message);
                        sound = false;
                    } else if key.text == "type" && !matches!(value.kind, Kind::Map(_)) {
                        sound &= self.schema_type(value);
                    } else if !DATA.contains(&key.text.as_str()) {
                        sound &= self.schema(value, what, depth + 1);
                    }
                }
            }
            _ => {}
        }
        sound
    }

    fn schema_type(&mut self, node: &Node) -> bool {
        if let Kind::List(items) = &node.kind
            && items.iter().all(|item| !matches!(item.kind, Kind::List(_)))
        {
            return items.iter().fold(true, |sound, item| self.schema_type(item) & sound);
        }
        if let Kind::Text(text) = &node.kind
            && TYPES.contains(&text.as_str())
        {
            return true;
        }
        let foreign = match &node.kind {
            Kind::Text(text) => match text.to_lowercase().as_str() {
                "text" | "str" | "varchar" => Some("string"),
                "int" | "long" | "uint" => Some("integer"),
                "float" | "double" | "decimal" => Some("number"),
                "bool" => Some("boolean"),
                "list" | "sequence" => Some("array"),
                "map" | "dict" | "mapping" => Some("object"),
                _ => nearest::nearest(text, TYPES),
            },
            Kind::Null => Some("null"),
            _ => None,
        };
        let found = node.describe(self.text);
        let message =
            format!("`type` must be {}, found {found}{}", listed(&TYPES, "or"), hint(foreign));
        self.complaints.error_suggesting(node.position, message, foreign.unwrap_or_default());
        false
    }

    /// The schema must be one, and the default must fit it.
    fn check_schema(&mut self, param: &Param, node: &Node, default: Option<&Node>, what: &str) {
        let validator = match validator(&param.schema) {
            Ok(validator) => validator,
            Err((path, message)) => {
                let place = descend(node, &path).position;
                let message = format!("{what} is not a JSON Schema: {message}");
                self.complaints.error(place, message);
                return;
            }
        };
        let (Some(node), Some(value)) = (default, &param.default) else { return };
        for (path, message) in misfits_of(&validator, value) {
            let place = descend(node, &path).position;
            let message = format!("the default of {what} does not fit: {message}");
            self.complaints.error(place, message);
        }
    }
}

/// The value that a JSON pointer leads to, or the last on the way there.
fn descend<'n>(node: &'n Node, pointer: &str) -> &'n Node {
    let mut node = node;
    for step in pointer.split('/').skip(1) {
        let step = step.replace("~1", "/").replace("~0", "~");
        let next = match &node.kind {
            Kind::Map(entries) => {
                entries.iter().find(|(key, _)| key.text == step).map(|(_, value)| value)
            }
            Kind::List(items) => step.parse::<usize>().ok().and_then(|index| items.get(index)),
            _ => None,
        };
        match next {
            Some(next) => node = next,
            None => break,
        }
    }
    node
}
