//! Fields that a step's params leave out and earlier outputs have. Cut out of the JSON text as
//! they stand, so that no digit is lost.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::task::Json;
use serde_json::value::RawValue;

type Fields<'a> = BTreeMap<std::borrow::Cow<'a, str>, &'a RawValue>;

/// The object of inherited fields as JSON text; `None` when there are none. The nearest output
/// that is an object with the field gives it.
pub(super) fn inherited(
    names: &[String],
    input: &str,
    upstream: &[(Arc<str>, Json)],
) -> Option<String> {
    if names.is_empty() || upstream.is_empty() {
        return None;
    }
    // An input that is no object can leave no field out.
    let given = fields(input)?;
    let mut missing: Vec<&str> = Vec::new();
    for name in names {
        if !given.contains_key(name.as_str()) && !missing.contains(&name.as_str()) {
            missing.push(name);
        }
    }
    let mut found = BTreeMap::new();
    for (_, output) in upstream {
        if missing.is_empty() {
            break;
        }
        let Some(output) = fields(output) else { continue };
        missing.retain(|name| match output.get(*name) {
            Some(value) => {
                found.insert(*name, *value);
                false
            }
            None => true,
        });
    }
    if found.is_empty() {
        return None;
    }
    serde_json::to_string(&found).ok()
}

fn fields(text: &str) -> Option<Fields<'_>> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    serde_json::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(names: &[&str], input: &str, upstream: &[&str], expect: Option<&str>) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let upstream: Vec<(Arc<str>, Json)> =
            upstream.iter().map(|output| ("step".into(), (*output).into())).collect();
        assert_eq!(inherited(&names, input, &upstream).as_deref(), expect);
    }

    #[test]
    fn the_nearest_output_that_has_the_field_gives_it() {
        check(&["a"], "{}", &[r#"{"b":1}"#, r#"{"a":2}"#, r#"{"a":3}"#], Some(r#"{"a":2}"#));
    }

    #[test]
    fn what_the_input_has_is_not_inherited() {
        check(&["a", "b"], r#"{"a":null}"#, &[r#"{"a":2,"b":3}"#], Some(r#"{"b":3}"#));
        check(&["a"], r#"{"a":1}"#, &[r#"{"a":2}"#], None);
    }

    #[test]
    fn digits_and_nested_text_stay_as_they_are() {
        let output = r#"{"a":{"z":1.50000000000000000001,"y":12345678901234567890123}}"#;
        check(&["a"], "{}", &[output], Some(output));
    }

    #[test]
    fn names_with_escapes_are_found() {
        check(&["a\"b"], "{}", &[r#"{"a\"b":"c\u0000"}"#], Some(r#"{"a\"b":"c\u0000"}"#));
    }

    #[test]
    fn what_is_no_object_gives_nothing() {
        check(&["a"], "{}", &["[1]", "null", "not json", "3"], None);
        check(&["a"], "[]", &[r#"{"a":1}"#], None);
        check(&[], "{}", &[r#"{"a":1}"#], None);
    }
}
