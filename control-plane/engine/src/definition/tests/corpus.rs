//! The corpus: valid definitions and the examples compile; each wrong one brings exactly the
//! complaints written beside it (`UPDATE_EXPECTED=1` writes them anew, to be read before they are
//! kept).

use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::definition::Severity;

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yml"))
        .collect();
    files.sort();
    assert!(files.len() >= 3, "{} has too few files", folder.display());
    files
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

#[test]
fn the_examples_compile_without_a_word() {
    for path in files(&root().join("examples")) {
        let name = name(&path);
        match compile(&name, &fs::read(&path).unwrap()) {
            Ok((_, warnings)) => assert!(warnings.is_empty(), "{}", shown(&warnings)),
            Err(complaints) => panic!("{}", shown(&complaints)),
        }
    }
}

#[test]
fn the_valid_definitions_compile_and_warn_where_they_should() {
    for path in files(&root().join("tests/corpus/definitions/valid")) {
        let name = name(&path);
        match compile(&name, &fs::read(&path).unwrap()) {
            Ok((_, warnings)) => expect(&path, &warnings),
            Err(complaints) => panic!("{}", shown(&complaints)),
        }
    }
}

#[test]
fn the_wrong_definitions_bring_their_complaints() {
    for path in files(&root().join("tests/corpus/definitions/wrong")) {
        let name = name(&path);
        match compile(&name, &fs::read(&path).unwrap()) {
            Ok(_) => panic!("{name} compiles"),
            Err(complaints) => {
                assert!(complaints.iter().all(|c| c.severity == Severity::Error), "{name}");
                assert!(complaints.is_sorted_by_key(|c| (c.line, c.column)), "{name}");
                expect(&path, &complaints);
            }
        }
    }
}

/// Compares with the file beside; one without complaints has none.
fn expect(path: &Path, complaints: &[Complaint]) {
    let expected_path = path.with_extension("complaints");
    let mut found = String::new();
    for complaint in complaints {
        found.push_str(&format!("{complaint}\n"));
        if !complaint.suggestion.is_empty() {
            found.push_str(&format!("  suggestion: {}\n", complaint.suggestion));
        }
    }
    if std::env::var_os("UPDATE_EXPECTED").is_some() && !found.is_empty() {
        fs::write(&expected_path, &found).unwrap();
    }
    let expected = if expected_path.exists() {
        fs::read_to_string(&expected_path).unwrap()
    } else {
        String::new()
    };
    assert_eq!(found, expected, "{}", path.display());
}
