//! Settings in the lines of a text: `key = value` or `key: value`. Only the values are changed;
//! spaces, comments and the order of lines stay. It knows nothing of files.

/// The value of a setting, without spaces and quotation marks around it.
pub fn get<'text>(text: &'text str, key: &str) -> Option<&'text str> {
    text.lines().find_map(|line| split(line, key)).map(|(_, value)| bare(value))
}

/// The text with a setting at this value; a setting that is not there comes at the end.
pub fn set(text: &str, key: &str, value: &str) -> String {
    let mut changed = String::with_capacity(text.len() + key.len() + value.len() + 2);
    let mut is_set = false;
    for line in text.split_inclusive('\n') {
        let (body, end) = line.strip_suffix('\n').map_or((line, ""), |body| (body, "\n"));
        match split(body, key).filter(|_| !is_set) {
            Some((before, old)) => {
                let quote = quote_of(old);
                changed.extend([before, quote, value, quote, end]);
                is_set = true;
            }
            None => changed.push_str(line),
        }
    }
    if !is_set {
        if !changed.is_empty() && !changed.ends_with('\n') {
            changed.push('\n');
        }
        changed.extend([key, separator(text), value, "\n"]);
    }
    changed
}

/// The text without a setting.
pub fn unset(text: &str, key: &str) -> String {
    text.split_inclusive('\n').filter(|line| split(line, key).is_none()).collect()
}

/// What stands before the value, and the value, when the line is about this key.
fn split<'line>(line: &'line str, key: &str) -> Option<(&'line str, &'line str)> {
    let rest = line.trim_start().strip_prefix(key)?;
    let value = rest.trim_start().strip_prefix(['=', ':'])?.trim_start_matches([' ', '\t']);
    Some((&line[..line.len() - value.len()], value))
}

fn bare(value: &str) -> &str {
    let value = value.trim();
    let quote = quote_of(value);
    value
        .strip_prefix(quote)
        .and_then(|value| value.strip_suffix(quote))
        .filter(|_| value.len() > 1)
        .unwrap_or(value)
}

fn quote_of(value: &str) -> &'static str {
    let value = value.trim_end();
    ["\"", "'"]
        .into_iter()
        .find(|quote| value.len() > 1 && value.starts_with(quote) && value.ends_with(quote))
        .unwrap_or("")
}

/// How the other lines are written.
fn separator(text: &str) -> &'static str {
    let is_setting = |line: &&str| !line.trim_start().starts_with('#');
    for line in text.lines().filter(is_setting) {
        for separator in [" = ", "=", ": "] {
            if line.contains(separator) {
                return separator;
            }
        }
    }
    "="
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# port = 1\nport = 80\n  name: \"shop\"\nempty=\n";

    #[test]
    fn settings_are_read() {
        assert_eq!(get(TEXT, "port"), Some("80"));
        assert_eq!(get(TEXT, "name"), Some("shop"));
        assert_eq!(get(TEXT, "empty"), Some(""));
        assert_eq!(get(TEXT, "por"), None);
    }

    #[test]
    fn only_the_value_changes() {
        assert_eq!(set(TEXT, "port", "8080"), TEXT.replace("= 80", "= 8080"));
        assert_eq!(set(TEXT, "name", "b"), TEXT.replace("shop", "b"));
        assert_eq!(set(TEXT, "new", "1"), format!("{TEXT}new = 1\n"));
        assert_eq!(set("a=1", "b", "2"), "a=1\nb=2\n");
        assert_eq!(set("a=1", "a", "2"), "a=2");
        assert_eq!(set("", "a", "2"), "a=2\n");
        assert_eq!(unset(TEXT, "port"), TEXT.replace("\nport = 80", ""));
    }
}
