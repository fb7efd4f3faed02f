//! A task's input: fills in what is inherited and reads the text into the handler's type. Text
//! is spliced, never reparsed, so that numbers keep all their digits and objects their order.

use std::fmt;

use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::Failure;

/// Reads an input, or says which field is wrong and what was expected there.
pub(crate) fn parse<Input: DeserializeOwned>(text: &str) -> Result<Input, Failure> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let input = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let place = if path == "." { String::new() } else { format!(" at `{path}`") };
        let cause = strip_position(&error.into_inner().to_string());
        Failure::rejected(format!("the input is wrong{place}: {cause}"))
            .code("invalid_input")
            .no_effect()
    })?;
    reader.end().map_err(|error| {
        Failure::rejected(format!("the input is not one JSON value: {error}"))
            .code("invalid_input")
            .no_effect()
    })?;
    Ok(input)
}

/// Without serde_json's line and column, which mean nothing to who wrote the step's params.
fn strip_position(message: &str) -> String {
    match message.rfind(" at line ") {
        Some(position) => message[..position].to_owned(),
        None => message.to_owned(),
    }
}

/// Fills fields that the params leave out from `sources`, the first one that has them wins. In
/// an undo the params are in the field `params`, and the task's own output is a source as well.
pub(crate) fn inherit(
    input: &str,
    fields: &[String],
    inherited: Option<&str>,
    is_undo: bool,
) -> Result<String, Failure> {
    let Some(mut object) = Object::read(input) else {
        return Ok(input.to_owned());
    };
    let inherited = inherited.and_then(Object::read).unwrap_or_default();
    if !is_undo {
        object.fill(fields, &[&inherited]);
        return object.write();
    }
    let output = object.get("output").and_then(Object::read).unwrap_or_default();
    let Some(mut params) = object.get("params").and_then(Object::read) else {
        return Ok(input.to_owned());
    };
    params.fill(fields, &[&output, &inherited]);
    object.set("params", &params)?;
    object.write()
}

/// A JSON object whose values stay text, in the order in which they came.
#[derive(Default)]
struct Object(Vec<(String, Box<RawValue>)>);

impl Object {
    fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    fn get(&self, field: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == field).map(|(_, value)| value.get())
    }

    fn fill(&mut self, fields: &[String], sources: &[&Self]) {
        for field in fields {
            if self.get(field).is_some() {
                continue;
            }
            let found = sources
                .iter()
                .flat_map(|source| &source.0)
                .find(|(name, value)| name == field && value.get() != "null");
            if let Some((name, value)) = found {
                self.0.push((name.clone(), value.clone()));
            }
        }
    }

    fn set(&mut self, field: &str, object: &Self) -> Result<(), Failure> {
        let text = RawValue::from_string(object.write()?).map_err(|error| unwritable(&error))?;
        if let Some((_, value)) = self.0.iter_mut().find(|(name, _)| name == field) {
            *value = text;
        }
        Ok(())
    }

    fn write(&self) -> Result<String, Failure> {
        serde_json::to_string(self).map_err(|error| unwritable(&error))
    }
}

fn unwritable(error: &serde_json::Error) -> Failure {
    Failure::permanent(format!("the input cannot be put together: {error}")).no_effect()
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Object;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut fields = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    let value: &'de RawValue = map.next_value()?;
                    fields.push((name, value.to_owned()));
                }
                let mut names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
                names.sort_unstable();
                if names.windows(2).any(|pair| pair[0] == pair[1]) {
                    return Err(A::Error::custom("a field is there twice"));
                }
                Ok(Object(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}
