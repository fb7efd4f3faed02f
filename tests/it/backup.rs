//! Backups as an operator takes them: beside a server at work, and into a new folder.

use std::os::unix::fs::PermissionsExt as _;

use crate::support::orchestrator;

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

const FLOW: &str = "
name: saved
version: 1.0.0
steps:
  - {id: a, agent: echo, action: echo, params: {n: 1}}
";

#[test]
fn a_backup_is_made_checked_and_restored_by_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::write(at.join("flow.yml"), FLOW).unwrap();
    // Names of files are told from other words by their dots or by the option before them.
    let run = |arguments: &[&str]| {
        let mut folder_next = false;
        let whole: Vec<String> = arguments
            .iter()
            .map(|word| {
                let is_file = folder_next || word.contains('.');
                folder_next = *word == "--data-dir";
                if is_file { at.join(word).display().to_string() } else { (*word).to_owned() }
            })
            .collect();
        orchestrator(&whole.iter().map(|word| &**word).collect::<Vec<_>>(), at)
    };
    let executed = run(&["workflows", "execute", "flow.yml", "--data-dir", "old"]);
    assert!(executed.status.success(), "{}", text(&executed.stderr));

    let made = run(&["backup", "create", "b.backup", "--data-dir", "old"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    assert!(text(&made.stderr).contains("1 runs"), "{}", text(&made.stderr));
    let mode = std::fs::metadata(at.join("b.backup")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!at.join("b.backup.partial").exists());
    let again = run(&["backup", "create", "b.backup", "--data-dir", "old"]);
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("is there already"), "{}", text(&again.stderr));

    let whole = run(&["backup", "verify", "b.backup"]);
    assert!(whole.status.success(), "{}", text(&whole.stderr));
    let bytes = std::fs::read(at.join("b.backup")).unwrap();
    std::fs::write(at.join("cut.backup"), &bytes[..bytes.len() - 4]).unwrap();
    let cut = run(&["backup", "verify", "cut.backup"]);
    assert_eq!(cut.status.code(), Some(2));
    assert!(text(&cut.stderr).contains("is not whole"), "{}", text(&cut.stderr));

    let restored = run(&["backup", "restore", "b.backup", "--data-dir", "new"]);
    assert!(restored.status.success(), "{}", text(&restored.stderr));
    let twice = run(&["backup", "restore", "b.backup", "--data-dir", "new"]);
    assert_eq!(twice.status.code(), Some(2));
    assert!(text(&twice.stderr).contains("not empty"), "{}", text(&twice.stderr));

    // What was restored is what another backup of it says.
    let second = run(&["backup", "create", "c.backup", "--data-dir", "new"]);
    let rows = |said: &[u8]| text(said).split_once(": ").map(|(_, rows)| rows.to_owned());
    assert_eq!(rows(&made.stderr), rows(&second.stderr));
}

#[test]
fn a_backup_of_nothing_says_so_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let (file, none) = (folder.path().join("b.backup"), folder.path().join("none"));
    let (file, none) = (file.display().to_string(), none.display().to_string());
    let made = orchestrator(&["backup", "create", &file, "--data-dir", &none], folder.path());
    assert_eq!(made.status.code(), Some(2));
    assert!(text(&made.stderr).contains("no backup of"), "{}", text(&made.stderr));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
