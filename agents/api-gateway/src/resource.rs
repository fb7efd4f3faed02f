//! A resource: its name, fields and operations, and the modules that serve it. Nothing here
//! touches the disk.

use std::collections::BTreeSet;

use agent_sdk::{Failure, JsonSchema};
use serde::{Deserialize, Serialize};

/// The longest name of a resource or field.
pub const NAME_BYTES_MAX: usize = 48;
/// How many fields a resource has at most.
pub const FIELDS_MAX: usize = 50;
/// How long a text is at most, unless its field says otherwise.
pub const TEXT_LENGTH: u32 = 2_000;
/// The longest text that a field may allow; a request body holds no more.
pub const TEXT_LENGTH_MAX: u32 = 60_000;

/// Names that the servers and their modules have already.
const TAKEN: [&str; 2] = ["health", "index"];

/// What can be done with a resource.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// `GET /items`
    List,
    /// `POST /items`
    Create,
    /// `GET /items/{id}`
    Get,
    /// `PUT /items/{id}`
    Update,
    /// `DELETE /items/{id}`
    Delete,
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FieldType {
    /// A text.
    String,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
}

/// A field of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// Its name: `[a-z][a-z0-9_]*`, and not `id`.
    pub name: String,
    /// What it holds.
    #[serde(rename = "type")]
    pub field_type: FieldType,
    /// Whether it must be given; a text must not be empty then. True unless given.
    #[serde(default = "yes")]
    pub required: bool,
    /// How many characters a text has at most; 2000 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_length: Option<u32>,
}

fn yes() -> bool {
    true
}

/// A resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// Its name, as in `/items`.
    pub name: String,
    /// Its fields besides `id`.
    pub fields: Vec<Field>,
    /// What can be done with it, in the order of [`Operation`].
    pub operations: Vec<Operation>,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::List, Self::Create, Self::Get, Self::Update, Self::Delete];

    /// The HTTP method.
    pub fn method(self) -> &'static str {
        match self {
            Self::List | Self::Get => "GET",
            Self::Create => "POST",
            Self::Update => "PUT",
            Self::Delete => "DELETE",
        }
    }

    /// The name, as params and modules have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Create => "create",
            Self::Get => "get",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

impl Resource {
    /// A resource, or which field of the input is wrong.
    pub fn new(
        name: Option<&str>,
        fields: Option<&[Field]>,
        operations: Option<&[Operation]>,
    ) -> Result<Self, Failure> {
        let name = name.unwrap_or("items");
        check_name(name)?;
        let mut fields = fields.map_or_else(default_fields, <[Field]>::to_vec);
        check_fields(&mut fields)?;
        let operations: BTreeSet<_> =
            operations.unwrap_or(&Operation::ALL).iter().copied().collect();
        if operations.is_empty() {
            return Err(rejected("`routes` is empty; leave it out for all of them"));
        }
        let operations = operations.into_iter().collect();
        Ok(Self { name: name.to_owned(), fields, operations })
    }

    /// The path of an operation, as `/items/{id}`.
    pub fn path(&self, operation: Operation) -> String {
        match operation {
            Operation::List | Operation::Create => format!("/{}", self.name),
            _ => format!("/{}/{{id}}", self.name),
        }
    }

    /// The name in camel case with a capital: `order-lines` is `OrderLines`.
    pub fn type_name(&self) -> String {
        let words = self.name.split('-').map(|word| word[..1].to_uppercase() + &word[1..]);
        words.collect()
    }

    /// The TypeScript module, and the same without types.
    pub fn typescript(&self, with_types: bool) -> String {
        let (import, annotation) = if with_types {
            ("import type { Field } from \"../collection.js\";\n", ": Field[]")
        } else {
            ("", "")
        };
        let fields: String = self.fields.iter().map(typescript_field).collect();
        format!(
            "// The resource `{name}`.\nimport {{ Collection }} from \"../collection.js\";\n\
             {import}\nconst fields{annotation} = [\n{fields}];\n\n\
             export const {routes} = new Collection(\"{name}\", fields).routes([\n\
             {operations}]);\n",
            name = self.name,
            routes = self.typescript_name(),
            operations = self.operation_lines("  "),
        )
    }

    /// The name of the routes in TypeScript: `orderLinesRoutes`.
    pub fn typescript_name(&self) -> String {
        let name = self.type_name();
        name[..1].to_lowercase() + &name[1..] + "Routes"
    }

    /// The Python module.
    pub fn python(&self) -> String {
        let fields: String = self.fields.iter().map(python_field).collect();
        format!(
            "\"\"\"The resource `{name}`.\"\"\"\n\nfrom app.collection import Collection, Field\n\n\
             FIELDS = [\n{fields}]\n\nROUTES = Collection(\"{name}\", FIELDS).routes(\n    [\n\
             {operations}    ]\n)\n",
            name = self.name,
            operations = self.operation_lines("        "),
        )
    }

    /// The name of the module and of its routes in Python: `order_lines_routes`.
    pub fn python_name(&self) -> String {
        self.name.replace('-', "_") + "_routes"
    }

    fn operation_lines(&self, indent: &str) -> String {
        let line = |operation: &Operation| format!("{indent}\"{}\",\n", operation.name());
        self.operations.iter().map(line).collect()
    }
}

impl FieldType {
    /// The name in JSON Schema, TypeScript and Python alike.
    pub fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

fn typescript_field(field: &Field) -> String {
    let Field { name, field_type, required, max_length } = field;
    let length = max_length.map(|length| format!(", max_length: {length}")).unwrap_or_default();
    let field_type = field_type.name();
    format!("  {{ name: \"{name}\", type: \"{field_type}\", required: {required}{length} }},\n")
}

fn python_field(field: &Field) -> String {
    let required = if field.required { "True" } else { "False" };
    let length = field.max_length.map(|length| format!(", {length}")).unwrap_or_default();
    let Field { name, field_type, .. } = field;
    format!("    Field(\"{name}\", \"{}\", {required}{length}),\n", field_type.name())
}

fn default_fields() -> Vec<Field> {
    let text = |name: &str, required, length| Field {
        name: name.to_owned(),
        field_type: FieldType::String,
        required,
        max_length: Some(length),
    };
    vec![text("name", true, 200), text("description", false, TEXT_LENGTH)]
}

/// Each word begins with a letter, so that no two names become one in camel case.
fn check_name(name: &str) -> Result<(), Failure> {
    let is_word = |word: &str| {
        word.starts_with(|first: char| first.is_ascii_lowercase())
            && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    if name.len() > NAME_BYTES_MAX || !name.split('-').all(is_word) {
        return Err(rejected(&format!(
            "`resource` is {name:?}; it must be words of small letters and digits with `-` \
             between them, each beginning with a letter, at most {NAME_BYTES_MAX} in all"
        )));
    }
    if TAKEN.contains(&name) {
        return Err(rejected(&format!("`resource` is {name:?}, which the server has itself")));
    }
    Ok(())
}

fn check_fields(fields: &mut [Field]) -> Result<(), Failure> {
    if fields.is_empty() || fields.len() > FIELDS_MAX {
        let count = fields.len();
        return Err(rejected(&format!("`fields` has {count}; 1 to {FIELDS_MAX} can be")));
    }
    let mut names = BTreeSet::new();
    for (index, field) in fields.iter_mut().enumerate() {
        let name = &field.name;
        let is_fit = name.len() <= NAME_BYTES_MAX
            && name.starts_with(|first: char| first.is_ascii_lowercase())
            && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        if !is_fit {
            return Err(rejected(&format!(
                "`fields[{index}].name` is {name:?}; it must begin with a small letter and have \
                 only small letters, digits and `_`, at most {NAME_BYTES_MAX} in all"
            )));
        }
        if name == "id" || !names.insert(name.clone()) {
            return Err(rejected(&format!("`fields[{index}].name` is {name:?}, which is taken")));
        }
        check_length(index, field)?;
    }
    Ok(())
}

fn check_length(index: usize, field: &mut Field) -> Result<(), Failure> {
    match (field.field_type, field.max_length) {
        (FieldType::String, None) => field.max_length = Some(TEXT_LENGTH),
        (FieldType::String, Some(1..=TEXT_LENGTH_MAX)) | (_, None) => {}
        (FieldType::String, Some(length)) => {
            return Err(rejected(&format!(
                "`fields[{index}].max_length` is {length}; 1 to {TEXT_LENGTH_MAX} can be"
            )));
        }
        (_, Some(_)) => {
            return Err(rejected(&format!(
                "`fields[{index}].max_length` is for texts; the field is none"
            )));
        }
    }
    Ok(())
}

fn rejected(message: &str) -> Failure {
    Failure::rejected(message).code("invalid_input").no_effect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_names_of_each_language() {
        let resource = Resource::new(Some("order-lines"), None, None).unwrap();
        assert_eq!(resource.type_name(), "OrderLines");
        assert_eq!(resource.typescript_name(), "orderLinesRoutes");
        assert_eq!(resource.python_name(), "order_lines_routes");
        assert_eq!(resource.path(Operation::Get), "/order-lines/{id}");
    }

    #[test]
    fn wrong_names_are_refused() {
        for name in ["", "..", "a/b", "Items", "a--b", "a-1", "-a", "index", "health", "a_b"] {
            let failure = Resource::new(Some(name), None, None).unwrap_err();
            assert!(failure.message().contains("`resource`"), "{failure}");
        }
    }

    #[test]
    fn wrong_fields_are_refused_with_their_place() {
        let good = default_fields().remove(0);
        let bad = [
            Field { name: "id".to_owned(), ..good.clone() },
            Field { name: "\"; x".to_owned(), ..good.clone() },
            good.clone(),
            Field { max_length: Some(0), name: "a".to_owned(), ..good.clone() },
            Field { field_type: FieldType::Number, name: "a".to_owned(), ..good.clone() },
        ];
        for field in bad {
            let fields = [good.clone(), field];
            let failure = Resource::new(None, Some(&fields), None).unwrap_err();
            assert!(failure.message().contains("`fields[1]."), "{failure}");
        }
        assert!(Resource::new(None, Some(&[]), None).is_err());
        assert!(Resource::new(None, None, Some(&[])).is_err());
    }

    #[test]
    fn modules_differ_by_their_types_alone() {
        let resource = Resource::new(None, None, Some(&[Operation::Get, Operation::List])).unwrap();
        let typed = resource.typescript(true);
        assert!(typed.contains("import type") && typed.contains("const fields: Field[] = ["));
        let erased = typed
            .replace("import type { Field } from \"../collection.js\";\n", "")
            .replace(": Field[]", "");
        assert_eq!(resource.typescript(false), erased);
        assert!(erased.ends_with("routes([\n  \"list\",\n  \"get\",\n]);\n"), "{erased}");
    }
}
