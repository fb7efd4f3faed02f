//! Definitions as files, with the sub-workflows that lie beside them.
//!
//! Nothing here understands the workflow language: names of sub-workflows are found by a scan of
//! the text, and one found too many does no harm.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use contracts::v1::{Complaint, Definition};

use crate::complaint::{Sources, error_at};
use crate::error::Error;

const DEFINITION_BYTES_MAX: usize = 1 << 20;
const SUB_WORKFLOW_DEPTH_MAX: usize = 16;
const SIBLINGS_MAX: usize = 256;
const SIBLINGS_BYTES_MAX: usize = 6 << 20;

/// A definition that was read, and the texts to show complaints with.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// What is sent.
    pub(crate) definition: Definition,
    /// The texts by file name.
    pub(crate) sources: Sources,
}

/// Reads a definition and its siblings.
pub(crate) fn load(path: &Path) -> Result<Loaded, Error> {
    let file = path.display().to_string();
    let yaml = read(path, &file)?;
    let mut sources = Sources::default();
    sources.add(&file, &yaml);
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    let siblings = siblings(&folder, path, &yaml)?;
    for (name, text) in &siblings {
        // A complaint may name a sibling by its file or by the workflow's name.
        let beside = folder.join(format!("{name}.yml"));
        sources.add(&beside.display().to_string(), text);
        sources.add(&format!("{name}.yml"), text);
        sources.add(name, text);
    }
    let siblings = siblings.into_iter().collect();
    Ok(Loaded { definition: Definition { yaml, file, siblings }, sources })
}

/// Whether an argument names a file and not a registered workflow.
pub(crate) fn is_file(argument: &str) -> bool {
    let path = Path::new(argument);
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    path.is_file()
        || path.is_absolute()
        || path.starts_with(".")
        || path.starts_with("..")
        || matches!(ending.to_ascii_lowercase().as_str(), "yml" | "yaml")
}

fn siblings(folder: &Path, main: &Path, yaml: &str) -> Result<BTreeMap<String, String>, Error> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let mut size = 0;
    let mut level = sub_workflows(yaml);
    for _ in 0..SUB_WORKFLOW_DEPTH_MAX {
        let mut next = Vec::new();
        for name in std::mem::take(&mut level) {
            if found.contains_key(&name) {
                continue;
            }
            let Some(path) = beside(folder, &name).filter(|path| path != main) else { continue };
            let text = read(&path, &path.display().to_string())?;
            size += text.len();
            if found.len() >= SIBLINGS_MAX || size > SIBLINGS_BYTES_MAX {
                return Err(Error::request(format!(
                    "the sub-workflows beside `{}` are too many or too large; at most \
                     {SIBLINGS_MAX} files and {} MiB are sent along",
                    main.display(),
                    SIBLINGS_BYTES_MAX >> 20
                ))
                .help("register them with `orchestrator workflows register FILE`"));
            }
            next.extend(sub_workflows(&text));
            found.insert(name, text);
        }
        level = next;
        if level.is_empty() {
            break;
        }
    }
    Ok(found)
}

fn beside(folder: &Path, name: &str) -> Option<PathBuf> {
    let path = folder.join(format!("{name}.yml"));
    path.is_file().then_some(path)
}

/// The names behind `workflow:` in a text, without versions, in order.
fn sub_workflows(yaml: &str) -> Vec<String> {
    let mut names = Vec::new();
    for line in yaml.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let mut rest = line;
        while let Some(at) = rest.find("workflow") {
            let before = rest[..at].trim_end_matches(['"', '\'']).chars().next_back();
            let after = rest[at + "workflow".len()..].trim_start_matches(['"', '\'']);
            rest = &rest[at + "workflow".len()..];
            let is_key = before.is_none_or(|c| c.is_whitespace() || "{,-".contains(c));
            let Some(value) = after.trim_start().strip_prefix(':').filter(|_| is_key) else {
                continue;
            };
            if let Some(name) = name(value)
                && !names.contains(&name)
            {
                names.push(name);
            }
        }
    }
    names
}

/// The name in a scalar; none for what cannot be the name of a file beside.
fn name(value: &str) -> Option<String> {
    let value = value.trim_start();
    let scalar = match value.chars().next()? {
        quote @ ('"' | '\'') => value[1..].split(quote).next()?,
        _ => value.split(" #").next()?.split([',', '}']).next()?,
    };
    let name = scalar.split('@').next()?.trim();
    let is_safe = !name.is_empty()
        && name != ".."
        && !name.contains(['/', '\\', '$', '{', '\0'])
        && !name.chars().any(char::is_control);
    is_safe.then(|| name.to_owned())
}

/// Reads UTF-8 text within the bound; what is wrong is a complaint about the file.
fn read(path: &Path, file: &str) -> Result<String, Error> {
    let cannot = |error: std::io::Error| {
        let error = Error::request(format!("cannot read `{file}`: {error}"));
        error.help("give a workflow file, or the name of a registered workflow")
    };
    let mut bytes = Vec::new();
    let mut opened = std::fs::File::open(path).map_err(cannot)?;
    let limit = DEFINITION_BYTES_MAX as u64 + 1;
    opened.by_ref().take(limit).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() > DEFINITION_BYTES_MAX {
        let size = opened.metadata().map_or(limit, |metadata| metadata.len());
        return Err(complaint(error_at(
            file,
            1,
            1,
            format!("the file has {size} bytes; a definition may have {DEFINITION_BYTES_MAX}"),
        )));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(&error.as_bytes()[..valid]).into_owned();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let byte = error.as_bytes()[valid];
        let message = format!("the byte 0x{byte:02x} is not UTF-8; save the file as UTF-8");
        complaint(error_at(file, line, column, message))
    })
}

fn complaint(complaint: Complaint) -> Error {
    Error::Complaints { complaints: vec![complaint], sources: Sources::default() }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn names_of_sub_workflows_are_found_in_any_form() {
        let yaml = "\
steps:
  - workflow: build@1.2   # comment
  - id: x
    workflow: \"My Deploy\"
  - { workflow: 'test', params: {} }
  - \"workflow\": quoted
  # - workflow: commented
  - my_workflow: other
  - workflow_name: other
  - workflow: ${{ params.x }}
  - workflow: ../escape
  - workflow: build
";
        assert_eq!(sub_workflows(yaml), ["build", "My Deploy", "test", "quoted"]);
    }

    #[test]
    fn siblings_are_read_with_those_they_need() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("main.yml", "steps:\n  - workflow: a\n  - workflow: registered\n");
        write("a.yml", "steps:\n  - workflow: b@2\n  - workflow: main\n");
        write("b.yml", "steps:\n  - workflow: a\n");
        let loaded = load(&folder.path().join("main.yml")).unwrap();
        let mut names: Vec<_> = loaded.definition.siblings.keys().cloned().collect();
        names.sort();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn a_chain_of_siblings_ends_at_its_bound() {
        let folder = tempfile::tempdir().unwrap();
        for index in 0..40 {
            let text = format!("steps:\n  - workflow: w{}\n", index + 1);
            fs::write(folder.path().join(format!("w{index}.yml")), text).unwrap();
        }
        let loaded = load(&folder.path().join("w0.yml")).unwrap();
        assert_eq!(loaded.definition.siblings.len(), SUB_WORKFLOW_DEPTH_MAX);
    }

    #[test]
    fn bytes_that_are_not_utf8_are_a_complaint_with_their_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yml");
        fs::write(&path, b"name: x\nd\xc3\xa4: \xff\n").unwrap();
        let Err(Error::Complaints { complaints, .. }) = load(&path) else {
            panic!("it must be refused");
        };
        assert_eq!((complaints[0].line, complaints[0].column), (2, 5));
        assert!(complaints[0].message.contains("0xff"));
    }

    #[test]
    fn a_file_over_the_bound_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yml");
        fs::write(&path, vec![b'#'; DEFINITION_BYTES_MAX]).unwrap();
        assert!(load(&path).is_ok());
        fs::write(&path, vec![b'#'; DEFINITION_BYTES_MAX + 1]).unwrap();
        assert!(matches!(load(&path), Err(Error::Complaints { .. })));
    }

    #[test]
    fn files_and_names_are_told_apart() {
        assert!(is_file("missing.yml"));
        assert!(is_file("./flows/deploy"));
        assert!(is_file("../deploy"));
        assert!(!is_file("team/deploy"));
        assert!(!is_file("deploy"));
        assert!(!is_file("deploy@1.0"));
    }
}
