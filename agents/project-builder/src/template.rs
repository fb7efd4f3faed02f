//! The templates: which files a project has, and how they come from one definition. Nothing
//! here touches the disk.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What stands for the project's name in a template.
const NAME: &str = "{{name}}";
/// What encloses types in a template's TypeScript.
const TYPE_BEGIN: char = '⟦';
const TYPE_END: char = '⟧';

/// Which kind of project.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Template {
    /// An HTTP API in TypeScript, on Node's standard library.
    TypescriptApi,
    /// An HTTP service in Python, on its standard library.
    PythonService,
    /// A command-line program in Rust, on its standard library.
    RustCli,
}

/// A file of a project; `path` is relative to the project, with `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderedFile {
    /// Where it is.
    pub path: String,
    /// What it says.
    pub text: String,
}

impl Template {
    /// Every template.
    pub const ALL: [Self; 3] = [Self::TypescriptApi, Self::PythonService, Self::RustCli];

    /// The files of a project of this name, sorted by path.
    pub fn render(self, name: &str) -> Vec<RenderedFile> {
        let mut files: Vec<_> = match self {
            Self::TypescriptApi => {
                let typed = TYPESCRIPT.iter().flat_map(|(module, text)| modules(module, text));
                typed.chain(TYPESCRIPT_PLAIN.iter().map(plain)).collect()
            }
            Self::PythonService => PYTHON.iter().map(plain).collect(),
            Self::RustCli => RUST.iter().map(plain).collect(),
        };
        for file in &mut files {
            file.text = file.text.replace(NAME, name);
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files
    }

    /// How the project is started, from its own folder.
    pub fn start(self) -> Vec<String> {
        let words: &[&str] = match self {
            Self::TypescriptApi => &["node", "dist/server.js"],
            Self::PythonService => &["python3", "-B", "-m", "app"],
            Self::RustCli => &["cargo", "run", "--quiet", "--offline", "--", "--version"],
        };
        words.iter().map(ToString::to_string).collect()
    }

    /// The file in which the program begins.
    pub fn entry(self) -> &'static str {
        match self {
            Self::TypescriptApi => "src/server.ts",
            Self::PythonService => "app/__main__.py",
            Self::RustCli => "src/main.rs",
        }
    }

    /// Where a running service says that it is up; `None` for what is no service.
    pub fn health_path(self) -> Option<&'static str> {
        (self != Self::RustCli).then_some("/health")
    }
}

fn plain((path, text): &(&str, &str)) -> RenderedFile {
    RenderedFile { path: (*path).to_owned(), text: (*text).to_owned() }
}

/// A TypeScript module and the JavaScript that it compiles to.
fn modules(module: &str, text: &str) -> [RenderedFile; 2] {
    [
        RenderedFile { path: format!("src/{module}.ts"), text: keep_types(text) },
        RenderedFile { path: format!("dist/{module}.js"), text: erase_types(text) },
    ]
}

/// The text with its types, without their brackets.
pub fn keep_types(text: &str) -> String {
    text.replace([TYPE_BEGIN, TYPE_END], "")
}

/// The text without what the brackets enclose. A line of which nothing remains goes too, and
/// so does a second blank line in a row.
pub fn erase_types(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(TYPE_BEGIN) {
        kept.push_str(before);
        rest = after.split_once(TYPE_END).map_or("", |(_, after)| after);
        let is_whole_line = kept.is_empty() || kept.ends_with('\n');
        if !is_whole_line {
            continue;
        }
        rest = rest.strip_prefix('\n').unwrap_or(rest);
        if kept.is_empty() || kept.ends_with("\n\n") {
            rest = rest.trim_start_matches('\n');
        }
    }
    kept.push_str(rest);
    kept
}

macro_rules! files {
    ($folder:literal, $($path:literal = $file:literal),+ $(,)?) => {
        &[$(($path, include_str!(concat!("../templates/", $folder, "/", $file)))),+]
    };
}

const TYPESCRIPT: &[(&str, &str)] = files![
    "typescript-api",
    "server" = "src/server.ts.in",
    "app" = "src/app.ts.in",
    "http" = "src/http.ts.in",
    "collection" = "src/collection.ts.in",
    "routes/index" = "src/routes/index.ts.in",
    "app.test" = "src/app.test.ts.in",
];

const TYPESCRIPT_PLAIN: &[(&str, &str)] = files![
    "typescript-api",
    "README.md" = "README.md",
    "package.json" = "package.json",
    "tsconfig.json" = "tsconfig.json",
    "openapi.json" = "openapi.json",
    "orchestrator.project.json" = "orchestrator.project.json",
    ".gitignore" = "gitignore",
];

const PYTHON: &[(&str, &str)] = files![
    "python-service",
    "README.md" = "README.md",
    "pyproject.toml" = "pyproject.toml",
    "openapi.json" = "openapi.json",
    "orchestrator.project.json" = "orchestrator.project.json",
    ".gitignore" = "gitignore",
    "app/__init__.py" = "app/__init__.py",
    "app/__main__.py" = "app/__main__.py",
    "app/server.py" = "app/server.py",
    "app/routing.py" = "app/routing.py",
    "app/collection.py" = "app/collection.py",
    "app/routes/__init__.py" = "app/routes/__init__.py",
    "tests/__init__.py" = "tests/__init__.py",
    "tests/test_server.py" = "tests/test_server.py",
];

const RUST: &[(&str, &str)] = files![
    "rust-cli",
    "README.md" = "README.md",
    "Cargo.toml" = "Cargo.toml.in",
    "Cargo.lock" = "Cargo.lock.in",
    "orchestrator.project.json" = "orchestrator.project.json",
    ".gitignore" = "gitignore",
    "src/main.rs" = "src/main.rs.in",
    "src/arguments.rs" = "src/arguments.rs.in",
    "src/count.rs" = "src/count.rs.in",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_kept_or_erased_and_nothing_else() {
        let text =
            "⟦import type { A } from \"a\";\n⟧\nlet a⟦: A⟧ = 1;\n\n⟦type B = A;\n⟧\nend();\n";
        let typed = "import type { A } from \"a\";\n\nlet a: A = 1;\n\ntype B = A;\n\nend();\n";
        assert_eq!(keep_types(text), typed);
        assert_eq!(erase_types(text), "let a = 1;\n\nend();\n");
    }

    #[test]
    fn brackets_are_balanced_and_none_is_left() {
        for (module, text) in TYPESCRIPT {
            let mut depth = 0;
            for sign in text.chars() {
                depth += i32::from(sign == TYPE_BEGIN) - i32::from(sign == TYPE_END);
                assert!((0..=1).contains(&depth), "{module}");
            }
            assert_eq!(depth, 0, "{module}");
        }
    }

    #[test]
    fn files_are_well_formed() {
        for template in Template::ALL {
            for file in template.render("a-name") {
                let RenderedFile { path, text } = &file;
                assert!(text.ends_with('\n') && !text.ends_with("\n\n"), "{path}");
                assert!(!text.contains(NAME), "{path}");
                assert!(!text.contains("\n\n\n\n") && !text.contains(" \n"), "{path}");
                assert!(text.lines().all(|line| line.chars().count() <= 100), "{path}");
                assert!(!text.contains([TYPE_BEGIN, TYPE_END]), "{path}");
            }
        }
    }

    #[test]
    fn the_project_file_says_what_the_template_says() {
        for template in Template::ALL {
            let files = template.render("a-name");
            let file = files.iter().find(|file| file.path == "orchestrator.project.json").unwrap();
            let project: serde_json::Value = serde_json::from_str(&file.text).unwrap();
            assert_eq!(project["name"], "a-name");
            assert_eq!(project["template"], serde_json::to_value(template).unwrap());
            assert_eq!(project["start"], serde_json::to_value(template.start()).unwrap());
            assert_eq!(project["health_path"].as_str(), template.health_path());
            assert!(files.iter().any(|file| file.path == template.entry()));
        }
    }

    #[test]
    fn texts_that_are_json_stay_json() {
        for template in Template::ALL {
            for file in template.render("a-name") {
                if file.path.ends_with(".json") {
                    serde_json::from_str::<serde_json::Value>(&file.text).unwrap();
                }
            }
        }
    }
}
