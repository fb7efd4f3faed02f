//! The modules that name all resources: one import and one entry for each. Lines are put in and
//! taken out as they are, so that the rest of the text stays byte for byte what it was, in
//! whatever order resources come and go. Nothing here touches the disk.

use agent_sdk::Failure;
use serde::{Deserialize, Serialize};

/// What a resource adds to a registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The registry, relative to the project.
    pub file: String,
    /// The line that imports the resource's routes.
    pub import: String,
    /// How the line begins after which the entries stand.
    pub list_start: String,
    /// The line that closes them.
    pub list_end: String,
    /// The line that adds the routes.
    pub item: String,
}

impl Entry {
    /// The text with both lines, each put in unless it is there.
    pub fn add_to(&self, text: &str) -> Result<String, Failure> {
        let mut lines: Vec<&str> = text.split('\n').collect();
        if !lines.contains(&self.item.as_str()) {
            let start = lines.iter().position(|line| line.starts_with(&self.list_start));
            let end = start.and_then(|start| {
                let length = lines[start..].iter().position(|line| *line == self.list_end)?;
                Some(start + length)
            });
            lines.insert(end.ok_or_else(|| self.unfit())?, &self.item);
        }
        if !lines.contains(&self.import.as_str()) {
            let place = place_for_import(&lines);
            lines.insert(place, &self.import);
        }
        Ok(lines.join("\n"))
    }

    /// The text without both lines.
    pub fn remove_from(&self, text: &str) -> String {
        let is_ours = |line: &&str| *line == self.item || *line == self.import;
        let lines: Vec<&str> = text.split('\n').filter(|line| !is_ours(line)).collect();
        lines.join("\n")
    }

    fn unfit(&self) -> Failure {
        let Self { file, list_start, list_end, .. } = self;
        Failure::permanent(format!(
            "{file} is not as it was scaffolded: a line that begins with `{list_start}` and, \
             further down, a line `{list_end}` are expected"
        ))
        .no_effect()
    }
}

/// Behind the last import, else behind the comment at the top.
fn place_for_import(lines: &[&str]) -> usize {
    let is_import = |line: &&str| line.starts_with("import ") || line.starts_with("from ");
    match lines.iter().rposition(is_import) {
        Some(last) => last + 1,
        None => lines.iter().take_while(|line| line.starts_with("//")).count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "// All.\nimport { A } from \"a\";\n\nexport const routes = [\n];\n";

    fn entry(name: &str) -> Entry {
        Entry {
            file: "index.ts".to_owned(),
            import: format!("import {{ {name} }} from \"./{name}.js\";"),
            list_start: "export const routes".to_owned(),
            list_end: "];".to_owned(),
            item: format!("  ...{name},"),
        }
    }

    #[test]
    fn entries_come_in_order_and_go_in_any() {
        let one = entry("a").add_to(TEXT).unwrap();
        let two = entry("b").add_to(&one).unwrap();
        assert!(two.ends_with(
            "import { a } from \"./a.js\";\nimport { b } from \"./b.js\";\n\n\
             export const routes = [\n  ...a,\n  ...b,\n];\n"
        ));
        assert_eq!(entry("b").remove_from(&entry("a").remove_from(&two)), TEXT);
        assert_eq!(entry("a").remove_from(&entry("b").remove_from(&two)), TEXT);
    }

    #[test]
    fn an_entry_is_added_once() {
        let one = entry("a").add_to(TEXT).unwrap();
        assert_eq!(entry("a").add_to(&one).unwrap(), one);
    }

    #[test]
    fn what_others_wrote_stays() {
        let text = entry("a").add_to(TEXT).unwrap().replace("// All.", "// Mine.");
        assert_eq!(entry("a").remove_from(&text), TEXT.replace("// All.", "// Mine."));
    }

    #[test]
    fn without_its_list_a_registry_is_refused() {
        let failure = entry("a").add_to("export const routes = makeRoutes();\n").unwrap_err();
        assert!(failure.message().contains("index.ts"), "{failure}");
    }

    #[test]
    fn without_imports_the_first_comes_behind_the_comment() {
        let text = entry("a").add_to("// All.\n\nexport const routes = [\n];\n").unwrap();
        assert!(text.starts_with("// All.\nimport { a }"), "{text}");
    }
}
