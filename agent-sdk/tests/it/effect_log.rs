//! Effects that happen once and can be undone.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use agent_sdk::effect_log::{EffectLog, Keep, Mark, UNDONE_CODE};
use agent_sdk::{Failure, Kind};

struct Scene {
    folder: tempfile::TempDir,
    log: EffectLog,
    effects: Arc<AtomicU32>,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = EffectLog::open(folder.path().join("sub/effects")).unwrap();
        Self { folder, log, effects: Arc::default() }
    }

    /// The log as another process would see it.
    fn again(&self) -> EffectLog {
        EffectLog::open(self.log.path()).unwrap()
    }

    async fn act(&self, log: &EffectLog, key: &str) -> Result<u32, Failure> {
        let effects = Arc::clone(&self.effects);
        log.once(key, |_| async move { Ok(effects.fetch_add(1, Ordering::SeqCst) + 1) }).await
    }

    async fn undo(&self, log: &EffectLog, key: &str) -> Result<Option<Option<u32>>, Failure> {
        let effects = Arc::clone(&self.effects);
        log.undo(key, |output: Option<u32>| async move {
            effects.fetch_sub(1, Ordering::SeqCst);
            Ok(output)
        })
        .await
    }

    fn effects(&self) -> u32 {
        self.effects.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn an_effect_happens_once_and_its_output_is_kept() {
    let scene = Scene::new();
    assert_eq!(scene.act(&scene.log, "a").await.unwrap(), 1);
    assert_eq!(scene.act(&scene.log, "a").await.unwrap(), 1);
    assert_eq!(scene.act(&scene.again(), "a").await.unwrap(), 1);
    assert_eq!(scene.act(&scene.log, "b").await.unwrap(), 2);
}

#[tokio::test]
async fn do_undo_undo_changes_nothing_the_second_time() {
    let scene = Scene::new();
    scene.act(&scene.log, "a").await.unwrap();
    assert_eq!(scene.undo(&scene.log, "a").await.unwrap(), Some(Some(1)));
    assert_eq!(scene.undo(&scene.again(), "a").await.unwrap(), None);
    assert_eq!(scene.effects(), 0);
}

#[tokio::test]
async fn undo_before_do_leaves_a_mark_that_refuses_the_do() {
    let scene = Scene::new();
    assert_eq!(scene.undo(&scene.log, "a").await.unwrap(), None);
    let failure = scene.act(&scene.again(), "a").await.unwrap_err();
    assert_eq!((failure.kind(), failure.code_text()), (Kind::Permanent, UNDONE_CODE));
    assert!(failure.had_no_effect());
    assert_eq!(scene.effects(), 0);
}

#[tokio::test]
async fn an_undo_that_fails_can_be_tried_again() {
    let scene = Scene::new();
    scene.act(&scene.log, "a").await.unwrap();
    let failure = scene
        .log
        .undo("a", |_: Option<u32>| async { Err::<(), _>(Failure::retryable("not now")) })
        .await
        .unwrap_err();
    assert_eq!(failure.message(), "not now");
    assert!(scene.act(&scene.log, "a").await.is_err(), "the undo has begun");
    assert_eq!(scene.undo(&scene.again(), "a").await.unwrap(), Some(Some(1)));
    assert_eq!(scene.effects(), 0);
}

#[tokio::test]
async fn an_effect_that_was_begun_is_announced_to_the_next_attempt() {
    let scene = Scene::new();
    let failed = scene.log.once("a", |begun| async move {
        assert!(!begun);
        Err::<u32, _>(Failure::retryable("half way"))
    });
    failed.await.unwrap_err();
    let begun = scene.again().once("a", |begun| async move { Ok(begun) }).await.unwrap();
    assert!(begun);
}

#[tokio::test]
async fn a_failure_without_effect_takes_the_beginning_back() {
    let scene = Scene::new();
    let failed = scene
        .log
        .once("a", |_| async { Err::<u32, _>(Failure::retryable("not begun").no_effect()) });
    failed.await.unwrap_err();
    assert_eq!(scene.again().lock().unwrap().mark("a"), None);
}

#[tokio::test]
async fn one_key_at_a_time_even_when_many_ask() {
    let scene = Arc::new(Scene::new());
    let mut asks = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let scene = Arc::clone(&scene);
        asks.spawn(async move { scene.act(&scene.log, "a").await.unwrap() });
    }
    while let Some(output) = asks.join_next().await {
        assert_eq!(output.unwrap(), 1);
    }
    assert_eq!(scene.effects(), 1);
}

#[test]
fn a_line_that_a_crash_cut_off_is_as_if_never_written() {
    let scene = Scene::new();
    scene.log.lock().unwrap().begin("a", "1").unwrap();
    let mut file = std::fs::OpenOptions::new().append(true).open(scene.log.path()).unwrap();
    file.write_all(br#"{"key":"b","mark":"do"#).unwrap();
    let again = scene.again();
    let mut locked = again.lock().unwrap();
    assert_eq!(locked.mark("b"), None);
    assert_eq!(locked.mark("a"), Some(&Mark::Begun("1".to_owned())));
    locked.done("b", "2").unwrap();
    drop(locked);
    assert_eq!(scene.log.lock().unwrap().mark("b"), Some(&Mark::Done("2".to_owned())));
}

#[test]
fn a_file_that_is_no_effect_log_is_refused_by_name() {
    let scene = Scene::new();
    let path = scene.folder.path().join("other");
    std::fs::write(&path, "hello\n").unwrap();
    let error = EffectLog::open(&path).unwrap_err().to_string();
    assert!(error.contains("other is no effect log"), "{error}");
}

#[test]
fn a_log_that_was_removed_begins_anew() {
    let scene = Scene::new();
    scene.log.lock().unwrap().done("a", "1").unwrap();
    std::fs::remove_file(scene.log.path()).unwrap();
    assert_eq!(scene.log.lock().unwrap().mark("a"), None);
}

/// Lines from which on a log is written anew.
const LINES: usize = 1_024;

fn lines(log: &EffectLog) -> usize {
    std::fs::read_to_string(log.path()).unwrap().lines().count()
}

/// Writes marks of one key until the log is due to be written anew.
fn fill(log: &EffectLog) {
    let mut locked = log.lock().unwrap();
    for _ in 0..=LINES / 2 {
        locked.done("filler", "null").unwrap();
        locked.forget("filler").unwrap();
    }
}

#[tokio::test]
async fn a_log_is_written_anew_and_knows_what_it_knew() {
    let scene = Scene::new();
    scene.act(&scene.log, "done").await.unwrap();
    scene.act(&scene.log, "undone").await.unwrap();
    scene.undo(&scene.log, "undone").await.unwrap();
    scene.log.lock().unwrap().begin("begun", "1").unwrap();
    {
        let mut locked = scene.log.lock().unwrap();
        locked.done("undoing", "2").unwrap();
        locked.undoing("undoing").unwrap();
    }
    let other = scene.again();
    fill(&scene.log);
    let marks = |log: &EffectLog| {
        let locked = log.lock().unwrap();
        let mut all: Vec<(String, Mark)> =
            locked.marks().map(|(key, mark)| (key.to_owned(), mark.clone())).collect();
        all.sort_by(|left, right| left.0.cmp(&right.0));
        (all, locked.unfinished(), locked.count())
    };
    let before = scene.log.lock().unwrap().count();
    assert!(lines(&scene.log) < 10, "it was written anew when it was locked");
    let known = marks(&scene.log);
    let want = [
        ("begun", Mark::Begun("1".to_owned())),
        ("done", Mark::Done("1".to_owned())),
        ("undoing", Mark::Undoing(Some("2".to_owned()))),
        ("undone", Mark::Undone),
    ];
    assert_eq!(known.0, want.map(|(key, mark)| (key.to_owned(), mark)));
    assert_eq!(
        (known.1.as_slice(), known.2),
        (["begun".to_owned(), "undoing".into()].as_slice(), before)
    );
    // Who had the old file open, and who comes new, see the same; and what they write is seen.
    assert_eq!(marks(&other), known);
    assert_eq!(marks(&scene.again()), known);
    scene.act(&other, "later").await.unwrap();
    assert_eq!(scene.log.lock().unwrap().mark("later"), Some(&Mark::Done("2".to_owned())));
    assert!(scene.act(&scene.log, "undone").await.is_err(), "a late do is refused still");
    assert_eq!(scene.undo(&scene.log, "done").await.unwrap(), Some(Some(1)));
}

#[tokio::test]
async fn ends_are_forgotten_after_their_time_and_nothing_else_is() {
    let scene = Scene::new();
    scene.act(&scene.log, "done").await.unwrap();
    scene.act(&scene.log, "undone").await.unwrap();
    scene.undo(&scene.log, "undone").await.unwrap();
    scene.log.lock().unwrap().begin("begun", "1").unwrap();
    // As if all of it had been written long ago.
    let text = std::fs::read_to_string(scene.log.path()).unwrap();
    let (head, _) = text.split_once("\"at\":").unwrap();
    assert!(head.contains("begun"));
    let old: String = text
        .lines()
        .map(|line| format!("{}\"at\":1000000000}}\n", line.split("\"at\":").next().unwrap()))
        .collect();
    std::fs::write(scene.log.path(), old).unwrap();
    let keys = |log: &EffectLog| {
        fill(log);
        let locked = log.lock().unwrap();
        let mut keys: Vec<String> = locked.marks().map(|(key, _)| key.to_owned()).collect();
        keys.sort();
        keys
    };
    assert_eq!(keys(&scene.again()), ["begun", "done"], "what was done can be undone for ever");
    let day = Duration::from_secs(24 * 60 * 60);
    let keep = Keep { done: Some(day), ..Keep::default() };
    let forgetful = EffectLog::open_keeping(scene.log.path(), keep).unwrap();
    assert_eq!(keys(&forgetful), ["begun"]);
}

#[tokio::test]
async fn many_effects_done_and_undone_leave_a_small_file() {
    let scene = Scene::new();
    let keep = Keep { undone: Duration::ZERO, done: None };
    let log = EffectLog::open_keeping(scene.folder.path().join("small"), keep).unwrap();
    {
        let mut locked = log.lock().unwrap();
        for key in 0..3 {
            locked.done(&format!("kept-{key}"), "null").unwrap();
        }
    }
    for round in 0..20 {
        fill(&log);
        let mut locked = log.lock().unwrap();
        locked.done(&format!("{round}"), "null").unwrap();
        locked.forget(&format!("{round}")).unwrap();
    }
    assert!(lines(&log) <= 2 * LINES, "{}", lines(&log));
    assert_eq!(log.lock().unwrap().marks().count(), 3);
}

#[test]
fn what_a_crash_left_of_writing_anew_is_no_hindrance() {
    let scene = Scene::new();
    scene.log.lock().unwrap().done("a", "1").unwrap();
    let next = scene.log.path().with_extension("next");
    std::fs::write(&next, "{\"key\":\"b\",\"mark\":\"done\"}\n{\"key\":\"c").unwrap();
    fill(&scene.log);
    let again = scene.again();
    let locked = again.lock().unwrap();
    assert_eq!(locked.marks().collect::<Vec<_>>(), [("a", &Mark::Done("1".to_owned()))]);
    assert!(!next.exists());
}

#[test]
fn a_log_that_cannot_be_written_anew_goes_on() {
    let scene = Scene::new();
    scene.log.lock().unwrap().done("a", "1").unwrap();
    std::fs::create_dir(scene.log.path().with_extension("next")).unwrap();
    fill(&scene.log);
    let mut locked = scene.log.lock().unwrap();
    locked.done("b", "2").unwrap();
    drop(locked);
    assert_eq!(scene.again().lock().unwrap().marks().count(), 2);
    assert!(lines(&scene.log) > LINES);
}

#[test]
fn processes_that_write_at_once_lose_nothing_when_the_log_is_written_anew() {
    let scene = Scene::new();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            // Each with a view of its own, as another process has.
            let log = scene.again();
            scope.spawn(move || {
                for key in 0..140 {
                    let key = format!("{writer}-{key}");
                    log.lock().unwrap().begin(&key, "null").unwrap();
                    let mut locked = log.lock().unwrap();
                    assert_eq!(locked.mark(&key), Some(&Mark::Begun("null".to_owned())));
                    locked.done(&key, "null").unwrap();
                }
            });
        }
    });
    let locked = scene.log.lock().unwrap();
    assert_eq!((locked.marks().count(), locked.unfinished().len()), (560, 0));
    assert_eq!(locked.count(), 1_120);
}
