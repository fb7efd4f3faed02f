//! Data as YAML that people can read and the workflow language reads back as it was.

use serde_json::Value;

/// The longest text that a comment shows, in characters.
const COMMENT_CHARS_MAX: usize = 160;
/// Lists and objects deeper than this are written on one line.
const BLOCK_DEPTH_MAX: usize = 4;

/// A text as a scalar: plain where that is certain to be text, else in double quotes.
pub(super) fn text(text: &str) -> String {
    if is_plain(text) { text.to_owned() } else { quoted(text) }
}

/// A text in which `${{` means itself.
pub(super) fn literal(text: &str) -> String {
    text.replace("${{", "$${{")
}

/// A text on one line behind a `#`, cut where it is long.
pub(super) fn comment(text: &str) -> String {
    let line: String = text
        .chars()
        .map(|c| if is_printable(c) && !c.is_whitespace() { c } else { ' ' })
        .take(COMMENT_CHARS_MAX + 1)
        .collect();
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() > COMMENT_CHARS_MAX {
        let cut: String = line.chars().take(COMMENT_CHARS_MAX - 1).collect();
        return format!("{cut}…");
    }
    line
}

/// Data below a key, which stands `indent` deep: ` value` on the key's line, or lines below it.
/// Texts in it mean themselves.
pub(super) fn below(value: &Value, indent: usize) -> String {
    let mut out = String::new();
    block(value, indent, 0, &mut out);
    out
}

fn block(value: &Value, indent: usize, depth: usize, out: &mut String) {
    let pad = " ".repeat(indent + 2);
    match value {
        Value::Object(fields) if !fields.is_empty() && depth < BLOCK_DEPTH_MAX => {
            out.push('\n');
            for (name, value) in fields {
                out.push_str(&format!("{pad}{}:", text(&literal(name))));
                block(value, indent + 2, depth + 1, out);
            }
        }
        Value::Array(items) if items.iter().any(|item| item.is_object()) && depth == 0 => {
            out.push('\n');
            for item in items {
                out.push_str(&format!("{pad}- "));
                flow(item, out);
                out.push('\n');
            }
        }
        _ => {
            out.push(' ');
            flow(value, out);
            out.push('\n');
        }
    }
}

/// On one line, as JSON is.
fn flow(value: &Value, out: &mut String) {
    match value {
        Value::String(content) => out.push_str(&quoted(&literal(content))),
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { ", " });
                flow(item, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            out.push('{');
            for (at, (name, value)) in fields.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { ", " });
                out.push_str(&quoted(&literal(name)));
                out.push_str(": ");
                flow(value, out);
            }
            out.push('}');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => out.push_str(&value.to_string()),
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if is_printable(c) => out.push(c),
            c if u32::from(c) <= 0xffff => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    out.push('"');
    out
}

/// Whether a reader of YAML takes it as it stands, and no line ends at it.
fn is_printable(c: char) -> bool {
    let code = u32::from(c);
    let is_line_end = matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}');
    !c.is_control() && !is_line_end && code & 0xfffe != 0xfffe
}

/// Words that begin with a letter and hold nothing that YAML knows are text, but for its own.
fn is_plain(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(is_word)
        && !matches!(text.to_ascii_lowercase().as_str(), "null" | "true" | "false" | "nan")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_mean_something_else_are_quoted() {
        assert_eq!(text("edit_file-2"), "edit_file-2");
        for (found, wanted) in [
            ("true", "\"true\""),
            ("1.0", "\"1.0\""),
            ("a: b", "\"a: b\""),
            ("", "\"\""),
            ("tab\tline\n\u{85}", "\"tab\\tline\\n\\u0085\""),
        ] {
            assert_eq!(text(found), wanted);
        }
    }

    #[test]
    fn comments_stay_on_their_line() {
        assert_eq!(comment("a\n- id: b\u{2028}c"), "a - id: b c");
        assert_eq!(comment(&"x".repeat(500)).chars().count(), COMMENT_CHARS_MAX);
    }
}
