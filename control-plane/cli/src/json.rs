//! Messages as canonical proto3 JSON, with payloads spliced in as they are.
//!
//! Payload text is never parsed into numbers or maps: all digits and the order of keys stay.
//! Numbers, booleans and lists are written even where they are zero or empty, so that a script
//! finds them; empty text is left out.

use std::fmt::Write as _;
use std::sync::LazyLock;

use chrono::{DateTime, SecondsFormat};
use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage as _, Value,
};
use serde_json::value::RawValue;

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(contracts::DESCRIPTORS).expect("the build wrote valid descriptors")
});

/// Text that is written even where it is empty.
const ALWAYS: [&str; 1] = ["orchestrator.v1.StepResult.agent"];

/// A message of the package `orchestrator.v1`, named `name`, as JSON over several lines.
pub(crate) fn message(name: &str, message: &impl Message) -> String {
    write(name, message, true)
}

/// The same in one line.
pub(crate) fn line(name: &str, message: &impl Message) -> String {
    write(name, message, false)
}

fn write(name: &str, message: &impl Message, is_pretty: bool) -> String {
    let descriptor = POOL
        .get_message_by_name(&format!("orchestrator.v1.{name}"))
        .expect("the callers name messages of the contracts");
    let dynamic = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())
        .expect("a message decodes by its own descriptor");
    let mut writer = Writer { text: String::new(), depth: 0, is_pretty };
    writer.message(&dynamic);
    writer.text
}

/// Text as a JSON string.
pub(crate) fn string(text: &str) -> String {
    serde_json::to_string(text).expect("text is always JSON")
}

struct Writer {
    text: String,
    depth: usize,
    is_pretty: bool,
}

impl Writer {
    fn message(&mut self, message: &DynamicMessage) {
        match message.descriptor().full_name() {
            "google.protobuf.Timestamp" => self.timestamp(message),
            "google.protobuf.Duration" => self.duration(message),
            "orchestrator.v1.Payload" => self.payload(message),
            _ => self.fields(message),
        }
    }

    fn fields(&mut self, message: &DynamicMessage) {
        let shown: Vec<FieldDescriptor> =
            message.descriptor().fields().filter(|field| is_shown(message, field)).collect();
        self.list('{', '}', shown.len(), |writer, index| {
            let field = &shown[index];
            writer.text.push_str(&string(field.json_name()));
            writer.colon();
            writer.value(&message.get_field(field), &field.kind());
        });
    }

    fn value(&mut self, value: &Value, kind: &Kind) {
        match value {
            Value::Bool(value) => self.plain(value),
            Value::I32(value) => self.plain(value),
            Value::U32(value) => self.plain(value),
            Value::I64(value) => self.quoted(value),
            Value::U64(value) => self.quoted(value),
            Value::F32(value) => self.float(f64::from(*value)),
            Value::F64(value) => self.float(*value),
            Value::String(value) => self.text.push_str(&string(value)),
            Value::Bytes(value) => self.text.push_str(&string(&base64(value))),
            Value::EnumNumber(number) => self.enumeration(*number, kind),
            Value::Message(message) => self.message(message),
            Value::List(values) => self.list('[', ']', values.len(), |writer, index| {
                writer.value(&values[index], kind);
            }),
            Value::Map(values) => {
                let mut entries: Vec<(&MapKey, &Value)> = values.iter().collect();
                entries.sort_by_key(|(key, _)| *key);
                let inner = kind.as_message().map(|entry| entry.map_entry_value_field().kind());
                self.list('{', '}', entries.len(), |writer, index| {
                    let (key, value) = entries[index];
                    writer.text.push_str(&string(&key_text(key)));
                    writer.colon();
                    writer.value(value, inner.as_ref().unwrap_or(kind));
                });
            }
        }
    }

    /// `count` entries between brackets, one a line.
    fn list(
        &mut self,
        open: char,
        close: char,
        count: usize,
        mut entry: impl FnMut(&mut Writer, usize),
    ) {
        self.text.push(open);
        self.depth += 1;
        for index in 0..count {
            if index > 0 {
                self.text.push(',');
            }
            self.new_line();
            entry(self, index);
        }
        self.depth -= 1;
        if count > 0 {
            self.new_line();
        }
        self.text.push(close);
    }

    fn new_line(&mut self) {
        if self.is_pretty {
            self.text.push('\n');
            self.text.extend(std::iter::repeat_n("  ", self.depth));
        }
    }

    fn colon(&mut self) {
        self.text.push_str(if self.is_pretty { ": " } else { ":" });
    }

    /// JSON text; a line break in it can only stand between tokens.
    fn raw(&mut self, json: &str) {
        if self.is_pretty {
            self.text.push_str(json);
        } else {
            self.text.push_str(&json.replace(['\n', '\r'], " "));
        }
    }

    fn plain(&mut self, value: impl std::fmt::Display) {
        write!(self.text, "{value}").expect("writing to text cannot fail");
    }

    fn quoted(&mut self, value: impl std::fmt::Display) {
        write!(self.text, "\"{value}\"").expect("writing to text cannot fail");
    }

    fn float(&mut self, value: f64) {
        if value.is_nan() {
            self.text.push_str("\"NaN\"");
        } else if value.is_infinite() {
            self.quoted(if value > 0.0 { "Infinity" } else { "-Infinity" });
        } else {
            self.plain(value);
        }
    }

    fn enumeration(&mut self, number: i32, kind: &Kind) {
        let named = kind.as_enum().and_then(|kind| kind.get_value(number));
        match named {
            Some(value) => self.quoted(value.name()),
            None => self.plain(number),
        }
    }

    fn timestamp(&mut self, message: &DynamicMessage) {
        let (seconds, nanos) = seconds_and_nanos(message);
        let time = u32::try_from(nanos).ok().and_then(|n| DateTime::from_timestamp(seconds, n));
        match time {
            Some(time) => self.quoted(time.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
            None => self.text.push_str("null"),
        }
    }

    fn duration(&mut self, message: &DynamicMessage) {
        let (seconds, nanos) = seconds_and_nanos(message);
        self.quoted(duration(seconds, nanos));
    }

    fn payload(&mut self, message: &DynamicMessage) {
        match message.get_field_by_name("json").as_deref() {
            Some(Value::String(json)) if message.has_field_by_name("json") => {
                // What is not JSON would break the whole document.
                match serde_json::from_str::<&RawValue>(json) {
                    Ok(raw) => self.raw(raw.get()),
                    Err(_) => self.text.push_str(&string(json)),
                }
            }
            _ if message.fields().next().is_none() => self.text.push_str("null"),
            _ => self.fields(message),
        }
    }
}

/// Seconds and nanoseconds as proto3 JSON has a duration: `1.5s`.
pub(crate) fn duration(seconds: i64, nanos: i32) -> String {
    let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
    let (seconds, nanos) = (seconds.unsigned_abs(), nanos.unsigned_abs());
    // Every count of digits is valid for a reader; people expect the shortest.
    let digits = format!("{nanos:09}");
    let fraction = digits.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{seconds}{point}{fraction}s")
}

fn is_shown(message: &DynamicMessage, field: &FieldDescriptor) -> bool {
    if message.has_field(field) {
        return true;
    }
    if field.supports_presence() {
        return false;
    }
    let optional_text = !field.is_list() && matches!(field.kind(), Kind::String | Kind::Bytes);
    !(optional_text || matches!(field.kind(), Kind::Enum(_)) && !field.is_list())
        || ALWAYS.contains(&field.full_name())
}

fn seconds_and_nanos(message: &DynamicMessage) -> (i64, i32) {
    let field = |name| message.get_field_by_name(name);
    (
        field("seconds").and_then(|value| value.as_i64()).unwrap_or_default(),
        field("nanos").and_then(|value| value.as_i32()).unwrap_or_default(),
    )
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| usize::from(chunk.get(index).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            if digit > chunk.len() {
                text.push('=');
            } else {
                text.push(char::from(DIGITS[bits >> (18 - 6 * digit) & 63]));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use contracts::v1::{self, payload::Data};

    use super::*;

    fn payload(json: &str) -> Option<v1::Payload> {
        Some(v1::Payload { data: Some(Data::Json(json.to_owned())), ..Default::default() })
    }

    #[test]
    fn a_payload_keeps_its_digits_and_the_order_of_its_keys() {
        let step = v1::StepResult {
            step_id: "a".into(),
            status: "success".into(),
            output: payload(r#"{"z":12345678901234567890123,"a":1.10}"#),
            ..Default::default()
        };
        let expected = r#"{
  "stepId": "a",
  "agent": "",
  "status": "success",
  "output": {"z":12345678901234567890123,"a":1.10},
  "attempts": 0
}"#;
        assert_eq!(message("StepResult", &step), expected);
    }

    #[test]
    fn times_durations_enums_maps_and_long_integers_are_canonical() {
        let run = v1::Run {
            run_id: "r".into(),
            status: v1::RunStatus::Success.into(),
            create_time: Some(prost_types::Timestamp { seconds: 0, nanos: 500_000_000 }),
            labels: [("b".to_owned(), "2".to_owned()), ("a".to_owned(), "\"".to_owned())].into(),
            version_sequence: 7,
            ..Default::default()
        };
        let text = message("Run", &run);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["status"], "RUN_STATUS_SUCCESS");
        assert_eq!(value["createTime"], "1970-01-01T00:00:00.500Z");
        assert_eq!(value["versionSequence"], "7");
        assert_eq!(value["labels"], serde_json::json!({"a": "\"", "b": "2"}));
        assert_eq!(value["endTime"], serde_json::Value::Null);
        assert!(text.find("\"a\":").unwrap() < text.find("\"b\":").unwrap());
    }

    #[test]
    fn a_payload_that_is_not_json_does_not_break_the_document() {
        let step = v1::StepResult { output: payload("{\"a\":"), ..Default::default() };
        let value: serde_json::Value = serde_json::from_str(&message("StepResult", &step)).unwrap();
        assert_eq!(value["output"], "{\"a\":");
    }

    #[test]
    fn a_line_has_no_breaks_even_where_a_payload_has() {
        let step = v1::StepResult { output: payload("{\n\"a\": \"\\n\"}"), ..Default::default() };
        let expected = r#"{"agent":"","output":{ "a": "\n"},"attempts":0}"#;
        assert_eq!(line("StepResult", &step), expected);
    }

    #[test]
    fn bytes_are_base64() {
        let data = |bytes: &[u8]| v1::Payload {
            data: Some(Data::Bytes(bytes.to_vec())),
            media_type: "image/png".into(),
        };
        for (bytes, text) in [(&b""[..], ""), (b"f", "Zg=="), (b"fo", "Zm8="), (b"foo", "Zm9v")] {
            let value: serde_json::Value =
                serde_json::from_str(&message("Payload", &data(bytes))).unwrap();
            assert_eq!(value["bytes"], text);
            assert_eq!(value["mediaType"], "image/png");
        }
    }

    #[test]
    fn durations_have_as_many_digits_as_they_need() {
        assert_eq!(duration(1, 500_000_000), "1.5s");
        assert_eq!(duration(0, 0), "0s");
        assert_eq!(duration(62, 0), "62s");
        assert_eq!(duration(0, 1), "0.000000001s");
        assert_eq!(duration(0, -250_000_000), "-0.25s");
        assert_eq!(duration(10, 120_000_000), "10.12s");
    }
}
