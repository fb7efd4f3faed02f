//! A resource in an OpenAPI 3.1 document: put in, taken out. Nothing here touches the disk.

use agent_sdk::Failure;
use serde_json::{Map, Value, json};

use crate::resource::{Field, FieldType, Operation, Resource};

/// The document, relative to the project.
pub const FILE: &str = "openapi.json";

/// How many records one page of a list has at most, and when the client does not say; the
/// scaffolded collections have the same bounds.
const PAGE_SIZE_MAX: u32 = 1_000;
const PAGE_SIZE: u32 = 100;
const RECORDS_MAX: u32 = 10_000;
/// Beyond this, JavaScript does not tell whole numbers apart.
const INTEGER_MAX: i64 = (1 << 53) - 1;

/// What stands at a path, and what at a schema's name.
struct Parts {
    paths: Map<String, Value>,
    schemas: Map<String, Value>,
}

/// The document with the resource. A part that is there already, and the same, stays.
pub fn add(document: &str, resource: &Resource) -> Result<String, Failure> {
    let mut document = read(document)?;
    let parts = parts(resource);
    let version = document.get("openapi").and_then(Value::as_str).unwrap_or_default();
    if !version.starts_with("3.1.") {
        return Err(unfit(&format!("is of the version {version:?}; 3.1 is expected")));
    }
    put(object(&mut document, &["paths"])?, parts.paths, "path")?;
    put(object(&mut document, &["components", "schemas"])?, parts.schemas, "schema")?;
    Ok(write(&document))
}

/// The document without the resource. What somebody changed since stays.
pub fn remove(document: &str, resource: &Resource) -> Result<String, Failure> {
    let mut document = read(document)?;
    let parts = parts(resource);
    take(object(&mut document, &["paths"])?, &parts.paths);
    take(object(&mut document, &["components", "schemas"])?, &parts.schemas);
    for level in [&["components"][..], &[]] {
        let parent = object(&mut document, level)?;
        let child = if level.is_empty() { "components" } else { "schemas" };
        if parent.get(child).and_then(Value::as_object).is_some_and(Map::is_empty) {
            parent.shift_remove(child);
        }
    }
    Ok(write(&document))
}

fn read(document: &str) -> Result<Map<String, Value>, Failure> {
    serde_json::from_str(document).map_err(|error| unfit(&format!("is no JSON object: {error}")))
}

fn write(document: &Map<String, Value>) -> String {
    let text = serde_json::to_string_pretty(document);
    text.expect("a JSON object with text keys can be written") + "\n"
}

/// The object at this place, made when it is not there.
fn object<'a>(
    document: &'a mut Map<String, Value>,
    place: &[&str],
) -> Result<&'a mut Map<String, Value>, Failure> {
    let mut found = document;
    for name in place {
        let value = found.entry(*name).or_insert_with(|| json!({}));
        let Value::Object(inner) = value else {
            return Err(unfit(&format!("has a `{name}` that is no object")));
        };
        found = inner;
    }
    Ok(found)
}

fn put(there: &mut Map<String, Value>, new: Map<String, Value>, what: &str) -> Result<(), Failure> {
    for (name, value) in new {
        match there.get(&name) {
            Some(old) if *old == value => {}
            Some(_) => return Err(unfit(&format!("has another {what} `{name}` already"))),
            None => {
                there.insert(name, value);
            }
        }
    }
    Ok(())
}

fn take(there: &mut Map<String, Value>, ours: &Map<String, Value>) {
    for (name, value) in ours {
        if there.get(name) == Some(value) {
            // The order of the rest is kept.
            there.shift_remove(name);
        }
    }
}

fn parts(resource: &Resource) -> Parts {
    let mut paths = Map::new();
    for operation in &resource.operations {
        let path = resource.path(*operation);
        let is_one = path.ends_with("{id}");
        let item = paths.entry(path).or_insert_with(|| json!({}));
        if is_one {
            item["parameters"] = json!([{
                "name": "id", "in": "path", "required": true,
                "schema": {"type": "integer", "minimum": 1},
            }]);
        }
        item[operation.method().to_lowercase()] = describe(resource, *operation);
    }
    let name = resource.type_name();
    let mut schemas = Map::new();
    schemas.insert(format!("{name}Input"), input_schema(&resource.fields));
    schemas.insert(name, record_schema(&resource.fields));
    Parts { paths, schemas }
}

fn describe(resource: &Resource, operation: Operation) -> Value {
    let (name, type_name) = (&resource.name, resource.type_name());
    let record = content(json!({"$ref": format!("#/components/schemas/{type_name}")}));
    let body = json!({
        "required": true,
        "content": content(json!({"$ref": format!("#/components/schemas/{type_name}Input")})),
    });
    let invalid = error("Some fields are not valid.");
    let absent = error("There is no such record.");
    let mut described = match operation {
        Operation::List => json!({
            "summary": format!("Lists records of {name}."),
            "parameters": [
                page_parameter("limit", 1, PAGE_SIZE_MAX, PAGE_SIZE),
                page_parameter("offset", 0, RECORDS_MAX, 0),
            ],
            "responses": {
                "200": {"description": "A page of records.", "content": list(&type_name)},
                "400": error("A query parameter is not valid."),
            },
        }),
        Operation::Create => json!({
            "summary": format!("Creates a record of {name}."),
            "requestBody": body,
            "responses": {
                "201": {"description": "The new record.", "content": record},
                "400": invalid,
                "507": error("No more records can be kept."),
            },
        }),
        Operation::Get => json!({
            "summary": format!("Gets a record of {name}."),
            "responses": {"200": {"description": "The record.", "content": record}, "404": absent},
        }),
        Operation::Update => json!({
            "summary": format!("Replaces a record of {name}."),
            "requestBody": body,
            "responses": {
                "200": {"description": "The record as it is now.", "content": record},
                "400": invalid,
                "404": absent,
            },
        }),
        Operation::Delete => json!({
            "summary": format!("Deletes a record of {name}."),
            "responses": {"204": {"description": "It is deleted."}, "404": absent},
        }),
    };
    described["operationId"] = json!(format!("{}{type_name}", operation.name()));
    described["tags"] = json!([name]);
    described
}

fn content(schema: Value) -> Value {
    json!({"application/json": {"schema": schema}})
}

fn list(type_name: &str) -> Value {
    content(json!({
        "type": "object",
        "required": ["items", "total"],
        "properties": {
            "items": {
                "type": "array",
                "items": {"$ref": format!("#/components/schemas/{type_name}")},
            },
            "total": {"type": "integer", "minimum": 0},
        },
    }))
}

fn page_parameter(name: &str, least: u32, most: u32, unset: u32) -> Value {
    json!({
        "name": name, "in": "query", "required": false,
        "schema": {"type": "integer", "minimum": least, "maximum": most, "default": unset},
    })
}

fn error(description: &str) -> Value {
    let schema = json!({
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message"],
                "properties": {
                    "message": {"type": "string"},
                    "fields": {"type": "object", "additionalProperties": {"type": "string"}},
                },
            },
        },
    });
    json!({"description": description, "content": content(schema)})
}

fn input_schema(fields: &[Field]) -> Value {
    let properties: Map<_, _> = fields.iter().map(|f| (f.name.clone(), field_schema(f))).collect();
    let required: Vec<_> = fields.iter().filter(|f| f.required).map(|f| &f.name).collect();
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": required,
        "properties": properties,
    })
}

fn record_schema(fields: &[Field]) -> Value {
    let mut schema = input_schema(fields);
    let mut properties = Map::new();
    properties.insert("id".to_owned(), json!({"type": "integer", "minimum": 1}));
    if let Some(Value::Object(rest)) = schema.get_mut("properties").map(Value::take) {
        properties.extend(rest);
    }
    schema["properties"] = Value::Object(properties);
    if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
        required.insert(0, json!("id"));
    }
    schema
}

fn field_schema(field: &Field) -> Value {
    let mut schema = json!({"type": field.field_type.name()});
    match field.field_type {
        FieldType::String => {
            if field.required {
                schema["minLength"] = json!(1);
            }
            schema["maxLength"] = json!(field.max_length);
        }
        FieldType::Integer => {
            schema["minimum"] = json!(-INTEGER_MAX);
            schema["maximum"] = json!(INTEGER_MAX);
        }
        FieldType::Number | FieldType::Boolean => {}
    }
    schema
}

fn unfit(message: &str) -> Failure {
    Failure::permanent(format!("{FILE} {message}")).no_effect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(name: &str) -> Resource {
        Resource::new(Some(name), None, None).unwrap()
    }

    fn empty() -> String {
        let document =
            json!({"openapi": "3.1.0", "info": {"title": "a"}, "paths": {"/health": {}}});
        serde_json::to_string_pretty(&document).unwrap() + "\n"
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let text = add(&empty(), &resource("order-lines")).unwrap();
        let document: Value = serde_json::from_str(&text).unwrap();
        let references: Vec<_> = text.split("\"#").skip(1).collect();
        assert!(!references.is_empty());
        for rest in references {
            let place = rest.split('"').next().unwrap();
            assert!(document.pointer(place).is_some(), "{place}");
        }
        let operations = &document["paths"]["/order-lines/{id}"];
        assert_eq!(operations["put"]["operationId"], "updateOrderLines");
    }

    #[test]
    fn resources_come_and_go_in_any_order() {
        let one = add(&empty(), &resource("a")).unwrap();
        let both = add(&one, &resource("b")).unwrap();
        assert_eq!(remove(&both, &resource("b")).unwrap(), one);
        let other = remove(&both, &resource("a")).unwrap();
        assert_eq!(remove(&other, &resource("b")).unwrap(), empty());
    }

    #[test]
    fn adding_twice_changes_nothing() {
        let one = add(&empty(), &resource("a")).unwrap();
        assert_eq!(add(&one, &resource("a")).unwrap(), one);
    }

    #[test]
    fn another_ones_path_is_not_written_over() {
        let document = empty().replace("/health", "/a");
        let failure = add(&document, &resource("a")).unwrap_err();
        assert!(failure.message().contains("path `/a`"), "{failure}");
    }

    #[test]
    fn what_is_no_openapi_is_refused() {
        for document in ["", "[]", "{}", r#"{"openapi": "3.1.0", "paths": []}"#] {
            assert!(add(document, &resource("a")).is_err(), "{document}");
        }
    }
}
