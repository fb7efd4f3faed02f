//! Lines on real files, with processes that die between any two steps.

use std::collections::BTreeSet;
use std::process::Command;
use std::{env, thread};

use super::*;

const APPEND_STEPS: [Step; 4] = [Step::Settled, Step::AppendMarked, Step::Written, Step::Synced];
const REMOVE_STEPS: [Step; 4] = [Step::Settled, Step::RemoveMarked, Step::Prepared, Step::Replaced];

struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("lines.txt")
    }

    /// The lines as another process would see them.
    fn lines(&self) -> Lines {
        lines(&self.path())
    }

    /// The same, but the process ends after this step.
    fn ends_after(&self, step: Step) -> Lines {
        let after = move |at| match at == step {
            true => Err(io::Error::other("killed")),
            false => Ok(()),
        };
        Lines { after: Box::new(after), ..self.lines() }
    }

    fn content(&self) -> String {
        fs::read_to_string(self.path()).unwrap_or_default()
    }
}

fn lines(path: &Path) -> Lines {
    Lines::new(path, EffectLog::open(log_path(path)).unwrap())
}

#[test]
fn a_line_is_written_once_for_its_key() {
    let scene = Scene::new();
    assert!(scene.lines().append("a", "one").unwrap());
    assert!(scene.lines().append("a", "one").unwrap());
    assert!(scene.lines().append("b", "one").unwrap());
    assert_eq!(scene.content(), "one\none\n");
}

#[test]
fn an_append_that_ends_at_any_step_is_made_whole_by_the_next_attempt() {
    for step in APPEND_STEPS {
        let scene = Scene::new();
        scene.lines().append("before", "zero").unwrap();
        scene.ends_after(step).append("a", "one").unwrap_err();
        scene.lines().append("a", "one").unwrap();
        assert_eq!(scene.content(), "zero\none\n", "{step:?}");
    }
}

#[test]
fn an_append_that_ends_at_any_step_is_settled_by_whoever_comes_next() {
    for step in APPEND_STEPS {
        let scene = Scene::new();
        scene.ends_after(step).append("a", "one").unwrap_err();
        scene.lines().append("other", "two").unwrap();
        scene.lines().append("a", "one").unwrap();
        let expect = match step {
            Step::Settled | Step::AppendMarked => "two\none\n",
            _ => "one\ntwo\n",
        };
        assert_eq!(scene.content(), expect, "{step:?}");
    }
}

#[test]
fn an_append_that_ends_at_any_step_is_undone_whole() {
    for step in APPEND_STEPS {
        let scene = Scene::new();
        scene.lines().append("before", "zero").unwrap();
        scene.ends_after(step).append("a", "one").unwrap_err();
        let there = !matches!(step, Step::Settled | Step::AppendMarked);
        assert_eq!(scene.lines().remove("a").unwrap(), there, "{step:?}");
        assert!(!scene.lines().append("a", "one").unwrap(), "a late do is refused");
        assert_eq!(scene.content(), "zero\n", "{step:?}");
    }
}

#[test]
fn a_line_that_was_written_in_part_is_written_anew() {
    let line = "a line";
    for bytes in 0..=line.len() + 1 {
        let scene = Scene::new();
        scene.lines().append("before", "zero").unwrap();
        scene.ends_after(Step::AppendMarked).append("a", line).unwrap_err();
        let mut file = OpenOptions::new().append(true).open(scene.path()).unwrap();
        file.write_all(&format!("{line}\n").as_bytes()[..bytes]).unwrap();
        scene.lines().append("a", line).unwrap();
        scene.lines().append("b", "end").unwrap();
        assert_eq!(scene.content(), "zero\na line\nend\n", "{bytes} bytes");
    }
}

#[test]
fn a_removal_that_ends_at_any_step_is_finished_by_whoever_comes_next() {
    for step in REMOVE_STEPS {
        for by_append in [false, true] {
            let scene = Scene::new();
            for (key, line) in [("a", "same"), ("b", "other"), ("c", "same")] {
                scene.lines().append(key, line).unwrap();
            }
            scene.ends_after(step).remove("a").unwrap_err();
            if by_append {
                scene.lines().append("d", "end").unwrap();
            }
            scene.lines().remove("a").unwrap();
            let end = if by_append { "end\n" } else { "" };
            assert_eq!(scene.content(), format!("other\nsame\n{end}"), "{step:?}");
            assert!(!scene.lines().remove("a").unwrap(), "a second undo changes nothing");
        }
    }
}

#[test]
fn of_equal_lines_the_one_of_the_key_is_removed() {
    let scene = Scene::new();
    for (key, line) in [("a", "x"), ("b", "1"), ("c", "x"), ("d", "2"), ("e", "x")] {
        scene.lines().append(key, line).unwrap();
    }
    assert!(scene.lines().remove("c").unwrap());
    assert_eq!(scene.content(), "x\n1\n2\nx\n");
    assert!(scene.lines().remove("a").unwrap());
    assert_eq!(scene.content(), "1\n2\nx\n");
    assert!(scene.lines().remove("e").unwrap());
    assert_eq!(scene.content(), "1\n2\n");
}

#[test]
fn an_undo_before_the_do_refuses_the_do() {
    let scene = Scene::new();
    assert!(!scene.lines().remove("a").unwrap());
    assert!(!scene.lines().append("a", "one").unwrap());
    assert_eq!(scene.content(), "");
}

#[test]
fn lines_of_others_stay() {
    let scene = Scene::new();
    fs::write(scene.path(), "foreign\n").unwrap();
    scene.lines().append("a", "foreign").unwrap();
    scene.lines().append("b", "mine").unwrap();
    scene.lines().remove("b").unwrap();
    scene.lines().remove("a").unwrap();
    assert_eq!(scene.content(), "foreign\n");
}

#[test]
fn a_foreign_line_between_intent_and_line_does_not_hide_it() {
    let scene = Scene::new();
    scene.ends_after(Step::AppendMarked).append("a", "mine").unwrap_err();
    fs::write(scene.path(), "foreign\nmine\n").unwrap();
    scene.lines().append("a", "mine").unwrap();
    assert_eq!(scene.content(), "foreign\nmine\n");
}

#[test]
fn a_file_that_is_gone_has_no_line_to_remove() {
    let scene = Scene::new();
    scene.lines().append("a", "one").unwrap();
    fs::remove_file(scene.path()).unwrap();
    assert!(!scene.lines().remove("a").unwrap());
    assert!(!scene.lines().append("a", "one").unwrap());
}

#[test]
fn threads_with_one_log_and_with_logs_of_their_own_do_not_meet() {
    let scene = Scene::new();
    let shared = EffectLog::open(log_path(&scene.path())).unwrap();
    thread::scope(|scope| {
        for number in 0..50 {
            let path = scene.path();
            let log = shared.clone();
            scope.spawn(move || {
                let lines = if number % 2 == 0 { Lines::new(&path, log) } else { lines(&path) };
                let key = format!("key-{}", number / 2);
                lines.append(&key, &format!("line {}", number / 2)).unwrap();
            });
        }
    });
    let content = scene.content();
    let distinct: BTreeSet<&str> = content.lines().collect();
    assert_eq!((content.lines().count(), distinct.len()), (25, 25));
}

const CHILD_FILE: &str = "ECHO_AGENT_TEST_FILE";
const CHILD_STEP: &str = "ECHO_AGENT_TEST_STEP";

/// Not a test of its own: what the processes of the tests below do.
#[test]
fn child() {
    let Ok(path) = env::var(CHILD_FILE) else { return };
    let step = env::var(CHILD_STEP).unwrap_or_default();
    // No destructor runs, as with a kill.
    let after = move |at| match format!("{at:?}") == step {
        true => std::process::abort(),
        false => Ok(()),
    };
    let lines = Lines { after: Box::new(after), ..lines(Path::new(&path)) };
    for number in 0..20 {
        lines.append(&format!("key-{number}"), &format!("line {number}")).unwrap();
    }
}

fn child_process(path: &Path, step: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "append::lines::tests::child"]);
    command.env(CHILD_FILE, path).env(CHILD_STEP, step);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    command
}

#[test]
fn processes_do_not_meet() {
    let scene = Scene::new();
    let children: Vec<_> =
        (0..4).map(|_| child_process(&scene.path(), "").spawn().unwrap()).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let content = scene.content();
    let distinct: BTreeSet<&str> = content.lines().collect();
    assert_eq!((content.lines().count(), distinct.len()), (20, 20));
}

#[test]
fn a_process_that_dies_at_any_step_leaves_its_lock_and_no_line_twice() {
    for step in APPEND_STEPS {
        let scene = Scene::new();
        let name = format!("{step:?}");
        // Each one dies at its first line, and the next goes on from there.
        for _ in 0..3 {
            assert!(!child_process(&scene.path(), &name).status().unwrap().success());
        }
        assert!(child_process(&scene.path(), "").status().unwrap().success());
        let expect: String = (0..20).map(|number| format!("line {number}\n")).collect();
        assert_eq!(scene.content(), expect, "{name}");
    }
}
