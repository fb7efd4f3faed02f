//! Parameters of a run, from `--param k=v` and `--params-file`.
//!
//! Values stay text from here to the server, so that no digit is lost.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::Path;

use contracts::v1::{Payload, payload::Data};
use serde_json::value::RawValue;

use crate::error::Error;
use crate::json;
use crate::object::Object;

const PARAMS_BYTES_MAX: u64 = 4 << 20;

/// The declared parameters: the JSON Schema of each, as text.
pub(crate) struct Schema(HashMap<String, Box<RawValue>>);

impl Schema {
    /// What a workflow's `params_schema` says; nothing where it is unset.
    pub(crate) fn of(payload: Option<&Payload>) -> Schema {
        let json = match payload.and_then(|payload| payload.data.as_ref()) {
            Some(Data::Json(json)) => json,
            _ => return Schema(HashMap::new()),
        };
        Schema(serde_json::from_str(json).unwrap_or_default())
    }

    /// What a parameter may be; none where it is not declared.
    fn kind(&self, name: &str) -> Option<Kind> {
        #[derive(serde::Deserialize)]
        struct Declared {
            #[serde(default, rename = "type")]
            kind: serde_json::Value,
            #[serde(default, rename = "enum")]
            values: Vec<serde_json::Value>,
        }
        let declared: Declared = serde_json::from_str(self.0.get(name)?.get()).ok()?;
        let is_text = match &declared.kind {
            serde_json::Value::String(kind) => kind == "string",
            serde_json::Value::Array(kinds) => kinds.iter().any(|kind| kind == "string"),
            _ => {
                !declared.values.is_empty()
                    && declared.values.iter().all(serde_json::Value::is_string)
            }
        };
        Some(if is_text { Kind::Text } else { Kind::Json(declared.kind) })
    }
}

enum Kind {
    Text,
    Json(serde_json::Value),
}

/// `name=value`, as clap parses `--param` and `--label`.
pub(crate) fn pair(argument: &str) -> Result<(String, String), String> {
    match argument.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.to_owned()))
        }
        _ => Err("write it as NAME=VALUE".to_owned()),
    }
}

/// The parameters as one JSON object: those of the file, overridden by those of the command
/// line. Unset when none are given.
pub(crate) fn payload(
    given: &[(String, String)],
    file: Option<&Path>,
    schema: &Schema,
) -> Result<Option<Payload>, Error> {
    if given.is_empty() && file.is_none() {
        return Ok(None);
    }
    let mut entries = match file {
        Some(file) => read_file(file)?,
        None => Object::default(),
    };
    for (index, (name, value)) in given.iter().enumerate() {
        if given[..index].iter().any(|(earlier, _)| earlier == name) {
            return Err(Error::request(format!("`--param {name}` is given twice")));
        }
        entries.set(name, self::value(name, value, schema)?);
    }
    let data = Some(Data::Json(entries.text()));
    Ok(Some(Payload { data, media_type: String::new() }))
}

/// A value of the command line as JSON text: text where the declared type is string, else JSON.
fn value(name: &str, value: &str, schema: &Schema) -> Result<String, Error> {
    let raw = serde_json::from_str::<&RawValue>(value.trim()).map(|raw| raw.get().to_owned());
    match (schema.kind(name), raw) {
        (Some(Kind::Text), _) => Ok(json::string(value)),
        (_, Ok(raw)) => Ok(raw),
        // The server refuses what is not declared, and says what is.
        (None, Err(_)) => Ok(json::string(value)),
        (Some(Kind::Json(kind)), Err(error)) => {
            let wanted = match kind.as_str() {
                Some(kind) => format!("`{name}` is declared as {kind}"),
                None => format!("`{name}` is not declared as a string"),
            };
            let message =
                format!("`--param {name}={value}`: {wanted}, and this is not JSON: {error}");
            let help = format!("text needs quotes: --param '{name}={}'", json::string(value));
            Err(Error::request(message).help(help))
        }
    }
}

fn read_file(path: &Path) -> Result<Object, Error> {
    let shown = path.display();
    let cannot = |error: std::io::Error| {
        Error::request(format!("cannot read the parameters in `{shown}`: {error}"))
    };
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().take(PARAMS_BYTES_MAX + 1).read_to_string(&mut text)
    } else {
        let file = std::fs::File::open(path).map_err(cannot)?;
        file.take(PARAMS_BYTES_MAX + 1).read_to_string(&mut text)
    };
    read.map_err(cannot)?;
    if text.len() as u64 > PARAMS_BYTES_MAX {
        return Err(Error::request(format!("`{shown}` is larger than 4 MiB")));
    }
    serde_json::from_str(&text).map_err(|error| {
        Error::request(format!("the parameters in `{shown}` are not a JSON object: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Schema {
        let json = r#"{"name":{"type":"string"},"count":{"type":"integer"},"any":{},
            "mode":{"enum":["fast","slow"]},"maybe":{"type":["string","null"]}}"#;
        Schema::of(Some(&Payload { data: Some(Data::Json(json.into())), ..Default::default() }))
    }

    fn check(given: &[&str], expected: &str) {
        let given: Vec<_> = given.iter().map(|given| pair(given).unwrap()).collect();
        let payload = payload(&given, None, &schema()).unwrap().unwrap();
        assert_eq!(payload.data, Some(Data::Json(expected.to_owned())));
    }

    #[test]
    fn the_declared_type_says_what_is_text() {
        check(&["name=007"], r#"{"name":"007"}"#);
        check(&["name=a=b"], r#"{"name":"a=b"}"#);
        check(&["count=12345678901234567890"], r#"{"count":12345678901234567890}"#);
        check(&["any=[1, 2]", "mode=fast"], r#"{"any":[1, 2],"mode":"fast"}"#);
        check(&["maybe=x"], r#"{"maybe":"x"}"#);
        check(&["unknown=x", "other=1.10"], r#"{"unknown":"x","other":1.10}"#);
    }

    #[test]
    fn what_is_not_json_is_refused_with_a_remedy() {
        let given = [("count".to_owned(), "many".to_owned())];
        let Err(Error::Request { message, help }) = payload(&given, None, &schema()) else {
            panic!("it must be refused");
        };
        assert!(message.contains("`count` is declared as integer"), "{message}");
        assert_eq!(help.unwrap(), "text needs quotes: --param 'count=\"many\"'");
    }

    #[test]
    fn the_same_parameter_twice_is_refused() {
        let given = [("any".to_owned(), "1".to_owned()), ("any".to_owned(), "2".to_owned())];
        assert!(payload(&given, None, &schema()).is_err());
        assert!(pair("novalue").is_err());
        assert!(pair("=x").is_err());
    }

    #[test]
    fn the_command_line_goes_before_the_file_and_digits_stay() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), r#"{"z": 1.10, "count": 3, "name": "a"}"#).unwrap();
        let given = [("count".to_owned(), "4".to_owned())];
        let payload = payload(&given, Some(file.path()), &schema()).unwrap().unwrap();
        let expected = r#"{"z":1.10,"count":4,"name":"a"}"#;
        assert_eq!(payload.data, Some(Data::Json(expected.to_owned())));
    }

    #[test]
    fn a_file_that_is_no_object_is_refused() {
        for text in ["[1]", "{\"a\":1,\"a\":2}", "{", ""] {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), text).unwrap();
            assert!(payload(&[], Some(file.path()), &schema()).is_err(), "{text}");
        }
        assert!(payload(&[], Some(Path::new("/no/such/file")), &schema()).is_err());
    }
}
