//! Once per key, never over what is there, undone as it was done.

use std::fs;
use std::path::{Path, PathBuf};

use project_builder_agent::error::Error;
use project_builder_agent::removal::Removed;
use project_builder_agent::scaffold::{Builder, Project, STAMP, Scaffold};
use project_builder_agent::template::Template;
use project_builder_agent::workspace::Workspace;
use tempfile::TempDir;

struct World {
    folder: TempDir,
    workspace: Workspace,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::at(folder.path().canonicalize().unwrap());
        Self { folder, workspace }
    }

    fn scaffold(&self, key: &str, wish: &Scaffold) -> Result<Project, Error> {
        Builder::new(&self.workspace).unwrap().scaffold(key, "run-1", wish)
    }

    fn remove(&self, key: &str) -> Result<Removed, Error> {
        Builder::new(&self.workspace).unwrap().remove(key, false)
    }

    fn record(&self) -> PathBuf {
        let folder = self.folder.path().join(".orchestrator/project-builder");
        let mut records = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        records.find(|path| path.extension().is_some_and(|kind| kind == "json")).unwrap()
    }

    /// Puts a record into the state in which a crash would have left it.
    fn set_state(&self, state: &str) {
        let path = self.record();
        let mut record: serde_json::Value =
            serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        record["state"] = state.into();
        fs::write(path, record.to_string()).unwrap();
    }
}

fn wish(name: &str) -> Scaffold {
    Scaffold { template: Template::PythonService, name: name.to_owned(), directory: None }
}

/// Every file and folder below, with contents.
fn snapshot(folder: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            found.push((path, None));
        } else {
            let bytes = fs::read(&path).unwrap();
            found.push((path, Some(bytes)));
        }
    }
    found.sort();
    found
}

#[test]
fn a_repeated_do_changes_nothing_and_answers_the_same() {
    let world = World::new();
    let first = world.scaffold("key", &wish("a")).unwrap();
    assert_eq!(first.files.len(), 13);
    fs::write(Path::new(&first.project_dir).join("README.md"), "mine").unwrap();
    let before = snapshot(Path::new(&first.project_dir));
    assert_eq!(world.scaffold("key", &wish("a")).unwrap(), first);
    assert_eq!(snapshot(Path::new(&first.project_dir)), before);
}

#[test]
fn runs_make_projects_of_their_own() {
    let world = World::new();
    let builder = Builder::new(&world.workspace).unwrap();
    let first = builder.scaffold("1", "run-1", &wish("a")).unwrap();
    let second = builder.scaffold("2", "run-2", &wish("a")).unwrap();
    assert_ne!(first.project_dir, second.project_dir);
}

#[test]
fn what_is_there_is_never_written_over() {
    let world = World::new();
    let folder = world.folder.path().join("projects");
    fs::create_dir_all(folder.join("a")).unwrap();
    fs::write(folder.join("a/mine"), "mine").unwrap();
    fs::write(folder.join("b"), "mine").unwrap();
    let before = snapshot(&folder);
    for name in ["a", "b"] {
        let directory = Some(folder.display().to_string());
        let error = world.scaffold(name, &Scaffold { directory, ..wish(name) }).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Permanent(_)) && text.contains("there already"), "{text}");
    }
    assert_eq!(snapshot(&folder), before);
    world.remove("a").unwrap();
    assert_eq!(snapshot(&folder), before);
}

#[test]
fn another_key_does_not_get_the_same_place() {
    let world = World::new();
    world.scaffold("1", &wish("a")).unwrap();
    assert!(matches!(world.scaffold("2", &wish("a")), Err(Error::Permanent(_))));
}

#[test]
fn an_undo_removes_all_and_a_second_one_changes_nothing() {
    let world = World::new();
    let project = world.scaffold("key", &wish("a")).unwrap();
    let removed = world.remove("key").unwrap();
    assert!(removed.removed && removed.kept.is_empty());
    assert!(!Path::new(&project.project_dir).exists());
    assert_eq!(world.remove("key").unwrap(), removed);
}

#[test]
fn an_empty_folder_that_was_there_is_there_after_the_undo() {
    let world = World::new();
    let place = world.folder.path().join("projects/a");
    fs::create_dir_all(&place).unwrap();
    let directory = Some(place.parent().unwrap().display().to_string());
    world.scaffold("key", &Scaffold { directory, ..wish("a") }).unwrap();
    world.remove("key").unwrap();
    assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
}

#[test]
fn an_undo_keeps_what_somebody_changed_or_added() {
    let world = World::new();
    let project = world.scaffold("key", &wish("a")).unwrap();
    let folder = Path::new(&project.project_dir);
    fs::write(folder.join("app/server.py"), "changed").unwrap();
    fs::write(folder.join("notes"), "added").unwrap();
    let removed = world.remove("key").unwrap();
    assert_eq!((removed.removed, removed.kept), (false, vec!["app/server.py".to_owned()]));
    let left: Vec<_> =
        snapshot(folder).into_iter().filter_map(|(path, text)| text.map(|_| path)).collect();
    assert_eq!(left, [folder.join("app/server.py"), folder.join("notes")]);
}

#[test]
fn an_undo_does_not_follow_links_out_of_the_project() {
    let world = World::new();
    let project = world.scaffold("key", &wish("a")).unwrap();
    let folder = Path::new(&project.project_dir);
    let outside = world.folder.path().join("outside");
    fs::rename(folder.join("app"), &outside).unwrap();
    std::os::unix::fs::symlink(&outside, folder.join("app")).unwrap();
    let before = snapshot(&outside);
    let removed = world.remove("key").unwrap();
    assert!(removed.kept.contains(&"app/server.py".to_owned()));
    assert_eq!(snapshot(&outside), before);
}

#[test]
fn an_undo_before_the_do_leaves_a_mark() {
    let world = World::new();
    assert_eq!(world.remove("key").unwrap(), Removed::default());
    let error = world.scaffold("key", &wish("a")).unwrap_err();
    assert!(matches!(&error, Error::Undone), "{error}");
    assert!(!world.folder.path().join("run-1").exists());
}

#[test]
fn a_late_do_after_the_undo_is_refused() {
    let world = World::new();
    world.scaffold("key", &wish("a")).unwrap();
    world.remove("key").unwrap();
    assert!(matches!(world.scaffold("key", &wish("a")), Err(Error::Undone)));
}

#[test]
fn a_do_broken_off_before_the_move_is_done_again() {
    let world = World::new();
    let project = world.scaffold("key", &wish("a")).unwrap();
    let folder = Path::new(&project.project_dir);
    let whole = snapshot(folder);
    world.set_state("planned");
    fs::remove_dir_all(folder).unwrap();
    assert_eq!(world.scaffold("key", &wish("a")).unwrap(), project);
    assert_eq!(snapshot(folder), whole);
}

#[test]
fn a_do_broken_off_after_the_move_knows_its_own_work() {
    let world = World::new();
    let project = world.scaffold("key", &wish("a")).unwrap();
    world.set_state("planned");
    assert_eq!(world.scaffold("key", &wish("a")).unwrap(), project);
    world.set_state("planned");
    assert!(world.remove("key").unwrap().removed);
}

#[test]
fn an_undo_broken_off_goes_on() {
    let world = World::new();
    let project = world.scaffold("key", &wish("a")).unwrap();
    let folder = Path::new(&project.project_dir);
    world.set_state("removing");
    fs::remove_file(folder.join("README.md")).unwrap();
    fs::remove_file(folder.join(STAMP)).unwrap();
    assert!(world.remove("key").unwrap().removed);
    assert!(!folder.exists());
}

#[test]
fn an_undo_broken_off_spares_who_took_the_place() {
    let world = World::new();
    let project = world.scaffold("1", &wish("a")).unwrap();
    world.set_state("removing");
    fs::remove_dir_all(&project.project_dir).unwrap();
    world.scaffold("2", &wish("a")).unwrap();
    assert!(!world.remove("1").unwrap().removed);
    assert!(Path::new(&project.project_dir).join(STAMP).exists());
}

#[test]
fn an_undo_without_the_record_of_what_was_done_does_not_claim_success() {
    let world = World::new();
    let error = Builder::new(&world.workspace).unwrap().remove("key", true).unwrap_err();
    assert!(error.to_string().contains("ORCHESTRATOR_WORKSPACE"), "{error}");
}

#[test]
fn of_many_at_once_under_one_name_one_wins() {
    let world = World::new();
    let made: Vec<bool> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8)
            .map(|number| {
                let world = &world;
                scope.spawn(move || world.scaffold(&format!("key-{number}"), &wish("a")).is_ok())
            })
            .collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    assert_eq!(made.iter().filter(|made| **made).count(), 1);
}

#[test]
fn a_relative_workspace_is_refused() {
    let error = Builder::new(&Workspace::at("here")).unwrap_err();
    assert!(error.to_string().contains("absolute"), "{error}");
}

#[test]
fn after_a_refusal_the_step_may_ask_for_something_else() {
    let world = World::new();
    let folder = world.folder.path().join("run-1/a");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("mine"), "mine").unwrap();
    world.scaffold("key", &wish("a")).unwrap_err();
    let project = world.scaffold("key", &wish("b")).unwrap();
    assert!(project.project_dir.ends_with("/b"), "{project:?}");
}
