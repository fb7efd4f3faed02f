//! The repository's own rules: lengths, edges between crates, where SQL may stand, links.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const FILE_LINES_MAX: usize = 800;
const LINE_CHARS_MAX: usize = 100;

/// Files below a folder with one of these endings, build products left out.
fn files(folder: &str, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(ROOT).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !matches!(&*name, "target" | ".git" | "node_modules" | "templates" | "corpus") {
                    folders.push(path);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(ROOT).unwrap_or(path).display().to_string()
}

fn assert_none(wrong: &[String], rule: &str) {
    assert!(wrong.is_empty(), "{rule}:\n{}", wrong.join("\n"));
}

#[test]
fn files_and_lines_are_short_enough_to_read() {
    let mut wrong = Vec::new();
    for path in files(".", &[".rs"]) {
        let text = fs::read_to_string(&path).unwrap();
        let count = text.lines().count();
        if count > FILE_LINES_MAX {
            wrong.push(format!("{}: {count} lines", shown(&path)));
        }
        for (number, line) in text.lines().enumerate() {
            let has_long_text = line.contains('"') || line.contains("r#");
            if line.chars().count() > LINE_CHARS_MAX && !has_long_text {
                wrong.push(format!("{}:{}: too long", shown(&path), number + 1));
            }
        }
    }
    assert_none(&wrong, "files have 800 lines at most, lines 100 characters");
}

#[test]
fn every_module_says_what_it_is_for() {
    let wrong: Vec<String> = files(".", &[".rs"])
        .iter()
        .filter(|path| {
            let text = fs::read_to_string(path).unwrap();
            !text.trim_start().starts_with("//!")
        })
        .map(|path| shown(path))
        .collect();
    assert_none(&wrong, "a module opens with `//!`");
}

/// The crates of the workspace that each one depends on, development aside.
fn edges() -> BTreeMap<String, Vec<String>> {
    let mut edges = BTreeMap::new();
    let manifests = files(".", &["Cargo.toml"]);
    let texts: Vec<String> =
        manifests.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let name_of = |text: &str| {
        let line = text.lines().find(|line| line.starts_with("name = ")).unwrap().to_owned();
        line.trim_start_matches("name = ").trim_matches('"').to_owned()
    };
    let names: Vec<String> = texts.iter().map(|text| name_of(text)).collect();
    for text in &texts {
        let mut inside = false;
        let mut on = Vec::new();
        for line in text.lines() {
            if line.starts_with('[') {
                inside = line == "[dependencies]";
            } else if inside
                && let Some((name, _)) = line.split_once([' ', '.', '='])
                && names.iter().any(|other| other == name)
            {
                on.push(name.to_owned());
            }
        }
        edges.insert(name_of(text), on);
    }
    edges
}

#[test]
fn crates_depend_on_one_another_only_as_the_architecture_allows() {
    let mut wrong = Vec::new();
    for (name, on) in edges() {
        let allowed: Vec<&str> = match name.as_str() {
            "contracts" | "engine" | "project-files" | "triage" => vec![],
            "store" => vec!["engine"],
            "control-plane" => vec!["contracts", "engine", "store", "agent-sdk", "triage"],
            // The client for programs is the SDK's; the command line is one of them.
            "cli" => vec!["contracts", "agent-sdk"],
            "agent-sdk" => vec!["contracts"],
            "orchestrator" => continue,
            "bench" => vec!["contracts", "engine", "store", "control-plane", "agent-sdk"],
            agent if agent.ends_with("-agent") => vec!["agent-sdk", "project-files"],
            fuzz if fuzz.ends_with("fuzz") => continue,
            other => panic!("crate `{other}` is not in the table of edges"),
        };
        for other in on {
            if !allowed.contains(&other.as_str()) {
                wrong.push(format!("{name} -> {other}"));
            }
        }
    }
    assert_none(&wrong, "edges that docs/ARCHITECTURE.md does not allow");
}

#[test]
fn the_engine_knows_no_world() {
    let manifest = Path::new(ROOT).join("control-plane/engine/Cargo.toml");
    let text = fs::read_to_string(manifest).unwrap();
    let dependencies = text.split("[dev-dependencies]").next().unwrap();
    for banned in ["tokio", "tonic", "sqlx", "rand", "tracing", "reqwest"] {
        let found =
            dependencies.lines().any(|line| line.split([' ', '=', '.']).next() == Some(banned));
        assert!(!found, "the engine must not depend on {banned}");
    }
}

#[test]
fn sql_stands_in_the_store_alone() {
    let statements = ["SELECT ", "INSERT INTO ", "DELETE FROM ", "CREATE TABLE "];
    let wrong: Vec<String> = files(".", &[".rs"])
        .iter()
        .filter(|path| {
            let shown = shown(path);
            // The remediator works on other people's databases.
            let elsewhere = ["control-plane/store", "tests/", "agents/remediator/"];
            !elsewhere.iter().any(|folder| shown.starts_with(folder))
        })
        .filter(|path| {
            let text = fs::read_to_string(path).unwrap();
            statements.iter().any(|statement| text.contains(&format!("\"{statement}")))
        })
        .map(|path| shown(path))
        .collect();
    assert_none(&wrong, "SQL of our own stands in control-plane/store alone");
}

#[test]
fn both_stores_have_the_same_migrations() {
    let names = |store: &str| -> Vec<String> {
        let folder = format!("control-plane/store/migrations/{store}");
        files(&folder, &[".sql"])
            .iter()
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect()
    };
    assert!(!names("sqlite").is_empty());
    assert_eq!(names("sqlite"), names("postgres"));
}

#[test]
fn links_in_the_documents_lead_somewhere() {
    let mut wrong = Vec::new();
    for path in files(".", &[".md"]) {
        let text = fs::read_to_string(&path).unwrap();
        for part in text.split("](").skip(1) {
            let Some(target) = part.split(')').next() else { continue };
            let target = target.split('#').next().unwrap_or_default();
            let elsewhere = target.contains("://") || target.starts_with("mailto:");
            if target.is_empty() || elsewhere || target.contains(' ') {
                continue;
            }
            if !path.parent().unwrap().join(target).exists() {
                wrong.push(format!("{}: {target}", shown(&path)));
            }
        }
    }
    assert_none(&wrong, "links to files that are not there");
}

#[test]
fn every_method_for_people_has_a_verb_on_the_command_line() {
    let text: String = files("control-plane/cli/src", &[".rs"])
        .iter()
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let mut wrong = Vec::new();
    for path in files("proto/orchestrator", &[".proto"]) {
        let proto = fs::read_to_string(path).unwrap();
        for line in proto.lines().filter(|line| line.trim_start().starts_with("rpc ")) {
            let name = line.trim_start().trim_start_matches("rpc ").split('(').next().unwrap();
            let agents = ["Connect", "PollTasks", "ReportTask"];
            let replicas = ["Lend", "Pass", "TakeOver", "Follow", "Look"];
            if agents.contains(&name) || replicas.contains(&name) {
                continue;
            }
            let mut method = String::new();
            for letter in name.chars() {
                if letter.is_uppercase() && !method.is_empty() {
                    method.push('_');
                }
                method.extend(letter.to_lowercase());
            }
            if !text.contains(&format!("{method}(")) {
                wrong.push(name.to_owned());
            }
        }
    }
    assert_none(&wrong, "methods that the command line cannot call");
}

#[test]
fn reasons_have_a_section_in_the_documents() {
    let proto = Path::new(ROOT).join("proto/orchestrator/v1/error.proto");
    let proto = fs::read_to_string(proto).unwrap();
    let errors = fs::read_to_string(Path::new(ROOT).join("docs/errors.md")).unwrap();
    let wrong: Vec<String> = proto
        .lines()
        .filter_map(|line| line.trim().strip_prefix("REASON_"))
        .filter_map(|line| line.split(' ').next())
        .filter(|name| *name != "UNSPECIFIED" && !errors.contains(name))
        .map(ToOwned::to_owned)
        .collect();
    assert_none(&wrong, "reasons without a section in docs/errors.md");
}
